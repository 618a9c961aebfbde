"""Sums and multiples of graphs: layers of one network, excitation and inhibition, a ring plus long-range links."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, Int

from ..._core import check_that, found
from .graph_operator import GraphOperator, check_weights, flat_product


class Combination(GraphOperator):
    """The graph with the weights sum_k c_k a^k_ij, each part applied in its own way. Made by `+`, `-` and `*`.

    Args:
        parts: operators on the same nodes.
        coefficients: c_k, one number for each part, traced.

    Raises:
        ValueError: if there are no parts, they have different numbers of nodes, or the coefficients do not fit.
    """

    parts: tuple[GraphOperator, ...]
    coefficients: tuple[Float[Array, ""], ...]
    num_nodes: int = eqx.field(static=True)

    def __init__(self, parts: Sequence[GraphOperator], coefficients: Sequence[Any]):
        sizes = {part.num_nodes for part in parts}
        check_that(len(sizes) == 1, "parts", "have one number of nodes in common", f"found {sorted(sizes)}")
        fits = len(parts) == len(coefficients)
        check_that(fits, "coefficients", f"have one entry for each of the {len(parts)} parts", found(coefficients))
        self.parts = tuple(parts)
        self.coefficients = tuple(check_weights(value, "coefficients", ()) for value in coefficients)
        self.num_nodes = sizes.pop()

    def _product(self, columns: Float[Array, "nodes columns"]) -> Float[Array, "nodes columns"]:
        pairs = zip(self.coefficients, self.parts, strict=True)
        first, *rest = [factor.astype(columns.dtype) * flat_product(part, columns) for factor, part in pairs]
        return sum(rest, first)

    def transpose(self) -> "Combination":
        """The same combination of the transposed parts."""
        return Combination(tuple(part.transpose() for part in self.parts), self.coefficients)

    def at_step(self, step: Int[Array, ""] | int) -> "Combination":
        """The same combination of the parts during that step."""
        return Combination(tuple(part.at_step(step) for part in self.parts), self.coefficients)

    @property
    def is_symmetric(self) -> bool | None:
        """True if all parts are; otherwise not known."""
        return True if all(part.is_symmetric for part in self.parts) else None

    @property
    def mean_degree(self) -> float:
        """An upper bound: the sum over the parts, at most N."""
        return min(float(self.num_nodes), sum(part.mean_degree for part in self.parts))
