"""The moment function of the SGD cocycle and its zero p*, the index of the tails that SGD grows under noise."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..reference import scalar_sgd_tail_index
from ..stability import time_average
from ._batch_indices import independent_batches
from ._normal_space import NormalSpace
from ._volume import all_batches, batch_eigenvalues

_HIGHEST = jax.lax.Precision.HIGHEST
# Orders at which the moment function is estimated; at 0 and 2 it is known.
_ORDERS = (0.125, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.5, 3.0, 4.0, 6.0, 8.0)
_STEPS_BETWEEN = 4


def exact_tail_index(
    space: NormalSpace, learning_rates: Float[Array, "rates"], batch_size: int
) -> Float[Array, "rates"] | None:
    """p* in a normal space of dimension one, by enumeration of the batches; None where that cannot be done.

    `inf` where no factor is above 1 in modulus, NaN where the exponent is not negative.
    """
    batches = all_batches(space.num_samples, batch_size) if space.rank == 1 else None
    if batches is None:
        return None
    curvatures = batch_eigenvalues(space, batches)[:, 0] / batch_size
    index = jax.vmap(lambda eta: scalar_sgd_tail_index(eta, jnp.maximum(curvatures, 0)))(learning_rates)
    return jnp.where(index > 0, index, jnp.nan)


def population_tail_index(
    space: NormalSpace,
    learning_rates: Float[Array, "rates"],
    batch_size: int,
    exponent: Float[Array, "rates"],
    mean_square_rate: Float[Array, "rates"],
    *,
    num_particles: int,
    num_steps: int,
    key: PRNGKeyArray,
) -> tuple[Float[Array, "rates"], Float[Array, "rates"]]:
    r"""p* > 0 with L(p*) = 0, L(p) = lim (1/n) log E |A_n ... A_1 v|^p, and its standard error, for independent batches.

    L(p) is estimated by a population of unit vectors, each with batches of its own, that are resampled in proportion to
    |A v|^p; the bias is O(1 / num_particles). L(p)/p increases with p, from the exponent at 0 to the mean-square rate at 2,
    both of which are given; p* is where its piecewise linear interpolant over the orders vanishes. Large p and slow modes
    need many particles and steps: what counts is whether the standard error is small. Reported are NaN where the
    exponent is not negative, and `inf` where L(8) < 0.
    """
    orders = jnp.asarray(_ORDERS, space.factor.dtype)
    series = _population(space, learning_rates, orders, batch_size, num_particles, num_steps, key)
    statistics = time_average(series)
    slopes, errors = statistics.mean / orders, statistics.standard_error / orders
    at = sum(order < 2 for order in _ORDERS)
    insert = lambda table, first, second: jnp.concatenate(
        [first[:, None], table[:, :at], second[:, None], table[:, at:]], axis=1
    )
    zero = jnp.zeros_like(exponent)
    slopes, errors = insert(slopes, exponent, mean_square_rate), insert(errors, zero, zero)
    knots = jnp.asarray((0.0, *_ORDERS[:at], 2.0, *_ORDERS[at:]), slopes.dtype)
    return _zero_of_interpolant(knots, slopes, errors)


def _zero_of_interpolant(
    knots: Float[Array, "knots"], slopes: Float[Array, "rates knots"], errors: Float[Array, "rates knots"]
) -> tuple[Float[Array, "rates"], Float[Array, "rates"]]:
    positive = slopes > 0
    after = jnp.argmax(positive, axis=1)
    before = jnp.maximum(after - 1, 0)
    pick = lambda table, index: jnp.take_along_axis(table, index[:, None], axis=1)[:, 0]
    low, high = pick(slopes, before), pick(slopes, after)
    step = jnp.where(high > low, high - low, 1)
    part = -low / step
    width = knots[after] - knots[before]
    error = width / step * jnp.hypot((1 - part) * pick(errors, before), part * pick(errors, after))
    index = jnp.where(jnp.any(positive, axis=1), knots[before] + part * width, jnp.inf)
    unstable = slopes[:, 0] >= 0
    known = jnp.isfinite(index) & ~unstable
    return jnp.where(unstable, jnp.nan, index), jnp.where(known, error, jnp.nan)


@eqx.filter_jit
def _population(
    space: NormalSpace,
    learning_rates: Float[Array, "rates"],
    orders: Float[Array, "orders"],
    batch_size: int,
    num_particles: int,
    num_steps: int,
    key: PRNGKeyArray,
) -> Float[Array, "bins rates orders"]:
    """Estimates of L(p) per step from pieces of `_STEPS_BETWEEN` steps, after a tenth that is dropped."""
    shape = (learning_rates.size, orders.size)
    lanes = math.prod(shape)
    scales = jnp.repeat(learning_rates / batch_size, orders.size)
    powers = jnp.tile(orders, learning_rates.size)
    start = jax.random.normal(jax.random.fold_in(key, 0), (num_particles, space.rank, 1), space.factor.dtype)
    start = jnp.broadcast_to(start / jnp.linalg.norm(start, axis=1, keepdims=True), (num_particles, space.rank, lanes))

    def step(state: tuple[Array, Array], batch: Int[Array, "particles size"]) -> tuple[tuple[Array, Array], None]:
        v, logs = state
        rows = space.factor[batch].reshape(num_particles, -1, space.rank)
        residuals = jnp.einsum("mbr,mrl->mbl", rows, v, precision=_HIGHEST)
        v = v - scales * jnp.einsum("mbr,mbl->mrl", rows, residuals, precision=_HIGHEST)
        norm = jnp.maximum(jnp.linalg.norm(v, axis=1), jnp.finfo(v.dtype).tiny)
        return (v / norm[:, None], logs + jnp.log(norm)), None

    def piece(v: Array, n: Int[Array, ""]) -> tuple[Array, Array]:
        draw, choose = jax.random.split(jax.random.fold_in(key, n))
        batches = independent_batches(draw, _STEPS_BETWEEN * num_particles, space.num_samples, batch_size)
        batches = batches.reshape(_STEPS_BETWEEN, num_particles, batch_size)
        (v, logs), _ = jax.lax.scan(step, (v, jnp.zeros((num_particles, lanes), v.dtype)), batches)
        weights = powers * logs
        growth = jax.nn.logsumexp(weights, axis=0) - math.log(num_particles)
        return _resample(v, weights, jax.random.uniform(choose, dtype=v.dtype)), growth.reshape(shape) / _STEPS_BETWEEN

    pieces = max(2, num_steps // _STEPS_BETWEEN)
    _, series = jax.lax.scan(piece, start, 1 + jnp.arange(pieces + pieces // 10))
    return series[pieces // 10 :]


def _resample(v: Array, log_weights: Array, offset: Array) -> Array:
    """Systematic resampling of the particles, in each lane, with one common offset."""
    num = v.shape[0]
    sums = jnp.cumsum(jax.nn.softmax(log_weights, axis=0), axis=0)
    places = (jnp.arange(num) + offset) / num
    chosen = jax.vmap(lambda s: jnp.searchsorted(s / s[-1], places), in_axes=1, out_axes=1)(sums)
    return jnp.take_along_axis(v, jnp.minimum(chosen, num - 1)[:, None, :], axis=0)
