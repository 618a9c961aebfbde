"""The Faddeeva function, to double precision in the whole plane."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex

_TERMS = 40


def faddeeva(z: Complex[Array, "..."] | complex) -> Complex[Array, "..."]:
    r"""w(z) = exp(-z^2) erfc(-i z), entire.

    In the upper half-plane a rational approximation: an expansion in powers of (L + i z) / (L - i z) with 40 terms, whose
    relative error is below 3e-14; below, w(z) = 2 exp(-z^2) - w(-z). On the imaginary axis w(i x) = erfcx(x).

    Args:
        z: complex, or real (which is taken as complex).

    Returns:
        w(z); infinite far down in the lower half-plane, where the function overflows. Its derivatives are those of
        the approximation,
        with errors of about 1e-12.

    References:
        Weideman 1994, Computation of the complex error function, SIAM J. Numer. Anal. 31.
    """
    z = jnp.asarray(z)
    if not jnp.iscomplexobj(z):
        z = z.astype(jnp.result_type(z.dtype, float, jnp.complex64))
    return _plane(z)


@jax.jit
def _plane(z: Complex[Array, "..."]) -> Complex[Array, "..."]:
    below = z.imag < 0
    upper = _upper(jnp.where(below, -z, z))
    down = jnp.where(below, z, 0)
    return jnp.where(below, 2 * jnp.exp(-down * down) - upper, upper)


def _upper(z: Complex[Array, "..."]) -> Complex[Array, "..."]:
    """W where Im z >= 0."""
    length, coefficients = _expansion()
    denominator = length - 1j * z
    ratio = (length + 1j * z) / denominator
    # A loop and not forty lines of program, of which root finders would hold many copies.
    descending = jnp.asarray(coefficients[::-1], z.real.dtype)
    total, _ = jax.lax.scan(lambda total, c: (total * ratio + c, None), jnp.zeros_like(z), descending)
    return 2 * total / denominator**2 + float(1 / np.sqrt(np.pi)) / denominator


@functools.cache
def _expansion() -> tuple[float, Any]:
    """L and the coefficients of the powers, from the fast Fourier transform of (L^2 + t^2) exp(-t^2), t = L tan(theta / 2)."""
    length = float(np.sqrt(_TERMS / np.sqrt(2)))
    half = 2 * _TERMS
    theta = np.arange(-half + 1, half) * np.pi / half
    t = length * np.tan(theta / 2)
    values = np.concatenate([[0.0], np.exp(-(t**2)) * (length**2 + t**2)])
    spectrum = np.real(np.fft.fft(np.fft.fftshift(values))) / (2 * half)
    return length, spectrum[1 : _TERMS + 1]


def erfcx(x: Any) -> Any:
    """exp(x^2) erfc(x) = w(i x) of a real argument: `faddeeva` on the imaginary axis."""
    x = jnp.asarray(x)
    return faddeeva(jax.lax.complex(jnp.zeros_like(x), x)).real
