"""Graphs on a ring whose weights depend on the distance only: convolutions, by FFT or by running sums."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import check_count, check_that, is_concrete
from .graph_operator import GraphOperator, check_weights


class Circulant(GraphOperator):
    """A ring of nodes, a_ij = c[(i - j) mod N], by the real FFT. Costs N log N a column.

    Args:
        weights: c, (N,). c[1] is the weight of the edge from each node to the next one, c[-1] that to the one before.

    Raises:
        TypeError: if the weights are complex.
        ValueError: if they are not a vector, are empty, or hold NaN or infinite entries.
    """

    weights: Float[Array, "nodes"]
    num_nodes: int = eqx.field(static=True)

    def __init__(self, weights: Any):
        shape = np.shape(weights)
        check_that(
            len(shape) == 1 and shape[0] > 0, "weights", "be a vector, one for each node", f"found shape {shape}"
        )
        self.weights = check_weights(weights, "weights")
        self.num_nodes = int(shape[0])

    @staticmethod
    def window(num_nodes: int, reach: int, weight: Any = 1.0, *, loops: bool = True) -> "Window":
        """The ring on which each node is driven by all nodes at most `reach` steps away: see `Window`."""
        return Window(num_nodes, reach, weight, loops=loops)

    def eigenvalues(self) -> Array:
        """The eigenvalues of a_ij / N for the modes exp(2 pi i q j / N), q = 0..N-1, complex."""
        return jnp.fft.fft(self.weights) / self.num_nodes

    def _product(self, columns: Float[Array, "nodes columns"]) -> Float[Array, "nodes columns"]:
        # Half precision has no FFT: it is lifted, and `apply` rounds the result back.
        dtype = jnp.promote_types(columns.dtype, jnp.float32)
        symbol = jnp.fft.rfft(self.weights.astype(dtype)) / self.num_nodes
        modes = jnp.fft.rfft(columns.astype(dtype).T, axis=-1)  # transforms along contiguous memory
        return jnp.fft.irfft(symbol * modes, n=self.num_nodes, axis=-1).T.astype(columns.dtype)

    def transpose(self) -> "Circulant":
        """The reflected weights c[-k]."""
        return Circulant(jnp.roll(self.weights[::-1], 1))

    @property
    def is_symmetric(self) -> bool | None:
        """Whether c[k] = c[-k], None while traced."""
        if not is_concrete(self.weights):
            return None
        weights = np.asarray(self.weights)
        return bool(np.all(weights[1:] == weights[:0:-1]))

    @property
    def mean_degree(self) -> float:
        """The number of weights that are not zero, N while traced."""
        if not is_concrete(self.weights):
            return float(self.num_nodes)
        return float(np.count_nonzero(np.asarray(self.weights)))


class Window(GraphOperator):
    """The ring with a_ij = weight for nodes at most `reach` steps apart, by running sums of doubling length.

    The sum over m neighbours is put together from sums over 1, 2, 4, ... neighbours, hence about 2 log2 m additions of shifted
    copies and no cancellation, unlike the difference of two long sums.

    Args:
        num_nodes: N.
        reach: how many steps to each side, at most (N - 1) / 2; static.
        weight: the weight, traced.
        loops: whether a node drives itself too.

    Raises:
        ValueError: if `num_nodes` or `reach` is no integer in its range, or the weight is not one finite number.
    """

    weight: Float[Array, ""]
    num_nodes: int = eqx.field(static=True)
    reach: int = eqx.field(static=True)
    loops: bool = eqx.field(static=True)

    def __init__(self, num_nodes: int, reach: int, weight: Any = 1.0, *, loops: bool = True):
        check_count(num_nodes, "num_nodes")
        check_count(reach, "reach", least=0)
        check_that(
            2 * reach + 1 <= num_nodes, "reach", f"be at most (N - 1) / 2 = {(num_nodes - 1) // 2}", f"found {reach}"
        )
        self.num_nodes, self.reach, self.loops = int(num_nodes), int(reach), bool(loops)
        self.weight = check_weights(weight, "weight", ())

    def _product(self, columns: Float[Array, "nodes columns"]) -> Float[Array, "nodes columns"]:
        if self.loops or self.reach == 0:
            total = _forward_sum(columns, 2 * self.reach + 1) if self.loops else jnp.zeros_like(columns)
            total = jnp.roll(total, self.reach, axis=0)
        else:
            side = _forward_sum(columns, self.reach)  # of nodes i .. i + reach - 1
            total = jnp.roll(side, -1, axis=0) + jnp.roll(side, self.reach, axis=0)
        return total * (self.weight / self.num_nodes).astype(columns.dtype)

    def transpose(self) -> "Window":
        """Itself."""
        return self

    @property
    def is_symmetric(self) -> bool:
        """Always."""
        return True

    @property
    def mean_degree(self) -> float:
        """2 reach, and one more with loops."""
        return float(2 * self.reach + self.loops)


def _forward_sum(columns: Float[Array, "nodes columns"], length: int) -> Float[Array, "nodes columns"]:
    """For each node the sum over itself and the next length - 1 nodes, by binary digits of the length."""
    power, size = columns, 1
    total, done = (columns, 1) if length & 1 else (jnp.zeros_like(columns), 0)
    while 2 * size <= length:
        power, size = power + jnp.roll(power, -size, axis=0), 2 * size
        if length & size:
            total, done = total + jnp.roll(power, -done, axis=0), done + size
    return total
