"""Figures of the depth experiment: the edge, gradients layer by layer, depths that can be trained, what training does."""

import json
from typing import Any

import numpy as np

from ... import report
from .._drawing import FAINT, INK, legend, spread_out
from ._prediction import critical_variance, exponent_curve, predict
from ._summary import Cell, summarise

_DASHES: Any = (0, (4, 2.5))
_MOST_LINES = 5
_TRAINABLE = 6.0  # correlation depths over which networks were found to train (Schoenholz et al., 2017, section 5)


def exponent_figure(dataset: Any) -> Any:
    """Exponents over the weight variance, before training at the largest depth, with those of infinitely wide networks.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`, or None where no lane is finished.
    """
    config, cells = json.loads(dataset.attrs["config"]), _finished(dataset)
    if not cells:
        return None
    figure, ax = report.panels(height=3.3)
    variances = np.array([cell.weight_variance for cell in cells])
    values, errors = (np.array([getattr(cell, name) for cell in cells]) for name in ("exponent", "standard_error"))
    fine = np.linspace(0.85 * variances.min(), 1.03 * variances.max(), 200)
    report.curves([0.0], [np.nan], ax=ax, x_label="weight variance σ_w²", y_label="first exponent, per layer")
    ax.axhline(0, color=FAINT, linewidth=0.8)
    ax.axvline(critical_variance(config["activation"], config["bias_variance"]), color=FAINT, linewidth=1.0,
               linestyle=_DASHES, label="edge of chaos")  # fmt: skip
    ax.plot(fine, exponent_curve(config, fine), color=INK, linewidth=1.4, label="infinite width, (1/2) log χ₁")
    exact = np.array([cell.finite_width for cell in cells])
    if np.isfinite(exact).any():
        ax.plot(variances, exact, "_", color=INK, markersize=11, markeredgewidth=1.5, label="exact at this width")
    finite = np.isfinite(values)
    ax.errorbar(variances[finite], values[finite], np.nan_to_num(3 * errors[finite]), fmt="o", markersize=5,
                color=report.TONES["good"], linewidth=1.2, capsize=2.5,
                label=f"width {config['width']}, with 3 standard errors")  # fmt: skip
    ax.set_xlim(fine[0], fine[-1])
    everything = np.concatenate([values[finite], exponent_curve(config, fine)])
    ax.set_ylim(everything.min() - 0.04, everything.max() + 0.06)
    legend(ax)
    return figure


def gradient_figure(dataset: Any) -> Any:
    """Norms of gradients layer by layer at the largest depth, for a few weight variances, with the predicted slopes.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`, or None where no lane is finished.
    """
    cells = spread_out(_finished(dataset), _MOST_LINES)
    if not cells:
        return None
    depth = max(json.loads(dataset.attrs["config"])["depths"])
    figure, (left, right) = report.panels(1, 2, height=3.3)
    variances = np.array([cell.weight_variance for cell in cells])
    layers = np.arange(depth + 1)
    for ax, stage, title in ((left, 0, "before training"), (right, 1, "after training")):
        rows = np.array([_gradients(dataset, variance, depth, stage) for variance in variances])
        report.curves(layers, rows / np.log(10), ax=ax, values=variances, value_label="σ_w²", x_label="layer l",
                      y_label="log₁₀ |dL/dh_l| / |dL/dh_L|" if stage == 0 else "", title=title,
                      show_values=stage == 1)  # fmt: skip
        if stage == 0:
            colours = [line.get_color() for line in ax.get_lines()[: len(cells)]]
            for cell, colour in zip(cells, colours, strict=True):
                slope = cell.mean_field if np.isnan(cell.finite_width) else cell.finite_width
                ax.plot(layers, slope * (depth - layers) / np.log(10), color=colour, linewidth=0.9, linestyle=_DASHES)
            ax.plot([], [], color=FAINT, linewidth=0.9, linestyle=_DASHES, label="predicted")
            legend(ax)
    return figure


def _gradients(dataset: Any, variance: float, depth: int, stage: int) -> np.ndarray:
    """The mean over the seeds."""
    same = np.isclose(np.asarray(dataset.weight_variance.values, float), variance, rtol=1e-6)
    chosen = same & (np.asarray(dataset.depth.values) == depth)
    rows = np.asarray(dataset.gradients.values[chosen, stage], float)
    rows = rows[np.all(np.isfinite(rows), 1)]
    return rows.mean(0)[: depth + 1] if rows.size else np.full(depth + 1, np.nan)


def trainability_figure(dataset: Any) -> Any:
    """Median accuracy after training over weight variance and depth, with multiples of the correlation depth.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`, or None where there are no two variances and two depths.
    """
    config, cells = json.loads(dataset.attrs["config"]), _finished(dataset)
    depths = np.array(sorted(config["depths"]), float)
    if len(cells) < 2 or depths.size < 2:
        return None
    figure, ax = report.panels(height=3.7)
    variances = np.array([cell.weight_variance for cell in cells])
    accuracies = np.array([cell.accuracies for cell in cells]).T
    report.heat_map(variances, depths, accuracies, ax=ax, limits=(0.5, 1.0), log_y=True, x_label="weight variance σ_w²",
                    y_label="depth", value_label="accuracy after training")  # fmt: skip
    (low, high), heights = ax.get_xlim(), ax.get_ylim()
    fine = np.linspace(low, high, 120)
    memory = np.array([_memory(config, float(v)) for v in fine[fine > 0]])
    for factor, style, words in ((1.0, ":", "ξ, the correlation depth"), (_TRAINABLE, "-", f"{_TRAINABLE:g} ξ")):
        ax.plot(fine[fine > 0], factor * memory, color="white", linewidth=2.6, linestyle=style)
        ax.plot(fine[fine > 0], factor * memory, color=INK, linewidth=1.3, linestyle=style, label=words)
    ax.set_xlim(low, high)
    ax.set_ylim(*heights)
    legend(ax)
    return figure


def _memory(config: dict[str, Any], variance: float) -> float:
    theory = predict(config["activation"], config["law"], config["width"], variance, config["bias_variance"])
    return theory.correlation_depth


def training_figure(dataset: Any) -> Any:
    """Left, exponents of every network before and after training; right, losses over the steps at the largest depth.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`, or None where no lane is finished.
    """
    cells = spread_out(_finished(dataset), _MOST_LINES)
    if not cells:
        return None
    config = json.loads(dataset.attrs["config"])
    figure, (left, right) = report.panels(1, 2, height=3.3)
    _draw_exponents(left, dataset)
    depth = np.asarray(dataset.depth.values) == max(config["depths"])
    variance, losses = np.asarray(dataset.weight_variance.values, float), np.asarray(dataset.loss.values, float)
    chosen = [cell.weight_variance for cell in cells]
    rows = np.array([np.median(losses[depth & np.isclose(variance, value, rtol=1e-6)], 0) for value in chosen])
    report.curves(dataset.reading.values, rows, ax=right, values=chosen, value_label="σ_w²", log_y=True, y_label="loss",
                  title=f"depth {max(config['depths'])}")  # fmt: skip
    right.axhline(np.log(2), color=FAINT, linewidth=0.9, linestyle=_DASHES)
    return figure


def _draw_exponents(ax: Any, dataset: Any) -> None:
    values = np.asarray(dataset.exponents.values[:, :, 0], float)
    accuracy = np.asarray(dataset.accuracy.values[:, -1], float)
    good = np.all(np.isfinite(values), 1) & np.isfinite(accuracy)
    report.curves([0.0], [np.nan], ax=ax, x_label="first exponent before training", y_label="after training")
    points = ax.scatter(values[good, 0], values[good, 1], c=accuracy[good], cmap="viridis", vmin=0.5, vmax=1, s=16,
                        linewidth=0, alpha=0.85)  # fmt: skip
    ends = [float(np.min(values[good])), float(np.max(values[good]))] if good.any() else [-1.0, 1.0]
    ax.plot(ends, ends, color=FAINT, linewidth=0.9, linestyle=_DASHES, label="unchanged")
    ax.axhline(0, color=FAINT, linewidth=0.7)
    ax.axvline(0, color=FAINT, linewidth=0.7)
    margin = 0.06 * (ends[1] - ends[0] + 0.1)
    ax.set_xlim(ends[0] - margin, float(np.max(values[good, 0], initial=ends[0])) + margin)
    ax.set_ylim(ends[0] - margin, ends[1] + margin)
    bar = ax.figure.colorbar(points, ax=ax, fraction=0.05, pad=0.03)
    bar.set_label("accuracy", fontsize=8.5, color=INK)
    bar.ax.tick_params(labelsize=8, labelcolor=FAINT)
    legend(ax)


def _finished(dataset: Any) -> list[Cell]:
    return [cell for cell in summarise(dataset) if cell.num_lanes and np.isfinite(cell.exponent)]
