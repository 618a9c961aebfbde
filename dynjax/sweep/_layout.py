"""Which arrays a store holds, how they are cut into chunks, and which chunk files a finished segment promises."""

import dataclasses
import itertools
from typing import Any

import numpy as np

from .._core import Status, check_that
from ._lanes import Lanes
from ._program import AbstractProgram, Shapes

LANE, BLOCK = "lane", "block"
STATUS, COUNTER = "status", "steps_done"
SEGMENT, LATEST, FINAL = "segment", "latest", "final"


@dataclasses.dataclass(frozen=True)
class Variable:
    """One stored record.

    Args:
        name: its name.
        dims: its dimensions, "lane" first.
        shape: its shape over all lanes.
        chunks: the shape of a chunk; the first entry is the block.
        dtype: its NumPy dtype by name.
        kind: "segment" (one slice per segment), "latest" (overwritten at each segment) or "final" (written once).
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: str
    kind: str

    @property
    def fill(self) -> Any:
        """What an unfinished cell holds: NaN, or -1 for signed integers; a status is `RUNNING`."""
        if self.name == STATUS:
            return int(Status.RUNNING)
        return {"f": np.nan, "c": np.nan, "i": -1, "u": 0, "b": False}[np.dtype(self.dtype).kind]

    @property
    def num_bytes(self) -> int:
        """Uncompressed size."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def region(self, lanes: slice, segment: int) -> tuple[slice, ...]:
        """The cells that `segment` fills for the given lanes."""
        rest = tuple(slice(0, size) for size in self.shape[1:])
        if self.kind == SEGMENT:
            start = segment * self.chunks[1]
            rest = (slice(start, min(start + self.chunks[1], self.shape[1])), *rest[1:])
        return (lanes, *rest)

    def promised(self, block: int, steps_done: int, num_segments: int) -> list[tuple[int, ...]]:
        """Chunk indices that exist once `steps_done` segments of a block are finished."""
        zeros = (0,) * (len(self.shape) - 1)
        if self.kind == SEGMENT:
            return [(block, segment, *zeros[1:]) for segment in range(steps_done)]
        written = steps_done > 0 if self.kind == LATEST else steps_done == num_segments
        return [(block, *zeros)] if written else []

    def cells(self, chunk: tuple[int, ...]) -> tuple[slice, ...]:
        """The cells of a chunk."""
        sizes = zip(chunk, self.chunks, self.shape, strict=True)
        return tuple(slice(i * size, min((i + 1) * size, end)) for i, size, end in sizes)


def chunk_key(variable: str, chunk: tuple[int, ...]) -> str:
    """The file of a chunk, relative to the store."""
    return "/".join([variable, "c", *map(str, chunk)])


def layout_of(program: AbstractProgram, shapes: Shapes, lanes: Lanes) -> tuple[Variable, ...]:
    """The variables of a store, from the shapes of a block.

    Raises:
        ValueError: if records, dimensions and coordinates do not fit together.
    """
    dims, sizes = program.dims(), {name: len(values) for name, values in program.coords().items()}
    named, returned = set(dims), {*shapes.records, *shapes.final}
    check_that(named == returned, "program.dims()", "name every record", f"{sorted(named ^ returned)} do not match")
    twice = sorted(set(shapes.records) & set(shapes.final))
    check_that(not twice, "program", "return a record from `segment` or from `final`", f"both return {twice}")
    taken = {LANE, BLOCK, STATUS, COUNTER, *lanes.numeric, *lanes.labels, *sizes}
    clash = sorted(named & taken)
    check_that(not clash, "program.dims()", "leave the names of coordinates and counters alone", f"it uses {clash}")
    status = Variable(STATUS, (LANE,), (lanes.num_lanes,), (lanes.block,), "int8", LATEST)
    records = [
        _variable(program, lanes, sizes, name, struct, SEGMENT) for name, struct in sorted(shapes.records.items())
    ]
    final = [_variable(program, lanes, sizes, name, struct, FINAL) for name, struct in sorted(shapes.final.items())]
    return (status, *records, *final)


def _variable(
    program: AbstractProgram, lanes: Lanes, sizes: dict[str, int], name: str, struct: Any, kind: str
) -> Variable:
    dims = tuple(program.dims()[name])
    missing = [dim for dim in dims if dim not in sizes]
    check_that(not missing, "program.coords()", f"hold every dimension of `{name}`", f"{missing} is missing")
    full, shape = tuple(sizes[dim] for dim in dims), tuple(struct.shape[1:])
    check_that(
        len(full) == len(shape), f"program.dims()[{name!r}]", f"match the shape {shape} of the record", f"found {dims}"
    )
    dtype = np.dtype(struct.dtype)
    check_that(dtype.kind in "fiubc", f"records[{name!r}]", "have a NumPy dtype", f"found {struct.dtype}; convert it")
    check_that(all(shape), f"records[{name!r}]", "not be empty", f"found shape {shape}")
    if shape != full:
        covers = bool(shape) and shape[1:] == full[1:] and -(-full[0] // shape[0]) == program.num_segments
        wanted = f"be {program.num_segments} slices or the whole of {dims} with sizes {full}"
        check_that(kind == SEGMENT and covers, f"records[{name!r}]", wanted, f"the program returned shape {shape}")
    elif kind == SEGMENT and (program.num_segments > 1 or not shape):
        kind = LATEST
    return Variable(name, (LANE, *dims), (lanes.num_lanes, *full), (lanes.block, *shape), dtype.name, kind)


def promised_chunks(
    layout: tuple[Variable, ...], block: int, steps_done: int, num_segments: int
) -> list[tuple[Variable, tuple[int, ...]]]:
    """Every (variable, chunk) that must exist for a block."""
    return list(
        itertools.chain.from_iterable(
            ((variable, chunk) for chunk in variable.promised(block, steps_done, num_segments)) for variable in layout
        )
    )
