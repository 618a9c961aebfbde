"""Interacting particles and wide two-layer networks: variances, phase transitions, learning curves, distances."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import check_positive
from ._arrays import check_count, check_non_negative, default_float, floats

_Number = Float[Array, ""] | float


def mean_field_ou_variance(
    stiffness: _Number, attraction: _Number, noise: _Number, num_particles: int | None = None
) -> Float[Array, "..."]:
    """Stationary variance D / (a N) + (1 - 1/N) D / (a + k) of a particle of the mean-field Ornstein-Uhlenbeck system.

    dX_i = -a X_i dt - k (X_i - mean X) dt + sqrt(2 D) dW_i. The gap to the limit D / (a + k) is exactly proportional to 1/N.

    Args:
        stiffness: a > 0.
        attraction: k > -a.
        noise: D > 0.
        num_particles: N; None for the limit.
    """
    check_positive(stiffness, "stiffness")
    check_positive(noise, "noise")
    stiffness, attraction, noise = floats(stiffness, attraction, noise)
    limit = noise / (stiffness + attraction)
    if num_particles is None:
        return limit
    check_count(num_particles, "num_particles")
    return noise / (stiffness * num_particles) + (1 - 1 / num_particles) * limit


def double_well_critical_noise() -> Float[Array, ""]:
    """The noise D = (2 Gamma(3/4) / Gamma(1/4))^2 = 0.4569466 below which dX = -(X^3 - X) - (X - E X) + sqrt(2 D) dW magnetises.

    With attraction 1 the effective potential at E X = 0 is x^4 / 4, and the condition is E X^2 = D.

    References:
        Dawson 1983, Critical dynamics and fluctuations for a mean-field model of cooperative behavior, J. Stat. Phys. 31.
    """
    return default_float((2 * math.gamma(0.75) / math.gamma(0.25)) ** 2)


def quadratic_network_overlap(time: _Number, initial: _Number, target: _Number) -> Float[Array, "..."]:
    r"""M(t) = m* / (1 + (m* / m0 - 1) exp(-24 m* t)): gradient flow of the risk of a quadratic network with scalar weights.

    f(x) = x^2 mean theta^2 against m* x^2 for x ~ N(0, 1); m = mean theta^2, m' = -24 m (m - m*), at every finite width.
    Derived here.

    Args:
        time: t >= 0, in the units of theta' = -N grad risk.
        initial: m0 > 0.
        target: m* > 0.
    """
    check_non_negative(time, "time")
    check_positive(initial, "initial")
    check_positive(target, "target")
    time, initial, target = floats(time, initial, target)
    return target / (1 + (target / initial - 1) * jnp.exp(-24 * target * time))


def uniform_sample_wasserstein() -> Float[Array, ""]:
    """Sqrt(pi / 32) = 0.3133285: the limit of sqrt(N) E W1 between N independent uniform points of [0, 1] and their law.

    The mean of the integral of |Brownian bridge|, sqrt(2 / pi) int sqrt(x (1 - x)) dx.
    """
    return default_float(math.sqrt(math.pi / 32))


def flow_matching_floor(scale: _Number) -> Float[Array, "..."]:
    r"""The smallest conditional flow-matching loss per dimension, pi s / 2, from N(0, 1) to N(m, s^2), independently coupled.

    For x_t = (1 - t) x_0 + t x_1 it is the mean over t of Var(x_1 - x_0 | x_t) = s^2 / ((1 - t)^2 + t^2 s^2). Derived here.
    A model that reports less has made an error.
    """
    check_positive(scale, "scale")
    (scale,) = floats(scale)
    return jnp.pi * scale / 2
