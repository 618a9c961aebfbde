"""The ring with fixed shifts: each node is driven from given distances, on or off the grid."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import check_count, is_concrete
from .graph_operator import GraphOperator, check_weights


class Shift(GraphOperator):
    r"""N equidistant nodes on the circle of length one, node x driven from x + s_k: (A F)(x) = sum_k w_k F(x + s_k).

    The digraph measure eta^x = sum_k w_k delta_{x + s_k} is no graphon. Its eigenvalue for the mode exp(2 pi i q x) is
    sum_k w_k exp(2 pi i q s_k). Off the grid F is interpolated linearly (cloud in cell): the mass is kept, and with
    p = s N - floor(s N) the eigenvalue of a shift changes to ((1 - p) + p exp(2 pi i q / N)) exp(2 pi i q floor(s N) / N),
    an error of second order in q / N.

    Args:
        num_nodes: N.
        shifts: s_k in units of the circle, traced; of any sign and size. Differentiable in the sense of the interpolation.
        weights: w_k, traced; by default equal ones of sum one.

    Raises:
        ValueError: if `num_nodes` is not a positive integer, a shift or weight is NaN or infinite, or their numbers differ.
    """

    shifts: Float[Array, "shifts"]
    weights: Float[Array, "shifts"]
    num_nodes: int = eqx.field(static=True)

    def __init__(self, num_nodes: int, shifts: Any, weights: Any = None):
        check_count(num_nodes, "num_nodes")
        self.num_nodes = int(num_nodes)
        shape = np.shape(shifts)
        self.shifts = jnp.atleast_1d(check_weights(shifts, "shifts", (None,) if shape else ()))
        count = self.shifts.shape[0]
        equal = jnp.full((count,), 1 / max(count, 1), self.shifts.dtype)
        self.weights = equal if weights is None else jnp.atleast_1d(check_weights(weights, "weights", shape))

    def _positions(self) -> Float[np.ndarray, "shifts"] | None:
        """The shifts in nodes, on the host, if they are known; those meant to lie on the grid, 0.3 of 10 nodes, do."""
        if not is_concrete(self.shifts):
            return None
        position = np.asarray(self.shifts, np.float64) * self.num_nodes
        nearest = np.round(position)
        rounding = 2 * np.finfo(self.shifts.dtype).eps * np.maximum(1, np.abs(nearest))
        return np.where(np.abs(position - nearest) <= rounding, nearest, position)

    def _product(self, columns: Float[Array, "nodes columns"]) -> Float[Array, "nodes columns"]:
        position: Any = self._positions()
        if position is None:
            # One rounding of s N for both parts: compiled twice, it could be rounded twice, and differently.
            position = jax.lax.optimization_barrier(self.shifts * self.num_nodes)
            whole: Any = jax.lax.stop_gradient(jnp.floor(position)).astype(jnp.int32)
        else:
            whole = np.floor(position).astype(int)
        fraction = position - whole
        total = jnp.zeros_like(columns)
        for k in range(self.shifts.shape[0]):
            near = jnp.roll(columns, -whole[k], axis=0)
            if not (isinstance(fraction, np.ndarray) and fraction[k] == 0):
                near = near + jnp.asarray(fraction[k], columns.dtype) * (jnp.roll(near, -1, axis=0) - near)
            total = total + self.weights[k].astype(columns.dtype) * near
        return total

    def transpose(self) -> "Shift":
        """The opposite shifts."""
        return Shift(self.num_nodes, -self.shifts, self.weights)

    @property
    def mean_degree(self) -> float:
        """The number of shifts, twice that where they may lie off the grid."""
        position = self._positions()
        cells = 2 * self.shifts.shape[0] if position is None else int(np.sum(1 + (position != np.round(position))))
        return float(min(self.num_nodes, cells))
