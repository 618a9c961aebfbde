"""Kuramoto oscillators on limits of graphs: eigenvalues of kernels, twisted states, special graphs and couplings."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import check_positive
from ._arrays import check_count, check_non_negative, check_values, floats
from ._bessel import bessel_ie
from ._quadrature import tanh_sinh
from ._root import find_root

_Number = Float[Array, ""] | float


def ring_eigenvalue(mode: int, radius: _Number) -> Float[Array, "..."]:
    """Eigenvalue of 1{d(x, y) <= r} on the circle of length 1 for exp(2 pi i q x): sin(2 pi q r) / (pi q), and 2 r for q = 0.

    Args:
        mode: q, an integer.
        radius: r in (0, 1/2].
    """
    check_count(abs(mode), "mode", 0)
    _check_radius(radius)
    (radius,) = floats(radius)
    return 2 * radius if mode == 0 else jnp.sin(2 * jnp.pi * mode * radius) / (jnp.pi * mode)


def ring_smallest_eigenvalue(radius: float) -> tuple[int, Float[Array, ""]]:
    """The most negative eigenvalue of the ring and its mode: the first mode after the sine has turned negative or one near it.

    Args:
        radius: r in (0, 1/2), a Python number, as the mode is an integer.
    """
    _check_radius(radius)
    # |zeta_q| <= 1 / (pi q): beyond ten half-waves nothing can be lower.
    modes = range(1, math.ceil(10 / float(radius)) + 1)
    mode = min(modes, key=lambda q: math.sin(2 * math.pi * q * float(radius)) / q)
    return mode, ring_eigenvalue(mode, radius)


def small_world_eigenvalue(radius: _Number, rewiring: _Number) -> Float[Array, "..."]:
    """The largest eigenvalue of density 1 - p within the radius and p outside: 2 r + p - 4 r p."""
    _check_radius(radius)
    check_values(rewiring, "rewiring", "lie between 0 and 1", lambda p: (p >= 0) & (p <= 1))
    radius, rewiring = floats(radius, rewiring)
    return 2 * radius + rewiring - 4 * radius * rewiring


def two_block_eigenvalue(inside: _Number, across: _Number, other: _Number) -> Float[Array, "..."]:
    """The largest eigenvalue of the stochastic block model [[a, b], [b, d]] with two halves."""
    a, b, d = floats(inside, across, other)
    return ((a + d) / 2 + jnp.hypot((a - d) / 2, b)) / 2


def power_law_eigenvalue(exponent: _Number) -> Float[Array, "..."]:
    """The eigenvalue (1 - a)^2 / (1 - 2 a) of w(x) w(y), w = (1 - a) x^-a, a < 1/2."""
    _check_exponent(exponent)
    (a,) = floats(exponent)
    return (1 - a) ** 2 / (1 - 2 * a)


def power_law_field(coupling: _Number, width: _Number, exponent: _Number) -> Float[Array, ""]:
    r"""H = int w z for Lorentzian oscillators on the rank-one power law, w = (1 - a) x^-a; 0 below the critical coupling.

    The stationary Ott-Antonsen state is z = K w h / (Delta + sqrt(Delta^2 + K^2 w^2 h^2)). In u = x^(1 - 2 a) the
    equation for h
    reads 1 = (1 - a)^2 K / (1 - 2 a) int du / (Delta + sqrt(Delta^2 + (K w h)^2)), without singularity.

    Example:
        ```python
        power_law_field(3.0, 1.0, 0.25)   # 0.5918605
        ```
    """
    check_positive(width, "width")
    _check_exponent(exponent)
    coupling, width, a = floats(coupling, width, exponent)
    above = coupling * power_law_eigenvalue(a) > 2 * width
    safe = jnp.where(above, coupling, 4 * width / power_law_eigenvalue(a))
    # h = int w z <= int w = 1.
    h = _root(_power_law_excess, jnp.zeros_like(safe), jnp.ones_like(safe), safe, width, a)
    return jnp.where(above, h, 0)


def _power_law_excess(h: Array, coupling: Array, width: Array, a: Array) -> Array:
    rule = tanh_sinh(a.dtype)
    # w u^(a / (1 - 2 a)) = 1 - a; the singular factor is multiplied out.
    power = jnp.exp(a / (1 - 2 * a) * rule.log_t)
    share = power / (width * power + jnp.hypot(width * power, coupling * (1 - a) * h))
    return 1 - coupling * (1 - a) ** 2 / (1 - 2 * a) * jnp.sum(rule.weights * share)


_root = jax.jit(find_root, static_argnums=0)


def max_kernel_eigenvalue(k: int) -> Float[Array, ""]:
    """The k-th eigenvalue 4 / ((2 k - 1) pi)^2 of the kernels 1 - max(x, y) and min(x, y) on [0, 1]."""
    check_count(k, "k")
    return 4 / ((2 * k - 1) * jnp.asarray(jnp.pi, jnp.result_type(float))) ** 2


def twisted_amplitude(coupling: _Number, width: _Number, eigenvalue: _Number) -> Float[Array, "..."]:
    """|z| = sqrt(1 - 2 Delta / (K zeta_q)) of the wave |z| exp(2 pi i q x), Lorentzian oscillators; 0 below threshold."""
    check_positive(width, "width")
    coupling, width, eigenvalue = floats(coupling, width, eigenvalue)
    product = coupling * eigenvalue
    square = 1 - 2 * width / jnp.where(product > 0, product, 1)
    good = (product > 0) & (square > 0)
    return jnp.where(good, jnp.sqrt(jnp.where(good, square, 1)), 0)


def twisted_growth_rate(mode: int, winding: int, radius: _Number) -> Float[Array, "..."]:
    """Growth rate over K of mode k of the twist theta = 2 pi q x of identical oscillators on a ring.

    (zeta_{k+q} + zeta_{k-q}) / 2 - zeta_q; zeta are the `ring_eigenvalue`s.
    """
    outer = (ring_eigenvalue(mode + winding, radius) + ring_eigenvalue(mode - winding, radius)) / 2
    return outer - ring_eigenvalue(winding, radius)


def twisted_critical_fraction() -> Float[Array, ""]:
    """The coupled fraction p = 2 r at which the twist q = 1 of identical oscillators on a ring loses its stability: 0.6809228.

    The root of `twisted_growth_rate(1, 1, p / 2)`, sin(2 pi p) / (4 pi) + p / 2 = sin(pi p) / pi.

    References:
        Wiley, Strogatz and Girvan 2006, The size of the sync basin, Chaos 16, 015103.
    """
    ends = (jnp.asarray(end, jnp.result_type(float)) for end in (0.5, 1.0))
    return _root(_twist_excess, *ends)


def _twist_excess(p: Array) -> Array:
    return jnp.sin(2 * jnp.pi * p) / (4 * jnp.pi) + p / 2 - jnp.sin(jnp.pi * p) / jnp.pi


def triad_order_parameters(pairwise: _Number, higher: _Number, width: _Number = 1.0) -> Float[Array, "2"]:
    """The stationary r > 0 of r' = -Delta r + (r / 2) (1 - r^2) (K1 + K23 r^2): the stable one, then the unstable one.

    With x = r^2: K23 x^2 + (K1 - K23) x + 2 Delta - K1 = 0. NaN where there is none in (0, 1]. The two are born at
    (K1 + K23)^2 = 8 K23 Delta.

    Args:
        pairwise: K1.
        higher: K23 > 0, of three- and four-body terms together.
        width: Delta > 0 of the Lorentzian frequencies.

    References:
        Skardal and Arenas 2020, Higher order interactions in complex networks of phase oscillators promote abrupt
        synchronization switching (arXiv:1909.08057).
    """
    check_positive(higher, "higher")
    check_positive(width, "width")
    k1, k23, width = floats(pairwise, higher, width)
    discriminant = (k1 + k23) ** 2 - 8 * k23 * width
    root = jnp.sqrt(jnp.where(discriminant >= 0, discriminant, jnp.nan))
    squares = jnp.stack([k23 - k1 + root, k23 - k1 - root]) / (2 * k23)
    inside = (squares > 0) & (squares <= 1)
    return jnp.where(inside, jnp.sqrt(jnp.where(inside, squares, 1)), jnp.nan)


def volterra_growth(time: _Number, label: _Number, coupling: _Number, width: _Number) -> Float[Array, "..."]:
    r"""z(x, t) / z(x, 0) = exp(-Delta t) I_0(sqrt(2 K x t)): transient growth on Volterra's kernel 1{y < x}, linear regime.

    For Lorentzian oscillators and a constant start. The kernel has no eigenvalue but 0 and so no critical coupling, and all
    of the spectrum is at -Delta, yet at K = 8, t = 4, x = 1 a perturbation is 7.83 times as large as at the start.
    Derived here.

    Args:
        time: t >= 0.
        label: x in [0, 1].
        coupling: K >= 0.
        width: Delta >= 0.
    """
    for value, name in ((time, "time"), (label, "label"), (coupling, "coupling"), (width, "width")):
        check_non_negative(value, name)
    time, label, coupling, width = floats(time, label, coupling, width)
    square = 2 * coupling * label * time
    positive = square > 0
    x = jnp.sqrt(jnp.where(positive, square, 1))
    return jnp.where(positive, bessel_ie(0, x) * jnp.exp(x - width * time), jnp.exp(-width * time))


def adaptive_in_phase_state(lag: _Number, adaption: _Number) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Frequency and weight of the in-phase state of co-evolving oscillators: (sin a sin b, -sin b).

    The system is theta_i' = -(1/N) sum_j kappa_ij sin(theta_i - theta_j + a), kappa_ij' = -eps (kappa_ij +
    sin(theta_i - theta_j + b)).

    Args:
        lag: a, radians.
        adaption: b, radians.

    References:
        Berner, Schoell and Yanchuk 2019, Multiclusters in networks of adaptively coupled phase oscillators
        (arXiv:1809.00573).
    """
    lag, adaption = floats(lag, adaption)
    return jnp.sin(lag) * jnp.sin(adaption), -jnp.sin(adaption)


def _check_radius(radius: _Number) -> None:
    check_values(radius, "radius", "lie in (0, 1/2]", lambda r: (r > 0) & (r <= 0.5))


def _check_exponent(exponent: _Number) -> None:
    check_values(exponent, "exponent", "lie in [0, 1/2)", lambda a: (a >= 0) & (a < 0.5))
