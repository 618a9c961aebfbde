"""Figures of the flow experiment: samples and paths, losses, distances, decisions, and stiffness."""

import json
from typing import Any

import numpy as np

from ... import report
from ...generative import lipschitz_profile, speciation_time
from .._drawing import FAINT, INK, legend, spread_out
from ._config import KINDS
from ._summary import CLOSE, Cell, chosen, distances, finished, modes_of, reference_distance, summarise
from ._target import exact_fields, mixture

_DASHES: Any = (0, (4, 2.5))
_MODE_COLOURS = ("#3d6bb3", "#c8553d", "#4f9d69", "#8a5fb0", "#d99b2b", "#3aa6b9", "#b04f86", "#7a7a3c", "#5c636b")
_KIND_COLOURS = {"flow-matching": report.TONES["good"], "diffusion": report.TONES["bad"]}
_MOST_PATHS = 160


def best_cells(dataset: Any) -> list[Cell]:
    """For each kind the learning rate at which the loss is least above that of the exact field."""
    cells = [cell for cell in summarise(dataset) if np.isfinite(cell.excess)]
    kinds = [kind for kind in KINDS if any(cell.kind == kind for cell in cells)]
    return [min((cell for cell in cells if cell.kind == kind), key=lambda cell: cell.excess) for kind in kinds]


def sample_figure(dataset: Any) -> Any:
    """A sample of the target, and of each kind the samples of one run with the paths that led there, coloured by mode.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`, or None where no lane is finished.
    """
    config, best = json.loads(dataset.attrs["config"]), best_cells(dataset)
    if not best:
        return None
    figure, axes = report.panels(1, 1 + len(best), height=2.9 if len(best) == 2 else 3.6)
    law = mixture(config["target"], config["variance"])
    generator = np.random.default_rng(config["seed"])
    modes = generator.integers(law.num_modes, size=config["num_samples"])
    points = np.asarray(law.means)[modes] + config["variance"] ** 0.5 * generator.standard_normal((modes.size, 2))
    extent = float(np.abs(np.asarray(law.means)).max() + 4 * config["variance"] ** 0.5)
    _draw_points(axes[0], points, modes, extent, "the target")
    for ax, cell in zip(axes[1:], best, strict=True):
        lane = _lanes(dataset, cell)[0]
        samples, path = (np.asarray(dataset[name].values[lane], float) for name in ("samples", "path"))
        ends = modes_of(config, path[0, :, -1])
        for line, mode in zip(path[0][:_MOST_PATHS], ends[:_MOST_PATHS], strict=True):
            ax.plot(*line.T, color=_MODE_COLOURS[mode], linewidth=0.5, alpha=0.35)
        _draw_points(ax, samples, modes_of(config, samples), extent, f"{cell.kind}, rate {cell.learning_rate:g}")
    return figure


def _draw_points(ax: Any, points: np.ndarray, modes: np.ndarray, extent: float, title: str) -> None:
    report.curves([0.0], [np.nan], ax=ax, x_label="", title=title)
    ax.scatter(*points.T, c=np.array(_MODE_COLOURS)[modes], s=3, linewidth=0, alpha=0.8)
    ax.set(aspect="equal", xlim=(-extent, extent), ylim=(-extent, extent), xticks=[], yticks=[])


def loss_figure(dataset: Any) -> Any:
    """The mean squared error of the field over the steps, at each learning rate, one panel for each kind.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`, or None where no lane has a reading.
    """
    config = json.loads(dataset.attrs["config"])
    kinds = [kind for kind in KINDS if kind in config["kinds"]]
    rates = np.array(sorted(config["learning_rates"]))
    errors = np.asarray(dataset.field_error.values, float)
    if not np.isfinite(errors).any():
        return None
    figure, axes = report.panels(1, len(kinds), height=3.3)
    for i, (ax, kind) in enumerate(zip(np.atleast_1d(axes), kinds, strict=True)):
        rows = np.array([_middle(errors[chosen(dataset, kind, rate)]) for rate in rates])
        report.curves(dataset.reading.values, rows, ax=ax, values=rates, log_y=True, title=kind,
                      y_label="mean squared error of the field" if i == 0 else "",
                      show_values=i == len(kinds) - 1)  # fmt: skip
    return figure


def _middle(rows: np.ndarray) -> np.ndarray:
    """The median over lanes that are finite, reading by reading."""
    known = np.isfinite(rows).any(0)
    out = np.full(rows.shape[1], np.nan)
    out[known] = np.nanmedian(rows[:, known], 0)
    return out


def distance_figure(dataset: Any) -> Any:
    """Left, W2 to the target over that between two of its samples; right, the Kullback-Leibler divergence.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`, or None where no lane is finished.
    """
    config = json.loads(dataset.attrs["config"])
    cells = [cell for cell in summarise(dataset) if np.isfinite(cell.distance)]
    if not cells:
        return None
    figure, (left, right) = report.panels(1, 2, height=3.3)
    reference = reference_distance(config["target"], config["variance"], config["seed"], config["num_samples"])
    ratios = distances(dataset) / reference
    rates = np.asarray(dataset.learning_rate.values, float)
    for ax, name in ((left, "W2 / that between two samples"), (right, "divergence KL(target, model)")):
        report.curves([1.0], [np.nan], ax=ax, log_x=True, x_label="learning rate", y_label=name)
    left.axhspan(0, CLOSE, color="#e4eef7", linewidth=0)
    left.axhline(1, color=FAINT, linewidth=0.9, linestyle=_DASHES)
    for kind in {cell.kind: None for cell in cells}:
        mine, colour = [cell for cell in cells if cell.kind == kind], _KIND_COLOURS[kind]
        x = np.array([cell.learning_rate for cell in mine])
        lanes = (np.asarray(dataset.diffusion.values) == KINDS.index(kind)) & np.isfinite(ratios)
        left.plot(rates[lanes], ratios[lanes], "o", color=colour, markersize=3.5, alpha=0.5, markeredgewidth=0)
        left.plot(x, [cell.ratio for cell in mine], color=colour, linewidth=1.3, label=kind)
        values, errors = np.array([(cell.divergence, 3 * np.nan_to_num(cell.divergence_error)) for cell in mine]).T
        right.errorbar(x, values, errors, fmt="o-", color=colour, markersize=4, linewidth=1.3, capsize=2.5, label=kind)
    right.axhline(0, color=FAINT, linewidth=0.9)
    left.set_ylim(0, max(1.25 * CLOSE, min(12.0, 1.1 * float(np.nanmax(ratios)))))
    low = min(float(np.min([cell.divergence - 3 * np.nan_to_num(cell.divergence_error) for cell in cells])), 0.0)
    right.set_yscale("symlog", linthresh=0.05, linscale=0.5)
    right.set_ylim(bottom=1.2 * low - 0.005)
    shown = spread_out(sorted(config["learning_rates"]), 6)
    for ax in (left, right):
        ax.set_xticks(shown, [f"{rate:g}" for rate in shown])
        ax.set_xticks([], minor=True)
        ax.set_xlim(min(config["learning_rates"]) / 1.5, max(config["learning_rates"]) * 1.5)
        legend(ax)
    return figure


def decision_figure(dataset: Any) -> Any:
    """Left, the noise levels at which trajectories commit to a mode; right, exponents of the trained and the exact flow.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`, or None where no lane is finished.
    """
    config, best = json.loads(dataset.attrs["config"]), best_cells(dataset)
    if not best:
        return None
    figure, (left, right) = report.panels(1, 2, height=3.3)
    report.curves([1.0], [np.nan], ax=left, log_x=True, x_label="noise level b / a, falling as sampling goes on",
                  y_label="part that has committed")  # fmt: skip
    report.curves(
        [0.0], [np.nan], ax=right, x_label="stretching by the exact flow, log", y_label="by the trained one, log"
    )
    exact, ends = [], []
    for cell in best:
        lanes = _lanes(dataset, cell)
        times = np.asarray(dataset.commitment.values[lanes], float)
        exact.append(times[:, 1].ravel())
        _draw_levels(left, times[:, 0].ravel(), _KIND_COLOURS[cell.kind], cell.kind, "-")
        stretch = _duration(config, cell.kind) * np.asarray(dataset.exponents.values[lanes, :, :, 0], float)
        right.scatter(stretch[:, 1], stretch[:, 0], s=5, color=_KIND_COLOURS[cell.kind], alpha=0.4, linewidth=0,
                      label=cell.kind)  # fmt: skip
        ends.append(np.nanpercentile(stretch, [0.5, 99.5]))
    _draw_levels(left, np.concatenate(exact), INK, "exact", _DASHES)
    split = _speciation_level(config)
    if np.isfinite(split):
        left.axvline(split, color=FAINT, linewidth=1.0, linestyle=":", label="speciation")
    left.set_xlim(30, 0.03)
    left.set_ylim(0, 1.02)
    low, high = float(np.min(ends)), float(np.max(ends))
    margin = 0.08 * (high - low) + 0.05
    right.plot([low, high], [low, high], color=INK, linewidth=0.9, linestyle=_DASHES)
    right.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
    legend(left)
    legend(right)
    return figure


def _draw_levels(ax: Any, levels: np.ndarray, colour: str, name: str, style: Any) -> None:
    """The part of trajectories that has committed by the time the noise has fallen to a level; some never do."""
    known = np.sort(levels[np.isfinite(levels)])[::-1]
    parts = np.arange(1, known.size + 1) / levels.size
    ax.step(np.maximum(known, 1e-3), parts, where="post", color=colour, linewidth=1.4, linestyle=style, label=name)


def _speciation_level(config: dict[str, Any]) -> float:
    """The noise level at which the centre of the law stops being a mode; NaN where it is one to the end, or never."""
    field = exact_fields(mixture(config["target"], config["variance"]))[0]
    time = float(speciation_time(field))
    return (1 - time) / time


def _duration(config: dict[str, Any], kind: str) -> float:
    field = exact_fields(mixture(config["target"], config["variance"]))[KINDS.index(kind)]
    return abs(float(field.data_time) - float(field.noise_time))


def stiffness_figure(dataset: Any) -> Any:
    """The largest norm of the Jacobian along the paths, trained and exact, under the bound over the whole plane.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`, or None where no lane is finished.
    """
    config, best = json.loads(dataset.attrs["config"]), best_cells(dataset)
    if not best:
        return None
    figure, axes = report.panels(1, len(best), height=3.3)
    part = np.asarray(dataset.time.values, float)
    for i, (ax, cell) in enumerate(zip(np.atleast_1d(axes), best, strict=True)):
        field = exact_fields(mixture(config["target"], config["variance"]))[KINDS.index(cell.kind)]
        norms = np.asarray(dataset.stiffness.values[_lanes(dataset, cell)], float).max(0)
        times = float(field.noise_time) + part * (float(field.data_time) - float(field.noise_time))
        bounds = np.asarray(lipschitz_profile(field, times).bounds)
        report.curves([0.0], [np.nan], ax=ax, log_y=True, x_label="part of the path", title=cell.kind,
                      y_label="norm of the Jacobian" if i == 0 else "")  # fmt: skip
        ax.plot(part, norms[0], color=_KIND_COLOURS[cell.kind], linewidth=1.5, label="trained, on its paths")
        ax.plot(part, norms[1], color=INK, linewidth=1.2, linestyle=_DASHES, label="exact, on its paths")
        ax.plot(part, bounds, color=FAINT, linewidth=1.0, label="exact, bound over the plane")
        heights = np.concatenate([norms.ravel(), bounds])
        ax.set(xlim=(0, 1), ylim=(0.5 * heights[heights > 0].min(), 3 * heights.max()))
        legend(ax)
    return figure


def _lanes(dataset: Any, cell: Cell) -> np.ndarray:
    """Finished lanes of a cell."""
    return np.flatnonzero(chosen(dataset, cell.kind, cell.learning_rate) & finished(dataset))
