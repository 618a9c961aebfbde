from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import check_that
from ._style import (
    FAINT,
    INK,
    TONES,
    colour_bar,
    finish_log_ticks,
    label,
    lane_colours,
    lane_ticks,
    legend,
    number,
    prepared,
    set_scales,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHADE = "#dfe8f1"
_CONTOUR = "#7d93a8"


def phase_diagram(
    x: Any,
    y: Any,
    values: Any,
    *,
    boundary: Sequence[Any],
    ax: "Axes | None" = None,
    boundary_label: str = "theory",
    level: float | None = None,
    level_labels: tuple[str, str] = ("at or above", "below"),
    names: Mapping[str, tuple[float, float]] | None = None,
    contours: Sequence[Any] | None = None,
    lines: Mapping[str, float] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    log_values: bool = True,
    x_limits: tuple[float, float] | None = None,
    y_limits: tuple[float, float] | None = None,
    x_label: str = "",
    y_label: str = "",
    value_label: str = "",
    title: str | None = None,
) -> "Axes":
    """A predicted boundary between two regions of a plane, and what was measured as coloured dots in it.

    The region under the boundary is shaded. Dots are circles where their value reaches `level` and diamonds where it does
    not, so that nothing hangs on colours alone; without a value they are grey crosses.

    Args:
        x: horizontal positions of the dots, shape (n,).
        y: vertical positions, shape (n,).
        values: what colours follow, shape (n,); NaN where there is none.
        boundary: (x, y), each of shape (m,), x increasing: the boundary as a function of x; infinite where the whole column is
            under it.
        ax: where to draw; a new figure by default.
        boundary_label: what the boundary is.
        level: the value at which dots change their shape; circles only by default.
        level_labels: what circles and what diamonds are.
        names: of the regions, each with the position of its middle.
        contours: (x, y, z, levels) of faint labelled contour lines, of shapes (k,), (l,), (l, k) and (p,).
        lines: vertical lines by name, e.g. asymptotes.
        log_x: logarithmic horizontal axis.
        log_y: logarithmic vertical axis.
        log_values: logarithmic colours.
        x_limits: of the horizontal axis; those of the boundary by default.
        y_limits: of the vertical axis; by default those of the dots with a margin.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
        value_label: of the colour bar.
        title: of the panel.

    Returns:
        The Axes.

    Raises:
        ValueError: if shapes do not match.
    """
    x, y, values = (np.asarray(part, float) for part in (x, y, values))
    same = x.ndim == 1 and x.shape == y.shape == values.shape
    check_that(same, "values", f"have shape {x.shape} like `x` and `y`", f"found {y.shape} and {values.shape}")
    edge_x, edge_y = (np.asarray(part, float) for part in boundary)
    check_that(edge_x.shape == edge_y.shape and edge_x.ndim == 1 and edge_x.size > 1, "boundary",
               "hold two equal shapes (m,), m > 1", f"found {edge_x.shape} and {edge_y.shape}")  # fmt: skip
    ax = prepared(ax, height=4.2)
    ax.grid(False)
    set_scales(ax, log_x=log_x, log_y=log_y)
    ax.set_xlim(*(x_limits or (edge_x[0], edge_x[-1])))
    ax.set_ylim(*(y_limits or _limits(y, log_y)))
    _draw_regions(ax, edge_x, edge_y, boundary_label)
    if contours is not None:
        _draw_contours(ax, contours)
    for name, at in (lines or {}).items():
        ax.axvline(at, color=INK, linewidth=1.0, linestyle=(0, (1.2, 1.6)), zorder=2, label=f"{name} {number(at)}")
    handles = ax.get_legend_handles_labels()[0]
    _draw_dots(ax, (x, y, values), level, log_values, value_label)
    for name, (across, up) in (names or {}).items():
        ax.text(across, up, name, ha="center", va="center", fontsize=9.5, color=INK, style="italic", zorder=3,
                bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 2})  # fmt: skip
    finish_log_ticks(ax)
    lane_ticks(ax.yaxis, y, gap=0.055)
    label(ax, x_label, y_label, title)
    shapes = _shape_handles(values, level, level_labels)
    legend(ax, [*handles, *shapes])
    return ax


def _limits(y: np.ndarray, log: bool) -> tuple[float, float]:
    low, high = float(y.min()), float(y.max())
    if log:
        return low / 1.3, high * 1.3
    margin = 0.15 * (high - low) if high > low else 0.5
    return low - margin, high + margin


def _draw_regions(ax: "Axes", x: np.ndarray, y: np.ndarray, text: str) -> None:
    low, high = ax.get_ylim()
    ax.fill_between(x, low, np.clip(np.where(np.isnan(y), low, y), low, high), color=_SHADE, linewidth=0, zorder=0)
    ax.plot(x, np.where(np.isfinite(y), y, np.nan), color=INK, linewidth=2.0, label=text, zorder=3)
    ax.set_ylim(low, high)


def _draw_contours(ax: "Axes", contours: Sequence[Any]) -> None:
    x, y, z, levels = (np.asarray(part, float) for part in contours)
    check_that(z.shape == (y.size, x.size), "contours", f"have z of shape {(y.size, x.size)}", f"found {z.shape}")
    drawn = ax.contour(x, y, np.ma.masked_invalid(z), levels=np.sort(levels), colors=_CONTOUR, linewidths=0.8, zorder=1)
    ax.clabel(drawn, fmt=lambda value: number(value), fontsize=7, colors=FAINT, inline_spacing=3)


def _draw_dots(ax: "Axes", dots: tuple[np.ndarray, ...], level: float | None, log: bool, text: str) -> None:
    x, y, values = dots
    known = np.isfinite(values) & ((values > 0) | (not log))
    ax.scatter(x[~known], y[~known], marker="x", color=TONES["neutral"], s=28, linewidth=1.4, zorder=4)
    if not known.any():
        return
    colours, mappable = lane_colours(values[known], log=log)
    above = values[known] >= (-np.inf if level is None else level)
    for marker, size, chosen in (("o", 62, above), ("D", 50, ~above)):
        rows = np.flatnonzero(chosen)
        ax.scatter(x[known][rows], y[known][rows], c=[colours[row] for row in rows], marker=marker, s=size,
                   edgecolor="white", linewidth=1.0, zorder=5)  # fmt: skip
    bar = colour_bar(ax, mappable, text)
    if level is not None and mappable.norm.vmin < level < mappable.norm.vmax:
        bar.ax.axhline(level, color="white", linewidth=1.6)


def _shape_handles(values: np.ndarray, level: float | None, texts: tuple[str, str]) -> list[Any]:
    from matplotlib.lines import Line2D

    marks = [("x", "no value")] if not np.all(np.isfinite(values)) else []
    if level is not None:
        marks = [("o", texts[0]), ("D", texts[1]), *marks]
    return [
        Line2D([], [], linestyle="", marker=marker, color=TONES["neutral"], markersize=6.5, label=text)
        for marker, text in marks
    ]
