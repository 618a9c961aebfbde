"""The Hessian of a loss."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import lineax as lx
from jaxtyping import Array, Float, PyTree

from .._core import Function, check_scalar_loss, check_that, tree_dot
from ._chunks import check_chunk_size, chunk_size_for, mean_over_chunks, num_samples
from ._operator import AbstractCurvature, build_either_way, function_operator, highest_precision
from ._point import Filter, Frozen, Point, as_arrays

Mode = Literal["recompute", "linearise"]


class Hessian(AbstractCurvature):
    """The Hessian of `loss(params, *args)` with respect to the chosen leaves of `params`; made by `hessian`."""

    loss: Function
    point: Point
    args: Frozen
    chunk_size: int | None = eqx.field(static=True)
    mode: Mode = eqx.field(static=True)
    reverse: bool = eqx.field(static=True)
    positive_semidefinite: bool = eqx.field(static=True, default=False)

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        """H v: about the cost of four evaluations of the loss, or twice its gradient."""
        return _product(self, vector)

    def in_structure(self) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes and dtypes of the leaves that vary."""
        return self.point.structure()

    def linearised(self) -> lx.AbstractLinearOperator:
        """The stored linearisation of the gradient in mode "linearise", otherwise the operator itself."""
        if self.mode == "recompute":
            return self
        with highest_precision():
            if self.reverse:
                _, pull = jax.vjp(self.gradient, self.point.chosen)
                return function_operator(jax.tree_util.Partial(_transposed, pull), self)
            _, push = jax.linearize(self.gradient, self.point.chosen)
            return function_operator(push, self)

    def gradient(self, chosen: PyTree[Array]) -> PyTree[Array]:
        """The gradient of the loss at `chosen`."""
        return mean_over_chunks(lambda data: self.chunk_gradient(chosen, data), self.args.arrays, self.chunk_size)

    def chunk_gradient(self, chosen: PyTree[Array], data: PyTree) -> PyTree[Array]:
        """The gradient on one chunk of the data."""

        def value(c: PyTree[Array]) -> Float[Array, ""]:
            return self.loss(self.point.params(c), *self.args.tree(data))

        return jax.grad(value)(chosen)


def _transposed(pull: Callable[[PyTree], tuple[PyTree]], vector: PyTree[Array]) -> PyTree[Array]:
    return pull(vector)[0]


@jax.jit
def _product(operator: Hessian, vector: PyTree[Array]) -> PyTree[Array]:
    point = operator.point.chosen

    def on_chunk(data: PyTree) -> PyTree[Array]:
        def gradient(chosen: PyTree[Array]) -> PyTree[Array]:
            return operator.chunk_gradient(chosen, data)

        if operator.reverse:
            return jax.grad(lambda chosen: tree_dot(gradient(chosen), vector))(point)
        return jax.jvp(gradient, (point,), (vector,))[1]

    with highest_precision():
        return mean_over_chunks(on_chunk, operator.args.arrays, operator.chunk_size)


def hessian(
    loss: Callable[..., Float[Array, ""]],
    params: PyTree,
    *args: Any,
    filter: Filter = None,
    chunk_size: int | None = None,
    mode: Mode = "recompute",
) -> Hessian:
    """The Hessian of a loss with respect to its parameters, as a lineax operator.

    H = d^2 loss(params, *args) / d params^2, multiplied with a vector by forward-over-reverse differentiation, or by
    reverse-over-reverse where the loss holds a `jax.custom_vjp`.

    Automatic differentiation takes the derivative almost everywhere: the kinks of a ReLU contribute nothing.

    Args:
        loss: `loss(params, *args)`, a real scalar. Deterministic: pass random keys as arguments.
        params: any pytree: dictionaries, Equinox modules, flax or haiku parameters. Integer arrays and leaves that are
            not arrays are held fixed.
        args: data, as arrays. Arrays are traced; Python numbers, functions and strings are static.
        filter: which floating-point leaves vary: a predicate on leaves, or a pytree prefix of booleans. The operator is
            then the corresponding diagonal block. All by default.
        chunk_size: number of samples in memory at a time. It needs every array of `args` that has axes to have samples
            along the first, and a loss that is a mean over samples (terms that do not depend on the data are welcome).
            The last, shorter chunk is weighted by its size.
        mode: `"recompute"` differentiates anew in every product, `"linearise"` lets `lineax.linearise` (hence `eigsh`)
            store all intermediate values of the gradient once. The default is the faster for multilayer perceptrons
            on a CPU and needs no memory.

    Returns:
        A symmetric operator on the chosen leaves (`None` elsewhere). One product costs about two gradients.

    Raises:
        TypeError: if the loss is not a function, or its value is not one real number.
        ValueError: if shapes do not fit, nothing is left to vary, or `chunk_size` is below 1.

    Example:
        ```python
        H = dj.hessian(loss, params, x, y)
        H.mv(direction)                                   # a pytree like params
        dj.eigsh(H, k=5, which="both")
        first_layer = dj.hessian(loss, params, x, y, filter={"first": True, "second": False})
        ```

    References:
        Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6 (1994).
    """
    args = as_arrays(args)
    point = Point(params, filter)
    check_scalar_loss(loss, as_arrays(params), args)
    check_mode(mode)
    check_chunk_size(chunk_size)
    frozen = Frozen(args)
    if chunk_size is not None:
        samples = [leaf for leaf in jax.tree_util.tree_leaves(frozen.arrays) if leaf.ndim > 0]
        chunk_size = chunk_size_for(chunk_size, num_samples(samples, "args"))
    return build_either_way(lambda reverse: Hessian(Function(loss), point, frozen, chunk_size, mode, reverse))


def check_mode(mode: Any) -> None:
    """Raise unless `mode` is one of the two."""
    check_that(mode in ("recompute", "linearise"), "mode", 'be "recompute" or "linearise"', f"found {mode!r}")
