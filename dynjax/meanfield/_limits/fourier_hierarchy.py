"""The Fourier hierarchy of the Vlasov-Fokker-Planck equation on fibres, advanced by an exponential integrator."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Complex, Float

from ..._core import check_count, check_that, is_concrete
from ...systems._flow import check_dt
from ...systems._system import AbstractMap, IntScalarLike, as_number
from .._distances.circle_distance import CellMasses
from .._measures.label_grid import LabelGrid, as_grid
from .._particles.validity import warn_filamentation
from .fibre_frequencies import FibreFrequencies, fibre_frequencies
from .fibres import AbstractFibres, as_law, check_noise, fibred, forcing
from .phase_laws import density_of_moments, moments_law

_Modes = Complex[Array, "labels nodes modes"]


class FourierFibres(AbstractFibres, AbstractMap):
    r"""The moments z_n = E exp(i n theta) of every fibre and frequency, n = 1, ..., N.

        z_n' = (i n omega - n^2 D) z_n + (n K / 2)(h z_{n-1} - conj(h) z_{n+1}),    z_0 = 1,  z_{N+1} = 0.

    A step is the fourth-order exponential Runge-Kutta method of Cox and Matthews: the linear part is exact, so that n^2 D does
    not limit the step, and steady states of the hierarchy are steady states of the method, whatever the step. The
    coupling is explicit: N |K h| dt below about 2 is stable. A Lorentz law enters by its pole, which adds -n Delta to the
    linear part, exact if the start does not depend on the frequency; without noise too.

    A state holds real and imaginary parts, (labels, nodes, N, 2).
    """

    grid: LabelGrid
    frequencies: FibreFrequencies
    coupling: Float[Array, ""]
    noise: Float[Array, ""]
    dt: Float[Array, ""]
    coefficients: tuple[Complex[Array, "labels nodes modes"], ...]
    num_modes: int = eqx.field(static=True)

    def __init__(
        self, grid: LabelGrid, frequencies: FibreFrequencies, coupling: Any, noise: Any, dt: Any, num_modes: int
    ):
        self.grid, self.frequencies, self.num_modes = grid, frequencies, int(num_modes)
        self.coupling, self.noise, self.dt = coupling, noise, dt
        # Here, so that no step computes them again.
        self.coefficients = _coefficients(frequencies, noise, dt, num_modes)

    def step(self, n: IntScalarLike, x: Float[Array, "labels nodes modes 2"]) -> Float[Array, "labels nodes modes 2"]:
        """One exponential Runge-Kutta step."""
        kind = jnp.result_type(x.dtype, jnp.complex64)
        whole, half, small, b1, b2, b3 = (weight.astype(kind) for weight in self.coefficients)
        z = _join(x)
        n1 = self._interaction(z)
        a = half * z + small * n1
        n2 = self._interaction(a)
        b = half * z + small * n2
        n3 = self._interaction(b)
        c = half * a + small * (2 * n3 - n1)
        n4 = self._interaction(c)
        return _split(whole * z + b1 * n1 + b2 * (n2 + n3) + b3 * n4)

    def init(self, law: Any) -> Float[Array, "labels nodes modes 2"]:
        """The moments of a law, the same for all frequencies."""
        z = fibred(as_law(law).moments(self.num_modes), self.grid)
        state = jnp.stack([jnp.real(z), jnp.imag(z)], axis=-1)[:, None]
        return jnp.broadcast_to(state, (z.shape[0], self.frequencies.num_nodes, *state.shape[2:]))

    def local_moments(self, x: Float[Array, "labels nodes modes 2"], num_modes: int) -> Complex[Array, "labels modes"]:
        """The moments, averaged over the frequencies.

        Raises:
            ValueError: if there are fewer modes.
        """
        check_count(num_modes, "num_modes")
        good = num_modes <= self.num_modes
        check_that(good, "num_modes", f"be at most the {self.num_modes} of the hierarchy", f"found {num_modes}")
        return self.frequencies.mean(_join(x[:, :, :num_modes]))

    def density(
        self, x: Float[Array, "labels nodes modes 2"], angles: Float[Array, "points"]
    ) -> Float[Array, "labels points"]:
        """The truncated Fourier series; it may be negative where modes are too few."""
        return density_of_moments(self.local_moments(x, self.num_modes), jnp.asarray(angles))

    def fibre_measure(self, x: Float[Array, "labels nodes modes 2"], num_cells: int = 1024) -> CellMasses:
        """The masses of cells, integrals of the series."""
        return CellMasses(moments_law(self.local_moments(x, self.num_modes)).cell_masses(num_cells))

    def truncation_error(self, x: Float[Array, "labels nodes modes 2"]) -> Float[Array, ""]:
        """The largest |z_N|: what the truncated hierarchy leaves out is of this size."""
        return jnp.max(jnp.linalg.norm(x[:, :, -1], axis=-1))

    def _interaction(self, z: _Modes) -> _Modes:
        """(n K / 2)(h z_{n-1} - conj(h) z_{n+1})."""
        field = _join(forcing(self.grid, self.coupling, _split(self.frequencies.mean(z[:, :, 0]))))[:, None, None]
        ones, zeros = jnp.ones_like(z[:, :, :1]), jnp.zeros_like(z[:, :, :1])
        below = jnp.concatenate([ones, z[:, :, :-1]], axis=-1)
        above = jnp.concatenate([z[:, :, 1:], zeros], axis=-1)
        orders = jnp.arange(1, self.num_modes + 1).astype(jnp.finfo(z.dtype).dtype)
        return orders / 2 * (field * below - jnp.conj(field) * above)


def fourier_fibres(
    graph: Any,
    frequencies: Any,
    coupling: Any,
    *,
    dt: Any,
    noise: Any = 0.0,
    num_labels: int | None = None,
    num_modes: int = 32,
    num_frequencies: int = 32,
) -> FourierFibres:
    """The Fourier hierarchy as a system: `vlasov(..., method="fourier")`, where the arguments are described."""
    check_count(num_modes, "num_modes", 2)
    check_noise(noise)
    grid = as_grid(graph, num_labels)
    nodes = fibre_frequencies(frequencies, grid.num_labels, num_frequencies, pole=True)
    dt, noise = as_number(dt, "dt"), as_number(noise, "noise")
    check_dt(dt, positive=True)
    if is_concrete(nodes.width) and not bool(jnp.any(nodes.width > 0)):
        warn_filamentation(noise, num_modes)
    return FourierFibres(grid, nodes, as_number(coupling, "coupling"), noise, dt, num_modes)


def _coefficients(frequencies: FibreFrequencies, noise: Array, dt: Array, num_modes: int) -> tuple[Array, ...]:
    """exp(h L), exp(h L / 2), phi_1(h L / 2) h / 2, and h times the weights of the four stages, for the linear part L."""
    orders = jnp.arange(1, num_modes + 1)
    turn = dt * frequencies.values[..., None] * orders
    decay = dt * (orders**2 * noise + orders * frequencies.width)
    decay, turn = jnp.broadcast_arrays(*(part.astype(jnp.result_type(decay, turn)) for part in (decay, turn)))
    x = lax.complex(-decay, turn)
    whole, phi1, phi2, phi3 = _phi(x, 3)
    half, small = _phi(x / 2, 1)
    first, middle, last = phi1 - 3 * phi2 + 4 * phi3, 2 * (phi2 - 2 * phi3), 4 * phi3 - phi2
    return whole, half, dt / 2 * small, dt * first, dt * middle, dt * last


def _phi(x: Complex[Array, "*shape"], order: int) -> list[Complex[Array, "*shape"]]:
    """phi_0, ..., phi_order: phi_0 = exp, phi_{k+1}(x) = (phi_k(x) - 1/k!) / x, by their series near 0."""
    near = jnp.real(x) ** 2 + jnp.imag(x) ** 2 < 1
    small, large = jnp.where(near, x, 0), jnp.where(near, 1, x)
    result, value = [jnp.exp(x)], jnp.exp(large)
    for k in range(order):
        value = (value - 1 / math.factorial(k)) / large
        series = jnp.zeros_like(x)
        for j in reversed(range(18)):
            series = series * small + 1 / math.factorial(j + k + 1)
        result.append(jnp.where(near, series, value))
    return result


def _join(pair: Float[Array, "*shape 2"]) -> Complex[Array, "*shape"]:
    return lax.complex(pair[..., 0], pair[..., 1])


def _split(z: Complex[Array, "*shape"]) -> Float[Array, "*shape 2"]:
    return jnp.stack([jnp.real(z), jnp.imag(z)], axis=-1)
