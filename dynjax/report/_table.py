import numbers
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .._core import check_that
from ._markup import escaped
from ._style import TONES, number


class Chip(NamedTuple):
    """A word in a table cell with a coloured dot before it, e.g. a status; `tone` is a key of `report.TONES`."""

    text: str
    tone: str = "neutral"


def cell(value: Any) -> str:
    """The markup of one value: four significant digits for numbers, yes and no, a dash for what is missing."""
    if isinstance(value, Chip):
        check_that(value.tone in TONES, "tone", f"be one of {', '.join(TONES)}", f"found {value.tone!r}")
        return f'<span class="chip {value.tone}">{escaped(value.text)}</span>'
    if value is None:
        return "–"
    value = _scalar(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, numbers.Integral):
        return f"{int(value):,}".replace("-", "−")
    if isinstance(value, numbers.Real):
        return number(float(value))
    if isinstance(value, list | tuple):
        return ", ".join(cell(item) for item in value) or "–"
    return escaped(value) or "–"


def _scalar(value: Any) -> Any:
    """A NumPy or JAX array without axes as a Python number, arrays as lists, everything else as it is."""
    return np.asarray(value).tolist() if hasattr(value, "dtype") and hasattr(value, "shape") else value


def table_markup(columns: Sequence[str], rows: Sequence[Sequence[Any]], caption: str, name: str) -> str:
    """A table whose first column heads its rows; columns of numbers are aligned right."""
    rows = [list(row) for row in rows]
    for row in rows:
        check_that(len(row) == len(columns), "rows", f"have {len(columns)} cells each", f"found {len(row)}")
    right = [all(_is_number(row[column]) for row in rows) and bool(rows) for column in range(len(columns))]
    kinds = [' class="number"' if is_number else "" for is_number in right]
    head = "".join(f'<th scope="col"{kind}>{escaped(text)}</th>' for text, kind in zip(columns, kinds, strict=True))
    body = []
    for row in rows:
        cells = [cell(value) for value in row]
        first = f'<th scope="row"{kinds[0]}>{cells[0]}</th>' if cells else ""
        rest = "".join(f"<td{kind}>{text}</td>" for text, kind in zip(cells[1:], kinds[1:], strict=True))
        body.append(f"<tr>{first}{rest}</tr>\n")
    top = f"<caption><b>{name}</b> {escaped(caption)}</caption>\n"
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table>{top}'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(body)}</tbody></table></div>\n"
    )


def _is_number(value: Any) -> bool:
    value = _scalar(value)
    return value is None or (isinstance(value, numbers.Real) and not isinstance(value, bool))


def facts_markup(facts: Mapping[str, Any]) -> str:
    """Names and values side by side, in order; every nested mapping becomes a list of its own under its path."""
    lists: list[tuple[str, list[tuple[str, Any]]]] = []
    _collect("", facts, lists)
    sections = []
    for heading, entries in lists:
        pairs = "".join(f"<div><dt>{escaped(name)}</dt><dd>{cell(value)}</dd></div>\n" for name, value in entries)
        top = f"<h3>{escaped(heading)}</h3>" if heading else ""
        sections.append(f"<section>{top}<dl>\n{pairs}</dl></section>\n")
    return f'<div class="facts">\n{"".join(sections)}</div>\n'


def _collect(heading: str, facts: Mapping[str, Any], lists: list[tuple[str, list[tuple[str, Any]]]]) -> None:
    entries = [(str(name), value) for name, value in facts.items() if not isinstance(value, Mapping)]
    if entries:
        lists.append((heading, entries))
    for name, value in facts.items():
        if isinstance(value, Mapping):
            _collect(f"{heading} / {name}" if heading else str(name), value, lists)
