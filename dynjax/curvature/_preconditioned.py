"""An operator seen by a diagonally preconditioned optimiser."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, PyTree

from .._core import check_positive, check_that, tree_structure
from ._operator import AbstractCurvature
from ._point import as_arrays


class Preconditioned(AbstractCurvature):
    """D^1/2 A D^1/2 for a symmetric operator A and a positive diagonal D; made by `preconditioned`."""

    operator: lx.AbstractLinearOperator
    scale: PyTree[Array]

    @property
    def positive_semidefinite(self) -> bool:  # type: ignore[override]
        """Whether A is known to be: congruence keeps the signs of eigenvalues."""
        return lx.is_positive_semidefinite(self.operator)

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        """D^1/2 A D^1/2 v: one product with A."""
        root = jax.tree_util.tree_map(jnp.sqrt, self.scale)
        scaled = jax.tree_util.tree_map(jnp.multiply, root, vector)
        return jax.tree_util.tree_map(jnp.multiply, root, self.operator.mv(scaled))

    def in_structure(self) -> PyTree[jax.ShapeDtypeStruct]:
        """That of A."""
        return self.operator.in_structure()

    def linearised(self) -> lx.AbstractLinearOperator:
        """The same around the linearised A."""
        return Preconditioned(lx.linearise(self.operator), self.scale)


def preconditioned(operator: lx.AbstractLinearOperator, scale: PyTree[Array]) -> Preconditioned:
    """D^1/2 A D^1/2: a symmetric operator with the spectrum of D A, e.g. of the preconditioned Hessian.

    An optimiser that steps by -lr D g, with D = diag(1 / (sqrt(nu) + eps)) for Adam, is stable where the largest
    eigenvalue of D^1/2 H D^1/2, its preconditioned sharpness, is below the threshold of its momentum.

    Args:
        operator: any symmetric lineax operator on a pytree.
        scale: the diagonal D, positive: a pytree of arrays like the operator's input, or one number.

    Returns:
        The operator; its eigenvectors u give those of D A as D^1/2 u.

    Raises:
        TypeError: if `operator` is not a lineax operator.
        ValueError: if `scale` does not fit it or is not positive, or the operator is not symmetric.

    Example:
        ```python
        D = jax.tree.map(lambda nu: 1 / (jnp.sqrt(nu) + 1e-8), second_moment)
        dj.eigsh(dj.preconditioned(dj.hessian(loss, params, x, y), D), k=1).values
        ```

    References:
        Cohen et al., "Adaptive gradient methods at the edge of stability", arXiv:2207.14484, section 2.
    """
    is_operator = isinstance(operator, lx.AbstractLinearOperator)
    check_that(is_operator, "operator", "be a lineax operator", f"found a {type(operator).__name__}", TypeError)
    check_that(lx.is_symmetric(operator), "operator", "be symmetric", "it is not marked as such")
    structure = operator.in_structure()
    scale = as_arrays(scale)
    if isinstance(scale, int | float) or getattr(scale, "shape", None) == ():
        number = scale
        scale = jax.tree_util.tree_map(lambda s: jnp.full(s.shape, number, s.dtype), structure)
    check_that(
        bool(eqx.tree_equal(_shapes(scale), _shapes(structure))),
        "scale",
        "be one number or a pytree with the structure and shapes of the operator's input",
        f"found {_shapes(scale)}, not {_shapes(structure)}",
    )
    for leaf in jax.tree_util.tree_leaves(scale):
        check_positive(leaf, "scale")
    return Preconditioned(operator, jax.tree_util.tree_map(lambda d, s: d.astype(s.dtype), scale, structure))


def _shapes(tree: PyTree) -> PyTree:
    return jax.tree_util.tree_map(lambda s: s.shape, tree_structure(tree))
