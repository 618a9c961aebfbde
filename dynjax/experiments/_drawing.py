"""What the figures of several experiments share."""

from typing import Any

import numpy as np

INK, FAINT, RULE = "#22262b", "#5c636b", "#c9ced4"  # of lines, of marks behind them, of what lies under everything


def legend(ax: Any) -> None:
    """The legend of a panel, in the house style."""
    ax.legend(framealpha=0.9, edgecolor="none", fontsize=8, labelcolor=INK, handlelength=1.6, labelspacing=0.45)


def spread_out(values: list[Any], most: int) -> list[Any]:
    """At most so many of sorted values, evenly spread, with both ends."""
    chosen = np.unique(np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int))
    return [values[index] for index in chosen]
