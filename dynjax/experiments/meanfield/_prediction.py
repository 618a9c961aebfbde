"""What theory says before anything is run: the critical coupling, the order parameter of the limit, and its profile."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from ..._core import Status
from ...meanfield import (
    AllToAll,
    Gaussian,
    GraphOperator,
    Identical,
    LabelGrid,
    Lorentzian,
    Uniform,
    as_grid,
    critical_coupling,
    stationary_state,
)
from ._config import Config
from ._graphs import measure, profile_grid

CURVE_POINTS = 81
BINS = 40
_BELOW = 11  # of them up to the critical coupling
_CURVE_LABELS = 96
_PROFILE_LABELS = 120
_ALIKE = 1e-10
_RANGE = (0.3, 2.5)  # of the couplings, in units of the critical one
_DIGITS = 4  # of couplings that are chosen here, so that they do not depend on the last bits of an eigenvalue
_SHARE = 0.5  # of the chosen couplings around the critical one


class Prediction(NamedTuple):
    """The limit of a configuration, in float64.

    Attributes:
        critical: predicted critical coupling; infinite where there is none, NaN where it could not be found.
        couplings: K of the sweep.
        curve_couplings: K of the fine curve.
        curve: r of the limit on it; NaN where there is no stationary state in phase, or weights are negative.
        limit: r of the limit at the couplings of the sweep.
        profile: |z(x)| of the limit at these couplings, averaged over bins of labels, (couplings, bins).
    """

    critical: float
    couplings: Float[np.ndarray, "couplings"]
    curve_couplings: Float[np.ndarray, "along"]
    curve: Float[np.ndarray, "along"]
    limit: Float[np.ndarray, "couplings"]
    profile: Float[np.ndarray, "couplings bins"]


def law(config: Config) -> Any:
    """The law of the natural frequencies."""
    if config.frequencies == "identical":
        return Identical()
    laws: dict[str, Any] = {"lorentzian": Lorentzian, "gaussian": Gaussian, "uniform": Uniform}
    return laws[config.frequencies](config.width)


@functools.lru_cache(maxsize=8)
def predict(config: Config) -> Prediction:
    """The prediction of a configuration; computed once in a process.

    Raises:
        FileNotFoundError: if the graph is a file that is not there.
        ValueError: if the graph of a file cannot be used.
    """
    with jax.enable_x64(True):
        limit = measure(config)
        critical = float(critical_coupling(limit, law(config), noise=config.noise))
        couplings = _couplings(config, critical, limit)
        along = _along(0.8 * couplings[0], 1.04 * couplings[-1], critical)
        grid = as_grid(limit, None if isinstance(limit, GraphOperator) else _CURVE_LABELS)
        # Together, since every number of couplings is compiled by itself.
        both, _ = _states(grid, config, np.concatenate([along, couplings]), critical)
        curve, found = both[: len(along)], both[len(along) :]
        profile = _profile(limit, config, couplings, critical, found)
    return Prediction(critical, couplings, along, curve, found, profile)


def critical_of(eigenvalue: float, config: Config) -> float:
    """The critical coupling of a graph with this leading eigenvalue."""
    if not eigenvalue > 0:
        return math.inf
    with jax.enable_x64(True):
        return float(critical_coupling(AllToAll(1, eigenvalue), law(config), noise=config.noise))


def _couplings(config: Config, critical: float, limit: Any) -> Float[np.ndarray, "couplings"]:
    """The couplings of the sweep in increasing order: those asked for, or some around the critical one.

    Where there is none, the unit is the critical coupling of a complete graph of the same mean weight; identical
    oscillators without noise synchronise at any coupling, and have one in which they do so in time.
    """
    if config.couplings:
        return np.sort(np.asarray(config.couplings, float))
    unit = critical
    if not (math.isfinite(critical) and critical > 0):
        grid = as_grid(limit)
        mass = float(grid.mean(jnp.abs(grid.operator.mass())))
        unit = critical_of(mass, config)
        unit = unit if 0 < unit < math.inf else 1 / mass if mass > 0 else 1.0
    # Denser around the onset, where there is something to see.
    middle = round(_SHARE * config.num_couplings)
    near = np.linspace(0.75, 1.35, middle)
    rest = config.num_couplings - middle
    below = max(1, round(rest / 3))
    parts = (np.linspace(_RANGE[0], 0.75, below + 1)[:-1], near, np.linspace(1.35, _RANGE[1], rest - below + 1)[1:])
    ratios = np.concatenate(parts)
    return np.unique([float(f"{unit * ratio:.{_DIGITS}g}") for ratio in ratios])


def _along(low: float, high: float, critical: float) -> Float[np.ndarray, "along"]:
    """Couplings of the curve, dense behind the critical one, where it rises like a root."""
    if not low < critical < high:
        return np.linspace(low, high, CURVE_POINTS)
    above = np.linspace(0, 1, CURVE_POINTS - _BELOW) ** 2
    return np.concatenate([np.linspace(low, critical, _BELOW + 1)[:-1], critical + (high - critical) * above])


def _states(grid: LabelGrid, config: Config, couplings: np.ndarray, critical: float) -> tuple[np.ndarray, np.ndarray]:
    """Order parameters (couplings,) and local ones (couplings, labels or 1) of the stationary states.

    Up to the critical coupling these are zero, which is not computed: Newton's method is slow there.
    """
    order, local = np.zeros(len(couplings)), np.zeros((len(couplings), grid.num_labels))
    above = ~(couplings <= critical)
    if not np.all(np.asarray(grid.operator.mass()) >= 0):
        order[above], local[above] = np.nan, np.nan
    elif above.any():
        solve = lambda coupling: stationary_state(grid, law(config), coupling, noise=config.noise)
        states = jax.vmap(solve)(jnp.asarray(couplings[above]))
        bad = np.asarray(states.status) != int(Status.OK)
        order[above] = np.where(bad, np.nan, np.asarray(states.order_parameter))
        local[above] = np.where(bad[:, None], np.nan, np.asarray(states.local_order_parameter))
    return order, local


def _profile(
    limit: Any, config: Config, couplings: np.ndarray, critical: float, order: np.ndarray
) -> Float[np.ndarray, "couplings bins"]:
    """Averages of the local order parameter over `BINS` bins of labels; that of a file's nodes over bins of their weights."""
    cells = profile_grid(config, _PROFILE_LABELS)
    mass = np.asarray(cells.operator.mass())
    if np.ptp(mass) <= _ALIKE * np.max(np.abs(mass)):  # all labels are driven alike
        return np.repeat(order[:, None], BINS, axis=1)
    _, local = _states(cells, config, couplings, critical)
    places = np.argsort(mass, kind="stable") if isinstance(limit, GraphOperator) else slice(None)
    return local[:, places] @ bin_matrix(local.shape[1]).T


def bin_matrix(count: int) -> Float[np.ndarray, "bins nodes"]:
    """The averages over bins of labels: the bin of label i of `count` is the integer part of (i + 1/2) BINS / count.

    A bin without labels takes the nearest one.
    """
    centres = (np.arange(count) + 0.5) / count
    matrix = (np.floor(centres * BINS) == np.arange(BINS)[:, None]).astype(float)
    for empty in np.flatnonzero(matrix.sum(axis=1) == 0):
        matrix[empty, np.argmin(np.abs(centres - (empty + 0.5) / BINS))] = 1
    return matrix / matrix.sum(axis=1, keepdims=True)
