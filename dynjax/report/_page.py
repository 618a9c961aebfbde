import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from .._core import check_that
from ._embed import figure_markup
from ._markup import STYLE_SHEET, escaped, paragraphs
from ._style import number
from ._table import cell, facts_markup, table_markup

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Page:
    """A report in one HTML file: nothing is loaded from elsewhere, no script runs, and equal input gives equal bytes.

    Sections, figures and tables appear in the order in which they are added; figures and tables are numbered. Every
    string is escaped, so names and messages of any origin may be shown.

    Args:
        title: of the page.
        subtitle: one or two sentences under the title.
        language: tag of the language of the text.

    Example:
        ```python
        page = dj.report.Page("Edge of stability", "Digits, full-batch gradient descent")
        page.headline([("Lanes at the edge", "6 of 8", "edge ratio within 5 %")])
        page.section("Sharpness", "The dashed lines are 2 / learning rate.")
        page.figure(dj.report.curves(steps, sharpness, values=rates, thresholds=2 / rates), "Sharpness.", alt="...")
        page.table(["learning rate", "status"], [[0.1, dj.report.Chip("at the edge", "good")]], "All lanes.")
        page.facts({"task": "digits", "versions": {"jax": "0.10.2"}})
        page.write("report.html")
        ```
    """

    def __init__(self, title: str, subtitle: str | None = None, *, language: str = "en"):
        self.title, self.subtitle, self.language = title, subtitle, language
        self._headline = ""
        self._footer = ""
        self._parts: list[str] = []
        self._sections: list[str] = []
        self._figures = 0
        self._tables = 0

    def headline(self, entries: Sequence[tuple[str, Any, str | None]]) -> None:
        """Key figures under the title, each (label, value, note); numbers are rounded to three digits."""
        blocks = []
        for label, value, note in entries:
            shown = number(value, 3) if isinstance(value, float) else cell(value)
            below = f'<dd class="note">{escaped(note)}</dd>' if note else ""
            blocks.append(f'<div><dt>{escaped(label)}</dt><dd class="value">{shown}</dd>{below}</div>\n')
        self._headline = f'<dl class="headline">\n{"".join(blocks)}</dl>\n'

    def section(self, heading: str, text: str | None = None) -> None:
        """Begin a section; an empty line in `text` begins a paragraph."""
        self._sections.append(heading)
        self._parts.append(f'<h2 id="section-{len(self._sections)}">{escaped(heading)}</h2>\n')
        if text:
            self.text(text)

    def text(self, text: str) -> None:
        """Add paragraphs, with an empty line between them."""
        self._parts.append(paragraphs(text))

    def figure(self, figure: Any, caption: str, alt: str) -> None:
        """Add a figure at full width.

        Args:
            figure: a matplotlib `Figure` or `Axes`; drawn at once, and not kept.
            caption: what is seen, below the figure and after its number.
            alt: the same for those who cannot see it; must not be empty.

        Raises:
            ValueError: if `alt` is empty.
        """
        check_that(bool(alt.strip()), "alt", "say what the figure shows", "it is empty")
        self._figures += 1
        drawn = figure_markup(figure, f"f{self._figures}", alt)
        below = f"<figcaption><b>Figure {self._figures}.</b> {escaped(caption)}</figcaption>"
        self._parts.append(f'<figure><div class="card">{drawn}</div>{below}</figure>\n')

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], caption: str = "") -> None:
        """Add a table.

        Args:
            columns: headings.
            rows: cells: text, numbers (four significant digits, aligned right if the whole column is numbers),
                booleans, `None` or NaN for missing, `Chip` for a coloured word. The first cell heads its row.
            caption: what the table holds, after its number.

        Raises:
            ValueError: if a row has another length than `columns`.
        """
        markup = table_markup(columns, rows, caption, f"Table {self._tables + 1}.")
        self._tables += 1
        self._parts.append(markup)

    def facts(self, facts: Mapping[str, Any]) -> None:
        """Add names and values, e.g. configuration and versions; nested mappings get headings of their own."""
        self._parts.append(facts_markup(facts))

    def footer(self, text: str) -> None:
        """Set the line at the end of the page."""
        self._footer = f"<footer>{escaped(text)}</footer>\n"

    def html(self) -> str:
        """The page as text."""
        below = f'<p class="subtitle">{escaped(self.subtitle)}</p>\n' if self.subtitle else ""
        return (
            f'<!DOCTYPE html>\n<html lang="{escaped(self.language)}">\n<head>\n<meta charset="utf-8">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
            f"<title>{escaped(self.title)}</title>\n<style>{STYLE_SHEET}</style>\n</head>\n<body>\n<main>\n"
            f"<header>\n<h1>{escaped(self.title)}</h1>\n{below}{self._headline}{self._contents()}</header>\n"
            f"{''.join(self._parts)}{self._footer}</main>\n</body>\n</html>\n"
        )

    def write(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Write the page to `path`, which holds the old content or the new, never a part.

        Returns:
            The path.

        Raises:
            OSError: if it cannot be written; nothing is left behind.
        """
        path = pathlib.Path(path)
        content = self.html().encode()
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return path

    def _contents(self) -> str:
        if len(self._sections) < 3:
            return ""
        links = [f'<a href="#section-{i}">{escaped(text)}</a>' for i, text in enumerate(self._sections, start=1)]
        return f'<nav aria-label="Contents">{"".join(links)}</nav>\n'
