"""Directed and semiseparable graphs on ordered nodes, by cumulative sums: Volterra, min(x, y), 1 - max(x, y)."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import check_count, check_that, found
from .graph_operator import GraphOperator, check_weights


class Cumulative(GraphOperator):
    """A semiseparable graph on N ordered nodes: a_ij / N = below_i from_i,j for j < i, and so on for j > i; costs O(N).

    (A F)_i = below[0]_i sum_{j < i} below[1]_j F_j + diagonal_i F_i + above[0]_i sum_{j > i} above[1]_j F_j.

    Both sums are accumulated from their own end, so that nothing cancels. Made by the three class methods, or from
    factors of one's own.

    Args:
        below: the two factors for j < i, (N,) each.
        diagonal: (N,).
        above: the two factors for j > i, (N,) each.
        symmetric: whether the matrix is symmetric, if that is known.

    Raises:
        ValueError: if the factors have different lengths, are empty, or hold NaN or infinite entries.
    """

    below: tuple[Float[Array, "nodes"], Float[Array, "nodes"]]
    diagonal: Float[Array, "nodes"]
    above: tuple[Float[Array, "nodes"], Float[Array, "nodes"]]
    num_nodes: int = eqx.field(static=True)
    symmetric: bool | None = eqx.field(static=True)

    def __init__(self, below: tuple[Any, Any], diagonal: Any, above: tuple[Any, Any], *, symmetric: bool | None = None):
        shape = np.shape(diagonal)
        check_that(
            len(shape) == 1 and shape[0] > 0, "diagonal", "be a vector, one for each node", f"found shape {shape}"
        )
        for pair, name in ((below, "below"), (above, "above")):
            check_that(len(pair) == 2, name, "be a pair of vectors", found(pair))
        self.below = (check_weights(below[0], "below", shape), check_weights(below[1], "below", shape))
        self.diagonal = check_weights(diagonal, "diagonal", shape)
        self.above = (check_weights(above[0], "above", shape), check_weights(above[1], "above", shape))
        self.num_nodes = int(shape[0])
        self.symmetric = symmetric

    @classmethod
    def volterra(cls, num_nodes: int, weights: Any = None, *, loops: float = 0.0) -> "Cumulative":
        """The Volterra graph a_ij = 1 for j < i: every node is driven by all before it, and nothing comes back.

        Args:
            num_nodes: N.
            weights: quadrature weights w_j in place of 1/N.
            loops: the diagonal of a; 1/2 makes the rule one of second order but moves the spectrum off zero, to w_i / 2.
        """
        check_count(num_nodes, "num_nodes")
        weights = _quadrature(num_nodes, weights)
        ones, zeros = jnp.ones_like(weights), jnp.zeros_like(weights)
        return cls((ones, weights), loops * weights, (zeros, zeros), symmetric=num_nodes == 1)

    @classmethod
    def min_kernel(cls, labels: Any, weights: Any = None) -> "Cumulative":
        """The kernel min(x, y) on increasing labels, with quadrature weights (by default 1/N)."""
        symmetric = True if weights is None else None
        labels, weights = _ordered(labels, weights)
        ones = jnp.ones_like(labels)
        return cls((ones, labels * weights), labels * weights, (labels, weights), symmetric=symmetric)

    @classmethod
    def max_kernel(cls, labels: Any, weights: Any = None) -> "Cumulative":
        """The kernel 1 - max(x, y) on increasing labels, with quadrature weights (by default 1/N)."""
        symmetric = True if weights is None else None
        labels, weights = _ordered(labels, weights)
        ones = jnp.ones_like(labels)
        return cls((1 - labels, weights), (1 - labels) * weights, (ones, (1 - labels) * weights), symmetric=symmetric)

    def _product(self, columns: Float[Array, "nodes columns"]) -> Float[Array, "nodes columns"]:
        def row(factor: Float[Array, "nodes"]) -> Float[Array, "nodes 1"]:
            return factor.astype(columns.dtype)[:, None]

        nothing = jnp.zeros((1, columns.shape[1]), columns.dtype)
        before = jnp.cumsum(row(self.below[1]) * columns, axis=0)
        after = jax.lax.cumsum(row(self.above[1]) * columns, axis=0, reverse=True)
        before, after = jnp.concatenate([nothing, before[:-1]]), jnp.concatenate([after[1:], nothing])
        return row(self.below[0]) * before + row(self.diagonal) * columns + row(self.above[0]) * after

    def transpose(self) -> "Cumulative":
        """Before and after exchanged."""
        return Cumulative(self.above[::-1], self.diagonal, self.below[::-1], symmetric=self.symmetric)

    @property
    def is_symmetric(self) -> bool | None:
        """True for the kernels min(x, y) and 1 - max(x, y) with equal weights, False for Volterra, else not known."""
        return self.symmetric


def _quadrature(num_nodes: int, weights: Any) -> Float[Array, "nodes"]:
    if weights is None:
        return jnp.full(num_nodes, 1 / num_nodes, jnp.result_type(float))
    return check_weights(weights, "weights", (num_nodes,))


def _ordered(labels: Any, weights: Any) -> tuple[Float[Array, "nodes"], Float[Array, "nodes"]]:
    shape = np.shape(labels)
    check_that(len(shape) == 1 and shape[0] > 0, "labels", "be a vector of increasing numbers", f"found shape {shape}")
    checked = check_weights(labels, "labels")
    if not isinstance(labels, jax.core.Tracer):
        rises = bool(np.all(np.diff(np.asarray(labels)) > 0))
        check_that(rises, "labels", "increase", "they do not")
    return checked, _quadrature(shape[0], weights).astype(checked.dtype)
