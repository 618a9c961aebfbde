"""Sweeps over the coupling in one program, and critical couplings read off the fluctuations of an incoherent system."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8, PRNGKeyArray

from ..._core import Status, check_count, check_that, found, is_concrete, tree_all_finite
from ...stability import time_average
from .._graphs.graph_operator import GraphOperator
from .couplings import Pairwise
from .kuramoto import Oscillators, oscillators
from .order_parameter import mean_phasor, modulus
from .phases import Phases


class CouplingSweep(eqx.Module):
    """Order parameters along a sweep; made by `coupling_sweep`.

    Attributes:
        couplings: K, (lanes,).
        order_parameter: time averages of r, (lanes,).
        standard_error: of them, from batch means with correlations taken into account, (lanes,).
        fluctuation: time averages of |v . u|^2 with v the projection scaled to unit norm, (lanes,); without a projection
            this is N E|z|^2, which is 1 for independent phases.
        batches: the averages of |v . u|^2 over consecutive stretches of the run, (num_batches, lanes).
        final: the phases at the end, (nodes, lanes).
        status: `OK`, or `NONFINITE`.
    """

    couplings: Float[Array, "lanes"]
    order_parameter: Float[Array, "lanes"]
    standard_error: Float[Array, "lanes"]
    fluctuation: Float[Array, "lanes"]
    batches: Float[Array, "batches lanes"]
    final: Phases
    status: Int8[Array, ""]

    def __str__(self) -> str:
        return f"CouplingSweep({self.couplings.shape[0]} couplings, {self.final.cos.shape[0]} oscillators)"


@eqx.filter_jit
def _sweep(
    system: Oscillators, x0: Any, weights: Any, burn_in: int, num_batches: int, length: int
) -> tuple[Phases, Array, Array]:
    scale = 1.0 if weights is None else jnp.sum(weights)
    size = x0.cos.shape[0] if weights is None else 1.0 / jnp.sum(weights**2)

    def move(x: Any, n: Array) -> tuple[Any, None]:
        return system.step(n, x), None

    def measured(carry: tuple[Any, Array, Array], n: Array) -> tuple[tuple[Any, Array, Array], None]:
        x, first, second = carry
        x = system.step(n, x)
        z = mean_phasor(x, weights=weights)
        r = modulus(z.cos, z.sin)
        return (x, first + r / scale, second + size * r**2), None

    def batch(x: Phases, start: Array) -> tuple[Phases, tuple[Array, Array]]:
        zero = jnp.zeros(x.cos.shape[1:], x.cos.dtype)
        (x, first, second), _ = jax.lax.scan(measured, (x, zero, zero), start + jnp.arange(length))
        return x, (first / length, second / length)

    x, _ = jax.lax.scan(move, x0, jnp.arange(burn_in))
    x, (first, second) = jax.lax.scan(batch, x, burn_in + length * jnp.arange(num_batches))
    return x, first, second


def coupling_sweep(
    graph: GraphOperator,
    frequencies: Any,
    couplings: Any,
    *,
    dt: Any,
    num_steps: int,
    burn_in: int,
    key: PRNGKeyArray,
    noise: Any = 0.0,
    frequency_key: PRNGKeyArray | None = None,
    harmonics: Any = None,
    lag: Any = 0.0,
    method: str = "rk4",
    initial: Any = None,
    projection: Any = None,
    num_batches: int = 20,
) -> CouplingSweep:
    """Runs at several couplings side by side, as columns of one state, in one compiled program.

    The columns share frequencies, initial angles and noise, and a sparse graph is read once for all of them. Averages are
    formed inside the loop: memory is that of a few states, whatever the number of steps.

    Args:
        graph: who drives whom.
        frequencies: an array (nodes,) or a law, as in `kuramoto`.
        couplings: K, (lanes,).
        dt: time per step.
        num_steps: steps that are averaged over, static; a multiple of `num_batches`.
        burn_in: steps before them, static.
        key: random key of the initial angles and of the noise.
        noise: D.
        frequency_key: random key of independent frequencies, as in `kuramoto`.
        harmonics: amplitudes of the harmonics.
        lag: phase lags.
        method: "rk4", "heun" or "euler".
        initial: initial angles, (nodes,) or (nodes, lanes); independent uniform ones if not given.
        projection: v, (nodes,), not negative: the order parameter is |sum v_j u_j| / sum v_j then. Take a leading left
            eigenvector of the graph where degrees vary. Constant if not given.
        num_batches: number of stretches whose averages are kept, static.

    Returns:
        A `CouplingSweep`.

    Raises:
        ValueError: if `couplings` is no vector, the counts do not fit, or for bad arguments of `kuramoto`.
    """
    check_count(num_steps, "num_steps")
    check_count(burn_in, "burn_in", 0)
    check_count(num_batches, "num_batches")
    good = num_steps % num_batches == 0
    check_that(good, "num_batches", "divide `num_steps`", f"{num_batches} does not divide {num_steps}")
    if is_concrete(couplings):
        check_that(bool(np.all(np.isfinite(np.asarray(couplings)))), "couplings", "be finite", "some are not")
    couplings = jnp.asarray(couplings, jnp.result_type(float))
    check_that(couplings.ndim == 1, "couplings", "be a vector", found(couplings))
    first, second = jax.random.split(key)
    options: dict[str, Any] = {"noise": noise, "key": second, "frequency_key": frequency_key, "method": method}
    system = oscillators(graph, Pairwise(couplings, harmonics, lag), frequencies, dt=dt, **options)
    shape = (graph.num_nodes, couplings.shape[0])
    if initial is None:
        dtype = jnp.result_type(system.frequencies, couplings)
        initial = jax.random.uniform(first, shape[:1], dtype, maxval=2 * jnp.pi)
    initial = jnp.asarray(initial)
    initial = initial[:, None] if initial.ndim == 1 else initial
    x0 = Phases.of(jnp.broadcast_to(initial, shape))
    weights = None if projection is None else jnp.asarray(projection, x0.cos.dtype)
    final, r, fluctuation = _sweep(system, x0, weights, burn_in, num_batches, num_steps // num_batches)
    average = time_average(r)
    status = jnp.where(tree_all_finite(final), int(Status.OK), int(Status.NONFINITE)).astype(jnp.int8)
    return CouplingSweep(
        couplings=couplings,
        order_parameter=average.mean,
        standard_error=average.standard_error,
        fluctuation=jnp.mean(fluctuation, axis=0),
        batches=fluctuation,
        final=final,
        status=status,
    )


class CriticalCouplingEstimate(eqx.Module):
    """A critical coupling read off simulations; made by `empirical_critical_coupling`.

    Attributes:
        critical_coupling: where the fitted line 1/E|v . u|^2 = 1 - K/Kc meets zero; infinite where it does not fall.
        standard_error: by the jackknife over stretches of the run.
        sweep: the runs behind it.
    """

    critical_coupling: Float[Array, ""]
    standard_error: Float[Array, ""]
    sweep: CouplingSweep

    def __str__(self) -> str:
        return f"Kc = {self.critical_coupling} +- {self.standard_error}"


def leading_left_vector(graph: GraphOperator, num_products: int = 200, dtype: Any = None) -> Float[Array, "nodes"]:
    """The left eigenvector of unit norm of a graph with non-negative weights, by power iteration on (A^T + c)/..., c > 0.

    The shift c, a tenth of the growth so far, keeps bipartite graphs from oscillating.
    """
    reverse = graph.transpose()

    def body(v: Array, _: None) -> tuple[Array, None]:
        image = reverse.apply(v)
        image = image + 0.1 * jnp.linalg.norm(image) * v
        return image / jnp.linalg.norm(image), None

    start = jnp.full(graph.num_nodes, graph.num_nodes**-0.5, dtype or jnp.result_type(float))
    return jax.lax.scan(body, start, None, length=num_products)[0]


def subcritical_fit(couplings: Any, fluctuation: Any) -> Float[Array, ""]:
    r"""Kc from fluctuations below it: the line 1/y = 1 - K/Kc through the known point (0, 1), by weighted least squares.

    The relative error of a time average of y = |v . u|^2 is proportional to the square root of the relaxation time, that is
    of y, so that the error of 1/y goes like y^(-1/2): weights y.

    Args:
        couplings: K, (lanes,), below Kc.
        fluctuation: y, (lanes,), positive; 1 for independent phases.

    Returns:
        Kc; infinite where the line does not fall.
    """
    couplings, weight = jnp.asarray(couplings), jnp.asarray(fluctuation)
    slope = jnp.sum(weight * couplings * (1 - 1 / weight)) / jnp.sum(weight * couplings**2)
    return jnp.where(slope > 0, 1 / jnp.where(slope > 0, slope, 1), jnp.inf)


def empirical_critical_coupling(
    graph: GraphOperator,
    couplings: Any,
    *,
    noise: Any,
    dt: Any,
    num_steps: int,
    burn_in: int,
    key: PRNGKeyArray,
    projection: Any = None,
    num_batches: int = 20,
) -> CriticalCouplingEstimate:
    r"""The critical coupling of identical oscillators with noise, from runs below it.

    Let v be a left eigenvector of unit norm of the graph, A^T v = zeta v. To first order in the incoherent state the
    projection z = v . u obeys z' = -(D - K zeta / 2) z + noise, and independent phases have E|z|^2 = 1, so that

        1 / E|z|^2 = 1 - K/Kc,    Kc = 2 D / zeta

    (derived here; exact for many nodes, with a correction of the order 1 / (N (1 - K/Kc)^2)). The line is fitted through
    its known value 1 at K = 0. On regular graphs v is constant and E|z|^2 is N E|mean u|^2. Elsewhere a mean over nodes
    mixes several eigenvectors and is biased.

    Couplings between 0.6 and 0.8 Kc serve best: for a run of length T the relative error is about
    0.6 / sqrt(D T) at 0.8 Kc and 1.4 / sqrt(D T) at 0.5 Kc.

    Args:
        graph: who drives whom.
        couplings: K, (lanes,), positive and below the critical one.
        noise: D, positive.
        dt: time per step; the method is stochastic Heun.
        num_steps: steps that are averaged over.
        burn_in: steps before them.
        key: random key.
        projection: v; by power iteration on the transposed graph if not given.
        num_batches: stretches for the jackknife.

    Returns:
        A `CriticalCouplingEstimate`.

    Raises:
        ValueError: for bad arguments of `coupling_sweep`, or `noise` not positive.
    """
    good = not is_concrete(noise) or float(np.asarray(noise)) > 0
    check_that(good, "noise", "be positive", f"found {noise}")
    check_count(num_batches, "num_batches", 2)
    vector = leading_left_vector(graph) if projection is None else projection
    sweep = coupling_sweep(
        graph,
        jnp.zeros(graph.num_nodes),
        couplings,
        dt=dt,
        num_steps=num_steps,
        burn_in=burn_in,
        key=key,
        noise=noise,
        method="heun",
        projection=vector,
        num_batches=num_batches,
    )
    total = jnp.sum(sweep.batches, axis=0)
    parts = jax.vmap(lambda batch: subcritical_fit(sweep.couplings, (total - batch) / (num_batches - 1)))(sweep.batches)
    spread = jnp.sum((parts - jnp.mean(parts)) ** 2)
    error = jnp.sqrt((num_batches - 1) / num_batches * spread)
    return CriticalCouplingEstimate(subcritical_fit(sweep.couplings, sweep.fluctuation), error, sweep)
