"""Ordered Schur forms of small real matrices, in plain JAX.

A restarted Arnoldi method must cut the spectrum of its projected matrix without relying on eigenvectors, which are parallel
at a defective eigenvalue. LAPACK's Schur form is offered by JAX on the CPU alone, and without an order; the complex one
below runs wherever JAX does, under `jit` and `vmap`.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Complex, Float, Int

_MAX_ITERATIONS = 40  # per eigenvalue; two or three are used


class Schur(NamedTuple):
    """A = Z T Z^H with T upper triangular and Z unitary; the eigenvalues stand on the diagonal of T in the order asked for."""

    triangle: Complex[Array, "n n"]
    basis: Complex[Array, "n n"]

    @property
    def values(self) -> Complex[Array, " n"]:
        """The eigenvalues."""
        return jnp.diagonal(self.triangle)


def small_schur(matrix: Float[Array, "n n"], which: str) -> Schur:
    """The complex Schur form of a real matrix, with its eigenvalues ordered by `eigenvalue_order`.

    Hessenberg reduction by reflections, single-shift QR with Wilkinson's shifts, and exchanges of neighbours by rotations:
    all unitary, so that the leading columns of Z span invariant subspaces to rounding, defective eigenvalues included.

    Args:
        matrix: real, any n >= 1; meant for n up to about 60. n = 24 takes a few milliseconds.
        which: "LM" or "LR".

    References:
        Golub and Van Loan, Matrix Computations (2013), sections 7.5 and 7.6.
    """
    n = matrix.shape[0]
    reduced, reflections = _hessenberg(matrix)
    dtype = jnp.result_type(matrix.dtype, jnp.complex64)
    # T above Z: one rotation of columns serves both.
    work = jnp.concatenate([reduced, reflections]).astype(dtype)
    if n > 1:
        work = _iterate(work, n)
        work = _sort(work, jnp.argsort(eigenvalue_order(jnp.diagonal(work), which)), n)
    return Schur(jnp.triu(work[:n]), work[n:])


def eigenvalue_order(values: Complex[Array, " n"], which: str) -> Int[Array, " n"]:
    """Indices of the eigenvalues of a real matrix, best first; of a complex pair the one with positive imaginary part first.

    The two of a pair differ by rounding: each counts with the mean of its own score and that of its partner, so that they
    stay neighbours whatever else has the same modulus.
    """
    partner = jnp.argmin(jnp.abs(values[:, None] - jnp.conj(values)), axis=1)

    def fair(score: Float[Array, " n"]) -> Float[Array, " n"]:
        return score + score[partner]

    real = fair(jnp.real(values))
    scores = (real, fair(jnp.abs(values))) if which == "LM" else (fair(jnp.abs(values)), real)
    keys = (-jnp.imag(values), -fair(jnp.abs(jnp.imag(values))), -scores[0], -scores[1])
    # Values that are not finite come last.
    return jnp.lexsort((*keys, ~jnp.isfinite(values)))


def triangular_eigenvectors(schur: Schur, k: int) -> Complex[Array, "k n"]:
    """Unit eigenvectors of the first k eigenvalues, in the rows. At a defective eigenvalue they are nearly parallel."""
    triangle = schur.triangle
    n = triangle.shape[0]
    info = jnp.finfo(triangle.dtype)
    floor = jnp.maximum(info.eps * jnp.max(jnp.abs(triangle)), info.tiny)
    rows = jnp.arange(n)

    def vector(i: Array) -> Complex[Array, " n"]:
        before = rows < i
        shift = triangle[i, i]
        pivots = jnp.where(before, jnp.diagonal(triangle) - shift, 1)
        pivots = jnp.where(jnp.abs(pivots) < floor, floor, pivots)
        start = jnp.where(before, -triangle[:, i], 0).at[i].set(1)

        def substitute(step: Array, y: Array) -> Array:
            j = i - 1 - step
            solved = y[j] / pivots[j]
            return jnp.where(rows < j, y - triangle[:, j] * solved, y).at[j].set(solved)

        y = jnp.matmul(schur.basis, lax.fori_loop(0, i, substitute, start), precision=lax.Precision.HIGHEST)
        return y / jnp.sqrt(jnp.sum(jnp.square(jnp.abs(y))))

    return lax.map(vector, jnp.arange(k))


def _hessenberg(matrix: Float[Array, "n n"]) -> tuple[Float[Array, "n n"], Float[Array, "n n"]]:
    """(H, Q) with A = Q H Q^T, H zero below its first subdiagonal."""
    n = matrix.shape[0]
    rows = jnp.arange(n)

    def reflect(j: Array, pair: tuple[Array, Array]) -> tuple[Array, Array]:
        h, q = pair
        x = jnp.where(rows > j, h[:, j], 0)
        # Scaled, so that squares neither overflow nor vanish.
        size = jnp.max(jnp.abs(x))
        x = x / jnp.where(size > 0, size, 1)
        head = x[j + 1]
        v = x.at[j + 1].add(jnp.where(head < 0, -1, 1) * jnp.sqrt(jnp.sum(x * x)))
        square = jnp.sum(v * v)
        v = v / jnp.sqrt(jnp.where(square > 0, square, 1))
        h = h - 2 * v[:, None] * _product(v, h)
        h = h - 2 * _product(h, v)[:, None] * v
        return jnp.where((rows[:, None] > j + 1) & (rows == j), 0, h), q - 2 * _product(q, v)[:, None] * v

    return lax.fori_loop(0, n - 2, reflect, (matrix, jnp.eye(n, dtype=matrix.dtype)))


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _deflated(work: Complex[Array, "2n n"], n: int) -> tuple[Array, Bool[Array, " n-1"]]:
    """The work with negligible subdiagonal entries set to zero, and which are left."""
    size = lambda z: jnp.abs(jnp.real(z)) + jnp.abs(jnp.imag(z))
    index = jnp.arange(n - 1)
    diagonal, below = size(jnp.diagonal(work[:n])), size(work[index + 1, index])
    scale = diagonal[:-1] + diagonal[1:]
    scale = jnp.where(scale > 0, scale, jnp.max(size(work[:n])))
    left = below > jnp.finfo(work.dtype).eps * scale
    return work.at[index + 1, index].multiply(left.astype(work.dtype)), left


def _iterate(work: Complex[Array, "2n n"], n: int) -> Complex[Array, "2n n"]:
    """QR sweeps from the bottom upwards until the matrix is triangular."""
    index = jnp.arange(n - 1)

    def going(carry: tuple[Array, Array, Array, Array]) -> Array:
        _, left, count, _ = carry
        return jnp.any(left) & (count < _MAX_ITERATIONS * n)

    def turn(carry: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        work, left, count, last = carry
        high = jnp.max(jnp.where(left, index + 1, 0))
        low = jnp.max(jnp.where(~left & (index < high), index + 1, 0))
        count, stuck = count + 1, jnp.where(high == last[0], last[1] + 1, 0)
        work = _sweep(work, low, high, _shift(work, high, stuck))
        return (*_deflated(work, n), count, jnp.stack([high, stuck]))

    zero = jnp.zeros((), index.dtype)
    return lax.while_loop(going, turn, (*_deflated(work, n), zero, jnp.stack([zero, zero])))[0]


def _shift(work: Array, high: Array, stuck: Array) -> Array:
    """The eigenvalue of the last 2 x 2 block that is nearer to its corner; now and then another, against cycles."""
    block = lax.dynamic_slice(work, (high - 1, high - 1), (2, 2))
    a, b, c, d = block[0, 0], block[0, 1], block[1, 0], block[1, 1]
    half = (a - d) / 2
    root = jnp.sqrt(half * half + b * c)
    root = jnp.where(jnp.real(jnp.conj(half) * root) < 0, -root, root)
    denominator = half + root
    wilkinson = d - jnp.where(denominator == 0, 0, b * c / jnp.where(denominator == 0, 1, denominator))
    exceptional = d + 0.75 * (jnp.abs(c) + 0j).astype(work.dtype)
    return jnp.where(stuck % 10 == 9, exceptional, wilkinson)


def _sweep(work: Array, low: Array, high: Array, shift: Array) -> Array:
    """One implicit single-shift QR step on the block low, ..., high."""

    def chase(i: Array, work: Array) -> Array:
        column = lax.dynamic_slice(work, (i, jnp.maximum(i - 1, low)), (2, 1))[:, 0]
        x = jnp.where(i == low, column.at[0].add(-shift), column)
        work = _rotate(work, i, x)
        # The bulge is zero now, and not of the size of rounding.
        inside = lax.dynamic_slice(work, (i + 1, jnp.maximum(i - 1, 0)), (1, 1))
        return lax.dynamic_update_slice(
            work, jnp.where(i == low, inside, jnp.zeros_like(inside)), (i + 1, jnp.maximum(i - 1, 0))
        )

    return lax.fori_loop(low, high, chase, work)


def _rotate(work: Array, i: Array, x: Array) -> Array:
    """The similarity by the rotation of the rows i, i + 1 that turns `x` into a multiple of (1, 0)."""
    n = work.shape[1]
    size = jnp.max(jnp.abs(x))
    x = x / jnp.where(size > 0, size, 1)
    r = jnp.sqrt(jnp.sum(jnp.square(jnp.abs(x))))
    c, s = jnp.where(size > 0, x / jnp.where(r > 0, r, 1), jnp.asarray([1, 0], work.dtype))
    rows = lax.dynamic_slice(work, (i, 0), (2, n))
    top, bottom = rows[0], rows[1]
    rows = jnp.stack([jnp.conj(c) * top + jnp.conj(s) * bottom, c * bottom - s * top])
    work = lax.dynamic_update_slice(work, rows, (i, 0))
    columns = lax.dynamic_slice(work, (0, i), (2 * n, 2))
    left, right = columns[:, 0], columns[:, 1]
    columns = jnp.stack([c * left + s * right, jnp.conj(c) * right - jnp.conj(s) * left], axis=1)
    return lax.dynamic_update_slice(work, columns, (0, i))


def _sort(work: Array, rank: Int[Array, " n"], n: int) -> Array:
    """Exchange neighbours until the diagonal stands in the order of `rank`."""

    def wrong(rank: Array) -> Array:
        return rank[:-1] > rank[1:]

    def exchange(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        work, rank = carry
        i = jnp.argmax(wrong(rank))
        block = lax.dynamic_slice(work, (i, i), (2, 2))
        # (b, d - a) is an eigenvector of [[a, b], [0, d]] for d.
        work = _rotate(work, i, jnp.stack([block[0, 1], block[1, 1] - block[0, 0]]))
        work = work.at[i + 1, i].set(0)
        return work, rank.at[i].set(rank[i + 1]).at[i + 1].set(rank[i])

    return lax.while_loop(lambda carry: jnp.any(wrong(carry[1])), exchange, (work, rank))[0]
