"""The generalised Gauss-Newton matrix and the Fisher information."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PyTree

from .._core import Function, Raveler, check_that
from ._chunks import chunk_size_for, mean_over_chunks, num_samples
from ._hessian import Mode, check_mode
from ._losses import AbstractOutputCurvature, Loss, Score, check_targets, mean_loss, output_hessian
from ._model import Model, model_at, output_structure
from ._operator import AbstractCurvature, build_either_way, function_operator, highest_precision
from ._point import Filter, as_arrays


class GaussNewton(AbstractCurvature):
    """J^T B J: the Jacobian of a network around a curvature B of its outputs; made by `gauss_newton` and `fisher`."""

    model: Model
    data: tuple[PyTree, PyTree]
    curvature: AbstractOutputCurvature
    chunk_size: int | None = eqx.field(static=True)
    mode: Mode = eqx.field(static=True)

    @property
    def positive_semidefinite(self) -> bool:  # type: ignore[override]
        """Whether B is known to be."""
        return self.curvature.positive_semidefinite

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        """J^T B J v: one forward, one linearised and one transposed pass through the network."""
        return _product(self, vector)

    def in_structure(self) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes and dtypes of the leaves that vary."""
        return self.model.point.structure()

    def linearised(self) -> lx.AbstractLinearOperator:
        """The network's linearisation stored in mode "linearise", otherwise the operator itself."""
        if self.mode == "recompute":
            return self
        with highest_precision():
            chosen = self.model.point.chosen
            zero = jax.tree_util.tree_map(jnp.zeros_like, chosen)
            _, product = jax.linearize(lambda v: _multiply(self, v), zero)
            return function_operator(product, self)

    def root(self) -> Float[Array, "rows dim"]:
        """The dense matrix A with A^T A = this operator: one row for each sample and output.

        Needs a network that treats samples independently (no batch statistics), and memory for N C vectors.
        """
        return _root(self)

    def gram(self) -> Float[Array, "rows rows"]:
        """The Gram matrix A A^T of the rows of `root`: it has the non-zero spectrum of this operator."""
        rows = self.root()
        return jnp.matmul(rows, rows.T, precision=jax.lax.Precision.HIGHEST)


def _multiply(operator: GaussNewton, vector: PyTree[Array]) -> PyTree[Array]:
    def on_chunk(data: tuple[PyTree, PyTree]) -> PyTree[Array]:
        inputs, targets = data
        outputs, push, pull = operator.model.linearise(inputs)
        return pull(operator.curvature.product(outputs, targets, push(vector)))

    return mean_over_chunks(on_chunk, operator.data, operator.chunk_size)


@jax.jit
def _product(operator: GaussNewton, vector: PyTree[Array]) -> PyTree[Array]:
    with highest_precision():
        return _multiply(operator, vector)


@jax.jit
def _root(operator: GaussNewton) -> Float[Array, "rows dim"]:
    raveler = Raveler(operator.in_structure())
    size = num_samples(operator.data, "inputs")

    def rows(sample: tuple[PyTree, PyTree]) -> Float[Array, "columns dim"]:
        output, pull = operator.model.on_sample(sample[0])
        return jax.vmap(lambda column: raveler.ravel(pull(column)))(operator.curvature.root(output, sample[1]))

    with highest_precision():
        stacked = jax.lax.map(rows, operator.data, batch_size=min(size, operator.chunk_size or size))
    return stacked.reshape((-1, raveler.size)) / jnp.sqrt(jnp.asarray(size, raveler.dtype))


def gauss_newton(
    predict: Callable[[Any, Any], Array],
    loss: Loss,
    params: PyTree,
    inputs: PyTree,
    targets: Any,
    *,
    filter: Filter = None,
    chunk_size: int | None = None,
    mode: Mode = "recompute",
) -> GaussNewton:
    """The generalised Gauss-Newton matrix of a loss of a network's outputs, as a lineax operator.

    G = (1/N) sum_n J_n^T B_n J_n, with J_n the Jacobian of the outputs of sample n and B_n the Hessian of its loss in
    them: the identity for `"mse"`, diag(p) - p p^T for the softmax, p (1 - p) for the sigmoid, in closed form.

    Args:
        predict: `predict(params, inputs)`, outputs (N, C) or (N,).
        loss: `"mse"` (that is (1/N) sum_n 0.5 |f_n - y_n|^2), `"softmax_cross_entropy"`,
            `"sigmoid_binary_cross_entropy"`, or a function `loss(outputs, targets)`, whose Hessian in the outputs is
            then taken by differentiation.
        params: any pytree; integer arrays and leaves that are not arrays are held fixed.
        inputs: array or pytree of arrays with samples along the first axis.
        targets: like the outputs; for the softmax integer labels (N,) or class probabilities (N, C).
        filter: which floating-point leaves vary: a predicate on leaves, or a pytree prefix of booleans.
        chunk_size: number of samples in memory at a time; needs a network that treats samples independently, and a
            callable loss to be a mean over samples.
        mode: `"recompute"` runs the network in every product, `"linearise"` lets `lineax.linearise` (hence `eigsh`)
            store its intermediate values once.

    Returns:
        A symmetric operator on the chosen leaves, marked positive semi-definite for the named losses. `.root()` and
        `.gram()` give its dense factor and the N C x N C Gram matrix with the same non-zero spectrum.

    Raises:
        TypeError: if `predict` or `loss` is of the wrong kind, or targets have the wrong dtype.
        ValueError: if shapes do not fit, nothing is left to vary, or `chunk_size` is below 1.

    Example:
        ```python
        G = dj.gauss_newton(predict, "softmax_cross_entropy", params, x, labels)
        dj.eigsh(G, k=10).values
        ```

    References:
        Schraudolph, "Fast curvature matrix-vector products for second-order gradient descent", Neural Computation 14
        (2002).
    """
    curvature = output_hessian(loss)
    return _build(predict, loss, params, as_arrays((inputs, targets)), curvature, filter, chunk_size, mode)


def fisher(
    predict: Callable[[Any, Any], Array],
    loss: Loss,
    params: PyTree,
    inputs: PyTree,
    targets: Any = None,
    *,
    kind: Literal["exact", "empirical"] = "exact",
    filter: Filter = None,
    chunk_size: int | None = None,
    mode: Mode = "recompute",
) -> GaussNewton:
    """The Fisher information of a network, as a lineax operator.

    exact:      F = (1/N) sum_n E_{y ~ p(.|f_n)} [s_n(y) s_n(y)^T], s_n(y) = d/d params -log p(y | f_n),
    empirical:  the same with the one given label in place of the expectation.

    The exact one needs no targets: the expectation is over the network's own labels, and is taken in closed form. For
    the named losses (Gaussian of unit variance, categorical, Bernoulli) it equals the Gauss-Newton matrix. The
    empirical one is the uncentred second moment of the per-sample gradients, and is not a Fisher information away from
    a good fit.

    Args:
        predict: `predict(params, inputs)`, outputs (N, C) or (N,).
        loss: a name as in `gauss_newton`; a function `loss(outputs, targets)`, a mean over samples, only with
            `kind="empirical"`.
        params: any pytree.
        inputs: samples along the first axis.
        targets: needed by `kind="empirical"` alone.
        kind: `"exact"` or `"empirical"`.
        filter: as in `gauss_newton`.
        chunk_size: as in `gauss_newton`.
        mode: as in `gauss_newton`.

    Returns:
        A symmetric positive semi-definite operator on the chosen leaves.

    Raises:
        TypeError: if arguments are of the wrong kind.
        ValueError: if a function is given as loss of the exact Fisher, targets of the empirical one are missing, or
            shapes do not fit.

    Example:
        ```python
        F = dj.fisher(predict, "softmax_cross_entropy", params, x)
        ```

    References:
        Kunstner, Balles, Hennig, "Limitations of the empirical Fisher approximation", NeurIPS 2019.
    """
    check_that(kind in ("exact", "empirical"), "kind", 'be "exact" or "empirical"', f"found {kind!r}")
    if kind == "empirical":
        check_that(targets is not None, "targets", 'be given for kind="empirical"', "found None")
        curvature: AbstractOutputCurvature = Score(Function(mean_loss(loss)))
    else:
        check_that(
            isinstance(loss, str),
            "loss",
            'be the name of a likelihood for kind="exact"',
            "found a function, which says nothing of the distribution of labels",
        )
        curvature = output_hessian(loss)
    return _build(predict, loss, params, as_arrays((inputs, targets)), curvature, filter, chunk_size, mode)


def _build(
    predict: Callable[[Any, Any], Array],
    loss: Loss,
    params: PyTree,
    data: tuple[PyTree, Any],
    curvature: AbstractOutputCurvature,
    where: Filter,
    chunk_size: int | None,
    mode: Mode,
) -> GaussNewton:
    inputs, targets = data
    size = num_samples(inputs, "inputs")
    outputs = output_structure(predict, params, inputs, size)
    check_targets(loss, outputs, targets)
    check_mode(mode)
    num_samples(data, "targets")
    model = model_at(predict, params, where)
    chunk = chunk_size_for(chunk_size, size)
    return build_either_way(lambda reverse: GaussNewton(model(reverse), data, curvature, chunk, mode))
