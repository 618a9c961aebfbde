"""Point masses moved by maps: general maps, rooted trees, and the star, whose hub feels a density."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, Int

from ..._core import Function, check_that, found, is_concrete
from .._graphs.graph_operator import Dense
from .._graphs.low_rank import LowRank
from .._graphs.parent_map import ParentMap
from .label_grid import LabelGrid
from .label_quadrature import midpoints
from .measure_part import Kind, MeasurePart, check_finite, check_interval, leading, midpoint_grid


class Atoms(MeasurePart):
    """eta^x = sum_k weight_k delta_{map_k(x)} on [0, 1] or on the circle."""

    maps: tuple[Function, ...]
    weights: Float[Array, "masses"]

    def __init__(self, maps: Sequence[Callable], weights: Any, *, space: str):
        self.maps = tuple(Function(one) for one in maps)
        self.weights = jnp.asarray(weights, jnp.result_type(float))
        count = len(self.maps)
        check_that(count > 0, "maps", "hold at least one map", "found none")
        check_that(
            self.weights.shape == (count,), "weights", f"have one entry for each of {count} maps", found(self.weights)
        )
        check_finite(self.weights, "weights")
        check_that(space in ("interval", "circle"), "space", 'be "interval" or "circle"', f"found {space!r}")
        self.kind = Kind(space, symmetric=False, atomic=True, drawn=False)

    @eqx.filter_jit
    def grid(self, num_labels: int) -> LabelGrid:
        """Each mass is shared by the two nearest midpoints: the mass is kept, the error is of second order."""
        x = jnp.asarray(midpoints(num_labels), self.weights.dtype)
        total = jnp.zeros((num_labels, num_labels), self.weights.dtype)
        for weight, move in zip(self.weights, self.maps, strict=True):
            target = jnp.broadcast_to(jnp.asarray(move(x), x.dtype), x.shape)
            if self.kind.space == "interval":
                target = jnp.clip(target, x[0], x[-1])
            away = target[:, None] - x
            away = away - jnp.round(away) if self.kind.space == "circle" else away
            total = total + weight * jnp.maximum(1 - num_labels * jnp.abs(away), 0)
        return midpoint_grid(Dense(num_labels * total))

    def cells(self, num_cells: int) -> LabelGrid:
        """The same."""
        return self.grid(num_cells)


class Tree(MeasurePart):
    """Each node is driven by its parent alone: eta^i = weight delta_{parent(i)}; a finite set of labels."""

    parents: Int[Array, "nodes"]
    weight: Float[Array, ""]
    cycles: tuple[int, ...] = eqx.field(static=True)
    count: int = eqx.field(static=True)

    def __init__(self, parents: Any, weight: Any):
        check_that(is_concrete(parents), "parents", "be known before tracing", "it is traced")
        array = np.asarray(parents)
        good = array.ndim == 1 and array.size > 0 and np.issubdtype(array.dtype, np.integer)
        check_that(bool(good), "parents", "be a row of integers", found(array))
        inside = bool(np.all((array >= -1) & (array < array.size)))
        check_that(inside, "parents", f"lie between -1 (no parent) and {array.size - 1}", f"found {parents}")
        self.cycles, self.count = _cycle_lengths(array), array.size
        self.parents, self.weight = jnp.asarray(array), jnp.asarray(weight, jnp.result_type(float))
        check_finite(self.weight, "weight")
        self.kind = Kind("tree", symmetric=False, atomic=True, drawn=False)

    def grid(self, num_labels: int) -> LabelGrid:
        """One label for each node of the tree, whatever `num_labels`; a node without a parent is not driven."""
        return midpoint_grid(ParentMap(self.parents, self.weight))

    def cells(self, num_cells: int) -> LabelGrid:
        """The same."""
        check_that(
            num_cells == self.count, "num_cells", f"be {self.count}, the nodes of the tree", f"found {num_cells}"
        )
        return self.grid(num_cells)

    def eigenvalues(self, k: int, smallest: bool) -> Inexact[Array, "k"]:
        """Zero, but for roots that drive themselves: weight times the roots of unity for each cycle of parents."""
        turns = np.concatenate([np.arange(length) / length for length in self.cycles] or [np.empty(0)])
        if all(length == 1 for length in self.cycles):
            values = jnp.full(len(turns), self.weight)
        else:
            values = self.weight * jnp.asarray(np.exp(2j * np.pi * turns))
        rest = max(min(k, self.count - len(turns)), 0)
        return leading(jnp.concatenate([values, jnp.zeros(rest, values.dtype)]), k, smallest)


def _cycle_lengths(parents: np.ndarray) -> tuple[int, ...]:
    """Lengths of the cycles of the parent map, by walking up from every node until a walk was there before."""
    walk, lengths = np.full(parents.size, -1), []
    for start in range(parents.size):
        node, path = start, []
        while node >= 0 and walk[node] < 0:
            walk[node] = start
            path.append(node)
            node = parents[node]
        if node >= 0 and walk[node] == start:
            lengths.append(len(path) - path.index(node))
    return tuple(lengths)


class Star(MeasurePart):
    """A hub that feels b times the average of the leaves, and leaves that feel a times the hub.

    Label 0 is the hub, of reference probability zero; the leaves fill (0, 1].
    """

    a: Float[Array, ""]
    b: Float[Array, ""]

    def __init__(self, a: Any, b: Any):
        for name, value in (("a", a), ("b", b)):
            check_interval(value, name, high=np.inf, open_high=True)
        self.a, self.b = (jnp.asarray(value, jnp.result_type(float)) for value in (a, b))
        self.kind = Kind("star", symmetric=False, atomic=True, drawn=False)

    def grid(self, num_labels: int) -> LabelGrid:
        """The hub and equispaced leaves."""
        check_that(num_labels > 1, "num_labels", "be at least 2, a hub and a leaf", f"found {num_labels}")
        leaf = np.arange(num_labels) > 0
        labels = jnp.asarray(np.where(leaf, (np.arange(num_labels) - 0.5) / (num_labels - 1), 0.0))
        weights = jnp.asarray(leaf / (num_labels - 1))
        left = jnp.stack([self.b * ~leaf, self.a * leaf], axis=1)
        right = jnp.asarray(np.stack([num_labels * leaf / (num_labels - 1), num_labels * ~leaf], axis=1))
        return LabelGrid(labels, weights, LowRank(left, right))

    def cells(self, num_cells: int) -> LabelGrid:
        """The same operator; the hub keeps its weight zero."""
        return self.grid(num_cells)

    def eigenvalues(self, k: int, smallest: bool) -> Inexact[Array, "k"]:
        """The two roots of a b, and zero."""
        root = jnp.sqrt(self.a * self.b)
        return leading(jnp.concatenate([jnp.stack([root, -root]), jnp.zeros(k, root.dtype)]), k, smallest)
