"""Summaries as text for a terminal."""

from collections.abc import Sequence


def text_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 0, prose: bool = True) -> str:
    """A header, a rule, and a line for each row.

    Args:
        columns: the header.
        rows: cells of text, as many as there are columns.
        left: how many of the first columns are set flush left; the others are flush right, as numbers are.
        prose: whether the last column is text of its own, which is neither padded nor set flush right.

    Returns:
        The lines as one text.
    """
    table = [tuple(columns), *(tuple(row) for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        if prose:
            cells[-1] = row[-1]
        return "  ".join(cells).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(table[0]), rule, *(line(row) for row in table[1:])])
