"""Figures of the memory experiment: the phase diagram, the errors along it, and the maps on both sides."""

import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ... import report
from ...propagation import critical_solution, first_zero, memory_threshold
from .._drawing import FAINT, INK
from ._summary import Cell, summarise
from ._targets import TARGETS

_POINTS = 400
_SLOPES = (0.5, 0.2, 0.1, 0.05, 0.02)  # contours of the smallest slope
_MOST_ROWS = 3


def phase_figure(dataset: Any) -> Any:
    """The plane of K tau and T / tau: the predicted curve, and the best trained network of every pair as a dot.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    cells = summarise(dataset)
    memory, horizon = (np.array([getattr(cell, name) for cell in cells]) for name in ("memory", "horizon"))
    low, high = 0.85 * min(memory.min(), np.exp(-1)), 1.08 * memory.max()
    bottom, top = horizon.min() / 1.35, 2.2 * horizon.max()  # room for the legend
    across = np.linspace(low, high, _POINTS)
    with jax.enable_x64(True):
        curve = np.asarray(first_zero(jnp.asarray(across)))
        up = np.geomspace(bottom, top, _POINTS // 2)
        slopes = np.asarray(critical_solution(jnp.asarray(across[None]), jnp.asarray(up[:, None])))
    slopes = np.where(up[:, None] < curve, slopes, np.nan)
    bound = cells[0].bound
    figure, ax = report.panels(height=4.6)
    report.phase_diagram(
        memory,
        horizon,
        np.array([cell.best for cell in cells]),
        boundary=(across, curve),
        boundary_label="T*/τ, the sharp curve",
        contours=(across, up, slopes, _SLOPES),
        lines={"1/e =": float(np.exp(-1))},
        names=_names(horizon, low, high, (bottom, top)),
        level=bound if bound > 0 else None,
        level_labels=("no better than a monotone map", "better: inputs are merged"),
        ax=ax,
        log_y=True,
        y_limits=(bottom, top),
        x_label="memory capacity Kτ",
        y_label="horizon T/τ",
        value_label="MSE of the best network",
    )
    return figure


def _names(horizon: np.ndarray, low: float, high: float, ends: tuple[float, float]) -> dict[str, tuple[float, float]]:
    """The regions with places for their names, between rows of dots; none for a region out of sight."""
    rows = np.unique(horizon)
    places = {"injective": np.sqrt(ends[0] * rows[0])}
    places["inputs can merge"] = np.sqrt(rows[-1] * (rows[-2] if rows.size > 1 else rows[-1] * 1.3))
    named = {}
    for name, up in places.items():
        edge = float(memory_threshold(up))
        left, right = (low, min(edge, high)) if name == "injective" else (max(edge, low), high)
        if left < right:
            named[name] = ((left + right) / 2, float(up))
    return named


def error_figure(dataset: Any) -> Any:
    """The error against the memory capacity, a curve for each horizon, as it is and in units of the threshold.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    cells = summarise(dataset)
    horizons = sorted({cell.horizon for cell in cells})
    memories = sorted({cell.memory for cell in cells})
    best = np.full((len(horizons), len(memories)), np.nan)
    for cell in cells:
        best[horizons.index(cell.horizon), memories.index(cell.memory)] = cell.best
    figure, (above, below) = report.panels(2, height=3.0)
    report.curves(memories, best, ax=above, values=horizons, value_label="T/τ", log_y=True, x_label="memory capacity Kτ",
                  y_label="MSE")  # fmt: skip
    colours = [line.get_color() for line in above.get_lines()[: len(horizons)]]
    critical = {cell.horizon: cell.critical_memory for cell in cells}
    scaled = "Kτ / critical Kτ"
    report.curves(memories, np.full((1, len(memories)), np.nan), ax=below, log_y=True, x_label=scaled, y_label="MSE")
    below.sharey(above)
    for horizon, row, colour in zip(horizons, best, colours, strict=True):
        above.axvline(critical[horizon], color=colour, linewidth=1.0, linestyle=(0, (4, 2.5)), zorder=1)
        below.plot(np.array(memories) / critical[horizon], row, color=colour, linewidth=1.15)
    _draw_networks(dataset, above, below, dict(zip(horizons, colours, strict=True)), critical)
    _finish_errors(above, below, cells, float(np.max(memories)) / min(critical.values()))
    return figure


def _draw_networks(
    dataset: Any, above: Any, below: Any, colours: dict[float, Any], critical: dict[float, float]
) -> None:
    """A dot for every network."""
    horizon, memory, mse = (np.asarray(dataset[name].values, float) for name in ("horizon", "memory", "mse"))
    for value, colour in colours.items():
        rows = (horizon == value) & np.isfinite(mse) & (mse > 0)
        for ax, scale in ((above, 1.0), (below, critical[value])):
            ax.scatter(memory[rows] / scale, mse[rows], s=11, color=colour, alpha=0.6, linewidth=0, zorder=3)


def _finish_errors(above: Any, below: Any, cells: list[Cell], widest: float) -> None:
    errors = np.array(
        [value for cell in cells for value in (cell.best, cell.worst) if np.isfinite(value) and value > 0]
    )
    bound = cells[0].bound
    if bound > 0:
        for ax in (above, below):
            ax.axhline(bound, color=INK, linewidth=1.2, zorder=2)
        below.annotate(f"best monotone map, {bound:.4g}", (1, bound), (-3, -4), xycoords=("axes fraction", "data"),
                       textcoords="offset points", ha="right", va="top", fontsize=8, color=FAINT)  # fmt: skip
    if errors.size:
        above.set_ylim(min(errors.min(), bound or np.inf) / 2, max(errors.max(), bound) * 2)
    below.axvline(1, color=INK, linewidth=1.2, linestyle=(0, (4, 2.5)), zorder=2)
    memories = [cell.memory for cell in cells]
    above.set_xlim(min(memories) - 0.02, max(memories) + 0.02)
    below.set_xlim(min(cell.memory / cell.critical_memory for cell in cells) - 0.02, widest + 0.02)


def maps_figure(dataset: Any) -> Any:
    """The target and the learnt maps next to the threshold, on both sides, at up to three horizons.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`, or None where no horizon has finished networks.
    """
    cells = [cell for cell in summarise(dataset) if cell.num_networks]
    pairs = _pairs(cells)
    if not pairs:
        return None
    target = TARGETS[json.loads(dataset.attrs["config"])["target"]]
    x = np.asarray(dataset.x.values, float)
    figure, axes = report.panels(len(pairs), 2, height=2.3, share_x=True)
    for row, pair in zip(np.atleast_2d(axes), pairs, strict=True):
        for ax, cell in zip(row, pair, strict=True):
            if cell is None:
                ax.set_axis_off()
                continue
            _draw_maps(dataset, ax, cell, x, np.asarray(target.function(x)), target.formula, last=pair is pairs[-1])
    lines = next(ax for ax in np.ravel(axes) if ax.get_lines()).get_lines()
    shown = [line for line in lines if not str(line.get_label()).startswith("_")]
    figure.legend(handles=shown, loc="outside lower center", ncols=3, frameon=False, fontsize=8, labelcolor=INK)
    return figure


def _pairs(cells: list[Cell]) -> list[tuple[Cell | None, Cell | None]]:
    """The cells next to the threshold below and above it, for the horizons that have both, or else for any."""
    found = []
    for horizon in sorted({cell.horizon for cell in cells}):
        row = [cell for cell in cells if cell.horizon == horizon]
        under = max((cell for cell in row if cell.injective), key=lambda cell: cell.memory, default=None)
        over = min((cell for cell in row if not cell.injective), key=lambda cell: cell.memory, default=None)
        found.append((under, over))
    both = [pair for pair in found if None not in pair] or found
    chosen = np.unique(np.linspace(0, len(both) - 1, min(_MOST_ROWS, len(both))).round().astype(int))
    return [both[index] for index in chosen]


def _draw_maps(dataset: Any, ax: Any, cell: Cell, x: np.ndarray, target: np.ndarray, formula: str, last: bool) -> None:
    same = (dataset.horizon.values == cell.horizon) & (dataset.memory.values == cell.memory)
    rows = np.flatnonzero(same & np.isfinite(dataset.mse.values))
    best = rows[np.argmin(dataset.mse.values[rows])]
    margin = 0.25 * float(np.ptp(target))
    report.band(
        x,
        {"best network": np.asarray(dataset.learnt.values[best], float), formula: target},
        ax=ax,
        y_limits=(float(target.min()) - margin, float(target.max()) + margin),
        x_label="x" if last else "",
        title=f"T/τ = {cell.horizon:g}, Kτ = {cell.memory:g} {'<' if cell.injective else '>'} {cell.critical_memory:.4f}",
        show_legend=False,
    )
    for number, row in enumerate(rows[rows != best]):
        ax.plot(x, dataset.learnt.values[row], color=report.TONES["neutral"], linewidth=0.8, alpha=0.7, zorder=2,
                label="_" if number else "other seeds")  # fmt: skip
    ax.text(0.5, 0.97, f"MSE {cell.best:.2g}", transform=ax.transAxes, ha="center", va="top", fontsize=8.5, color=INK)
