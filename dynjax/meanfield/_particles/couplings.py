"""How oscillators act on each other, as expansions in phasors: a few averages over the drivers, and no sine on an edge."""

import abc
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import check_that, found, is_concrete
from .._graphs.graph_operator import AllToAll, GraphOperator
from .phases import Phases, powers


def averages(graph: GraphOperator, phases: Phases, count: int) -> list[Phases]:
    """The fields h_m = A u^m that the nodes feel, m = 1, ..., count.

    All columns go through the graph together, so that the indices of a sparse one are read once.
    """
    moments = powers(phases, count)
    if isinstance(graph, AllToAll):
        # One number for each lane; the operator itself would write N copies of it.
        weight = graph.weight.astype(phases.cos.dtype)
        return [Phases(weight * jnp.mean(u.cos, axis=0), weight * jnp.mean(u.sin, axis=0)) for u in moments]
    columns = jnp.stack([part for u in moments for part in (u.cos, u.sin)], axis=1)
    fields = graph.apply(columns)
    return [Phases(fields[:, 2 * m], fields[:, 2 * m + 1]) for m in range(count)]


class AbstractInteraction(eqx.Module):
    """A coupling whose action on node i is sum_m Im(H_m conj(u_i)^m), with forces H_m made of the fields h_m."""

    num_moments: eqx.AbstractVar[int]

    @abc.abstractmethod
    def forces(self, fields: list[Phases]) -> list[Phases]:
        """H_1, H_2, ... from the fields h_1, ..., h_num_moments."""

    def speed(self, phases: Phases, fields: list[Phases]) -> Float[Array, "nodes *lanes"]:
        """The part of theta' that comes from the others, radians per unit of time."""
        forces = self.forces(fields)
        total: Any = 0.0
        for force, u in zip(forces, powers(phases, len(forces)), strict=True):
            total = total + (force.sin * u.cos - force.cos * u.sin)
        return total


class Pairwise(AbstractInteraction):
    """K sum_m c_m sin(m (theta_j - theta_i) - lag_m), averaged over the drivers j.

    Args:
        coupling: K, traced; a scalar, or one value for each lane.
        amplitudes: c_1, ..., c_M; `(1,)` if not given.
        lag: phase lags in radians, a scalar for all harmonics or one for each. With one harmonic this is the
            Sakaguchi-Kuramoto coupling sin(theta_j - theta_i - lag).

    Raises:
        ValueError: if the amplitudes are no vector, or the lags fit neither a scalar nor them.
    """

    coupling: Float[Array, "*lanes"]
    amplitudes: Float[Array, "harmonics"] | None
    lags: Float[Array, "harmonics"] | None
    num_moments: int = eqx.field(static=True)

    def __init__(self, coupling: Any, amplitudes: Any = None, lag: Any = 0.0):
        self.coupling = jnp.asarray(coupling, jnp.result_type(coupling, float))
        self.amplitudes = None if amplitudes is None else jnp.asarray(amplitudes, jnp.result_type(float))
        if self.amplitudes is not None:
            good = self.amplitudes.ndim == 1 and self.amplitudes.shape[0] > 0
            check_that(good, "harmonics", "be a vector of amplitudes c_1, ..., c_M", found(self.amplitudes))
        self.num_moments = 1 if self.amplitudes is None else self.amplitudes.shape[0]
        # Without a lag nothing is multiplied.
        none = is_concrete(lag) and not np.any(np.asarray(lag))
        good = np.shape(lag) in ((), (self.num_moments,))
        check_that(good, "lag", f"be a scalar or hold {self.num_moments} values", f"its shape is {np.shape(lag)}")
        self.lags = None if none else jnp.broadcast_to(jnp.asarray(lag, jnp.result_type(float)), (self.num_moments,))

    def forces(self, fields: list[Phases]) -> list[Phases]:
        """K c_m exp(-i lag_m) h_m."""
        out = []
        for m, h in enumerate(fields):
            scale = self.coupling if self.amplitudes is None else self.coupling * self.amplitudes[m]
            scale = scale.astype(h.cos.dtype)
            if self.lags is not None:
                lag = self.lags[m].astype(h.cos.dtype)
                h = h * Phases(jnp.cos(lag), -jnp.sin(lag))
            out.append(Phases(scale * h.cos, scale * h.sin))
        return out


class HigherOrder(AbstractInteraction):
    """Pairs, triads and four-body terms that factor through two fields, so that a step costs as much as with pairs.

    Averaged over all drivers j, k, l,

        K1 sin(theta_j - theta_i) + K2 sin(2 theta_j - theta_k - theta_i) + K3 sin(theta_j + theta_k - theta_l - theta_i)
            = Im(conj(u_i) H),    H = K1 h_1 + K2 h_2 conj(h_1) + K3 |h_1|^2 h_1.

    Args:
        pairwise: K1.
        triadic: K2.
        quartic: K3.
    """

    pairwise: Float[Array, "*lanes"]
    triadic: Float[Array, "*lanes"]
    quartic: Float[Array, "*lanes"]
    num_moments: int = eqx.field(static=True)

    def __init__(self, pairwise: Any, triadic: Any = 0.0, quartic: Any = 0.0):
        values = (pairwise, triadic, quartic)
        self.pairwise, self.triadic, self.quartic = (jnp.asarray(v, jnp.result_type(v, float)) for v in values)
        self.num_moments = 2

    def forces(self, fields: list[Phases]) -> list[Phases]:
        """The one force H."""
        first, second = fields
        dtype = first.cos.dtype
        pairwise, triadic, quartic = (k.astype(dtype) for k in (self.pairwise, self.triadic, self.quartic))
        along = pairwise + quartic * (first.cos**2 + first.sin**2)
        triad = second * Phases(first.cos, -first.sin)
        return [Phases(along * first.cos + triadic * triad.cos, along * first.sin + triadic * triad.sin)]
