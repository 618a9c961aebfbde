"""The dispersion relation of the incoherent state: how fast a perturbation of given eigenvalue and harmonic grows."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float, Inexact

from ..._core import check_that, found
from ...reference import faddeeva
from .frequency_laws import AbstractFrequencyLaw, Gaussian, Identical, Lorentzian, Uniform, check_law
from .spectral_end import SpectralEnd, spectral_end
from .threshold_arguments import as_coefficients, as_real

_ARC_STEPS = 24


def growth_rate(
    measure: Any,
    frequencies: AbstractFrequencyLaw,
    coupling: Float[Array, ""] | float,
    noise: Float[Array, ""] | float = 0.0,
    *,
    harmonics: Any = None,
) -> Float[Array, ""]:
    r"""How fast the order parameter grows (or, if negative, is damped) near the incoherent state, 1/time.

    The real part of `leading_root`: negative below `critical_coupling`, zero there, positive above. Below
    it is Landau damping, from the analytic continuation of the dispersion relation; -inf where there is no pole at all.
    Arguments as for `leading_root`.

    Example:
        ```python
        growth_rate(dj.DigraphMeasure.complete(), dj.meanfield.Gaussian(1.0), 2.0)   # 0.3026308
        ```
    """
    return leading_root(measure, frequencies, coupling, noise, harmonics=harmonics).real


def leading_root(
    measure: Any,
    frequencies: AbstractFrequencyLaw,
    coupling: Float[Array, ""] | float,
    noise: Float[Array, ""] | float = 0.0,
    *,
    harmonics: Any = None,
) -> Complex[Array, ""]:
    r"""The root lambda with the largest real part of the dispersion relation of the incoherent state.

    For theta' = omega + K sum_m a_m int int sin(m (psi - theta)) + sqrt(2 D) xi the m-th moment of the incoherent state, along an
    eigenfunction of the graph with eigenvalue zeta, obeys (derived here)

    $$1 = \frac{K a_m \zeta}{2} R\!\left(\frac{\lambda + m^2 D}{m}\right),
    \qquad R(\lambda) = \int \frac{g(\omega)}{\lambda - i \omega} d\omega,$$

    with R continued analytically to the left. For each law there is one branch of roots that is real for real K zeta > 0:
    closed forms for Lorentzian, identical and uniform frequencies, for Gaussian ones bisection on the real line and a
    continuation in arg(K zeta) with Newton's method for complex zeta. Derivatives are implicit.

    Args:
        measure: a `DigraphMeasure`, a `LabelGrid` or a `GraphOperator`; see `critical_coupling` for which eigenvalues are
            looked at.
        frequencies: a law; `Lorentzian`, `Gaussian`, `Uniform` or `Identical`.
        coupling: K, of either sign.
        noise: D >= 0.
        harmonics: a_1, a_2, ...; sin alone by default.

    Returns:
        lambda, complex, with the imaginary part m * center + that in the frame of the centre; its real part is -inf where
        there is no root (uniform law: K zeta a_m < 2 c / pi; Gaussian: zeta <= 0).

    Raises:
        TypeError: for another law or graph.
        ValueError: for `noise` < 0, or coefficients that are not a vector.

    References:
        Strogatz, Mirollo and Matthews 1992, Coupled nonlinear oscillators below the synchronization threshold:
        relaxation by generalized Landau damping, Phys. Rev. Lett. 68. Chiba and Medvedev 2019 (arXiv:1612.06493) for graphs.
    """
    check_law(frequencies)
    known = isinstance(frequencies, Lorentzian | Gaussian | Uniform | Identical)
    must = "be Lorentzian, Gaussian, Uniform or Identical"
    check_that(known, "frequencies", must, found(frequencies), TypeError)
    coupling, noise = as_real(coupling, "coupling"), as_real(noise, "noise", non_negative=True)
    coefficients = as_coefficients(harmonics)
    dominant = not isinstance(frequencies, Lorentzian | Identical)
    ends = [spectral_end(measure, largest=largest, dominant=dominant) for largest in (True, False)]
    return _leading(frequencies, noise, coupling * coefficients, ends)


@eqx.filter_jit
def _leading(law: AbstractFrequencyLaw, noise: Array, strengths: Array, ends: list[SpectralEnd]) -> Complex[Array, ""]:
    """The highest root over the harmonics and the eigenvalues of both ends."""
    orders = jnp.arange(1, strengths.shape[0] + 1)

    def root(law: Any, noise: Any, order: Any, strength: Any, zeta: Any) -> Any:
        value = resolvent_root(law, strength * zeta / 2)
        return jnp.asarray(order * (value - order * noise) + 1j * order * law.center)

    # The search is over frozen values; only the winner is differentiated.
    frozen = functools.partial(root, *lax.stop_gradient((law, noise)))

    best = jnp.asarray(0j)
    height = jnp.asarray(-jnp.inf)
    for sign, end in zip((1, -1), ends, strict=True):
        index = _argmax(frozen, end, orders, jnp.where(sign * strengths >= 0, strengths, 0))
        row, column = jnp.unravel_index(index, (orders.shape[0], end.values.shape[0]))
        value = root(law, noise, orders[row], strengths[row], end.differentiable(column))
        better = (sign * strengths[row] >= 0) & ((value.real > height) | jnp.isnan(value.real))
        best, height = jnp.where(better, value, best), jnp.where(better, value.real, height)
    return jnp.where(jnp.isneginf(height), jax.lax.complex(height, jnp.zeros_like(height)), best)


def _argmax(root: Any, end: SpectralEnd, orders: Array, strengths: Array) -> Array:
    table = jax.vmap(lambda order, strength: jax.vmap(lambda zeta: root(order, strength, zeta).real)(end.values))
    heights = table(orders, lax.stop_gradient(strengths))
    return jnp.argmax(jnp.where(lax.stop_gradient(strengths)[:, None] == 0, -jnp.inf, heights))


def resolvent_root(law: AbstractFrequencyLaw, target: Inexact[Array, ""]) -> Complex[Array, ""]:
    """The x with 1 / int g(center + w) / (x - i w) dw = target, on the branch that is real for real positive targets.

    Real part -inf where there is none.
    """
    target = jnp.asarray(target)
    target = target.astype(jnp.result_type(target.dtype, law.center.dtype, jnp.complex64))
    none = jax.lax.complex(-jnp.inf * jnp.ones_like(target.real), jnp.zeros_like(target.real))
    if isinstance(law, Lorentzian):
        return target - law.width
    if isinstance(law, Identical):
        return target
    if isinstance(law, Uniform):
        good = (law.halfwidth / jnp.where(target == 0, 1, target)).real < jnp.pi
        good = good & (target.real > 0)
        angle = law.halfwidth / jnp.where(good, target, 1)
        return jnp.where(good, law.halfwidth / jnp.tan(angle), none)
    assert isinstance(law, Gaussian)
    good = target.real > 0
    ratio = law.scale * np.sqrt(2 / np.pi).item() / jnp.where(good, target, 1)
    return jnp.where(good, np.sqrt(2).item() * law.scale * _inverse_erfcx(ratio), none)


def _inverse_erfcx(value: Complex[Array, ""]) -> Complex[Array, ""]:
    """The y with w(i y) = `value`, followed from the real axis along the arc of constant modulus."""
    fixed = lax.stop_gradient(value)
    size, angle = jnp.abs(fixed), jnp.angle(fixed)

    # exp(y^2) <= erfcx(y) for y < 0, and erfcx(y) < 1 / (y sqrt(pi)) for y > 0.
    ends = (-jnp.sqrt(jnp.maximum(jnp.log(size), 0)), 1 / (size * np.sqrt(np.pi).item()))

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = (ends[0] + ends[1]) / 2
        beyond = faddeeva(jax.lax.complex(jnp.zeros_like(middle), middle)).real < size
        return jnp.where(beyond, ends[0], middle), jnp.where(beyond, middle, ends[1])

    low, high = lax.fori_loop(0, jnp.finfo(size.dtype).nmant + 6, halve, ends)

    def newton(y: Array, goal: Array) -> Array:
        w = faddeeva(1j * y)
        # d/dy w(i y) = 2 y w - 2 / sqrt(pi). Logarithms, since w grows like exp(y^2) on the left.
        slope = 2 * y - 2 / np.sqrt(np.pi).item() / w
        return y + (jnp.log(goal / w)) / slope

    def follow(step: int, y: Array) -> Array:
        # Three steps of Newton's method at each point of the arc.
        return newton(y, size * jnp.exp(1j * angle * (step // 3 + 1) / _ARC_STEPS))

    y = lax.fori_loop(0, 3 * _ARC_STEPS, follow, (low + (high - low) / 2).astype(value.dtype))
    y = lax.stop_gradient(y)
    return newton(newton(y, value), value)
