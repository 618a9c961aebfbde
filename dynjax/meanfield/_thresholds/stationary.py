"""Stationary partially synchronised states: the self-consistent field on every fibre, and its order parameter."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int8

from ..._core import Status, is_concrete
from .._graphs.graph_operator import AllToAll
from .._measures.label_grid import LabelGrid, as_grid
from .._particles.validity import warn_sparse_graph
from .frequency_laws import AbstractFrequencyLaw, check_law
from .response import response
from .threshold_arguments import as_real

_NEWTON_STEPS = 100
_DENSE_LABELS = 600


class StationaryState(eqx.Module):
    """A stationary state in which all fibres share one phase.

    Attributes:
        order_parameter: r = int |z| over the reference probability of the labels, (): 0 for the incoherent state.
        labels: x_i, as in the `LabelGrid`; one label for graphs where all nodes are driven alike.
        field: h(x_i) = int |z(y)| eta^{x_i}(dy), (labels,).
        local_order_parameter: |z(x_i)|, (labels,).
        residual: the largest |h - A z(K h)|.
        num_steps: Newton steps taken.
        status: `OK`, `NOT_CONVERGED`, or `NONFINITE`.
    """

    order_parameter: Float[Array, ""]
    labels: Float[Array, "labels *dim"]
    field: Float[Array, "labels"]
    local_order_parameter: Float[Array, "labels"]
    residual: Float[Array, ""]
    num_steps: Array
    status: Int8[Array, ""]

    def __str__(self) -> str:
        return (
            f"StationaryState(order parameter {self.order_parameter}, {self.field.shape[0]} labels, "
            f"residual {self.residual}, status {self.status})"
        )


def stationary_order_parameter(
    measure: Any,
    frequencies: AbstractFrequencyLaw,
    coupling: Float[Array, ""] | float,
    *,
    noise: Float[Array, ""] | float = 0.0,
    num_labels: int | None = None,
) -> Float[Array, ""]:
    """r(K) of the stationary state of `stationary_state`: 0 up to the critical coupling, NaN if Newton's method failed.

    It maps over couplings by `jax.vmap` and has derivatives, from the implicit function theorem.

    Example:
        ```python
        stationary_order_parameter(dj.DigraphMeasure.complete(), dj.meanfield.Lorentzian(1.0), 4.0)   # sqrt(1/2)
        ```
    """
    state = stationary_state(measure, frequencies, coupling, noise=noise, num_labels=num_labels)
    return jnp.where(state.status == int(Status.OK), state.order_parameter, jnp.nan)


def stationary_state(
    measure: Any,
    frequencies: AbstractFrequencyLaw,
    coupling: Float[Array, ""] | float,
    *,
    noise: Float[Array, ""] | float = 0.0,
    num_labels: int | None = None,
) -> StationaryState:
    r"""The most synchronised in-phase stationary state of oscillators on a graph with non-negative weights.

    Fibre x feels the field K h(x) and answers with z(x) = f(K h(x)), f the response of a population with the given
    frequencies and noise to a constant field. The state solves

    $$h(x) = \int f(K h(y)) \, \eta^x(dy), \qquad r = \int f(K h(x)) \, dx.$$

    In the frame of the centre of the law; phases common to all fibres. f is increasing and concave, so Newton's method from
    above, h = mass of eta^x, decreases monotonically to the largest solution, which is 0 below the critical coupling; it
    converges quadratically away from it and gains a factor of two or better per step at it. Derivatives come from one
    more step with
    the Jacobian held fixed. For the uniform law r jumps at the critical coupling, to pi / 4 on the complete graph.

    Without noise this is the partially locked state: drifting oscillators contribute nothing, since g is even. For
    identical
    oscillators without noise every fibre that is driven locks, r = 1.

    Args:
        measure: a `DigraphMeasure`, a `LabelGrid` or a `GraphOperator`, with weights that are not negative. Twisted
        states and
            those of signed kernels are not found.
        frequencies: `Lorentzian`, `Gaussian`, `Uniform` or `Identical`.
        coupling: K; for K <= 0 the result is the incoherent state.
        noise: D >= 0. With noise the stationary Fokker-Planck densities are expanded in a continued fraction of 128 terms.
        num_labels: quadrature labels of a `DigraphMeasure`; its own choice by default.

    Returns:
        A `StationaryState`. Up to 600 labels linear systems are solved densely, above that by GMRES on products with
        the graph.

    Warns:
        MeanFieldWarning: for a sparse graph of a mean degree below 20, for which limits say little.

    Raises:
        TypeError: if `measure` is no graph or `frequencies` another law.
        ValueError: for `noise` < 0, or values that are not finite scalars.

    References:
        Kuramoto 1984, Chemical oscillations, waves, and turbulence; Sakaguchi 1988, Prog. Theor. Phys. 79 (noise).
    """
    check_law(frequencies)
    warn_sparse_graph(measure)
    coupling, noise = as_real(coupling, "coupling"), as_real(noise, "noise", non_negative=True)
    noisy = not (is_concrete(noise) and float(np.asarray(noise)) == 0)
    # Checks the law before anything is solved.
    jax.eval_shape(lambda law: response(law, jnp.ones(1), jnp.ones(()), noisy=noisy), frequencies)
    return _solve(_labelled(measure, num_labels), frequencies, coupling, noise, noisy)


def _labelled(measure: Any, num_labels: int | None) -> LabelGrid:
    """The labels to solve on. A graph that is not traced itself is looked at even inside someone's `jax.jit`."""
    if is_concrete(measure):
        with jax.ensure_compile_time_eval():
            return _reduced(as_grid(measure, num_labels))
    return _reduced(as_grid(measure, num_labels))


def _reduced(grid: LabelGrid) -> LabelGrid:
    """One label where all nodes are driven alike: then the field is the same on all of them."""
    operator = grid.operator
    if isinstance(operator, AllToAll):
        return LabelGrid(grid.labels[:1], jnp.ones(1, grid.weights.dtype), AllToAll(1, operator.weight))
    if is_concrete(operator):
        mass = np.asarray(operator.mass())
        if np.ptp(mass) <= 64 * np.finfo(mass.dtype).eps * np.max(np.abs(mass)):
            return LabelGrid(grid.labels[:1], jnp.ones(1, grid.weights.dtype), AllToAll(1, mass.mean()))
    return grid


@eqx.filter_jit
def _solve(grid: LabelGrid, law: AbstractFrequencyLaw, coupling: Array, noise: Array, noisy: bool) -> StationaryState:
    dtype = jnp.result_type(coupling.dtype, noise.dtype, law.center.dtype, grid.weights.dtype)
    given = (grid.operator, law, jnp.maximum(coupling, 0).astype(dtype), noise.astype(dtype))
    fixed = jax.tree_util.tree_map(lambda x: lax.stop_gradient(x) if eqx.is_inexact_array(x) else x, given)
    count, eps = grid.num_labels, jnp.finfo(dtype).eps
    mass = fixed[0].mass(dtype)
    scale = jnp.max(jnp.abs(mass))
    matrix = fixed[0].as_matrix(dtype) if count <= _DENSE_LABELS else None

    def answer(h: Array, given: Any) -> Array:
        _, law, coupling, noise = given
        return response(law, coupling * jnp.maximum(h, 0), noise, noisy=noisy)

    def excess(h: Array, given: Any) -> Array:
        return h - given[0].apply(answer(h, given))

    def slopes(h: Array) -> Array:
        return jax.jvp(lambda h: answer(h, fixed), (h,), (jnp.ones_like(h),))[1]

    def solve(slope: Array, right: Array) -> Array:
        if matrix is not None:
            return jnp.linalg.solve(jnp.eye(count, dtype=dtype) - matrix * slope, right)
        product = lambda v: v - fixed[0].apply(slope * v)
        return jax.scipy.sparse.linalg.gmres(product, right, tol=10 * eps, atol=0.0, restart=30, maxiter=20)[0]

    def more(state: Any) -> Any:
        h, change, step = state
        return (step < _NEWTON_STEPS) & (change > 4 * eps * jnp.max(jnp.abs(h))) & (jnp.max(h) > floor)

    def newton(state: Any) -> Any:
        h, _, step = state
        # A singular system, exactly at the threshold, moves nothing.
        move = solve(slopes(h), excess(h, fixed))
        after = jnp.clip(jnp.where(jnp.isfinite(move), h - move, h), 0, h)
        return after, jnp.max(jnp.abs(after - h)), step + 1

    floor = jnp.sqrt(jnp.finfo(dtype).tiny) + eps**1.25 * scale
    start = (mass * (fixed[2] > 0), jnp.asarray(jnp.inf, dtype), jnp.asarray(0))
    h, change, num_steps = lax.while_loop(more, newton, start)
    synchronised = jnp.max(h) > floor
    h = lax.stop_gradient(jnp.where(synchronised, h, 0))
    slope = jnp.where(synchronised, lax.stop_gradient(slopes(h)), 0)
    final = h - solve(slope, excess(h, given))
    final = jnp.where(synchronised, final, 0)
    z = answer(final, given)
    residual = lax.stop_gradient(jnp.max(jnp.abs(excess(final, fixed))))
    good = (residual <= 64 * eps * scale) & ((change <= jnp.sqrt(eps) * jnp.max(h)) | ~synchronised)
    status = jnp.where(good, int(Status.OK), int(Status.NOT_CONVERGED))
    status = jnp.where(jnp.all(jnp.isfinite(z)), status, int(Status.NONFINITE)).astype(jnp.int8)
    order = grid.mean(z)
    return StationaryState(order, grid.labels, final, z, residual, num_steps, status)
