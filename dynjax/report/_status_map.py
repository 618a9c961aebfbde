from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import check_that
from ._style import FAINT, label, legend, number, prepared, tone_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def status_map(
    x: Any,
    y: Any,
    words: Sequence[str],
    *,
    ax: "Axes | None" = None,
    tones: Mapping[str, str] | None = None,
    x_label: str = "learning rate",
    y_label: str = "seed",
    title: str | None = None,
) -> "Axes":
    """How every lane ended: a grid of cells, one column for each `x`, one row for each `y`.

    Cells carry their word, or its first letters if they are narrow, so that colour is not the only sign.

    Args:
        x: e.g. learning rates, shape (lanes,).
        y: e.g. seeds, shape (lanes,).
        words: one word for each lane, e.g. "at the edge" or "diverged".
        ax: where to draw; a new figure by default.
        tones: the tone of each word: a key of `TONES`.
        x_label: of the columns.
        y_label: of the rows.
        title: of the panel.

    Returns:
        The Axes.

    Raises:
        ValueError: if shapes do not match, or a tone is not known.
    """
    from matplotlib.patches import Rectangle

    x, y, words = np.asarray(x, float), np.asarray(y, float), [str(word) for word in words]
    sizes = (x.size, y.size, len(words))
    check_that(len(set(sizes)) == 1, "words", "have as many entries as `x` and `y`", f"found {sizes}")
    columns, rows = np.unique(x), np.unique(y)
    colours = tone_colours(words, tones)
    wide = columns.size * max(map(len, colours), default=0) <= 96
    short = {word: word for word in colours} if wide else _abbreviations(list(colours))
    ax = prepared(ax, height=1.3 + 0.32 * rows.size)
    ax.grid(False)
    for side in ax.spines.values():
        side.set_visible(False)
    size = 7.5 if wide else float(np.clip(120 / columns.size, 4, 8))
    for column, row, word in zip(np.searchsorted(columns, x), np.searchsorted(rows, y), words, strict=True):
        ax.add_patch(Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, facecolor=colours[word], linewidth=0))
        text = ax.text(column, row, short[word], color="white", fontsize=size, ha="center", va="center")
        text.set(parse_math=False, fontweight="bold")
    every = -(-columns.size // 10)
    ax.set_xticks(range(0, columns.size, every), [number(value, 3) for value in columns[::every]])
    ax.set_yticks(range(rows.size), [number(value) for value in rows])
    ax.set(xlim=(-0.5, columns.size - 0.5), ylim=(rows.size - 0.5, -0.5))
    ax.tick_params(length=0, labelcolor=FAINT)
    label(ax, x_label, y_label, title)
    if not wide:
        names = {word: f"{short[word]}: {word}" for word in colours}
        handles = [Rectangle((0, 0), 1, 1, facecolor=colour, label=names[w]) for w, colour in colours.items()]
        legend(ax, handles, beside=True)
    return ax


def _abbreviations(words: list[str]) -> dict[str, str]:
    """The shortest initial letters (up to three) that tell the words apart, capitalised."""
    for length in (1, 2, 3):
        short = {word: word[:length].capitalize() for word in words}
        if len(set(short.values())) == len(words):
            return short
    return {word: str(position + 1) for position, word in enumerate(words)}
