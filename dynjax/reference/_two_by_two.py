"""Products of random 2 x 2 matrices with known exponents."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import check_that
from ._arrays import check_non_negative, check_values, default_float, floats

_POINTS = 96


def isotropic_two_by_two_exponents(singular_values: Float[Array, "2"] | tuple[float, float]) -> Float[Array, "2"]:
    r"""(log((s1 + s2) / 2), log(2 s1 s2 / (s1 + s2))): 2 x 2 factors with fixed singular values and random rotations.

    The factors are U diag(s1, s2) V with U or V uniform on the circle of rotations: the mean of log of
    sqrt(s1^2 cos^2 + s2^2 sin^2) over the angle is log((s1 + s2) / 2), and the sum is log(s1 s2).

    Args:
        singular_values: (s1, s2), not negative, in any order; with s2 = 0 the second exponent is -inf.

    Returns:
        Both exponents per factor, descending.
    """
    (s,) = floats(singular_values)
    check_that(s.shape == (2,), "singular_values", "be two numbers", f"its shape is {s.shape}")
    check_non_negative(singular_values, "singular_values")
    mean = (s[0] + s[1]) / 2
    return jnp.log(jnp.stack([mean, s[0] * (s[1] / mean)]))


def random_fibonacci_exponent() -> Float[Array, ""]:
    """The exponent log 1.1319882487943 of x_{n+1} = +-x_n +- x_{n-1} with independent fair signs; known to these digits only.

    References:
        Viswanath 2000, Random Fibonacci sequences and the number 1.13198824..., Math. Comp. 69.
    """
    return default_float(math.log(1.1319882487943))


def lloyd_exponent(energy: Float[Array, ""] | float, disorder: Float[Array, ""] | float) -> Float[Array, ""]:
    r"""The top exponent of the Anderson model with Cauchy disorder (Lloyd), transfer matrices (E - V, -1; 1, 0).

    cosh(lambda) = (sqrt((2 + E)^2 + g^2) + sqrt((2 - E)^2 + g^2)) / 4, V Cauchy with half width g: the transfer matrices
    map the complex point E + i g as if there were no disorder. It is evaluated without cancellation, so that small
    exponents inside the band keep their digits.

    Args:
        energy: E.
        disorder: g, not negative.

    Returns:
        lambda per site, 0 inside the band abs(E) <= 2 for g = 0; the other exponent is -lambda.

    Example:
        ```python
        lloyd_exponent(0.0, 1.0)   # 0.481211825059603
        ```

    References:
        Thouless 1972, A relation between the density of states and range of localization for one dimensional random
        systems, J. Phys. C 5.
    """
    check_non_negative(disorder, "disorder")
    energy, g = floats(energy, disorder)
    x, y = jnp.abs(energy) / 2, g / 2
    inside = x < 1
    far = jnp.hypot(x + 1, y)
    # cosh(lambda) - 1 = (far + near)/2 - 1 with near = hypot(x - 1, y); in the band it is y^2 times this.
    within = jnp.where(inside, x, 0)
    share = (1 / (far + 1 + x) + 1 / (jnp.hypot(within - 1, y) + 1 - within)) / 2
    sinh_inside = y * jnp.sqrt(share * (2 + y * y * share))
    beyond = jnp.where(inside, 2, x)
    excess = (y * y / (far + 1 + x) + jnp.hypot(beyond - 1, y) + beyond - 1) / 2
    at_edge = excess == 0
    root = jnp.sqrt(jnp.where(at_edge, 1, excess * (2 + excess)))
    return jnp.arcsinh(jnp.where(inside, sinh_inside, jnp.where(at_edge, 0, root)))


def positive_product_exponent(
    matrices: Float[Array, "m 2 2"], probabilities: Float[Array, "m"] | None = None
) -> Float[Array, ""]:
    r"""The top exponent of products of independent 2 x 2 matrices drawn from a finite list, all entries positive.

    With x = v_1 / (v_1 + v_2) the matrices act on [0, 1] by contractions. lambda solves h - K h = phi - lambda, where
    (K h)(x) = sum_i p_i h(A_i x) and phi(x) = sum_i p_i log abs(A_i v)_1 / abs(v)_1, by collocation at 96 Chebyshev points: the
    error falls geometrically with their number, to rounding unless entries of a matrix differ by orders of magnitude.

    Args:
        matrices: the list.
        probabilities: their probabilities, equal ones by default; normalised.

    Returns:
        lambda per factor.

    Example:
        ```python
        positive_product_exponent(jnp.array([[[2.0, 1.0], [1.0, 1.0]], [[3.0, 1.0], [2.0, 1.0]]]))   # 1.14331103510295
        ```
    """
    shape = jnp.shape(matrices)
    check_that(
        len(shape) == 3 and shape[1:] == (2, 2) and shape[0] > 0, "matrices", "be (m, 2, 2)", f"its shape is {shape}"
    )
    check_values(matrices, "matrices", "have positive finite entries", lambda a: np.isfinite(a) & (a > 0))
    a, p = floats(matrices, jnp.ones(shape[0]) if probabilities is None else probabilities)
    return _collocation(a, p / jnp.sum(p))


@jax.jit
def _collocation(a: Float[Array, "m 2 2"], p: Float[Array, "m"]) -> Float[Array, ""]:
    angles = np.pi * np.arange(_POINTS) / (_POINTS - 1)
    nodes = jnp.asarray((1 - np.cos(angles)) / 2, a.dtype)
    directions = jnp.stack([nodes, 1 - nodes])
    images = jnp.einsum("mij,jn->min", a, directions, precision="highest")
    growth = jnp.sum(images, axis=1)  # (m, n)
    koopman = jnp.einsum("m,mnk->nk", p, _interpolation(nodes, images[:, 0] / growth), precision="highest")
    potential = p @ jnp.log(growth)
    # h is determined up to a constant: h = 0 at the first node frees a column for lambda.
    system = (jnp.eye(_POINTS, dtype=a.dtype) - koopman).at[:, 0].set(1)
    return jnp.linalg.solve(system, potential)[0]


def _interpolation(nodes: Float[Array, "n"], x: Float[Array, "m n"]) -> Float[Array, "m n n"]:
    """Values at x from values at Chebyshev points, by the barycentric formula."""
    weights = np.where(np.arange(_POINTS) % 2 == 0, 1.0, -1.0)
    weights[[0, -1]] /= 2
    gaps = x[..., None] - nodes
    hit = gaps == 0
    terms = jnp.asarray(weights, x.dtype) / jnp.where(hit, 1, gaps)
    rational = terms / jnp.sum(terms, axis=-1, keepdims=True)
    return jnp.where(jnp.any(hit, axis=-1, keepdims=True), hit.astype(x.dtype), rational)
