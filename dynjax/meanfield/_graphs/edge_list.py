"""Edges one by one, for couplings that no operator can average: sums over the edges of a node without scatter-adds."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Inexact, Int

from ..._core import check_count, check_that, found, is_concrete
from .graph_operator import GraphOperator
from .sparse import Sparse

_WIDTH = 8


class GroupSum(eqx.Module):
    """Sums of the rows that share a group number, by gathers and short sums only.

    Rows are taken in the order of their groups, in chunks of eight; the chunk sums of a group are summed in the same way
    until one is left. A group of m rows so takes log_8(m) levels, whatever the sizes of the others: a hub costs no padding
    elsewhere. Places without a row point past the end and read zero.

    Args:
        groups: the group number of each row, host integers.
        num_groups: how many groups there are.
    """

    levels: tuple[Int[Array, "chunks width"], ...]
    last: Int[Array, "groups"]

    def __init__(self, groups: np.ndarray, num_groups: int):
        items = np.argsort(groups, kind="stable")
        counts = np.bincount(groups, minlength=num_groups)
        beyond, levels = len(groups), []
        while np.any(counts > 1):
            chunks = -(-counts // _WIDTH)
            table = np.full((int(chunks.sum()), _WIDTH), beyond, np.int32)
            rank = np.arange(len(items)) - np.repeat(np.cumsum(counts) - counts, counts)
            row = np.repeat(np.cumsum(chunks) - chunks, counts) + rank // _WIDTH
            table[row, rank % _WIDTH] = items
            levels.append(jnp.asarray(table))
            items, counts, beyond = np.arange(len(table)), chunks, len(table)
        last = np.full(num_groups, beyond, np.int32)
        last[counts == 1] = items
        self.levels, self.last = tuple(levels), jnp.asarray(last)

    def __call__(self, rows: Inexact[Array, "rows columns"]) -> Inexact[Array, "groups columns"]:
        """The sums, (groups, columns)."""
        for table in self.levels:
            rows = sum(_row(rows, table[:, slot]) for slot in range(1, _WIDTH)) + _row(rows, table[:, 0])
        return _row(rows, self.last)


class EdgeList(GraphOperator):
    """A sparse graph by its edges, for couplings g(x_i, x_j) that are evaluated once per edge (`pair_average`).

    As an operator it is exact, but the sparse operators made for that are faster. Parallel edges add up. Neither the
    product nor any of its derivatives scatters: the transpose of a gather at the sources is the sum over the edges that
    leave a node, for which a second table is kept.

    Args:
        sources: j of each edge j -> i, host integers.
        targets: i of each edge.
        num_nodes: N.
        weights: a_ij of each edge, traced; 1 if not given. The operator divides by N.

    Raises:
        ValueError: if the arrays do not fit each other, a node number is not in 0..N-1, or a weight is not finite.
    """

    sources: Int[Array, "edges"]
    targets: Int[Array, "edges"]
    weights: Float[Array, "edges"]
    into: GroupSum
    out_of: GroupSum
    num_nodes: int = eqx.field(static=True)

    def __init__(self, sources: Any, targets: Any, num_nodes: int, weights: Any = None):
        check_count(num_nodes, "num_nodes")
        ends = []
        for name, nodes in (("sources", sources), ("targets", targets)):
            nodes = np.asarray(nodes)
            good = nodes.ndim == 1 and (nodes.size == 0 or np.issubdtype(nodes.dtype, np.integer))
            check_that(good, name, "be a vector of integers", found(nodes))
            inside = bool(np.all((nodes >= 0) & (nodes < num_nodes)))
            check_that(inside, name, f"hold numbers from 0 to {num_nodes - 1}", "some are outside")
            ends.append(nodes.astype(np.int32))
        check_that(len(ends[0]) == len(ends[1]), "targets", f"have {len(ends[0])} entries", f"there are {len(ends[1])}")
        if weights is None:
            weights = jnp.ones(len(ends[0]), jnp.result_type(float))
        elif isinstance(weights, np.ndarray | list | tuple):
            check_that(bool(np.all(np.isfinite(weights))), "weights", "be finite", "some are not")
        weights = jnp.asarray(weights)
        weights = weights if jnp.issubdtype(weights.dtype, jnp.inexact) else weights.astype(jnp.result_type(float))
        check_that(weights.shape == ends[0].shape, "weights", f"have shape {ends[0].shape}", found(weights))
        self.sources, self.targets = (jnp.asarray(nodes) for nodes in ends)
        self.weights = weights
        self.out_of, self.into = (GroupSum(nodes, num_nodes) for nodes in ends)
        self.num_nodes = int(num_nodes)

    @classmethod
    def of(cls, graph: Sparse) -> "EdgeList":
        """The edges of a sparse operator, with the same averages.

        Args:
            graph: known before tracing; its weights may be traced.

        Raises:
            ValueError: if the edges are traced.
        """
        check_that(is_concrete(graph.lists), "graph", "be known before tracing", "its edges are traced")
        sources, targets = (np.asarray(nodes) for nodes in graph.edges())
        weights = graph.num_nodes / graph.divisor * (jnp.ones(len(sources)) if graph.weights is None else graph.weights)
        for factor, nodes in ((graph.target_factor, targets), (graph.source_factor, sources)):
            weights = weights if factor is None else weights * factor[nodes]
        return cls(sources, targets, graph.num_nodes, weights)

    def at_sources(self, values: Inexact[Array, "nodes columns"]) -> Inexact[Array, "edges columns"]:
        """The rows of the driving nodes, edge by edge."""
        return linear_map(lambda x: jnp.take(x, self.sources, axis=0), self.out_of, values, len(self.sources))

    def at_targets(self, values: Inexact[Array, "nodes columns"]) -> Inexact[Array, "edges columns"]:
        """The rows of the driven nodes, edge by edge."""
        return linear_map(lambda x: jnp.take(x, self.targets, axis=0), self.into, values, len(self.targets))

    def sum_into(self, values: Inexact[Array, "edges columns"]) -> Inexact[Array, "nodes columns"]:
        """The sum over the edges that arrive at each node; no weights, no division."""
        return linear_map(self.into, lambda x: jnp.take(x, self.targets, axis=0), values, self.num_nodes)

    def _product(self, columns: Inexact[Array, "nodes columns"]) -> Inexact[Array, "nodes columns"]:
        flows = self.weights[:, None].astype(columns.dtype) * self.at_sources(columns)
        return self.sum_into(flows) / self.num_nodes

    def transpose(self) -> "EdgeList":
        """Sources and targets exchanged."""
        parts = lambda graph: (graph.sources, graph.targets, graph.into, graph.out_of)
        return eqx.tree_at(parts, self, (self.targets, self.sources, self.out_of, self.into))


def linear_map(
    forward: Callable[[Any], Any], backward: Callable[[Any], Any], values: Inexact[Array, "n columns"], num_rows: int
) -> Inexact[Array, "m columns"]:
    """`forward(values)` with `backward` for its transpose, in every mode of differentiation and under `vmap`.

    It is the solution of the block system [[1, 0], [-A, 1]] (x, y) = (x, 0), whose transpose JAX takes from a function: a
    custom VJP would forbid forward mode, and plain transposition turns a gather into a scatter-add.
    """
    n = values.shape[0]

    def defect(pair: Array) -> Array:
        return pair - jnp.pad(forward(pair[:n]), ((n, 0), (0, 0)))

    def solve(_: Any, b: Array) -> Array:
        return jnp.concatenate([b[:n], b[n:] + forward(b[:n])])

    def transpose_solve(_: Any, c: Array) -> Array:
        return jnp.concatenate([c[:n] + backward(c[n:]), c[n:]])

    start = jnp.pad(values, ((0, num_rows), (0, 0)))
    return lax.custom_linear_solve(defect, start, solve, transpose_solve)[n:]


def _row(rows: Array, index: Array) -> Array:
    if rows.shape[0] == 0:
        return jnp.zeros((index.shape[0], *rows.shape[1:]), rows.dtype)
    return jnp.take(rows, index, axis=0, mode="fill", fill_value=0)


def as_columns(values: jax.Array) -> jax.Array:
    """One row for each node and all the rest in columns."""
    return values.reshape(values.shape[0], -1)
