"""Oscillators whose weights adapt to their phases."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from ..._core import check_that, found, is_concrete
from ...systems._flow import check_dt
from ...systems._system import AbstractMap, IntScalarLike, as_number
from ...systems._tableau import TABLEAUX, runge_kutta_step
from .kuramoto import natural_frequencies
from .phases import Phases


class AdaptiveState(eqx.Module):
    """Angles, and a weight for each edge.

    Attributes:
        phases: angles, (nodes,), radians.
        weights: kappa, (nodes, nodes) with row i for the edges that arrive at node i, or (nodes, degree) where each node has
            a list of drivers.
    """

    phases: Float[Array, "nodes"]
    weights: Float[Array, "nodes drivers"]


class AdaptiveOscillators(AbstractMap):
    """Oscillators with co-evolving weights; made by `adaptive_kuramoto`.

    Attributes:
        drivers: node numbers of the drivers of each node, (nodes, degree), or `None` where all drive all.
        mask: 1 for an edge and 0 where a list is padded, (nodes, degree), or `None`.
        frequencies: omega, (nodes,).
        rate: epsilon.
        phase_lag: alpha.
        adaptation_lag: beta.
        dt: time per step.
    """

    drivers: Int[Array, "nodes degree"] | None
    mask: Float[Array, "nodes degree"] | None
    frequencies: Float[Array, "nodes"]
    rate: Float[Array, ""]
    phase_lag: Float[Array, ""]
    adaptation_lag: Float[Array, ""]
    dt: Float[Array, ""]
    method: str = eqx.field(static=True)

    def init(self, angles: Any, weights: Any) -> AdaptiveState:
        """A state.

        Args:
            angles: (nodes,), radians.
            weights: kappa, (nodes, nodes), or (nodes, degree) in the order of the lists of drivers; a scalar for all.

        Raises:
            ValueError: if shapes do not fit.
        """
        angles = jnp.asarray(angles, jnp.result_type(angles, float))
        num = self.frequencies.shape[0]
        check_that(angles.shape == (num,), "angles", f"hold {num} values", found(angles))
        shape = (num, num) if self.drivers is None else self.drivers.shape
        weights = jnp.asarray(weights, angles.dtype)
        check_that(weights.shape in ((), shape), "weights", f"be a scalar or have the shape {shape}", found(weights))
        weights = jnp.broadcast_to(weights, shape)
        return AdaptiveState(angles, weights if self.mask is None else weights * self.mask.astype(weights.dtype))

    def vector_field(self, state: AdaptiveState) -> AdaptiveState:
        """(theta', kappa')."""
        dtype = state.phases.dtype
        u = Phases.of(state.phases)
        num = self.frequencies.shape[0]
        if self.drivers is None:
            # The weights are N x N anyway; sines of differences are outer products.
            cos, sin = u.cos[None, :], u.sin[None, :]
        else:
            cos, sin = u.cos[self.drivers], u.sin[self.drivers]
        real = u.cos[:, None] * cos + u.sin[:, None] * sin  # cos(theta_i - theta_j)
        imaginary = u.sin[:, None] * cos - u.cos[:, None] * sin  # sin(theta_i - theta_j)

        def shifted_sine(lag: Array) -> Array:
            return jnp.cos(lag).astype(dtype) * imaginary + jnp.sin(lag).astype(dtype) * real

        omega = self.frequencies.astype(dtype)
        turning = omega - jnp.sum(state.weights * shifted_sine(self.phase_lag), axis=1) / num
        learning = -self.rate.astype(dtype) * (state.weights + shifted_sine(self.adaptation_lag))
        return AdaptiveState(turning, learning if self.mask is None else learning * self.mask.astype(dtype))

    def step(self, n: IntScalarLike, x: PyTree) -> PyTree:
        """The state after step `n`."""
        del n
        h = self.dt.astype(x.phases.dtype)
        return runge_kutta_step(TABLEAUX[self.method], lambda c, y: self.vector_field(y), x, h)


def adaptive_kuramoto(
    drivers: Any,
    frequencies: Any,
    *,
    rate: Any,
    phase_lag: Any,
    adaptation_lag: Any,
    dt: Any,
    mask: Any = None,
    frequency_key: Any = None,
    method: str = "rk4",
) -> AdaptiveOscillators:
    """Phase oscillators with co-evolving weights kappa_ij on the edges j -> i.

        theta_i' = omega_i - (1/N) sum_j kappa_ij sin(theta_i - theta_j + alpha),
        kappa_ij' = -epsilon (kappa_ij + sin(theta_i - theta_j + beta)).

    Identical oscillators in phase are a solution: kappa = -sin(beta), theta' = omega + sin(alpha) sin(beta) if all drive all.

    Args:
        drivers: N where all drive all (themselves included), or node numbers (nodes, degree): row i lists who drives i.
        frequencies: an array (nodes,) or a law, as in `kuramoto`.
        rate: epsilon, per unit of time, not negative.
        phase_lag: alpha, radians.
        adaptation_lag: beta, radians.
        dt: time per step.
        mask: for lists of different lengths, (nodes, degree): 1 for an edge, 0 for padding.
        frequency_key: random key of independent frequencies.
        method: a method of `Flow`, of fixed step.

    Returns:
        A system; its states have `.phases` (angles) and `.weights`. A step costs as much memory and time as there are edges.

    Raises:
        ValueError: if node numbers are out of range, shapes do not fit, or `rate` is negative.
    """
    check_that(method in TABLEAUX, "method", f"be one of {', '.join(TABLEAUX)}", f"found {method!r}")
    dt = as_number(dt, "dt")
    check_dt(dt, positive=True)
    good = not is_concrete(rate) or bool(np.all(np.asarray(rate) >= 0))
    check_that(good, "rate", "not be negative", f"found {rate}")
    rate = as_number(rate, "rate")
    complete = isinstance(drivers, (int, np.integer))
    num = int(drivers) if complete else np.shape(drivers)[0]
    check_that(num >= 1, "drivers", "hold at least one node", f"found {num}")
    lists = None
    if not complete:
        lists = jnp.asarray(drivers)
        good = lists.ndim == 2 and jnp.issubdtype(lists.dtype, jnp.integer)
        check_that(good, "drivers", "be N, or integers (nodes, degree)", found(lists))
        if is_concrete(drivers):
            numbers = np.asarray(drivers)
            inside = bool(np.all((numbers >= 0) & (numbers < num)))
            check_that(inside, "drivers", f"hold node numbers from 0 to {num - 1}", "some are not")
    if mask is not None:
        mask = jnp.asarray(mask, jnp.result_type(float))
        good = lists is not None and mask.shape == lists.shape
        check_that(good, "mask", "have the shape of the lists of drivers", found(mask))
    return AdaptiveOscillators(
        drivers=lists,
        mask=mask,
        frequencies=natural_frequencies(frequencies, num, frequency_key),
        rate=rate,
        phase_lag=as_number(phase_lag, "phase_lag"),
        adaptation_lag=as_number(adaptation_lag, "adaptation_lag"),
        dt=dt,
        method=method,
    )


def in_phase_state(phase_lag: Any, adaptation_lag: Any) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(Omega, kappa) of identical oscillators in phase, all driving all: sin(alpha) sin(beta) and -sin(beta)."""
    alpha, beta = as_number(phase_lag, "phase_lag"), as_number(adaptation_lag, "adaptation_lag")
    return jnp.sin(alpha) * jnp.sin(beta), -jnp.sin(beta)
