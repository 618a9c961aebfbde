"""The orthogonality graph on the sphere: neither dense nor sparse, an average over great circles."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import check_count
from .graph_operator import GraphOperator


class SphereOperator(GraphOperator):
    r"""Averages over great circles: (A F)(x) = mean of F over all y orthogonal to x, on a grid of the unit sphere.

    The operator commutes with rotations and multiplies spherical harmonics of degree l by the Legendre polynomial P_l(0) (Funk
    and Hecke): 1, 0, -1/2, 0, 3/8, 0, -5/16, ... The grid has L heights at Gauss-Legendre nodes and 2 L equidistant
    longitudes. On it harmonics of degree below L are orthonormal, and the operator is exact there; whatever is
    orthogonal to them goes to zero. Truncation makes some weights negative, so that the average of a rough positive
    function may be negative.

    A Fourier transform in longitude and a matrix of L x L for each order cost N log N + N L / 2 operations a column for
    N = 2 L^2 nodes, and L^3 numbers of memory.

    Args:
        num_heights: L.

    Raises:
        ValueError: if `num_heights` is not an integer of at least 2.

    Attributes:
        points: (N, 3), height by height.
        quadrature: (N,), weights of the uniform law, of sum one.
    """

    points: Float[Array, "nodes 3"]
    quadrature: Float[Array, "nodes"]
    orders: Float[Array, "orders heights heights"]
    num_nodes: int = eqx.field(static=True)

    def __init__(self, num_heights: int):
        check_count(num_heights, "num_heights", least=2)
        size = int(num_heights)
        height, weight = np.polynomial.legendre.leggauss(size)
        longitude = np.pi * np.arange(2 * size) / size
        radius = np.sqrt(1 - height**2)
        points = np.stack(
            [
                np.outer(radius, np.cos(longitude)),
                np.outer(radius, np.sin(longitude)),
                np.outer(height, np.ones(2 * size)),
            ],
            axis=-1,
        )
        dtype: Any = jnp.result_type(float)
        self.num_nodes = 2 * size**2
        self.points = jnp.asarray(points.reshape(-1, 3), dtype)
        self.quadrature = jnp.asarray(np.repeat(weight / (4 * size), 2 * size), dtype)
        factors = _legendre_at_zero(size)
        orders = np.zeros((size + 1, size, size))
        for order in range(size):
            functions = _legendre_functions(order, size, height)  # (degrees order..size-1, heights)
            orders[order] = (functions.T * factors[order:]) @ (functions * weight)
        self.orders = jnp.asarray(orders, dtype)

    def _product(self, columns: Float[Array, "nodes columns"]) -> Float[Array, "nodes columns"]:
        dtype = jnp.promote_types(columns.dtype, jnp.float32)
        size = self.orders.shape[1]
        modes = jnp.fft.rfft(columns.astype(dtype).reshape(size, 2 * size, -1), axis=1)  # (heights, orders, columns)
        parts = jnp.stack([modes.real, modes.imag], axis=-1)
        precision = jax.lax.Precision.HIGHEST
        averaged = jnp.einsum("mij,jmcp->imcp", self.orders.astype(dtype), parts, precision=precision)
        values = jnp.fft.irfft(jax.lax.complex(averaged[..., 0], averaged[..., 1]), n=2 * size, axis=1)
        return values.reshape(columns.shape).astype(columns.dtype)

    def transpose(self) -> "GraphOperator":
        """Symmetric with respect to the quadrature weights; as a matrix on the nodes it is not."""
        from .transposed import Transposed

        return Transposed(self)

    @property
    def is_symmetric(self) -> bool:
        """Not as a matrix: a_ij / N = kernel(x_i, x_j) w_j with unequal weights."""
        return False


def _legendre_at_zero(count: int) -> np.ndarray:
    """P_l(0) for l below `count`, by l P_l = -(l - 1) P_{l-2}."""
    values = np.zeros(count)
    values[0] = 1
    for degree in range(2, count, 2):
        values[degree] = -(degree - 1) / degree * values[degree - 2]
    return values


def _legendre_functions(order: int, count: int, height: np.ndarray) -> np.ndarray:
    """Associated Legendre functions of degrees order..count-1, normalised on [-1, 1], by the stable recursion in degree."""
    functions = np.zeros((count - order, len(height)))
    steps = np.arange(1, order + 1)
    # sqrt((2m+1)/2 prod (2k-1)/(2k)) (1 - z^2)^(m/2), in logarithms: the factors under- and overflow by themselves
    start = 0.5 * (np.log((2 * order + 1) / 2) + np.sum(np.log((2 * steps - 1) / (2 * steps))))
    functions[0] = np.exp(start + order / 2 * np.log1p(-(height**2)))
    previous, factor = np.zeros_like(height), 0.0
    for row in range(1, count - order):
        degree = order + row
        scale = np.sqrt((4 * degree**2 - 1) / (degree**2 - order**2))
        functions[row] = scale * (height * functions[row - 1] - factor * previous)
        previous, factor = functions[row - 1], 1 / scale
    return functions
