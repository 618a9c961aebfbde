"""Lanes and the blocks they are cut into: equal blocks, one compiled shape, one storage chunk, one lock."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._core import check_that, found


@dataclasses.dataclass(frozen=True)
class Lanes:
    """The coordinates of the lanes and the size of a block.

    Args:
        numeric: coordinates handed to the program, each of shape (num_lanes,).
        labels: coordinates only stored, such as the name of an optimiser; text or numbers.
        block: lanes in a block. The last block is filled up by repeating the last lane.
    """

    numeric: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]
    block: int

    @property
    def num_lanes(self) -> int:
        """How many lanes there are, padding not counted."""
        return len(next(iter(self.numeric.values())))

    @property
    def num_blocks(self) -> int:
        """How many blocks the lanes fill."""
        return -(-self.num_lanes // self.block)

    def members(self, block: int) -> slice:
        """The lanes of a block, padding not counted."""
        return block_members(block, self.block, self.num_lanes)

    def padded(self, block: int) -> dict[str, jax.Array]:
        """The numeric coordinates of a block, each of shape (block,)."""
        index = np.minimum(np.arange(block * self.block, (block + 1) * self.block), self.num_lanes - 1)
        return {name: jnp.asarray(values[index]) for name, values in self.numeric.items()}


def block_members(block: int, size: int, num_lanes: int) -> slice:
    """The lanes of a block, as a slice."""
    return slice(block * size, min((block + 1) * size, num_lanes))


def make_lanes(numeric: Mapping[str, Any], labels: Mapping[str, Any] | None = None, block: int | None = None) -> Lanes:
    """Check the lane coordinates and choose the block size if none is given.

    Raises:
        ValueError: unless every coordinate is one-dimensional, of one common length, and fits its dtype on the device.
    """
    check_that(bool(numeric), "lanes", "name at least one numeric coordinate", "it is empty")
    arrays = {name: _coordinate(name, values) for name, values in numeric.items()}
    texts = {name: _label(values) for name, values in (labels or {}).items()}
    shared = sorted(set(arrays) & set(texts))
    check_that(not shared, "coords", "not repeat a name of `lanes`", f"found {', '.join(shared)}")
    num_lanes = len(next(iter(arrays.values())))
    for name, array in {**arrays, **texts}.items():
        check_that(array.ndim == 1, f"lanes[{name!r}]", "be one-dimensional", found(array))
        check_that(
            len(array) == num_lanes, f"lanes[{name!r}]", f"have {num_lanes} entries like the first", found(array)
        )
    check_that(num_lanes > 0, "lanes", "hold at least one lane", "it is empty")
    block = default_block(num_lanes) if block is None else block
    check_that(isinstance(block, int) and block > 0, "block", "be a positive int", f"found {block!r}")
    return Lanes(arrays, texts, block)


def default_block(num_lanes: int) -> int:
    """Lanes in a block when nobody chose: 4 on a CPU, so that eight lanes occupy two cores, and 32 elsewhere."""
    return min(num_lanes, 4 if jax.default_backend() == "cpu" else 32)


def shard_blocks(num_blocks: int, shard: Sequence[int]) -> list[int]:
    """The blocks of shard (k, n): those with `block % n == k`.

    Raises:
        ValueError: unless 0 <= k < n.
    """
    k, n = shard
    check_that(0 <= k < n, "shard", "be (k, n) with 0 <= k < n", f"found {tuple(shard)}")
    return list(range(k, num_blocks, n))


def _coordinate(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    check_that(array.dtype.kind in "biuf", f"lanes[{name!r}]", "be numbers (text goes into `coords`)", found(array))
    if array.dtype.kind in "iu":
        dtype = jax.dtypes.canonicalize_dtype(array.dtype)
        limits = np.iinfo(dtype)
        fits = array.size == 0 or bool(array.min() >= limits.min and array.max() <= limits.max)
        check_that(fits, f"lanes[{name!r}]", f"fit into {np.dtype(dtype).name}", "a value is larger")
    return array


def _label(values: Any) -> np.ndarray:
    array = np.asarray(values)
    return array if array.dtype.kind in "biuf" else np.asarray([str(text) for text in array.ravel()], dtype=str)
