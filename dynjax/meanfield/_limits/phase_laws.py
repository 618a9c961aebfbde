"""Laws of phases on the circle, one for each fibre: the initial states of limits."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Complex, Float

from ..._core import check_count, check_that, found, is_concrete

_NODES = 512
_BISECTIONS = 64


class AbstractPhaseLaw(eqx.Module):
    """A probability law of phases on the circle, in radians.

    Parameters are scalars, or arrays with one entry for each fibre; every method broadcasts over them.
    """

    @abc.abstractmethod
    def moments(self, num_modes: int) -> Complex[Array, "*fibres modes"]:
        """The Fourier moments z_n = int exp(i n theta) nu(dtheta), n = 1, ..., `num_modes`."""

    @abc.abstractmethod
    def distribution(self, angles: Float[Array, "points"]) -> Float[Array, "*fibres points"]:
        """The mass of [-pi, theta], for -pi <= theta <= pi."""

    @abc.abstractmethod
    def quantile(self, levels: Float[Array, "points"]) -> Float[Array, "*fibres points"]:
        """Phases with the given masses to their left, for levels in (0, 1); smooth in the level where the law is."""

    def midpoints(self, num_points: int) -> Float[Array, "*fibres points"]:
        """The quantiles of the levels (i + 1/2) / n: a deterministic sample of equal weights."""
        check_count(num_points, "num_points")
        return self.quantile((jnp.arange(num_points) + 0.5) / num_points)

    def cell_masses(self, num_cells: int) -> Float[Array, "*fibres cells"]:
        """The masses of equal cells of the circle, the first of which begins at -pi."""
        check_count(num_cells, "num_cells")
        return jnp.diff(self.distribution(jnp.linspace(-jnp.pi, jnp.pi, num_cells + 1)), axis=-1)


class UniformPhases(AbstractPhaseLaw):
    """The uniform law: the incoherent state."""

    def moments(self, num_modes: int) -> Complex[Array, "*fibres modes"]:
        """Zero."""
        return jnp.zeros(num_modes, _complex(jnp.result_type(float)))

    def distribution(self, angles: Float[Array, "points"]) -> Float[Array, "*fibres points"]:
        """Linear."""
        return (jnp.asarray(angles) + jnp.pi) / (2 * jnp.pi)

    def quantile(self, levels: Float[Array, "points"]) -> Float[Array, "*fibres points"]:
        """Linear."""
        return (2 * jnp.asarray(levels) - 1) * jnp.pi


class PoissonKernel(AbstractPhaseLaw):
    """The Poisson kernel (wrapped Cauchy law), the law on the Ott-Antonsen manifold.

        rho(theta) = (1 - r^2) / (2 pi (1 - 2 r cos(theta - phase) + r^2)),    z_n = (r exp(i phase))^n.

    Args:
        radius: r, at least 0 and below 1.
        phase: of the first moment, radians.
    """

    radius: Float[Array, "*fibres"]
    phase: Float[Array, "*fibres"]

    def __init__(self, radius: Any, phase: Any = 0.0):
        if is_concrete(radius):
            values = np.asarray(radius)
            good = bool(np.all((values >= 0) & (values < 1)))
            check_that(good, "radius", "be at least 0 and below 1", f"found {radius}")
        self.radius, self.phase = _together(radius, phase)

    def moments(self, num_modes: int) -> Complex[Array, "*fibres modes"]:
        """z^n."""
        orders = jnp.arange(1, num_modes + 1)
        size, turn = self.radius[..., None] ** orders, self.phase[..., None] * orders
        return lax.complex(size * jnp.cos(turn), size * jnp.sin(turn))

    def distribution(self, angles: Float[Array, "points"]) -> Float[Array, "*fibres points"]:
        """By the half-angle formula, tan(u/2) = (1 + r)/(1 - r) tan((theta - phase)/2)."""
        factor = ((1 + self.radius) / (1 - self.radius))[..., None]
        lifted = lambda theta: _stretch(theta, factor)
        turned = jnp.asarray(angles) - self.phase[..., None]
        return (lifted(turned) - lifted(-jnp.pi - self.phase[..., None])) / (2 * jnp.pi)

    def quantile(self, levels: Float[Array, "points"]) -> Float[Array, "*fibres points"]:
        """The Moebius images of phases that are spread evenly, levels counted from `phase` - pi.

        Equidistant levels therefore integrate smooth functions with spectral accuracy.
        """
        factor = ((1 - self.radius) / (1 + self.radius))[..., None]
        return self.phase[..., None] + _stretch((2 * jnp.asarray(levels) - 1) * jnp.pi, factor)


class _FourierLaw(AbstractPhaseLaw):
    """A law known by its moments; the distribution is their sum, the quantile its inverse."""

    def distribution(self, angles: Float[Array, "points"]) -> Float[Array, "*fibres points"]:
        """By the Fourier series."""
        angles = jnp.asarray(angles)
        z = self.moments(_NODES // 2)
        orders = jnp.arange(1, _NODES // 2 + 1)
        odd = jnp.where(orders % 2 == 1, -1.0, 1.0).astype(angles.dtype)
        waves = orders[:, None] * angles
        # int_{-pi}^theta of Re(conj(z_n) e^{i n s}) / pi.
        real, imag = (part[..., None] / orders[:, None] for part in (jnp.real(z), jnp.imag(z)))
        series = real * jnp.sin(waves) - imag * (jnp.cos(waves) - odd[:, None])
        return (angles + jnp.pi) / (2 * jnp.pi) + jnp.sum(series, axis=-2) / jnp.pi

    @eqx.filter_jit
    def quantile(self, levels: Float[Array, "points"]) -> Float[Array, "*fibres points"]:
        """By bisection, differentiated implicitly by one step of Newton."""
        z = self.moments(1)[..., 0]
        shape = (*z.shape, *jnp.shape(levels))
        levels = jnp.broadcast_to(jnp.asarray(levels), shape)
        fixed = lax.stop_gradient(self)

        def halve(ends: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
            low, high = ends
            middle = (low + high) / 2
            above = fixed._at(middle) > levels
            return (jnp.where(above, low, middle), jnp.where(above, middle, high)), None

        start = (jnp.full(shape, -jnp.pi, levels.dtype), jnp.full(shape, jnp.pi, levels.dtype))
        (low, high), _ = lax.scan(halve, start, length=_BISECTIONS)
        root = lax.stop_gradient((low + high) / 2)
        return root + (levels - self._at(root)) / fixed._density(root)

    def _at(self, angles: Float[Array, "*fibres points"]) -> Float[Array, "*fibres points"]:
        """The distribution at points of each fibre."""
        if angles.ndim == 1:
            return self.distribution(angles)
        z = self.moments(_NODES // 2)
        return jax.vmap(lambda z, theta: _Moments(z).distribution(theta))(z, angles)

    def _density(self, angles: Float[Array, "*fibres points"]) -> Float[Array, "*fibres points"]:
        return density_of_moments(self.moments(_NODES // 2), angles)


class _Moments(_FourierLaw):
    """A law given by its moments."""

    values: Complex[Array, "*fibres modes"]

    def moments(self, num_modes: int) -> Complex[Array, "*fibres modes"]:
        return self.values[..., :num_modes]


class VonMises(_FourierLaw):
    """The von Mises law, rho(theta) proportional to exp(concentration cos(theta - phase)).

    Moments are trapezoidal sums over 512 nodes, to rounding for concentrations up to about 1000.

    Args:
        concentration: kappa, at least 0.
        phase: radians.
    """

    concentration: Float[Array, "*fibres"]
    phase: Float[Array, "*fibres"]

    def __init__(self, concentration: Any, phase: Any = 0.0):
        if is_concrete(concentration):
            good = bool(np.all(np.asarray(concentration) >= 0))
            check_that(good, "concentration", "be at least 0", f"found {concentration}")
        self.concentration, self.phase = _together(concentration, phase)

    def moments(self, num_modes: int) -> Complex[Array, "*fibres modes"]:
        """I_n(kappa) / I_0(kappa) exp(i n phase)."""
        orders = jnp.arange(1, num_modes + 1)
        nodes = jnp.arange(_NODES) * (2 * jnp.pi / _NODES)
        density = jnp.exp(self.concentration[..., None] * (jnp.cos(nodes) - 1))
        waves = jnp.cos(orders * nodes[:, None]).astype(density.dtype)
        size = jnp.matmul(density, waves, precision=lax.Precision.HIGHEST) / jnp.sum(density, axis=-1, keepdims=True)
        # Beyond the aliasing limit, where the moments are below rounding.
        size = jnp.where(orders < _NODES // 2, size, 0)
        turn = self.phase[..., None] * orders
        return lax.complex(size * jnp.cos(turn), size * jnp.sin(turn))


class CosinePhases(_FourierLaw):
    """A perturbation of the uniform law in one mode, rho = (1 + amplitude cos(mode (theta - phase))) / (2 pi).

    Args:
        amplitude: at most 1 in absolute value.
        mode: static.
        phase: radians.
    """

    amplitude: Float[Array, "*fibres"]
    phase: Float[Array, "*fibres"]
    mode: int = eqx.field(static=True)

    def __init__(self, amplitude: Any, mode: int = 1, phase: Any = 0.0):
        check_count(mode, "mode")
        if is_concrete(amplitude):
            good = bool(np.all(np.abs(np.asarray(amplitude)) <= 1))
            check_that(good, "amplitude", "be at most 1 in absolute value", f"found {amplitude}")
        self.amplitude, self.phase = _together(amplitude, phase)
        self.mode = mode

    def moments(self, num_modes: int) -> Complex[Array, "*fibres modes"]:
        """Half the amplitude in one mode."""
        only = jnp.arange(1, num_modes + 1) == self.mode
        turn = self.mode * self.phase
        z = lax.complex(self.amplitude * jnp.cos(turn), self.amplitude * jnp.sin(turn)) / 2
        return jnp.where(only, z[..., None], 0)


class SampledPhases(AbstractPhaseLaw):
    """The empirical law of given phases, all of one weight.

    Args:
        angles: radians, (points,) for all fibres or (fibres, points).
    """

    angles: Float[Array, "*fibres points"]

    def __init__(self, angles: Any):
        angles = jnp.asarray(angles)
        check_that(
            angles.ndim in (1, 2) and jnp.issubdtype(angles.dtype, jnp.floating),
            "angles",
            "be real with the axes (points,) or (fibres, points)",
            found(angles),
        )
        self.angles = angles

    def moments(self, num_modes: int) -> Complex[Array, "*fibres modes"]:
        """Means of powers."""
        waves = self.angles[..., None, :] * jnp.arange(1, num_modes + 1)[:, None]
        return lax.complex(jnp.mean(jnp.cos(waves), axis=-1), jnp.mean(jnp.sin(waves), axis=-1))

    def distribution(self, angles: Float[Array, "points"]) -> Float[Array, "*fibres points"]:
        """The share of the sample in [-pi, theta]."""
        return jnp.mean(
            wrap(self.angles)[..., None, :] <= jnp.asarray(angles)[:, None], axis=-1, dtype=self.angles.dtype
        )

    def quantile(self, levels: Float[Array, "points"]) -> Float[Array, "*fibres points"]:
        """Sorted phases of [-pi, pi); the midpoints of as many levels as there are phases are these phases."""
        ordered = jnp.sort(wrap(self.angles), axis=-1)
        count = self.angles.shape[-1]
        rank = jnp.clip(jnp.floor(jnp.asarray(levels) * count).astype(int), 0, count - 1)
        return ordered[..., rank]


def density_of_moments(
    z: Complex[Array, "*fibres modes"], angles: Float[Array, "*fibres points"]
) -> Float[Array, "*fibres points"]:
    """The density (1 + 2 Re sum_n conj(z_n) exp(i n theta)) / (2 pi) of the moments z_1, ..., z_N."""
    waves = jnp.arange(1, z.shape[-1] + 1)[:, None] * angles[..., None, :]
    series = jnp.real(z)[..., None] * jnp.cos(waves) + jnp.imag(z)[..., None] * jnp.sin(waves)
    return (1 + 2 * jnp.sum(series, axis=-2)) / (2 * jnp.pi)


def moments_law(z: Complex[Array, "*fibres modes"]) -> AbstractPhaseLaw:
    """The law with the moments z_1, ..., z_N and no others."""
    padding = [(0, 0)] * (z.ndim - 1) + [(0, max(0, _NODES // 2 - z.shape[-1]))]
    return _Moments(jnp.pad(z, padding))


def wrap(angles: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Angles in [-pi, pi)."""
    return jnp.mod(angles + jnp.pi, 2 * jnp.pi) - jnp.pi


def _stretch(theta: Float[Array, "*shape"], factor: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The lift of theta -> 2 atan(factor tan(theta / 2)) to the line, smooth for all theta."""
    sine, cosine = jnp.sin(theta), jnp.cos(theta)
    return theta + 2 * jnp.arctan2((factor - 1) * sine, (factor + 1) + (1 - factor) * cosine)


def _together(*values: Any) -> tuple[Array, ...]:
    dtype = jnp.result_type(float, *(value for value in values if hasattr(value, "dtype")))
    return tuple(jnp.broadcast_arrays(*(jnp.asarray(value, dtype) for value in values)))


def _complex(dtype: Any) -> Any:
    return jnp.result_type(dtype, jnp.complex64)
