"""Critical couplings: where the incoherent state of oscillators on a graph loses its stability."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Inexact

from ..._core import check_that, is_concrete
from .._particles.validity import warn_sparse_graph
from .frequency_laws import AbstractFrequencyLaw, Identical, Lorentzian, check_law
from .spectral_end import SpectralEnd, spectral_end
from .threshold_arguments import as_coefficients, as_real


def critical_coupling(
    measure: Any,
    frequencies: AbstractFrequencyLaw,
    *,
    noise: Float[Array, ""] | float = 0.0,
    harmonics: Any = None,
    branch: Literal["positive", "negative"] = "positive",
) -> Float[Array, ""]:
    r"""The coupling at which the incoherent state loses stability; infinite where there is none.

    The system is theta' = omega + K sum_m a_m int int sin(m (psi - theta)) nu^y(dpsi) eta^x(dy) + sqrt(2 D) xi. With R the
    mean resolvent of the law in the frame of its centre, an eigenvalue zeta of the graph and the harmonic m lose stability
    where (derived here)

    $$1 = \frac{K a_m \zeta}{2} R(m D + i y)$$

    for some real y, the frequency of the wave over m. For real zeta that is at y = 0, since g is even and unimodal:

    - any law, no noise: K = 2 / (pi g(center) zeta_max) (Chiba and Medvedev);
    - with noise: K = 2 / (zeta_max int D g / (D^2 + w^2));
    - Lorentzian: K = 2 (D + Delta) / zeta_max; identical: 2 D / zeta_max, which is 0 without noise: any attraction
      synchronises identical oscillators;
    - harmonics, identical frequencies: min_m 2 D m / (a_m zeta_max).

    Directed graphs may have complex eigenvalues. For Lorentzian and identical frequencies the one with the largest real
    part decides; for other laws y is found by bisection. If all weights are non-negative the spectral radius is an
    eigenvalue (Perron and Frobenius) and |R(m D + i y)| <= R(m D), so no complex one can come before it. The linear
    threshold says nothing of transient growth, which is large in graphs far from normal.

    Args:
        measure: a `DigraphMeasure` (its `spectrum`), a `LabelGrid` or a `GraphOperator`. Of finite graphs with at most 400
            nodes all eigenvalues are looked at. Of larger ones the eigenvalue of the largest real part and that of the
            largest modulus, by Arnoldi iterations: this is exact for non-negative weights, for symmetric graphs, and for
            Lorentzian or identical frequencies, but may miss a complex eigenvalue of a signed directed graph with other laws.
        frequencies: the law g.
        noise: D >= 0, radians^2 / time.
        harmonics: a_1, a_2, ...; sin alone by default.
        branch: the smallest positive K, or the negative K of the smallest modulus.

    Returns:
        Kc, a scalar; inf (or -inf) where the incoherent state is stable at any coupling of that sign: Volterra's kernel,
        trees, and all graphs without directed cycles. NaN if the eigenvalue of a large graph was not found. Differentiable in the
        noise, the law, the coefficients and the graph (once, where the deciding eigenvalue is simple).

    Warns:
        MeanFieldWarning: for a sparse graph of a mean degree below 20, for which limits say little.

    Raises:
        TypeError: if `measure` is no graph, or `frequencies` no law.
        ValueError: for `noise` < 0, an unknown `branch`, or coefficients that are not a vector.

    Example:
        ```python
        ring = dj.DigraphMeasure.ring(radius=0.2)
        dj.critical_coupling(ring, dj.meanfield.Lorentzian(width=1.0))   # 5.0
        ```

    References:
        Kuramoto 1984, Chemical oscillations, waves, and turbulence. Sakaguchi 1988, Prog. Theor. Phys. 79 (noise).
        Chiba and Medvedev 2019, The mean field analysis of the Kuramoto model on graphs I (arXiv:1612.06493).
    """
    check_law(frequencies)
    warn_sparse_graph(measure)
    check_that(branch in ("positive", "negative"), "branch", 'be "positive" or "negative"', f"found {branch!r}")
    noise, coefficients = as_real(noise, "noise", non_negative=True), as_coefficients(harmonics)
    sign = 1 if branch == "positive" else -1
    best = jnp.asarray(jnp.inf, jnp.result_type(noise.dtype, frequencies.center.dtype))
    for side in (1, -1):
        active = sign * side * coefficients > 0
        if is_concrete(coefficients) and not bool(np.any(np.asarray(active))):
            continue
        dominant = not isinstance(frequencies, Lorentzian | Identical)
        end = spectral_end(measure, largest=side > 0, dominant=dominant)
        value = _first(frequencies, noise, sign * coefficients, active, end)
        best = jnp.where((value < best) | jnp.isnan(value), value, best)
    return sign * best


@eqx.filter_jit
def _first(
    law: AbstractFrequencyLaw, noise: Array, strengths: Array, active: Array, end: SpectralEnd
) -> Float[Array, ""]:
    """The smallest threshold over the active harmonics and the eigenvalues of one end."""
    orders = jnp.arange(1, strengths.shape[0] + 1)

    # The search is over frozen values; only the winner is differentiated.
    fixed_law, fixed_noise, fixed = lax.stop_gradient((law, noise, strengths))
    table = jax.vmap(lambda m, a: jax.vmap(lambda zeta: _threshold(fixed_law, m * fixed_noise, a * zeta))(end.values))
    # A missing eigenvalue (NaN) is the smallest, so that it is seen.
    values = jnp.where(active[:, None], table(orders, fixed), jnp.inf)
    row, column = jnp.unravel_index(jnp.argmin(values), values.shape)
    chosen = _threshold(law, orders[row] * noise, strengths[row] * end.differentiable(column))
    return jnp.where(active[row], chosen, jnp.inf)


def _threshold(law: AbstractFrequencyLaw, rate: Float[Array, ""], factor: Inexact[Array, ""]) -> Float[Array, ""]:
    """The smallest K > 0 with K factor R(rate + i y) / 2 = 1 for some y."""
    scale = jnp.abs(factor)
    eps = jnp.finfo(scale.dtype).eps
    # Rounding in the real part of an eigenvalue on the imaginary axis is no threshold.
    good = ~(factor.real <= 8 * eps * scale)
    safe = jnp.where(good, factor, 1)
    if isinstance(law, Lorentzian | Identical):
        value = 2 * law.inverse_resolvent(rate) / safe.real
    elif not jnp.iscomplexobj(factor):
        value = 2 * law.inverse_resolvent(rate) / safe
    else:
        # A real eigenvalue among complex ones, up to rounding, needs no wave.
        straight = jnp.abs(safe.imag) <= jnp.sqrt(eps) * eps**0.25 * scale
        wave = _wave(law, rate, jnp.where(straight, 1 + 1j, safe))
        value = jnp.where(straight, 2 * law.inverse_resolvent(rate) / safe.real, wave)
    return jnp.where(good, value, jnp.inf)


def _wave(law: AbstractFrequencyLaw, rate: Float[Array, ""], factor: Inexact[Array, ""]) -> Float[Array, ""]:
    """The threshold of a rotating wave: K factor = 2 / R(rate + i y), the argument of the right side growing from 0 to pi/2."""
    # The conjugate eigenvalue has the same threshold, with -y.
    factor = jax.lax.complex(factor.real, jnp.abs(factor.imag))

    def turn(y: Any, rate: Any, law: Any, factor: Any) -> Any:
        return (law.inverse_resolvent(jax.lax.complex(rate, y)) * jnp.conj(factor)).imag / jnp.abs(factor)

    fixed = lax.stop_gradient((rate, law, factor))
    quartile = law.quantile(jnp.asarray(0.75, law.center.dtype)) - law.center
    reach = 2 * (rate + 20 * quartile) * (1 + jnp.abs(factor.imag) / factor.real)
    rate = rate.astype(reach.dtype)

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        middle = (ends[0] + ends[1]) / 2
        beyond = turn(middle, *fixed) > 0
        return jnp.where(beyond, ends[0], middle), jnp.where(beyond, middle, ends[1])

    low, high = lax.fori_loop(
        0, jnp.finfo(reach.dtype).nmant + 6, halve, (jnp.zeros_like(reach), lax.stop_gradient(reach))
    )
    y = low + (high - low) / 2
    slope = jax.grad(turn)(y, *fixed)
    y = y - turn(y, rate, law, factor) / jnp.where(slope == 0, 1, slope)
    return 2 * jnp.abs(law.inverse_resolvent(jax.lax.complex(rate, y))) / jnp.abs(factor)
