"""Random batches: every node meets a few partners, drawn anew in every step."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..._core import check_count, check_that, found
from .graph_operator import GraphOperator, check_weights
from .transposed import Transposed


class RandomBatch(GraphOperator):
    """The complete graph, seen through p random partners per node and step: (A F)_i = (weight / p) sum_k F[j_k].

    The partners are independent and uniform over all N nodes, the node itself among them, as in the mean of `AllToAll`,
    of which this is an unbiased estimate of variance weight^2 (mean |F|^2 - |mean F|^2) / p. For interactions that are
    no sums of products, where each pair must be looked at, `partners` gives the pairs. The idea of random batches is that
    of Jin, Li and Liu (arXiv:1812.10575), who partition the particles instead.

    The draw is a function of the key and of the integer `step` alone: `graph.at_step(n)` is the graph of step n.
    In reverse mode the gathers become scatter-adds, spread evenly over the nodes.

    Args:
        num_nodes: N.
        num_partners: p, static.
        key: random key of all steps.
        weight: a_ij, traced.
        step: number of the step, traced.

    Raises:
        ValueError: if a count is not a positive integer, or the weight is not one finite number.
        TypeError: if `key` is no random key.
    """

    weight: Float[Array, ""]
    step: Int[Array, ""]
    key: PRNGKeyArray
    num_nodes: int = eqx.field(static=True)
    num_partners: int = eqx.field(static=True)

    def __init__(self, num_nodes: int, num_partners: int, key: PRNGKeyArray, weight: Any = 1.0, *, step: Any = 0):
        check_count(num_nodes, "num_nodes")
        check_count(num_partners, "num_partners")
        good = hasattr(key, "dtype") and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)
        check_that(good, "key", "be a random key as made by `jax.random.key`", found(key), TypeError)
        self.num_nodes, self.num_partners = int(num_nodes), int(num_partners)
        self.weight = check_weights(weight, "weight", ())
        self.key = key
        self.step = jnp.asarray(step, jnp.int32)

    def at_step(self, step: Int[Array, ""] | int) -> "RandomBatch":
        """The draw of step number `step`."""
        return RandomBatch(self.num_nodes, self.num_partners, self.key, self.weight, step=step)

    def partners(self) -> Int[Array, "partners nodes"]:
        """The nodes that drive each node in this step."""
        key = jax.random.fold_in(self.key, self.step)
        return jax.random.randint(key, (self.num_partners, self.num_nodes), 0, self.num_nodes, jnp.int32)

    def _product(self, columns: Float[Array, "nodes columns"]) -> Float[Array, "nodes columns"]:
        partners = self.partners()
        total = jnp.zeros_like(columns)
        for k in range(self.num_partners):
            total = total + columns.at[partners[k]].get(mode="promise_in_bounds")
        return total * (self.weight / self.num_partners).astype(columns.dtype)

    def transpose(self) -> GraphOperator:
        """The same draw with its edges reversed."""
        return Transposed(self)
