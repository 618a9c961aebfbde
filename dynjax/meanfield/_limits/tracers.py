"""Quantile tracers: characteristics of the Vlasov equation that start at quantiles of the fibres."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from ..._core import check_count, check_that, is_concrete
from ...systems import Flow
from ...systems._system import IntScalarLike, as_number
from .._distances.circle_distance import Points
from .._measures.label_grid import LabelGrid, as_grid
from .fibre_frequencies import FibreFrequencies, fibre_frequencies
from .fibres import AbstractFibres, as_law, fibred, forcing
from .phase_laws import SampledPhases, wrap


class TracerFibres(AbstractFibres):
    """Phases of equal weight in every fibre and frequency, moved by the velocity of the limit.

        theta_k(x)' = omega + K Im(h(x) exp(-i theta_k)),    h(x) = int z(y) eta^x(dy).

    Mass and positivity are exact. Tracers that start at the quantiles of the levels (k + 1/2) / n stay there, for
    characteristics in one dimension do not cross; a smooth function of the phase is then summed by the midpoint rule in the
    level, with spectral accuracy while the fibre is smooth. W1 to the fibre is 1/(4 n) to leading order, on the circle of
    length 1.

    A state holds phases in radians, (labels, nodes, tracers); they are not reduced to one turn.
    """

    grid: LabelGrid
    frequencies: FibreFrequencies
    coupling: Float[Array, ""]
    dt: Float[Array, ""]
    num_tracers: int = eqx.field(static=True)
    method: str = eqx.field(static=True)

    def __init__(
        self, grid: LabelGrid, frequencies: FibreFrequencies, coupling: Array, dt: Any, num_tracers: int, method: str
    ):
        self.grid, self.frequencies, self.coupling = grid, frequencies, coupling
        self.num_tracers, self.method = int(num_tracers), method
        self.dt = Flow(_Velocity(grid, frequencies, coupling), dt, method=method).dt

    @property
    def flow(self) -> Flow:
        """The equation as a flow."""
        return Flow(_Velocity(self.grid, self.frequencies, self.coupling), self.dt, method=self.method)

    def step(self, n: IntScalarLike, x: Float[Array, "labels nodes tracers"]) -> Float[Array, "labels nodes tracers"]:
        """One Runge-Kutta step."""
        return self.flow.step(n, x)

    def tangent_step(
        self, n: IntScalarLike, x: Float[Array, "labels nodes tracers"], v: Float[Array, "k labels nodes tracers"]
    ) -> tuple[Array, Array]:
        """One Runge-Kutta step of the state and of stacked tangents."""
        return self.flow.tangent_step(n, x, v)

    def init(self, law: Any) -> Float[Array, "labels nodes tracers"]:
        """The midpoint quantiles of a law, the same for all frequencies; as many phases as tracers are taken as they are."""
        law = as_law(law)
        if isinstance(law, SampledPhases) and law.angles.shape[-1] == self.num_tracers:
            angles = law.angles
        else:
            angles = law.midpoints(self.num_tracers)
        angles = fibred(angles, self.grid)[:, None]
        return jnp.broadcast_to(angles, (angles.shape[0], self.frequencies.num_nodes, self.num_tracers))

    def local_moments(self, x: Float[Array, "labels nodes tracers"], num_modes: int) -> Complex[Array, "labels modes"]:
        """The moments, averaged over tracers and frequencies."""
        check_count(num_modes, "num_modes")
        orders = jnp.arange(1, num_modes + 1)[:, None]
        waves = x[:, :, None, :] * orders.astype(x.dtype)
        z = jnp.mean(jnp.cos(waves), axis=-1) + 1j * jnp.mean(jnp.sin(waves), axis=-1)
        return self.frequencies.mean(z)

    def density(
        self, x: Float[Array, "labels nodes tracers"], angles: Float[Array, "points"]
    ) -> Float[Array, "labels points"]:
        """The tracer weight over the arc between two neighbours, averaged over the frequencies."""
        turns = jnp.asarray(angles).astype(x.dtype)

        def single(phases: Float[Array, "tracers"]) -> Float[Array, "points"]:
            ordered = jnp.sort(wrap(phases))
            ends = jnp.concatenate([ordered, ordered[:1] + 2 * jnp.pi])
            arc = jnp.mod(jnp.searchsorted(ordered, wrap(turns), side="right") - 1, self.num_tracers)
            return 1 / (self.num_tracers * jnp.diff(ends)[arc])

        return self.frequencies.mean(jax.vmap(jax.vmap(single))(x))

    def fibre_measure(self, x: Float[Array, "labels nodes tracers"]) -> Points:
        """All tracers of a fibre with their weights."""
        weights = self.frequencies.weights.astype(x.dtype)[:, None] / self.num_tracers
        flat = (x.shape[0], self.frequencies.num_nodes * self.num_tracers)
        return Points(x.reshape(flat), jnp.broadcast_to(weights, x.shape).reshape(flat))


class _Velocity(eqx.Module):
    grid: LabelGrid
    frequencies: FibreFrequencies
    coupling: Float[Array, ""]

    def __call__(self, t: Any, x: Float[Array, "labels nodes tracers"], args: Any) -> Float[Array, "..."]:
        cosine, sine = jnp.cos(x), jnp.sin(x)
        z = jnp.stack([jnp.mean(cosine, axis=-1), jnp.mean(sine, axis=-1)], axis=-1)
        field = forcing(self.grid, self.coupling, self.frequencies.mean(z))[:, :, None, None]
        return self.frequencies.values.astype(x.dtype)[..., None] + field[:, 1] * cosine - field[:, 0] * sine


def tracer_fibres(
    graph: Any,
    frequencies: Any,
    coupling: Any,
    *,
    dt: Any,
    noise: Any = 0.0,
    num_labels: int | None = None,
    num_tracers: int = 64,
    num_frequencies: int = 32,
    method: str = "rk4",
) -> TracerFibres:
    """Quantile tracers as a system: `vlasov(..., method="tracers")`, where the arguments are described."""
    check_count(num_tracers, "num_tracers")
    without = is_concrete(noise) and bool(jnp.all(jnp.asarray(noise) == 0))
    shown = noise if is_concrete(noise) else "a traced value"
    check_that(without, "noise", "be 0 for tracers", f"found {shown}; take 'fourier' or 'finite_volume'")
    grid = as_grid(graph, num_labels)
    nodes = fibre_frequencies(frequencies, grid.num_labels, num_frequencies)
    coupling = as_number(coupling, "coupling")
    return TracerFibres(grid, nodes, coupling, dt, num_tracers, method)
