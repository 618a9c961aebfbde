"""Growth of moments of a random cocycle, and the index of the power-law tails that it causes."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8, PRNGKeyArray, PyTree

from .._core import Status, check_count, check_that, found
from ..systems import AbstractSystem, check_system
from ._frame import FrameSpace
from ._time_average import time_average


class MomentFunction(eqx.Module):
    """The moment Lyapunov function at some orders.

    Attributes:
        p: the orders, `(num_orders,)`.
        values: L(p), per unit of time.
        standard_error: of the values, over time; it does not hold the bias of a finite population.
        effective_walkers: mean effective number of walkers between two resamplings, `1 / sum w^2` of their weights; where it
            is a small part of `num_walkers`, the value is carried by a few and biased towards zero growth.
        status: `OK`, `NONFINITE`, or `INACCURATE` where the effective number of walkers is below 10 at some order.
    """

    p: Float[Array, " num_orders"]
    values: Float[Array, " num_orders"]
    standard_error: Float[Array, " num_orders"]
    effective_walkers: Float[Array, " num_orders"]
    status: Int8[Array, ""]

    def __str__(self) -> str:
        """Orders and values."""
        pairs = zip(self.p, self.values, self.standard_error, strict=True)
        return "MomentFunction(" + ", ".join(f"L({p:.3g}) = {v:.4g} +- {s:.1g}" for p, v, s in pairs) + ")"


class TailIndex(eqx.Module):
    """The order at which moments neither grow nor decay.

    Attributes:
        value: p* > 0 with L(p*) = 0; NaN where the exponent is not negative (or p* below `p_max / num_orders^2`), infinite
            where L(p) < 0 up to `p_max`.
        standard_error: of p*, from that of L and its slope.
        moments: the moment function at the orders that were looked at.
    """

    value: Float[Array, ""]
    standard_error: Float[Array, ""]
    moments: MomentFunction

    def __str__(self) -> str:
        """Value and error."""
        return f"TailIndex({float(self.value):.5g} +- {float(self.standard_error):.1g})"


def moment_function(
    system: Callable[[PRNGKeyArray], AbstractSystem],
    x0: PyTree,
    p: Any,
    *,
    num_steps: int,
    key: PRNGKeyArray,
    num_walkers: int = 1024,
    resample_every: int = 1,
    burn_in: int | None = None,
) -> MomentFunction:
    r"""The moment Lyapunov function of a random cocycle over independent noise.

        L(p) = lim_{T -> inf} (1/T) log E |A_n ... A_1 v|^p ,    T = n * dt.

    It is convex with L(0) = 0 and L'(0) = lambda, the Lyapunov exponent; L(2) = log rho(E[A kron A]) / dt decides stability in
    mean square. Plain averages of |A_n ... A_1 v|^p are carried by events that no sample holds; here a population of
    walkers, each with its own noise, is resampled in proportion to growth^p (cloning), and L(p) is the mean logarithm of
    the mean weight. The bias is of the order 1 / num_walkers and grows with |p|. All orders share their noise.

    Args:
        system: a function from a random key to a dynjax system, e.g.
            `lambda key: dj.RandomMap(fn, dj.WhiteNoise((2, 2), key=key))`: each walker gets a noise path of its own.
        x0: the state at step 0.
        p: orders, `(num_orders,)` or a number.
        num_steps: steps that are averaged over, static; a multiple of `resample_every`.
        key: random key.
        num_walkers: size of the population, static.
        resample_every: steps between resamplings, static.
        burn_in: steps before, by default a tenth of `num_steps`; a multiple of `resample_every` after rounding up.

    Returns:
        A `MomentFunction`. The cost is `num_orders * num_walkers` tangent steps with one tangent, per step.

    Raises:
        TypeError: if `system` is no function that returns a dynjax system.
        ValueError: if a count does not fit, or `x0` is not what `step` returns.

    References:
        Arnold, A formula connecting sample and moment stability of linear stochastic systems (1984). Vanneste, Estimating
        generalized Lyapunov exponents for products of random matrices (2010).
    """
    check_that(
        callable(system) and not isinstance(system, AbstractSystem),
        "system",
        "be a function from a random key to a dynjax system",
        found(system),
        TypeError,
    )
    check_count(num_steps, "num_steps")
    check_count(num_walkers, "num_walkers", 2)
    check_count(resample_every, "resample_every")
    divides = num_steps % resample_every == 0
    check_that(divides, "resample_every", "divide `num_steps`", f"{resample_every} does not divide {num_steps}")
    burn_in = num_steps // 10 if burn_in is None else burn_in
    check_count(burn_in, "burn_in", 0)
    check_system(system(key), x0)
    dtype = FrameSpace(x0).dtype
    p = jnp.asarray(p, dtype)
    check_that(p.ndim <= 1, "p", "be a number or one-dimensional", found(p))
    counts = (-(-burn_in // resample_every), num_steps // resample_every)
    return _moment_function(system, x0, jnp.atleast_1d(p), counts, resample_every, num_walkers, key)


@eqx.filter_jit
def _moment_function(
    system: Callable[[PRNGKeyArray], AbstractSystem],
    x0: PyTree,
    p: Float[Array, " num_orders"],
    counts: tuple[int, int],
    resample_every: int,
    num_walkers: int,
    key: PRNGKeyArray,
) -> MomentFunction:
    burn, num = counts
    logs, effective = jax.vmap(lambda order: _clone(system, x0, order, burn + num, resample_every, num_walkers, key))(p)
    logs, effective = logs[:, burn:], effective[:, burn:]
    time = resample_every * jnp.abs(system(key).dt).astype(logs.dtype)
    statistics = time_average(logs.T / time)
    effective = jnp.mean(effective, axis=1)
    finite = jnp.all(jnp.isfinite(statistics.mean))
    code = jnp.where(jnp.any(effective < 10), int(Status.INACCURATE), int(Status.OK))
    status = jnp.where(finite, code, int(Status.NONFINITE)).astype(jnp.int8)
    return MomentFunction(p, statistics.mean, statistics.standard_error, effective, status)


def _clone(
    system: Callable[[PRNGKeyArray], AbstractSystem],
    x0: PyTree,
    order: Float[Array, ""],
    num_rounds: int,
    resample_every: int,
    num_walkers: int,
    key: PRNGKeyArray,
) -> tuple[Float[Array, " num_rounds"], Float[Array, " num_rounds"]]:
    """The logarithm of the mean weight of each round, and the effective number of walkers."""
    arrays, static = eqx.partition(x0, eqx.is_array)
    space = FrameSpace(x0)
    keys = jax.random.split(key, num_walkers + 1)
    spread = lambda a: jnp.broadcast_to(a, (num_walkers, *a.shape))
    directions = jax.vmap(lambda k: space.random(k, 1))(jax.random.split(keys[-1], num_walkers))

    def walk(own: PRNGKeyArray, x: PyTree, frame: Array, round_: Array) -> tuple[PyTree, Array, Array]:
        walker = system(own)

        def step(i: Any, pair: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            x, v = walker.tangent_step(round_ * resample_every + i, eqx.combine(pair[0], static), pair[1])
            return eqx.filter(x, eqx.is_array), v

        x, v = jax.lax.fori_loop(0, resample_every, step, (x, space.unflatten(frame)))
        flat = space.flatten(v)
        norm = jnp.linalg.norm(flat)
        return x, flat / jnp.where(norm > 0, norm, 1), jnp.log(norm)

    def one_round(pair: tuple[PyTree, Array], round_: Array) -> tuple[tuple[PyTree, Array], tuple[Array, Array]]:
        x, frame, growth = jax.vmap(walk, in_axes=(0, 0, 0, None))(keys[:-1], *pair, round_)
        logs = jnp.where(order == 0, 0, order * growth)
        total = jax.nn.logsumexp(logs)
        weights = jnp.exp(logs - total)
        chosen = _systematic(jax.random.fold_in(keys[-1], round_), weights)
        pair = jax.tree_util.tree_map(lambda a: a[chosen], (x, frame))
        return pair, (total - jnp.log(num_walkers), 1 / jnp.sum(weights**2))

    start = (jax.tree_util.tree_map(spread, arrays), directions)
    return jax.lax.scan(one_round, start, jnp.arange(num_rounds))[1]


def _systematic(key: PRNGKeyArray, weights: Float[Array, " num"]) -> Array:
    """Systematic resampling: walker i is chosen floor or ceil of num * weights[i] times."""
    num = weights.shape[0]
    edges = jnp.cumsum(weights)
    points = (jnp.arange(num) + jax.random.uniform(key, (), weights.dtype)) / num * edges[-1]
    return jnp.minimum(jnp.searchsorted(edges, points), num - 1)


def tail_index(
    system: Callable[[PRNGKeyArray], AbstractSystem],
    x0: PyTree,
    *,
    num_steps: int,
    key: PRNGKeyArray,
    p_max: float = 8.0,
    num_orders: int = 16,
    num_walkers: int = 1024,
    resample_every: int = 1,
) -> TailIndex:
    r"""The order p* > 0 at which the moments of a contracting random cocycle stop to decay, L(p*) = 0.

    With lambda < 0 < L(p) for large p, orbits converge almost surely, yet |A_n ... A_1 v| has heavy tails: stationary solutions
    of x' = A x + b have P(|x| > t) ~ t^{-p*}. L(p) / p never decreases, so its zero is bracketed on a grid of orders and
    then on a finer grid between its neighbours, all with the same noise, and interpolated.

    Args:
        system: as for `moment_function`.
        x0: the state at step 0.
        num_steps: as for `moment_function`.
        key: random key.
        p_max: the largest order that is looked at.
        num_orders: orders in each of the two grids, static.
        num_walkers: as for `moment_function`.
        resample_every: as for `moment_function`.

    Returns:
        A `TailIndex`.

    Raises:
        TypeError: as `moment_function`.
        ValueError: as `moment_function`, or if `p_max` is not positive.

    References:
        Kesten, Random difference equations and renewal theory for products of random matrices (1973). Gurbuzbalaban,
        Simsekli and Zhu, The heavy-tail phenomenon in SGD (2021).
    """
    check_count(num_orders, "num_orders", 4)
    check_that(float(p_max) > 0, "p_max", "be positive", f"found {p_max}")
    run = lambda orders: moment_function(
        system, x0, orders, num_steps=num_steps, key=key, num_walkers=num_walkers, resample_every=resample_every
    )
    shares = jnp.linspace(1 / num_orders, 1, num_orders)
    coarse = run(p_max * shares)
    positive = coarse.values > 0
    first = jnp.argmax(positive)
    low, high = coarse.p[jnp.maximum(first - 1, 0)], coarse.p[first]
    # At order 0 there is nothing to run: below the first order of the grid the next one starts at a share of it.
    orders = jnp.where(first == 0, high * shares, jnp.linspace(low, high, num_orders))
    fine = run(jnp.where(jnp.any(positive), orders, coarse.p))
    rate = fine.values / fine.p
    index = jnp.clip(jnp.searchsorted(jax.lax.cummax(rate), 0.0), 1, num_orders - 1)
    slope = (rate[index] - rate[index - 1]) / (fine.p[index] - fine.p[index - 1])
    root = fine.p[index - 1] - rate[index - 1] / slope
    error = fine.standard_error[index] / fine.p[index] / slope
    found_root = jnp.any(positive) & (fine.values[0] < 0)
    none = jnp.where(jnp.any(positive) | jnp.any(jnp.isnan(coarse.values)), jnp.nan, jnp.inf)
    return TailIndex(jnp.where(found_root, root, none), jnp.where(found_root, error, jnp.nan), fine)
