from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import check_that
from ._style import FAINT, INK, TONES, finish_log_ticks, label, legend, number, prepared, set_scales

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NAME_WIDTH = 0.04  # of a name along a vertical line, as a part of the axes
_STYLES = ("-", (0, (5, 2)), (0, (1.2, 1.6)), (0, (5, 2, 1.2, 2)), (0, (8, 2)))


def band(
    x: Any,
    ys: Mapping[str, Any],
    *,
    ax: "Axes | None" = None,
    errors: Any = None,
    lines: Mapping[str, float] | None = None,
    points: Sequence[Any] | None = None,
    points_label: str = "measured",
    log_x: bool = False,
    linear_width: float | None = None,
    x_limits: tuple[float, float] | None = None,
    y_limits: tuple[float, float] | None = None,
    x_label: str = "learning rate",
    y_label: str = "",
    title: str | None = None,
    show_legend: bool = True,
) -> "Axes":
    """Named curves of which the first carries an error band, labelled vertical lines, a zero line, and points with errors.

    Args:
        x: horizontal positions, shape (n,).
        ys: up to five curves by name, each of shape (n,); NaN and infinity are gaps.
        ax: where to draw; a new figure by default.
        errors: half the height of the band around the first curve, shape (n,), e.g. two standard errors.
        lines: vertical lines by name, e.g. thresholds; those outside of the axes are named with an arrow at the edge.
        points: (x, y, half the length of the error bar), each of shape (m,).
        points_label: what the points are.
        log_x: logarithmic horizontal axis.
        linear_width: half the height of the linear part around zero of an otherwise logarithmic vertical axis; a plain
            linear axis by default.
        x_limits: of the horizontal axis; those of `x` by default.
        y_limits: of the vertical axis.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
        title: of the panel.
        show_legend: whether curves and points are named beside the axes.

    Returns:
        The Axes.

    Raises:
        ValueError: if shapes do not match, or there are more than five curves.
    """
    x = np.asarray(x, float)
    check_that(0 < len(ys) <= len(_STYLES), "ys", f"hold 1 to {len(_STYLES)} curves", f"found {len(ys)}")
    curves = {name: np.asarray(y, float) for name, y in ys.items()}
    for name, y in curves.items():
        check_that(y.shape == x.shape, "ys", f"have shape {x.shape} like `x`", f"{name!r} has {y.shape}")
    ax = prepared(ax)
    ax.axhline(0, color=INK, linewidth=0.8, zorder=1)
    for (name, y), colour, style in zip(curves.items(), TONES.values(), _STYLES, strict=False):
        finite = np.where(np.isfinite(y), y, np.nan)
        ax.plot(x, finite, color=colour, linestyle=style, linewidth=1.5, label=name, zorder=3)
    if errors is not None:
        _draw_band(ax, x, next(iter(curves.values())), np.asarray(errors, float))
    if points is not None:
        at, middle, half = (np.asarray(part, float) for part in points)
        check_that(at.shape == middle.shape == half.shape, "points", "have three equal shapes", f"found {at.shape}")
        ax.errorbar(at, middle, half, fmt="o", color=TONES["bad"], markersize=5, markeredgecolor="white",
                    elinewidth=1.4, capsize=2.5, label=points_label, zorder=4)  # fmt: skip
    set_scales(ax, log_x=log_x)
    if linear_width is not None:
        _set_symlog(ax, linear_width)
    _set_limits(ax, x, x_limits, y_limits)
    finish_log_ticks(ax)
    label(ax, x_label, y_label, title)
    _draw_lines(ax, lines or {})
    if show_legend:
        legend(ax, beside=True)
    return ax


def _draw_band(ax: "Axes", x: np.ndarray, middle: np.ndarray, half: np.ndarray) -> None:
    check_that(half.shape == x.shape, "errors", f"have shape {x.shape} like `x`", f"found {half.shape}")
    shown = np.isfinite(middle) & np.isfinite(half)
    ax.fill_between(x[shown], (middle - half)[shown], (middle + half)[shown], color=TONES["good"], alpha=0.25,
                    linewidth=0, zorder=2)  # fmt: skip


def _set_symlog(ax: "Axes", linear_width: float) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator, SymmetricalLogLocator

    ax.set_yscale("symlog", linthresh=linear_width, linscale=0.7)
    ax.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=linear_width))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))


def _set_limits(ax: "Axes", x: np.ndarray, x_limits: Any, y_limits: Any) -> None:
    if x_limits is not None:
        ax.set_xlim(*x_limits)
    elif x.size > 1 and x.min() < x.max():
        ax.set_xlim(x.min(), x.max())
    if y_limits is not None:
        ax.set_ylim(*y_limits)


def _draw_lines(ax: "Axes", lines: Mapping[str, float]) -> None:
    """Vertical lines with their names along them; arrows at the edges towards those that lie beyond."""
    low, high = ax.get_xlim()
    beyond, last = [0, 0], -np.inf
    for value, name in sorted((value, name) for name, value in lines.items() if np.isfinite(value)):
        text = f"{name} {number(value, 4)}"
        if low <= value <= high:
            ax.axvline(value, color=INK, linewidth=1.0, linestyle=(0, (4, 2.5)), zorder=2)
            at = ax.transAxes.inverted().transform(ax.transData.transform((value, ax.get_ylim()[0])))[0]
            # On its left, unless its name would run into the line before it or out of the axes.
            side = 1 if at - last < _NAME_WIDTH or at < _NAME_WIDTH else -1
            place, offset, coords, last = (value, 0.98), 3 * side, ("data", "axes fraction"), at
        else:
            right = int(value > high)
            text, side = f"beyond: {text}", -1 if right else 1
            place, coords = (1 if right else 0, 0.98), ("axes fraction", "axes fraction")
            offset = side * (3 + 11 * beyond[right])
            beyond[right] += 1
        ax.annotate(text, place, (offset, 0), xycoords=coords, textcoords="offset points", rotation=90,
                    ha="left" if side > 0 else "right", va="top", fontsize=7.5, color=FAINT, zorder=5)  # fmt: skip
