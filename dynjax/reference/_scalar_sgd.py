"""Stochastic gradient descent in one dimension: w' = (1 - eta h_i) w with a random curvature from a list."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from .._core import check_positive, check_that
from ._arrays import check_non_negative, check_vector, floats
from ._isotropic_sgd import isotropic_sgd_critical_learning_rate, isotropic_sgd_exponents, log_one_minus
from ._root import bisect, newton


class ScalarSGDThresholds(eqx.Module):
    """Where scalar SGD loses stability, in three senses.

    Attributes:
        almost_sure: first learning rate at which the exponent turns positive: below it w converges to 0 almost surely.
        gradient_descent: 2 / E h, for the mean of the curvatures.
        mean_square: 2 E h / E h^2, above which E w^2 grows.
        crossings: all zeros of the exponent, ascending: an upward and a downward one for each gap between poles (NaN where
            the exponent stays negative there), and the last one.
    """

    almost_sure: Float[Array, ""]
    gradient_descent: Float[Array, ""]
    mean_square: Float[Array, ""]
    crossings: Float[Array, "crossings"]

    def __str__(self) -> str:
        return (
            f"thresholds: almost sure {self.almost_sure:.6g}, gradient descent {self.gradient_descent:.6g}, "
            f"mean square {self.mean_square:.6g}"
        )


def scalar_sgd_exponent(
    learning_rate: Float[Array, ""] | float,
    curvatures: Float[Array, "samples"],
    weights: Float[Array, "samples"] | None = None,
) -> Float[Array, ""]:
    r"""E log abs(1 - eta h) for independent curvatures h from a list.

    For f(x) = a b x at a minimum ab = 1 and batch size 1 the curvatures are x_i^2 (a^2 + b^2), so that with `curvatures`
    x_i^2 the learning rate stands for eta (a^2 + b^2).

    Args:
        learning_rate: eta.
        curvatures: h_i.
        weights: their probabilities, equal ones by default; normalised.

    Returns:
        The exponent per step; -inf where eta h_i = 1 for an h_i of positive weight.
    """
    eta, h, p = _problem(learning_rate, curvatures, weights)
    return _mean_log(eta, h, p)


def scalar_sgd_moment_function(
    p: Float[Array, ""] | float,
    learning_rate: Float[Array, ""] | float,
    curvatures: Float[Array, "samples"],
    weights: Float[Array, "samples"] | None = None,
) -> Float[Array, ""]:
    """L(p) = log E abs(1 - eta h)^p: convex, L(0) = 0, L'(0) the exponent, L(2) < 0 mean-square stability."""
    order, eta, h, w = floats(p, *_problem(learning_rate, curvatures, weights))
    return _log_moment(order, eta, h, w)


def scalar_sgd_tail_index(
    learning_rate: Float[Array, ""] | float,
    curvatures: Float[Array, "samples"],
    weights: Float[Array, "samples"] | None = None,
) -> Float[Array, ""]:
    """The p* > 0 with L(p*) = 0: with additive noise, the stationary law of w has tails abs(w)^(-p*).

    Returns:
        p*; 0 where the exponent is not negative, `inf` where no factor is above 1 in modulus (all moments decay).

    References:
        Kesten 1973, Random difference equations and renewal theory for products of random matrices, Acta Math. 131.
    """
    return _tail_index(*_problem(learning_rate, curvatures, weights))


@jax.jit
def _tail_index(eta: Array, h: Array, w: Array) -> Float[Array, ""]:
    heavy = jnp.any((jnp.abs(1 - eta * h) > 1) & (w > 0))
    unstable = _mean_log(eta, h, w) >= 0
    exists = heavy & ~unstable
    fixed = lax.stop_gradient((eta, h, w))
    # L is convex: beyond p* it stays positive. Powers of two find the octave, from above, as L is rounding near 0.
    octaves = 2.0 ** jnp.arange(-40, 41).astype(eta.dtype)
    below = jax.vmap(lambda p: _log_moment(p, *fixed) <= 0)(octaves)
    high = 2 * jnp.max(jnp.where(below, octaves, octaves[0]))
    start = bisect(lambda p: _log_moment(p, *fixed) > 0, high / 2, high)
    safe = (jnp.where(exists, start, 1), eta, h, w)
    p = newton(_log_moment, *safe)
    p = newton(_log_moment, p, eta, h, w)
    return jnp.where(exists, p, jnp.where(unstable, 0.0, jnp.inf))


def scalar_sgd_thresholds(
    curvatures: Float[Array, "samples"], weights: Float[Array, "samples"] | None = None
) -> ScalarSGDThresholds:
    r"""The learning rates at which w' = (1 - eta h_i) w loses stability almost surely, in the mean and in mean square.

    Between two poles 1/h_i the exponent E log abs(1 - eta h) is concave, so that it has two zeros there or none; before the
    first pole it is negative, after the last it increases through its last zero. All zeros are found from this by
    bisection, hence the set of stable learning rates, which need not be an interval. (Zeros closer to a pole than rounding
    may be lost or reported at the pole.)

    Args:
        curvatures: h_i > 0.
        weights: their probabilities, equal ones by default; normalised, all positive.

    Returns:
        `ScalarSGDThresholds`, differentiable with respect to both arguments.

    Example:
        ```python
        scalar_sgd_thresholds(jnp.array([1.0, 3.0]))    # almost sure 4/3, gradient descent 1, mean square 4/5
        scalar_sgd_thresholds(jnp.array([1.0, 10.0])).crossings   # .229844 .870156 1.1
        ```
    """
    check_positive(curvatures, "curvatures")
    if weights is not None:
        check_positive(weights, "weights")
    _, h, p = _problem(1.0, curvatures, weights)
    zeros, upward = _zeros(h, p)
    return ScalarSGDThresholds(
        almost_sure=zeros[jnp.argmax(upward)],
        gradient_descent=2 / jnp.sum(p * h),
        mean_square=2 * jnp.sum(p * h) / jnp.sum(p * h * h),
        crossings=zeros,
    )


@jax.jit
def _zeros(h: Array, p: Array) -> tuple[Array, Array]:
    """All zeros of the exponent, NaN where there are none, and which of them cross upwards."""
    order = jnp.argsort(h, descending=True)
    h, p = h[order], p[order]
    fixed = lax.stop_gradient((h, p))
    poles = 1 / fixed[0]
    pairs, exist = jax.vmap(lambda low, high: _zeros_between(low, high, *fixed))(poles[:-1], poles[1:])
    last = _last_zero(*fixed)
    zeros, exist = jnp.append(pairs.ravel(), last), jnp.append(exist.ravel(), True)
    zeros = jnp.where(exist, jax.vmap(lambda x: _polish(x, h, p))(jnp.where(exist, zeros, last)), jnp.nan)
    return zeros, exist.at[1::2].set(False)


def gaussian_sgd_exponent(
    learning_rate: Float[Array, ""] | float, *, variance: Float[Array, ""] | float = 1.0
) -> Float[Array, ""]:
    r"""E log abs(1 - eta x^2) for x ~ N(0, s^2): scalar linear regression with Gaussian inputs and batch size 1.

    In closed form log(eta s^2) - gamma - log 2 + (1 / (eta s^2)) 2F2(1, 1; 3/2, 2; -1 / (2 eta s^2)). It is negative for
    eta s^2 < 2.42124952103683604 (`gaussian_sgd_critical_learning_rate`); gradient descent is stable below 2, mean squares
    below 2/3. Derived here; evaluated by quadrature as the case d = 1 of `isotropic_sgd_exponents`.
    """
    return isotropic_sgd_exponents(1, learning_rate, variance=variance)[0]


def gaussian_sgd_critical_learning_rate(*, variance: Float[Array, ""] | float = 1.0) -> Float[Array, ""]:
    """2.42124952103683604 / s^2: where `gaussian_sgd_exponent` turns positive."""
    return isotropic_sgd_critical_learning_rate(1, variance=variance)


def _problem(learning_rate: Array | float, curvatures: Array, weights: Array | None) -> tuple[Array, Array, Array]:
    check_vector(curvatures, "curvatures")
    check_non_negative(curvatures, "curvatures")
    if weights is None:
        weights = jnp.ones_like(floats(curvatures)[0])
    check_non_negative(weights, "weights")
    same = jnp.shape(weights) == jnp.shape(curvatures)
    check_that(
        same, "weights", f"have the shape {jnp.shape(curvatures)} of `curvatures`", f"found {jnp.shape(weights)}"
    )
    eta, h, p = floats(learning_rate, curvatures, weights)
    return eta, h, p / jnp.sum(p)


def _mean_log(eta: Array, h: Array, p: Array) -> Array:
    log = log_one_minus(eta * h, jnp.abs(1 - eta * h))
    return jnp.sum(jnp.where(p > 0, p * log, 0))


def _log_moment(order: Array, eta: Array, h: Array, p: Array) -> Array:
    factor = jnp.abs(1 - eta * h)
    singular = factor == 0
    log = jnp.log(jnp.where(singular, 1, factor))
    return logsumexp(jnp.where(singular & (order > 0), -jnp.inf, order * log), b=p)


def _slope(eta: Array, h: Array, p: Array) -> Array:
    return jnp.sum(p * h / (eta * h - 1))


def _zeros_between(low: Array, high: Array, h: Array, p: Array) -> tuple[Float[Array, "2"], Array]:
    """The zeros between two poles, and whether they exist (twice)."""
    top = bisect(lambda x: _slope(x, h, p) < 0, low, high)
    positive = (low < top) & (top < high) & (_mean_log(top, h, p) > 0)
    up = bisect(lambda x: _mean_log(x, h, p) > 0, low, top)
    down = bisect(lambda x: _mean_log(x, h, p) <= 0, top, high)
    return jnp.stack([up, down]), jnp.stack([positive, positive])


def _last_zero(h: Array, p: Array) -> Float[Array, ""]:
    """The zero beyond the last pole: there every abs(1 - eta h) is 1 at most at eta = 2/h, and more beyond."""
    return bisect(lambda x: _mean_log(x, h, p) > 0, 1 / jnp.min(h), 2 / jnp.min(h))


def _polish(x: Array, h: Array, p: Array) -> Array:
    return newton(_mean_log, newton(_mean_log, x, h, p), h, p)
