"""Runs of self-attention with what tells plateaus apart: energy, clusters, and how long each number of clusters lasts."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Int8, PyTree

from ..._core import Status, check_count, check_that, found
from ...systems import AbstractSystem, check_system
from .attention import attention_energy
from .attention_circle import angles_to_tokens
from .clusters import count_clusters


class Metastability(eqx.Module):
    """A run of self-attention, seen at a few times.

    Attributes:
        times: (records,), the first is the start.
        energy: E there.
        num_clusters: how many clusters there are.
        lifetimes: `lifetimes[k]` is the longest time for which k clusters were seen without interruption, from the first to
            the last record of that stretch, (max_clusters + 1,).
        first_seen: the time of the first record with k clusters; infinite where there was none.
        moments: mean e^{i k th}, k = 1..K, at each record where the tokens lie on a circle; None otherwise.
        final: the last state.
        status: `OK` or `NONFINITE`.
    """

    times: Float[Array, "records"]
    energy: Float[Array, "records"]
    num_clusters: Int[Array, "records"]
    lifetimes: Float[Array, "counts"]
    first_seen: Float[Array, "counts"]
    moments: Any
    final: PyTree
    status: Int8[Array, ""]

    def __str__(self) -> str:
        last = self.num_clusters[-1]
        return f"Metastability({self.times.shape[0]} records, {last} clusters at the end, status {self.status})"


def metastability_report(
    system: AbstractSystem,
    x0: Float[Array, "..."],
    beta: Any,
    *,
    num_records: int,
    record_every: int,
    angle: Any = None,
    least_share: Any = 0.02,
    max_clusters: int = 16,
    num_moments: int = 8,
) -> Metastability:
    """Run self-attention and report the energy, the number of clusters and the lifetimes of the plateaus.

    Everything is reduced inside the loop: memory O(n d + records). Each record costs one energy, n^2 d, and the cluster search.

    Args:
        system: an `attention_flow` (states (n, d)) or a `circle_attention` (angles (n,)).
        x0: its start.
        beta: of the energy.
        num_records: records after the first, static.
        record_every: steps between two, static.
        angle: see `count_clusters`; pi/8 by default.
        least_share: likewise.
        max_clusters: likewise.
        num_moments: K, for tokens on a circle.

    Returns:
        A `Metastability`.

    Raises:
        TypeError: if `system` is no dynjax system.
        ValueError: if a count is not positive.
    """
    check_count(num_records, "num_records")
    check_count(record_every, "record_every")
    check_count(num_moments, "num_moments")
    x0 = jnp.asarray(x0)
    check_that(x0.ndim in (1, 2), "x0", "be angles (n,) or tokens (n, d)", found(x0))
    check_system(system, x0)
    circular = x0.ndim == 1 or x0.shape[1] == 2
    options = {} if angle is None else {"angle": angle}

    def look(x: Array) -> tuple[Array, Array, Array]:
        tokens = angles_to_tokens(x) if x.ndim == 1 else x
        clusters = count_clusters(tokens, least_share=least_share, max_clusters=max_clusters, **options)
        moments = circle_moments(tokens, num_moments) if circular else jnp.zeros((0,), x.dtype)
        return attention_energy(tokens, beta), clusters.count, moments

    def advance(x: Array, record: Array) -> tuple[Array, tuple[Array, Array, Array]]:
        x = lax.fori_loop(0, record_every, lambda i, y: system.step(record * record_every + i, y), x)
        return x, look(x)

    final, records = lax.scan(advance, x0, jnp.arange(num_records))
    energy, counts, moments = (jnp.concatenate([a[None], b]) for a, b in zip(look(x0), records, strict=True))
    times = jnp.arange(num_records + 1).astype(x0.dtype) * (record_every * system.dt.astype(x0.dtype))
    lifetimes, first = _plateaus(times, counts, max_clusters)
    finite = jnp.all(jnp.isfinite(final)) & jnp.all(jnp.isfinite(energy))
    status = jnp.where(finite, int(Status.OK), int(Status.NONFINITE)).astype(jnp.int8)
    return Metastability(times, energy, counts, lifetimes, first, moments if circular else None, final, status)


def circle_moments(tokens: Float[Array, "n 2"], num_moments: int) -> Array:
    """The moments mean_j e^{i k th_j}, k = 1..K, of tokens on the circle, (K,) complex."""
    phasor = lax.complex(tokens[:, 0], tokens[:, 1])
    phasor = phasor / jnp.abs(phasor)

    def moment(power: Array, _: Any) -> tuple[Array, Array]:
        power = power * phasor
        return power, jnp.mean(power)

    return lax.scan(moment, jnp.ones_like(phasor), None, length=num_moments)[1]


def _plateaus(times: Array, counts: Array, max_clusters: int) -> tuple[Array, Array]:
    """The longest stretch and the first record of every number of clusters."""
    numbers = jnp.arange(max_clusters + 1)

    def follow(carry: tuple[Array, Array, Array], record: tuple[Array, Array]) -> tuple[Any, None]:
        started, before, longest = carry
        time, count = record
        started = jnp.where(count == before, started, time)
        longest = jnp.where(numbers == count, jnp.maximum(longest, time - started), longest)
        return (started, count, longest), None

    start = (times[0], counts[0], jnp.zeros(max_clusters + 1, times.dtype))
    (_, _, longest), _ = lax.scan(follow, start, (times, counts))
    seen = counts[:, None] == numbers
    first = jnp.min(jnp.where(seen, times[:, None], jnp.inf), axis=0)
    return longest, first
