"""What the trained networks have reached, against what theory lets them reach, from the stored arrays alone."""

import dataclasses
import json
from typing import Any

import jax
import numpy as np

from ...propagation import critical_solution, first_zero, memory_threshold, monotone_error_bound
from .._text_table import text_table
from ._targets import TARGETS

_ROUNDING = 1e-6  # relative slack of the error bound; far below any difference that is seen


@dataclasses.dataclass(frozen=True)
class Cell:
    """All networks of one horizon and memory capacity in numbers.

    Attributes:
        horizon: T / tau.
        memory: K tau.
        critical_memory: the threshold for this horizon.
        critical_horizon: T* / tau, the first zero of w, for this memory; infinite where there is none.
        decay: w(T), the smallest factor by which such a network can shrink differences; 0 above the threshold.
        injective: whether the memory is below the threshold, so that y(T) is an injective function of the input.
        bound: mean square error of the best monotone map.
        num_networks: networks that are finished.
        best: smallest mean square error; NaN without networks, as the following.
        median: its median.
        worst: its largest value.
        gain: modulus of the readout's slope for the best network.
        shrinkage: the smallest difference quotient of y(T) over w(T), at least 1 by theory; NaN above the threshold.
        verdict: "respects the bound", "violates the bound", "learnt", "beyond the bound", "not learnt" or "unfinished".
    """

    horizon: float
    memory: float
    critical_memory: float
    critical_horizon: float
    decay: float
    injective: bool
    bound: float
    num_networks: int
    best: float
    median: float
    worst: float
    gain: float
    shrinkage: float
    verdict: str


def error_bound(target: str) -> float:
    """The mean square error of the best monotone map, uniform on [-1, 1], in double precision."""
    with jax.enable_x64(True):
        return float(monotone_error_bound(TARGETS[target].function))


def summarise(dataset: Any) -> list[Cell]:
    """What the networks of every horizon and memory capacity have reached.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        One `Cell` for each pair, by horizon and then by memory.
    """
    config = json.loads(dataset.attrs["config"])
    bound = error_bound(config["target"])
    horizon, memory = np.asarray(dataset.horizon.values, float), np.asarray(dataset.memory.values, float)
    pairs = sorted(set(zip(horizon.tolist(), memory.tolist(), strict=True)))
    with jax.enable_x64(True):
        at, strength = np.asarray(pairs).T
        critical, zeros = np.asarray(memory_threshold(at)), np.asarray(first_zero(strength))
        decay = np.where(at < zeros, np.asarray(critical_solution(strength, at)), 0.0)
    theory = zip(critical.tolist(), zeros.tolist(), decay.tolist(), strict=True)
    return [
        _summarise_cell(dataset, pair, numbers, bound, config["tolerance"])
        for pair, numbers in zip(pairs, theory, strict=True)
    ]


def _summarise_cell(
    dataset: Any, pair: tuple[float, float], theory: tuple[float, float, float], bound: float, tolerance: float
) -> Cell:
    chosen = np.flatnonzero((dataset.horizon.values == pair[0]) & (dataset.memory.values == pair[1]))
    errors = np.asarray(dataset.mse.values[chosen], float)
    chosen, errors = chosen[np.isfinite(errors)], errors[np.isfinite(errors)]
    critical, zero, decay = theory
    nan = float("nan")
    best = int(chosen[np.argmin(errors)]) if chosen.size else -1
    slopes = np.asarray(dataset.smallest_slope.values[chosen], float)
    return Cell(
        horizon=pair[0],
        memory=pair[1],
        critical_memory=critical,
        critical_horizon=zero,
        decay=decay,
        injective=pair[1] < critical,
        bound=bound,
        num_networks=int(chosen.size),
        best=float(errors.min()) if chosen.size else nan,
        median=float(np.median(errors)) if chosen.size else nan,
        worst=float(errors.max()) if chosen.size else nan,
        gain=abs(float(dataset.final_gain.values[best])) if chosen.size else nan,
        shrinkage=float(slopes.min() / decay) if chosen.size and decay > 0 else nan,
        verdict=_verdict(errors, pair[1] < critical, bound, tolerance),
    )


def _verdict(errors: np.ndarray, injective: bool, bound: float, tolerance: float) -> str:
    if not errors.size:
        return "unfinished"
    best = errors.min()
    # With a monotone target the bound is 0, and nothing is to be violated.
    if injective and bound > tolerance:
        return "respects the bound" if best >= bound * (1 - _ROUNDING) else "violates the bound"
    if best <= tolerance:
        return "learnt"
    return "beyond the bound" if best < bound else "not learnt"


COLUMNS = (
    "T / tau",
    "K tau",
    "critical K tau",
    "side",
    "best MSE",
    "median",
    "bound",
    "gain",
    "slope / w(T)",
    "verdict",
)


def side(cell: Cell) -> str:
    """The side of the curve on which a cell lies, in one word."""
    return "injective" if cell.injective else "can merge"


def table_rows(cells: list[Cell]) -> list[tuple[str, ...]]:
    """The cells as text under `COLUMNS`."""
    shown = lambda value, form: format(value, form) if np.isfinite(value) else "-"
    return [
        (
            f"{cell.horizon:g}",
            f"{cell.memory:g}",
            f"{cell.critical_memory:.5f}",
            side(cell),
            shown(cell.best, ".2e"),
            shown(cell.median, ".2e"),
            f"{cell.bound:.5f}",
            shown(cell.gain, ".3g"),
            shown(cell.shrinkage, ".4f"),
            cell.verdict,
        )
        for cell in cells
    ]


def table(dataset: Any) -> str:
    """What the networks have reached, as a plain-text table for a terminal.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A header, a rule, and a line for each horizon and memory capacity.
    """
    return text_table(COLUMNS, table_rows(summarise(dataset)))
