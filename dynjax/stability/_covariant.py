"""Covariant Lyapunov vectors by Ginelli's algorithm, with checkpoints instead of a stored history."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Int8, PRNGKeyArray, PyTree

from .._core import Status, check_count, check_that, tree_all_finite
from ..systems import AbstractSystem, check_system, tangent_space
from ._engine import Carry, advance_block, default_cadence, push_frame
from ._frame import FrameSpace, orthonormal_rows, triangle
from ._spectrum import check_num_vectors
from ._time_average import time_average


class CovariantVectors(eqx.Module):
    """Covariant Lyapunov vectors along an orbit.

    Attributes:
        steps: numbers of the steps at which the vectors are given, `(num_saved,)`.
        states: the states there, each array with a leading axis `num_saved`.
        vectors: unit vectors in the flat order of the state's leaves, `(num_saved, k, dim)`; the i-th grows at the rate of
            the i-th exponent, forwards and backwards in time. Their signs are continued along the orbit by the tangent map.
        growth: the growth rates of the vectors from each saved point to the next, per unit of time, `(num_saved, k)`.
        exponents: their means, the exponents, `(k,)`.
        standard_error: of the exponents, `(k,)`.
        status: `OK` or `NONFINITE`.
    """

    steps: Int[Array, " num_saved"]
    states: PyTree
    vectors: Float[Array, "num_saved k dim"]
    growth: Float[Array, "num_saved k"]
    exponents: Float[Array, " k"]
    standard_error: Float[Array, " k"]
    status: Int8[Array, ""]

    @property
    def angles(self) -> Float[Array, "num_saved k k"]:
        """Angles between the lines of each two vectors, in radians, from 0 to pi / 2."""
        first, second = self.vectors[:, :, None, :], self.vectors[:, None, :, :]
        cosine = jnp.sum(first * second, axis=-1, keepdims=True)
        sine = jnp.linalg.norm(first - cosine * second, axis=-1)  # accurate where the cosine is not
        return jnp.arctan2(sine, jnp.abs(cosine[..., 0]))

    def subspace_angle(self, num_leading: int) -> Float[Array, " num_saved"]:
        """The smallest angle between the span of the first `num_leading` vectors and that of the others, in radians.

        Angles bounded away from zero between the unstable and the stable directions are what hyperbolicity means.

        Args:
            num_leading: how many vectors are on the first side, static, 1 to k - 1.

        Returns:
            One angle for every saved point.

        Raises:
            ValueError: if `num_leading` is not between 1 and k - 1.
        """
        k = self.vectors.shape[1]
        check_count(num_leading, "num_leading")
        check_that(num_leading < k, "num_leading", f"be below the number of vectors {k}", f"found {num_leading}")

        def angle(vectors: Array) -> Array:
            one = orthonormal_rows(vectors[:num_leading])[0]
            two = orthonormal_rows(vectors[num_leading:])[0]
            overlap = _dot(two, one.T)
            rest = two - _dot(overlap, one)  # the part of the second span outside the first: its smallest sine
            sine = jnp.linalg.svd(rest, compute_uv=False)[min(rest.shape) - 1]
            return jnp.arcsin(jnp.clip(sine, 0, 1))

        return jax.vmap(angle)(self.vectors)

    def __str__(self) -> str:
        """Their number and exponents."""
        num, k, dim = self.vectors.shape
        return f"CovariantVectors({k} in {dim} dimensions at {num} points, exponents {self.exponents})"


def covariant_vectors(
    system: AbstractSystem,
    x0: PyTree,
    *,
    num_steps: int,
    k: int | None = None,
    save_every: int | None = None,
    burn_in: int | None = None,
    settle: int | None = None,
    qr_every: int | None = None,
    key: PRNGKeyArray | None = None,
    start: Any = 0,
) -> CovariantVectors:
    r"""The `k` leading covariant Lyapunov vectors along the orbit of `x0`.

    The i-th vector spans the i-th Oseledets direction: pushed by the tangent map it stays the i-th vector, and grows at the
    rate lambda_i in both directions of time. Frames are factorised forwards, V_m = L_m Q_m; then, backwards from any
    lower triangular C,

        C_{m-1} = normalised rows of C_m L_m^{-1},    vectors = C_m Q_m .

    States and frames are stored only at the points that are returned; what lies between is computed a second time on the
    way back, so that memory is O(num_saved (k dim + |x|) + save_every k^2) and the cost twice that of `lyapunov_spectrum`.

    Args:
        system: any dynjax system; its tangent maps must be invertible on the span of the vectors.
        x0: its state at step `start`.
        num_steps: steps over which vectors are returned, static.
        k: number of vectors; all if not given, refused above 64 dimensions.
        save_every: steps between returned vectors, static; a divisor of `num_steps`, by default about `num_steps` / 1000.
        burn_in: steps before (state and frame settle), by default a tenth of `num_steps`.
        settle: steps after (the way back settles), by default like `burn_in`. Both are rounded up to `save_every`.
        qr_every: steps between factorisations, static, a divisor of `save_every`; chosen as in `lyapunov_spectrum`.
        key: for the first frame; fixed if not given.
        start: number of the first step.

    Returns:
        A `CovariantVectors`. It runs inside `jit` and `vmap`.

    Raises:
        TypeError: if `system` is no dynjax system.
        ValueError: if a count does not fit, or `x0` is not what `step` returns.

    References:
        Ginelli, Poggi, Turchi, Chate, Livi and Politi, Characterizing dynamics with covariant Lyapunov vectors (2007).
        Kuptsov and Parlitz, Theory and computation of covariant Lyapunov vectors (2012).
    """
    check_count(num_steps, "num_steps")
    check_system(system, x0)
    space = FrameSpace(x0)
    k = check_num_vectors(k, space.dim)
    save_every = _default_saving(num_steps) if save_every is None else save_every
    check_count(save_every, "save_every")
    divides = num_steps % save_every == 0
    check_that(divides, "save_every", "divide `num_steps`", f"{save_every} does not divide {num_steps}")
    qr_every = default_cadence(system, space.dtype, save_every) if qr_every is None else qr_every
    check_count(qr_every, "qr_every")
    divides = save_every % qr_every == 0
    check_that(divides, "qr_every", "divide `save_every`", f"{qr_every} does not divide {save_every}")
    burn_in = num_steps // 10 if burn_in is None else burn_in
    settle = burn_in if settle is None else settle
    check_count(burn_in, "burn_in", 0)
    check_count(settle, "settle", 0)
    counts = (-(-burn_in // save_every), num_steps // save_every, -(-settle // save_every))
    frame = space.random(jax.random.key(0) if key is None else key, k)
    return _ginelli(
        system, x0, frame, jnp.asarray(start, jnp.result_type(int)), counts, save_every // qr_every, qr_every
    )


def _default_saving(num_steps: int) -> int:
    return min((d for d in range(1, num_steps + 1) if num_steps % d == 0), key=lambda d: abs(num_steps / d - 1000))


@eqx.filter_jit
def _ginelli(
    system: AbstractSystem,
    x0: PyTree,
    frame: Float[Array, "k dim"],
    start: Int[Array, ""],
    counts: tuple[int, int, int],
    blocks: int,
    qr_every: int,
) -> CovariantVectors:
    arrays, static = eqx.partition(x0, eqx.is_array)
    space = FrameSpace(x0)
    burn, num_saved, settle = counts
    block_time = qr_every * jnp.abs(system.dt).astype(space.dtype)

    def segment(carry: Carry, _: Any) -> tuple[Carry, Carry]:
        body = lambda i, c: advance_block(system, static, space, c, qr_every)[0]
        return lax.fori_loop(0, blocks, body, carry), carry

    def factorised(carry: Carry, _: Any) -> tuple[Carry, Array]:
        x, v, n = push_frame(system, static, space, carry, qr_every)
        block = space.flatten(v)
        frame, _ = orthonormal_rows(block)
        return Carry(x, frame, n), triangle(block, frame)

    def back(c: Array, checkpoint: Carry) -> tuple[Array, tuple[Array, Array]]:
        _, lowers = lax.scan(factorised, checkpoint, None, length=blocks)
        c, growth = lax.scan(_one_back, c, lowers, reverse=True)
        return c, (_dot(c, checkpoint.frame), jnp.mean(growth, axis=0) / block_time)

    carry, _ = lax.scan(lambda c, _: (segment(c, None)[0], None), Carry(arrays, frame, start), None, length=burn)
    final, checkpoints = lax.scan(segment, carry, None, length=num_saved + settle)
    c = jnp.eye(frame.shape[0], dtype=space.dtype)
    c, _ = lax.scan(
        lambda c, point: (back(c, point)[0], None),
        c,
        jax.tree_util.tree_map(lambda a: a[num_saved:], checkpoints),
        reverse=True,
    )
    saved = jax.tree_util.tree_map(lambda a: a[:num_saved], checkpoints)
    _, (vectors, growth) = lax.scan(back, c, saved, reverse=True)
    statistics = time_average(growth)
    finite = tree_all_finite(tangent_space(eqx.combine(final.x, static))[0]) & jnp.all(jnp.isfinite(vectors))
    return CovariantVectors(
        steps=saved.n,
        states=eqx.combine(saved.x, static),
        vectors=vectors,
        growth=growth,
        exponents=statistics.mean,
        standard_error=statistics.standard_error,
        status=jnp.where(finite, int(Status.OK), int(Status.NONFINITE)).astype(jnp.int8),
    )


def _one_back(c: Float[Array, "k k"], lower: Float[Array, "k k"]) -> tuple[Array, Array]:
    """C L^{-1} with rows normalised, and the growth of the rows forwards."""
    before = lax.linalg.triangular_solve(lower, c, left_side=False, lower=True)
    norms = jnp.linalg.norm(before, axis=1)
    return before / norms[:, None], -jnp.log(norms)


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
