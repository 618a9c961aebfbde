"""The empirical neural tangent kernel."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PyTree

from ._chunks import chunk_size_for, map_over_chunks, mean_over_chunks, num_samples
from ._hessian import Mode, check_mode
from ._model import Model, model_at, output_structure
from ._operator import AbstractCurvature, build_either_way, function_operator, highest_precision
from ._point import Filter, as_arrays


class TangentKernel(AbstractCurvature):
    """J J^T on the outputs of a network; made by `tangent_kernel`."""

    model: Model
    inputs: PyTree
    structure: jax.ShapeDtypeStruct = eqx.field(static=True)
    chunk_size: int | None = eqx.field(static=True)
    mode: Mode = eqx.field(static=True)
    positive_semidefinite: bool = eqx.field(static=True, default=True)

    def mv(self, vector: Float[Array, "n *out"]) -> Float[Array, "n *out"]:
        """J J^T u: one forward, one transposed and one linearised pass through the network."""
        return _product(self, vector)

    def in_structure(self) -> jax.ShapeDtypeStruct:
        """Shape and dtype of the outputs."""
        return self.structure

    def linearised(self) -> lx.AbstractLinearOperator:
        """The network's linearisation stored in mode "linearise", otherwise the operator itself."""
        if self.mode == "recompute":
            return self
        with highest_precision():
            zero = jnp.zeros(self.structure.shape, self.structure.dtype)
            _, product = jax.linearize(lambda u: _multiply(self, u), zero)
            return function_operator(product, self)


def _multiply(operator: TangentKernel, vector: Float[Array, "n *out"]) -> Float[Array, "n *out"]:
    if operator.chunk_size is None:
        _, push, pull = operator.model.linearise(operator.inputs)
        return push(pull(vector))
    size = vector.shape[0]

    def pull_chunk(data: tuple[PyTree, Array]) -> PyTree[Array]:
        _, _, pull = operator.model.linearise(data[0])
        return pull(data[1] / data[1].shape[0])

    def push_chunk(inputs: PyTree) -> Array:
        _, push, _ = operator.model.linearise(inputs)
        return push(direction)

    direction = mean_over_chunks(pull_chunk, (operator.inputs, vector * size), operator.chunk_size)
    return map_over_chunks(push_chunk, operator.inputs, operator.chunk_size)


@jax.jit
def _product(operator: TangentKernel, vector: Float[Array, "n *out"]) -> Float[Array, "n *out"]:
    with highest_precision():
        return _multiply(operator, vector)


def tangent_kernel(
    predict: Callable[[Any, Any], Array],
    params: PyTree,
    inputs: PyTree,
    *,
    filter: Filter = None,
    chunk_size: int | None = None,
    mode: Mode = "recompute",
) -> TangentKernel:
    """The empirical neural tangent kernel of a network, as a lineax operator on arrays shaped like its outputs.

    K = J J^T,   K[(n, a), (m, b)] = d f_a(x_n) / d params . d f_b(x_m) / d params, without a factor 1/N.

    Args:
        predict: `predict(params, inputs)`, outputs (N, C) or (N,).
        params: any pytree; integer arrays and leaves that are not arrays are held fixed.
        inputs: array or pytree of arrays with samples along the first axis.
        filter: which floating-point leaves of `params` vary: a predicate on leaves, or a pytree prefix of booleans.
        chunk_size: number of samples in memory at a time; needs a network that treats samples independently.
        mode: `"recompute"` or `"linearise"`, as in `gauss_newton`.

    Returns:
        A symmetric positive semi-definite operator. `.as_matrix()` is the N C x N C kernel, from N C products, with
        samples as the slow index.

    Raises:
        TypeError: if `predict` is not a function that returns one real array.
        ValueError: if shapes do not fit, nothing is left to vary, or `chunk_size` is below 1.

    Example:
        ```python
        K = dj.tangent_kernel(predict, params, x)
        residual_decay = K.mv(predict(params, x) - y)      # -N d(f)/dt under gradient flow on "mse"
        ```

    References:
        Jacot, Gabriel, Hongler, "Neural tangent kernel", NeurIPS 2018.
    """
    inputs = as_arrays(inputs)
    size = num_samples(inputs, "inputs")
    outputs = output_structure(predict, params, inputs, size)
    structure = jax.ShapeDtypeStruct(outputs.shape, outputs.dtype)
    check_mode(mode)
    chunk = chunk_size_for(chunk_size, size)
    model = model_at(predict, params, filter)
    return build_either_way(lambda reverse: TangentKernel(model(reverse), inputs, structure, chunk, mode))
