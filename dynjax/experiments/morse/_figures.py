"""Figures of the Morse experiment: level sets with their critical points, and gradients against their bounds."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from ... import report
from .._drawing import FAINT, INK, RULE
from ._architectures import ARCHITECTURES, Architecture
from ._classification import KINDS
from ._summary import KindSummary, by_architecture, is_trained
from ._training import bowl_bound

# Marker, size and face of each kind of point: told apart by shape, and by light and dark.
MARKS = {
    "minimum": ("v", 62, "#ffffff"),
    "saddle": ("X", 66, "#f0e442"),
    "maximum": ("^", 62, "#111111"),
    "degenerate": ("D", 30, "#d55e00"),
}
_LEVELS = 15
_MOST_COLUMNS = 8


def levels_figure(dataset: Any) -> Any:
    """Level sets of one network of each architecture, with its critical points.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    figure, axes = report.panels(2, 3, height=2.85, width=7.8)
    for ax, kind in zip(axes.ravel(), ARCHITECTURES, strict=True):
        lane = _chosen(dataset, kind)
        if lane is None:
            ax.set_axis_off()
            continue
        level_sets(dataset.x.values, dataset.y.values, dataset.value.values[lane], *_points(dataset, lane), ax=ax)
        name, _, detail = kind.title.partition(": ")
        ax.set_title(name, loc="left", fontsize=9, fontweight="bold", color=INK, pad=14)
        ax.text(0, 1.02, f"{detail}, seed {int(dataset.seed.values[lane])}", transform=ax.transAxes, fontsize=7.5,
                color=FAINT, va="bottom")  # fmt: skip
    _marker_legend(figure)
    return figure


def gallery_figure(dataset: Any) -> Any:
    """Level sets of all networks, up to eight of each architecture, one row for each architecture."""
    number = min(_MOST_COLUMNS, int(dataset.seed.values.max()) + 1)
    figure, axes = report.panels(len(ARCHITECTURES), number, height=7.8 / max(number, 4) * 1.06, width=7.8)
    for row, kind in zip(np.asarray(axes).reshape(len(ARCHITECTURES), number), ARCHITECTURES, strict=True):
        for seed, ax in enumerate(row):
            lane = _lane_of(dataset, kind, seed)
            ax.set(xticks=[], yticks=[])
            if lane is not None:
                level_sets(dataset.x.values, dataset.y.values, dataset.value.values[lane], *_points(dataset, lane),
                           ax=ax, small=True)  # fmt: skip
        row[0].set_title(kind.title, loc="left", fontsize=8, color=INK, pad=3)
    _marker_legend(figure)
    return figure


def level_sets(x: Any, y: Any, values: Any, points: Any, kinds: Sequence[str], *, ax: Any, small: bool = False) -> Any:
    """Filled level sets of a map of the plane and its critical points, marked by kind.

    Args:
        x: (n,).
        y: (m,).
        values: (m, n).
        points: critical points, (p, 2).
        kinds: of each of them, a key of `MARKS`.
        ax: where to draw.
        small: whether the panel is one of many.

    Returns:
        The Axes.
    """
    values = np.asarray(values, float)
    # Levels at quantiles, so that steep flanks leave some for the flat parts.
    spread = np.quantile(values, np.linspace(0, 1, _LEVELS + 1))
    even = np.linspace(values.min(), values.max(), _LEVELS + 1)
    levels = np.unique(0.5 * (spread + even))
    if levels.size > 1:
        ax.contourf(x, y, values, levels=levels, cmap="cividis", alpha=0.92)
        ax.contour(
            x,
            y,
            values,
            levels=levels,
            colors="white",
            linestyles="solid",
            linewidths=0.35 if small else 0.55,
            alpha=0.75,
        )
    points = np.reshape(np.asarray(points, float), (-1, 2))
    for kind, (marker, size, face) in MARKS.items():
        rows = np.array([k == kind for k in kinds], bool)
        if rows.any():
            ax.scatter(*points[rows].T, marker=marker, s=size * (0.35 if small else 1), color=face, edgecolor=INK,
                       linewidth=0.5 if small else 0.8, zorder=4)  # fmt: skip
    ax.set_aspect("equal")
    ax.set(xlim=(np.min(x), np.max(x)), ylim=(np.min(y), np.max(y)))
    ax.tick_params(colors=RULE, labelcolor=FAINT, labelsize=7.5, width=0.8, length=0 if small else 3)
    for spine in ax.spines.values():
        spine.set(color=RULE, linewidth=0.8)
    return ax


def gradient_figure(dataset: Any) -> Any:
    """The smallest gradient of every network, beside the bound that is proved for it where there is one."""
    figure, ax = report.panels(height=3.1)
    kinds = by_architecture(dataset)
    lowest = min((lane.certificate for kind in kinds for lane in kind.lanes if lane.certificate > 0), default=1e-6)
    floor = min(lowest, 1e-6) / 30
    for place, kind in enumerate(reversed(kinds)):
        _draw_gradients(ax, place, kind, floor)
    ax.set(xscale="log", xlim=(floor / 3, 10), ylim=(-0.6, len(kinds) - 0.4))
    ax.axvspan(floor / 3, floor * 3, color="#eef1f4", zorder=0)
    ax.text(floor, len(kinds) - 0.45, "zero", ha="center", va="bottom", fontsize=8, color=FAINT)
    ax.set_yticks(range(len(kinds)), [kind.architecture.title for kind in reversed(kinds)])
    ax.set_xlabel("|grad|", fontsize=9, color=INK)
    ax.grid(True, axis="x", color="#eceff2", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set(color=RULE, linewidth=0.8)
    ax.tick_params(which="both", colors=RULE, labelcolor=INK, labelsize=8, length=0)
    _gradient_legend(ax)
    return figure


def _draw_gradients(ax: Any, place: int, kind: KindSummary, floor: float) -> None:
    heights = place + np.linspace(-0.28, 0.28, max(len(kind.lanes), 2))
    for height, lane in zip(heights, kind.lanes, strict=False):
        least = max(lane.least_gradient, floor) if lane.found == "C1" else floor
        tone = report.TONES["good" if lane.found == "C1" else "special"]
        if lane.certificate > 0:
            ax.plot([lane.certificate, least], [height, height], color=RULE, linewidth=1.0, zorder=1)
            ax.plot(lane.certificate, height, marker="|", color=INK, markersize=6, markeredgewidth=1.4, zorder=2)
        ax.plot(least, height, marker="o" if lane.found == "C1" else "D", color=tone, markersize=4.6,
                markeredgecolor="white", markeredgewidth=0.6, zorder=3)  # fmt: skip


def _gradient_legend(ax: Any) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", marker="|", color=INK, markeredgewidth=1.4, label="proved lower bound"),
        Line2D([], [], linestyle="", marker="o", color=report.TONES["good"], label="smallest, no critical point found"),
        Line2D([], [], linestyle="", marker="D", color=report.TONES["special"], label="critical points found"),
    ]
    ax.get_figure().legend(handles=handles, loc="outside upper right", ncols=3, frameon=False, fontsize=8)


def error_figure(dataset: Any) -> Any:
    """Sup errors of the trained networks, and the bound for those that cannot have an extremum; None for random ones."""
    if not is_trained(dataset):
        return None
    figure, ax = report.panels(height=2.7)
    kinds = by_architecture(dataset)
    for place, kind in enumerate(reversed(kinds)):
        errors = np.array([lane.sup_error for lane in kind.lanes])
        can = kind.architecture.extremum
        ax.scatter(errors, place + np.linspace(-0.22, 0.22, max(errors.size, 1)), s=24, zorder=3,
                   marker="o" if can else "s", color=report.TONES["good" if can else "bad"], edgecolor="white",
                   linewidth=0.6)  # fmt: skip
        if not can:
            ax.plot([bowl_bound()] * 2, [place - 0.42, place + 0.42], color=INK, linewidth=1.6, zorder=2)
            ax.axvspan(
                0, bowl_bound(), (place + 0.1) / len(kinds), (place + 0.9) / len(kinds), color="#eef1f4", zorder=0
            )
    ax.set_yticks(range(len(kinds)), [kind.architecture.title for kind in reversed(kinds)])
    ax.set(ylim=(-0.5, len(kinds) - 0.5), xlim=(0, None))
    ax.set_xlabel(
        "sup error for the bowl; grey: impossible, at least half the depth of the bowl", fontsize=9, color=INK
    )
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set(color=RULE, linewidth=0.8)
    ax.tick_params(colors=RULE, labelcolor=INK, labelsize=8, length=0)
    return figure


def _marker_legend(figure: Any) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], linestyle="", marker=marker, markersize=5 if kind == "degenerate" else 7.5, markerfacecolor=face,
               markeredgecolor=INK, label=kind)
        for kind, (marker, _, face) in MARKS.items()
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8.5, labelcolor=INK)


def _points(dataset: Any, lane: int) -> tuple[np.ndarray, list[str]]:
    codes = np.asarray(dataset.kind.values[lane]).astype(int)
    rows = codes >= 0
    return np.asarray(dataset.point.values[lane], float)[rows], [KINDS[code] for code in codes[rows]]


def _lane_of(dataset: Any, kind: Architecture, seed: int) -> int | None:
    rows = np.flatnonzero((dataset.architecture.values == kind.name) & (dataset.seed.values == seed))
    done = [int(row) for row in rows if np.isfinite(dataset.least_gradient.values[row])]
    return done[0] if done else None


def _chosen(dataset: Any, kind: Architecture) -> int | None:
    """The network to show: of the best trained ones, or with the most critical points, or else with the most bent levels."""
    number = json.loads(dataset.attrs["config"])["num_seeds"]
    lanes = [lane for seed in range(number) if (lane := _lane_of(dataset, kind, seed)) is not None]
    if not lanes:
        return None
    if is_trained(dataset):
        return min(lanes, key=lambda lane: float(dataset.sup_error.values[lane]))
    flatness = lambda lane: float(dataset.least_gradient.values[lane] / dataset.mean_gradient.values[lane])
    isolated = lambda lane: int(np.sum(dataset["count"].values[lane][:3]))
    return max(lanes, key=lambda lane: (isolated(lane), int(dataset["count"].values[lane][3]), -flatness(lane)))
