"""Means and maps over samples, one chunk of them in memory at a time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

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
    join, head, tail, chunk, rest = parts
    total = chunk * head[0].shape[0] + rest

    def add(accumulated: PyTree, piece: PyTree) -> tuple[PyTree, None]:
        return jax.tree_util.tree_map(jnp.add, accumulated, fn(join(piece))), None

    start = jax.tree_util.tree_map(
        lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(lambda pieces: fn(join([p[0] for p in pieces])), head)
    )
    mean = tree_scale(chunk / total, jax.lax.scan(add, start, head)[0])
    if rest:
        mean = jax.tree_util.tree_map(jnp.add, mean, tree_scale(rest / total, fn(join(tail))))
    return mean


def map_over_chunks(fn: Callable[[PyTree], PyTree], data: PyTree, chunk_size: int | None) -> PyTree:
    """`fn(data)` for a function that keeps the axis of samples first, one chunk at a time."""
    parts = _cut(data, chunk_size)
    if parts is None:
        return fn(data)
    join, head, tail, _, rest = parts
    out = jax.lax.map(lambda piece: fn(join(piece)), head)
    out = jax.tree_util.tree_map(lambda a: a.reshape((-1, *a.shape[2:])), out)
    if rest:
        out = jax.tree_util.tree_map(lambda a, b: jnp.concatenate([a, b]), out, fn(join(tail)))
    return out


def _cut(data: PyTree, chunk_size: int | None) -> Any:
    """(join, equal chunks, rest, chunk size, size of the rest), or `None` where one chunk holds everything."""
    leaves, treedef = jax.tree_util.tree_flatten(data)
    sliced = [leaf for leaf in leaves if jnp.ndim(leaf) > 0]
    if chunk_size is None or chunk_size >= sliced[0].shape[0]:
        return None
    whole, rest = divmod(sliced[0].shape[0], chunk_size)
    cut = whole * chunk_size

    def join(pieces: list[Any]) -> PyTree:
        remaining = iter(pieces)
        return jax.tree_util.tree_unflatten(
            treedef, [next(remaining) if jnp.ndim(leaf) > 0 else leaf for leaf in leaves]
        )

    head = [leaf[:cut].reshape((whole, chunk_size, *leaf.shape[1:])) for leaf in sliced]
    return join, head, [leaf[cut:] for leaf in sliced], chunk_size, rest
