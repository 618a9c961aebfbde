"""Critical couplings read off the runs."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from ...meanfield import subcritical_fit
from ._config import Config
from ._stored import averages, first_finite

_LOCKED = 0.15  # least order parameter of the limit at which its curve is matched
_SUBCRITICAL = (0.45, 0.85)  # couplings, over Kc, whose fluctuations give an estimate


@dataclasses.dataclass(frozen=True)
class Onset:
    """A critical coupling read off the runs of the largest size.

    Attributes:
        value: the estimate; NaN where there is none.
        error: its standard error, from the scatter of the seeds; NaN for one seed.
        method: "subcritical fluctuations", "matched curve", or "none".
    """

    value: float
    error: float
    method: str


def find_onset(dataset: Any, config: Config, critical: float, couplings: np.ndarray, order: np.ndarray) -> Onset:
    """The critical coupling of the largest size: from fluctuations below it, or the curve above it.

    Args:
        dataset: a store of this experiment.
        config: its configuration.
        critical: the predicted one.
        couplings: K, in increasing order.
        order: time averages of r at the largest size, (couplings, seeds).
    """
    if not (math.isfinite(critical) and critical > 0):
        return Onset(math.nan, math.nan, "none")
    # For other laws without noise the fluctuations of frozen frequencies follow no such line.
    if config.frequencies == "identical":
        projected = averages(dataset, "projected")[0][:, :, -1]
        ratio = couplings / critical
        chosen = (ratio >= _SUBCRITICAL[0]) & (ratio <= _SUBCRITICAL[1])
        if chosen.any():
            fit = lambda values: _subcritical(couplings[chosen], values[chosen])
            return _with_error(fit, projected, "subcritical fluctuations")
    along = np.asarray(dataset.along.values, float)
    curve = first_finite(np.asarray(dataset.curve.values, float), 0)
    known = np.isfinite(curve)
    if not known.any() or np.max(curve[known]) < _LOCKED:
        return Onset(math.nan, math.nan, "none")
    fit = lambda values: critical * _stretch(couplings, values, along[known], curve[known])
    return _with_error(fit, order, "matched curve")


def _with_error(fit: Any, values: np.ndarray, method: str) -> Onset:
    """An estimate from the mean over the seeds, its error from estimates for each seed."""
    whole = np.all(np.isfinite(values), axis=0)
    if not whole.any():
        return Onset(math.nan, math.nan, method)
    single = np.array([fit(column) for column in values[:, whole].T])
    single = single[np.isfinite(single)]
    error = np.std(single, ddof=1) / math.sqrt(single.size) if single.size > 1 else math.nan
    return Onset(float(fit(values[:, whole].mean(axis=1))), float(error), method)


def _subcritical(couplings: np.ndarray, squares: np.ndarray) -> float:
    with jax.enable_x64(True):
        critical = float(subcritical_fit(couplings, squares))
    return critical if math.isfinite(critical) else math.nan


def _stretch(couplings: np.ndarray, order: np.ndarray, along: np.ndarray, curve: np.ndarray) -> float:
    """The factor s for which limit(K / s) is closest to the measured r(K) on the synchronised branch, by bisecting a grid.

    A graph whose weights are all 1/s times as large has its curve stretched by s, and its critical coupling too.
    """
    best, low, high = 1.0, 0.5, 2.0
    for _ in range(6):
        trial = np.linspace(low, high, 41)
        miss = [_misfit(couplings / s, order, along, curve) for s in trial]
        at = int(np.argmin(miss))
        best, step = float(trial[at]), (high - low) / 40
        low, high = best - 2 * step, best + 2 * step
    return best if 0.5 < best < 2 else math.nan


def _misfit(couplings: np.ndarray, order: np.ndarray, along: np.ndarray, curve: np.ndarray) -> float:
    limit = np.interp(couplings, along, curve)
    # Below it there is only the noise of finite size, and it would pull the onset down.
    locked = (limit >= _LOCKED) & (couplings <= along[-1])
    return float(np.mean((order - limit)[locked] ** 2)) if locked.sum() >= 2 else math.inf
