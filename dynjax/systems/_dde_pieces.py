"""The past of a delay equation: the dense output of earlier segments, looked up and evaluated."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree


class Pieces(NamedTuple):
    """Dense output of segments, in each of which time runs from 0 to 1.

    Attributes:
        knots: the steps taken, filled up with infinity, `(..., max_steps + 1)`.
        infos: what the solver's interpolation needs, a leading axis of steps (after the axis of segments).
    """

    knots: Float[Array, "... max_steps_1"]
    infos: PyTree


def empty_pieces(num_segments: int, max_steps: int, like: PyTree, dtype: Any) -> Pieces:
    """Room for the pieces: one step each, all zero, so that looking there by mistake gives a finite number."""
    knots = jnp.full((num_segments, max_steps + 1), jnp.inf, dtype).at[:, 0].set(0).at[:, 1].set(1)
    infos = jax.tree_util.tree_map(lambda leaf: jnp.zeros((num_segments, *leaf.shape), leaf.dtype), like)
    return Pieces(knots, infos)


def take_piece(pieces: Pieces, index: Array) -> Pieces:
    """One segment's piece."""
    pick = lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, 0, keepdims=False, allow_negative_indices=False)
    return jax.tree_util.tree_map(pick, pieces)


def put_piece(pieces: Pieces, index: Array, piece: Pieces) -> Pieces:
    """The pieces with one replaced."""
    put = lambda leaf, value: jax.lax.dynamic_update_index_in_dim(leaf, value, index, 0, allow_negative_indices=False)
    return jax.tree_util.tree_map(put, pieces, piece)


def local_interpolation(piece: Pieces, interpolation: Callable[..., Any], s: Array) -> Any:
    """The solver's interpolation on the step that holds the time `s` in [0, 1]."""
    last = jnp.sum(jnp.isfinite(piece.knots)) - 2
    step = jnp.clip(jnp.searchsorted(piece.knots, s, side="left", method="scan_unrolled") - 1, 0, last)
    infos = jax.tree_util.tree_map(lambda leaf: leaf[step], piece.infos)
    return interpolation(t0=piece.knots[step], t1=piece.knots[step + 1], **infos)


def evaluate_pieces(
    pieces: Pieces,
    interpolation: Callable[..., Any],
    edges: Float[Array, "num_segments_1"],
    ends: Float[Array, " num_segments"],
    t: Array,
) -> PyTree:
    """The solution at time `t`; at an edge that of the segment before it. Time 1 of a piece lies at its entry of `ends`."""
    k = jnp.clip(jnp.searchsorted(edges, t, side="left") - 1, 0, edges.shape[0] - 2)
    length = ends[k] - edges[k]
    s = jnp.clip((t - edges[k]) / jnp.where(length > 0, length, 1), 0, 1)
    return _between(pieces, interpolation, k, s)


def _between(pieces: Pieces, interpolation: Callable[..., Any], k: Array, s: Array) -> PyTree:
    knots = pieces.knots[k]
    last = jnp.sum(jnp.isfinite(knots)) - 2
    step = jnp.clip(jnp.searchsorted(knots, s, side="left", method="scan_unrolled") - 1, 0, last)
    infos = jax.tree_util.tree_map(lambda leaf: leaf[k, step], pieces.infos)
    return interpolation(t0=knots[step], t1=knots[step + 1], **infos).evaluate(s)
