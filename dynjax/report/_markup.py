"""Text that is safe inside HTML, and the style sheet of the page."""

import html
import re
from typing import Any

# Control characters and lone surrogates have no place in HTML.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def printable(text: Any) -> str:
    """`str(text)` with everything that HTML forbids replaced by U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", str(text))


def escaped(text: Any) -> str:
    """`str(text)` as it may stand in HTML, between tags and in quoted attributes."""
    return html.escape(printable(text), quote=True)


def paragraphs(text: str) -> str:
    """Escaped text, an empty line between paragraphs."""
    parts = re.split(r"\n\s*\n", printable(text).strip())
    return "".join(f"<p>{escaped(' '.join(part.split()))}</p>\n" for part in parts if part.strip())


STYLE_SHEET = """
:root { color-scheme: light dark; --ink: #22262b; --faint: #5c636b; --rule: #dfe3e7; --page: #ffffff; --link: #1f5f9e;
  --good: #1b629f; --neutral: #5a5a5a; --warning: #7a5600; --bad: #a63c24; --special: #7a3280; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --faint: #a4acb4; --rule: #363c43; --page: #16191d;
  --link: #8bbcec; --good: #8bbcec; --neutral: #b9bec4; --warning: #e0b45c; --bad: #f09a84; --special: #d9a2de; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.6 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", "Noto Sans", "Liberation Sans", Arial, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 4rem 2rem 5rem; }
header { margin-bottom: 2.5rem; }
h1 { font-size: 2rem; line-height: 1.2; font-weight: 650; letter-spacing: -0.015em; margin: 0 0 .6rem;
  text-wrap: balance; overflow-wrap: break-word; }
h2 { font-size: 1.3rem; line-height: 1.3; font-weight: 620; margin: 3.5rem 0 .8rem; padding-top: 1.1rem;
  border-top: 1px solid var(--rule); overflow-wrap: break-word; }
p { margin: 0 0 1rem; max-width: 46rem; overflow-wrap: break-word; }
.subtitle { font-size: 1.08rem; color: var(--faint); }
a { color: var(--link); text-decoration: none; }
a:hover { text-decoration: underline; }
nav { font-size: .9rem; color: var(--faint); margin-top: 1.2rem; }
nav a { display: inline-block; margin-right: 1.4rem; }
.headline { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 0 2rem; margin: 2rem 0 0;
  padding: .4rem 0; border: solid var(--rule); border-width: 1px 0; }
.headline div { padding: .7rem 0; }
.headline dt { font-size: .82rem; color: var(--faint); }
.headline dd { margin: 0; }
.headline .value { font-size: 1.75rem; line-height: 1.25; font-weight: 620; letter-spacing: -0.01em;
  font-variant-numeric: tabular-nums; }
.headline .note { font-size: .82rem; color: var(--faint); line-height: 1.4; text-wrap: balance; }
figure { margin: 2rem 0 2.4rem; }
.card { background: #fff; border: 1px solid var(--rule); border-radius: 6px; padding: 1rem 1rem .7rem; }
.card svg, .card img { display: block; width: 100%; height: auto; color: #22262b; }
.card svg * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption, caption { font-size: .9rem; line-height: 1.5; color: var(--faint); }
figcaption { margin-top: .7rem; max-width: 50rem; overflow-wrap: break-word; }
figcaption b, caption b { color: var(--ink); font-weight: 620; }
.scroll { overflow-x: auto; margin: 1.6rem 0 2.2rem; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; line-height: 1.4;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .7rem; }
th, td { padding: .42rem .65rem; text-align: left; vertical-align: baseline; border-bottom: 1px solid var(--rule); }
th:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
thead th { font-weight: 620; border-bottom: 1.5px solid var(--ink); border-top: 1.5px solid var(--ink);
  vertical-align: bottom; }
tbody tr:last-child > * { border-bottom: 1.5px solid var(--ink); }
tbody th { font-weight: 400; }
.number { text-align: right; white-space: nowrap; }
.chip { display: inline-block; white-space: nowrap; }
.chip::before { content: ""; display: inline-block; width: .6em; height: .6em; margin-right: .5em; border-radius: 50%;
  background: currentColor; }
.good { color: var(--good); }
.neutral { color: var(--neutral); }
.warning { color: var(--warning); }
.bad { color: var(--bad); }
.special { color: var(--special); }
.facts { columns: 2 19rem; column-gap: 2.5rem; }
.facts section { break-inside: avoid; padding-bottom: 1.4rem; }
.facts h3 { font-size: .95rem; font-weight: 620; margin: 0 0 .2rem; overflow-wrap: anywhere; }
.facts dl { margin: 0; font-size: .85rem; line-height: 1.45; }
.facts dl > div { display: flex; gap: 1rem; justify-content: space-between; border-bottom: 1px solid var(--rule);
  padding: .3rem 0; }
.facts dt { color: var(--faint); flex: none; max-width: 55%; overflow-wrap: anywhere; }
.facts dd { margin: 0; text-align: right; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
footer { margin-top: 4rem; padding-top: 1rem; border-top: 1px solid var(--rule); font-size: .82rem;
  color: var(--faint); }
@media (max-width: 40rem) { main { padding: 2rem 1.1rem 3rem; } .card { padding: .4rem; } }
@media print {
  :root { --ink: #000; --faint: #444; --page: #fff; --rule: #ccc; --link: #000; --good: #1b629f; --neutral: #5a5a5a;
    --warning: #7a5600; --bad: #a63c24; --special: #7a3280; }
  body { font-size: 10pt; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  figure, tr, .headline { break-inside: avoid; }
  h2 { break-after: avoid; }
  .card { border: 0; padding: 0; }
  .scroll { overflow: visible; }
}
"""
