"""The learning rate at which a solution becomes unstable for SGD, in three senses."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8, PRNGKeyArray, PyTree

from .._core import Status, check_that, is_concrete
from ..curvature import tangent_kernel
from ..linalg import eigsh
from ..reference import scalar_sgd_thresholds
from ._batch_indices import Scheme
from ._cocycle_plan import plan_run
from ._mean_square import mean_square_threshold
from ._normal_space import NormalSpace, check_network, normal_space
from ._sgd_stability import Setting, check_batch_size, check_steps, exponents_of_space, is_finite_mean
from ._volume import all_batches, batch_eigenvalues

Criterion = Literal["almost_sure", "gd", "mean_square"]

_RATES = 32
_ROUNDS = 2
_REPEATS = 8
# The exact zeros are found from all pairs of poles.
_MAX_POLES = 1000


class CriticalLearningRate(eqx.Module):
    """Where SGD loses a solution.

    Attributes:
        value: the first learning rate at which the criterion turns unstable; NaN if none was found.
        standard_error: of `value`, from repetitions with independent noise, and at least the error of the exponent over its
            slope; 0 for exact values.
        crossings: all zeros of the exponent that were found, ascending, upward and downward ones in turn: between the
            second and the third, for instance, SGD is stable again. One for the other criteria.
        slope: derivative of the exponent with respect to the rate at `value`, from above; NaN for the other criteria.
        status: `OK`, or `NOT_CONVERGED` where there is no crossing or a solver missed its tolerance.
        exact: whether `value` is free of sampling error.
    """

    value: Float[Array, ""]
    standard_error: Float[Array, ""]
    crossings: Float[Array, "crossings"]
    slope: Float[Array, ""]
    status: Int8[Array, ""]
    exact: bool = eqx.field(static=True)

    def __str__(self) -> str:
        """Value, error, and further crossings."""
        more = f", further crossings at {self.crossings[1:]}" if self.crossings.size > 1 else ""
        return f"critical learning rate {self.value:.6g} +- {self.standard_error:.1g}{more}"


def critical_learning_rate(
    predict: Callable[[Any, Any], Array],
    params: PyTree,
    inputs: PyTree,
    *,
    batch_size: int,
    criterion: Criterion = "almost_sure",
    key: PRNGKeyArray | None = None,
    num_steps: int = 100_000,
    scheme: Scheme = "iid",
    rank_tolerance: float | None = None,
) -> CriticalLearningRate:
    r"""The learning rate above which SGD is driven away from a solution that fits its data.

    - `"gd"`: 2N / lambda_max(K), for full-batch gradient descent; the kernel is not formed.
    - `"mean_square"`: 2 / lambda_max(C^+ D), above which E |w|^2 grows; exact.
    - `"almost_sure"`: the first upward zero of the Lyapunov exponent of `sgd_stability`. In a normal space of dimension one the
      zeros are exact. Otherwise 32 rates, from the mean-square threshold (below which the exponent is negative) to where
      single samples expand, share the noise of one run; between neighbours on both sides of a change of sign 32 further
      rates, twice, give a curve whose zero is read off; eight such runs with other noise give the mean and its error. No use
      is made of the derivative of the exponent, whose estimates have heavy tails. Runs start in the slowest mode of the
      kernel, whose decay is all there is below the threshold on ill-conditioned kernels; close above it the instability
      needs 1 / exponent steps to show, so that short runs put the threshold too high (on a kernel of condition 4e5 by one
      per cent at 10,000 steps and half a per cent at 100,000, against 1,000,000).

    Stability need not hold on an interval: see `.crossings`. A window of instability narrower than the grid can be missed.

    Args:
        predict: `predict(params, inputs)`, outputs (N,) or (N, C).
        params: the solution.
        inputs: array or pytree of arrays with samples along the first axis.
        batch_size: B.
        criterion: which notion of stability.
        key: fixes the batches of the runs.
        num_steps: steps of each run, after a burn-in of a tenth.
        scheme: "iid" or "reshuffle"; it matters for `"almost_sure"` alone.
        rank_tolerance: as in `normal_space`.

    Returns:
        A `CriticalLearningRate`.

    Raises:
        TypeError: if `predict` is not a function that returns one real array, or values are traced.
        ValueError: if sizes or values are impossible; for `"mean_square"` with reshuffled batches.

    Example:
        ```python
        dj.critical_learning_rate(predict, params, x, batch_size=1, key=jax.random.key(0)).value
        ```
    """
    check_that(is_concrete((params, inputs)), "params", "be known", "it is traced", TypeError)
    known = ("almost_sure", "gd", "mean_square")
    check_that(criterion in known, "criterion", f"be one of {known}", f"found {criterion!r}")
    check_that(scheme in ("iid", "reshuffle"), "scheme", 'be "iid" or "reshuffle"', f"found {scheme!r}")
    problem = check_network(predict, params, inputs)
    batch_size = check_batch_size(batch_size, problem.num_samples)
    num_steps, _ = check_steps(num_steps, None)
    if criterion == "gd" or (criterion == "almost_sure" and batch_size == problem.num_samples):
        return _gradient_descent(predict, params, inputs, problem.num_samples)
    space = normal_space(predict, params, inputs, rank_tolerance=rank_tolerance)
    if criterion == "mean_square":
        check_that(scheme == "iid", "scheme", 'be "iid" for the mean-square criterion', f"found {scheme!r}")
        threshold = mean_square_threshold(space, batch_size)
        return _exact_value(threshold.value, threshold.value[None], threshold.converged)
    key = jax.random.key(0) if key is None else key
    return almost_sure_threshold(space, batch_size, key, num_steps=num_steps, scheme=scheme)


def almost_sure_threshold(
    space: NormalSpace, batch_size: int, key: PRNGKeyArray, *, num_steps: int, scheme: Scheme, repeats: int = _REPEATS
) -> CriticalLearningRate:
    """`critical_learning_rate` with the almost sure criterion, once the normal space is known."""
    if is_finite_mean(space, batch_size):
        crossings = _zeros_in_one_dimension(space, batch_size)
        if crossings is not None:
            return _exact_value(crossings[0], crossings, jnp.asarray(True))
    search = _make_search(space, batch_size, key, num_steps, scheme, repeats)
    return _collect([_repeat(search, *ends) for ends in _scan(search)], space.factor.dtype)


def _gradient_descent(predict: Any, params: PyTree, inputs: PyTree, num_samples: int) -> CriticalLearningRate:
    top = eigsh(tangent_kernel(predict, params, inputs, mode="linearise"), 1)
    value = 2 * num_samples / top.values[0]
    return _exact_value(value, value[None], top.converged[0])


def _exact_value(value: Array, crossings: Array, good: Array) -> CriticalLearningRate:
    status = jnp.where(good & jnp.isfinite(value), int(Status.OK), int(Status.NOT_CONVERGED)).astype(jnp.int8)
    return CriticalLearningRate(value, jnp.zeros_like(value), crossings, jnp.full_like(value, jnp.nan), status, True)


def _zeros_in_one_dimension(space: NormalSpace, batch_size: int) -> Float[Array, "crossings"] | None:
    """All zeros of the mean of log |1 - eta h| over batches, from the upward first; batches of curvature 0 do not count."""
    batches = all_batches(space.num_samples, batch_size)
    if batches is None:
        return None
    values = np.asarray(batch_eigenvalues(space, batches)[:, 0] / batch_size, np.float64)
    values = values[values > 16 * np.finfo(np.asarray(space.factor).dtype).eps * values.max()]
    curvatures, counts = np.unique(values, return_counts=True)
    if curvatures.size > _MAX_POLES:
        return None
    dtype = space.factor.dtype
    found = np.asarray(scalar_sgd_thresholds(jnp.asarray(curvatures, dtype), jnp.asarray(counts, dtype)).crossings)
    return jnp.asarray(np.sort(found[np.isfinite(found)]), dtype)


class _Search(NamedTuple):
    """Runs over any rates of one interval with one noise path and one compiled program."""

    space: NormalSpace
    setting: Setting
    key: PRNGKeyArray
    rates: np.ndarray  # the grid of the scan
    floor: float  # below it the exponent is negative for certain
    repeats: int

    def exponents(self, rates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Exponents and standard errors."""
        result = exponents_of_space(self.space, jnp.asarray(rates, self.space.factor.dtype), self.setting, self.key)
        return np.asarray(result.values[:, 0], float), np.asarray(result.errors[:, 0], float)


def _make_search(
    space: NormalSpace, batch_size: int, key: PRNGKeyArray, num_steps: int, scheme: Scheme, repeats: int
) -> _Search:
    floor = float(mean_square_threshold(space, batch_size).value) if scheme == "iid" else 0.0
    low = 0.9 * floor or 0.5 * float(mean_square_threshold(space, batch_size).value)
    own = np.linalg.eigvalsh(np.asarray(space.own_kernels, float)).max(axis=1)
    high = 2.2 * batch_size / own[own > 0].min()
    rates = np.geomspace(low, max(high, 4 * low), _RATES)
    last = jnp.asarray(rates[-1:], space.factor.dtype)
    plan = plan_run(space, last, batch_size, num_steps=num_steps, burn_in=num_steps // 10, scheme=scheme)
    setting = Setting(batch_size, scheme, None, num_steps, num_steps // 10, 1, plan.block_length, plan.triangular)
    return _Search(space, setting, key, rates, floor, repeats)


def _scan(search: _Search) -> list[tuple[float, float]]:
    """Intervals as (stable end, unstable end) around each change of sign, ascending, a cell wider on both sides."""
    rates = search.rates
    values, errors = search.exponents(rates)
    unstable = values > 2 * errors
    pairs = []
    for i in np.flatnonzero(unstable[:-1] != unstable[1:]).tolist():
        ends = (float(rates[max(i - 1, 0)]), float(rates[min(i + 2, _RATES - 1)]))
        pairs.append(ends if unstable[i + 1] else ends[::-1])
    return pairs


def _repeat(search: _Search, stable: float, unstable: float) -> tuple[float, float, float]:
    """(zero, standard error, slope) of the exponent between a stable and an unstable rate, by runs with other noise.

    Each run gives one curve over 32 rates and one zero. A second round looks closer, so that the spacing does not count.
    """
    low, high = sorted((stable, unstable))
    sign = 1.0 if stable < unstable else -1.0
    keys = jax.random.split(search.key, search.repeats)
    for _ in range(_ROUNDS):
        rates = np.linspace(low, high, _RATES)
        curves, errors = np.stack([search._replace(key=key).exponents(rates) for key in keys], axis=1)
        curves = sign * curves
        zeros = np.array([_crossing(rates, curve) for curve in curves])
        middle = float(zeros.mean())
        width = max(2 * (rates[1] - rates[0]), 5 * float(zeros.std(ddof=1)))
        low, high = max(low, middle - width), min(high, middle + width)
    beyond = rates >= middle if sign > 0 else rates <= middle
    gap = rates[beyond] - middle
    slope = float(gap @ curves.mean(axis=0)[beyond] / max(gap @ gap, np.finfo(float).tiny))
    # Few zeros tell their own spread badly: not less than what the error of the exponents there stands for.
    nearest = int(np.argmin(np.abs(rates - middle)))
    own = float(np.sqrt(np.mean(errors[:, nearest] ** 2))) / max(abs(slope), np.finfo(float).tiny)
    error = max(float(zeros.std(ddof=1)), min(own, rates[-1] - rates[0])) / np.sqrt(search.repeats)
    return max(middle, search.floor), error, sign * slope


def _crossing(rates: np.ndarray, values: np.ndarray) -> float:
    """Where noisy values go from negative to positive: the split that the fewest signs contradict, then a straight line."""
    positive = np.concatenate([[0], np.cumsum(values > 0)])
    negative = np.concatenate([[0], np.cumsum(values <= 0)])
    wrong = positive[1:-1] + (negative[-1] - negative[1:-1])
    i = int(np.argmin(wrong))
    below, above = float(values[i]), float(values[i + 1])
    share = -below / (above - below) if above > 0 >= below else 0.5
    return float(rates[i] + share * (rates[i + 1] - rates[i]))


def _collect(crossings: list[tuple[float, float, float]], dtype: Any) -> CriticalLearningRate:
    if not crossings:
        nan = jnp.full((), jnp.nan, dtype)
        missing = jnp.asarray(int(Status.NOT_CONVERGED), jnp.int8)
        return CriticalLearningRate(nan, nan, jnp.zeros((0,), dtype), nan, missing, False)
    zeros, errors, slopes = (jnp.asarray(column, dtype) for column in zip(*crossings, strict=True))
    status = jnp.asarray(int(Status.OK), jnp.int8)
    return CriticalLearningRate(zeros[0], errors[0], zeros, slopes[0], status, False)
