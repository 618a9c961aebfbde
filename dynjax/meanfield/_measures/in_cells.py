"""Populations in cells: the particle scheme that converges for point masses as well as for densities."""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from ..._core import check_count, check_that, found
from .._graphs.graph_operator import GraphOperator


@functools.partial(jax.jit, static_argnums=1)
def _repeat(values: Array, times: int) -> Array:
    return jnp.repeat(values, times, axis=0, total_repeat_length=values.shape[0] * times)


class InCells(GraphOperator):
    r"""A graph of m cells with n nodes each: every node feels cell averages, weighted by a graph between the cells.

    $$(A F)_{(c, p)} = \sum_d a_{cd} / m \cdot \frac1n \sum_q F_{(d, q)}.$$

    Node (c, p) has number c n + p. As m and n grow, the fibres of a digraph measure are approached (Kuehn and Xu); for point
    masses only if n grows: one oscillator in each cell has no mean-field limit. Costs m n additions and a product with the
    graph of cells.

    Args:
        cells: the graph between the m cells.
        num_particles: n.
    """

    cells: GraphOperator
    num_particles: int = eqx.field(static=True)
    num_nodes: int = eqx.field(static=True)

    def __init__(self, cells: GraphOperator, num_particles: int):
        check_that(isinstance(cells, GraphOperator), "cells", "be a GraphOperator", found(cells), TypeError)
        check_count(num_particles, "num_particles")
        self.cells, self.num_particles = cells, num_particles
        self.num_nodes = cells.num_nodes * num_particles

    def averages(self, values: Inexact[Array, "nodes *columns"]) -> Inexact[Array, "cells *columns"]:
        """The mean over the nodes of each cell."""
        values = jnp.asarray(values)
        good = values.ndim > 0 and values.shape[0] == self.num_nodes
        check_that(good, "values", f"have a leading axis of {self.num_nodes} nodes", found(values))
        return jnp.mean(values.reshape(self.cells.num_nodes, self.num_particles, *values.shape[1:]), axis=1)

    def spread(self, values: Any) -> Array:
        """A value for each cell, repeated for its nodes."""
        return _repeat(jnp.asarray(values), self.num_particles)

    def _product(self, columns: Float[Array, "nodes columns"]) -> Float[Array, "nodes columns"]:
        return self.spread(self.cells.apply(self.averages(columns)))

    def transpose(self) -> "InCells":
        """The transposed graph between the cells."""
        return InCells(self.cells.transpose(), self.num_particles)

    @property
    def is_symmetric(self) -> bool | None:
        """As the graph between the cells."""
        return self.cells.is_symmetric

    @property
    def mean_degree(self) -> float:
        """That of the graph between the cells, times n."""
        return self.num_particles * self.cells.mean_degree
