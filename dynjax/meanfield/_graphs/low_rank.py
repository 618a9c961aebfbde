"""Graphs of low rank: rank-one power laws, a few harmonics, expected-degree models."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import check_that
from .graph_operator import GraphOperator, check_weights


class LowRank(GraphOperator):
    """A graph of rank r, a_ij = sum_k left_ik right_jk. Costs 2 N r multiplications a column.

    Args:
        left: (N, r), what node i takes of each of r averages.
        right: (N, r), the weight of node j in each of them; by default `left`, a symmetric graph.

    Raises:
        TypeError: if an argument is complex.
        ValueError: if the shapes are not (N, r), or an entry is NaN or infinite.
    """

    left: Float[Array, "nodes rank"]
    right: Float[Array, "nodes rank"]
    num_nodes: int = eqx.field(static=True)
    symmetric: bool = eqx.field(static=True)

    def __init__(self, left: Any, right: Any = None):
        shape = np.shape(left)
        check_that(len(shape) == 2 and shape[0] > 0, "left", "have shape [nodes,rank]", f"found shape {shape}")
        self.symmetric = right is None or right is left
        self.left = check_weights(left, "left")
        self.right = self.left if self.symmetric else check_weights(right, "right", shape)
        self.num_nodes = int(shape[0])

    def _product(self, columns: Float[Array, "nodes columns"]) -> Float[Array, "nodes columns"]:
        left, right = self.left.astype(columns.dtype), self.right.astype(columns.dtype)
        averages = jnp.matmul(right.T, columns, precision=jax.lax.Precision.HIGHEST) / self.num_nodes
        return jnp.matmul(left, averages, precision=jax.lax.Precision.HIGHEST)

    def transpose(self) -> "LowRank":
        """Left and right exchanged."""
        return self if self.symmetric else LowRank(self.right, self.left)

    @property
    def is_symmetric(self) -> bool | None:
        """True if made from one factor; otherwise not known."""
        return True if self.symmetric else None
