"""Linear maps and flows, and flows whose exponents or their sum follow from a formula."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import check_positive
from ._arrays import check_count, check_square, descending, floats


def linear_map_exponents(matrix: Float[Array, "dim dim"]) -> Float[Array, "dim"]:
    """The logarithms of abs(eigenvalue of W), the exponents of x' = W x, descending.

    They are also those of a recurrent network h' = phi(W h) at a fixed point h = 0 with phi'(0) = 1, and of the torus
    automorphism x' = W x mod 1. Estimates of a Jordan block from n steps are off by order (log n) / n.
    """
    check_square(matrix, "matrix")
    return descending(jnp.log(jnp.abs(jnp.linalg.eigvals(floats(matrix)[0]))))


def linear_flow_exponents(matrix: Float[Array, "dim dim"]) -> Float[Array, "dim"]:
    """Real parts of the eigenvalues of A, the exponents of x' = A x per unit of time, descending."""
    check_square(matrix, "matrix")
    return descending(jnp.real(jnp.linalg.eigvals(floats(matrix)[0])))


def stuart_landau_exponents(growth: Float[Array, ""] | float) -> Float[Array, "2"]:
    """The exponents of z' = (mu + i omega) z - abs(z)^2 z per unit of time, for any omega and almost every start.

    (0, -2 mu) on the limit cycle if mu > 0, (mu, mu) at the origin otherwise.
    """
    (mu,) = floats(growth)
    return jnp.where(mu > 0, jnp.stack([jnp.zeros_like(mu), -2 * mu]), jnp.stack([mu, mu]))


def lorenz63_exponent_sum(
    prandtl: Float[Array, ""] | float = 10.0, geometry: Float[Array, ""] | float = 8 / 3
) -> Float[Array, ""]:
    """-(sigma + 1 + beta), the divergence of the Lorenz system and so the sum of its exponents; -41/3 at 10, 28, 8/3."""
    sigma, beta = floats(prandtl, geometry)
    return -(sigma + 1 + beta)


def lorenz96_exponent_sum(num_sites: int) -> Float[Array, ""]:
    """-N, the divergence of x_i' = (x_{i+1} - x_{i-2}) x_{i-1} - x_i + F, at least 4 sites."""
    check_count(num_sites, "num_sites", 4)
    return -floats(num_sites)[0]


def roessler_exponent_sum(
    a: Float[Array, ""] | float, c: Float[Array, ""] | float, mean_x: Float[Array, ""] | float
) -> Float[Array, ""]:
    """The sum of exponents a - c + <x> of x' = -y - z, y' = x + a y, z' = b + z (x - c), given the time mean of x."""
    a, c, mean = floats(a, c, mean_x)
    return a - c + mean


def gradient_descent_exponents(
    curvatures: Float[Array, "dim"], learning_rate: Float[Array, ""] | float
) -> Float[Array, "dim"]:
    """The exponents log abs(1 - eta h_i) of gradient descent at a minimum with Hessian eigenvalues h_i, descending."""
    check_positive(learning_rate, "learning_rate")
    h, eta = floats(curvatures, learning_rate)
    return descending(jnp.log(jnp.abs(1 - eta * h)))
