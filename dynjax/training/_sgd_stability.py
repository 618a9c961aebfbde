"""Which solutions SGD can stay at: the Lyapunov exponent of SGD on the normal space, and everything that brackets it."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int8, PRNGKeyArray, PyTree

from .._core import Status, check_that, found, is_concrete
from ._batch_indices import Scheme
from ._cocycle_plan import plan_run, start_frame
from ._growth_rates import averaged_statistics, sign_confidence, vector_statistics
from ._mean_square import mean_square_rate
from ._momentum import momentum_gd_exponent, run_momentum
from ._normal_space import NormalSpace, check_network, check_targets, normal_space
from ._sgd_cocycle import run_cocycle
from ._tail_index import exact_tail_index, population_tail_index
from ._volume import all_batches, log_distance_from_one, volume_growth

# With more components than this their exponents are not computed one by one.
_MAX_BLOCKS = 32


class SGDStability(eqx.Module):
    """The stability of SGD at an interpolation solution, for each of L learning rates.

    Attributes:
        learning_rates: the rates.
        exponent: the almost sure Lyapunov exponent per step on the normal space; SGD converges to the solution from nearby if
            it is negative and is driven away if it is positive. -inf where everything is annihilated.
        standard_error: its standard error; 0 where the exponent is an exact finite mean.
        sign_confidence: the probability that the sign is right, by Student's distribution; 1/2 means unknown.
        exponents: the first k exponents, (L, k), descending.
        standard_errors: theirs, (L, k).
        gd_exponent: the exponent of full-batch gradient descent.
        mean_square_rate: half the growth of E |w|^2 per step, exact; NaN for reshuffled batches and momentum.
        lower_bound: mean log growth of volumes per step and dimension: at most the exponent.
        lower_bound_standard_error: 0 where all batches were visited.
        tail_index: p* > 0 with zero growth of E |w|^p*; NaN where the exponent is not negative and where it was not asked for,
            inf where all moments decay (above dimension one: all up to the eighth).
        tail_index_standard_error: 0 in dimension one, where it is exact.
        sum_rule_residual: sum of all exponents minus its exact value, NaN unless k is the dimension.
        drift: second half of the run minus the first, in standard errors.
        resonant: (L,) whether I - (eta/B) K_ii is singular for some sample i.
        block_exponents: (L, components) exponents of the components of the normal space if it splits into 2 to 32, which do
            not interact; the exponent is the largest. Otherwise (L, 0).
        blocks: (N,) the component of each sample.
        regular: (L,) whether the gradients are independent, no step is resonant and the graph K_ij != 0 is connected: what the
            theorem on the limits of SGD asks for.
        status: `OK`, `NONFINITE`, or `NOT_CONVERGED` where the two halves of the run differ by more than 5 standard errors or
            the run is too short for an error bar.
        rank: dimension r of the normal space.
        num_steps: steps behind each number, after the burn-in.
        exact: whether the exponent is an exact finite mean and no run was needed.
    """

    learning_rates: Float[Array, "rates"]
    exponent: Float[Array, "rates"]
    standard_error: Float[Array, "rates"]
    sign_confidence: Float[Array, "rates"]
    exponents: Float[Array, "rates k"]
    standard_errors: Float[Array, "rates k"]
    gd_exponent: Float[Array, "rates"]
    mean_square_rate: Float[Array, "rates"]
    lower_bound: Float[Array, "rates"]
    lower_bound_standard_error: Float[Array, "rates"]
    tail_index: Float[Array, "rates"]
    tail_index_standard_error: Float[Array, "rates"]
    sum_rule_residual: Float[Array, "rates"]
    drift: Float[Array, "rates"]
    resonant: Bool[Array, "rates"]
    block_exponents: Float[Array, "rates components"]
    blocks: tuple[int, ...] = eqx.field(static=True)
    regular: Bool[Array, "rates"]
    status: Int8[Array, "rates"]
    rank: int = eqx.field(static=True)
    num_steps: int = eqx.field(static=True)
    exact: bool = eqx.field(static=True)

    @property
    def upper_bound(self) -> Float[Array, "rates"]:
        """The mean-square rate, which for independent batches bounds the exponent from above."""
        return self.mean_square_rate

    def __str__(self) -> str:
        """A table with one line per learning rate."""
        lines = [f"SGD stability on a normal space of rank {self.rank}, {self.num_steps} steps"]
        for i, rate in enumerate(self.learning_rates):
            lines.append(
                f"  learning rate {rate:.5g}: exponent {self.exponent[i]:+.3e} +- {self.standard_error[i]:.1e} (sign "
                f"{self.sign_confidence[i]:.3f}), gd {self.gd_exponent[i]:+.3e}, mean square {self.mean_square_rate[i]:+.3e}"
            )
        return "\n".join(lines)


class Setting(NamedTuple):
    """What defines a cocycle besides its rates."""

    batch_size: int
    scheme: Scheme
    momentum: float | None
    num_steps: int
    burn_in: int
    k: int
    block_length: int | None
    elimination: bool | None


def sgd_stability(
    predict: Callable[[Any, Any], Array],
    params: PyTree,
    inputs: PyTree,
    *,
    learning_rates: Float[Array, "rates"],
    batch_size: int,
    num_steps: int,
    key: PRNGKeyArray,
    targets: Array | None = None,
    scheme: Scheme = "iid",
    k: int = 1,
    burn_in: int | None = None,
    momentum: float | None = None,
    num_particles: int = 0,
    block_length: int | None = None,
    triangular: bool | None = None,
    rank_tolerance: float | None = None,
) -> SGDStability:
    r"""Lyapunov exponents of SGD near a solution that fits its data, for many learning rates at once.

    For the loss (1/2N) sum_i |f(x_i) - y_i|^2 with zero loss at `params`, a step on the batch xi linearises to
    A = I - (eta/B) sum_{i in xi} J_i^T J_i. It is the identity along the solutions, so everything happens on the normal space,
    the row space of J, and depends on `params` through the tangent kernel K = J J^T alone. The exponent is
    lim (1/n) log |A_n ... A_1 w| there.

    All rates see the same batches, in orthonormal coordinates of the normal space, where nothing can leak into zero modes.
    Several steps are eliminated together, exactly. At batch size 1 the growth of one step per block is also averaged over
    the next sample, as a control variate. In a normal space of dimension one with few batches, and for full batches,
    nothing is run: the exponent is a finite mean. Without momentum and for independent batches

        lower_bound <= exponent <= mean_square_rate.

    Below the threshold the slow mode of a real kernel puts the exponent at about -eta k_min / N, very close to zero, which a run
    resolves only after more than N / (eta k_min) steps. Look at `.sign_confidence`.

    Args:
        predict: `predict(params, inputs)`, outputs (N,) or (N, C).
        params: the solution, any pytree.
        inputs: array or pytree of arrays with samples along the first axis.
        learning_rates: eta > 0, one-dimensional.
        batch_size: B, drawn without replacement inside a batch.
        num_steps: steps to average over; rounded up to whole chunks, of at least a thousandth of it.
        key: fixes the batches.
        targets: if given, the loss is checked to be zero: relative residual at most 2 eps^(1/3), 1.2e-5 in double and
            1e-2 in single precision.
        scheme: "iid" for independent batches, or "reshuffle" for a fresh permutation per epoch of N // B steps, as in
            `ReshuffledBatches`; what is left of it is not used.
        k: number of exponents.
        burn_in: steps before averaging starts; a tenth of `num_steps` by default.
        momentum: beta in [0, 1), for `optax.sgd(eta, momentum=beta)`: 2r exponents.
        num_particles: if positive, the tail index above dimension one is estimated by a population of this size over
            `num_steps / 100` steps: some hundred particles, and some hundred times the work per step.
        block_length: steps eliminated together; 1 goes step by step. Chosen by default from size, rates and backend.
        triangular: eliminate by batched triangular solves; the default except on a CPU.
        rank_tolerance: as in `normal_space`.

    Returns:
        An `SGDStability`. The cost of a step is about 4 B C r operations for each rate and exponent.

    Raises:
        TypeError: if `predict` is not a function that returns one real array, or values are traced.
        ValueError: if sizes or values are impossible, `params` hold NaN, or `targets` are not fitted.

    Example:
        ```python
        result = dj.sgd_stability(predict, params, x, learning_rates=jnp.geomspace(0.01, 1, 16), batch_size=1,
                                  num_steps=100_000, key=jax.random.key(0))
        result.exponent, result.standard_error, result.mean_square_rate
        ```

    References:
        Chemnitz and Engel, JMLR 26 (2025), arXiv:2407.20209. Mulayoff and Michaeli, arXiv:2306.07850 (2023).
    """
    check_that(is_concrete((params, inputs, learning_rates)), "params", "be known", "it is traced", TypeError)
    problem = check_network(predict, params, inputs)
    if targets is not None:
        check_targets(problem, targets)
    rates = check_rates(learning_rates)
    batch_size = check_batch_size(batch_size, problem.num_samples)
    num_steps, burn_in = check_steps(num_steps, burn_in)
    check_that(scheme in ("iid", "reshuffle"), "scheme", 'be "iid" or "reshuffle"', f"found {scheme!r}")
    if momentum is not None:
        check_that(0 <= float(momentum) < 1, "momentum", "be at least 0 and below 1", f"found {momentum}")
    space = normal_space(predict, params, inputs, rank_tolerance=rank_tolerance)
    k = check_vectors(k, space.rank if momentum is None else 2 * space.rank)
    setting = Setting(batch_size, scheme, momentum, num_steps, burn_in, k, block_length, triangular)
    return stability_of_space(space, jnp.asarray(rates, space.factor.dtype), setting, key, num_particles)


def check_rates(learning_rates: Any) -> np.ndarray:
    """The learning rates as an array, checked."""
    rates = np.asarray(learning_rates, dtype=float)
    check_that(rates.ndim == 1 and rates.size > 0, "learning_rates", "be one-dimensional", found(rates))
    good = bool(np.all(np.isfinite(rates) & (rates > 0)))
    check_that(good, "learning_rates", "be positive and finite", f"found {learning_rates}")
    return rates


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= least


def check_batch_size(batch_size: Any, num_samples: int) -> int:
    """The batch size; raise unless it fits."""
    good = _is_count(batch_size, 1) and batch_size <= num_samples
    must = f"be an integer from 1 to the number of samples {num_samples}"
    check_that(good, "batch_size", must, f"found {batch_size!r}")
    return int(batch_size)


def check_steps(num_steps: Any, burn_in: Any) -> tuple[int, int]:
    """The steps of a run and of its burn-in, a tenth where it is not given; raise unless both are counts."""
    check_that(_is_count(num_steps, 1), "num_steps", "be a positive integer", f"found {num_steps!r}")
    good = burn_in is None or _is_count(burn_in, 0)
    check_that(good, "burn_in", "be a non-negative integer", f"found {burn_in!r}")
    return int(num_steps), int(num_steps) // 10 if burn_in is None else int(burn_in)


def check_vectors(k: Any, dimension: int) -> int:
    """The number k of exponents; raise unless there are as many."""
    good = _is_count(k, 1) and k <= dimension
    check_that(good, "k", f"be an integer from 1 to the {dimension} dimensions of the cocycle", f"found {k!r}")
    return int(k)


class Exponents(NamedTuple):
    """Exponents of a space with their errors, (rates, k), and of the first one the drift and the sign, (rates,)."""

    values: Float[Array, "rates k"]
    errors: Float[Array, "rates k"]
    drift: Float[Array, "rates"]
    confidence: Float[Array, "rates"]
    num_steps: int
    exact: bool


def stability_of_space(
    space: NormalSpace, rates: Float[Array, "rates"], setting: Setting, key: PRNGKeyArray, num_particles: int = 0
) -> SGDStability:
    """`sgd_stability` once the normal space is known."""
    run_key, volume_key, tail_key = jax.random.split(key, 3)
    result = exponents_of_space(space, rates, setting, run_key)
    beta = setting.momentum
    plain = beta is None
    independent = plain and setting.scheme == "iid"
    volume = volume_growth(space, rates, setting.batch_size, volume_key)
    total, spread, dimension = volume.total, volume.standard_error, space.rank
    if not plain:
        # The determinant of a heavy-ball step is beta^r, whatever the batch.
        total = jnp.full_like(total, space.rank * math.log(beta) if beta else -math.inf)
        spread, dimension = jnp.zeros_like(spread), 2 * space.rank
    nan = jnp.full_like(rates, jnp.nan)
    moments = mean_square_rate(space, rates, setting.batch_size) if independent else None
    square = nan if moments is None else jnp.where(moments.converged, moments.rate, jnp.nan)
    tail, tail_error = _tail(space, rates, setting, result.values[:, 0], square, num_particles, tail_key)
    resonant = space.resonant(rates, setting.batch_size)
    return SGDStability(
        learning_rates=rates,
        exponent=result.values[:, 0],
        standard_error=result.errors[:, 0],
        sign_confidence=result.confidence,
        exponents=result.values,
        standard_errors=result.errors,
        gd_exponent=_gd_exponent(space, rates)
        if plain
        else momentum_gd_exponent(space, rates, jnp.asarray(beta, rates.dtype)),
        mean_square_rate=square,
        lower_bound=total / dimension,
        lower_bound_standard_error=spread / dimension,
        tail_index=tail,
        tail_index_standard_error=tail_error,
        sum_rule_residual=_sum_rule(result.values, total) if setting.k == dimension else nan,
        drift=result.drift,
        resonant=resonant,
        block_exponents=_block_exponents(space, rates, setting, run_key),
        blocks=space.blocks,
        regular=~resonant & (space.full_rank and space.num_blocks == 1),
        status=_status(result),
        rank=space.rank,
        num_steps=result.num_steps,
        exact=result.exact,
    )


def exponents_of_space(
    space: NormalSpace, rates: Float[Array, "rates"], setting: Setting, key: PRNGKeyArray
) -> Exponents:
    """Exponents by enumeration where that is possible, from a run otherwise."""
    full = setting.batch_size == space.num_samples
    if setting.momentum is None and (full or is_finite_mean(space, setting.batch_size)):
        return _exact(space, rates, setting, key)
    start_key, path_key = jax.random.split(key)
    plan = plan_run(
        space,
        rates,
        setting.batch_size,
        num_steps=setting.num_steps,
        burn_in=setting.burn_in,
        scheme=setting.scheme,
        k=setting.k,
        block_length=setting.block_length,
        triangular=setting.elimination,
        averaged=setting.momentum is None,
    )
    dimension = space.rank if setting.momentum is None else 2 * space.rank
    frame = start_frame(dimension, rates.size, setting.k, start_key, rates.dtype)
    if setting.momentum is None:
        growth = run_cocycle(space, rates, frame, path_key, plan)
    else:
        growth = run_momentum(space, rates, jnp.asarray(setting.momentum, rates.dtype), frame, path_key, plan)
    statistics = vector_statistics(growth)
    values, errors, drift = statistics.mean, statistics.standard_error, statistics.drift
    if plan.averaged:
        first = averaged_statistics(growth)
        values, errors, drift = (table[:, None] for table in (first.mean, first.standard_error, first.drift))
    order = jnp.argsort(-values, axis=1)
    values, errors = (jnp.take_along_axis(table, order, axis=1) for table in (values, errors))
    confidence = sign_confidence(values[:, 0], errors[:, 0], statistics.degrees_of_freedom)
    return Exponents(values, errors, drift[:, 0], confidence, plan.chunks * plan.steps, False)


def is_finite_mean(space: NormalSpace, batch_size: int) -> bool:
    """Whether factors commute and can be enumerated."""
    return space.rank == 1 and all_batches(space.num_samples, batch_size) is not None


def _exact(space: NormalSpace, rates: Array, setting: Setting, key: PRNGKeyArray) -> Exponents:
    if space.rank == 1:
        values = volume_growth(space, rates, setting.batch_size, key).total[:, None]
    else:
        logs = log_distance_from_one(rates[:, None] * space.eigenvalues / space.num_samples)
        values = -jnp.sort(-logs, axis=1)[:, : setting.k]
    zero = jnp.zeros_like(values)
    confidence = sign_confidence(values[:, 0], zero[:, 0], 1.0)
    return Exponents(values, zero, zero[:, 0], confidence, 0, True)


@eqx.filter_jit
def _gd_exponent(space: NormalSpace, rates: Array) -> Float[Array, "rates"]:
    return jnp.max(log_distance_from_one(rates[:, None] * space.eigenvalues / space.num_samples), axis=1)


@eqx.filter_jit
def _sum_rule(values: Array, total: Array) -> Float[Array, "rates"]:
    """Zero where both are -inf."""
    both = jnp.isneginf(total) & jnp.any(jnp.isneginf(values), axis=1)
    return jnp.where(both, 0, jnp.sum(values, axis=1) - jnp.where(both, 0, total))


def _tail(
    space: NormalSpace,
    rates: Array,
    setting: Setting,
    exponent: Array,
    square: Array,
    num_particles: int,
    key: PRNGKeyArray,
) -> tuple[Array, Array]:
    nan = jnp.full_like(rates, jnp.nan)
    if setting.momentum is not None:
        return nan, nan
    exact = exact_tail_index(space, rates, setting.batch_size)
    if exact is not None:
        return exact, jnp.zeros_like(exact)
    if num_particles == 0 or setting.scheme != "iid":
        return nan, nan
    steps = max(100, setting.num_steps // 100)
    return population_tail_index(
        space, rates, setting.batch_size, exponent, square, num_particles=num_particles, num_steps=steps, key=key
    )


def _block_exponents(
    space: NormalSpace, rates: Array, setting: Setting, key: PRNGKeyArray
) -> Float[Array, "rates components"]:
    if not 1 < space.num_blocks <= _MAX_BLOCKS:
        return jnp.zeros((rates.size, 0), rates.dtype)
    one = setting._replace(k=1)
    columns = [exponents_of_space(space.component(b), rates, one, key).values[:, 0] for b in range(space.num_blocks)]
    return jnp.stack(columns, axis=1)


@eqx.filter_jit
def _status(result: Exponents) -> Int8[Array, "rates"]:
    finite = ~jnp.any(jnp.isnan(result.values), axis=1)
    settled = (jnp.abs(result.drift) <= 5) & (result.errors[:, 0] < jnp.inf)
    code = jnp.where(settled, int(Status.OK), int(Status.NOT_CONVERGED))
    return jnp.where(finite, code, int(Status.NONFINITE)).astype(jnp.int8)
