"""The covariance of per-sample gradients."""

import functools
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float, PyTree

from .._core import Function, Raveler, check_scalar_loss
from ._chunks import chunk_size_for, mean_over_chunks, num_samples
from ._model import Model, Pull, model_at
from ._operator import AbstractCurvature, build_either_way, highest_precision
from ._point import Filter, as_arrays


class GradientCovariance(AbstractCurvature):
    """The second moment of per-sample gradients, about their mean or about zero; made by `gradient_covariance`."""

    losses: Model
    data: tuple[PyTree, PyTree]
    chunk_size: int | None = eqx.field(static=True)
    centered: bool = eqx.field(static=True)
    positive_semidefinite: bool = eqx.field(static=True, default=True)

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        """(1/N) sum_n g_n (g_n - mean) . v."""
        return _product(self, vector)

    def in_structure(self) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes and dtypes of the leaves that vary."""
        return self.losses.point.structure()

    def linearised(self) -> lx.AbstractLinearOperator:
        """The operator itself."""
        return self

    def root(self) -> Float[Array, "n dim"]:
        """The dense matrix A with A^T A = this operator: per-sample gradients (less their mean) over sqrt(N)."""
        return _root(self)

    def gram(self) -> Float[Array, "n n"]:
        """The Gram matrix A A^T: it has the non-zero spectrum of this operator."""
        rows = self.root()
        return jnp.matmul(rows, rows.T, precision=jax.lax.Precision.HIGHEST)


class _SampleLosses(eqx.Module):
    """The loss of every sample, as if the loss function were a network with one output."""

    loss: Function

    def __call__(self, params: PyTree, data: tuple[PyTree, PyTree]) -> Float[Array, "n"]:
        one = lambda sample: jax.tree_util.tree_map(lambda leaf: leaf[None], sample)
        return jax.vmap(lambda sample: self.loss(params, *one(sample)))(data)


@jax.jit
def _product(operator: GradientCovariance, vector: PyTree[Array]) -> PyTree[Array]:
    def slopes(data: tuple[PyTree, PyTree], shifts: list[Array]) -> tuple[Float[Array, "n"], Pull]:
        _, push, pull = operator.losses.linearise(data)
        return functools.reduce(jnp.subtract, shifts, push(vector)), pull

    def on_chunk(data: tuple[PyTree, PyTree], shifts: list[Array]) -> PyTree[Array]:
        centred, pull = slopes(data, shifts)
        return pull(centred / centred.shape[0])

    with highest_precision():
        # The mean of the slopes g_n . v goes first, and twice: what rounding leaves of it would be multiplied by the mean
        # gradient. Subtracting the outer product of the mean at the end would cancel.
        shifts: list[Array] = []
        for _ in range(2 if operator.centered else 0):
            mean = functools.partial(lambda before, data: jnp.mean(slopes(data, before)[0]), list(shifts))
            shifts.append(mean_over_chunks(mean, operator.data, operator.chunk_size))
        return mean_over_chunks(lambda data: on_chunk(data, shifts), operator.data, operator.chunk_size)


@jax.jit
def _root(operator: GradientCovariance) -> Float[Array, "n dim"]:
    raveler = Raveler(operator.in_structure())
    size = num_samples(operator.data, "inputs")

    def row(sample: tuple[PyTree, PyTree]) -> Float[Array, "dim"]:
        value, pull = operator.losses.on_sample(sample)
        return raveler.ravel(pull(jnp.ones_like(value)))

    with highest_precision():
        rows = jax.lax.map(row, operator.data, batch_size=min(size, operator.chunk_size or size))
    if operator.centered:
        rows = rows - jnp.mean(rows, axis=0)
    return rows / jnp.sqrt(jnp.asarray(size, raveler.dtype))


def gradient_covariance(
    loss: Callable[..., Float[Array, ""]],
    params: PyTree,
    inputs: PyTree,
    targets: PyTree,
    *,
    centered: bool = True,
    filter: Filter = None,
    chunk_size: int | None = None,
) -> GradientCovariance:
    """The covariance of per-sample gradients, i.e. of the noise of SGD at batch size 1, as a lineax operator.

    C = (1/N) sum_n (g_n - m)(g_n - m)^T,   g_n = gradient of the loss of sample n,   m their mean, or 0.

    With batches of size B drawn without replacement the noise covariance is C (N - B) / (B (N - 1)).

    Args:
        loss: `loss(params, inputs, targets)`, a real scalar; called on batches of one sample, under `jax.vmap`.
        params: any pytree; integer arrays and leaves that are not arrays are held fixed.
        inputs: samples along the first axis.
        targets: samples along the first axis.
        centered: whether the mean is subtracted; otherwise this is the uncentred second moment.
        filter: which floating-point leaves vary: a predicate on leaves, or a pytree prefix of booleans.
        chunk_size: number of samples in memory at a time.

    Returns:
        A symmetric positive semi-definite operator on the chosen leaves. `.root()` holds the per-sample gradients.

    Raises:
        TypeError: if the loss is not a function, or its value is not one real number.
        ValueError: if shapes do not fit, nothing is left to vary, or `chunk_size` is below 1.

    Example:
        ```python
        noise = dj.gradient_covariance(loss, params, x, y)
        dj.trace(noise, num_probes=32, key=key).value
        ```
    """
    data = as_arrays((inputs, targets))
    num_samples(data[0], "inputs")
    size = num_samples(data, "targets")
    check_scalar_loss(loss, as_arrays(params), jax.tree_util.tree_map(lambda leaf: leaf[:1], data))
    chunk = chunk_size_for(chunk_size, size)
    model = model_at(_SampleLosses(Function(loss)), params, filter)
    return build_either_way(lambda reverse: GradientCovariance(model(reverse), data, chunk, bool(centered)))
