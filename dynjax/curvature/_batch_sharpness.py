"""Batch sharpness: the curvature that stochastic gradient descent meets along its own steps."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from .._core import check_that, found, is_concrete, tree_dot
from ._chunks import num_samples
from ._hessian import Hessian, hessian
from ._operator import highest_precision
from ._point import Filter, as_arrays

# The most batches that are enumerated; more must be sampled.
_MOST_BATCHES = 100_000
# Batches evaluated side by side: small ones become matrix products of a useful size.
_TOGETHER = 8


class BatchQuotients(eqx.Module):
    """The curvature of batch losses along their own gradients.

    Attributes:
        values: g_B . H_B g_B / |g_B|^2 for each batch; NaN where the gradient vanishes.
        vanishing: whether the gradient of that batch is exactly zero.
    """

    values: Float[Array, "batches"]
    vanishing: Bool[Array, "batches"]


class BatchSharpness(eqx.Module):
    """An estimate of the batch sharpness.

    Attributes:
        value: the mean over batches.
        standard_error: of `value`; zero where every batch was enumerated.
        num_batches: batches that entered: those whose gradient does not vanish.
    """

    value: Float[Array, ""]
    standard_error: Float[Array, ""]
    num_batches: Int[Array, ""]

    def __str__(self) -> str:
        return f"batch sharpness {self.value:.6g} +- {self.standard_error:.1g} ({self.num_batches} batches)"


def batch_sharpness(
    loss: Callable[..., Float[Array, ""]],
    params: PyTree,
    inputs: PyTree,
    targets: PyTree,
    *,
    batch_size: int,
    num_batches: int | None = None,
    key: PRNGKeyArray | None = None,
    filter: Filter = None,
) -> BatchSharpness:
    """The batch sharpness: the expected curvature of a batch loss along its own gradient.

    S_B = E_B[ g_B . H_B g_B / |g_B|^2 ],  B a batch of `batch_size` different samples, g_B and H_B gradient and Hessian
    of the loss on it. SGD with step `lr` tends to hold it near 2/lr. At full batch size it is the Rayleigh quotient of
    the gradient, not the sharpness.

    Batches whose gradient vanishes exactly make no step and are left out.

    Args:
        loss: `loss(params, inputs, targets)`, a real scalar; called on batches.
        params: any pytree.
        inputs: samples along the first axis.
        targets: samples along the first axis.
        batch_size: samples in a batch, at least one.
        num_batches: independent batches to draw, at least two; `None` enumerates all of them (up to 100,000), which is
            exact.
        key: seeds the batches; needed to draw.
        filter: which leaves of `params` vary, as in `hessian`.

    Returns:
        `.value`, `.standard_error`, `.num_batches`. One gradient and one Hessian product on a batch each.

    Raises:
        TypeError: as `hessian`.
        ValueError: if sizes do not fit, `key` is missing, or there are too many batches to enumerate.

    Example:
        ```python
        dj.batch_sharpness(loss, params, x, y, batch_size=8, num_batches=200, key=key)
        ```

    References:
        Andreyev, Beneventano, "Edge of stochastic stability", arXiv:2412.20553.
    """
    inputs, targets = as_arrays((inputs, targets))
    num_samples(inputs, "inputs")
    size = num_samples((inputs, targets), "targets")
    _check_integer(batch_size, "batch_size")
    check_that(1 <= batch_size <= size, "batch_size", f"be between 1 and the {size} samples", f"found {batch_size}")
    if num_batches is None:
        return _summary(
            batch_quotients(loss, params, inputs, targets, _all_batches(size, batch_size), filter=filter), True
        )
    _check_integer(num_batches, "num_batches")
    check_that(num_batches >= 2, "num_batches", "be at least 2 for a standard error", f"found {num_batches}")
    if key is None:
        raise ValueError("Argument `key` must be given to draw batches, but found None.")
    indices = _draw(key, size, batch_size, num_batches)
    return _summary(batch_quotients(loss, params, inputs, targets, indices, filter=filter), False)


def batch_quotients(
    loss: Callable[..., Float[Array, ""]],
    params: PyTree,
    inputs: PyTree,
    targets: PyTree,
    indices: Int[Array, "batches batch_size"],
    *,
    filter: Filter = None,
) -> BatchQuotients:
    """g_B . H_B g_B / |g_B|^2 for given batches B.

    Args:
        loss: `loss(params, inputs, targets)`, a real scalar.
        params: any pytree.
        inputs: samples along the first axis.
        targets: samples along the first axis.
        indices: the samples of each batch.
        filter: which leaves of `params` vary, as in `hessian`.

    Returns:
        `.values`, one for each batch, and `.vanishing`, which marks gradients that are exactly zero.

    Raises:
        TypeError: as `hessian`.
        ValueError: if `indices` is not a matrix of integers inside the data.

    Example:
        ```python
        batch_quotients(loss, params, x, y, jnp.arange(6).reshape(3, 2)).values
        ```
    """
    inputs, targets = as_arrays((inputs, targets))
    size = num_samples((inputs, targets), "targets")
    _check_indices(indices, size)
    indices = jnp.asarray(indices)
    batch = jax.tree_util.tree_map(lambda leaf: leaf[: indices.shape[1]], (inputs, targets))
    return _quotients(hessian(loss, params, *batch, filter=filter), (inputs, targets), indices)


@jax.jit
def _quotients(template: Hessian, data: tuple[PyTree, PyTree], indices: Int[Array, "batches b"]) -> BatchQuotients:
    def one(index: Int[Array, "b"]) -> tuple[Float[Array, ""], Bool[Array, ""]]:
        batch = jax.tree_util.tree_map(lambda leaf: leaf[index], data)
        operator = eqx.tree_at(lambda h: h.args.arrays, template, batch)
        with highest_precision():
            gradient = operator.gradient(operator.point.chosen)
        # Divided by its largest entry first, so that squares of small gradients near interpolation do not underflow.
        largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree_util.tree_leaves(gradient)]))
        direction = jax.tree_util.tree_map(lambda leaf: leaf / largest, gradient)
        return tree_dot(direction, operator.mv(direction)) / tree_dot(direction, direction), largest == 0

    quotients, vanishing = jax.lax.map(one, indices, batch_size=min(_TOGETHER, indices.shape[0]))
    return BatchQuotients(quotients, vanishing)


def _summary(batches: BatchQuotients, exact: bool) -> BatchSharpness:
    # A NaN that comes from the loss stays in the mean; only batches that make no step are left out.
    count = jnp.sum(~batches.vanishing)
    mean = jnp.sum(jnp.where(batches.vanishing, 0, batches.values)) / count
    if exact:
        return BatchSharpness(mean, jnp.where(jnp.isnan(mean), mean, 0), count)
    variance = jnp.sum(jnp.where(batches.vanishing, 0, (batches.values - mean) ** 2)) / (count - 1)
    return BatchSharpness(mean, jnp.sqrt(variance / count), count)


def _all_batches(size: int, batch_size: int) -> Int[Array, "batches b"]:
    count = math.comb(size, batch_size)
    check_that(
        count <= _MOST_BATCHES,
        "num_batches",
        f"be given where there are more than {_MOST_BATCHES} batches",
        f"there are {count} batches of {batch_size} among {size} samples",
    )
    return jnp.asarray(np.array(list(itertools.combinations(range(size), batch_size)), dtype=np.int32))


def _draw(key: PRNGKeyArray, size: int, batch_size: int, num_batches: int) -> Int[Array, "batches b"]:
    draw = lambda n: jax.random.permutation(jax.random.fold_in(key, n), size)[:batch_size]
    return jax.lax.map(draw, jnp.arange(num_batches))


def _check_integer(value: Any, argument: str) -> None:
    integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    check_that(integer, argument, "be an integer", f"found {value!r}", TypeError)


def _check_indices(indices: Any, size: int) -> None:
    is_matrix = getattr(indices, "ndim", None) == 2 and bool(jnp.issubdtype(indices.dtype, jnp.integer))
    check_that(is_matrix, "indices", "be a matrix of integers, one row for each batch", found(indices))
    check_that(min(indices.shape) > 0, "indices", "hold at least one batch of at least one sample", found(indices))
    if is_concrete(indices):
        array = np.asarray(indices)
        inside = bool(np.all((array >= 0) & (array < size)))
        check_that(inside, "indices", f"lie in 0 to {size - 1}", f"found {array.min()} to {array.max()}")
