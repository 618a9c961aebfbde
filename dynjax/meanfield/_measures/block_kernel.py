"""Stochastic block densities: finitely many populations."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from ..._core import check_that, found, is_concrete
from .._graphs.graph_operator import Dense, GraphOperator
from .._graphs.low_rank import LowRank
from .label_grid import LabelGrid
from .label_quadrature import midpoints
from .measure_part import Kind, MeasurePart, check_finite, leading, midpoint_grid
from .random_edges import edge_probability, thinned_edges


class Blocks(MeasurePart):
    """A density that is constant on products of blocks: density[b, c] is the weight of edges from block c into block b.

    The blocks lie in order on [0, 1], with lengths in proportion to `sizes`.
    """

    density: Float[Array, "blocks blocks"]
    sizes: Float[Array, "blocks"]

    def __init__(self, density: Any, sizes: Any, directed: bool | None):
        dtype = jnp.result_type(float)
        density, sizes = jnp.asarray(density, dtype), jnp.asarray(sizes, dtype)
        good = density.ndim == 2 and density.shape[0] == density.shape[1] > 0
        check_that(good, "density", "be a square matrix", found(density))
        check_that(sizes.shape == density.shape[:1], "sizes", f"have {density.shape[0]} entries", found(sizes))
        check_finite(density, "density")
        if is_concrete(sizes):
            positive = bool(np.all(np.isfinite(np.asarray(sizes)) & (np.asarray(sizes) > 0)))
            check_that(positive, "sizes", "be positive and finite", f"found {sizes}")
        if directed is None:
            known = is_concrete(density)
            check_that(known, "directed", "be given for a traced `density`", "found None")
            directed = not np.array_equal(np.asarray(density), np.asarray(density).T)
        self.density, self.sizes = density, sizes / jnp.sum(sizes)
        self.kind = Kind("interval", symmetric=not directed, atomic=False, drawn=True)

    def grid(self, num_labels: int) -> LabelGrid:
        """One label for each block, whatever `num_labels`: exact for fibres that agree within a block."""
        count = self.sizes.shape[0]
        labels = jnp.arange(count, dtype=self.sizes.dtype)
        return LabelGrid(labels, self.sizes, Dense(count * self.density * self.sizes))

    def cells(self, num_cells: int) -> LabelGrid:
        """Averages over cells of equal length: cells that straddle two blocks are shared in proportion."""
        edges = jnp.asarray(np.arange(num_cells + 1) / num_cells)[:, None]
        ends = jnp.cumsum(self.sizes)
        covered = jnp.clip(edges, ends - self.sizes, ends)
        share = num_cells * jnp.diff(covered, axis=0)
        return midpoint_grid(LowRank(share @ self.density, share))

    def nodes(self, num_nodes: int) -> GraphOperator:
        """Each node belongs to the block of its label (i + 1/2) / N."""
        labels = jnp.asarray(midpoints(num_nodes))[:, None]
        ends = jnp.cumsum(self.sizes)
        # The last end may round to less than one.
        member = (labels >= ends - self.sizes) & ((labels < ends) | (ends == ends[-1]))
        share = member.astype(self.density.dtype)
        return LowRank(share @ self.density, share)

    def eigenvalues(self, k: int, smallest: bool) -> Inexact[Array, "k"]:
        """Those of density * sizes, and zero."""
        if not self.kind.symmetric:
            return leading(_padded(jnp.linalg.eigvals(self.density * self.sizes), k), k, smallest)
        root = jnp.sqrt(self.sizes)
        return leading(_padded(jnp.linalg.eigvalsh(root[:, None] * self.density * root), k), k, smallest)

    def mean_density(self) -> Float[Array, ""]:
        """Sizes' density sizes."""
        return self.sizes @ self.density @ self.sizes

    def edges(self, num_nodes, generator, scaling, directed, clip):
        """Independent edges of one probability in each pair of blocks."""
        chance = edge_probability(np.asarray(self.density, float), scaling, clip)
        ends = np.cumsum(np.asarray(self.sizes, float))
        breaks = np.concatenate([[0], np.searchsorted(midpoints(num_nodes), ends[:-1]), [num_nodes]])
        block = np.repeat(np.arange(len(ends)), np.diff(breaks))
        return thinned_edges(
            generator, breaks, lambda r, s: chance[r, s], lambda i, j: chance[block[i], block[j]], directed
        )


def _padded(values: Inexact[Array, "blocks"], k: int) -> Inexact[Array, "more"]:
    """With the eigenvalue zero of functions of mean zero within blocks, of infinite multiplicity."""
    return jnp.concatenate([values, jnp.zeros(k, values.dtype)])
