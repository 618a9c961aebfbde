"""Densities W(x, y) on the labels [0, 1]: constants, a singular product, kernels of a Green function, Volterra."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import Function, check_positive, check_that, is_concrete
from .._graphs.cumulative import Cumulative
from .._graphs.graph_operator import AllToAll, Dense, GraphOperator
from .._graphs.low_rank import LowRank
from .._graphs.parent_map import ParentMap
from .label_grid import LabelGrid
from .label_quadrature import gauss_jacobi, legendre, midpoints, running_integral
from .measure_part import Kind, MeasurePart, check_interval, leading, midpoint_grid
from .random_edges import convolution_edges, edge_probability, thinned_edges

# Exponents below this get Gauss-Jacobi nodes in x itself: x^a is so close to constant that 40 labels leave an error of 1e-6.
_SMALL_EXPONENT = 1 / 1024


class Constant(MeasurePart):
    """One density p for all pairs: complete graphs (p = 1) and Erdos-Renyi graphs."""

    density: Float[Array, ""]

    def __init__(self, density: Any, *, drawn: bool):
        self.density = jnp.asarray(density, jnp.result_type(float))
        self.kind = Kind("interval", symmetric=True, atomic=False, drawn=drawn)

    def grid(self, num_labels: int) -> LabelGrid:
        """Midpoints, all to all."""
        return midpoint_grid(AllToAll(num_labels, self.density))

    def cells(self, num_cells: int) -> LabelGrid:
        """The same."""
        return self.grid(num_cells)

    def eigenvalues(self, k: int, smallest: bool) -> Float[Array, "k"]:
        """p, and zero."""
        return leading(jnp.append(jnp.zeros(k, self.density.dtype), self.density), k, smallest)

    def mean_density(self) -> Float[Array, ""]:
        """The density itself."""
        return self.density

    def edges(self, num_nodes, generator, scaling, directed, clip):
        """Independent edges of one probability."""
        chance = edge_probability(np.float64(self.density), scaling, clip)
        return convolution_edges(generator, num_nodes, [(1, num_nodes // 2, float(chance))], directed)


class PowerLaw(MeasurePart):
    r"""W(x, y) = w(x) w(y), w(x) = (1 - a) x^-a: expected degrees with a tail of exponent 1 + 1 / a."""

    exponent: Float[Array, ""]

    def __init__(self, exponent: Any):
        check_interval(exponent, "exponent", high=0.5, open_high=True)
        self.exponent = jnp.asarray(exponent, jnp.result_type(float))
        self.kind = Kind("interval", symmetric=True, atomic=False, drawn=True)

    def factor(self, labels: Float[Array, "labels"]) -> Float[Array, "labels"]:
        """The weight w of labels."""
        return (1 - self.exponent) * labels**-self.exponent

    @eqx.filter_jit
    def grid(self, num_labels: int) -> LabelGrid:
        r"""Gauss-Jacobi nodes in u = x^a with the weight of w^2 dx, u^(1/a - 3).

        Then w = (1 - a) / u, and the integrals of 1, w, w^2 and of bounded smooth functions of w converge exponentially,
        the first three are exact. Below a = 1/1024 the nodes are graded in x itself.
        """
        a = self.exponent
        power = jnp.where(a < _SMALL_EXPONENT, 1, a)
        u, masses = gauss_jacobi(num_labels, (1 - 2 * a) / power - 1)
        labels = u ** (1 / power)
        # dx = u^(1/c - 1) du / c, and the rule has u^((1 - 2a)/c - 1) inside.
        weights = masses * u ** (2 * a / power) / power
        factor = (1 - a) * u ** (-a / power)
        return LabelGrid(
            labels, weights / jnp.sum(weights), LowRank(factor[:, None], (num_labels * factor * weights)[:, None])
        )

    def cells(self, num_cells: int) -> LabelGrid:
        """Cell averages of w: the mass is exact, the leading eigenvalue falls short by about num_cells^(2a - 1)."""
        edges = np.arange(num_cells + 1) / num_cells
        primitive = jnp.asarray(edges) ** (1 - self.exponent)
        factor = (num_cells * jnp.diff(primitive))[:, None]
        return midpoint_grid(LowRank(factor, factor))

    def nodes(self, num_nodes: int) -> GraphOperator:
        """Weights w(x_i) w(x_j), loops included: they weigh w^2 / N."""
        factor = self.factor(jnp.asarray(midpoints(num_nodes), self.exponent.dtype))[:, None]
        return LowRank(factor, factor)

    def eigenvalues(self, k: int, smallest: bool) -> Float[Array, "k"]:
        """(1 - a)^2 / (1 - 2 a), and zero."""
        value = (1 - self.exponent) ** 2 / (1 - 2 * self.exponent)
        return leading(jnp.append(jnp.zeros(k, value.dtype), value), k, smallest)

    def mean_density(self) -> Float[Array, ""]:
        """One."""
        return jnp.ones_like(self.exponent)

    def edge_scaling(self, num_nodes: int) -> float:
        """1 / w^2 at the smallest label: the largest without clipping, for a mean degree of about N^(1 - 2 a)."""
        return float(self.factor(jnp.asarray(midpoints(num_nodes)[0])) ** -2)

    def edges(self, num_nodes, generator, scaling, directed, clip):
        """Independent edges of probability min(1, scaling w w), by thinning between ranges of nodes of like weight."""
        a = float(self.exponent)
        factor = (1 - a) * midpoints(num_nodes) ** -a
        # Ranges end at 1, 2, 4, ...: within one, w changes by 2^a at most, so that over half of the candidates stay.
        breaks = np.unique(np.append(2 ** np.arange(num_nodes.bit_length()), [0, num_nodes]))
        breaks = breaks[breaks <= num_nodes]

        def bound(row: int, column: int) -> float:
            return scaling * factor[breaks[row]] * factor[breaks[column]]

        def probability(i: np.ndarray, j: np.ndarray) -> np.ndarray:
            return scaling * factor[i] * factor[j]

        return thinned_edges(generator, breaks, bound, probability, directed)


class GreenKernel(MeasurePart):
    """min(x, y) or 1 - max(x, y): inverses of minus the second derivative, with a kink on the diagonal."""

    reverse: bool = eqx.field(static=True)

    def __init__(self, *, reverse: bool):
        self.reverse = reverse
        self.kind = Kind("interval", symmetric=True, atomic=False, drawn=False)

    def grid(self, num_labels: int) -> LabelGrid:
        """Gauss-Legendre labels; the running integrals of polynomials are exact, so that the kink costs nothing.

        min = V V* and 1 - max = V* V for the running integral V: positive semidefinite, exponentially accurate.
        """
        rule, integral = legendre(num_labels), running_integral(num_labels)
        half = integral[:, :num_labels].T if self.reverse else integral[:num_labels]
        modes = rule.modes[:, :num_labels]
        matrix = modes @ (half @ half.T) @ (modes.T * rule.weights)
        return LabelGrid(jnp.asarray(rule.nodes), jnp.asarray(rule.weights), Dense(num_labels * matrix))

    def cells(self, num_cells: int) -> LabelGrid:
        """Values at midpoints, by cumulative sums: of second order."""
        kernel = Cumulative.max_kernel if self.reverse else Cumulative.min_kernel
        return midpoint_grid(kernel(jnp.asarray(midpoints(num_cells))))

    def _values(self, x: Any, y: Any) -> Any:
        return 1 - np.maximum(x, y) if self.reverse else np.minimum(x, y)

    def eigenvalues(self, k: int, smallest: bool) -> Float[Array, "k"]:
        """4 / ((2 j - 1)^2 pi^2); the smallest are zero."""
        values = 4 / ((2 * jnp.arange(1, k + 1, dtype=jnp.result_type(float)) - 1) ** 2 * jnp.pi**2)
        return jnp.zeros_like(values) if smallest else values

    def mean_density(self) -> Float[Array, ""]:
        """1 / 3."""
        return jnp.asarray(1 / 3, jnp.result_type(float))

    def edges(self, num_nodes, generator, scaling, directed, clip):
        """Independent edges; the kernel grows towards one corner, which bounds it on ranges of nodes."""
        x = midpoints(num_nodes)
        breaks = np.unique(np.linspace(0, num_nodes, 33).astype(int))

        def bound(row: int, column: int) -> float:
            at = (breaks[row], breaks[column]) if self.reverse else (breaks[row + 1] - 1, breaks[column + 1] - 1)
            return scaling * self._values(x[at[0]], x[at[1]])

        def probability(i: np.ndarray, j: np.ndarray) -> np.ndarray:
            return scaling * self._values(x[i], x[j])

        return thinned_edges(generator, breaks, bound, probability, directed)


class Volterra(MeasurePart):
    """eta^x(dy) = 1{y < x} dy: each label is driven by all smaller ones. Feed-forward, though dense."""

    def __init__(self):
        self.kind = Kind("interval", symmetric=False, atomic=False, drawn=False)

    def grid(self, num_labels: int) -> LabelGrid:
        """Midpoints; the half cell below the own label goes to the neighbour below.

        Strictly triangular, hence nilpotent as the limit is quasi-nilpotent: with half of the own cell on the diagonal
        there would be an eigenvalue 1 / (2 num_labels), and a false threshold. Of second order away from the first label,
        which nothing drives.
        """
        below = ParentMap(np.arange(num_labels) - 1, 0.5 / num_labels)
        return midpoint_grid(Cumulative.volterra(num_labels) + below)

    def cells(self, num_cells: int) -> LabelGrid:
        """The same."""
        return self.grid(num_cells)

    def nodes(self, num_nodes: int) -> GraphOperator:
        """Node i is driven by all j < i."""
        return Cumulative.volterra(num_nodes)

    def eigenvalues(self, k: int, smallest: bool) -> Float[Array, "k"]:
        """Zero, and nothing else."""
        return jnp.zeros(k, jnp.result_type(float))

    def mean_density(self) -> Float[Array, ""]:
        """1 / 2."""
        return jnp.asarray(0.5, jnp.result_type(float))

    def edges(self, num_nodes, generator, scaling, directed, clip):
        """Independent edges from smaller to larger labels; always directed."""
        breaks = np.unique(np.linspace(0, num_nodes, 33).astype(int))
        return thinned_edges(
            generator, breaks, lambda r, s: scaling if s <= r else 0.0, lambda i, j: scaling * (j < i), True
        )


class Density(MeasurePart):
    """A density given by a function W(x, y) on [0, 1] or on the circle."""

    kernel: Function
    bound: float = eqx.field(static=True)
    smooth: bool = eqx.field(static=True)

    def __init__(self, kernel: Callable, *, space: str, symmetric: bool, smooth: bool, bound: float):
        check_that(callable(kernel), "kernel", "be a function W(x, y)", f"found a {type(kernel).__name__}", TypeError)
        check_that(space in ("interval", "circle"), "space", 'be "interval" or "circle"', f"found {space!r}")
        check_positive(bound, "bound")
        self.kernel, self.bound, self.smooth = Function(kernel), float(bound), smooth
        self.kind = Kind(space, symmetric=symmetric, atomic=False, drawn=True)
        x = jnp.asarray(midpoints(7))
        values = self(x[:, None], x)
        if is_concrete(values):
            array = np.asarray(values)
            check_that(
                bool(np.all(np.isfinite(array))), "kernel", "be finite", "it is not at some of the midpoints k/7"
            )
            even = not symmetric or np.allclose(array, array.T, rtol=1e-3, atol=1e-6)
            check_that(even, "kernel", "be symmetric unless `directed=True`", "W(x, y) and W(y, x) differ")

    def __call__(self, x: Any, y: Any) -> Float[Array, "..."]:
        """W(x, y), broadcast."""
        values = jnp.asarray(self.kernel(x, y), jnp.result_type(float))
        shape = jnp.broadcast_shapes(jnp.shape(x), jnp.shape(y))
        check_that(
            values.ndim == 0 or values.shape == shape,
            "kernel",
            f"return the shape {shape} of its arguments",
            f"found {values.shape}",
        )
        return jnp.broadcast_to(values, shape)

    def grid(self, num_labels: int) -> LabelGrid:
        """Gauss-Legendre on [0, 1], equispaced on the circle; midpoints of cells if not smooth."""
        if self.kind.space == "circle" or not self.smooth:
            return self.cells(num_labels)
        rule = legendre(num_labels)
        x, q = jnp.asarray(rule.nodes), jnp.asarray(rule.weights)
        return LabelGrid(x, q, Dense(num_labels * self(x[:, None], x[None]) * q))

    def cells(self, num_cells: int) -> LabelGrid:
        """Values at midpoints: of second order if smooth, of first order at jumps."""
        x = jnp.asarray(midpoints(num_cells))
        return midpoint_grid(Dense(self(x[:, None], x[None])))

    def edge_scaling(self, num_nodes: int) -> float:
        """1 / bound if that is above one."""
        return 1 / max(self.bound, 1.0)

    def mean_density(self) -> Float[Array, ""]:
        """By the product rule of 64 midpoints."""
        x = jnp.asarray(midpoints(64))
        return jnp.mean(self(x[:, None], x[None]))

    def edges(self, num_nodes, generator, scaling, directed, clip):
        """Independent edges by thinning under one bound."""
        del clip  # the bound is checked, and the scaling made for it
        x = midpoints(num_nodes)

        def probability(i: np.ndarray, j: np.ndarray) -> np.ndarray:
            # Few lengths, so that the kernel is compiled a few times only.
            length = 1 << max(int(i.size - 1).bit_length(), 0)
            padded = (jnp.asarray(x[np.resize(k, length)] if k.size else np.zeros(length)) for k in (i, j))
            values = np.asarray(_evaluate(self, *padded), float)[: i.size]
            bad = values[~((values >= 0) & (values <= self.bound * (1 + 1e-6)))]
            seen = f"found {bad[0]}" if bad.size else ""
            check_that(
                not bad.size, "kernel", f"lie between 0 and `bound` = {self.bound:g} where edges are drawn", seen
            )
            return np.minimum(scaling * values, 1.0)

        breaks = np.asarray([0, num_nodes])
        return thinned_edges(generator, breaks, lambda r, s: scaling * self.bound, probability, directed)


@eqx.filter_jit
def _evaluate(density: Density, x: Array, y: Array) -> Array:
    return density(x, y)
