"""Noise paths: randomness as a pure function of the integer step, so that a stochastic run can be replayed bit by bit."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._core import check_that
from ._system import IntScalarLike


def _as_data(data: Any) -> tuple[tuple[Any, ...], int]:
    """The data as a tuple of pytrees with one common leading length."""
    data = data if isinstance(data, tuple) else (data,)
    data = jax.tree_util.tree_map(jnp.asarray, data)
    leaves = jax.tree_util.tree_leaves(data)
    check_that(
        bool(leaves) and all(leaf.ndim > 0 for leaf in leaves),
        "data",
        "hold arrays with a leading sample axis",
        "none has",
    )
    lengths = sorted({leaf.shape[0] for leaf in leaves})
    check_that(len(lengths) == 1, "data", "have one common number of samples", f"the leading axes are {lengths}")
    return data, lengths[0]


def _check_batch_size(batch_size: int, num_samples: int) -> None:
    check_that(
        isinstance(batch_size, int) and 0 < batch_size <= num_samples,
        "batch_size",
        f"be an integer from 1 to the number of samples {num_samples}",
        f"found {batch_size!r}",
    )


class FullBatch(eqx.Module):
    """The path that returns all the data at every step.

    Args:
        *data: arrays, or pytrees of arrays; the path returns them as a tuple.
    """

    data: tuple[Any, ...]

    def __init__(self, *data: Any):
        self.data = data

    def __call__(self, n: IntScalarLike) -> tuple[Any, ...]:
        """All the data, whatever the step `n`."""
        return self.data


class MiniBatches(eqx.Module):
    """Independent mini-batches: at each step `batch_size` samples drawn without replacement inside the batch.

    Args:
        data: a tuple of arrays (or pytrees of arrays) with one common leading axis of samples.
        batch_size: samples in a batch.
        key: fixes the path; the batch of step `n` depends on `fold_in(key, n)` alone.

    Raises:
        ValueError: if the leading axes differ, or `batch_size` is not between 1 and the number of samples.
    """

    data: tuple[Any, ...]
    key: PRNGKeyArray
    batch_size: int = eqx.field(static=True)
    num_samples: int = eqx.field(static=True)

    def __init__(self, data: Any, batch_size: int, *, key: PRNGKeyArray):
        self.data, self.num_samples = _as_data(data)
        _check_batch_size(batch_size, self.num_samples)
        self.batch_size = batch_size
        self.key = key

    def indices(self, n: IntScalarLike) -> Int[Array, "batch_size"]:
        """The sample numbers of step `n`."""
        key = jax.random.fold_in(self.key, n)
        if self.batch_size == 1:
            return jax.random.randint(key, (1,), 0, self.num_samples)
        return jax.random.choice(key, self.num_samples, (self.batch_size,), replace=False)

    def __call__(self, n: IntScalarLike) -> tuple[Any, ...]:
        """The batch of step `n`, a tuple like `data`."""
        chosen = self.indices(n)
        return jax.tree_util.tree_map(lambda leaf: jnp.take(leaf, chosen, axis=0), self.data)


class ReshuffledBatches(eqx.Module):
    """Epochs: the samples are permuted anew in each epoch and passed through in batches.

    An epoch has `num_samples // batch_size` steps; what is left of its permutation is not used in that epoch.

    Args:
        data: a tuple of arrays (or pytrees of arrays) with one common leading axis of samples.
        batch_size: samples in a batch.
        key: fixes the path; the permutation of epoch `e` depends on `fold_in(key, e)` alone.

    Raises:
        ValueError: if the leading axes differ, or `batch_size` is not between 1 and the number of samples.
    """

    data: tuple[Any, ...]
    key: PRNGKeyArray
    batch_size: int = eqx.field(static=True)
    num_samples: int = eqx.field(static=True)

    def __init__(self, data: Any, batch_size: int, *, key: PRNGKeyArray):
        self.data, self.num_samples = _as_data(data)
        _check_batch_size(batch_size, self.num_samples)
        self.batch_size = batch_size
        self.key = key

    def indices(self, n: IntScalarLike) -> Int[Array, "batch_size"]:
        """The sample numbers of step `n`. Costs one permutation of the samples."""
        steps = self.num_samples // self.batch_size
        order = jax.random.permutation(jax.random.fold_in(self.key, n // steps), self.num_samples)
        return jax.lax.dynamic_slice(order, ((n % steps) * self.batch_size,), (self.batch_size,))

    def __call__(self, n: IntScalarLike) -> tuple[Any, ...]:
        """The batch of step `n`, a tuple like `data`."""
        chosen = self.indices(n)
        return jax.tree_util.tree_map(lambda leaf: jnp.take(leaf, chosen, axis=0), self.data)


class WhiteNoise(eqx.Module):
    """Independent standard normal draws, scaled: step `n` gives `scale * normal(fold_in(key, n), shape)`.

    For an Euler-Maruyama step of size dt use `scale = sqrt(dt)`.

    Args:
        shape: shape of one draw.
        key: fixes the path.
        scale: standard deviation, in the units of the noise.
        dtype: floating dtype of the draws; JAX's default if not given.
    """

    key: PRNGKeyArray
    scale: Float[Array, ""]
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, shape: tuple[int, ...], *, key: PRNGKeyArray, scale: Any = 1.0, dtype: Any = None):
        self.key = key
        self.scale = jnp.asarray(scale, dtype or jnp.result_type(float))
        self.shape = tuple(shape)

    def __call__(self, n: IntScalarLike) -> Float[Array, "..."]:
        """The draw of step `n`, of shape `shape`."""
        draw = jax.random.normal(jax.random.fold_in(self.key, n), self.shape, self.scale.dtype)
        return self.scale * draw
