"""How much of a population locks to a given field: the order parameter of one fibre as a function of the field it feels."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Inexact

from ..._core import check_that, found
from ...reference import bessel_ratio
from .frequency_laws import AbstractFrequencyLaw, Gaussian, Identical, Lorentzian, Uniform

_TERMS = 128
_NORMAL_REACH, _NORMAL_STEP = 9.0, 1 / 8
_ARC_REACH, _ARC_STEP = 3.2, 1 / 16


def response(
    law: AbstractFrequencyLaw, field: Float[Array, "labels"], noise: Float[Array, ""], *, noisy: bool
) -> Float[Array, "labels"]:
    r"""The stationary |z| of a population with theta' = omega - kappa sin(theta) + sqrt(2 D) xi.

    Without noise the locked part alone counts: kappa int g(kappa s) sqrt(1 - s^2) ds over |s| < 1. With noise the
    moments of the stationary
    density obey (n D - i w) z_n = (kappa / 2) (z_{n-1} - z_{n+1}); the ratio z_1 is a continued fraction, analytic in
    w for Im w > -D, so that the average over w needs no small D: for the Lorentzian it is the value at w = i Delta, for the
    Gaussian a trapezoidal sum on the line Im w = s, for the uniform law an integral along the half circle over the band.
    All are increasing, concave functions of the field with values between 0 and 1.

    Args:
        law: `Lorentzian`, `Gaussian`, `Uniform` or `Identical`; its centre does not matter.
        field: kappa = K h >= 0, 1/time.
        noise: D.
        noisy: whether D may be positive (static: another formula).
    """
    if isinstance(law, Identical):
        if noisy:
            silent = noise == 0
            return jnp.where(silent, _sign(field), bessel_ratio(field / jnp.where(silent, 1, noise)))
        return _sign(field)
    if isinstance(law, Lorentzian):
        return _fraction(field, noise, law.width) if noisy else field / (law.width + jnp.hypot(law.width, field))
    if isinstance(law, Gaussian):
        return _gaussian(law, field, noise) if noisy else _locked_gaussian(field / law.scale)
    if isinstance(law, Uniform):
        return _uniform(law, field, noise) if noisy else _locked_uniform(field / law.halfwidth)
    must = "be Lorentzian, Gaussian, Uniform or Identical"
    check_that(False, "frequencies", must, found(law), TypeError)
    raise AssertionError


def _sign(field: Array) -> Array:
    return jnp.where(field > 0, 1.0, 0.0).astype(field.dtype)


def _locked_gaussian(x: Array) -> Array:
    """For x = kappa / s: x sqrt(pi / 8) exp(-m) (I_0(m) + I_1(m)), m = x^2 / 4."""
    m = x**2 / 4
    return x * np.sqrt(np.pi / 8).item() * (jax.scipy.special.i0e(m) + jax.scipy.special.i1e(m))


def _locked_uniform(x: Array) -> Array:
    """For x = kappa / c: pi x / 4 up to 1, then (x / 2) (s sqrt(1 - s^2) + arcsin(s)) with s = 1 / x."""
    return x / 2 * _segment(1 / jnp.maximum(x, 1))


@jax.custom_jvp
def _segment(s: Array) -> Array:
    """S sqrt(1 - s^2) + arcsin(s), whose derivative 2 sqrt(1 - s^2) is finite although those of the terms are not."""
    return s * jnp.sqrt((1 - s) * (1 + s)) + jnp.arcsin(s)


@_segment.defjvp
def _segment_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (s,), (dot,) = primals, tangents
    square = (1 - s) * (1 + s)
    inside = square > 0
    return _segment(s), 2 * jnp.where(inside, jnp.sqrt(jnp.where(inside, square, 1)), 0) * dot


def _fraction(field: Array, noise: Array, shift: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """z_1 from (n D + shift) z_n = (kappa / 2) (z_{n-1} - z_{n+1}), z_0 = 1, where shift = -i w.

    The recursion starts from the ratio that slowly growing entries n D + shift have, to first order in D. For kappa
    up to 50 times
    the width of the law the error is then at most about 1e-6 for any D (the worst is D = 0.01 widths), and rounding for
    D above a tenth of the width.
    """
    half = field / 2

    def frozen(entry: Array) -> tuple[Array, Array]:
        size = jnp.sqrt(entry**2 + field**2)
        return field / (entry + size), size

    def down(ratio: Array, i: Any) -> tuple[Array, None]:
        return half / ((_TERMS - i) * noise + shift + half * ratio), None

    entry = (_TERMS + 1) * noise + shift
    ratio, size = frozen(entry)
    start, _ = frozen(entry - half * noise * ratio / size)
    return lax.scan(down, start, jnp.arange(_TERMS))[0]


def _gaussian(law: Gaussian, field: Array, noise: Array) -> Array:
    """On the line w = s (t + i): g(w) dw = exp(1/2 - i t - t^2 / 2) dt / sqrt(2 pi)."""
    t = np.arange(-_NORMAL_REACH, _NORMAL_REACH + _NORMAL_STEP / 2, _NORMAL_STEP)
    weights = _NORMAL_STEP / np.sqrt(2 * np.pi) * np.exp(0.5 - 1j * t - t**2 / 2)
    kind = jnp.result_type(field.dtype, jnp.complex64)
    values = _fraction(field[:, None], noise, law.scale * jnp.asarray(1 - 1j * t, kind))
    return jnp.sum(jnp.asarray(weights, kind) * values, axis=1).real


def _uniform(law: Uniform, field: Array, noise: Array) -> Array:
    """On the half circle w = c exp(i phi) from -c to c; nodes gather at the ends, where a small D leaves a root."""
    angles, weights = _arc()
    kind = jnp.result_type(field.dtype, jnp.complex64)
    # -i w = c (sin phi - i cos phi); the integral of g dw is half that of -i exp(i phi) d phi.
    values = _fraction(field[:, None], noise, law.halfwidth * jnp.asarray(np.sin(angles) - 1j * np.cos(angles), kind))
    return jnp.sum(jnp.asarray(weights * (np.sin(angles) - 1j * np.cos(angles)) / 2, kind) * values, axis=1).real


@functools.cache
def _arc() -> tuple[Any, Any]:
    """The double exponential rule on (0, pi)."""
    tau = _ARC_STEP * np.arange(-round(_ARC_REACH / _ARC_STEP), round(_ARC_REACH / _ARC_STEP) + 1)
    u = np.pi * np.sinh(tau)
    t, rest = 1 / (1 + np.exp(-u)), 1 / (1 + np.exp(u))
    return np.pi * t, np.pi * _ARC_STEP * np.pi * np.cosh(tau) * t * rest
