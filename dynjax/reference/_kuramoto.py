"""The Kuramoto model in the limit of many oscillators: order parameters, critical couplings, growth rates, transients."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import check_positive
from ._arrays import check_non_negative, check_values, floats
from ._bessel import bessel_ratio
from ._faddeeva import erfcx
from ._root import find_root

_Number = Float[Array, ""] | float


def lorentzian_critical_coupling(width: _Number, noise: _Number = 0.0, eigenvalue: _Number = 1.0) -> Float[Array, ""]:
    """Kc = 2 (D + Delta) / zeta for Lorentzian frequencies; `width` 0 gives that of identical oscillators, 2 D / zeta.

    Args:
        width: Delta >= 0.
        noise: D >= 0, so that theta' = omega + ... + sqrt(2 D) xi.
        eigenvalue: zeta > 0, the largest of the graph.
    """
    check_non_negative(width, "width")
    check_non_negative(noise, "noise")
    check_positive(eigenvalue, "eigenvalue")
    width, noise, eigenvalue = floats(width, noise, eigenvalue)
    return 2 * (noise + width) / eigenvalue


def gaussian_critical_coupling(scale: _Number, noise: _Number = 0.0, eigenvalue: _Number = 1.0) -> Float[Array, ""]:
    """Kc = (2 s / zeta) sqrt(2 / pi) / erfcx(D / (s sqrt(2))) for normal frequencies of standard deviation s.

    Example:
        ```python
        gaussian_critical_coupling(1.0)        # sqrt(8 / pi) = 1.5957691
        gaussian_critical_coupling(1.0, 0.5)   # 2.2821555
        ```
    """
    check_positive(scale, "scale")
    check_non_negative(noise, "noise")
    check_positive(eigenvalue, "eigenvalue")
    scale, noise, eigenvalue = floats(scale, noise, eigenvalue)
    return 2 * scale / eigenvalue * jnp.sqrt(2 / jnp.pi) / erfcx(noise / scale * np.sqrt(0.5).item())


def uniform_critical_coupling(halfwidth: _Number, noise: _Number = 0.0, eigenvalue: _Number = 1.0) -> Float[Array, ""]:
    """Kc = 2 c / (zeta arctan(c / D)) for frequencies uniform on [-c, c]; 4 c / (pi zeta) without noise."""
    check_positive(halfwidth, "halfwidth")
    check_non_negative(noise, "noise")
    check_positive(eigenvalue, "eigenvalue")
    halfwidth, noise, eigenvalue = floats(halfwidth, noise, eigenvalue)
    return 2 * halfwidth / (eigenvalue * jnp.arctan2(halfwidth, noise))


def lorentzian_order_parameter(coupling: _Number, width: _Number) -> Float[Array, "..."]:
    """R = sqrt(1 - 2 Delta / K), and 0 for K <= 2 Delta.

    References:
        Kuramoto 1984, Chemical oscillations, waves, and turbulence.
    """
    check_positive(width, "width")
    coupling, width = floats(coupling, width)
    square = 1 - 2 * width / jnp.where(coupling > 0, coupling, 1)
    good = (square > 0) & (coupling > 0)
    return jnp.where(good, jnp.sqrt(jnp.where(good, square, 1)), 0)


def gaussian_order_parameter(coupling: _Number, scale: _Number) -> Float[Array, ""]:
    """The r > 0 with 1 = (K / s) sqrt(pi / 8) exp(-m) (I_0(m) + I_1(m)), m = (K r / 2 s)^2, and 0 up to the critical coupling.

    Example:
        ```python
        gaussian_order_parameter(2.0, 1.0)   # 0.7151740
        ```
    """
    check_positive(scale, "scale")
    strength = _strength(coupling, scale)
    return _positive_root(_gaussian_excess, strength, strength > np.sqrt(8 / np.pi).item())


def _gaussian_excess(r: Array, strength: Array) -> Array:
    m = (strength * r / 2) ** 2
    return 1 - strength * np.sqrt(np.pi / 8).item() * (jax.scipy.special.i0e(m) + jax.scipy.special.i1e(m))


def uniform_order_parameter(coupling: _Number, halfwidth: _Number) -> Float[Array, ""]:
    """The r of frequencies uniform on [-c, c]: 0 below Kc = 4 c / pi, and from there a jump to pi / 4 and more.

    With s = c / (K r) <= 1 it solves 2 c / K = s sqrt(1 - s^2) + arcsin(s), at s = 1 where the transition is.

    Example:
        ```python
        uniform_order_parameter(1.5, 1.0)   # 0.8986100
        ```

    References:
        Pazo 2005, Thermodynamic limit of the first-order phase transition in the Kuramoto model, Phys. Rev. E 72.
    """
    check_positive(halfwidth, "halfwidth")
    strength = _strength(coupling, halfwidth)
    good = strength >= 4 / np.pi * (1 - 4 * jnp.finfo(strength.dtype).eps)
    safe = jnp.maximum(jnp.where(good, strength, 2), 4 / np.pi)

    angle = _root(_uniform_excess, jnp.zeros_like(safe), jnp.full_like(safe, np.pi / 2), safe)
    return jnp.where(good, 1 / (safe * jnp.sin(angle)), 0)


def _uniform_excess(angle: Array, strength: Array) -> Array:
    # In the angle, s = sin(angle), nothing is singular but the slope at pi / 2.
    return jnp.sin(2 * angle) / 2 + angle - 2 / strength


def noisy_order_parameter(coupling: _Number, noise: _Number) -> Float[Array, ""]:
    """Identical oscillators with noise: r = I_1(K r / D) / I_0(K r / D), and 0 for K <= 2 D.

    Their stationary density is proportional to exp((K r / D) cos(theta)).

    Example:
        ```python
        noisy_order_parameter(4.0, 1.0)   # 0.8314620
        ```
    """
    check_positive(noise, "noise")
    strength = _strength(coupling, noise)
    return _positive_root(_noisy_excess, strength, strength > 2)


def _noisy_excess(r: Array, strength: Array) -> Array:
    # Divided by r, so that 0 is no root; the ratio is 1/2 there.
    x = strength * r
    tiny = x < jnp.finfo(x.dtype).eps ** 0.25
    return 1 - strength * jnp.where(tiny, 0.5 - x**2 / 16, bessel_ratio(x) / jnp.where(tiny, 1, x))


def ott_antonsen_transient(time: _Number, initial: _Number, coupling: _Number, width: _Number) -> Float[Array, "..."]:
    r"""R(t) for Lorentzian frequencies from r(0) = `initial` on the Ott-Antonsen manifold (Poisson kernels).

    The solution of r' = -Delta r + (K / 2) r (1 - r^2): with a = K - 2 Delta,

    $$r(t)^2 = \frac{r_0^2 e^{a t}}{1 + (K r_0^2 / a) (e^{a t} - 1)},$$

    in a form that holds above, below and at the threshold.

    Args:
        time: t >= 0.
        initial: r(0), from 0 to 1.
        coupling: K.
        width: Delta >= 0.

    References:
        Ott and Antonsen 2008, Low dimensional behavior of large systems of globally coupled oscillators, Chaos 18
        (arXiv:0806.0004).
    """
    check_non_negative(time, "time")
    check_non_negative(width, "width")
    check_values(initial, "initial", "lie between 0 and 1", lambda x: (x >= 0) & (x <= 1))
    time, initial, coupling, width = floats(time, initial, coupling, width)
    rate = coupling - 2 * width
    # (exp(x) - 1) / x is smooth; written in exp(-|a| t), which does not overflow.
    x = jnp.abs(rate) * time
    small = x < jnp.finfo(x.dtype).eps
    ratio = jnp.where(small, 1, -jnp.expm1(-x) / jnp.where(small, 1, x)) * time
    up = rate >= 0
    decay = jnp.exp(-x)
    grown = 1 / (jnp.where(up, decay, 1) + coupling * initial**2 * ratio)
    return initial * jnp.sqrt(jnp.where(up, 1, decay) * grown)


def gaussian_growth_rate(coupling: _Number, scale: _Number, noise: _Number = 0.0) -> Float[Array, ""]:
    r"""The real lambda with 1 = (K / 2 s) sqrt(pi / 2) erfcx((lambda + D) / (s sqrt(2))): growth of the order parameter.

    Above the critical coupling the eigenvalue of the incoherent state; below it the leading real Landau pole, negative,
    from the analytic continuation of the dispersion relation.

    Args:
        coupling: K > 0, times the eigenvalue of the graph if there is one.
        scale: standard deviation s > 0 of the frequencies.
        noise: D >= 0.

    Example:
        ```python
        gaussian_growth_rate(2.0, 1.0)   # 0.3026308
        gaussian_growth_rate(1.0, 1.0)   # -0.5179127
        ```

    References:
        Strogatz, Mirollo and Matthews 1992, Phys. Rev. Lett. 68, 2730.
    """
    check_positive(coupling, "coupling")
    check_positive(scale, "scale")
    check_non_negative(noise, "noise")
    coupling, scale, noise = floats(coupling, scale, noise)
    level = 2 * scale / coupling * np.sqrt(2 / np.pi).item()
    # exp(y^2) <= erfcx(y) for y < 0, and erfcx(y) < 1 / (y sqrt(pi)) for y > 0.
    low = -jnp.sqrt(jnp.maximum(jnp.log(level), 0))
    y = _root(_erfcx_excess, low, 1 / (level * np.sqrt(np.pi).item()), level)
    return np.sqrt(2).item() * scale * y - noise


def _erfcx_excess(y: Array, level: Array) -> Array:
    return jnp.log(level) - jnp.log(erfcx(y))


def phase_locked_difference(detuning: _Number, coupling: _Number) -> Float[Array, "..."]:
    """The stable fixed point of phi' = d - K sin(phi), the phase difference of two oscillators: arcsin(d / K).

    NaN where they do not lock, |d| > K.
    """
    detuning, coupling = floats(detuning, coupling)
    return jnp.arcsin(detuning / coupling)


def beat_frequency(detuning: _Number, coupling: _Number) -> Float[Array, "..."]:
    """The mean velocity sqrt(d^2 - K^2) of phi' = d - K sin(phi), with the sign of d; 0 where it locks."""
    detuning, coupling = floats(detuning, coupling)
    square = (jnp.abs(detuning) - jnp.abs(coupling)) * (jnp.abs(detuning) + jnp.abs(coupling))
    drifts = square > 0
    return jnp.sign(detuning) * jnp.where(drifts, jnp.sqrt(jnp.where(drifts, square, 1)), 0)


def _strength(coupling: _Number, unit: _Number) -> Float[Array, ""]:
    coupling, unit = floats(coupling, unit)
    return coupling / unit


# One compiled program for each function, which must be one of this module, not a closure.
_root = jax.jit(find_root, static_argnums=0)


def _positive_root(excess, strength: Float[Array, ""], above: Array) -> Float[Array, ""]:
    """The root in (0, 1) of a function that grows with r, 0 where the coupling is not above the critical one."""
    safe = jnp.where(above, strength, 4)
    return jnp.where(above, _root(excess, jnp.zeros_like(safe), jnp.ones_like(safe), safe), 0)
