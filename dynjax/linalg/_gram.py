"""Eigenvectors of A = R^T R with few rows from the small matrix R R^T."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ._lanczos import direction


def num_rows(operator: Any) -> int | None:
    """Rows of the factor R, if the operator offers one by a method `root()`; None otherwise. Nothing is computed."""
    root = getattr(operator, "root", None)
    return None if root is None else jax.eval_shape(root).shape[0]


def largest_by_gram(
    rows: Float[Array, "rows dim"], k: int, noise: Float[Array, "k dim"]
) -> tuple[Float[Array, "k dim"], Float[Array, ""]]:
    """The eigenvectors of the k largest eigenvalues of R^T R, and the largest of these.

    With R R^T w = s w the vector R^T w / sqrt(s) is an eigenvector of R^T R. Where s is zero to rounding it says nothing: the
    kernel of R is then filled from random directions, orthogonalised against the rest.

    Args:
        rows: the factor R.
        k: how many, at most the number of rows.
        noise: random directions, one for each vector.

    Returns:
        Orthonormal vectors in descending order, and the largest eigenvalue.
    """
    values, columns = jnp.linalg.eigh(jnp.matmul(rows, rows.T, precision=lax.Precision.HIGHEST))
    values, columns = values[::-1], columns[:, ::-1]
    floor = 10 * len(values) * jnp.finfo(rows.dtype).eps * jnp.maximum(values[0], 0)
    sound = values > floor
    images = jnp.matmul(columns.T, rows, precision=lax.Precision.HIGHEST)
    basis = jnp.where(sound[:, None], images / jnp.sqrt(jnp.where(sound, values, 1))[:, None], 0)

    def fill(basis: Array, i: Array) -> tuple[Array, None]:
        return basis.at[i].set(jnp.where(sound[i], basis[i], direction(basis, noise[i]))), None

    basis, _ = lax.scan(fill, basis, jnp.arange(k))
    return basis[:k], jnp.maximum(values[0], 0)
