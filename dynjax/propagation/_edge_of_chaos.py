"""Signals in wide random networks: the edge of chaos, depth scales, and weights that start there."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from .._core import check_that, found, is_concrete
from ..networks._initializers import Initializer, lecun_normal, orthogonal
from ..reference import (
    critical_weight_variance,
    wide_network_susceptibility,
    wide_network_variance,
)
from ..reference._root import find_root

_REACH, _NODES = 8.0, 384
_CRITICAL = 1e-9  # |chi - 1| that counts as the edge itself, in double precision

_Activation = Callable[[Any], Any]


class CriticalScale(NamedTuple):
    """A point of the edge of chaos.

    Attributes:
        weight_variance: sigma_w^2; weights have the variance sigma_w^2 / fan_in.
        fixed_point: q*, the variance of preactivations in deep layers there; NaN where every q is a fixed point.
    """

    weight_variance: Float[Array, ""]
    fixed_point: Float[Array, ""]


def critical_weight_scale(
    activation: _Activation = jnp.tanh, *, bias_variance: Float[Array, ""] | float = 0.0
) -> CriticalScale:
    r"""The weight variance at which perturbations neither grow nor shrink with depth, and the variance of signals there.

    In a wide network with weights of variance sigma_w^2 / fan_in and biases of variance sigma_b^2 it is the pair with

        1 = sigma_w^2 E phi'(sqrt(q*) z)^2,    q* = sigma_w^2 E phi(sqrt(q*) z)^2 + sigma_b^2,    z ~ N(0, 1).

    The expectations are trapezoidal sums, exact to rounding for analytic activations; the root is differentiated implicitly. For
    activations that are positively homogeneous (ReLU, the identity) the edge is at sigma_b = 0 alone, and every q* is a fixed
    point there.

    Args:
        activation: phi, from one number to one number; hashable, analytic but for a kink at 0. Other kinks cost accuracy: about
            1e-4.
        bias_variance: sigma_b^2, not negative; may be traced.

    Returns:
        A `CriticalScale`.

    Raises:
        TypeError: if `activation` is not callable.
        ValueError: if `bias_variance` is negative, or there is no edge of chaos at it.

    Example:
        ```python
        dj.propagation.critical_weight_scale(jnp.tanh, bias_variance=0.05)     # 1.7609546396, 0.5700479
        dj.propagation.critical_weight_scale(jax.nn.relu)                      # 2.0: He initialisation
        ```

    References:
        Poole, Lahiri, Raghu, Sohl-Dickstein and Ganguli (2016), Exponential expressivity in deep neural networks through
        transient chaos; Schoenholz, Gilmer, Ganguli and Sohl-Dickstein (2017), Deep information propagation, section 3.
    """
    variance = critical_weight_variance(bias_variance, activation=activation)
    scale_free = _homogeneous(activation, variance.dtype)
    if scale_free:
        variance = jnp.where(jnp.asarray(bias_variance) > 0, jnp.nan, variance)
    if is_concrete(variance):
        there = bool(np.isfinite(variance))
        name = getattr(activation, "__name__", "this activation")
        must = f"leave {name} an edge of chaos"
        check_that(there, "bias_variance", must, f"at {bias_variance} there is none")
    point = wide_network_variance(variance, bias_variance, activation=activation)
    return CriticalScale(variance, jnp.full_like(point, jnp.nan) if scale_free else point)


def _homogeneous(activation: _Activation, dtype: Any) -> bool:
    """Whether phi(2 z) = 2 phi(z) on a few points."""
    with jax.ensure_compile_time_eval():
        z = jnp.asarray([-2.3, -1.1, -0.4, 0.3, 0.9, 1.7], dtype)
        values = np.asarray(jax.vmap(activation)(2 * z) - 2 * jax.vmap(activation)(z))
    return bool(np.max(np.abs(values)) < 100 * float(jnp.finfo(dtype).eps))


class MeanFieldPropagation(eqx.Module):
    """What an infinitely wide random network does to signals and perturbations, layer by layer.

    Attributes:
        variance: q*, the variance of preactivations.
        susceptibility: chi_1, the growth of squared perturbations and of squared gradients per layer.
        correlation: c*, the correlation that two inputs end with.
        correlation_slope: the factor by which the distance to c* shrinks per layer.
        variance_slope: the factor by which the distance to q* shrinks per layer.
    """

    variance: Float[Array, ""]
    susceptibility: Float[Array, ""]
    correlation: Float[Array, ""]
    correlation_slope: Float[Array, ""]
    variance_slope: Float[Array, ""]

    @property
    def exponent(self) -> Float[Array, ""]:
        """The Lyapunov exponent per layer, (1/2) log chi_1."""
        return jnp.log(self.susceptibility) / 2

    @property
    def correlation_depth(self) -> Float[Array, ""]:
        """The layers over which correlations of inputs are remembered, -1 / log |slope|; infinite at the edge of chaos."""
        return _depth(self.correlation_slope)

    @property
    def variance_depth(self) -> Float[Array, ""]:
        """The layers over which the size of inputs is remembered."""
        return _depth(self.variance_slope)

    @property
    def phase(self) -> str:
        """One of "ordered", "critical" and "chaotic"; "traced" inside a transformation."""
        if not is_concrete(self.susceptibility):
            return "traced"
        gap = float(self.susceptibility) - 1
        if abs(gap) <= max(_CRITICAL, 10 * float(jnp.finfo(self.susceptibility.dtype).eps)):
            return "critical"
        return "chaotic" if gap > 0 else "ordered"

    def __str__(self) -> str:
        return (
            f"MeanFieldPropagation({self.phase}, exponent {self.exponent:.5g} per layer, q* {self.variance:.5g}, "
            f"c* {self.correlation:.5g}, correlations last {self.correlation_depth:.3g} layers)"
        )


def _depth(slope: Float[Array, ""]) -> Float[Array, ""]:
    size = jnp.abs(slope)
    return jnp.where(
        size >= 1, jnp.inf, jnp.where(size == 0, 0, -1 / jnp.log(jnp.where((size > 0) & (size < 1), size, 0.5)))
    )


def mean_field_propagation(
    activation: _Activation, weight_variance: Float[Array, ""] | float, bias_variance: Float[Array, ""] | float = 0.0
) -> MeanFieldPropagation:
    r"""Fixed points, slopes and depth scales of a wide random network.

    Two inputs whose preactivations have the variance q* and the correlation c have in the next layer the correlation

        C(c) = (sigma_w^2 E phi(u) phi(v) + sigma_b^2) / q*,    C'(c) = sigma_w^2 E phi'(u) phi'(v),

    u and v normal with that correlation. C(1) = 1 and C'(1) = chi_1: below 1 (ordered) all inputs become alike, above 1
    (chaotic) they part until the correlation c* < 1. Gradients change by chi_1 per layer in the mean square.

    Args:
        activation: phi, as for `critical_weight_scale`.
        weight_variance: sigma_w^2, positive; may be traced.
        bias_variance: sigma_b^2, not negative; may be traced.

    Returns:
        A `MeanFieldPropagation`. Double sums over 384^2 nodes; the error is about 1e-10 for tanh up to q* = 10, 1e-5 for ReLU.

    Raises:
        TypeError: if `activation` is not callable.
        ValueError: if a variance is negative.

    References:
        Schoenholz, Gilmer, Ganguli and Sohl-Dickstein (2017), Deep information propagation, equations 2 to 10.
    """
    q = wide_network_variance(weight_variance, bias_variance, activation=activation)
    chi = wide_network_susceptibility(weight_variance, bias_variance, activation=activation)
    sw2, sb2 = (jnp.asarray(value, q.dtype) for value in (weight_variance, bias_variance))
    c, slope, variance_slope = _correlations(activation, q, chi, sw2, sb2)
    return MeanFieldPropagation(q, chi, c, slope, variance_slope)


@functools.partial(jax.jit, static_argnums=0)
def _correlations(activation: _Activation, q: Array, chi: Array, sw2: Array, sb2: Array) -> tuple[Array, Array, Array]:
    nodes = np.linspace(-_REACH, _REACH, _NODES)
    density = np.exp(-(nodes**2) / 2)
    z, weights = jnp.asarray(nodes, q.dtype), jnp.asarray(density / density.sum(), q.dtype)
    slope_of = jax.grad(activation)

    def mean(function: _Activation, c: Array, q: Array) -> Array:
        """E f(u) f(v); sums over the second number first, which smooths."""
        first = jax.vmap(function)(jnp.sqrt(q) * z)
        second = jnp.sqrt(q) * (c * z[:, None] + jnp.sqrt(1 - c**2) * z)
        inner = jnp.sum(weights * jax.vmap(jax.vmap(function))(second), 1)
        return jnp.sum(weights * first * inner)

    def excess(c: Array, q: Array, sw2: Array, sb2: Array) -> Array:
        return c - (sw2 * mean(activation, c, q) + sb2) / q

    # The root next to 1 itself is not looked for.
    near = 1 - jnp.asarray(float(jnp.finfo(q.dtype).eps) ** 0.375, q.dtype)
    safe = jnp.where(q > 0, q, 1)
    parts = (chi > 1) & (q > 0) & (excess(near, safe, sw2, sb2) > 0)
    root = find_root(excess, jnp.zeros_like(q), near, safe, sw2, sb2)
    c = jnp.where(parts, root, 1)
    slope = jnp.where(parts, sw2 * mean(slope_of, jnp.where(parts, c, 0), safe), chi)

    def power(q: Array) -> Array:
        return sw2 * jnp.sum(weights * jax.vmap(activation)(jnp.sqrt(q) * z) ** 2)

    return c, slope, jnp.where(q > 0, jax.grad(power)(safe), chi)


class CriticalInitializer(NamedTuple):
    """How weights and biases start at the edge of chaos: `initializer` and `bias_initializer` of `dj.MLP`."""

    initializer: Initializer
    bias_initializer: Initializer


def critical_initializer(
    activation: _Activation = jnp.tanh, *, bias_variance: float = 0.0, law: str = "gaussian"
) -> CriticalInitializer:
    r"""Initialisations that put a network of this activation at its edge of chaos.

    Weights have the variance sigma_w^2 / fan_in of `critical_weight_scale`, or are sigma_w times a matrix with orthonormal rows
    or columns, in which case the exponents of a deep network spread much less.

    Args:
        activation: phi.
        bias_variance: sigma_b^2.
        law: "gaussian" or "orthogonal".

    Returns:
        A `CriticalInitializer`.

    Raises:
        ValueError: if `law` is unknown or there is no edge of chaos.
        TypeError: if `activation` is not callable.

    Example:
        ```python
        start = dj.propagation.critical_initializer(jnp.tanh, bias_variance=0.05, law="orthogonal")
        model = dj.MLP((2, *[100] * 50, 1), key=key, **start._asdict())
        ```

    References:
        Saxe, McClelland and Ganguli (2014), Exact solutions to the nonlinear dynamics of learning in deep linear neural
        networks; Pennington, Schoenholz and Ganguli (2017), Resurrecting the sigmoid in deep learning through dynamical isometry.
    """
    check_that(law in ("gaussian", "orthogonal"), "law", 'be "gaussian" or "orthogonal"', f"found {law!r}")
    check_that(is_concrete(bias_variance), "bias_variance", "be known before tracing", found(bias_variance))
    gain = math.sqrt(float(critical_weight_scale(activation, bias_variance=bias_variance).weight_variance))
    make = lecun_normal if law == "gaussian" else orthogonal
    scale = math.sqrt(float(bias_variance))

    def biases(key: PRNGKeyArray, shape: tuple[int, int], dtype: Any) -> Array:
        return scale * jax.random.normal(key, (shape[0], 1), dtype)

    return CriticalInitializer(make(gain), biases)
