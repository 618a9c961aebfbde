"""The sphere with x and y adjacent if orthogonal: denser than point masses, sparser than any density."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._graphs.graph_operator import Dense, GraphOperator
from .._graphs.sparse import Sparse
from .._graphs.sphere import SphereOperator
from .label_grid import LabelGrid
from .measure_part import Kind, MeasurePart, leading

# Rows of the matrix of inner products at once.
_ROWS = 1024


class Sphere(MeasurePart):
    """eta^x is the uniform law on the great circle orthogonal to x: eigenvalues P_l(0) on spherical harmonics."""

    def __init__(self):
        self.kind = Kind("sphere", symmetric=True, atomic=False, drawn=False)

    def grid(self, num_labels: int) -> LabelGrid:
        """About `num_labels` points (2 L^2): Gauss-Legendre in height times equispaced in longitude.

        Exact on spherical harmonics of degree below L; harmonics above are dropped.
        """
        operator = SphereOperator(max(2, round(np.sqrt(num_labels / 2))))
        return LabelGrid(operator.points, operator.quadrature, operator)

    def cells(self, num_cells: int) -> LabelGrid:
        """A Fibonacci lattice; each point feels the average over the lattice points near its great circle."""
        points = fibonacci_lattice(num_cells)
        near = np.abs(points @ points.T) <= band(num_cells)
        weights = num_cells * near / np.maximum(near.sum(axis=1, keepdims=True), 1)
        return LabelGrid(jnp.asarray(points), jnp.full(num_cells, 1 / num_cells), Dense(weights))

    def nodes(self, num_nodes: int) -> GraphOperator:
        """The same graph, as a list of edges: adjacent if |<x, y>| <= N^(-1/3); averages over neighbours."""
        points, width = fibonacci_lattice(num_nodes), band(num_nodes)
        pieces = []
        for top in range(0, num_nodes, _ROWS):
            target, source = np.nonzero(np.abs(points[top : top + _ROWS] @ points.T) <= width)
            pieces.append(np.stack([source, target + top]))
        source, target = np.concatenate(pieces, axis=1)
        return Sparse.from_edges(source, target, num_nodes=num_nodes, scale="degree")

    def eigenvalues(self, k: int, smallest: bool) -> Float[Array, "k"]:
        """P_l(0), 2 l + 1 times, in order of size."""
        # P_2j(0) falls like 1 / sqrt(pi j) and alternates, so the first k of one sign are among the first 2 k degrees.
        even = legendre_at_zero(2 * k + 4)
        values = np.repeat(even, np.minimum(4 * np.arange(len(even)) + 1, k))
        return leading(jnp.asarray(values), k, smallest)


def legendre_at_zero(count: int) -> np.ndarray:
    """P_0(0), P_2(0), P_4(0), ...: 1, -1/2, 3/8, -5/16, ..."""
    j = np.arange(1, count)
    return np.concatenate([[1.0], np.cumprod(-(2 * j - 1) / (2 * j))])


def fibonacci_lattice(count: int) -> np.ndarray:
    """Nearly uniform points of the unit sphere, (count, 3): equal steps in height, golden steps in longitude."""
    height = 1 - (2 * np.arange(count) + 1) / count
    angle = np.pi * (3 - np.sqrt(5)) * np.arange(count)
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=1)


def band(count: int) -> float:
    """Half the width of the strip about a great circle: its bias, width^2, is of the order of the lattice error."""
    return float(count) ** (-1 / 3)
