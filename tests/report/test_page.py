import collections
import html
import html.parser
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from dynjax import report
from dynjax.report import _embed

VOID = {"meta", "img", "br", "hr", "input", "link"}
HOSTILE = (
    "<script>alert(1)</script>\"'><img src=http://evil.example/x onerror=alert(1)>&amp;\x00\x1b\ud800"
    ' style="font-family: a;" id="b" href="#c" url(#d) $\\frac{'
)


class Reader(html.parser.HTMLParser):
    """Follows a page, and fails where tags do not match."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes = [], collections.Counter(), []
        self.text, self.ids, self.references = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.attributes += [(tag, *pair) for pair in attrs]
        assert len({name for name, _ in attrs}) == len(attrs), f"twice the same attribute in {tag}"
        for name, value in attrs:
            self.ids += [value] if name == "id" else []
            self.references += re.findall(r"url\(#([^)]*)\)", value or "")
            self.references += [value[1:]] if name == "href" and value.startswith("#") else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def example(text="plain"):
    page = report.Page(f"Title {text}", f"Subtitle {text}")
    page.headline([(f"Label {text}", f"Value {text}", f"Note {text}"), ("ratio", 1.0002, None), ("count", 12345, "")])
    for number in range(3):
        page.section(f"Section {number} {text}", f"One {text}.\n\nTwo.")
    steps, rates = np.arange(50), np.array([0.1, 0.2])
    loss = np.exp(-rates[:, None] * steps)
    ax = report.curves(steps, loss, values=rates, x_label=text, y_label=text, title=text, value_label=text)
    page.figure(ax, f"Caption {text}", f"Alt {text}")
    page.figure(report.ratio_against(rates, [1.0, 0.5], verdicts=[text, "fine"]).get_figure(), "Ratio.", "Ratio")
    page.figure(report.heat_map(steps, rates, loss, value_label=text), "Map.", "Map")
    page.figure(report.status_map(rates, [0, 0], [text, "fine"]), "Status.", "Status")
    page.figure(report.densities(steps, loss, values=rates, markers=rates, marker_label=text), "Density.", "Density")
    rows = [[text, 1.5, report.Chip(text, "bad"), None], ["b", float("nan"), True, [1, 2.5, text]]]
    page.table(["first", f"column {text}", "chip", "mixed"], rows, f"Table {text}")
    page.facts({f"key {text}": text, "nested": {"a": {f"deep {text}": [1, text]}}, "array": np.array([0.5, 1.0])})
    page.footer(f"Footer {text}")
    return page


def test_page_is_balanced_and_complete():
    page = Reader(example().html())
    assert page.tags["h1"] == 1
    assert page.tags["h2"] == 3
    assert page.tags["figure"] == page.tags["figcaption"] == 5
    assert page.tags["table"] == page.tags["caption"] == 1
    for needed in [("html", "lang", "en"), ("meta", "charset", "utf-8"), ("meta", "name", "viewport")]:
        assert needed in page.attributes
    text = " ".join("".join(page.text).split())
    for shown in ("Figure 5. Density.", "Table 1. Table plain", "1.00", "12,345", "nested / a", "1, 2.5, plain"):
        assert shown in text


def test_figures_have_alternative_texts_and_tables_scopes():
    page = Reader(example().html())
    labels = [value for tag, name, value in page.attributes if tag == "svg" and name == "aria-label"]
    assert labels == ["Alt plain", "Ratio", "Map", "Status", "Density"]
    scopes = collections.Counter(value for tag, name, value in page.attributes if tag == "th" and name == "scope")
    assert scopes == {"col": 4, "row": 2}
    assert page.tags["th"] == 6


def test_names_are_unique_and_references_lead_somewhere():
    page = Reader(example().html())
    assert len(page.ids) == len(set(page.ids)) > 50
    assert page.references
    assert set(page.references) <= set(page.ids)


def test_nothing_is_loaded_from_elsewhere():
    text = example().html()
    assert "http:" not in text
    assert "https:" not in text
    assert "//" not in re.sub(r"base64,[^\"]*", "", text)
    assert "@import" not in text
    page = Reader(text)
    assert page.tags["script"] == page.tags["link"] == page.tags["iframe"] == 0
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href"):
            assert value.startswith(("#", "data:image/png;base64,"))
    assert ("meta", "content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in page.attributes


def test_hostile_text_is_shown_and_does_nothing():
    plain, hostile = Reader(example().html()), Reader(example(HOSTILE).html())
    for tag in ("script", "img", "style", "h1", "td", "th", "figure"):
        assert hostile.tags[tag] == plain.tags[tag], tag
    assert not [name for _, name, _ in hostile.attributes if name.startswith("on")]
    assert {tag for tag, name, _ in hostile.attributes if name in ("src", "href")} <= {"a", "use", "image"}
    assert len(hostile.ids) == len(set(hostile.ids))
    shown = HOSTILE.replace("\x00", "\ufffd").replace("\x1b", "\ufffd").replace("\ud800", "\ufffd")
    text = "".join(hostile.text)
    for place in (
        "Title",
        "Subtitle",
        "Label",
        "Value",
        "Note",
        "Section 0",
        "Caption",
        "column",
        "Table",
        "key",
        "Footer",
    ):
        assert f"{place} {shown}" in text, place
    alts = [value for tag, name, value in hostile.attributes if tag == "svg" and name == "aria-label"]
    assert alts[0] == f"Alt {shown}"


def test_language_cannot_break_out():
    page = Reader(report.Page("t", language='en"><script>').html())
    assert page.tags["script"] == 0


def test_equal_input_gives_equal_bytes():
    assert example().html() == example().html()


def test_bytes_do_not_depend_on_the_process(tmp_path):
    code = f"import sys; sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r}); import test_page as t; "
    digests = set()
    for seed in ("1", "2"):
        run = subprocess.run(
            [
                sys.executable,
                "-c",
                code + "import hashlib; print(hashlib.sha256(t.example().html().encode()).hexdigest())",
            ],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        digests.add(run.stdout)
    assert len(digests) == 1


def test_heavy_figures_become_png(monkeypatch):
    ax = report.curves(np.arange(50), np.ones((2, 50)))
    monkeypatch.setattr(_embed, "MOST_SVG_BYTES", 1000)
    markup = _embed.figure_markup(ax, "f1", 'a "b" <c>')
    assert markup.startswith('<img alt="a &quot;b&quot; &lt;c&gt;" src="data:image/png;base64,iVBOR')
    assert Reader(markup).tags == {"img": 1}
    assert markup == _embed.figure_markup(ax, "f1", 'a "b" <c>')


def test_sixty_four_long_lanes_stay_small():
    lanes = np.cumsum(np.random.default_rng(0).normal(size=(64, 5000)), axis=1)
    page = report.Page("many")
    page.figure(report.curves(np.arange(5000), lanes), "Many lanes.", "many lanes")
    assert len(page.html()) < 900_000


def test_write_replaces_at_once_and_leaves_nothing_behind(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")
    assert report.Page("new").write(path) == path
    assert path.read_text(encoding="utf-8") == report.Page("new").html()
    assert os.listdir(tmp_path) == ["report.html"]

    def fail(*_):
        assert path.read_text(encoding="utf-8") == report.Page("new").html()  # still whole while the next is written
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        report.Page("newer").write(path)
    assert path.read_text(encoding="utf-8") == report.Page("new").html()
    assert os.listdir(tmp_path) == ["report.html"]


def test_written_page_has_the_usual_permissions(tmp_path):
    (tmp_path / "other").write_text("")
    report.Page("t").write(str(tmp_path / "a.html"))
    assert (tmp_path / "a.html").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_number_columns_are_aligned_right():
    page = report.Page("t")
    page.table(["name", "all numbers", "mixed"], [["a", 1.5, 1], ["b", None, "x"], ["c", np.float32(2), 3]])
    text = page.html()
    assert '<th scope="col" class="number">all numbers</th><th scope="col">mixed</th>' in text
    assert '<td class="number">–</td><td>x</td>' in text


def test_mistakes_are_refused_in_one_sentence():
    page = report.Page("t")
    with pytest.raises(ValueError, match="`rows` must have 2 cells each, but found 1"):
        page.table(["a", "b"], [[1]])
    with pytest.raises(ValueError, match="`alt` must say what the figure shows"):
        page.figure(report.curves([1, 2], [1, 2]), "caption", " ")
    with pytest.raises(ValueError, match="`tone` must be one of good, "):
        page.table(["a"], [[report.Chip("x", "bad' onclick='")]])
