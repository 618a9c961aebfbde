"""A symmetric lineax operator on a pytree, seen as a function of flat vectors."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PyTree

from .._core import Raveler, check_that, found


class FlatOperator(eqx.Module):
    """`operator.mv` on flat vectors, with every array that it reaches as a leaf.

    Attributes:
        apply: the product on pytrees, closed over nothing.
        structure: leaves and treedef of the shapes and dtypes of the input, hashable.
        eps: unit of rounding of the least precise leaf; a product cannot be trusted below it.
        dtype: dtype of the flat vectors, at least float32.
        dim: number of unknowns.
    """

    apply: Callable[[PyTree[Array]], PyTree[Array]]
    structure: Any = eqx.field(static=True)
    eps: float = eqx.field(static=True)
    dtype: Any = eqx.field(static=True)
    dim: int = eqx.field(static=True)

    def __call__(self, flat: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """The product A v."""
        return self.ravel(self.apply(self.unravel(flat)))

    def ravel(self, tree: PyTree[Array]) -> Float[Array, " dim"]:
        """A pytree like the operator's input as one flat vector."""
        return self._raveler.ravel(tree).astype(self.dtype)

    def unravel(self, flat: Float[Array, " dim"]) -> PyTree[Array]:
        """Inverse of `ravel`."""
        return self._raveler.unravel(flat)

    @property
    def tree_structure(self) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes and dtypes of the input."""
        leaves, treedef = self.structure
        return jax.tree_util.tree_unflatten(treedef, leaves)

    @property
    def _raveler(self) -> Raveler:
        return Raveler(self.tree_structure)

    def detached(self) -> "FlatOperator":
        """The same operator, of which nothing can be differentiated."""
        arrays, rest = eqx.partition(self, eqx.is_array)
        return eqx.combine(jax.tree_util.tree_map(jax.lax.stop_gradient, arrays), rest)


def flatten_operator(operator: lx.AbstractLinearOperator) -> FlatOperator:
    """Prepare `operator` for repeated products.

    `lineax.linearise` is called first: it is where an operator says what to compute once before a loop (the identity for
    matrices and functions). The product is closure-converted, so that an array which a Python function has captured is
    an argument of the loop, too, and not a constant of it.
    """
    operator = lx.linearise(operator)
    structure = operator.in_structure()
    raveler = Raveler(structure)
    return FlatOperator(
        apply=eqx.filter_closure_convert(operator.mv, structure),
        structure=(tuple(raveler.leaves), raveler.treedef),
        eps=max(float(jnp.finfo(leaf.dtype).eps) for leaf in raveler.leaves),
        dtype=jnp.promote_types(raveler.dtype, jnp.float32),
        dim=raveler.size,
    )


def check_operator(operator: Any) -> int:
    """Raise unless `operator` is a square lineax operator on real floating-point arrays; returns its dimension.

    Symmetry is taken on trust: it cannot be seen from the outside of a function.
    """
    check_that(
        isinstance(operator, lx.AbstractLinearOperator),
        "operator",
        "be a lineax linear operator",
        f"{found(operator)}; wrap a function `v -> A v` in `lineax.FunctionLinearOperator`",
        TypeError,
    )
    rows, columns = _shapes(operator.out_structure()), _shapes(operator.in_structure())
    check_that(rows == columns, "operator", "be square", f"it maps {_say(columns)} to {_say(rows)}")
    return Raveler(operator.in_structure()).size


def _shapes(structure):
    leaves, treedef = jax.tree_util.tree_flatten(structure)
    return tuple((leaf.shape, jnp.dtype(leaf.dtype).name) for leaf in leaves), treedef


def _say(shapes):
    return ", ".join(f"{name}[{','.join(map(str, shape))}]" for shape, name in shapes[0]) or "nothing"
