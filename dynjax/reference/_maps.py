"""Chaotic maps with known exponents. A map that has no parameter gives its exponents in JAX's default precision."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import check_positive, check_that
from ._arrays import check_count, check_values, default_float, descending, floats


def logistic_exponent(growth: Float[Array, ""] | float) -> Float[Array, ""]:
    r"""The exponent of x -> r x (1 - x) where it is known: fixed points, the 2-cycle, and full chaos.

    | r | exponent |
    |---|---|
    | 0 < r <= 1 | log r (fixed point 0) |
    | 1 < r <= 3 | log abs(2 - r) (fixed point 1 - 1/r) |
    | 3 < r <= 1 + sqrt(6) | (1/2) log abs(4 + 2r - r^2) (the 2-cycle; -inf at r = 1 + sqrt(5)) |
    | 4 | log 2 |

    Args:
        growth: r.

    Returns:
        The exponent per step, of almost every start in (0, 1); NaN for r outside the table.

    Example:
        ```python
        logistic_exponent(3.2)   # log(0.16) / 2 = -0.916290731874155
        ```
    """
    (r,) = floats(growth)
    cycle = jnp.where((r > 3) & (r <= 1 + 6**0.5), jnp.log(jnp.abs(4 + 2 * r - r * r)) / 2, jnp.nan)
    stable = jnp.where(r <= 1, jnp.log(r), jnp.log(jnp.abs(2 - r)))
    chaos = jnp.where(r == 4, math.log(2), cycle)
    return jnp.where(r <= 3, jnp.where(r > 0, stable, jnp.nan), chaos)


def tent_exponent(slope: Float[Array, ""] | float) -> Float[Array, ""]:
    """The exponent log(s) of x -> s min(x, 1 - x), 0 < s <= 2: the slope is s or -s everywhere.

    In binary floating point, orbits of the map with s = 2 reach 0 after some 50 steps: simulate a conjugate map instead.
    """
    check_positive(slope, "slope")
    return jnp.log(floats(slope)[0])


def beta_map_exponent(base: Float[Array, ""] | float) -> Float[Array, ""]:
    """The exponent log(beta) of x -> beta x mod 1, beta > 0; the doubling map has beta = 2.

    In binary floating point, orbits of the doubling map reach 0 after some 50 steps.
    """
    check_positive(base, "base")
    return jnp.log(floats(base)[0])


def chebyshev_exponent(degree: int) -> Float[Array, ""]:
    """The exponent log(n) of the Chebyshev polynomial T_n on [-1, 1], n >= 1: conjugate to an n-fold covering of the circle."""
    check_count(degree, "degree")
    return default_float(math.log(degree))


def gauss_map_exponent() -> Float[Array, ""]:
    """The exponent pi^2 / (6 log 2) = 2.3731382208312509 of the continued fraction map x -> 1/x mod 1."""
    return default_float(math.pi**2 / (6 * math.log(2)))


def cat_map_exponents() -> Float[Array, "2"]:
    """The exponents +-log((3 + sqrt 5) / 2) of the cat map (x, y) -> (2x + y, x + y) mod 1.

    Other automorphisms of a torus are in `linear_map_exponents`.
    """
    stretch = math.log((3 + math.sqrt(5)) / 2)
    return default_float([stretch, -stretch])


def baker_exponents(
    weight: Float[Array, ""] | float, contractions: Float[Array, "2"] | tuple[float, float]
) -> Float[Array, "2"]:
    r"""The exponents of the generalised baker's map.

    The unit square is cut at height p. The lower part is stretched vertically by 1/p and squeezed horizontally by a, the
    upper part by 1/(1 - p) and b. With respect to the area along the vertical direction,

        lambda_1 = -p log p - (1 - p) log(1 - p)   (also the entropy),   lambda_2 = p log a + (1 - p) log b.

    Args:
        weight: p in (0, 1).
        contractions: (a, b), positive, a + b <= 1 for an invertible map.

    Returns:
        (lambda_1, lambda_2) per step.

    References:
        Farmer, Ott, Yorke 1983, The dimension of chaotic attractors, Physica D 7.
    """
    check_values(weight, "weight", "lie between 0 and 1", lambda p: (p > 0) & (p < 1))
    check_positive(contractions, "contractions")
    p, factors = floats(weight, contractions)
    check_that(factors.shape == (2,), "contractions", "be two numbers", f"its shape is {factors.shape}")
    stretch = -p * jnp.log(p) - (1 - p) * jnp.log1p(-p)
    return jnp.stack([stretch, p * jnp.log(factors[0]) + (1 - p) * jnp.log(factors[1])])


def coupled_doubling_exponents(num_sites: int, coupling: Float[Array, ""] | float) -> Float[Array, "num_sites"]:
    r"""The exponents of a ring of doubling maps with diffusive coupling.

    For x_i' = (1 - eps) f(x_i) + (eps/2) (f(x_{i-1}) + f(x_{i+1})), f(x) = 2x mod 1, the tangent map is a circulant
    matrix with eigenvalues 2 (1 - eps + eps cos(2 pi k / N)); those of k and N - k are equal.

    Args:
        num_sites: N.
        coupling: eps.

    Returns:
        log abs of these eigenvalues, descending, per step; -inf where one is 0.
    """
    check_count(num_sites, "num_sites")
    (eps,) = floats(coupling)
    # By half angles: 1 - cos keeps its digits, and k and N - k give the same bits.
    k = jnp.minimum(jnp.arange(num_sites), num_sites - jnp.arange(num_sites)).astype(eps.dtype)
    return descending(jnp.log(jnp.abs(2 * (1 - 2 * eps * jnp.sin(jnp.pi * k / num_sites) ** 2))))


def henon_exponent_sum(contraction: Float[Array, ""] | float) -> Float[Array, ""]:
    """The sum log abs(b) of both exponents of (x, y) -> (1 - a x^2 + y, b x): its determinant is -b everywhere."""
    (b,) = floats(contraction)
    return jnp.log(jnp.abs(b))


def cubic_training_exponents() -> Float[Array, "2"]:
    r"""The exponents (log 3, 0) of gradient descent on (ab - 1)^2 / 2 with learning rate 2, from almost every start on a = b.

    There a -> 3a - 2a^3 = -sqrt(2) T_3(a / sqrt(2)), which is chaotic on [-sqrt(2), sqrt(2)] with exponent log 3. Across
    the diagonal the multiplier is 2a^2 - 1 = 1 + 2 cos(2 phi) with a = sqrt(2) cos(phi), phi uniform, and the mean of
    log abs(1 + e^{i u} + e^{2 i u}) over the circle is 0 (Jensen's formula). Derived here.
    """
    return default_float([math.log(3), 0.0])
