"""Sparse graphs from lists of edges."""

import dataclasses
from typing import Any, Literal, get_args

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..._core import check_count, check_that, found, is_concrete
from .graph_operator import GraphOperator, Scale, check_weights
from .neighbour_lists import NeighbourLists
from .neighbour_sum import neighbour_sum, weighted_sum


class Sparse(GraphOperator):
    """A graph by its edges, applied by unrolled gathers: no scatter and no padding. Made by `Sparse.from_edges`.

    Costs one gather and one addition per edge and column in either direction: the lists of the reversed graph are stored
    too. A graph without weights stores two integers an edge, one with weights three and the weight. An index is read once
    for all columns: put replicas and couplings there (`vmap` over columns does it by itself).

    Attributes:
        weights: one for each edge in the order of `edges`, traced and differentiable; None for a graph without weights.
        target_factor: what each node multiplies its sum by, one over its degree for `scale="degree"`, computed once when the
            graph was made; None for one.
        source_factor: the same before summing, which the reversed graph needs.
        divisor: N for `scale="n"`, else one.
    """

    lists: NeighbourLists
    reverse: NeighbourLists
    slots: Int[Array, "edges"] | None
    weights: Float[Array, "edges"] | None
    target_factor: Float[Array, "nodes"] | None
    source_factor: Float[Array, "nodes"] | None
    divisor: int = eqx.field(static=True)
    symmetric: bool | None = eqx.field(static=True)
    num_nodes: int = eqx.field(static=True)

    @staticmethod
    def from_edges(sources: Any, targets: Any, weights: Any = None, *, num_nodes: int, scale: Scale = "n") -> "Sparse":
        r"""The graph in which node sources[e] drives node targets[e], with weight weights[e].

        The lists are made on the host by sorting, so the edges must be known before tracing; the weights may be traced.

        Args:
            sources: (E,) node numbers 0..N-1.
            targets: (E,) node numbers. Edges that appear twice add up.
            weights: (E,) w_e, by default all one, which stores and reads no weights.
            num_nodes: N.
            scale: what the sum over the edges into node i is divided by. The same network has another critical coupling for
                each choice, about K_c, K_c times the mean degree over N, and so on.
                `"n"`: by N, (A F)_i = (1/N) sum_j w_ij F_j, the convention of dense graphs and of graphons. A graph of mean
                degree d needs weights of about N / d for couplings of order one.
                `"degree"`: by the weighted in-degree sum_j w_ij of node i, so that A F is an average over neighbours; nodes
                without neighbours get zero.
                `None`: by nothing, (A F)_i = sum_j w_ij F_j.

        Raises:
            TypeError: if sources or targets are not integers.
            ValueError: if they are traced, have different lengths, or name a node outside 0..N-1; if a weight is NaN or
                infinite or their number is not E; if `num_nodes` is not a positive integer; if `scale` is unknown.
        """
        check_count(num_nodes, "num_nodes")
        num_nodes = int(num_nodes)
        check_scale(scale)
        source, target = (_node_numbers(x, name, num_nodes) for x, name in ((sources, "sources"), (targets, "targets")))
        fits = len(source) == len(target)
        check_that(fits, "targets", f"have as many entries as `sources`, {len(source)}", f"found {len(target)}")
        lists, edges = NeighbourLists.build(target, source, num_nodes)
        reverse, reverse_edges = NeighbourLists.build(source, target, num_nodes)
        slots = None
        if weights is not None:
            weights = check_weights(weights, "weights", (len(source),))[edges]
            slot_of_edge = np.empty(len(edges), np.int64)
            slot_of_edge[edges] = np.arange(len(edges))
            slots = jnp.asarray(slot_of_edge[reverse_edges], jnp.int32)
        graph = Sparse(
            lists=lists,
            reverse=reverse,
            slots=slots,
            weights=weights,
            target_factor=None,
            source_factor=None,
            divisor=num_nodes if scale == "n" else 1,
            symmetric=None,
            num_nodes=num_nodes,
        )
        if scale == "degree":
            degree = graph.mass(None if weights is None else weights.dtype)
            some = degree != 0
            factor = jnp.where(some, 1 / jnp.where(some, degree, 1), 0)
            graph = dataclasses.replace(graph, target_factor=factor)
        return dataclasses.replace(graph, symmetric=_symmetric(graph, source, target))

    def edges(self) -> tuple[Int[Array, "edges"], Int[Array, "edges"]]:
        """Sources and targets, in the order of `weights` (not in that of `from_edges`)."""
        return self.lists.entries_and_owners()

    def _product(self, columns: Float[Array, "nodes columns"]) -> Float[Array, "nodes columns"]:
        dtype = columns.dtype
        if self.source_factor is not None:
            columns = columns * self.source_factor.astype(dtype)[:, None]
        if self.weights is None:
            sums = neighbour_sum(self.lists, self.reverse, columns)
        else:
            sums = weighted_sum(self.lists, self.reverse, self.slots, self.weights.astype(dtype), columns)
        if self.target_factor is not None:
            sums = sums * self.target_factor.astype(dtype)[:, None]
        return sums / self.divisor if self.divisor != 1 else sums

    def transpose(self) -> "Sparse":
        """The reversed edges: the two sets of lists exchanged. A degree stays that of the original graph."""
        weights, slots = self.weights, self.slots
        if weights is not None and slots is not None:
            weights = weights[slots]
            slots = jnp.zeros_like(slots).at[slots].set(jnp.arange(len(slots), dtype=slots.dtype), unique_indices=True)
        return dataclasses.replace(
            self,
            lists=self.reverse,
            reverse=self.lists,
            slots=slots,
            weights=weights,
            target_factor=self.source_factor,
            source_factor=self.target_factor,
        )

    @property
    def is_symmetric(self) -> bool | None:
        """Compared when the graph was made; None if its weights were traced."""
        return self.symmetric

    @property
    def num_edges(self) -> int:
        """The number E of edges."""
        return self.lists.num_edges

    @property
    def mean_degree(self) -> float:
        """E / N."""
        return self.num_edges / self.num_nodes


def check_scale(scale: Any) -> None:
    """Raise unless `scale` is one of the three conventions."""
    good = scale is None or scale in get_args(Literal["n", "degree"])
    check_that(
        good, "scale", 'be "n" (divide by N), "degree" (by the in-degree) or None (plain sums)', f"found {scale!r}"
    )


def _node_numbers(values: Any, name: str, num_nodes: int) -> Int[np.ndarray, "edges"]:
    check_that(is_concrete(values), name, "be known before tracing", "it is traced")
    array = np.asarray(values)
    if array.size == 0:
        array = array.astype(np.int64)
    check_that(np.issubdtype(array.dtype, np.integer), name, "be integers", f"found dtype {array.dtype}", TypeError)
    check_that(array.ndim == 1, name, "be a vector, one for each edge", found(array))
    outside = array[(array < 0) | (array >= num_nodes)]
    check_that(len(outside) == 0, name, f"lie between 0 and {num_nodes - 1}", f"found {outside[:3].tolist()}")
    return array.astype(np.int64)


def _symmetric(graph: Sparse, source: np.ndarray, target: np.ndarray) -> bool | None:
    """Whether the two sets of lists hold the same edges and weights, on the host."""
    if not is_concrete((graph.weights, graph.target_factor)):
        return None
    size = graph.num_nodes
    here, there = np.sort(target * size + source), np.sort(source * size + target)
    if not np.array_equal(here, there):
        return False
    if graph.target_factor is not None:
        factor = np.asarray(graph.target_factor)
        if np.any(factor[source] != factor[target]):
            return False
    if graph.weights is None:
        return True
    if np.any(np.diff(here) == 0):
        return None  # parallel edges: their weights would have to be added up first
    sources, targets = (np.asarray(x, np.int64) for x in graph.edges())
    weights = np.asarray(graph.weights)
    order, reverse = np.argsort(targets * size + sources), np.argsort(sources * size + targets)
    return bool(np.array_equal(weights[order], weights[reverse]))
