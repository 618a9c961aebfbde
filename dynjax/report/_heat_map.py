from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import check_that
from ._style import colour_bar, finish_log_ticks, label, lane_ticks, prepared, set_scales

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def heat_map(
    x: Any,
    y: Any,
    values: Any,
    *,
    ax: "Axes | None" = None,
    limits: tuple[float, float] | None = None,
    crossing: float | None = None,
    log_x: bool = False,
    log_y: bool = False,
    log_values: bool = False,
    x_label: str = "step",
    y_label: str = "learning rate",
    value_label: str = "",
    title: str | None = None,
) -> "Axes":
    """A quantity over two axes as a field of colours, e.g. the edge ratio over step and learning rate.

    Cells without a value are hatched grey.

    Args:
        x: centres of the columns, increasing, shape (n,).
        y: centres of the rows, shape (m,); rows are sorted, and rows with equal `y` averaged.
        values: shape (m, n); NaN where there is none.
        ax: where to draw; a new figure by default.
        limits: of the colours; by default the 1 % and 99 % quantiles.
        crossing: a level, e.g. 1 for the edge of stability: a white bar shows where each row first reaches it.
        log_x: logarithmic horizontal axis.
        log_y: logarithmic vertical axis.
        log_values: logarithmic colours.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
        value_label: of the colour bar.
        title: of the panel.

    Returns:
        The Axes.

    Raises:
        ValueError: if shapes do not match.
    """
    from matplotlib.colors import LogNorm, Normalize

    x, y, values = (np.asarray(array, float) for array in (x, y, values))
    expected = (y.size, x.size)
    check_that(values.shape == expected, "values", f"have shape {expected}, like `y` and `x`", f"found {values.shape}")
    y, values = _one_row_each(y, np.where(np.isfinite(values), values, np.nan))
    low, high = _limits(values, log_values) if limits is None else limits
    ax = prepared(ax)
    ax.grid(False)
    ax.set_facecolor("#eceeef")
    ax.patch.set(hatch="////", edgecolor="#d5d9dc")
    norm = (LogNorm if log_values else Normalize)(low, high)
    columns, rows = _edges(x, log_x), _edges(y, log_y)
    field = np.ma.masked_invalid(values)
    mesh = ax.pcolormesh(columns, rows, field, cmap="viridis", norm=norm, rasterized=True)
    set_scales(ax, log_x=log_x, log_y=log_y)
    finish_log_ticks(ax)
    lane_ticks(ax.yaxis, y, gap=0.055)
    label(ax, x_label, y_label, title)
    bar = colour_bar(ax, mesh, value_label)
    if crossing is not None:
        _draw_crossings(ax, x, rows, values, crossing)
        bar.ax.axhline(crossing, color="white", linewidth=1.4)
    return ax


def _draw_crossings(ax: "Axes", x: np.ndarray, rows: np.ndarray, values: np.ndarray, level: float) -> None:
    for row, reached in enumerate(values >= level):
        if reached.any():
            where = x[np.argmax(reached)]
            ax.plot([where, where], rows[row : row + 2], color="white", linewidth=1.6, solid_capstyle="butt")


def _one_row_each(y: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    different = np.unique(y)
    rows = []
    for value in different:
        same = values[y == value]
        count = np.isfinite(same).sum(axis=0)
        rows.append(np.where(count > 0, np.nansum(same, axis=0) / np.maximum(count, 1), np.nan))
    return different, np.stack(rows)


def _limits(values: np.ndarray, log: bool) -> tuple[float, float]:
    finite = values[np.isfinite(values) & ((values > 0) | (not log))]
    if not finite.size:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = (float(q) for q in np.quantile(finite, [0.01, 0.99]))
    if low < high:
        return low, high
    return (low / 2, low * 2) if log else (low - 0.5, low + 0.5)


def _edges(centres: np.ndarray, log: bool) -> np.ndarray:
    """Borders of cells around increasing centres, half way (on the logarithmic scale, if that is the axis)."""
    position = np.log(centres) if log else centres
    if position.size == 1:
        edges = position[0] + np.array([-0.5, 0.5])
    else:
        inner = (position[1:] + position[:-1]) / 2
        edges = np.concatenate([[2 * position[0] - inner[0]], inner, [2 * position[-1] - inner[-1]]])
    return np.exp(edges) if log else edges
