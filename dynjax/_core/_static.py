"""Split a pytree into its arrays and a hashable rest, so that modules which hold functions stay pure array pytrees."""

from collections.abc import Hashable
from typing import Any

import equinox as eqx
import jax


class Static:
    """A hashable stand-in for everything in a pytree that is not an array.

    Two `Static`s are equal when their tree structures are equal and their leaves compare equal, which is what decides
    whether a jitted function that takes one as static data is traced again.
    """

    __slots__ = ("_hash", "leaves", "treedef")

    def __init__(self, tree: Any):
        leaves, self.treedef = jax.tree_util.tree_flatten(tree)
        for leaf in leaves:
            if not isinstance(leaf, Hashable):
                raise TypeError(
                    f"Every leaf that is not an array must be hashable, but found a {type(leaf).__name__}. "
                    "Wrap it in a function or a static field."
                )
        self.leaves = tuple(leaves)
        self._hash = hash((self.leaves, self.treedef))

    def tree(self) -> Any:
        """The pytree that was given, with `None` where it held arrays."""
        return jax.tree_util.tree_unflatten(self.treedef, self.leaves)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Static) and bool(self.treedef == other.treedef) and self.leaves == other.leaves  # type: ignore[operator]

    def __repr__(self) -> str:
        return f"Static({self.tree()!r})"


def freeze(tree: Any) -> tuple[Any, Static]:
    """Split `tree` into (arrays, hashable rest); `thaw` puts them together again."""
    arrays, rest = eqx.partition(tree, eqx.is_array)
    return arrays, Static(rest)


def thaw(arrays: Any, static: Static) -> Any:
    """Inverse of `freeze`."""
    return eqx.combine(arrays, static.tree())


class Function(eqx.Module):
    """A callable as a pure array pytree: the arrays it holds are leaves, all the rest is static.

    A plain function has no leaves; an Equinox module keeps its arrays traced. Operators and systems store what the user
    gives them in this form, so that they pass through plain `jax.jit` and `jax.vmap` too.
    """

    arrays: Any
    static: Static = eqx.field(static=True)

    def __init__(self, fn: Any):
        if isinstance(fn, Function):
            self.arrays, self.static = fn.arrays, fn.static
        else:
            self.arrays, self.static = freeze(fn)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return thaw(self.arrays, self.static)(*args, **kwargs)
