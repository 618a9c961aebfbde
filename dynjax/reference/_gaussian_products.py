"""Products of independent Gaussian matrices."""

import math
from typing import Any

import jax.numpy as jnp
from jax.scipy.special import digamma, polygamma
from jaxtyping import Array, Float

from .._core import check_positive
from ._arrays import EULER_GAMMA, check_count, check_vector, descending, floats
from ._quadrature import tanh_sinh


def gaussian_product_exponents(dimension: int, variance: Float[Array, ""] | float = 1.0) -> Float[Array, "dimension"]:
    r"""The Lyapunov spectrum of products of real Gaussian matrices (Newman).

    lambda_i = (1/2) (log s^2 + log 2 + psi((N - i + 1) / 2)), i = 1..N, for N x N matrices with independent N(0, s^2)
    entries: the i-th diagonal entry of R in a QR step is s times a chi variable with N - i + 1 degrees of freedom.

    Args:
        dimension: N.
        variance: s^2.

    Returns:
        The exponents per factor, descending.

    Example:
        ```python
        gaussian_product_exponents(3)   # .364818577269261  .0579657578292062  -.635181422730739
        ```

    References:
        Newman 1986, The distribution of Lyapunov exponents: exact results for random matrices, Commun. Math. Phys. 103.
    """
    check_count(dimension, "dimension")
    check_positive(variance, "variance")
    (s2,) = floats(variance)
    return (jnp.log(s2) + math.log(2) + digamma(_degrees(dimension, s2.dtype) / 2)) / 2


def gaussian_product_variances(dimension: int) -> Float[Array, "dimension"]:
    r"""psi'((N - i + 1) / 2) / 4: the variance of sqrt(n) (estimate - lambda_i) for n real Gaussian factors.

    The growth of the i-th direction of a QR frame is independent from step to step, so this holds for every n and not
    only in the limit. It tests error bars: the standard error of n steps is the square root of it over n.
    """
    check_count(dimension, "dimension")
    return polygamma(1, _degrees(dimension, jnp.result_type(float)) / 2) / 4


def ginibre_product_exponents(dimension: int, variance: Float[Array, ""] | float = 1.0) -> Float[Array, "dimension"]:
    """(log s^2 + psi(N - i + 1)) / 2 for products of complex Gaussian matrices with E abs(x)^2 = s^2, descending.

    References:
        Forrester 2013, Lyapunov exponents for products of complex Gaussian random matrices, J. Stat. Phys. 151.
    """
    check_count(dimension, "dimension")
    check_positive(variance, "variance")
    (s2,) = floats(variance)
    return (jnp.log(s2) + digamma(_degrees(dimension, s2.dtype))) / 2


def ginibre_product_variances(dimension: int) -> Float[Array, "dimension"]:
    """psi'(N - i + 1) / 4, as `gaussian_product_variances`, for complex Gaussian factors."""
    check_count(dimension, "dimension")
    return polygamma(1, _degrees(dimension, jnp.result_type(float))) / 4


def gaussian_triangular_exponents(scales: Float[Array, "dim"]) -> Float[Array, "dim"]:
    """E log abs(diagonal entry), sorted, for products of random triangular matrices with N(0, s_i^2) on the diagonal.

    That is log s_i - (gamma + log 2) / 2, whatever the entries off the diagonal (with a finite E log+).
    """
    check_vector(scales, "scales")
    check_positive(scales, "scales")
    (s,) = floats(scales)
    return descending(jnp.log(s) - (EULER_GAMMA + math.log(2)) / 2)


def gaussian_residual_exponent(dimension: int, scale: Float[Array, ""] | float) -> Float[Array, ""]:
    r"""The top exponent of products of I + s X, X real Gaussian N x N: random linear residual layers.

    abs((I + s X) v)^2 = s^2 times a noncentral chi-square variable with N degrees of freedom and noncentrality 1/s^2, so

        lambda_1 = (1/2) (log(2 s^2) + sum_k Poisson(k; mu) psi(N/2 + k)),   mu = 1 / (2 s^2).

    The sum is psi(N/2) + int_0^1 t^(N/2 - 1) (1 - exp(-mu (1 - t))) / (1 - t) dt, which is computed instead.

    Args:
        dimension: N.
        scale: s, the standard deviation of the entries (1/c in the literature's I + X/c).

    Returns:
        lambda_1 per factor.

    Example:
        ```python
        gaussian_residual_exponent(3, 0.5)   # 0.147198717796647
        ```

    References:
        Forrester, Zhang 2018, Lyapunov exponents for some isotropic random matrix ensembles (arXiv:1805.05529).
    """
    check_count(dimension, "dimension")
    check_positive(scale, "scale")
    (s,) = floats(scale)
    mu = 1 / (2 * s * s)
    _, rest, log_t, _, weights = tanh_sinh(s.dtype, 1 / 32 / max(1, math.sqrt(dimension / 100)))
    integrand = jnp.exp((dimension / 2 - 1) * log_t) * -jnp.expm1(-mu * rest) / rest
    mean_psi = digamma(jnp.asarray(dimension / 2, s.dtype)) + jnp.sum(weights * integrand)
    return (math.log(2) + 2 * jnp.log(s) + mean_psi) / 2


def _degrees(dimension: int, dtype: Any) -> Float[Array, "dimension"]:
    return jnp.arange(dimension, 0, -1).astype(dtype)
