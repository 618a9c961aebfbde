"""The reversed graph of an operator that has no better form for it: what JAX makes of its transpose."""

import equinox as eqx
import jax
from jaxtyping import Array, Float, Int

from .graph_operator import GraphOperator, flat_product


class Transposed(GraphOperator):
    """The reversed graph, applied through `jax.linear_transpose`.

    Args:
        operator: the graph to reverse.
    """

    operator: GraphOperator
    num_nodes: int = eqx.field(static=True)

    def __init__(self, operator: GraphOperator):
        self.operator, self.num_nodes = operator, operator.num_nodes

    def _product(self, columns: Float[Array, "nodes columns"]) -> Float[Array, "nodes columns"]:
        (product,) = jax.linear_transpose(lambda x: flat_product(self.operator, x), columns)(columns)
        return product

    def transpose(self) -> GraphOperator:
        """The graph that was reversed."""
        return self.operator

    def at_step(self, step: Int[Array, ""] | int) -> "Transposed":
        """The reversed graph during that step."""
        return Transposed(self.operator.at_step(step))

    @property
    def is_symmetric(self) -> bool | None:
        """As for the graph that was reversed."""
        return self.operator.is_symmetric

    @property
    def mean_degree(self) -> float:
        """As for the graph that was reversed: each edge has one source and one target."""
        return self.operator.mean_degree
