"""Damped Newton's method on flat vectors, to the level of rounding, with a status in place of exceptions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Int8

from .._core import Status, cond_any_lane, tree_where

_HALVINGS = 12


class Root(NamedTuple):
    """Where Newton's method has ended.

    Attributes:
        x: the point.
        residual: |F(x)|.
        status: `OK` if the residual is below the tolerance; `NONFINITE` if F is not finite at the start; `NOT_CONVERGED` if no
            multiple of the step made it smaller; `MAX_STEPS`.
        num_steps: steps taken.
    """

    x: Float[Array, " dim"]
    residual: Float[Array, ""]
    status: Int8[Array, ""]
    num_steps: Int[Array, ""]


def newton(
    function: Callable[[Array], Array],
    directions: Callable[[Array, Array], tuple[Array, ...]],
    x0: Float[Array, " dim"],
    tol: Float[Array, ""],
    max_steps: int,
) -> Root:
    """A zero of `function`, by steps along one of `directions(x, F(x))` that are halved until |F| decreases.

    It does not stop at the tolerance but goes on while a step at least halves the residual, so that the result is as good as
    rounding allows wherever convergence is quadratic.

    Args:
        function: F, from flat vectors to flat vectors.
        directions: full Newton steps, each tried where those before have not halved the residual.
        x0: start.
        tol: the residual counts as zero at `tol * (1 + |x|)`.
        max_steps: bound on the number of steps, static.
    """
    size = lambda v: jnp.sqrt(jnp.sum(v * v))

    def search(x: Array, before: Array, step: Array) -> tuple[Array, Array]:
        def shorter(triple: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            t = triple[0] / 2
            return t, function(x + t * step), triple[2] + 1

        def worse(triple: tuple[Array, Array, Array]) -> Array:
            # A residual that is not finite counts as larger.
            return ~(size(triple[1]) <= (1 - 1e-4 * triple[0]) * before) & (triple[2] < _HALVINGS)

        t, new, _ = lax.while_loop(worse, shorter, (jnp.ones((), x.dtype), function(x + step), jnp.asarray(0)))
        return x + t * step, new

    def turn(carry: Any) -> Any:
        x, value, steps, _ = carry
        before = size(value)
        first, *others = directions(x, value)
        best = search(x, before, first)
        for step in others:
            far = ~(size(best[1]) < before / 2)
            other = cond_any_lane(far, lambda step: search(x, before, step), lambda _: best, step)  # noqa: B023
            best = tree_where(size(other[1]) < size(best[1]), other, best)
        better = size(best[1]) < before
        small = before <= tol * (1 + size(x))
        go_on = better & (size(best[1]) > 0) & (~small | (size(best[1]) <= before / 2))
        return jnp.where(better, best[0], x), jnp.where(better, best[1], value), steps + 1, go_on

    def going(carry: Any) -> Array:
        return carry[3] & (carry[2] < max_steps)

    value = function(x0)
    go = jnp.all(jnp.isfinite(value)) & (size(value) > 0)
    x, value, steps, unfinished = lax.while_loop(going, turn, (x0, value, jnp.asarray(0), go))
    good = size(value) <= tol * (1 + size(x))
    status = jnp.where(unfinished, int(Status.MAX_STEPS), int(Status.NOT_CONVERGED))
    status = jnp.where(good, int(Status.OK), status)
    status = jnp.where(jnp.all(jnp.isfinite(value)), status, int(Status.NONFINITE))
    return Root(x, size(value), status.astype(jnp.int8), steps)


def shortest_solutions(
    matrix: Float[Array, "rows columns"], right: Float[Array, " rows"]
) -> tuple[Float[Array, " columns"], Float[Array, " columns"]]:
    """Shortest solutions, with singular values below rounding taken as zero, and with those below its root.

    Along a curve of zeros of F the matrix is singular only at the zeros themselves: near by, its small singular values are
    of the size of F and lead astray, which the second solution leaves out.
    """
    finite = jnp.all(jnp.isfinite(matrix))
    left, values, rows = jnp.linalg.svd(jnp.where(finite, matrix, 0), full_matrices=False)
    eps = float(jnp.finfo(matrix.dtype).eps)
    product = lambda a, b: jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
    share = product(right, left)

    def solution(cut: float) -> Array:
        kept = values > cut * values[0]
        return product(jnp.where(kept, share / jnp.where(kept, values, 1), 0), rows)

    strict, loose = solution(100 * max(matrix.shape) * eps), solution(eps**0.5)
    return jnp.where(finite, strict, jnp.nan), jnp.where(finite, loose, jnp.nan)
