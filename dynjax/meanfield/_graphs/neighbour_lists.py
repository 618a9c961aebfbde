"""Sums over neighbours by gathers alone: the kernel of sparse graphs, without scatter and without padding."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from ..._core import check_count

# Rows of up to this length are unrolled. Longer ones need fewer partial sums, which pays for many columns, but take longer
# to compile: a program holds up to width (width + 1) / 2 gathers for each level.
_SMALL, _LARGE = 8, 16
_MANY_EDGES = 100_000


class NeighbourLists(eqx.Module):
    """For each of N nodes a list of nodes, stored so that sums over lists are unrolled gathers.

    A list is cut into rows of 8 entries (16 in large graphs) and a shorter rest. Rows of equal length lie side by side, entry
    d of all of them contiguous, hence nothing is padded, whatever the degrees. Lists of several rows are summed by further
    levels of the same kind over the partial sums. At last one gather puts the sums into the order of the nodes.

    Attributes:
        indices: for each level the flat list of what is gathered; those of the first level are node numbers, in the order
            of the "slots", in which weights are given.
        owners: for each row of the first level the node whose list it is a part of.
        place: where the sum for each node lies among the results of all levels; None if they lie in order already.
        rows: for each level pairs (length of a row, number of such rows).
        num_nodes: N.
    """

    indices: tuple[Int[Array, "slots"], ...]
    owners: Int[Array, "rows"]
    place: Int[Array, "nodes"] | None
    rows: tuple[tuple[tuple[int, int], ...], ...] = eqx.field(static=True)
    num_nodes: int = eqx.field(static=True)

    @staticmethod
    def build(
        owners: Int[np.ndarray, "edges"],
        entries: Int[np.ndarray, "edges"],
        num_nodes: int,
        width: int | None = None,
    ) -> tuple["NeighbourLists", Int[np.ndarray, "edges"]]:
        """The lists of all `entries` by `owners`, on the host, in rows of at most `width`.

        Returns:
            The lists, and for each slot the number of the edge that it holds.
        """
        if width is None:
            width = _LARGE if len(owners) > _MANY_EDGES else _SMALL
        check_count(width, "width", least=2)
        by_owner = _order(owners, entries, num_nodes)
        lengths = np.bincount(owners, minlength=num_nodes)
        nodes = np.arange(num_nodes)
        starts = np.cumsum(lengths) - lengths
        items = by_owner  # what the current level sums over: first the edges, then partial sums
        place = np.full(num_nodes, -1, np.int64)
        levels: list[np.ndarray] = []
        rows: list[tuple[tuple[int, int], ...]] = []
        offset = 0
        while True:
            some = lengths > 0
            nodes, starts, lengths = nodes[some], starts[some], lengths[some]
            counts = -(-lengths // width)
            first = np.cumsum(counts) - counts
            owner = np.repeat(np.arange(len(nodes)), counts)
            piece = np.arange(len(owner)) - first[owner]
            piece_start = starts[owner] + piece * width
            piece_length = np.minimum(lengths[owner] - piece * width, width)
            order = np.argsort(-piece_length, kind="stable")
            position = np.empty(len(order), np.int64)
            position[order] = np.arange(len(order))
            sizes, flat = [], []
            for length in range(width, 0, -1):
                begin = piece_start[order][piece_length[order] == length]
                if len(begin):
                    sizes.append((length, len(begin)))
                    flat.append(items[(begin[None, :] + np.arange(length)[:, None]).ravel()])
            if not rows:
                owners_of_rows = nodes[owner[order]]
            levels.append(np.concatenate(flat) if flat else np.zeros(0, np.int64))
            rows.append(tuple(sizes))
            done = counts == 1
            place[nodes[done]] = offset + position[first[done]]
            offset += len(order)
            if done.all():
                break
            items, nodes, starts, lengths = position, nodes[~done], first[~done], counts[~done]
        slots = levels[0]
        place[place < 0] = offset  # nodes without a list: the row of zeros at the end
        in_order = len(rows) == 1 and offset == num_nodes and np.array_equal(place, np.arange(num_nodes))
        lists = NeighbourLists(
            (jnp.asarray(entries[slots], jnp.int32), *(jnp.asarray(level, jnp.int32) for level in levels[1:])),
            jnp.asarray(owners_of_rows, jnp.int32),
            None if in_order else jnp.asarray(place, jnp.int32),
            tuple(rows),
            num_nodes,
        )
        return lists, slots

    @property
    def num_edges(self) -> int:
        """How many entries all lists have together."""
        return sum(length * count for length, count in self.rows[0])

    def sum(
        self, columns: Float[Array, "nodes columns"], weights: Float[Array, "slots"] | None = None
    ) -> Float[Array, "nodes columns"]:
        """The sum of the rows of `columns` over the list of each node, with a weight for each slot if given."""
        return _sum(self, columns, weights)

    def native_sum(
        self, columns: Float[Array, "nodes columns"], weights: Float[Array, "slots"] | None = None
    ) -> Float[Array, "nodes columns"]:
        """The same sums in operations that JAX differentiates by itself; in reverse mode by scatter-add."""
        return _gathers(self, columns, weights)

    def pair_products(
        self, targets: Float[Array, "nodes columns"], columns: Float[Array, "nodes columns"]
    ) -> Float[Array, "slots"]:
        """For each slot the scalar product of the rows of its owner and of its entry: the derivative of `sum` by weights."""
        return _pair_products(self, targets, columns)

    @eqx.filter_jit
    def entries_and_owners(self) -> tuple[Int[Array, "slots"], Int[Array, "slots"]]:
        """The entry and the owner of each slot."""
        owners, begin = [], 0
        for length, count in self.rows[0]:
            owners.append(jnp.tile(self.owners[begin : begin + count], length))
            begin += count
        return self.indices[0], jnp.concatenate(owners) if owners else self.owners


def _order(owners: np.ndarray, entries: np.ndarray, num_nodes: int) -> np.ndarray:
    """Edges sorted by owner, then entry: neighbouring entries gather from neighbouring memory."""
    return np.argsort(owners.astype(np.int64) * num_nodes + entries, kind="stable")


def _scaled(values: Shaped[Array, "rows columns"], weights: Float[Array, "rows"]) -> Shaped[Array, "rows columns"]:
    """Gathered rows times real weights; a complex product would waste two multiplications of four."""
    if jnp.iscomplexobj(values):
        return jax.lax.complex(values.real * weights[:, None], values.imag * weights[:, None])
    return values * weights[:, None]


@jax.jit
def _gathers(
    lists: NeighbourLists, columns: Float[Array, "nodes columns"], weights: Float[Array, "slots"] | None
) -> Float[Array, "nodes columns"]:
    # One gather of a complex number for a cosine and a sine instead of two. Half precision has no complex numbers.
    if columns.shape[1] == 2 and columns.dtype in (jnp.float32, jnp.float64):
        sums = _levels(lists, jax.lax.complex(columns[:, :1], columns[:, 1:]), weights)[:, 0]
        return jnp.stack([sums.real, sums.imag], axis=1)
    return _levels(lists, columns, weights)


def _levels(
    lists: NeighbourLists, values: Shaped[Array, "nodes columns"], weights: Float[Array, "slots"] | None
) -> Shaped[Array, "nodes columns"]:
    results = []
    for indices, rows in zip(lists.indices, lists.rows, strict=True):
        sums, begin = [], 0
        for length, count in rows:
            total: Any = None
            for _ in range(length):
                index = jax.lax.slice(indices, (begin,), (begin + count,))
                term = values.at[index].get(mode="promise_in_bounds")
                if weights is not None:
                    term = _scaled(term, jax.lax.slice(weights, (begin,), (begin + count,)))
                total = term if total is None else total + term
                begin += count
            sums.append(total)
        values = jnp.concatenate(sums) if sums else jnp.zeros((0, *values.shape[1:]), values.dtype)
        weights = None
        if len(lists.rows) > 1:
            # Two consumers follow, the next level and the last gather. XLA would compute the sums twice, inside both.
            values = jax.lax.optimization_barrier(values)
        results.append(values)
    if lists.place is None:
        return results[0]
    results.append(jnp.zeros((1, *values.shape[1:]), values.dtype))
    return jnp.concatenate(results).at[lists.place].get(mode="promise_in_bounds")


@jax.custom_batching.custom_vmap
def _sum(
    lists: NeighbourLists, columns: Float[Array, "nodes columns"], weights: Float[Array, "slots"] | None
) -> Float[Array, "nodes columns"]:
    return _gathers(lists, columns, weights)


@_sum.def_vmap
def _batched_sum(axis_size, in_batched, lists, columns, weights):
    """Lanes become columns, so that an index is read once for all of them; 2 to 3 times faster than lane by lane."""
    batched_lists, _, batched_weights = in_batched
    if any(jax.tree.leaves((batched_lists, batched_weights))):
        axes = jax.tree.map(lambda batched: 0 if batched else None, tuple(in_batched))
        return jax.vmap(_gathers, in_axes=axes)(lists, columns, weights), True
    lanes = jnp.moveaxis(columns, 0, 1)
    sums = _sum(lists, lanes.reshape(lanes.shape[0], -1), weights)
    return jnp.moveaxis(sums.reshape(lanes.shape), 1, 0), True


@jax.jit
def _pair_products(
    lists: NeighbourLists, targets: Float[Array, "nodes columns"], columns: Float[Array, "nodes columns"]
) -> Float[Array, "slots"]:
    products, begin, first = [], 0, 0
    for length, count in lists.rows[0]:
        owners = jax.lax.slice(lists.owners, (first,), (first + count,))
        left = targets.at[owners].get(mode="promise_in_bounds")
        first += count
        for _ in range(length):
            index = jax.lax.slice(lists.indices[0], (begin,), (begin + count,))
            products.append(jnp.sum(left * columns.at[index].get(mode="promise_in_bounds"), axis=1))
            begin += count
    return jnp.concatenate(products) if products else jnp.zeros(0, columns.dtype)
