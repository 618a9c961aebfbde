import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import check_that
from ._style import colour_bar, finish_log_ticks, label, lane_colours, legend, number, prepared, set_scales

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_IN_LEGEND = 12


def curves(
    x: Any,
    ys: Any,
    *,
    ax: "Axes | None" = None,
    values: Any = None,
    value_label: str = "learning rate",
    thresholds: Any = None,
    threshold_label: str = "threshold",
    log_x: bool = False,
    log_y: bool = False,
    x_label: str = "step",
    y_label: str = "",
    title: str | None = None,
    show_values: bool = True,
) -> "Axes":
    """One line for each lane against the step, coloured by a value of the lane.

    Lines stop where a lane turns NaN; a cross marks the last reading. Long records are thinned to the extremes of short
    bins, so that oscillations keep their envelope. The vertical limits leave out the wildest 0.5 % of all readings, so
    that one diverging lane does not flatten the others, and thresholds far above all readings. Values are listed beside
    the axes, or shown as a colour bar if there are more than 12 different ones.

    Args:
        x: steps, shape (n,).
        ys: readings, shape (lanes, n) or (n,); NaN and infinity are gaps.
        ax: where to draw; a new figure by default.
        values: what colours follow, shape (lanes,), e.g. learning rates; the lane number by default.
        value_label: what `values` are.
        thresholds: one dashed level for each lane in its colour, shape (lanes,); NaN for none.
        threshold_label: what the dashed levels are.
        log_x: logarithmic steps.
        log_y: logarithmic readings.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
        title: of the panel.
        show_values: whether the list of values or the colour bar is drawn; off for all but one of several panels.

    Returns:
        The Axes.

    Raises:
        ValueError: if shapes do not match.
    """
    x, ys = np.asarray(x, float), np.atleast_2d(np.asarray(ys, float))
    lanes = len(ys)
    check_that(ys.shape == (lanes, x.size) and x.ndim == 1, "ys", f"have shape (lanes, {x.size})", f"found {ys.shape}")
    values = _lane_values(values, lanes, "values", np.arange(lanes))
    ys = np.where(np.isfinite(ys), ys, np.nan)
    if log_y:
        ys = np.where(ys > 0, ys, np.nan)
    ax = prepared(ax)
    colours, mappable = lane_colours(values)
    width, bins = (1.15 if lanes * x.size < 4000 else 0.8), int(np.clip(10_000 // lanes, 150, 600))
    for y, colour in zip(ys, colours, strict=True):
        ax.plot(*_thinned(x, y, bins), color=colour, linewidth=width, alpha=0.9, solid_joinstyle="round")
        _mark_the_end(ax, x, y, colour)
    levels = None
    if thresholds is not None:
        levels = _lane_values(thresholds, lanes, "thresholds", None)
        _draw_levels(ax, levels, colours)
    set_scales(ax, log_x=log_x, log_y=log_y)
    _set_limits(ax, x, ys, levels, log_x, log_y)
    finish_log_ticks(ax)
    label(ax, x_label, y_label, title)
    if lanes > 1 or levels is not None:
        low, high = ax.get_ylim()
        seen = levels is not None and bool(np.any((levels >= low) & (levels <= high)))
        level_label = threshold_label if seen else None
        _explain(ax, values, colours, mappable, value_label, level_label, show_values)
    return ax


def _lane_values(values: Any, lanes: int, argument: str, default: Any) -> np.ndarray:
    array = np.asarray(default if values is None else values, float)
    check_that(array.shape == (lanes,), argument, f"have shape ({lanes},), one for each lane", f"found {array.shape}")
    return array


def _thinned(x: np.ndarray, y: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """At most the smallest and the largest reading of each of `bins` bins, in their order, with the ends."""
    if len(x) <= 3 * bins:
        return x, y
    edges = np.linspace(0, len(x), bins + 1).astype(int)
    chosen = {0, len(x) - 1}
    for start, stop in itertools.pairwise(edges):
        part = y[start:stop]
        gaps = np.isnan(part)
        if gaps.any():
            chosen.add(start + int(np.argmax(gaps)))  # one gap stands for the gaps of the bin
        if not gaps.all():
            chosen.update((start + int(np.nanargmin(part)), start + int(np.nanargmax(part))))
    where = np.array(sorted(chosen))
    return x[where], y[where]


def _mark_the_end(ax: "Axes", x: np.ndarray, y: np.ndarray, colour: Any) -> None:
    finite = np.flatnonzero(np.isfinite(y))
    if finite.size and finite[-1] < len(y) - 1:
        ax.plot(x[finite[-1]], y[finite[-1]], marker="x", color=colour, markersize=5.5, markeredgewidth=1.5, zorder=4)


def _draw_levels(ax: "Axes", levels: np.ndarray, colours: list[Any]) -> None:
    pairs = dict.fromkeys(pair for pair in zip(levels, colours, strict=True) if np.isfinite(pair[0]))
    for position, (level, colour) in enumerate(pairs):
        # Shifted dashes, since aligned ones make columns of their own where there are many.
        ax.axhline(level, color=colour, linewidth=0.9, linestyle=(2.3 * position, (4, 2.5)), alpha=0.85, zorder=1.5)


def _set_limits(ax: "Axes", x: np.ndarray, ys: np.ndarray, levels: Any, log_x: bool, log_y: bool) -> None:
    positive = x[x > 0] if log_x else x
    if positive.size and positive.min() < positive.max():
        ax.set_xlim(positive.min(), positive.max())
    finite = ys[np.isfinite(ys)]
    if not finite.size:
        return
    low, high = np.quantile(finite, [0.005, 0.995])
    wide = 1.5 if log_y else 1.25
    # Keep everything where the last half per cent adds little.
    low = finite.min() if finite.min() > (low / wide if log_y else low - (wide - 1) * (high - low)) else low
    high = finite.max() if finite.max() < (high * wide if log_y else high + (wide - 1) * (high - low)) else high
    if levels is not None and np.isfinite(levels).any():
        shown = levels[np.isfinite(levels)]
        # A level far above everything that was read would only press the curves together.
        shown = shown[shown <= high * (10 if log_y else 1.6)]
        low, high = (min(low, shown.min()), max(high, shown.max())) if shown.size else (low, high)
    if low == high:
        return
    margin = (high / low) ** 0.05 if log_y else 0.05 * (high - low)
    ax.set_ylim((low / margin, high * margin) if log_y else (low - margin, high + margin))


def _explain(
    ax: "Axes", values: np.ndarray, colours: list[Any], mappable: Any, title: str, level_label: str | None, listed: bool
) -> None:
    from matplotlib.lines import Line2D

    level = [Line2D([], [], color="#5c636b", linewidth=0.9, linestyle=(0, (4, 2.5)), label=level_label)]
    different = dict(sorted(zip(values.tolist(), colours, strict=True), reverse=True))
    if listed and len(different) > _MOST_IN_LEGEND:
        colour_bar(ax, mappable, title)
    if listed and 1 < len(different) <= _MOST_IN_LEGEND:
        handles = [
            Line2D([], [], color=colour, linewidth=2, label=number(value)) for value, colour in different.items()
        ]
        legend(ax, handles + (level if level_label else []), title=title, beside=True)
    elif level_label:
        legend(ax, level)
