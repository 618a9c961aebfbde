"""Labels with quadrature weights, and who drives whom among them: what every limit runs on."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from ..._core import check_count, check_that, found
from .._graphs.graph_operator import GraphOperator


class LabelGrid(eqx.Module):
    """A digraph measure on quadrature labels.

    Attributes:
        labels: x_i, (labels,) on an interval or a circle, (labels, 3) on the sphere, block numbers for blocks.
        weights: quadrature weights of the reference probability on the labels, (labels,), of sum one.
        operator: the map f -> int f(y) eta^{x_i}(dy) on values at the labels, as a `GraphOperator` (quadrature weights
            inside, in place of 1/N).
    """

    labels: Float[Array, "labels *dim"]
    weights: Float[Array, "labels"]
    operator: GraphOperator

    def __check_init__(self):
        check_that(isinstance(self.operator, GraphOperator), "operator", "be a GraphOperator", found(self.operator))
        count = self.operator.num_nodes
        for name in ("labels", "weights"):
            value = getattr(self, name)
            shape = jnp.shape(value)
            check_that(
                len(shape) > 0 and shape[0] == count, name, f"have one row for each of {count} labels", found(value)
            )

    @property
    def num_labels(self) -> int:
        """How many labels there are."""
        return self.operator.num_nodes

    def mean(self, values: Inexact[Array, "labels *columns"]) -> Inexact[Array, "*columns"]:
        """The integral of a function over the reference probability.

        Args:
            values: the function at the labels, with any trailing axes; real or complex.

        Raises:
            ValueError: if the leading axis is not the number of labels.
        """
        values = jnp.asarray(values)
        good = values.ndim > 0 and values.shape[0] == self.num_labels
        check_that(good, "values", f"have a leading axis of {self.num_labels} labels", found(values))
        weights = self.weights.astype(jnp.finfo(values.dtype).dtype).astype(values.dtype)
        return jnp.tensordot(weights, values, axes=1, precision=jax.lax.Precision.HIGHEST)


def as_grid(graph: Any, num_labels: int | None = None) -> LabelGrid:
    """Fibres from whatever describes a graph.

    Args:
        graph: a `DigraphMeasure` (its quadrature labels), a `LabelGrid` (itself) or a `GraphOperator` (its N nodes at the
            labels (i + 1/2) / N, of weight 1/N each).
        num_labels: how many labels for a `DigraphMeasure`; its own choice by default. A `LabelGrid` and a `GraphOperator`
            have their number already.

    Raises:
        TypeError: if `graph` is none of the three.
        ValueError: if `num_labels` contradicts the graph.
    """
    if num_labels is not None:
        check_count(num_labels, "num_labels")
    if isinstance(graph, GraphOperator):
        count = graph.num_nodes
        graph = LabelGrid((jnp.arange(count) + 0.5) / count, jnp.full(count, 1 / count), graph)
    if isinstance(graph, LabelGrid):
        agrees = num_labels is None or num_labels == graph.num_labels
        check_that(agrees, "num_labels", f"be None or {graph.num_labels}, the labels there are", f"found {num_labels}")
        return graph
    good = hasattr(graph, "grid")
    check_that(good, "graph", "be a DigraphMeasure, a LabelGrid or a GraphOperator", found(graph), TypeError)
    return graph.grid(num_labels)
