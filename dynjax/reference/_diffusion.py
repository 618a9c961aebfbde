"""Scalar linear stochastic differential equations: geometric Brownian motion and the white-noise oscillator."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from .._core import check_positive
from ._arrays import floats

_NODES = 801


def geometric_brownian_exponent(
    drift: Float[Array, ""] | float, volatility: Float[Array, ""] | float
) -> Float[Array, ""]:
    """The exponent a - s^2 / 2 of dx = a x dt + s x dW in the sense of Ito, per unit of time."""
    a, s = floats(drift, volatility)
    return a - s * s / 2


def geometric_brownian_moment_function(
    p: Float[Array, "..."] | float, drift: Float[Array, ""] | float, volatility: Float[Array, ""] | float
) -> Float[Array, "..."]:
    """L(p) = lim (1/t) log E abs(x_t)^p = p a + p (p - 1) s^2 / 2 for dx = a x dt + s x dW in the sense of Ito.

    Its slope at 0 is the exponent; its other zero, the tail index, is p* = 1 - 2a / s^2.
    """
    p, a, s = floats(p, drift, volatility)
    return p * a + p * (p - 1) * s * s / 2


def geometric_brownian_variance(volatility: Float[Array, ""] | float) -> Float[Array, ""]:
    """s^2: the estimate log(abs(x_T)) / T of the exponent is normal with this variance over T."""
    (s,) = floats(volatility)
    return s * s


def white_noise_oscillator_exponent(
    noise: Float[Array, ""] | float, stiffness: Float[Array, ""] | float = 0.0
) -> Float[Array, ""]:
    r"""The top exponent of x'' = (e + s xi(t)) x with white noise xi; the other is its negative.

    z = x'/x obeys dz = (e - z^2) dt + s dW and returns from +inf whenever it has run off to -inf. Its stationary density is an
    integral over Gaussians, which leaves

        lambda = (1/2) E v^2,   v with density proportional to exp(-(v^6 - 12 e v^2) / (6 s^2)) on the line

    (derived here; it agrees with the Airy functions of Halperin 1965). At the band edge e = 0 it is K s^(2/3) with
    K = 6^(1/3) sqrt(pi) / (2 Gamma(1/6)) = 0.28930825983423926. For e >> s^(4/3) it tends to sqrt(e), for
    -e >> s^(4/3) to s^2 / (8 abs(e)). The trapezoidal rule gives nearly all digits.

    Args:
        noise: s > 0, in units of time^(-3/2).
        stiffness: e, in units of time^(-2); negative for an oscillator that oscillates without noise.

    Returns:
        lambda, per unit of time.

    References:
        Halperin 1965, Green's functions for a particle in a one-dimensional random potential, Phys. Rev. 139, A104.
    """
    check_positive(noise, "noise")
    s, e = floats(noise, stiffness)
    scaled = e / s ** (4 / 3)
    exponent = lambda y: 2 * scaled * y**2 - y**6 / 6
    y = _nodes(lax.stop_gradient(scaled))
    heights = exponent(y)
    weights = jnp.exp(heights - lax.stop_gradient(jnp.max(heights)))
    return s ** (2 / 3) * jnp.sum(y**2 * weights) / jnp.sum(weights) / 2


def _nodes(scaled: Float[Array, ""]) -> Float[Array, "nodes"]:
    """Equidistant nodes under the density: around one of two separate peaks, or around both."""
    peak = (4 * jnp.maximum(scaled, 0)) ** 0.25
    width = jnp.minimum(3.0, jnp.where(scaled < 0, 6.0, 4.0) / jnp.sqrt(jnp.abs(scaled) + 0.1))
    high = peak + width
    low = jnp.where(peak > width, peak - width, -high)
    unit = jnp.asarray(np.linspace(0, 1, _NODES), scaled.dtype)
    return low + (high - low) * unit
