"""A stack of layers as a system whose time is depth."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import Static, check_that, found, freeze, is_concrete, split_inexact, thaw
from ._system import AbstractMap, IntScalarLike


def _stack(layers: list[Any] | tuple[Any, ...]) -> tuple[PyTree, Static]:
    """The arrays of equally built layers on a new leading axis, and the rest that they share."""
    check_that(len(layers) > 0, "layers", "hold at least one layer", "it is empty")
    parts = [freeze(layer) for layer in layers]
    for index, (arrays, static) in enumerate(parts):
        same = static == parts[0][1] and _shapes(arrays) == _shapes(parts[0][0])
        check_that(
            same,
            "layers",
            "be equally built (same structure, shapes, dtypes and static parts)",
            f"layer {index} differs from layer 0; write a `Map` that chooses by `n` for unequal layers",
        )
    return jax.tree_util.tree_map(lambda *leaves: jnp.stack(leaves), *(arrays for arrays, _ in parts)), parts[0][1]


def _shapes(arrays: PyTree) -> list[tuple[Any, Any]]:
    return [(leaf.shape, leaf.dtype) for leaf in jax.tree_util.tree_leaves(arrays)]


class LayerMap(AbstractMap):
    """A stack of layers of equal width: x' = layers[n](x), so that time is depth.

    The layers are stored stacked, each array with a leading axis of length `depth`, and step `n` takes its layer by
    dynamic indexing: a deep stack compiles as fast as one layer.

    The clock must stay below the depth: a step number that is known and lies outside 0, ..., depth - 1 is refused, and one
    that is traced turns the state and its tangents into NaN (a `NONFINITE` status), never into a repeated layer. Changing
    widths are not supported here.

    Args:
        layers: a list or tuple of equally built callables (Equinox modules), which are stacked once; or one module that is
            stacked already (all its arrays with one common leading axis), e.g. from `eqx.filter_vmap` over keys.

    Raises:
        ValueError: if the layers differ in structure, shapes or static parts, or there is no common leading axis.
        TypeError: if they cannot be called.

    Example:
        ```python
        keys = jax.random.split(jax.random.key(0), 50)
        layers = [eqx.nn.Linear(64, 64, key=key) for key in keys]
        stack = dj.systems.LayerMap([eqx.nn.Sequential([layer, eqx.nn.Lambda(jnp.tanh)]) for layer in layers])
        output = dj.evolve(stack, x, num_steps=stack.depth)
        ```
    """

    arrays: PyTree
    static: Static = eqx.field(static=True)
    depth: int = eqx.field(static=True)
    dt: Float[Array, ""]

    def __init__(self, layers: Any):
        listed = isinstance(layers, list | tuple)
        for layer in layers if listed else [layers]:
            check_that(callable(layer), "layers", "hold callable layers `layer(x)`", found(layer), TypeError)
        self.arrays, self.static = _stack(layers) if listed else freeze(layers)
        lengths = sorted({leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree_util.tree_leaves(self.arrays)})
        # Layers without arrays have no depth to read off, unless they come as a list.
        check_that(
            (len(lengths) == 1 and lengths[0] > 0) or (listed and not lengths),
            "layers",
            "be a list or tuple of layers, or one module whose arrays have a common leading axis",
            f"the leading axes are {lengths}" if lengths else "it holds no array",
        )
        self.depth = len(layers) if listed else lengths[0]
        self.dt = jnp.ones((), jnp.result_type(float))

    def layer(self, n: IntScalarLike) -> Any:
        """Layer `n` alone; outside 0, ..., depth - 1 it is one of the end layers."""
        take = lambda leaf: jax.lax.dynamic_index_in_dim(leaf, n, keepdims=False)
        return thaw(jax.tree_util.tree_map(take, self.arrays), self.static)

    def step(self, n: IntScalarLike, x: PyTree) -> PyTree:
        """layers[n](x)."""
        if is_concrete(n):
            check_that(
                0 <= int(n) < self.depth, "n", f"be from 0 to {self.depth - 1}, the depth less one", f"found {int(n)}"
            )
        n = jnp.asarray(n)
        inside = (n >= 0) & (n < self.depth)
        moved, still = split_inexact(self.layer(n)(x))

        def mark(leaf: Array) -> Array:
            # A factor, so that the tangents are marked too.
            return leaf * jnp.where(inside, 1.0, jnp.nan).astype(leaf.dtype)

        return eqx.combine(jax.tree_util.tree_map(mark, moved), still)
