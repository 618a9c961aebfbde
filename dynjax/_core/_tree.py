"""Vector algebra on pytrees of real arrays."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Inexact, PRNGKeyArray, PyTree, Shaped


def split_inexact(tree: PyTree, where: Callable[[Any], bool] | PyTree | None = None) -> tuple[PyTree, PyTree]:
    """Split `tree` into (leaves that carry tangents, everything else), each with `None` in place of the other.

    Args:
        tree: any pytree.
        where: which inexact arrays take part: a predicate on leaves, or a pytree prefix of booleans. All by default.

    Returns:
        The pair; `equinox.combine` joins it again.
    """
    inexact, rest = eqx.partition(tree, eqx.is_inexact_array)
    if where is None:
        return inexact, rest
    chosen, others = eqx.partition(inexact, where)
    return chosen, eqx.combine(others, rest)


def tree_structure(tree: PyTree) -> PyTree[jax.ShapeDtypeStruct]:
    """Shapes and dtypes of the leaves of `tree`."""
    return jax.tree_util.tree_map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x)), tree)


def tree_where(condition: Bool[Array, "..."], new: PyTree[Array], old: PyTree[Array]) -> PyTree[Array]:
    """`new` where the condition holds, else `old`, leaf by leaf; leaves that are no arrays stay as they are in `old`.

    The condition broadcasts against every leaf.
    """
    return jax.tree_util.tree_map(lambda a, b: jnp.where(condition, a, b) if eqx.is_array(a) else b, new, old)


def tree_dot(x: PyTree[Array], y: PyTree[Array]) -> Inexact[Array, ""]:
    """Inner product <x, y>, each leaf at the highest matmul precision."""
    products = jax.tree_util.tree_map(lambda a, b: jnp.vdot(a, b, precision=jax.lax.Precision.HIGHEST), x, y)
    leaves = jax.tree_util.tree_leaves(products)
    dtype = jnp.result_type(*(leaf.dtype for leaf in leaves)) if leaves else jnp.result_type(float)
    return sum((leaf.astype(dtype) for leaf in leaves), jnp.zeros((), dtype))


def tree_norm(x: PyTree[Array]) -> Inexact[Array, ""]:
    """Euclidean norm of all leaves together."""
    return jnp.sqrt(tree_dot(x, x))


def tree_scale(a: Any, x: PyTree[Array]) -> PyTree[Array]:
    """The product a * x, keeping the dtype of each leaf."""
    return jax.tree_util.tree_map(lambda leaf: (a * leaf).astype(leaf.dtype), x)


def tree_add_scaled(x: PyTree[Array], a: Any, y: PyTree[Array]) -> PyTree[Array]:
    """The sum x + a * y, keeping the dtype of each leaf of `x`."""
    return jax.tree_util.tree_map(lambda p, q: (p + a * q).astype(p.dtype), x, y)


def tree_all_finite(tree: PyTree) -> Bool[Array, ""]:
    """Whether every inexact leaf is finite everywhere."""
    flags = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree_util.tree_leaves(tree) if eqx.is_inexact_array(leaf)]
    return jnp.all(jnp.stack(flags)) if flags else jnp.asarray(True)


def tree_random(
    key: PRNGKeyArray,
    structure: PyTree[jax.ShapeDtypeStruct],
    sampler: Callable[..., Array] = jax.random.normal,
) -> PyTree[Array]:
    """Independent draws for every entry of `structure`, from one call `sampler(key, (size,), dtype)`.

    One call, because each compiles to a program of its own, and they would take longer to compile than a small network.
    """
    raveler = Raveler(structure)
    return raveler.unravel(sampler(key, (raveler.size,), raveler.dtype))


class Raveler:
    """Maps pytrees of one fixed structure to flat vectors and back.

    Mixed leaf dtypes are promoted in the flat vector and restored on the way back. The order is that of
    `jax.tree_util.tree_leaves`, each leaf in row-major order.

    Args:
        structure: pytree of `jax.ShapeDtypeStruct` (or arrays), real and inexact.
    """

    def __init__(self, structure: PyTree):
        self.leaves, self.treedef = jax.tree_util.tree_flatten(tree_structure(structure))
        if not self.leaves:
            raise ValueError(
                "Argument `params` must hold at least one floating-point array, but none was found. "
                "Integer, boolean and non-array leaves carry no tangent."
            )
        for leaf in self.leaves:
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise TypeError(f"Every leaf must be a real floating-point array, but found dtype {leaf.dtype}.")
        self.dtype = jnp.result_type(*(leaf.dtype for leaf in self.leaves))
        self.sizes = [math.prod(leaf.shape) for leaf in self.leaves]
        self.size = sum(self.sizes)

    def ravel(self, tree: PyTree[Array]) -> Shaped[Array, "dim"]:
        """One flat vector of the promoted dtype."""
        leaves = jax.tree_util.tree_leaves(tree)
        return jnp.concatenate([jnp.ravel(leaf).astype(self.dtype) for leaf in leaves])

    def unravel(self, flat: Shaped[Array, "dim"]) -> PyTree[Array]:
        """Inverse of `ravel`."""
        out, start = [], 0
        for leaf, size in zip(self.leaves, self.sizes, strict=True):
            out.append(jax.lax.slice(flat, (start,), (start + size,)).reshape(leaf.shape).astype(leaf.dtype))
            start += size
        return jax.tree_util.tree_unflatten(self.treedef, out)
