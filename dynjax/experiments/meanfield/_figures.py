"""Figures of the mean-field experiment: order parameters over couplings, the approach to the limit, profiles, relaxation."""

import math
from typing import Any

import numpy as np

from ... import report
from .._drawing import FAINT, INK
from ._config import IN_CELLS, Config, is_file
from ._stored import averages, stored_config, table_of
from ._summary import Summary, summarise

_SIZES = (("#d9822b", "^"), ("#3f85c6", "s"), ("#14315e", "o"), ("#8b3a8f", "D"))  # colours and marks, small to large
_TONES = {"below": "#1f6fb4", "around": "#8a6100", "above": "#b8442a", "all": "#1f6fb4"}
_PROFILES = (1.2, 1.6, 2.4)  # couplings over Kc whose profiles are drawn


def order_figure(dataset: Any) -> Any:
    """The order parameter against K: dots with error bars for each size, the limit, and the predicted critical coupling.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    summary = summarise(dataset)
    along = np.asarray(dataset.along.values, float)
    curves = np.asarray(dataset.curve.values, float)
    curve = curves[np.argmax(np.isfinite(curves).any(axis=1))]
    figure, ax = report.panels(height=4.0)
    lines = {"critical coupling": summary.critical} if math.isfinite(summary.critical) else {}
    tops = [value + error for point in summary.points for value, error in zip(point.order, point.error, strict=True)]
    tops = [value for value in tops if math.isfinite(value)]
    top = max(1.02, 1.05 * max(tops, default=1.0))
    report.band(along, {"limit": curve}, ax=ax, lines=lines, x_label="coupling K", y_label="order parameter r",
                y_limits=(-0.03, top), x_limits=(float(along[0]), float(along[-1])), show_legend=False)  # fmt: skip
    ax.get_lines()[1].set(color=INK, linewidth=1.6, label="limit of large N")
    _draw_sizes(ax, summary, lambda point: point.coupling, lambda point: (point.order, point.error))
    if math.isfinite(summary.onset.value) and along[0] < summary.onset.value < along[-1]:
        error = summary.onset.error if math.isfinite(summary.onset.error) else 0.0
        ax.errorbar([summary.onset.value], [0.0], xerr=[error], fmt="D", color=report.TONES["bad"], markersize=6,
                    markeredgecolor="white", capsize=2.5, clip_on=False, zorder=6,
                    label=f"measured onset, N = {summary.sizes[-1]:,}")  # fmt: skip
    _legend_below(figure, [ax])
    return figure


def _styles(count: int) -> list[tuple[str, str]]:
    """A colour and a mark for each size; the largest of up to three is dark blue."""
    return [_SIZES[(3 - min(count, 3) + k) % len(_SIZES)] for k in range(count)]


def _draw_sizes(ax: Any, summary: Summary, at: Any, values: Any) -> None:
    """Dots with error bars, a colour for each size."""
    for k, (size, (colour, mark)) in enumerate(zip(summary.sizes, _styles(len(summary.sizes)), strict=True)):
        rows = [(at(point), *(part[k] for part in values(point))) for point in summary.points]
        x, y, error = np.asarray(rows, float).T
        good = np.isfinite(y)
        error = np.where(np.isfinite(error), error, 0)
        ax.errorbar(x[good], y[good], error[good], fmt=mark, color=colour, markersize=4.6, markeredgecolor="white",
                    markeredgewidth=0.5, elinewidth=1.1, capsize=1.8, label=f"N = {size:,}", zorder=4 + k)  # fmt: skip


def _legend_below(figure: Any, axes: Any, most: int = 5) -> None:
    """One legend for the whole figure below it, without repetitions."""
    handles: dict[str, Any] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    if handles:
        figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=min(most, len(handles)), frameon=False,
            fontsize=8, labelcolor=INK,
        )  # fmt: skip


def approach_figure(dataset: Any) -> Any:
    """|r - limit| against N, below, around and above the critical coupling, with a line of slope -1/2.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`, or None with one size or without a limit.
    """
    summary = summarise(dataset)
    if len(summary.sizes) < 2 or not summary.approaches:
        return None
    sizes = np.asarray(summary.sizes, float)
    figure, ax = report.panels(height=3.2)
    levels = np.concatenate([approach.typical for approach in summary.approaches])
    ends = (levels.min() / 1.6, levels.max() * 1.6)
    report.curves(sizes, np.full((1, sizes.size), np.nan), ax=ax, log_x=True, log_y=True, x_label="oscillators N",
                  y_label="|r − limit|")  # fmt: skip
    for approach in summary.approaches:
        colour = _TONES[approach.name]
        slope = f", slope {approach.slope:.2f}".replace("-", "−") if math.isfinite(approach.slope) else ""
        name = "all couplings" if approach.name == "all" else f"{approach.name} the critical coupling"
        seeds = np.repeat(sizes[:, None], approach.distances.shape[1], axis=1)
        ax.scatter(seeds, approach.distances, s=12, color=colour, alpha=0.45, linewidth=0, zorder=3)
        ax.plot(sizes, approach.typical, "o-", color=colour, markersize=5, linewidth=1.3, markeredgecolor="white",
                label=name + slope, zorder=4)  # fmt: skip
    guide = ends[1] / 1.3 * np.sqrt(sizes[0] / sizes)
    ax.plot(sizes, guide, color=FAINT, linewidth=1.0, linestyle=(0, (4, 2.5)), label="slope −1/2", zorder=2)
    ax.set_xlim(sizes[0] / 1.25, sizes[-1] * 1.25)
    ax.set_ylim(min(ends[0], guide[-1] / 1.2), ends[1])
    ax.set_xticks(sizes, [f"{int(size):,}" for size in sizes])
    ax.set_xticks([], minor=True)
    _legend_below(figure, [ax], most=2)
    return figure


def profile_figure(dataset: Any) -> Any:
    """The local order parameter by label at up to three couplings, particles against the limit.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`, or None where no lane has synchronised or is finished.
    """
    config, summary = stored_config(dataset), summarise(dataset)
    measured = table_of(dataset, np.asarray(dataset.profile.values, float))
    limits = table_of(dataset, np.asarray(dataset.limit_profile.values, float))
    chosen = _profile_couplings(summary, measured)
    if not chosen:
        return None
    label = np.asarray(dataset.label.values, float)
    figure, axes = report.panels(1, len(chosen), height=2.9)
    for position, (ax, row) in enumerate(zip(np.atleast_1d(axes), chosen, strict=True)):
        point = summary.points[row]
        good = np.isfinite(measured[row]).all(axis=1)
        values, seeds = measured[row][good].mean(axis=0), int(good.sum())
        error = measured[row][good].std(axis=0, ddof=1) / math.sqrt(seeds) if seeds > 1 else np.zeros(label.size)
        limit = limits[row][good][0]
        title = f"K = {point.ratio:.2f} Kc" if math.isfinite(point.ratio) else f"K = {point.coupling:.3g}"
        low, high = min(-0.02, (values - error).min()), max(1.02, (values + error).max())
        report.band(label, {"limit": limit}, ax=ax, x_label=label_name(config), y_limits=(low, high), title=title,
                    y_label="local order parameter" if position == 0 else "", x_limits=(0, 1), show_legend=False)  # fmt: skip
        ax.get_lines()[1].set(color=INK, linewidth=1.6, label="limit of large N")
        ax.set_xticks([0, 0.5, 1])
        ax.errorbar(label, values, error, fmt="o", color=_SIZES[2][0], markersize=3.4, elinewidth=0.9,
                    label=f"N = {summary.sizes[-1]:,}", zorder=4)  # fmt: skip
    _legend_below(figure, np.atleast_1d(axes))
    return figure


def label_name(config: Config) -> str:
    """What the labels of a graph are."""
    if is_file(config.graph):
        return "nodes by weight received"
    return "label x (cells)" if config.graph in IN_CELLS else "label x"


def _profile_couplings(summary: Summary, measured: np.ndarray) -> list[int]:
    """The couplings closest to those wanted, each once; without a threshold the ends and the middle."""
    done = [i for i in range(len(summary.points)) if np.isfinite(measured[i]).all(axis=1).any()]
    ratios = np.array([summary.points[i].ratio for i in done])
    if done and np.isfinite(ratios).all():
        found = {done[int(np.argmin(np.abs(ratios - wanted)))] for wanted in _PROFILES}
        return sorted(i for i in found if summary.points[i].ratio > 1)
    return [done[i] for i in sorted({0, len(done) // 2, len(done) - 1})] if done else []


def fluctuation_figure(dataset: Any) -> Any:
    """The inverse of the fluctuations below the critical coupling, a straight line that ends there.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`, or None unless identical oscillators with noise were run below a critical coupling.
    """
    config, summary = stored_config(dataset), summarise(dataset)
    below = [point for point in summary.points if point.ratio < 1.15]
    if config.frequencies != "identical" or config.noise == 0 or sum(point.ratio < 1 for point in below) < 2:
        return None
    figure, ax = report.panels(height=3.2)
    ratio = np.linspace(0, 1.2, 200)
    report.band(ratio, {"1 − K/Kc": np.maximum(1 - ratio, 0)}, ax=ax, x_label="K / predicted critical coupling",
                y_label="1 / E|v · u|²", y_limits=(-0.04, 1.08), x_limits=(0, 1.2), show_legend=False)  # fmt: skip
    ax.get_lines()[1].set(color=INK, linewidth=1.6, label="limit of large N, 1 − K/Kc")
    projected = averages(dataset, "projected")[0]
    for k, (size, (colour, mark)) in enumerate(zip(summary.sizes, _styles(len(summary.sizes)), strict=True)):
        y = 1 / np.array([point.projected[k] for point in below])
        spread = [_relative(projected[i, :, k]) for i in range(len(below))]
        x = np.array([point.ratio for point in below])
        good = np.isfinite(y)
        ax.errorbar(x[good], y[good], (y * spread)[good], fmt=mark, color=colour, markersize=4.6, markeredgecolor="white",
                    markeredgewidth=0.5, elinewidth=1.1, capsize=1.8, label=f"N = {size:,}", zorder=4 + k)  # fmt: skip
    onset = summary.onset
    if math.isfinite(onset.value):
        ax.errorbar([onset.value / summary.critical], [0.0], xerr=[np.nan_to_num(onset.error) / summary.critical], fmt="D",
                    color=report.TONES["bad"], markersize=6, markeredgecolor="white", capsize=2.5, zorder=8,
                    label="measured critical coupling")  # fmt: skip
    _legend_below(figure, [ax])
    return figure


def _relative(values: np.ndarray) -> float:
    """The relative standard error of the mean over seeds; 0 for one."""
    good = values[np.isfinite(values)]
    return float(good.std(ddof=1) / math.sqrt(good.size) / good.mean()) if good.size > 1 else 0.0


def relaxation_figure(dataset: Any) -> Any:
    """The order parameter against time at the largest size, a line for each coupling, the mean over the seeds.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    config, summary = stored_config(dataset), summarise(dataset)
    series = table_of(dataset, np.asarray(dataset.order.values, float)[:, :, -1])
    good = np.isfinite(series)
    means = np.where(good.any(axis=1), np.where(good, series, 0).sum(axis=1) / np.maximum(good.sum(axis=1), 1), np.nan)
    threshold = math.isfinite(summary.points[0].ratio)
    values = [point.ratio if threshold else point.coupling for point in summary.points]
    figure, ax = report.panels(height=3.0)
    report.curves(np.asarray(dataset.reading.values, float), means, ax=ax, values=values,
                  value_label="K/Kc" if threshold else "K", x_label="time", y_label="order parameter r")  # fmt: skip
    ax.set_ylim(-0.03, 1.03)
    if config.first_averaged > 0:
        start = config.first_averaged * config.reading_interval
        ax.axvline(start, color=FAINT, linewidth=1.0, linestyle=(0, (4, 2.5)), zorder=1)
        ax.annotate("averages begin", (start, 0.99), (4, 0), xycoords=("data", "axes fraction"), rotation=90, ha="left",
                    va="top", textcoords="offset points", fontsize=7.5, color=FAINT)  # fmt: skip
    return figure
