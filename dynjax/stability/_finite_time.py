"""Finite-time Lyapunov exponents: the singular values of the derivative of a flow map, and fields of them."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, Int8, PRNGKeyArray, PyTree

from .._core import Status, check_count, check_that, tree_all_finite
from ..linalg import eigsh
from ..systems import AbstractSystem, check_system, evolve, tangent_space
from ._engine import Carry, default_cadence, push_frame
from ._frame import FrameSpace, orthonormal_rows, triangle
from ._singular_values import log_singular_values
from ._spectrum import DENSE_LIMIT, check_num_vectors


class FiniteTimeExponents(eqx.Module):
    """Finite-time exponents of one orbit, or of many with leading axes.

    Attributes:
        exponents: (1/T) log of the singular values of the derivative of the map over the time T, descending, `(k,)`.
        directions: the perturbations of the start that grow so (right singular vectors), unit rows `(k, dim)` in the flat
            order of the state's leaves.
        images: where they point at the end of the orbit (left singular vectors), unit rows `(k, dim)`.
        final: the state at the end.
        status: `OK`; `NONFINITE` if the orbit left the finite numbers (exponents are then NaN); `NOT_CONVERGED` where leading
            values above 64 dimensions did not converge.
    """

    exponents: Float[Array, "*batch k"]
    directions: Float[Array, "*batch k dim"]
    images: Float[Array, "*batch k dim"]
    final: PyTree
    status: Int8[Array, "*batch"]

    def __str__(self) -> str:
        """Their number and the largest one."""
        return f"FiniteTimeExponents({self.exponents.shape}, largest {jnp.max(self.exponents):.5g})"


def finite_time_exponents(
    system: AbstractSystem,
    x0: PyTree,
    *,
    num_steps: int,
    k: int | None = None,
    start: Any = 0,
    key: PRNGKeyArray | None = None,
) -> FiniteTimeExponents:
    r"""Finite-time Lyapunov exponents along the orbit of `x0` over `num_steps` steps.

    With D the derivative of x0 -> x_N and s_1 >= s_2 >= ... its singular values,

        Lambda_i = log(s_i) / T,    T = num_steps * dt.

    Unlike the exponents of `lyapunov_spectrum` they depend on the point and on T, and not on a frame. Up to 64 dimensions all
    of them are computed from a factorised product: the small ones keep their relative accuracy however far the large ones
    have run away. Above, the `k` leading ones come from Lanczos on D^T D with forward and reverse passes along the orbit;
    singular values below sqrt(eps) times the largest are then lost.

    It runs inside `jit` and `vmap`.

    Args:
        system: any dynjax system.
        x0: its state at step `start`.
        num_steps: steps, static.
        k: number of leading exponents; all of them if not given, which is refused above 64 dimensions.
        start: number of the first step.
        key: for the start vector of Lanczos, above 64 dimensions only.

    Returns:
        A `FiniteTimeExponents`. Cost up to 64 dimensions: `num_steps` tangent steps with `dim` tangents.

    Raises:
        TypeError: if `system` is no dynjax system.
        ValueError: if a count does not fit, or `x0` is not what `step` returns.

    Example:
        ```python
        jax.vmap(lambda x: dj.finite_time_exponents(system, x, num_steps=200).exponents[0])(grid)
        ```

    References:
        Haller, Distinguished material surfaces and coherent structures in three-dimensional fluid flows (2001). Stewart, On
        graded QR decompositions of products of matrices (1997).
    """
    check_count(num_steps, "num_steps")
    check_system(system, x0)
    space = FrameSpace(x0)
    k = check_num_vectors(k, space.dim)
    compute = _factorised if space.dim <= DENSE_LIMIT else _leading
    return compute(system, x0, num_steps, k, jnp.asarray(start), jax.random.key(0) if key is None else key)


@eqx.filter_jit
def _factorised(
    system: AbstractSystem, x0: PyTree, num_steps: int, k: int, start: Array, key: PRNGKeyArray
) -> FiniteTimeExponents:
    """D^T = L Q with L = B diag(exp(logs)), B unit lower triangular, built up block by block."""
    arrays, static = eqx.partition(x0, eqx.is_array)
    space = FrameSpace(x0)
    every = default_cadence(system, space.dtype, num_steps)
    eye = jnp.eye(space.dim, dtype=space.dtype)
    above = jnp.triu(jnp.ones_like(eye)) > 0  # the diagonal included

    def block(_: Array, value: tuple[Carry, Array, Array]) -> tuple[Carry, Array, Array]:
        carry, columns, logs = value
        x, v, n = push_frame(system, static, space, carry, every)
        flat = space.flatten(v)
        frame, growth = orthonormal_rows(flat)
        lower = triangle(flat, frame)
        # B' = B (diag(e^logs) L diag(e^-logs')): entries below the diagonal carry the ratio of a small to a large scale.
        lost = jnp.isneginf(logs)
        gap = jnp.where(lost[:, None] | above, -jnp.inf, logs[:, None] - jnp.where(lost, 0, logs)[None, :])
        scaled = jnp.exp(gap) * lower / jnp.diagonal(lower)[None, :] + eye
        return Carry(x, frame, n), _dot(columns, scaled), logs + growth

    begin = (Carry(arrays, eye, start.astype(jnp.result_type(int))), eye, jnp.zeros((space.dim,), space.dtype))
    carry, columns, logs = jax.lax.fori_loop(0, num_steps // every, block, begin)
    final = eqx.combine(carry.x, static)
    left, values, right = log_singular_values(columns, logs)  # D^T = left diag(e^values) right^T frame
    finite = tree_all_finite(tangent_space(final)[0]) & ~jnp.any(jnp.isnan(values) | (values == jnp.inf))
    status = jnp.where(finite, int(Status.OK), int(Status.NONFINITE)).astype(jnp.int8)
    time = num_steps * jnp.abs(system.dt).astype(space.dtype)
    values = jnp.where(finite, values, jnp.nan)
    return FiniteTimeExponents(values[:k] / time, left.T[:k], _dot(right.T[:k], carry.frame), final, status)


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


@eqx.filter_jit
def _leading(
    system: AbstractSystem, x0: PyTree, num_steps: int, k: int, start: Array, key: PRNGKeyArray
) -> FiniteTimeExponents:
    dynamic, frozen = tangent_space(x0)
    space = FrameSpace(x0)

    def flow(flat: Array) -> tuple[Array, PyTree]:
        x = eqx.combine(jax.tree_util.tree_map(lambda leaf: leaf[0], space.unflatten(flat[None])), frozen)
        final = evolve(system, x, num_steps=num_steps, start=start)
        ends = jax.tree_util.tree_map(lambda leaf: leaf[None], tangent_space(final)[0])
        return space.flatten(ends)[0], final

    origin = space.flatten(jax.tree_util.tree_map(lambda leaf: leaf[None], dynamic))[0]
    _, push, final = jax.linearize(flow, origin, has_aux=True)
    pull = jax.linear_transpose(push, origin)
    shape = jax.ShapeDtypeStruct((space.dim,), space.dtype)
    # D D^T, whose eigenvectors are the directions at the end.
    gram = lx.FunctionLinearOperator(lambda v: push(pull(v)[0]), shape, lx.symmetric_tag)
    pairs = eigsh(gram, k, key=key)
    time = num_steps * jnp.abs(system.dt).astype(space.dtype)
    positive = pairs.values > 0
    values = jnp.where(positive, 0.5 * jnp.log(jnp.where(positive, pairs.values, 1)), -jnp.inf)
    finite = tree_all_finite(tangent_space(final)[0]) & jnp.all(jnp.isfinite(pairs.values))
    code = jnp.where(jnp.all(pairs.converged), int(Status.OK), int(Status.NOT_CONVERGED))
    status = jnp.where(finite, code, int(Status.NONFINITE)).astype(jnp.int8)
    starts = jax.vmap(lambda v: pull(v)[0])(pairs.vectors)
    starts = starts / jnp.maximum(jnp.linalg.norm(starts, axis=1, keepdims=True), jnp.finfo(space.dtype).tiny)
    values = jnp.where(finite, values, jnp.nan)
    return FiniteTimeExponents(values / time, starts, pairs.vectors, final, status)


def finite_time_field(
    system: AbstractSystem,
    states: PyTree,
    *,
    num_steps: int,
    k: int = 1,
    start: Any = 0,
    chunk_size: int = 4096,
) -> FiniteTimeExponents:
    """Finite-time exponents over a grid of initial states (an FTLE field).

    Ridges of the field of the largest exponent are where neighbouring initial states part; over a network's inputs
    they follow its decision boundaries.

    Args:
        system: any dynjax system; for the attracting ridges use one that runs backwards (`Flow` with a negative `dt`).
        states: the initial states: a pytree like a state of `system`, every array of it with the same leading axes, e.g.
            `(width, height, dim)`.
        num_steps: steps, static.
        k: number of leading exponents.
        start: number of the first step.
        chunk_size: grid points that are computed at once, static; it bounds the memory.

    Returns:
        A `FiniteTimeExponents` with the leading axes of `states`.

    Raises:
        TypeError: if `system` is no dynjax system.
        ValueError: if arrays have no common leading axes, or a single state is not what `step` returns.

    Example:
        ```python
        angle, speed = jnp.meshgrid(jnp.linspace(-3, 3, 200), jnp.linspace(-2, 2, 200))
        field = dj.finite_time_field(pendulum, jnp.stack([angle, speed], -1), num_steps=500)
        plt.pcolormesh(angle, speed, field.exponents[..., 0])
        ```
    """
    check_count(chunk_size, "chunk_size")
    arrays, static = eqx.partition(states, eqx.is_array)
    batch = _batch_shape(system, arrays, static)
    size = math.prod(batch)
    flat = jax.tree_util.tree_map(lambda leaf: leaf.reshape(size, *leaf.shape[len(batch) :]), arrays)
    single = lambda x: finite_time_exponents(system, eqx.combine(x, static), num_steps=num_steps, k=k, start=start)
    eqx.filter_eval_shape(single, jax.tree_util.tree_map(lambda leaf: leaf[0], flat))  # raises with the right sentence
    out = _field(system, flat, static, num_steps, k, jnp.asarray(start), min(chunk_size, size))
    return jax.tree_util.tree_map(
        lambda leaf: leaf.reshape(*batch, *leaf.shape[1:]) if eqx.is_array(leaf) else leaf, out
    )


def _batch_shape(system: AbstractSystem, arrays: PyTree, static: PyTree) -> tuple[int, ...]:
    """The longest common leading axes for which one state has the shape that `step` returns."""
    leaves = jax.tree_util.tree_leaves(arrays)
    check_that(bool(leaves), "states", "hold arrays", "there is none")
    shared = min(leaf.ndim for leaf in leaves)
    for depth in range(shared, 0, -1):
        if len({leaf.shape[:depth] for leaf in leaves}) > 1:
            continue
        try:
            one = jax.tree_util.tree_map(lambda leaf, d=depth: leaf[(0,) * d], arrays)
            check_system(system, eqx.combine(one, static))
        except (TypeError, ValueError, IndexError):
            continue
        return leaves[0].shape[:depth]
    check_that(
        False, "states", "hold states of `system` along common leading axes", "no leading axes leave such a state"
    )
    raise AssertionError


@eqx.filter_jit
def _field(
    system: AbstractSystem, flat: PyTree, static: PyTree, num_steps: int, k: int, start: Array, chunk_size: int
) -> FiniteTimeExponents:
    def single(x: PyTree) -> PyTree:
        out = finite_time_exponents(system, eqx.combine(x, static), num_steps=num_steps, k=k, start=start)
        return eqx.filter(out, eqx.is_array)

    out = jax.lax.map(single, flat, batch_size=chunk_size)
    return eqx.combine(out, FiniteTimeExponents(None, None, None, static, None))  # type: ignore[arg-type]
