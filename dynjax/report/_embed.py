"""Figures as markup: one inline SVG whose names clash with no other, or a PNG in a data address. No links, no dates."""

import base64
import io
import re
import warnings
from typing import Any

from ._markup import escaped, printable

MOST_SVG_BYTES = 400_000
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "dynjax",
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so that the layout is the same everywhere
    "path.simplify": True,
}


def figure_markup(figure: Any, prefix: str, alt: str) -> str:
    """A matplotlib figure (or the figure of an Axes) as SVG, or as PNG where the SVG would be heavy.

    Args:
        figure: a `matplotlib.figure.Figure` or `Axes`.
        prefix: set before every name inside the SVG, and unique on the page.
        alt: what the figure shows, for those who cannot see it.
    """
    figure = figure if hasattr(figure, "savefig") else figure.get_figure()
    svg = _svg(figure, prefix, alt)
    if len(svg.encode()) <= MOST_SVG_BYTES:
        return svg
    content = base64.b64encode(_saved(figure, "png", dpi=200, metadata={"Software": None})).decode()
    return f'<img alt="{escaped(alt)}" src="data:image/png;base64,{content}">'


def _saved(figure: Any, kind: str, **options: Any) -> bytes:
    import matplotlib
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if text.get_text() != printable(text.get_text()):
            text.set_text(printable(text.get_text()))
    stream = io.BytesIO()
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # the browser has more glyphs than the layout needs
        figure.savefig(stream, format=kind, facecolor="white", **options)
    return stream.getvalue()


def _svg(figure: Any, prefix: str, alt: str) -> str:
    source = printable(_saved(figure, "svg", metadata={"Date": None}).decode("utf-8", "replace"))
    head, body = re.match(r".*?<svg ([^>]*)>(.*)</svg>", source, re.DOTALL).groups()  # type: ignore[union-attr]
    box = re.search(r'viewBox="([^"]*)"', head).group(1)  # type: ignore[union-attr]
    # The style is given by the page, and the metadata are links.
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"<[^<>]*>", lambda tag: _own_names(tag.group(), prefix), body)
    body = re.sub(r">\s+<", ">\n<", body)
    return f'<svg viewBox="{box}" role="img" aria-label="{escaped(alt)}">{body}</svg>'


def _own_names(tag: str, prefix: str) -> str:
    """A tag whose names and references are prefixed, whose text takes the font of the page, without namespaces."""
    tag = tag.replace(" xlink:href=", " href=")
    tag = re.sub(r' xmlns(:\w+)?="[^"]*"', "", tag)
    tag = re.sub(r'(\sid="|\shref="#|url\(#)', rf"\1{prefix}-", tag)
    if tag.startswith("<path"):
        tag = re.sub(r"(\d\.\d\d)\d+", r"\1", tag)  # a hundredth of a point
    tag = re.sub(r"font-family: [^;\"]*;? ?", "", tag)
    return re.sub(r"(font: [^;\"']*px )[^;\"]*", r"\1system-ui, sans-serif", tag)
