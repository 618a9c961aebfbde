"""Standard maps: one function each, with the usual parameters, which are traced."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from .._core import check_positive, check_that, found
from ._catalogue import like, matrix, parameters, start
from ._paths import WhiteNoise
from ._system import Map, RandomMap

_TWO_PI = 2 * math.pi


class _Rule(eqx.Module):
    """A map whose parameters are leaves, used in the dtype of the state: `rule(x, *parameters)`."""

    values: tuple[Array, ...]
    rule: Any = eqx.field(static=True)

    def __call__(self, n: Any, x: Array) -> Array:
        return self.rule(x, *like(self.values, x))


def _map(rule: Any, **values: Any) -> Map:
    return Map(_Rule(parameters(**values), rule))


def _logistic(x: Array, r: Array) -> Array:
    return r * x * (1 - x)


def _tent(x: Array, slope: Array) -> Array:
    return slope * jnp.where(x < 0.5, x, 1 - x)


def _henon(x: Array, a: Array, b: Array) -> Array:
    return jnp.stack([1 - a * x[0] ** 2 + x[1], b * x[0]])


def _standard(x: Array, k: Array) -> Array:
    momentum = jnp.mod(x[1] + k * jnp.sin(x[0]), _TWO_PI)
    return jnp.stack([jnp.mod(x[0] + momentum, _TWO_PI), momentum])


def _cat(x: Array) -> Array:
    return jnp.mod(jnp.stack([2 * x[0] + x[1], x[0] + x[1]]), 1.0)


def _baker(x: Array, p: Array, a: Array, b: Array) -> Array:
    below = x[0] < p
    return jnp.stack(
        [jnp.where(below, x[0] / p, (x[0] - p) / (1 - p)), jnp.where(below, a * x[1], 1 - b + b * x[1])],
    )


def _lattice(x: Array, coupling: Array) -> Array:
    y = jnp.mod(2 * x, 1.0)
    return (1 - coupling) * y + coupling / 2 * (jnp.roll(y, 1) + jnp.roll(y, -1))


def _linear(x: Array, a: Array) -> Array:
    return jnp.matmul(a, x, precision="highest")


def _towel(x: Array, a: Array, b: Array, c: Array) -> Array:
    fold = (x[1] + 0.35) * (1 - 2 * x[2])
    return jnp.stack(
        [
            a * x[0] * (1 - x[0]) - 0.05 * fold,
            0.1 * (fold - 1) * (1 - 1.9 * x[0]),
            c * x[2] * (1 - x[2]) + b * x[1],
        ]
    )


@start(lambda *_, **__: jnp.asarray(0.3))
def logistic(r: Any = 4.0) -> Map:
    """The logistic map x' = r x (1 - x) on [0, 1]; start 0.3.

    Args:
        r: growth rate. At 4 the Lyapunov exponent is ln 2, at 3.2 it is ln(0.16) / 2.
    """
    return _map(_logistic, r=r)


@start(lambda *_, **__: jnp.asarray(0.3))
def tent(slope: Any = 2.0) -> Map:
    """The tent map x' = slope * min(x, 1 - x) on [0, 1]; start 0.3.

    The Lyapunov exponent is ln(slope). In binary numbers an orbit at slope 2 falls on 0 after about 53 steps (24 in single
    precision), where the exponent is the same but the statistics are not; a slope such as 1.9999 avoids it.

    Args:
        slope: from 0 to 2.
    """
    return _map(_tent, slope=slope)


@start(lambda *_, **__: jnp.asarray(0.3))
def chebyshev(degree: int = 3) -> Map:
    """The Chebyshev polynomial x' = T_degree(x) on [-1, 1], by its recurrence; start 0.3. The exponent is ln(degree).

    Args:
        degree: static, at least 2.

    Raises:
        ValueError: if `degree` is no integer of at least 2.
    """
    check_that(isinstance(degree, int) and degree >= 2, "degree", "be an integer of at least 2", f"found {degree!r}")

    return Map(_Chebyshev(degree))


class _Chebyshev(eqx.Module):
    degree: int = eqx.field(static=True)

    def __call__(self, n: Any, x: Array) -> Array:
        before, now = jnp.ones_like(x), x
        for _ in range(self.degree - 1):
            before, now = now, 2 * x * now - before
        # Rounding must not push the orbit out of the interval, where it would escape; the derivative stays the polynomial's.
        return now - jax.lax.stop_gradient(now - jnp.clip(now, -1, 1))


@start(lambda *_, **__: jnp.asarray([0.1, 0.2]))
def henon(a: Any = 1.4, b: Any = 0.3) -> Map:
    """The Henon map x' = 1 - a x^2 + y, y' = b x; start (0.1, 0.2). The exponents sum to ln b; the first is 0.4192.

    Args:
        a: strength of the fold.
        b: contraction of areas.
    """
    return _map(_henon, a=a, b=b)


@start(lambda *_, **__: jnp.asarray([2.0, 0.5]))
def standard_map(k: Any = 1.0) -> Map:
    """Chirikov's standard map p' = p + k sin(theta), theta' = theta + p', both modulo 2 pi; start (2, 0.5).

    The state is (theta, p). It keeps areas: the exponents are a pair +-, about ln(k / 2) for large k.

    Args:
        k: strength of the kick.
    """
    return _map(_standard, k=k)


@start(lambda *_, **__: jnp.asarray([0.1, 0.3]))
def arnold_cat() -> Map:
    """Arnold's cat map x' = 2 x + y, y' = x + y modulo 1; start (0.1, 0.3). Exponents +-ln((3 + sqrt 5) / 2)."""
    return _map(_cat)


@start(lambda *_, **__: jnp.asarray([0.3, 0.4]))
def baker(p: Any = 0.4, a: Any = 1 / 3, b: Any = 1 / 3) -> Map:
    """The generalised baker map on the unit square; start (0.3, 0.4).

    For x < p: (x / p, a y), else ((x - p) / (1 - p), 1 - b + b y). The exponents are -p ln p - (1 - p) ln(1 - p) and
    p ln a + (1 - p) ln b. At p = 1/2 an orbit in binary numbers falls on x = 0 after about 53 steps.

    Args:
        p: width of the left strip.
        a: contraction of the left strip.
        b: contraction of the right strip.
    """
    return _map(_baker, p=p, a=a, b=b)


@start(lambda size=8, *_, **__: jnp.mod(0.1 + jnp.sqrt(2.0) * jnp.arange(size) ** 2, 1.0))
def coupled_lattice(size: int = 8, coupling: Any = 0.3) -> Map:
    """A ring of coupled doubling maps g(x) = 2 x modulo 1; start mod(0.1 + sqrt(2) i^2, 1).

        x_i' = (1 - coupling) g(x_i) + (coupling / 2) (g(x_{i-1}) + g(x_{i+1}))

    The exponents are ln abs(2 (1 - coupling + coupling cos(2 pi k / size))), k = 0, ..., size - 1.

    Args:
        size: number of sites, static; the length of the state.
        coupling: from 0 to 1.
    """
    _check_size(size, 3)
    return _map(_lattice, coupling=coupling)


@start(lambda *_, **__: jnp.asarray([0.085, -0.121, 0.075]))
def folded_towel(a: Any = 3.8, b: Any = 0.2, c: Any = 3.78) -> Map:
    """Roessler's folded towel map, with two positive exponents (about 0.43, 0.38, -3.30); start (0.085, -0.121, 0.075).

        x' = a x (1 - x) - 0.05 (y + 0.35) (1 - 2 z)
        y' = 0.1 ((y + 0.35) (1 - 2 z) - 1) (1 - 1.9 x)
        z' = c z (1 - z) + b y

    Args:
        a: growth rate of x.
        b: effect of y on z.
        c: growth rate of z.
    """
    return _map(_towel, a=a, b=b, c=c)


@start(lambda a, *_, **__: jnp.ones(len(a)))
def linear_map(a: Any) -> Map:
    """The linear map x' = a x; start (1, ..., 1). The exponents are ln abs(eig(a)).

    Args:
        a: a real square matrix, (dim, dim).

    Raises:
        ValueError: if `a` is not square.
    """
    return _map(_linear, a=matrix(a))


@start(lambda *_, **__: jnp.asarray(1.0))
def geometric_brownian_motion(key: PRNGKeyArray, *, a: Any = 0.05, s: Any = 0.4, dt: Any = 1.0) -> RandomMap:
    """Geometric Brownian motion dX = a X dt + s X dW (Ito), by its exact step over a frozen noise path; start 1.

        X' = X exp((a - s^2 / 2) dt + s sqrt(dt) xi_n),    xi_n standard normal

    The exponent is a - s^2 / 2, the moment function L(p) = p a + p (p - 1) s^2 / 2, both per unit of time.

    Args:
        key: fixes the noise path.
        a: drift, per unit of time.
        s: volatility, per square root of the unit of time.
        dt: Time per step.
    """
    check_positive(dt, "dt")
    values = parameters(a=a, s=s, dt=dt)
    return RandomMap(_Growth(values), WhiteNoise((), key=key), dt=dt)


class _Growth(eqx.Module):
    values: tuple[Array, ...]

    def __call__(self, x: Array, noise: Array) -> Array:
        a, s, dt, xi = like((*self.values, noise), x)
        return x * jnp.exp((a - s**2 / 2) * dt + s * jnp.sqrt(dt) * xi)


def _check_size(size: Any, least: int) -> None:
    check_that(
        isinstance(size, int) and size >= least,
        "size",
        f"be an integer of at least {least}",
        found(size) if not isinstance(size, int) else f"found {size}",
    )
