"""Random networks of infinite width: the variance of preactivations, and how fast perturbations grow with depth."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .._core import check_positive, check_that, found
from ._arrays import check_non_negative, floats
from ._quadrature import normal_mean
from ._root import find_root

_OCTAVES = 40
_TINY = 1e-12
_ZERO = 1e-30  # variances below are what bisection and rounding leave of 0
_Activation = Callable[[Any], Any]


def wide_network_variance(
    weight_variance: Float[Array, ""] | float,
    bias_variance: Float[Array, ""] | float,
    *,
    activation: _Activation = jnp.tanh,
) -> Float[Array, ""]:
    r"""The fixed point q* = sigma_w^2 E phi(sqrt(q*) z)^2 + sigma_b^2, z ~ N(0, 1): the variance of deep preactivations.

    The expectation is a trapezoidal sum, with an error of about exp(-570 / sqrt(q)) for tanh; the root is found by bisection and
    differentiated implicitly. For tanh the fixed point is unique but for q = 0 at sigma_b = 0, sigma_w > 1, where the
    positive one is returned.

    Args:
        weight_variance: sigma_w^2; weights have variance sigma_w^2 / width.
        bias_variance: sigma_b^2.
        activation: phi, from one number to one number, analytic near the real line and of slower than linear growth, or
            of linear growth with sigma_w^2 small enough for a fixed point. It must be hashable and not close over traced values.

    Returns:
        q*; NaN if there is none below 2^40 (1 + sigma_b^2).

    References:
        Poole, Lahiri, Raghu, Sohl-Dickstein, Ganguli 2016, Exponential expressivity in deep neural networks through
        transient chaos (arXiv:1606.05340).
    """
    return _fixed_point(activation, *_arguments(weight_variance, bias_variance, activation))


@functools.partial(jax.jit, static_argnums=0)
def _fixed_point(activation: _Activation, sw2: Array, sb2: Array) -> Float[Array, ""]:
    power, _ = _moments(activation)

    def excess(q: Array, sw2: Array, sb2: Array) -> Array:
        return q - sw2 * normal_mean(power, q) - sb2

    return _root_above(excess, jnp.zeros_like(sw2), sw2, sb2)


def wide_network_susceptibility(
    weight_variance: Float[Array, ""] | float,
    bias_variance: Float[Array, ""] | float,
    *,
    activation: _Activation = jnp.tanh,
) -> Float[Array, ""]:
    r"""chi_1 = sigma_w^2 E phi'(sqrt(q*) z)^2: growth of squared perturbations per layer; chaotic above 1.

    References:
        Schoenholz, Gilmer, Ganguli, Sohl-Dickstein 2017, Deep information propagation (arXiv:1611.01232).
    """
    return _susceptibility(activation, *_arguments(weight_variance, bias_variance, activation))


@functools.partial(jax.jit, static_argnums=0)
def _susceptibility(activation: _Activation, sw2: Array, sb2: Array) -> Float[Array, ""]:
    _, slope = _moments(activation)
    return sw2 * normal_mean(slope, _fixed_point(activation, sw2, sb2))


def wide_network_exponent(
    weight_variance: Float[Array, ""] | float,
    bias_variance: Float[Array, ""] | float,
    *,
    activation: _Activation = jnp.tanh,
) -> Float[Array, ""]:
    """(1/2) log chi_1, the top exponent per layer at infinite width; finite widths differ by order 1/width.

    Example:
        ```python
        wide_network_exponent(3.0, 0.05)   # 0.0948697
        ```
    """
    return jnp.log(wide_network_susceptibility(weight_variance, bias_variance, activation=activation)) / 2


def critical_weight_variance(
    bias_variance: Float[Array, ""] | float, *, activation: _Activation = jnp.tanh
) -> Float[Array, ""]:
    r"""The sigma_w^2 with chi_1 = 1 (the edge of chaos) for a bias variance.

    With sigma_w^2 = 1 / E phi'^2 the fixed point equation leaves one for q alone, q = E phi^2 / E phi'^2 + sigma_b^2.
    For tanh and small sigma_b its root is ill-conditioned, q of order sigma_b^(2/3): the error of the result is about
    eps / q^2, and its derivative tends to infinity at sigma_b = 0, where the value is 1 / phi'(0)^2.

    Args:
        bias_variance: sigma_b^2.
        activation: phi, as in `wide_network_variance`; kinks at 0 do no harm.

    Returns:
        sigma_w^2; NaN if there is none, as for ReLU with biases.

    Example:
        ```python
        critical_weight_variance(0.05)   # 1.7609546396
        ```
    """
    return _critical(activation, _arguments(1.0, bias_variance, activation)[1])


@functools.partial(jax.jit, static_argnums=0)
def _critical(activation: _Activation, sb2: Array) -> Float[Array, ""]:
    power, slope = _moments(activation)

    def excess(q: Array, sb2: Array) -> Array:
        return q - normal_mean(power, q) / normal_mean(slope, q) - sb2

    none = sb2 == 0
    q = _root_above(excess, sb2, jnp.where(none, 1, sb2))
    # Not at 0 itself, where a kink may sit: the limit from both sides.
    tiny = jnp.asarray(_TINY, sb2.dtype)
    return 1 / jnp.where(none, (slope(tiny) + slope(-tiny)) / 2, normal_mean(slope, q))


def _arguments(weight_variance: Any, bias_variance: Any, activation: Any) -> tuple[Array, Array]:
    check_that(callable(activation), "activation", "be a function of one number", found(activation), TypeError)
    check_positive(weight_variance, "weight_variance")
    check_non_negative(bias_variance, "bias_variance")
    sw2, sb2 = floats(weight_variance, bias_variance)
    return sw2, sb2


def _moments(activation: _Activation) -> tuple[_Activation, _Activation]:
    """phi^2 and phi'^2."""
    slope = jax.grad(activation)
    return (lambda z: activation(z) ** 2), (lambda z: slope(z) ** 2)


def _root_above(excess: Any, low: Float[Array, ""], *args: Any) -> Float[Array, ""]:
    """The root above `low` of a function that is negative below it; the end of the bracket is a power of two away."""
    fixed = lax.stop_gradient(args)
    ends = lax.stop_gradient(low) + (1 + lax.stop_gradient(low)) * 2.0 ** jnp.arange(_OCTAVES + 1).astype(low.dtype)
    positive = jax.vmap(lambda q: excess(q, *fixed) > 0)(ends)
    root = find_root(excess, low, ends[jnp.argmax(positive)], *args)
    root = root - lax.stop_gradient(jnp.where(root < _ZERO, root, 0))  # with its derivatives
    return jnp.where(jnp.any(positive), root, jnp.nan)
