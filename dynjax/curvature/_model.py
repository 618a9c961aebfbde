"""A network at a point: its outputs on a batch, and products with its Jacobian from both sides."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, PyTree

from .._core import Function, check_that, found
from ._losses import check_outputs
from ._point import Filter, Point, as_arrays

Push = Callable[[PyTree[Array]], Array]
Pull = Callable[[Array], PyTree[Array]]


class Model(eqx.Module):
    """`predict(params, inputs)` as a function of the leaves of `params` that vary."""

    predict: Function
    point: Point
    reverse: bool = eqx.field(static=True)

    def linearise(self, inputs: PyTree[Array]) -> tuple[Array, Push, Pull]:
        """(outputs f, v -> J v, u -> J^T u) on one batch, from one evaluation of the network.

        In reverse mode J v is the transpose of u -> J^T u, which needs no forward-mode rule of the network.
        """

        def outputs(chosen: PyTree[Array]) -> Array:
            return self.predict(self.point.params(chosen), inputs)

        if self.reverse:
            value, back = jax.vjp(outputs, self.point.chosen)
            forth = jax.linear_transpose(lambda u: back(u)[0], value)
            return value, lambda v: forth(v)[0], lambda u: back(u)[0]
        value, push = jax.linearize(outputs, self.point.chosen)
        transposed = jax.linear_transpose(push, self.point.chosen)
        return value, push, lambda u: transposed(u)[0]

    def on_sample(self, sample: PyTree[Array]) -> tuple[Array, Pull]:
        """(output f_n, u -> J_n^T u) for one sample, given without batch axis."""
        inputs = jax.tree_util.tree_map(lambda leaf: leaf[None], sample)
        value, back = jax.vjp(lambda chosen: self.predict(self.point.params(chosen), inputs)[0], self.point.chosen)
        return value, lambda u: back(u)[0]


def output_structure(predict: Any, params: PyTree, inputs: PyTree, size: int) -> jax.ShapeDtypeStruct:
    """Shape and dtype of `predict(params, inputs)`, checked.

    Raises:
        TypeError: if `predict` is not a function or does not return one real array.
        ValueError: if that array is not (N, C) or (N,).
    """
    check_that(callable(predict), "predict", "be a function `predict(params, inputs)`", found(predict), TypeError)
    try:
        outputs = eqx.filter_eval_shape(predict, as_arrays(params), inputs)
    except (TypeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise type(error)(
            f"Argument `predict` must be callable as `predict(params, inputs)` with the arguments given, "
            f"but it raised: {reason}"
        ) from error
    check_outputs(outputs)
    check_that(outputs.shape[0] == size, "predict", f"return one row for each of the {size} samples", found(outputs))
    return outputs


def model_at(predict: Callable[[Any, Any], Array], params: PyTree, where: Filter) -> Callable[[bool], Model]:
    """A function that builds the `Model` for forward (False) or reverse (True) differentiation."""
    point = Point(params, where)
    return lambda reverse: Model(Function(predict), point, reverse)
