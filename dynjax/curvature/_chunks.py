"""Means and maps over samples, one chunk of them in memory at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._core import check_that, found, tree_scale


def num_samples(data: PyTree, argument: str) -> int:
    """The common length of the leading axes of `data`.

    Raises:
        TypeError: if `data` holds anything but arrays.
        ValueError: if there is no leading axis, or the leading axes differ.
    """
    leaves = jax.tree_util.tree_leaves(data)
    must = "hold arrays with samples along the first axis"
    check_that(bool(leaves), argument, must, "no array was found")
    for leaf in leaves:
        check_that(hasattr(leaf, "shape") and hasattr(leaf, "dtype"), argument, must, found(leaf), TypeError)
        check_that(leaf.ndim > 0, argument, must, found(leaf))
    sizes = sorted({leaf.shape[0] for leaf in leaves})
    check_that(len(sizes) == 1, argument, "have equally many samples in all arrays", f"found sizes {sizes}")
    check_that(sizes[0] > 0, argument, "hold at least one sample", "it is empty")
    return sizes[0]


def check_chunk_size(chunk_size: Any) -> None:
    """Raise unless `chunk_size` is `None` or a positive integer."""
    if chunk_size is None:
        return
    integer = isinstance(chunk_size, int) and not isinstance(chunk_size, bool)
    check_that(integer, "chunk_size", "be an integer or None", f"found {chunk_size!r}", TypeError)
    check_that(chunk_size >= 1, "chunk_size", "be at least 1", f"found {chunk_size}")


def chunk_size_for(chunk_size: int | None, size: int) -> int | None:
    """`chunk_size`, or `None` where one chunk holds all `size` samples: one program for both."""
    check_chunk_size(chunk_size)
    return None if chunk_size is None or chunk_size >= size else chunk_size


def mean_over_chunks(fn: Callable[[PyTree], PyTree], data: PyTree, chunk_size: int | None) -> PyTree:
    """sum_k (n_k / N) fn(chunk k): exactly `fn(data)` where `fn` is a mean over samples.

    Equal chunks are scanned; the shorter rest, if any, is evaluated in its own shape and enters with its own weight, so
    that no sample is made up.

    Args:
        fn: gives a pytree of arrays from a chunk with the structure of `data`.
        data: pytree of arrays; those with axes are cut along the first.
        chunk_size: samples in a chunk, or `None` for one chunk.
    """
    parts = _cut(data, chunk_size)
    if parts is None:
        return fn(data)
    chunk, count, tail, rest = parts

    def add(accumulated: PyTree, k: Array) -> tuple[PyTree, None]:
        return jax.tree_util.tree_map(jnp.add, accumulated, fn(chunk(k))), None

    start = jax.tree_util.tree_map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(lambda: fn(chunk(0))))
    total = chunk_size * count + rest
    mean = tree_scale(chunk_size / total, jax.lax.scan(add, start, jnp.arange(count))[0])
    if rest:
        mean = jax.tree_util.tree_map(jnp.add, mean, tree_scale(rest / total, fn(tail)))
    return mean


def map_over_chunks(fn: Callable[[PyTree], PyTree], data: PyTree, chunk_size: int | None) -> PyTree:
    """`fn(data)` for a function that keeps the axis of samples first, one chunk at a time."""
    parts = _cut(data, chunk_size)
    if parts is None:
        return fn(data)
    chunk, count, tail, rest = parts
    out = jax.lax.map(lambda k: fn(chunk(k)), jnp.arange(count))
    out = jax.tree_util.tree_map(lambda a: jnp.swapaxes(a, 0, 1).reshape((-1, *a.shape[2:])), out)
    if rest:
        out = jax.tree_util.tree_map(lambda a, b: jnp.concatenate([a, b]), out, fn(tail))
    return out


def _cut(data: PyTree, chunk_size: int | None) -> Any:
    """(function from k to the k-th chunk, number of equal chunks, rest, its size); `None` where one chunk holds everything.

    With K equal chunks, chunk k holds the samples k, k + K, k + 2 K, ...: of samples that are spread over the devices of a mesh
    every device then holds an equal share of every chunk, and none is sent anywhere.
    """
    leaves, treedef = jax.tree_util.tree_flatten(data)
    sizes = [leaf.shape[0] for leaf in leaves if jnp.ndim(leaf) > 0]
    if chunk_size is None or chunk_size >= sizes[0]:
        return None
    count, rest = divmod(sizes[0], chunk_size)
    cut = count * chunk_size
    strided = [
        leaf[:cut].reshape((chunk_size, count, *leaf.shape[1:])) if jnp.ndim(leaf) > 0 else leaf for leaf in leaves
    ]

    def chunk(k: Any) -> PyTree:
        pieces = [jax.lax.dynamic_index_in_dim(a, k, 1, keepdims=False) if jnp.ndim(a) > 1 else a for a in strided]
        return jax.tree_util.tree_unflatten(treedef, pieces)

    tail = jax.tree_util.tree_unflatten(treedef, [leaf[cut:] if jnp.ndim(leaf) > 0 else leaf for leaf in leaves])
    return chunk, count, tail, rest
