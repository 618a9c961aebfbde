"""The parameters at which curvature is taken: the leaves that vary and the rest, which is held fixed."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._core import Static, check_that, freeze, split_inexact, thaw, tree_structure

Filter = Callable[[Any], bool] | PyTree | None


class Frozen(eqx.Module):
    """Any pytree as a pure array pytree: its arrays are leaves, all the rest is static."""

    arrays: PyTree
    static: Static = eqx.field(static=True)

    def __init__(self, tree: PyTree):
        self.arrays, self.static = freeze(as_arrays(tree))

    def tree(self, arrays: PyTree = None) -> PyTree:
        """The pytree that was given, with `arrays` in place of its own arrays if given."""
        return thaw(self.arrays if arrays is None else arrays, self.static)


class Point(eqx.Module):
    """Parameters split into the leaves that vary (`chosen`) and everything else (`rest`).

    Args:
        params: any pytree. Integer and boolean arrays, keys and leaves that are not arrays are held fixed.
        where: which floating-point leaves vary: a predicate on leaves, or a pytree prefix of booleans. All by default.

    Raises:
        ValueError: if nothing is left to vary, or `where` does not fit `params`.
        TypeError: if a chosen leaf is complex.
    """

    chosen: PyTree
    rest: Frozen

    def __init__(self, params: PyTree, where: Filter = None):
        params = as_arrays(params)
        floating = jax.tree_util.tree_leaves(split_inexact(params)[0])
        check_that(
            bool(floating),
            "params",
            "hold at least one floating-point array",
            "none was found; integer, boolean and non-array leaves carry no tangent",
        )
        try:
            chosen, rest = split_inexact(params, where)
        except (ValueError, TypeError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise type(error)(
                "Argument `filter` must be a predicate on leaves or a pytree prefix of booleans that fits `params`, "
                f"but it raised: {reason}"
            ) from error
        leaves = jax.tree_util.tree_leaves(chosen)
        check_that(bool(leaves), "filter", "select at least one floating-point leaf of `params`", "it selects none")
        for leaf in leaves:
            real = jnp.issubdtype(leaf.dtype, jnp.floating)
            check_that(bool(real), "params", "hold real arrays", f"found dtype {leaf.dtype}", TypeError)
        self.chosen = chosen
        self.rest = Frozen(rest)

    def params(self, chosen: PyTree) -> PyTree:
        """The whole parameters, with `chosen` for the leaves that vary."""
        return eqx.combine(chosen, self.rest.tree())

    def structure(self) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes and dtypes of the leaves that vary, `None` elsewhere."""
        return tree_structure(self.chosen)


def as_arrays(tree: PyTree) -> PyTree:
    """`tree` with its NumPy arrays as JAX arrays; nothing else is touched."""
    return jax.tree_util.tree_map(
        lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray | np.generic) else leaf, tree
    )
