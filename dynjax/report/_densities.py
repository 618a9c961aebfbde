from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import check_that
from ._style import FAINT, label, lane_colours, number, prepared, set_scales, trimmed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_OVERLAP = 1.6


def densities(
    grid: Any,
    density: Any,
    *,
    ax: "Axes | None" = None,
    values: Any = None,
    value_label: str = "learning rate",
    markers: Any = None,
    marker_label: str = "threshold",
    decades: float = 4.0,
    linear_width: float | None = None,
    x_label: str = "eigenvalue",
    title: str | None = None,
) -> "Axes":
    """Spectral densities as a ridge line: one logarithmic profile for each lane, above each other.

    The height of a ridge is the logarithm of its density over `decades` powers of ten below the largest density of all
    lanes, so that single outlying eigenvalues can be seen beside the bulk. Each ridge is labelled with the value of its
    lane; a lane without a density has a label and no ridge.

    Args:
        grid: eigenvalues, shape (n,) or (lanes, n).
        density: shape (lanes, n) or (n,); NaN and values below the range are drawn at the base.
        ax: where to draw; a new figure by default.
        values: what colours and labels follow, shape (lanes,); ridges are stacked in this order.
        value_label: what `values` are.
        markers: one tick for each lane, e.g. its stability threshold, shape (lanes,); NaN for none.
        marker_label: what the ticks are.
        decades: powers of ten shown.
        linear_width: half the width of the linear part around zero of an otherwise logarithmic eigenvalue axis; a plain
            linear axis by default.
        x_label: of the horizontal axis.
        title: of the panel.

    Returns:
        The Axes.

    Raises:
        ValueError: if shapes do not match, or no density is positive.
    """
    density = np.atleast_2d(np.asarray(density, float))
    lanes, n = density.shape
    grid = np.asarray(grid, float)
    check_that(grid.shape in ((n,), (lanes, n)), "grid", f"have shape ({n},) or ({lanes}, {n})", f"found {grid.shape}")
    grid = np.broadcast_to(grid, (lanes, n))
    values = np.arange(lanes) if values is None else np.asarray(values, float)
    check_that(values.shape == (lanes,), "values", f"have shape ({lanes},), one for each lane", f"found {values.shape}")
    heights = _heights(density, decades)
    order = np.argsort(values, kind="stable")
    colours, _ = lane_colours(values)

    ax = prepared(ax, height=min(1.4 + 0.42 * lanes, 9.0))
    ax.grid(False, axis="y")
    for level, lane in enumerate(order):
        ridge, front = level + _OVERLAP * heights[lane], 3 * (lanes - level)
        if heights[lane].any():
            ax.fill_between(grid[lane], level, ridge, color=colours[lane], alpha=0.55, linewidth=0, zorder=front)
            ax.plot(grid[lane], ridge, color=colours[lane], linewidth=1.0, zorder=front + 1)
    set_scales(ax)
    if linear_width is not None:
        plain = ax.xaxis.get_major_formatter()
        ax.set_xscale("symlog", linthresh=linear_width, linscale=0.6)
        ax.xaxis.set_major_formatter(plain)
    if markers is not None:
        markers = np.asarray(markers, float)
        check_that(markers.shape == (lanes,), "markers", f"have shape ({lanes},)", f"found {markers.shape}")
        _draw_markers(ax, np.where(heights.any(axis=1), markers, np.nan)[order], marker_label)
    _label_ridges(ax, values[order], lanes)
    label(ax, x_label, value_label, title)
    ax.annotate(f"height: log density, {decades:g} decades", (1, 1), (0, 4), xycoords="axes fraction",
                textcoords="offset points", ha="right", va="bottom", fontsize=7.5, color=FAINT)  # fmt: skip
    return ax


def _heights(density: np.ndarray, decades: float) -> np.ndarray:
    """Log density between 0 (`decades` below the largest of all, or less) and 1."""
    positive = np.where(np.isfinite(density) & (density > 0), density, 0.0)
    check_that(positive.max() > 0, "density", "be positive somewhere", "found none")
    top = np.log10(positive.max())
    with np.errstate(divide="ignore"):
        return np.clip((np.log10(positive) - top) / decades + 1.0, 0.0, 1.0)


def _draw_markers(ax: "Axes", markers: np.ndarray, text: str) -> None:
    front = 3 * len(markers) + 3
    shown = np.flatnonzero(np.isfinite(markers))
    for level in shown:
        ax.plot([markers[level]] * 2, [level, level + 0.72], color="#b8442a", linewidth=1.5, zorder=front,
                label=trimmed(text, 40) if level == shown[0] else None)  # fmt: skip
    if shown.size:
        drawn = ax.legend(loc="upper right", fontsize=8, framealpha=0.9, edgecolor="none", handlelength=1.2)
        drawn.get_texts()[0].set_parse_math(False)
        drawn.set_zorder(front + 1)


def _label_ridges(ax: "Axes", values: np.ndarray, lanes: int) -> None:
    every = -(-lanes // 24)
    levels = np.arange(0, lanes, every)
    ax.set_yticks(levels, [number(values[level], 3) for level in levels])
    ax.set_ylim(-0.25, lanes - 1 + _OVERLAP + 0.15)
    ax.margins(x=0.01)
