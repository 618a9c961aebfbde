"""Stability of small families of matrices without eigenvalues: characteristic polynomials and the Routh test."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float


def characteristic_line(
    a: Float[Array, "dim dim"], r: Float[Array, "dim"]
) -> tuple[Float[Array, "dim+1"], Float[Array, "dim+1"]]:
    """Coefficients (p, q), the lowest power first, with det(y I - a - s r e_0^T) = p(y) + s q(y) for every s.

    By the Faddeev-LeVerrier recursion, which gives the adjugate of y I - a too. Meant for dim up to about 10: `dim`
    products of matrices and no pivoting, so that it batches.

    Args:
        a: a square matrix.
        r: a vector; s r is added to the first column of `a`.
    """
    dim = a.shape[0]
    eye = jnp.eye(dim, dtype=a.dtype)
    p, q = [jnp.ones((), a.dtype)], [jnp.zeros((), a.dtype)]
    adjugate = eye
    for k in range(1, dim + 1):
        q.append(-jnp.matmul(adjugate, r, precision="highest")[0])
        product = jnp.matmul(a, adjugate, precision="highest")
        p.append(-jnp.trace(product) / k)
        adjugate = product + p[-1] * eye
    # A first column of zeros, which is what an optimiser without weight decay has, is a root 0 and not one of rounding.
    p[-1] = jnp.where(jnp.all(a[:, 0] == 0), 0, p[-1])
    return jnp.stack(p[::-1]), jnp.stack(q[::-1])


def shifted(coefficients: Float[Array, "degree+1"], by: float) -> Float[Array, "degree+1"]:
    """Coefficients of the polynomial y -> a(y + by)."""
    size = coefficients.shape[0]
    powers = [[math.comb(k, j) * by ** (k - j) if j <= k else 0.0 for j in range(size)] for k in range(size)]
    return jnp.matmul(coefficients, jnp.asarray(powers, coefficients.dtype), precision="highest")


def inside_unit_circle(coefficients: Float[Array, "degree+1"]) -> Bool[Array, ""]:
    """Whether every root y of a polynomial has |1 + y| < 1, i.e. the matrix I + a is stable if it is that of a.

    With y = 2 u / (1 - u) the disc becomes the left half-plane, where Routh's array decides. Multipliers near 1, where an
    optimiser with a small step has one always, are resolved as well as y is.

    Args:
        coefficients: real, the lowest power first, the leading one positive.
    """
    degree = coefficients.shape[0] - 1
    # Row k: the coefficients of (2 u)^k (1 - u)^(degree - k).
    transform = np.zeros((degree + 1, degree + 1))
    for k in range(degree + 1):
        for j in range(degree - k + 1):
            transform[k, k + j] = 2.0**k * math.comb(degree - k, j) * (-1.0) ** j
    a = jnp.matmul(coefficients, jnp.asarray(transform, coefficients.dtype), precision="highest")[::-1]
    a = jnp.pad(a, (0, 3))
    upper, lower = a[0::2][: degree // 2 + 2], a[1::2][: degree // 2 + 2]
    stable = upper[0] > 0
    for _ in range(degree):
        stable = stable & (lower[0] > 0)
        ratio = upper[0] / jnp.where(lower[0] == 0, 1, lower[0])
        upper, lower = lower, jnp.pad(upper[1:] - ratio * lower[1:], (0, 1))
    return stable
