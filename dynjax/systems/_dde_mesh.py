"""Breakpoints of a delay equation with constant delays, and where each stretch between them looks back to."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

_ULPS = 64  # two breakpoints this close are one, where no derivative asks for both


class Mesh(NamedTuple):
    """Segments [edges[i], edges[i + 1]], filled up with empty ones at t1.

    Attributes:
        edges: t0, the breakpoints in ascending order, t1, ..., t1.
        sources: for each segment and delay the segment that holds t - tau; -1 for the history.
        reached: whether there were enough segments to get to t1.
    """

    edges: Float[Array, "num_segments_1"]
    sources: Int[Array, "num_segments num_delays"]
    reached: Bool[Array, ""]


def breakpoint_mesh(t0: Array, t1: Array, delays: Float[Array, " r"], num_segments: int, *, merge: bool) -> Mesh:
    """All sums t0 + n_1 tau_1 + ... + n_r tau_r below t1, in order, by merging r sorted lists.

    At t0 the derivative of the solution jumps as a rule, and each delay carries what is not smooth on, one derivative
    weaker. With all these points in the mesh, t - tau stays inside one earlier segment while t runs through a segment.
    Every point is the sum of delays that it stands for, also where several agree in value; the empty segment between two
    such points carries the derivatives with respect to the delays, which move them apart.

    Args:
        t0: the start.
        t1: the end.
        delays: positive, traced or not.
        num_segments: static room.
        merge: count points that agree up to rounding as one. Right unless derivatives with respect to the delays are
            wanted.
    """
    r = delays.shape[0]
    unit = jnp.eye(r, dtype=jnp.int32)
    near = _ULPS * jnp.finfo(t0.dtype).eps * jnp.maximum(jnp.abs(t0), jnp.abs(t1))

    def crossing(carry, i):
        edges, sums, sources = carry
        nxt = sources + 1
        times, wanted = edges[nxt] + delays, sums[nxt] + unit
        first = jnp.argmin(jax.lax.stop_gradient(times))
        time = times[first]
        together = jnp.all(wanted == wanted[first], axis=1)
        if merge:
            together |= times <= time + near
        edges = edges.at[i + 1].set(jnp.where(time < t1 - near, time, t1))
        return (edges, sums.at[i + 1].set(wanted[first]), jnp.where(together, nxt, sources)), sources

    edges = jnp.full((num_segments + 1,), t1).at[0].set(t0)
    sums = jnp.zeros((num_segments + 1, r), jnp.int32)
    carry = (edges, sums, jnp.full((r,), -1, jnp.int32))
    (edges, _, _), sources = jax.lax.scan(crossing, carry, jnp.arange(num_segments))
    return Mesh(edges, sources, edges[-1] >= t1)


def count_segments(t0: float, t1: float, delays: np.ndarray, most: int, dtype: Any) -> int:
    """How many segments `breakpoint_mesh` needs with `merge=True`; `most + 1` if there are more than `most`."""
    near = _ULPS * float(jnp.finfo(dtype).eps) * max(abs(t0), abs(t1))
    edges, sources = [t0], np.full(len(delays), -1)
    while edges[-1] < t1 and len(edges) <= most + 1:
        times = np.array([edges[k] for k in sources + 1]) + delays
        time = times.min()
        sources = np.where(times <= time + near, sources + 1, sources)
        edges.append(time if time < t1 - near else t1)
    return len(edges) - 1
