"""What reports share: a section that shows one figure."""

from typing import Any


def add_figure_section(page: Any, figure: Any, title: str, text: str, caption: str, *, alt: str) -> None:
    """Add a section with a figure to a page, or nothing where there is no figure.

    Args:
        page: a `dynjax.report.Page`.
        figure: a Matplotlib figure, or None where the store holds nothing to draw yet.
        title: of the section.
        text: what is to be seen.
        caption: below the figure.
        alt: the figure in words.
    """
    if figure is not None:
        page.section(title, text)
        page.figure(figure, caption, alt=alt)
