"""Averages over pairs of nodes, streamed: exact sums of N^2 terms in memory of order N."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Inexact, Int

from ..._core import check_count, check_that, found, is_concrete
from .._graphs.edge_list import EdgeList, as_columns
from .._graphs.graph_operator import AllToAll, Dense, GraphOperator
from .._graphs.sparse import Sparse

# Numbers that a block of rows may hold at once: a megabyte or two, which stays in the cache of a core.
_BLOCK_NUMBERS = 2**18


class Causal(GraphOperator):
    """The complete graph of an order: node i is driven by the nodes j <= i, itself included, with weight one.

    Its averages are prefix sums, O(N). The causal mask of a transformer; as N -> inf it tends to the Volterra measure.

    Args:
        num_nodes: N.
    """

    num_nodes: int = eqx.field(static=True)
    reverse: bool = eqx.field(static=True)

    def __init__(self, num_nodes: int, reverse: bool = False):
        check_count(num_nodes, "num_nodes")
        self.num_nodes, self.reverse = int(num_nodes), bool(reverse)

    def _product(self, columns: Inexact[Array, "nodes columns"]) -> Inexact[Array, "nodes columns"]:
        return lax.cumsum(columns, axis=0, reverse=self.reverse) / self.num_nodes

    def transpose(self) -> "Causal":
        """The reversed order."""
        return Causal(self.num_nodes, not self.reverse)


def weight_slab(graph: GraphOperator | None) -> Array | None:
    """What `map_row_blocks` must cut into blocks for `weight_rows`: the matrix of a `Dense` graph, else nothing."""
    return graph.weights if isinstance(graph, Dense) else None


def weight_rows(
    graph: GraphOperator, rows: Int[Array, "block"], slab: Array | None, dtype: Any
) -> Float[Array, "block nodes"]:
    """Rows of the matrix a_ij; what stands in rows past the end is not used.

    For an operator of which no more is known than its product, a block of rows is the product of the transposed graph
    with unit vectors: as dear as `block` products, and exact.

    Args:
        graph: the graph.
        rows: the numbers of the rows.
        slab: the block of `weight_slab(graph)`.
        dtype: of the result, floating.
    """
    num_nodes = graph.num_nodes
    if slab is not None:
        return slab.astype(dtype)
    if isinstance(graph, AllToAll):
        return jnp.broadcast_to(graph.weight.astype(dtype), (rows.shape[0], num_nodes))
    columns = jnp.arange(num_nodes)
    if isinstance(graph, Causal):
        before = columns[None, :] >= rows[:, None] if graph.reverse else columns[None, :] <= rows[:, None]
        return before.astype(dtype)
    units = (rows[:, None] == columns[None, :]).astype(dtype)
    return num_nodes * graph.transpose().apply(units.T).T


def block_size(num_nodes: int, numbers_per_pair: int, block: int | None) -> int:
    """Rows in a block: what was asked for, or what keeps a block in the cache, in blocks of nearly equal size."""
    if block is not None:
        check_count(block, "block")
        return min(block, num_nodes)
    most = max(1, min(num_nodes, _BLOCK_NUMBERS // max(1, num_nodes * numbers_per_pair)))
    return math.ceil(num_nodes / math.ceil(num_nodes / most))


def map_row_blocks(fn: Callable[[Any, Any], Any], rows: Any, num_nodes: int, block: int) -> Any:
    """`fn(numbers, rows)` for blocks of rows, one after the other, put together again.

    Nothing is kept of a block but its result: in reverse mode it is computed a second time.

    Args:
        fn: takes the node numbers, (block,), and the rows of these nodes; returns arrays with a leading axis `block`.
        rows: arrays with a leading axis of N nodes.
        num_nodes: N.
        block: rows in a block, static.
    """
    num_blocks = math.ceil(num_nodes / block)
    excess = num_blocks * block - num_nodes

    def cut(leaf: Array) -> Array:
        # The last row is repeated: a padding of zeros may be no state at which `fn` has a derivative.
        padded = jnp.pad(leaf, ((0, excess),) + ((0, 0),) * (leaf.ndim - 1), mode="edge") if excess else leaf
        return padded.reshape(num_blocks, block, *leaf.shape[1:])

    def join(leaf: Array) -> Array:
        return leaf.reshape(num_blocks * block, *leaf.shape[2:])[:num_nodes]

    numbers = jnp.arange(num_blocks * block).reshape(num_blocks, block)
    blocks = (numbers, jax.tree_util.tree_map(cut, rows))
    if num_blocks == 1:
        return jax.tree_util.tree_map(
            lambda leaf: leaf[:num_nodes], fn(*jax.tree_util.tree_map(lambda x: x[0], blocks))
        )
    return jax.tree_util.tree_map(join, lax.map(lambda args: jax.checkpoint(fn)(*args), blocks))


def pair_average(
    interaction: Callable[[Any, Any], Any],
    states: Inexact[Array, "nodes *dims"],
    graph: GraphOperator,
    *,
    block: int | None = None,
) -> Inexact[Array, "nodes *out"]:
    r"""The averages (1/N) sum_j a_ij g(x_i, x_j) for a coupling of which nothing is known.

    All pairs are visited in blocks of rows, so that the memory is O(N); no array of N x N differences is formed. On an
    `EdgeList`, and on a `Sparse` graph that is known before tracing, only edges are visited, in memory O(edges). Where g
    separates into products, a `GraphOperator` applied to the factors costs O(N C) in place of O(N^2).

    Args:
        interaction: g(x_i, x_j), of two states of single nodes.
        states: x, one row for each node.
        graph: the weights.
        block: rows that are computed together; chosen to fit a cache by default.

    Returns:
        An array (N, *out) where g returns (*out).

    Raises:
        ValueError: if `states` has not N rows.
    """
    states = jnp.asarray(states)
    good = states.ndim > 0 and states.shape[0] == graph.num_nodes
    check_that(good, "states", f"have a leading axis of {graph.num_nodes} nodes", found(states))
    if isinstance(graph, Sparse) and is_concrete(graph.lists):
        graph = EdgeList.of(graph)
    if isinstance(graph, EdgeList):
        return _edge_average(interaction, states, graph)
    pairs = jax.vmap(jax.vmap(interaction, (None, 0)), (0, None))
    one = jax.ShapeDtypeStruct(states.shape[1:], states.dtype)
    out = jax.eval_shape(interaction, one, one)
    block = block_size(graph.num_nodes, math.prod(out.shape), block)
    real = jnp.finfo(out.dtype).dtype

    def average(numbers: Array, block_of: tuple[Array, Array | None]) -> Array:
        rows, slab = block_of
        values = pairs(rows, states)
        if isinstance(graph, AllToAll):
            return graph.weight.astype(real) * jnp.mean(values, axis=1)
        weights = weight_rows(graph, numbers, slab, real).astype(out.dtype)
        return jnp.einsum("ij,ij...->i...", weights, values, precision=lax.Precision.HIGHEST) / graph.num_nodes

    return map_row_blocks(average, (states, weight_slab(graph)), graph.num_nodes, block)


def _edge_average(interaction: Callable[[Any, Any], Any], states: Array, graph: EdgeList) -> Array:
    columns, dims = as_columns(states), states.shape[1:]
    num_edges = graph.sources.shape[0]
    driven = graph.at_targets(columns).reshape(num_edges, *dims)
    driving = graph.at_sources(columns).reshape(num_edges, *dims)
    values = jax.vmap(interaction)(driven, driving)
    flows = graph.weights[:, None].astype(values.dtype) * as_columns(values)
    return graph.sum_into(flows).reshape(states.shape[0], *values.shape[1:]) / graph.num_nodes
