"""Stochastic gradient descent on isotropic Gaussian inputs, one sample per step, at interpolation."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import betaln, digamma, gammaln
from jaxtyping import Array, Float

from .._core import check_positive, check_that
from ._arrays import check_count, default_float, floats
from ._quadrature import tanh_sinh
from ._root import bisect

_TAIL = 45.0  # the quadrature ends where chi-square tails are below exp(-45)


def isotropic_sgd_exponents(
    dimension: int,
    learning_rate: Float[Array, ""] | float,
    *,
    variance: Float[Array, ""] | float = 1.0,
    num_exponents: int | None = None,
) -> Float[Array, "num_exponents"]:
    r"""The Lyapunov spectrum of products of I - eta x x^T with x ~ N(0, s^2 I) in d dimensions.

    This is SGD with batch size 1 for linear regression at interpolation, with fresh isotropic samples. The factors' law is
    invariant under rotations, so that the mean growth of k-dimensional volumes does not depend on the volume: with
    R^2 = abs(x)^2 and S_k its part in a fixed k-dimensional subspace,

        lambda_1 + ... + lambda_k = (1/2) E log(1 - eta (2 - eta R^2) S_k).

    S_k / R^2 is Beta(k/2, (d - k)/2) and independent of R^2 ~ s^2 chi-square(d). Derived here. Both integrals are taken by
    double exponential quadrature, the outer one cut at R^2 = 1/eta, where factors are singular; absolute errors are about 1e-14
    in float64. Cost: some 1e5 logarithms for each exponent.

    Args:
        dimension: d.
        learning_rate: eta > 0.
        variance: s^2 > 0.
        num_exponents: how many, from the top; all by default.

    Returns:
        The exponents per step, descending.

    Example:
        ```python
        isotropic_sgd_exponents(4, 0.3)   # -0.0827386 -0.1285424 -0.2155611 -0.4943286
        ```
    """
    check_count(dimension, "dimension")
    count = dimension if num_exponents is None else num_exponents
    check_count(count, "num_exponents")
    check_that(count <= dimension, "num_exponents", f"be at most the dimension {dimension}", f"found {count}")
    check_positive(learning_rate, "learning_rate")
    check_positive(variance, "variance")
    eta, s2 = floats(learning_rate, variance)
    return _exponents(dimension, count, eta * s2)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _exponents(dimension: int, count: int, eta: Float[Array, ""]) -> Float[Array, "count"]:
    shells = _Shells(dimension, eta)
    parts = jnp.arange(1, min(count, dimension - 1) + 1).astype(eta.dtype)
    sums = lax.map(shells.mean_log_volume, parts)
    if count == dimension:
        sums = jnp.append(sums, shells.mean_log_determinant())
    return jnp.diff(sums, prepend=jnp.zeros(1, sums.dtype))


class _Shells:
    """Quadrature over R^2 ~ chi-square(d), with e = 1 - eta R^2 known to its last digit near 0."""

    def __init__(self, dimension: int, eta: Float[Array, ""]):
        spread = 2 * math.sqrt(dimension * _TAIL)
        low, high = max(dimension - spread, 0.0), dimension + spread + 2 * _TAIL
        cut = jnp.clip(1 / eta, low, high)
        rule = tanh_sinh(eta.dtype)
        below, above = cut - low, high - cut
        at_cut = jnp.where((cut > low) & (cut < high), 0, 1 - eta * cut)
        r = jnp.concatenate([low + below * rule.t, cut + above * rule.t])
        log_density = (
            (dimension / 2 - 1) * jnp.log(r)
            - r / 2
            - (dimension / 2 * math.log(2) + gammaln(jnp.asarray(dimension / 2, eta.dtype)))
        )
        self.dimension = dimension
        self.growth = eta * r
        self.error = jnp.concatenate([at_cut + eta * below * rule.one_minus_t, at_cut - eta * above * rule.t])
        self.weights = jnp.exp(log_density) * jnp.concatenate([below * rule.weights, above * rule.weights])

    def mean_log_determinant(self) -> Float[Array, ""]:
        """E log abs(1 - eta R^2)."""
        return jnp.sum(self.weights * log_one_minus(self.growth, jnp.abs(self.error)))

    def mean_log_volume(self, k: Float[Array, ""]) -> Float[Array, ""]:
        """E log(1 - c B) / 2 with c = eta R^2 (2 - eta R^2), so that 1 - c B = (1 - B) + B e^2; B ~ Beta(k/2, (d - k)/2)."""
        step = 1 / 32 / max(1.0, math.sqrt(self.dimension / 400))
        rule = tanh_sinh(k.dtype, step)
        a, b = k / 2, (self.dimension - k) / 2
        density = jnp.exp((a - 1) * rule.log_t + (b - 1) * rule.log_one_minus_t - betaln(a, b))
        growth, error = self.growth[:, None], self.error[:, None]
        values = log_one_minus(growth * (2 - growth) * rule.t, rule.one_minus_t + rule.t * error**2)
        return jnp.sum(self.weights * jnp.sum(values * (density * rule.weights), axis=1)) / 2


def log_one_minus(x: Array, one_minus_x: Array) -> Array:
    """log(1 - x) for x < 1 or abs(1 - x) for any, given both to full relative accuracy."""
    small = jnp.abs(x) < 0.5
    return jnp.where(small, jnp.log1p(-jnp.where(small, x, 0)), jnp.log(jnp.where(small, 1, one_minus_x)))


def isotropic_sgd_critical_learning_rate(
    dimension: int, *, variance: Float[Array, ""] | float = 1.0
) -> Float[Array, ""]:
    """The learning rate at which the top exponent of `isotropic_sgd_exponents` turns positive.

    It lies between the mean-square threshold 2 / ((d + 2) s^2) and 4 / (d s^2), and is found by bisection on the
    quadrature. Gradient descent on the same loss has 2 / s^2. Derived here.

    Example:
        ```python
        isotropic_sgd_critical_learning_rate(1)   # 2.42124952103683604
        ```
    """
    check_count(dimension, "dimension")
    check_positive(variance, "variance")
    (s2,) = floats(variance)
    return _unit_threshold(dimension, s2.dtype) / s2


def isotropic_sgd_mean_square_learning_rate(
    dimension: int, *, variance: Float[Array, ""] | float = 1.0
) -> Float[Array, ""]:
    """2 / ((d + 2) s^2): below it E abs(w)^2 decays, as (1 - 2 eta s^2 + (d + 2) (eta s^2)^2)^n. Derived here."""
    check_count(dimension, "dimension")
    check_positive(variance, "variance")
    return 2 / ((dimension + 2) * floats(variance)[0])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _unit_threshold(dimension: int, dtype: Any) -> Float[Array, ""]:
    low, high = (jnp.asarray(x / (dimension + 2 * (x == 2)), dtype) for x in (2.0, 4.0))

    def unstable(eta: Array) -> Array:
        return _exponents(dimension, 1, eta)[0] > 0

    return bisect(unstable, low, high)


def kaczmarz_exponents(dimension: int) -> Float[Array, "dimension"]:
    r"""The Lyapunov spectrum of products of projections I - u u^T, u uniform on the unit sphere in d dimensions.

    lambda_k = (psi((d - k)/2) - psi((d - k + 1)/2)) / 2 for k < d and lambda_d = -inf: randomised Kaczmarz for isotropic
    rows, and SGD with eta abs(x)^2 = 1. It is the case c = 1 of `isotropic_sgd_exponents`, where 1 - S_k / R^2 is a Beta
    variable. Derived here.

    Args:
        dimension: d.

    Returns:
        The exponents per step, descending.

    Example:
        ```python
        kaczmarz_exponents(3)   # -.306852819440055  -.693147180559945  -inf
        ```
    """
    check_count(dimension, "dimension")
    degrees = default_float(np.arange(dimension - 1, 0, -1))
    finite = (digamma(degrees / 2) - digamma((degrees + 1) / 2)) / 2
    return jnp.append(finite, -jnp.inf)
