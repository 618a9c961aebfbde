"""Graphs of blocks: the weight of an edge depends on the blocks of its two nodes only."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import check_count, check_that, found, is_concrete
from .graph_operator import GraphOperator, check_weights


class Block(GraphOperator):
    """The mean graph of a stochastic block model: a_ij = density[block of i, block of j], nodes sorted by block.

    Sums per block come from slices, since adding many values into few outputs by scatter is the slowest thing that one can do
    on a GPU. Costs N additions and B^2 multiplications a column.

    Args:
        density: (B, B), row b for the edges that arrive in block b.
        sizes: the number of nodes in each block, B positive integers. Block 0 comes first.

    Raises:
        ValueError: if `density` is not square, a size is not a positive integer, or their numbers differ.
    """

    density: Float[Array, "blocks blocks"]
    sizes: tuple[int, ...] = eqx.field(static=True)
    num_nodes: int = eqx.field(static=True)

    def __init__(self, density: Any, sizes: Sequence[int]):
        shape = np.shape(density)
        square = len(shape) == 2 and shape[0] == shape[1] and shape[0] > 0
        check_that(square, "density", "be a square matrix with a row for each block", f"found shape {shape}")
        check_that(len(sizes) == shape[0], "sizes", f"have one entry for each of the {shape[0]} blocks", found(sizes))
        for size in sizes:
            check_count(size, "sizes")
        self.density = check_weights(density, "density")
        self.sizes = tuple(int(size) for size in sizes)
        self.num_nodes = sum(self.sizes)

    def _product(self, columns: Float[Array, "nodes columns"]) -> Float[Array, "nodes columns"]:
        density = self.density.astype(columns.dtype)
        means = jnp.matmul(density, self.block_sums(columns), precision=jax.lax.Precision.HIGHEST) / self.num_nodes
        parts = [jnp.broadcast_to(row, (size, columns.shape[1])) for row, size in zip(means, self.sizes, strict=True)]
        if len(set(self.sizes)) == 1:
            return jnp.broadcast_to(means[:, None], (len(self.sizes), self.sizes[0], columns.shape[1])).reshape(
                columns.shape
            )
        return jnp.concatenate(parts)

    def block_sums(self, values: Float[Array, "nodes *columns"]) -> Float[Array, "blocks *columns"]:
        """The sum over each block."""
        if len(set(self.sizes)) == 1:
            return jnp.sum(values.reshape(len(self.sizes), self.sizes[0], *values.shape[1:]), axis=1)
        ends = np.cumsum(self.sizes)
        return jnp.stack(
            [jnp.sum(values[end - size : end], axis=0) for end, size in zip(ends, self.sizes, strict=True)]
        )

    def transpose(self) -> "Block":
        """The transposed density."""
        return Block(self.density.T, self.sizes)

    @property
    def is_symmetric(self) -> bool | None:
        """Whether the density is symmetric, None while traced."""
        return None if not is_concrete(self.density) else bool(jnp.all(self.density == self.density.T))
