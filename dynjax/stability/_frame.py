"""Orthonormal frames: the factorisation V = L Q of a block of tangent vectors, one vector to a row."""

import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ..systems import tangent_space

Method = Literal["gram-schmidt", "cholesky", "householder"]

_HIGHEST = lax.Precision.HIGHEST
_NOISE = 16  # rounding of a tangent step and of a projection, in units of eps


class FrameSpace:
    """The tangent space of a state as R^dim: pytrees with a leading axis `k` to frames `(k, dim)`, and back.

    Complex leaves count as pairs of real ones. Mixed dtypes are promoted in the frame and restored on the way back.

    Args:
        x: a state (or its shapes).
    """

    def __init__(self, x: PyTree):
        leaves, self.treedef = jax.tree_util.tree_flatten(tangent_space(x)[0])
        self.shapes = [leaf.shape for leaf in leaves]
        self.dtypes = [leaf.dtype for leaf in leaves]
        self.complex = [jnp.issubdtype(dtype, jnp.complexfloating) for dtype in self.dtypes]
        sizes = [math.prod(shape) * (2 if two else 1) for shape, two in zip(self.shapes, self.complex, strict=True)]
        self.ends = np.cumsum(sizes)
        self.dim = sum(sizes)
        self.dtype = jnp.result_type(*(jnp.finfo(dtype).dtype for dtype in self.dtypes)) if leaves else None

    def flatten(self, v: PyTree) -> Float[Array, "k dim"]:
        """The frame of `k` stacked tangents."""
        parts = []
        for leaf, two in zip(jax.tree_util.tree_leaves(v), self.complex, strict=True):
            pair = jnp.stack([leaf.real, leaf.imag], axis=-1) if two else leaf
            parts.append(pair.reshape(leaf.shape[0], -1).astype(self.dtype))
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)

    def unflatten(self, frame: Float[Array, "k dim"]) -> PyTree:
        """Inverse of `flatten`."""
        leaves = []
        parts = jnp.split(frame, self.ends[:-1], axis=1) if len(self.ends) > 1 else [frame]
        for part, shape, dtype, two in zip(parts, self.shapes, self.dtypes, self.complex, strict=True):
            if two:
                part = part.reshape(frame.shape[0], *shape, 2)
                part = lax.complex(part[..., 0], part[..., 1])
            leaves.append(part.reshape(frame.shape[0], *shape).astype(dtype))
        return jax.tree_util.tree_unflatten(self.treedef, leaves)

    def random(self, key: PRNGKeyArray, k: int) -> Float[Array, "k dim"]:
        """`k` orthonormal directions, uniformly distributed."""
        return orthonormal_rows(jax.random.normal(key, (k, self.dim), self.dtype))[0]


def method_for(k: int, dim: int) -> Method:
    """The factorisation for a block of `k` vectors in `dim` dimensions on this platform.

    Unrolled Gram-Schmidt for few vectors: it fuses, and maps over lanes. For more, Householder on a CPU, where LAPACK
    took 4 us for k = 10, dim = 40 and Cholesky-QR 7 us; Cholesky-QR elsewhere, since it consists of matrix products.
    """
    if k <= 4:
        return "gram-schmidt"
    return "householder" if jax.default_backend() == "cpu" or k > 32 else "cholesky"


@functools.partial(jax.jit, static_argnames="method")
def orthonormal_rows(
    block: Float[Array, "k dim"], method: Method | None = None
) -> tuple[Float[Array, "k dim"], Float[Array, " k"]]:
    """Orthonormal rows Q and the logarithms of the diagonal of L > 0, V = L Q with L lower triangular.

    A vector that lies, up to rounding, in the span of those before it is lost: its row is zero and its logarithm -inf.
    The derivative is that of the factorisation, with lost rows held fixed; it stays finite.

    Args:
        block: the vectors V.
        method: "gram-schmidt" (unrolled, each vector twice), "cholesky" (shifted Cholesky-QR, three passes) or
            "householder"; by size and platform if not given.

    Returns:
        (Q, logarithms).
    """
    return _orthonormal_rows(block, method or method_for(*block.shape))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def _orthonormal_rows(block, method):
    return {"gram-schmidt": _gram_schmidt, "cholesky": _cholesky, "householder": _householder}[method](block)


@_orthonormal_rows.defjvp
def _orthonormal_rows_jvp(method: Method, primals: Any, tangents: Any) -> Any:
    (block,), (change,) = primals, tangents
    q, logs = _orthonormal_rows(block, method)
    live = jnp.isfinite(logs)[:, None]
    lower = triangle(block, q)
    # dV = dL Q + L dQ, and dQ Q^T is antisymmetric: L^{-1} dV Q^T is dQ Q^T above the diagonal, d log L_ii on it.
    solved = lax.linalg.triangular_solve(lower, jnp.where(live, change, 0), left_side=True, lower=True)
    mixed = _dot(solved, q.T)
    upper = jnp.triu(mixed, 1)
    turn = jnp.where(live & live.T, upper - upper.T, 0)
    outside = jnp.where(live, solved - _dot(mixed, q), 0)
    return (q, logs), (_dot(turn, q) + outside, jnp.diagonal(mixed))


def triangle(block: Float[Array, "k dim"], q: Float[Array, "k dim"]) -> Float[Array, "k k"]:
    """The lower triangular factor L of V = L Q; a lost row is that of the identity."""
    lower = jnp.tril(_dot(block, q.T))
    lost = jnp.diagonal(lower) == 0
    return jnp.where(lost[:, None] | lost[None, :], jnp.eye(lower.shape[0], dtype=lower.dtype), lower)


def _dot(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=_HIGHEST)


def _gram_schmidt(block: Float[Array, "k dim"]) -> tuple[Array, Array]:
    noise = _NOISE * jnp.finfo(block.dtype).eps
    rows: list[Array] = []
    logs = []
    for j in range(block.shape[0]):
        w = block[j]
        before = jnp.sum(w * w)
        for q in rows + rows:
            w = w - jnp.sum(q * w) * q
        square = jnp.sum(w * w)
        live = ~((square <= noise**2 * before) & jnp.isfinite(before))  # not lost: what is not finite must stay so
        square = jnp.where(live, square, 1)
        rows.append(jnp.where(live, w * lax.rsqrt(square), 0))
        logs.append(jnp.where(live, 0.5 * jnp.log(square), -jnp.inf))
    return jnp.stack(rows), jnp.stack(logs)


def _finish(block: Array, q: Array, diagonal: Array) -> tuple[Array, Array]:
    """Positive diagonal, lost rows marked."""
    norms = jnp.sqrt(jnp.sum(block * block, axis=1))
    size = jnp.abs(diagonal)
    live = ~((size <= _NOISE * jnp.finfo(block.dtype).eps * norms) & jnp.isfinite(norms))
    sign = jnp.where(diagonal < 0, -1, 1).astype(block.dtype)
    q = jnp.where(live[:, None], sign[:, None] * q, 0)
    return q, jnp.where(live, jnp.log(jnp.where(live, size, 1)), -jnp.inf)


def _householder(block: Float[Array, "k dim"]) -> tuple[Array, Array]:
    q, r = jnp.linalg.qr(block.T)
    return _finish(block, q.T, jnp.diagonal(r))


def _cholesky(block: Float[Array, "k dim"]) -> tuple[Array, Array]:
    """Three passes, each with a shift that keeps the Gram matrix positive; what a pass leaves, the next removes.

    Source: Fukaya, Kannan, Nakatsukasa, Yamamoto and Yanagisawa, Shifted Cholesky QR for computing the QR factorization
    of ill-conditioned matrices (2020).
    """
    k = block.shape[0]
    eps = jnp.finfo(block.dtype).eps
    norms = jnp.sqrt(jnp.sum(block * block, axis=1))
    diagonal = jnp.where(norms > 0, norms, 1)
    q = block / diagonal[:, None]
    for _ in range(3):
        gram = _dot(q, q.T) + 4 * k * eps * jnp.eye(k, dtype=block.dtype)
        lower = lax.linalg.cholesky(gram)
        q = lax.linalg.triangular_solve(lower, q, left_side=True, lower=True)
        diagonal = diagonal * jnp.diagonal(lower)
    return _finish(block, q, diagonal)
