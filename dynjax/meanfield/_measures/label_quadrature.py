"""Quadrature on the labels [0, 1]: Gauss-Legendre with exact running integrals, and Gauss-Jacobi with a traced exponent."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class Legendre(NamedTuple):
    """Gauss-Legendre nodes on [0, 1] and the change to orthonormal polynomials, as NumPy arrays in double precision.

    Attributes:
        nodes: x_i, (n,).
        weights: q_i, (n,), of sum one.
        modes: phi_k(x_i), (n, n + 1), the orthonormal Legendre polynomials of [0, 1] of degree 0 to n.
    """

    nodes: np.ndarray
    weights: np.ndarray
    modes: np.ndarray


@functools.lru_cache(maxsize=32)
def legendre(count: int) -> Legendre:
    """The rule of `count` nodes. Costs count^3 once on the host, then it is remembered."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    modes = np.polynomial.legendre.legvander(nodes, count) * np.sqrt(2 * np.arange(count + 1) + 1)
    return Legendre((nodes + 1) / 2, weights / 2, modes)


def midpoints(count: int) -> np.ndarray:
    """The labels (i + 1/2) / count."""
    return (np.arange(count) + 0.5) / count


@functools.lru_cache(maxsize=32)
def running_integral(count: int) -> np.ndarray:
    r"""J_kl = int phi_k(x) int_0^x phi_l(y) dy dx for orthonormal Legendre polynomials of degree up to `count`.

    From int_{-1}^t P_l = (P_{l+1} - P_{l-1}) / (2 l + 1): antisymmetric but for the corner J_00 = 1/2.
    """
    degree = np.arange(1, count + 1)
    beside = 0.5 / np.sqrt(4.0 * degree**2 - 1)
    matrix = np.diag(beside, -1) - np.diag(beside, 1)
    matrix[0, 0] = 0.5
    return matrix


def gauss_jacobi(count: int, exponent: Float[Array, ""]) -> tuple[Float[Array, "count"], Float[Array, "count"]]:
    r"""Nodes and weights of int_0^1 u^exponent f(u) du, exact for polynomials f of degree 2 count - 1.

    By the eigenvalues of the Jacobi matrix (Golub and Welsch 1969). The weights come from the normalised polynomials at the
    nodes and not from eigenvectors, so that they are relatively accurate where they are small.

    Args:
        count: how many nodes.
        exponent: above -1; traced and differentiable.
    """
    return _gauss_jacobi(count, jnp.asarray(exponent))


@functools.partial(jax.jit, static_argnums=0)
def _gauss_jacobi(count: int, b: Float[Array, ""]) -> tuple[Float[Array, "count"], Float[Array, "count"]]:
    n = jnp.arange(count, dtype=b.dtype)
    # Monic Jacobi polynomials of alpha = 0 on [-1, 1], with the removable 0/0 at n = 0 written out.
    total = 2 * n + b
    inner = jnp.where(n == 0, 1, total)
    diagonal = jnp.where(n == 0, b / (b + 2), b**2 / (inner * (total + 2)))
    m = jnp.arange(1, count, dtype=b.dtype)
    # b^2 at m = 1 cancels with the factor m + b over 2 m + b - 1: both are b + 1.
    ratio = jnp.where(m == 1, 1.0, (m + b) / jnp.where(m == 1, 1.0, 2 * m + b - 1))
    square = 4 * m**2 * (m + b) * ratio / ((2 * m + b) ** 2 * (2 * m + b + 1))
    beside = jnp.sqrt(square) / 2
    matrix = jnp.diag((1 + diagonal) / 2) + jnp.diag(beside, 1) + jnp.diag(beside, -1)
    nodes = jnp.linalg.eigvalsh(matrix)
    start = jnp.full_like(nodes, jnp.sqrt(b + 1))
    behind = jnp.concatenate([jnp.zeros_like(beside[:1]), beside[:-1]])

    def raise_degree(carry, coefficients):
        previous, current, power = carry
        center, behind, beside = coefficients
        following = ((nodes - center) * current - behind * previous) / beside
        return (current, following, power + following**2), None

    coefficients = ((1 + diagonal[:-1]) / 2, behind, beside)
    (_, _, power), _ = jax.lax.scan(raise_degree, (jnp.zeros_like(nodes), start, start**2), coefficients)
    return nodes, 1 / power
