"""The store of a sweep: one Zarr format-3 group, written at whole-chunk borders."""

import contextlib
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from ._errors import StoreDamaged, storing
from ._lanes import block_members
from ._layout import COUNTER, STATUS, Variable, chunk_key
from ._metadata import check_arrays, layout_from, read_attributes
from ._state import previous


class Store:
    """An open store of a sweep. Several processes may hold one at once as long as each block has one writer.

    Args:
        path: where it lies.
        writable: whether records may be written.

    Raises:
        StoreError: if it is not a store of this schema or its metadata is damaged.
    """

    def __init__(self, path: "str | os.PathLike[str]", *, writable: bool = False):
        import zarr

        self.path = pathlib.Path(path)
        self.attributes = read_attributes(self.path)
        self.identity: dict[str, Any] = json.loads(self.attributes["identity"])
        self.layout = layout_from(self.attributes)
        check_arrays(self.path, self.identity, self.layout)
        names = [
            *(variable.name for variable in self.layout),
            COUNTER,
            *self.identity["lanes"],
            *self.identity["coords"],
        ]
        # An all-NaN chunk must exist like any other, or a lost file could not be told from a diverged block.
        with zarr.config.set({"array.write_empty_chunks": True}):
            group = zarr.open_group(self.path, mode="r+" if writable else "r", zarr_format=3, use_consolidated=False)
            self.arrays: dict[str, Any] = {name: group[name] for name in names}

    @property
    def block(self) -> int:
        """Lanes in a block."""
        return self.identity["block"]

    @property
    def num_lanes(self) -> int:
        """How many lanes there are."""
        return self.identity["num_lanes"]

    @property
    def num_blocks(self) -> int:
        """How many blocks there are."""
        return self.identity["num_blocks"]

    @property
    def num_segments(self) -> int:
        """Segments of a lane."""
        return self.identity["num_segments"]

    @property
    def state_directory(self) -> pathlib.Path:
        """Where states and locks lie, beside the store."""
        return self.path.with_name(f"{self.path.name}.state")

    def state_file(self, block: int) -> pathlib.Path:
        """The newest state of a block."""
        return self.state_directory / f"{block}.npz"

    def lock_file(self, block: int) -> pathlib.Path:
        """The lock of a block."""
        return self.state_directory / f"{block}.lock"

    def members(self, block: int) -> slice:
        """The lanes of a block."""
        return block_members(block, self.block, self.num_lanes)

    def chunk_file(self, name: str, chunk: tuple[int, ...]) -> pathlib.Path:
        """The file of a chunk."""
        return self.path / chunk_key(name, chunk)

    def steps_done(self, block: int) -> int:
        """Finished segments of a block, read afresh."""
        with self._reading(COUNTER, (block,)):
            return int(self.arrays[COUNTER][block : block + 1][0])

    def all_steps_done(self) -> np.ndarray:
        """Finished segments of every block."""
        try:
            return np.asarray(self.arrays[COUNTER][:])
        except Exception:  # find out which one
            return np.asarray([self.steps_done(block) for block in range(self.num_blocks)])

    def statuses(self, block: int) -> np.ndarray:
        """The stored status of the lanes of a block."""
        with self._reading(STATUS, (block,)):
            return np.asarray(self.arrays[STATUS][self.members(block)])

    def read_chunk(self, variable: Variable, chunk: tuple[int, ...]) -> np.ndarray:
        """The values of a chunk; damage names variable, lanes and file."""
        with self._reading(variable.name, chunk):
            if not self.chunk_file(variable.name, chunk).is_file():
                raise FileNotFoundError("the file is missing")
            return np.asarray(self.arrays[variable.name][variable.cells(chunk)])

    def read_coordinate(self, name: str) -> np.ndarray:
        """A coordinate array."""
        with self._reading(name, (0,)):
            if not self.chunk_file(name, (0,)).is_file():
                raise FileNotFoundError("the file is missing")
            values = np.asarray(self.arrays[name][:])
            return values if values.dtype.kind in "biufc" else np.asarray(values.tolist(), str)

    def write(self, variable: Variable, block: int, segment: int, values: np.ndarray) -> None:
        """Write the cells that a segment fills; `values` has the lanes of the padded block."""
        region = variable.region(self.members(block), segment)
        sizes = tuple(slice(0, cells.stop - cells.start) for cells in region)
        with storing(self.path / variable.name, values.nbytes):
            self.arrays[variable.name][region] = values[sizes]

    def set_steps_done(self, block: int, steps: int) -> None:
        """Promise that the chunks of `steps` segments and a state exist."""
        with storing(self.path / COUNTER, 4):
            self.arrays[COUNTER][block : block + 1] = np.asarray([steps], np.int32)

    def remaining_bytes(self, state_bytes: int) -> int:
        """Upper bound of what is still to be written: records and two states per unfinished block."""
        left = self.num_segments - self.all_steps_done().astype(np.int64)
        records = sum(variable.num_bytes for variable in self.layout)
        share = records * int(left.sum()) // (self.num_segments * self.num_blocks)
        return share + 2 * state_bytes * int(np.count_nonzero(left))

    def remove_state(self, block: int) -> None:
        """Forget the states of a block."""
        for file in (self.state_file(block), previous(self.state_file(block))):
            file.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _reading(self, name: str, chunk: tuple[int, ...]) -> Iterator[None]:
        """Codecs raise many kinds of errors, none of which names a file."""
        try:
            yield
        except StoreDamaged:
            raise
        except Exception as error:
            where = self._where(name, chunk)
            reason = " ".join(str(error).split()) or type(error).__name__
            raise StoreDamaged(
                f"Variable `{name}`, {where}: chunk {self.chunk_file(name, chunk)} is damaged ({reason})."
            ) from error

    def _where(self, name: str, chunk: tuple[int, ...]) -> str:
        if name == COUNTER:
            return f"block {chunk[0]}"
        if name in self.identity["lanes"] or name in self.identity["coords"]:
            return "coordinate"
        members = self.members(chunk[0])
        return f"lanes {members.start}-{members.stop - 1}"
