"""The eigenvalues at one end of a graph's spectrum that decide about synchrony, with their derivatives."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax import lax
from jaxtyping import Array, Bool, Inexact

from ..._core import check_that, found, is_concrete
from ...linalg import eigs
from .._graphs.graph_operator import AllToAll, GraphOperator
from .._measures.label_grid import LabelGrid

# Up to this many nodes the matrix is formed and all of its eigenvalues are looked at.
_DENSE_NODES = 400
_NUM_EXACT = 8


class SpectralEnd(eqx.Module):
    """Candidates for the eigenvalue that loses stability first.

    Attributes:
        values: eigenvalues, real where all are known to be real; without derivatives.
    """

    values: eqx.AbstractVar[Inexact[Array, "candidates"]]

    @abc.abstractmethod
    def differentiable(self, index: Any) -> Inexact[Array, ""]:
        """One of the values, with its derivative in whatever the graph depends on."""


class _Exact(SpectralEnd):
    """Eigenvalues known as functions of the parameters."""

    values: Inexact[Array, "candidates"]
    formula: Inexact[Array, "candidates"]

    def __init__(self, formula: Inexact[Array, "candidates"]):
        self.values, self.formula = lax.stop_gradient(formula), formula

    def differentiable(self, index: Any) -> Inexact[Array, ""]:
        return self.formula[index]


class _Dense(SpectralEnd):
    """All eigenvalues of a small graph."""

    values: Inexact[Array, "candidates"]
    operator: GraphOperator

    def differentiable(self, index: Any) -> Inexact[Array, ""]:
        """The value, with the derivative u dA v / (u v) from left and right vectors by inverse iteration."""
        value, matrix = self.values[index], _frozen(self.operator).as_matrix().astype(self.values.dtype)
        size = matrix.shape[0]
        real = jnp.finfo(matrix.dtype).dtype
        eps = jnp.finfo(real).eps
        scale = jnp.linalg.norm(matrix) + jnp.finfo(real).tiny
        shifted = matrix - (value + 8 * eps * scale) * jnp.eye(size, dtype=matrix.dtype)
        # The same start for both: the vectors of a symmetric matrix agree even where the eigenvalue is multiple.
        start = jax.random.normal(jax.random.key(0), (size,), real).astype(matrix.dtype)

        def iterate(matrix: Any) -> Any:
            vector = start
            for _ in range(2):
                vector = jnp.linalg.solve(matrix, vector)
                vector = vector / jnp.linalg.norm(vector)
            return vector

        return _attach(value, self.operator, iterate(shifted.T), iterate(shifted))


class _Krylov(SpectralEnd):
    """One or two eigenvalues of a large graph, NaN where they were not found."""

    values: Inexact[Array, "candidates"]
    left: Inexact[Array, "candidates nodes"]
    right: Inexact[Array, "candidates nodes"]
    operator: GraphOperator

    def differentiable(self, index: Any) -> Inexact[Array, ""]:
        """The value, with the derivative u dA v / (u v)."""
        return _attach(self.values[index], self.operator, self.left[index], self.right[index])


def spectral_end(graph: Any, *, largest: bool, dominant: bool) -> SpectralEnd:
    """The eigenvalues with the largest (or smallest) real part.

    A `DigraphMeasure` tells them itself. Of a finite graph with at most 400 nodes all eigenvalues are computed. Of a
    larger one
    one eigenvalue at the wanted end by an Arnoldi iteration on products with the graph, and no more: it is NaN where the
    residual is not small, or where the graph is so far from normal that the residual says nothing. A graph without directed
    cycles is recognised, and has the eigenvalue 0 only.

    Args:
        graph: a `DigraphMeasure`, a `LabelGrid` or a `GraphOperator`.
        largest: the largest real part, or the smallest.
        dominant: add the eigenvalue of the largest modulus of a large graph.
    """
    if isinstance(graph, LabelGrid):
        graph = graph.operator
    if not isinstance(graph, GraphOperator):
        good = hasattr(graph, "spectrum")
        check_that(good, "measure", "be a DigraphMeasure, a LabelGrid or a GraphOperator", found(graph), TypeError)
        return _Exact(graph.spectrum(_NUM_EXACT) if largest else graph.spectrum(_NUM_EXACT, which="smallest"))
    if isinstance(graph, AllToAll):
        return _Exact(jnp.stack([graph.weight, jnp.zeros_like(graph.weight)])[: min(graph.num_nodes, 2)])
    if graph.num_nodes <= _DENSE_NODES:
        return _Dense(_all_eigenvalues(_frozen(graph)), graph)
    acyclic = _is_acyclic(_frozen(graph))
    if is_concrete(acyclic) and bool(acyclic):
        return _Exact(jnp.zeros(1, jnp.result_type(float)))
    found_values, left, right = _extreme_eigenvalues(_frozen(graph), acyclic, 1 if largest else -1, dominant)
    return _Krylov(found_values, left, right, graph)


@eqx.filter_jit
def _all_eigenvalues(operator: GraphOperator) -> Inexact[Array, "nodes"]:
    matrix = operator.as_matrix()
    values = jnp.linalg.eigvals(matrix)
    # Eigenvalues below the rounding of the others are zero: their sign would invent thresholds at enormous couplings.
    rounding = 4 * matrix.shape[0] * jnp.finfo(matrix.dtype).eps * jnp.linalg.norm(matrix)
    return jnp.where((jnp.abs(values) <= rounding) | _is_acyclic(operator), 0, values)


def _extreme_eigenvalues(
    operator: GraphOperator, acyclic: Bool[Array, ""], sign: int, dominant: bool
) -> tuple[Array, Array, Array]:
    """The eigenvalue at one end, and if wanted that of the largest modulus, with left and right vectors."""
    columns = []
    for which in ("LR", "LM") if dominant else ("LR",):
        here, there = (_extreme(graph, sign, which) for graph in (operator, operator.transpose()))
        right, left, rough = here.vectors[0], there.vectors[0], sign * here.values[0]
        overlap = jnp.sum(left * right)
        sure = jnp.abs(overlap) > 1e-3
        # Rayleigh's quotient is right to second order in the residuals.
        quotient = jnp.sum(left * operator.apply(right)) / jnp.where(sure, overlap, 1)
        close = jnp.abs(quotient - rough) < 1e-3 * jnp.abs(rough)
        value = jnp.where(sure & close, quotient, rough)
        # How far the residual can move the eigenvalue of a graph that is far from normal.
        slack = here.residuals[0] / jnp.maximum(jnp.abs(overlap), jnp.finfo(overlap.dtype).tiny)
        good = here.converged[0] & (slack < 1e-2 * jnp.abs(value))
        columns.append((jnp.where(acyclic, 0, jnp.where(good, value, jnp.nan)), left, right))
    values, left, right = (jnp.stack(column) for column in zip(*columns, strict=True))
    return values, left, right


def _extreme(operator: GraphOperator, sign: int, which: Any) -> Any:
    """The extreme eigenpair of sign * A."""
    kind = jax.ShapeDtypeStruct((operator.num_nodes,), jnp.result_type(float))
    # Without closure conversion the graph is an argument of the compiled iteration, and no constant in it.
    product = lx.FunctionLinearOperator(_Product(operator, jnp.asarray(sign)), kind, closure_convert=False)
    return eigs(product, 1, which=which)


class _Product(eqx.Module):
    """The product with sign * A."""

    operator: GraphOperator
    sign: Array

    def __call__(self, vector: Array) -> Array:
        return self.sign.astype(vector.dtype) * self.operator.apply(vector)


@eqx.filter_jit
def _is_acyclic(operator: GraphOperator) -> Bool[Array, ""]:
    """Whether no directed cycle is left when nodes without a driver are taken away again and again.

    Weights that cancel exactly for one start hardly do for random positive ones. Takes as many products as the
    longest path has
    edges, and few for graphs with cycles.
    """
    size = operator.num_nodes
    start = jax.random.uniform(jax.random.key(1), (size,), minval=0.5, maxval=1.5)

    def more(state: tuple[Array, Array]) -> Any:
        alive, changed = state
        return changed & jnp.any(alive)

    def trim(state: tuple[Array, Array]) -> tuple[Array, Array]:
        alive, _ = state
        driven = alive & (operator.apply(jnp.where(alive, start, 0)) != 0)
        return driven, jnp.any(driven != alive)

    alive, _ = lax.while_loop(more, trim, (jnp.ones(size, bool), jnp.asarray(True)))
    return ~jnp.any(alive)


def _attach(value: Array, operator: GraphOperator, left: Array, right: Array) -> Inexact[Array, ""]:
    left, right, value = lax.stop_gradient((left, right, value))
    moved = operator.apply(right)
    # No derivative where the vectors are orthogonal, as in a Jordan block: there is none.
    overlap = jnp.sum(left * right)
    simple = jnp.isfinite(overlap) & (overlap != 0)
    shift = jnp.sum(left * (moved - lax.stop_gradient(moved))) / jnp.where(simple, overlap, 1)
    return value + jnp.where(simple, shift, 0)


def _frozen(operator: GraphOperator) -> GraphOperator:
    return jax.tree_util.tree_map(
        lambda leaf: lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf, operator
    )
