"""Norms of matrices that act on several vectors at once."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import check_that

NORMS = ("sup", "euclidean")


def check_norm(norm: Any) -> None:
    """Raise unless `norm` is one of the two."""
    check_that(isinstance(norm, str) and norm in NORMS, "norm", 'be "sup" or "euclidean"', f"found {norm!r}")


def spectral_norm(matrix: Float[Array, "*pieces out in"]) -> Float[Array, "*pieces"]:
    """The largest singular value."""
    return jnp.linalg.svd(matrix, compute_uv=False)[..., 0]


def block_norm(
    matrix: Float[Array, "*pieces out in"], blocks: tuple[int, ...], norm: str, scales: tuple[Any, ...] | None = None
) -> Float[Array, "*pieces"]:
    """A bound C with |matrix (x_1, ..., x_k)| <= C max_j |x_j| / s_j.

    For "sup" it is max_i sum_j s_j |W_i,block j|_1, which is sharp; for "euclidean" sum_j s_j |W_block j|_2.

    Args:
        matrix: the matrix, or several of them.
        blocks: how many columns belong to each vector.
        norm: "sup" or "euclidean".
        scales: the numbers s_j; 1 by default.
    """
    scales = (1.0,) * len(blocks) if scales is None else scales
    terms = []
    start = 0
    for width, scale in zip(blocks, scales, strict=True):
        block = matrix[..., start : start + width]
        start += width
        terms.append(scale * (jnp.sum(jnp.abs(block), -1) if norm == "sup" else spectral_norm(block)))
    total = sum(terms[1:], terms[0])
    return jnp.max(total, -1) if norm == "sup" else total


def normalised(matrix: Float[Array, "*pieces out in"], blocks: tuple[int, ...], norm: str) -> Array:
    """The matrix with a `block_norm` of at most 1: divided where it is larger, row by row for "sup"."""
    if norm == "sup":
        return matrix / jnp.maximum(1, jnp.sum(jnp.abs(matrix), -1, keepdims=True))
    return matrix / jnp.maximum(1, block_norm(matrix, blocks, norm))[..., None, None]
