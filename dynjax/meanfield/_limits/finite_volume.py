"""A finite-volume scheme for the Vlasov-Fokker-Planck equation on fibres: conserved mass, positive density."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from ..._core import Status, check_count, check_that, is_concrete
from ...systems._flow import check_dt
from ...systems._system import AbstractMap, IntScalarLike, as_number
from .._distances.circle_distance import CellMasses
from .._measures.label_grid import LabelGrid, as_grid
from .fibre_frequencies import FibreFrequencies, fibre_frequencies
from .fibres import AbstractFibres, as_law, check_noise, fibred, forcing


class FiniteVolumeFibres(AbstractFibres, AbstractMap):
    r"""Cell averages of the density of every fibre and frequency, on equal cells of [-pi, pi).

        u_j' = -(F_{j+1/2} - F_{j-1/2}) / dx,    F = V^+ u^- + V^- u^+ - D (u_{j+1} - u_j) / dx,

    where u^-, u^+ are the values at a face from the left and the right of linear functions with minmod slopes. Time steps are
    those of Heun's method, means of Euler steps (SSP-RK2). Mass is conserved to rounding since fluxes cancel. Densities stay
    positive if

        dt (1.5 max|V| / dx + 2 D / dx^2) <= 1,

    since an Euler step then leaves in each cell part of what it held: minmod values at a face are at most 1.5 u_j where
    they flow out. The order is two, away from the extrema, where slopes are cut to zero.

    A state is (labels, nodes, cells): densities per radian, of integral one.
    """

    grid: LabelGrid
    frequencies: FibreFrequencies
    coupling: Float[Array, ""]
    noise: Float[Array, ""]
    dt: Float[Array, ""]
    num_cells: int = eqx.field(static=True)

    def __init__(
        self, grid: LabelGrid, frequencies: FibreFrequencies, coupling: Array, noise: Array, dt: Array, num_cells: int
    ):
        self.grid, self.frequencies, self.num_cells = grid, frequencies, int(num_cells)
        self.coupling, self.noise, self.dt = coupling, noise, dt

    @property
    def width(self) -> float:
        """dx, radians."""
        return 2 * np.pi / self.num_cells

    def step(self, n: IntScalarLike, x: Float[Array, "labels nodes cells"]) -> Float[Array, "labels nodes cells"]:
        """One step of Heun's method."""
        dt = self.dt.astype(x.dtype)
        y = x + dt * self._slope(x)
        return (x + y + dt * self._slope(y)) / 2

    def init(self, law: Any) -> Float[Array, "labels nodes cells"]:
        """The exact cell averages of a law, the same for all frequencies; of phases, their histogram."""
        masses = fibred(as_law(law).cell_masses(self.num_cells), self.grid)
        return jnp.broadcast_to(
            masses[:, None] / self.width, (masses.shape[0], self.frequencies.num_nodes, self.num_cells)
        )

    def local_moments(self, x: Float[Array, "labels nodes cells"], num_modes: int) -> Complex[Array, "labels modes"]:
        """The moments, averaged over the frequencies; exact for cell averages up to aliasing.

        Raises:
            ValueError: if there are not two cells for each mode at least.
        """
        check_count(num_modes, "num_modes")
        good = 2 * num_modes <= self.num_cells
        check_that(good, "num_modes", f"be at most half of the {self.num_cells} cells", f"found {num_modes}")
        waves = self._waves(np.arange(1, num_modes + 1), x.dtype)
        pair = jnp.einsum("lc,mcp->lmp", self.frequencies.mean(x), waves, precision="highest")
        return pair[..., 0] + 1j * pair[..., 1]

    def density(
        self, x: Float[Array, "labels nodes cells"], angles: Float[Array, "points"]
    ) -> Float[Array, "labels points"]:
        """Linear between the midpoints of cells."""
        place = (jnp.asarray(angles) + jnp.pi) / self.width - 0.5
        below = jnp.floor(place)
        share, cell = place - below, below.astype(int)
        u = self.frequencies.mean(x)
        left, right = (jnp.take(u, jnp.mod(cell + shift, self.num_cells), axis=1) for shift in (0, 1))
        return (1 - share) * left + share * right

    def fibre_measure(self, x: Float[Array, "labels nodes cells"]) -> CellMasses:
        """The masses of the cells."""
        return CellMasses(self.frequencies.mean(x) * self.width)

    def step_limit(self) -> Float[Array, ""]:
        """The largest step with positive densities, 1 / (1.5 max|V| / dx + 2 D / dx^2), by the bound of `speed`."""
        return _limit(self.speed(), self.noise, self.width)

    def speed(self) -> Float[Array, ""]:
        """A bound of |V| where the weights of the graph have one sign: max|omega| + |K| max |eta^x(X)|."""
        return _speed(self.grid, self.frequencies, self.coupling)

    def status(self, x: Float[Array, "labels nodes cells"]) -> Array:
        """`DIVERGED` if the step is too large or a density is negative, `NONFINITE` or else `OK`."""
        bad = (self.dt > self.step_limit()) | (jnp.min(x) < 0)
        code = jnp.where(bad, int(Status.DIVERGED), int(Status.OK))
        return jnp.where(jnp.all(jnp.isfinite(x)), code, int(Status.NONFINITE)).astype(jnp.int8)

    def _waves(self, orders: np.ndarray, dtype: Any) -> Float[Array, "modes cells 2"]:
        """Cosines and sines at the midpoints, times dx, over the factor by which cell averages shrink a moment."""
        middle = -np.pi + self.width * (np.arange(self.num_cells) + 0.5)
        # sin(n dx / 2) / (n dx / 2)
        factor = self.width / np.sinc(orders / self.num_cells)
        waves = np.stack([np.cos(np.outer(orders, middle)), np.sin(np.outer(orders, middle))], axis=-1)
        return jnp.asarray(factor[:, None, None] * waves, dtype)

    def _slope(self, u: Float[Array, "labels nodes cells"]) -> Float[Array, "labels nodes cells"]:
        waves = self._waves(np.arange(1, 2), u.dtype)[0]
        z = jnp.matmul(self.frequencies.mean(u), waves, precision="highest")
        field = forcing(self.grid, self.coupling, z)[:, :, None, None]
        # Faces on the right of the cells.
        face = -np.pi + self.width * (np.arange(self.num_cells) + 1)
        cosine, sine = jnp.asarray(np.cos(face), u.dtype), jnp.asarray(np.sin(face), u.dtype)
        velocity = self.frequencies.values.astype(u.dtype)[..., None] + field[:, 1] * cosine - field[:, 0] * sine
        ahead = jnp.roll(u, -1, axis=-1)
        rise = ahead - u
        before = jnp.roll(rise, 1, axis=-1)
        half = jnp.where(rise * before > 0, jnp.where(jnp.abs(rise) < jnp.abs(before), rise, before), 0) / 2
        upwind = jnp.where(velocity > 0, u + half, ahead - jnp.roll(half, -1, axis=-1))
        flux = velocity * upwind - self.noise.astype(u.dtype) / self.width * rise
        return (jnp.roll(flux, 1, axis=-1) - flux) / self.width


def finite_volume_fibres(
    graph: Any,
    frequencies: Any,
    coupling: Any,
    *,
    dt: Any,
    noise: Any = 0.0,
    num_labels: int | None = None,
    num_cells: int = 128,
    num_frequencies: int = 32,
) -> FiniteVolumeFibres:
    """The finite-volume scheme as a system: `vlasov(..., method="finite_volume")`, where the arguments are described."""
    check_count(num_cells, "num_cells", 8)
    check_noise(noise)
    grid = as_grid(graph, num_labels)
    nodes = fibre_frequencies(frequencies, grid.num_labels, num_frequencies)
    dt, noise, coupling = as_number(dt, "dt"), as_number(noise, "noise"), as_number(coupling, "coupling")
    check_dt(dt, positive=True)
    system = FiniteVolumeFibres(grid, nodes, coupling, noise, dt, num_cells)
    limit = system.step_limit()
    if is_concrete((limit, dt)):
        # The step that `finite_volume_step` returns is the limit itself where diffusion and speed are in balance.
        good = float(dt) <= float(limit) * (1 + 8 * float(jnp.finfo(limit.dtype).eps))
        but = f"{float(dt):.4g} is too large for the finite volume, whose densities could become negative"
        check_that(good, "dt", f"be at most 1/(1.5 max|V|/dx + 2 D/dx^2) = {float(limit):.4g}", but)
    return system


def finite_volume_step(
    graph: Any,
    frequencies: Any,
    coupling: Any,
    *,
    noise: Any = 0.0,
    num_labels: int | None = None,
    num_cells: int = 128,
    num_frequencies: int = 32,
) -> Float[Array, ""]:
    """A step that suits the finite volume, 0.4 min(dx / max|V|, dx^2 / (2 D)); densities stay positive with it."""
    grid = as_grid(graph, num_labels)
    speed = _speed(
        grid, fibre_frequencies(frequencies, grid.num_labels, num_frequencies), as_number(coupling, "coupling")
    )
    width = 2 * np.pi / num_cells
    return 0.4 / jnp.maximum(speed / width, 2 * as_number(noise, "noise") / width**2)


def _speed(grid: LabelGrid, frequencies: FibreFrequencies, coupling: Array) -> Float[Array, ""]:
    return jnp.max(jnp.abs(frequencies.values)) + jnp.abs(coupling) * jnp.max(jnp.abs(grid.operator.mass()))


def _limit(speed: Array, noise: Array, width: float) -> Float[Array, ""]:
    return 1 / (1.5 * speed / width + 2 * noise / width**2)
