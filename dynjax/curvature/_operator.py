"""What every curvature operator shares: it is real and symmetric, and known by its products."""

import abc
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PyTree

from .._core import Raveler

# Columns of a dense matrix made at once: wide enough for matrix-matrix products, narrow enough for memory.
_BLOCK = 64

_TRACE_ERRORS = (TypeError, ValueError, NotImplementedError)

_Built = TypeVar("_Built", bound="AbstractCurvature")


class AbstractCurvature(lx.AbstractLinearOperator):
    """A real symmetric operator on a pytree of arrays, given by its products.

    Every field is either a pytree of arrays or hashable static data, so operators pass through plain `jax.jit` and
    `jax.vmap`, as arguments and as results; data and parameters are never baked into a compiled program. Sums,
    multiples and compositions are those of lineax: `A + 0.1 * B`.
    """

    positive_semidefinite: eqx.AbstractVar[bool]

    @abc.abstractmethod
    def linearised(self) -> lx.AbstractLinearOperator:
        """The operator to use for many products at one point: what is behind `lineax.linearise`."""

    def out_structure(self) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes and dtypes of a product: those of its input."""
        return self.in_structure()

    def transpose(self) -> "AbstractCurvature":
        """The operator itself: it is symmetric."""
        return self

    def as_matrix(self) -> Float[Array, "dim dim"]:
        """The dense matrix, in the order of `jax.flatten_util.ravel_pytree`: `dim` products, in blocks."""
        return _dense(self)


@jax.jit
def _dense(operator: AbstractCurvature) -> Float[Array, "dim dim"]:
    raveler = Raveler(operator.in_structure())
    products = operator.linearised()

    def column(direction: Float[Array, "dim"]) -> Float[Array, "dim"]:
        return raveler.ravel(products.mv(raveler.unravel(direction)))

    return jax.lax.map(column, jnp.eye(raveler.size, dtype=raveler.dtype), batch_size=min(_BLOCK, raveler.size)).T


def highest_precision() -> Any:
    """A context in which every matrix product and convolution runs at full precision, as spectra need."""
    return jax.default_matmul_precision("highest")


def build_either_way(build: Callable[[bool], _Built]) -> _Built:
    """Build an operator whose products use forward mode, or reverse mode alone where forward mode is impossible.

    A `jax.custom_vjp` in the user's function has no forward-mode rule. One product is traced (nothing is computed) to find
    out.

    Args:
        build: `build(reverse)` gives the operator.
    """
    operator = build(False)
    try:
        jaxpr = jax.make_jaxpr(operator.mv)(operator.in_structure())
    except _TRACE_ERRORS as error:
        fallback = build(True)
        try:
            jax.eval_shape(fallback.mv, fallback.in_structure())
        except _TRACE_ERRORS:
            raise error from None
        return fallback
    return build(True) if _holds_primitive(jaxpr, "custom_lin") else operator


def _holds_primitive(jaxpr: Any, name: str) -> bool:
    """Whether a traced program, or a program inside it, uses the primitive `name`.

    The forward-mode derivative of a `jax.custom_vjp` traces as the primitive "custom_lin" and fails only when compiled.
    """
    equations = getattr(getattr(jaxpr, "jaxpr", jaxpr), "eqns", ())
    inner = (leaf for equation in equations for leaf in jax.tree_util.tree_leaves(list(equation.params.values())))
    return any(equation.primitive.name == name for equation in equations) or any(
        _holds_primitive(leaf, name) for leaf in inner if hasattr(leaf, "eqns") or hasattr(leaf, "jaxpr")
    )


def function_operator(fn: Callable[[PyTree], PyTree], operator: AbstractCurvature) -> lx.AbstractLinearOperator:
    """The linear function `fn`, a pytree of arrays, as an operator with the tags of `operator`."""
    # Without closure conversion the result holds arrays alone, so that it passes through plain `jax.jit` too.
    return lx.FunctionLinearOperator(fn, operator.in_structure(), _tag(operator), closure_convert=False)


@lx.linearise.register(AbstractCurvature)
def _linearise(operator: AbstractCurvature) -> lx.AbstractLinearOperator:
    return operator.linearised()


@lx.materialise.register(AbstractCurvature)
def _materialise(operator: AbstractCurvature) -> lx.AbstractLinearOperator:
    return lx.materialise(lx.FunctionLinearOperator(operator.linearised().mv, operator.in_structure(), _tag(operator)))


def _tag(operator: AbstractCurvature) -> object:
    return lx.positive_semidefinite_tag if operator.positive_semidefinite else lx.symmetric_tag


@lx.conj.register(AbstractCurvature)
def _conj(operator: AbstractCurvature) -> lx.AbstractLinearOperator:
    return operator


@lx.diagonal.register(AbstractCurvature)
def _diagonal(operator: AbstractCurvature) -> Float[Array, "dim"]:
    return jnp.diagonal(operator.as_matrix())


@lx.tridiagonal.register(AbstractCurvature)
def _tridiagonal(operator: AbstractCurvature) -> tuple[Array, Array, Array]:
    matrix = operator.as_matrix()
    return jnp.diagonal(matrix), jnp.diagonal(matrix, -1), jnp.diagonal(matrix, 1)


@lx.is_symmetric.register(AbstractCurvature)
def _is_symmetric(operator: AbstractCurvature) -> bool:
    return True


@lx.is_positive_semidefinite.register(AbstractCurvature)
def _is_positive_semidefinite(operator: AbstractCurvature) -> bool:
    return operator.positive_semidefinite


@lx.is_negative_semidefinite.register(AbstractCurvature)
@lx.has_unit_diagonal.register(AbstractCurvature)
def _unknown(operator: AbstractCurvature) -> bool:
    return False


@lx.is_diagonal.register(AbstractCurvature)
@lx.is_tridiagonal.register(AbstractCurvature)
@lx.is_lower_triangular.register(AbstractCurvature)
@lx.is_upper_triangular.register(AbstractCurvature)
def _is_one_by_one(operator: AbstractCurvature) -> bool:
    return operator.in_size() == 1
