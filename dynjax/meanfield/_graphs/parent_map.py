"""Graphs in which a node has one driver at most: rooted trees, permutations, maps of the label space."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..._core import check_that, is_concrete
from .graph_operator import GraphOperator, check_weights
from .neighbour_lists import NeighbourLists
from .neighbour_sum import linear_map
from .transposed import Transposed


class ParentMap(GraphOperator):
    """Node i is driven by node parents[i] alone: (A F)_i = weight_i F[parents[i]], a gather.

    In the general convention a_ij / N = weight_i if j = parents[i] and zero otherwise. The limit of such graphs is the
    digraph measure eta^x = weight(x) delta at parent(x).

    Args:
        parents: (N,) node numbers; -1 for a node without driver, e.g. the root of a tree. If they are traced, products
            with the reversed graph fall back to scatter-add.
        weights: a number, or one for each node; traced.

    Raises:
        TypeError: if the parents are no integers.
        ValueError: if the shapes do not fit, a parent is no node, or a weight is NaN or infinite.
    """

    parents: Int[Array, "nodes"]
    weights: Float[Array, "nodes"]
    children: NeighbourLists | None
    num_nodes: int = eqx.field(static=True)

    def __init__(self, parents: Any, weights: Any = 1.0):
        concrete = is_concrete(parents)
        array = np.asarray(parents) if concrete else parents
        whole = np.issubdtype(array.dtype, np.integer)
        check_that(whole, "parents", "be integers", f"found dtype {array.dtype}", TypeError)
        good = array.ndim == 1 and array.shape[0] > 0
        check_that(good, "parents", "be a vector, one for each node", f"found shape {array.shape}")
        self.num_nodes = int(array.shape[0])
        if np.ndim(weights) == 0:
            weights = jnp.broadcast_to(check_weights(weights, "weights", ()), (self.num_nodes,))
        self.weights = check_weights(weights, "weights", (self.num_nodes,))
        self.children = None
        if concrete:
            outside = array[(array < -1) | (array >= self.num_nodes)]
            but = f"found {outside[:3].tolist()}"
            check_that(len(outside) == 0, "parents", f"lie between -1 and {self.num_nodes - 1}", but)
            nodes = np.flatnonzero(array >= 0)
            self.children, _ = NeighbourLists.build(array[nodes], nodes, self.num_nodes)
        self.parents = jnp.asarray(array, jnp.int32)

    def _product(self, columns: Float[Array, "nodes columns"]) -> Float[Array, "nodes columns"]:
        driven = self.parents >= 0
        index = jnp.maximum(self.parents, 0)

        def gather(values: Float[Array, "nodes columns"]) -> Float[Array, "nodes columns"]:
            return jnp.where(driven[:, None], values.at[index].get(mode="promise_in_bounds"), 0)

        if self.children is None:
            gathered = gather(columns)
        else:
            gathered = linear_map(gather, self.children.sum, gather, columns)
        return gathered * self.weights.astype(columns.dtype)[:, None]

    def transpose(self) -> GraphOperator:
        """The tree with its edges turned upwards: each node is driven by its children."""
        return Transposed(self)

    @property
    def mean_degree(self) -> float:
        """The share of nodes that have a driver."""
        return 1.0 if self.children is None else self.children.num_edges / self.num_nodes
