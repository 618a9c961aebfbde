"""Digraph measures on the circle that look the same from every label: rings, small worlds, fixed shifts."""

import abc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from ..._core import check_that, found, is_concrete
from .._graphs.circulant import Circulant, Window
from .._graphs.graph_operator import GraphOperator
from .._graphs.shift import Shift
from .label_grid import LabelGrid
from .measure_part import Kind, MeasurePart, check_finite, check_interval, leading, midpoint_grid
from .random_edges import convolution_edges, edge_probability

# Modes looked at for the leading eigenvalues of a band: the rest are below 1 / (pi _MODES) in modulus.
_MODES = 4096


class Convolution(MeasurePart):
    r"""eta^x(dy) = k(y - x): the eigenfunctions are exp(2 pi i q x), the eigenvalues the Fourier coefficients of k."""

    @abc.abstractmethod
    def multipliers(self, modes: Float[Array, "modes"]) -> Inexact[Array, "modes"]:
        r"""Int exp(2 pi i q u) k(du) for each mode q."""

    def grid(self, num_labels: int) -> LabelGrid:
        """Equispaced labels and exact multipliers: no error on trigonometric polynomials below num_labels / 2."""
        modes = jnp.arange(num_labels // 2 + 1, dtype=jnp.result_type(float))
        # The kernel in the order of `Circulant`, c[(i - j) mod N]: mode q of c is the conjugate of the multiplier of an
        # average over labels ahead, which irfft takes as it is for a function of i - j = -u.
        return midpoint_grid(Circulant(num_labels * jnp.fft.irfft(self.multipliers(modes), n=num_labels)))


class Band(Convolution):
    """One density up to a distance, another beyond: rings and small worlds."""

    radius: Float[Array, ""]
    inside: Float[Array, ""]
    outside: Float[Array, ""]

    def __init__(self, radius: Any, inside: Any, outside: Any, *, drawn: bool):
        check_interval(radius, "radius", high=0.5, open_low=True)
        dtype = jnp.result_type(float)
        self.radius, self.inside, self.outside = (jnp.asarray(value, dtype) for value in (radius, inside, outside))
        self.kind = Kind("circle", symmetric=True, atomic=False, drawn=drawn)

    @jax.jit
    def multipliers(self, modes: Float[Array, "modes"]) -> Float[Array, "modes"]:
        """(inside - outside) sin(2 pi q r) / (pi q), and the mass for q = 0."""
        q = jnp.where(modes == 0, 1, modes)
        band = jnp.where(modes == 0, 2 * self.radius, jnp.sin(2 * jnp.pi * q * self.radius) / (jnp.pi * q))
        return (self.inside - self.outside) * band + jnp.where(modes == 0, self.outside, 0)

    def cells(self, num_cells: int) -> LabelGrid:
        """Averages over cells, from the lengths of the band inside each: of second order."""
        width = 1 / num_cells
        offset = np.arange(num_cells)
        distance = np.minimum(offset, num_cells - offset) * width
        one_side = jnp.clip(self.radius - (distance - width / 2), 0, width)
        own = 2 * jnp.clip(self.radius, 0, width / 2)
        # The cell opposite is reached from both sides, half of it by each.
        opposite = 2 * jnp.clip(self.radius - (distance - width / 2), 0, width / 2)
        covered = jnp.where(offset == 0, own, jnp.where(2 * offset == num_cells, opposite, one_side))
        return midpoint_grid(Circulant(num_cells * (self.inside * covered + self.outside * (width - covered))))

    def eigenvalues(self, k: int, smallest: bool) -> Float[Array, "k"]:
        """The extreme Fourier coefficients; all but q = 0 are double."""
        modes = jnp.arange(max(_MODES, 2 * k), dtype=jnp.result_type(float))
        values = self.multipliers(modes)
        return leading(jnp.concatenate([values, values[1:]]), k, smallest)

    def mean_density(self) -> Float[Array, ""]:
        """2 r inside + (1 - 2 r) outside."""
        return self.multipliers(jnp.zeros(1, jnp.result_type(float)))[0]

    def nodes(self, num_nodes: int) -> GraphOperator:
        """round(r N) neighbours on each side, no loop."""
        if is_concrete(self) and float(self.outside) == 0:
            reach = round(float(self.radius) * num_nodes)
            if 2 * reach < num_nodes:
                return Window(num_nodes, reach, self.inside, loops=False)
        offset = np.arange(num_nodes)
        near = np.minimum(offset, num_nodes - offset) <= jnp.round(self.radius * num_nodes)
        weights = jnp.where(near, self.inside, self.outside)
        return Circulant(jnp.where(offset == 0, 0, weights))

    def edges(self, num_nodes, generator, scaling, directed, clip):
        """Independent edges; the probability depends on the distance only."""
        reach = round(float(self.radius) * num_nodes)
        inside, outside = (
            float(edge_probability(np.float64(value), scaling, clip)) for value in (self.inside, self.outside)
        )
        levels = [(1, reach, inside), (reach + 1, num_nodes // 2, outside)]
        return convolution_edges(generator, num_nodes, levels, directed)


def among_low_modes(multipliers: Callable, k: int, smallest: bool) -> Inexact[Array, "k"]:
    """The eigenvalues of the modes 0, 1, -1, 2, ..., k of them, where infinitely many lie near the end of the spectrum.

    The last gives way to the mode at the very end, should that be a higher one of the first 4096: for an irrational shift the
    cosines come arbitrarily close to -1.
    """
    count = max(_MODES, k)
    modes = np.arange(1, count + 1) // 2 * np.where(np.arange(count) % 2 == 1, 1, -1)
    values = multipliers(jnp.asarray(modes, jnp.result_type(float)))
    end = jnp.argmin(values.real) if smallest else jnp.argmax(values.real)
    chosen = jnp.arange(k).at[k - 1].set(jnp.maximum(end, k - 1))
    return leading(values[chosen], k, smallest)


class Shifts(Convolution):
    """Point masses at fixed distances ahead: eta^x = sum_k weight_k delta_{x + shift_k}."""

    shifts: Float[Array, "masses"]
    weights: Float[Array, "masses"]

    def __init__(self, shifts: Any, weights: Any, *, symmetric: bool):
        dtype = jnp.result_type(float)
        self.shifts, self.weights = jnp.asarray(shifts, dtype), jnp.asarray(weights, dtype)
        for name, value in (("shifts", self.shifts), ("weights", self.weights)):
            check_that(value.ndim == 1, name, "be one row of numbers", found(value))
            check_finite(value, name)
        self.kind = Kind("circle", symmetric=symmetric, atomic=True, drawn=False)

    @jax.jit
    def multipliers(self, modes: Float[Array, "modes"]) -> Inexact[Array, "modes"]:
        """sum_k weight_k exp(2 pi i q shift_k); cosines if symmetric."""
        # The phase is reduced by whole turns first: 2 pi q s loses digits for large q.
        turns = jnp.outer(modes, self.shifts)
        angle = 2 * jnp.pi * (turns - jnp.round(turns))
        cosine = jnp.cos(angle) @ self.weights
        return cosine if self.kind.symmetric else cosine + 1j * (jnp.sin(angle) @ self.weights)

    def cells(self, num_cells: int) -> LabelGrid:
        """Cloud in cell: each mass is shared by the two nearest labels; the mass is kept, the error is of second order."""
        return midpoint_grid(Shift(num_cells, self.shifts, self.weights))

    def eigenvalues(self, k: int, smallest: bool) -> Inexact[Array, "k"]:
        """Those of the k lowest modes, and the end of the spectrum."""
        return among_low_modes(self.multipliers, k, smallest)


class NearestNeighbours(Shifts):
    """The cycle whose edges weigh N / 2: the limit eta^x = delta_x makes each fibre a population of its own."""

    def __init__(self):
        super().__init__([0.0, 0.0], [0.5, 0.5], symmetric=True)

    def nodes(self, num_nodes: int) -> GraphOperator:
        """The two neighbours on the cycle."""
        return Shift(num_nodes, self.shifts + jnp.asarray([1, -1]) / num_nodes, self.weights)
