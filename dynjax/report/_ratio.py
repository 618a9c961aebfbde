from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core import check_that
from ._style import FAINT, INK, TONES, finish_log_ticks, label, lane_ticks, legend, prepared, set_scales, tone_colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def ratio_against(
    x: Any,
    ratio: Any,
    *,
    ax: "Axes | None" = None,
    verdicts: Sequence[str] | None = None,
    tones: Mapping[str, str] | None = None,
    band: tuple[float, float] = (0.95, 1.05),
    log_x: bool = True,
    x_label: str = "learning rate",
    y_label: str = "edge ratio",
    title: str | None = None,
) -> "Axes":
    """A ratio that is one in theory, for every lane: median and 5-95 % range against a value of the lane.

    Lanes without a finite reading are crosses on the lower edge. Lanes with the same `x` are set slightly apart.

    Args:
        x: e.g. learning rates, shape (lanes,).
        ratio: shape (lanes,), or (lanes, readings) of which median and range are drawn; NaN are left out.
        ax: where to draw; a new figure by default.
        verdicts: one word for each lane, which colours its point and enters the legend.
        tones: the tone of each verdict: a key of `TONES`.
        band: shaded around the line at one.
        log_x: logarithmic horizontal axis.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
        title: of the panel.

    Returns:
        The Axes.

    Raises:
        ValueError: if shapes do not match, or a tone is not known.
    """
    from matplotlib.lines import Line2D

    x, ratio = np.asarray(x, float), np.asarray(ratio, float)
    lanes = x.size
    fits = ratio.ndim in (1, 2) and len(ratio) == lanes
    check_that(fits, "ratio", f"have {lanes} lanes, like `x`", f"found {ratio.shape}")
    words = [""] * lanes if verdicts is None else [str(word) for word in verdicts]
    check_that(len(words) == lanes, "verdicts", f"have one word for each of the {lanes} lanes", f"found {len(words)}")
    colours = {"": TONES["good"]} if verdicts is None else tone_colours(words, tones)
    low, middle, high = _summary(ratio.reshape(lanes, -1))
    shifted = _set_apart(x, log_x)

    ax = prepared(ax)
    ax.axhspan(*band, color="#e4eef7", linewidth=0, zorder=0.5)
    ax.axhline(1.0, color=INK, linewidth=0.9, zorder=1)
    set_scales(ax, log_x=log_x)
    for lane in range(lanes):
        colour = colours[words[lane]]
        if np.isfinite(middle[lane]):
            ax.plot([shifted[lane]] * 2, [low[lane], high[lane]], color=colour, linewidth=1.6, alpha=0.55, zorder=2)
            ax.plot(shifted[lane], middle[lane], "o", color=colour, markersize=6, markeredgecolor="white", zorder=3)
        else:
            ax.plot(shifted[lane], 0.035, "x", color=colour, markersize=6, markeredgewidth=1.6, zorder=3,
                    transform=ax.get_xaxis_transform())  # fmt: skip
    _set_limits(ax, low, high, band)
    finish_log_ticks(ax)
    lane_ticks(ax.xaxis, x, gap=0.05)
    label(ax, x_label, y_label, title)
    note = f"{band[0]:g} to {band[1]:g}"
    ax.annotate(note, (1, band[1]), (-3, 2), xycoords=("axes fraction", "data"), textcoords="offset points",
                ha="right", va="bottom", fontsize=7.5, color=FAINT)  # fmt: skip
    if verdicts is not None:
        drawn = {word for word, value in zip(words, middle, strict=True) if np.isfinite(value)}
        marks = {word: "o" if word in drawn else "x" for word in colours}
        legend(ax, [Line2D([], [], marker=marks[w], linestyle="", color=c, label=w) for w, c in colours.items()])
    return ax


def _summary(ratio: np.ndarray) -> np.ndarray:
    """5 %, 50 % and 95 % quantiles of the finite readings of each lane, shape (3, lanes); NaN where there are none."""
    out = np.full((3, len(ratio)), np.nan)
    for lane, readings in enumerate(ratio):
        finite = readings[np.isfinite(readings)]
        if finite.size:
            out[:, lane] = np.quantile(finite, [0.05, 0.5, 0.95])
    return out


def _set_apart(x: np.ndarray, log: bool) -> np.ndarray:
    """Lanes with equal `x` spread by one hundredth of the axis each."""
    position = np.log(x) if log else x.copy()
    span = float(np.ptp(position)) or 1.0
    out = position.copy()
    for value in np.unique(position):
        same = np.flatnonzero(position == value)
        out[same] += 0.01 * span * (np.arange(same.size) - (same.size - 1) / 2)
    return np.exp(out) if log else out


def _set_limits(ax: "Axes", low: np.ndarray, high: np.ndarray, band: tuple[float, float]) -> None:
    finite = np.concatenate([low[np.isfinite(low)], high[np.isfinite(high)], band])
    bottom, top = float(finite.min()), float(np.minimum(finite, 3.0).max())
    margin = 0.1 * (top - bottom)
    ax.set_ylim(bottom - margin, top + margin)
