"""Finding what is damaged in a store, and clearing those blocks so that the same run computes them again."""

import os
from collections.abc import Iterable

import equinox as eqx
import numpy as np

from .._core import Status, check_that
from ._errors import BAD_STORE, DONE, StoreDamaged, StoreError, StoreMismatch, storing
from ._layout import COUNTER, STATUS, promised_chunks
from ._lock import block_lock
from ._store import Store


class VerifyReport(eqx.Module):
    """What `verify` found.

    Args:
        path: the store.
        problems: one sentence each.
        blocks: the blocks that `reset_blocks` and the same run make good.
        num_blocks: blocks in the store.
        blocks_done: how many of them are finished.
    """

    path: str
    problems: tuple[str, ...]
    blocks: tuple[int, ...]
    num_blocks: int
    blocks_done: int

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged."""
        return not self.problems

    @property
    def exit_code(self) -> int:
        """0 or 65."""
        return DONE if self.ok else BAD_STORE

    def __str__(self) -> str:
        head = f"{self.path}: {self.blocks_done} of {self.num_blocks} blocks finished, "
        return "\n  ".join([head + (f"{len(self.problems)} problems" if self.problems else "intact"), *self.problems])


def verify(path: "str | os.PathLike[str]") -> VerifyReport:
    """Read every chunk that the counters promise, and all metadata.

    Args:
        path: the store.

    Returns:
        The problems and the damaged blocks. Damage to metadata or coordinates is a problem without a block: no
        recomputation of lanes repairs it.

    Raises:
        StoreMismatch: if there is no sweep store at `path`, or one of a newer schema.
    """
    try:
        store = Store(path)
    except StoreMismatch:
        raise
    except StoreError as error:
        return VerifyReport(str(path), (str(error),), (), 0, 0)
    problems, blocks, done = [], [], 0
    for name in (*store.identity["lanes"], *store.identity["coords"]):
        try:
            store.read_coordinate(name)
        except StoreDamaged as error:
            problems.append(str(error))
    for block in range(store.num_blocks):
        found = _verify_block(store, block)
        problems += found
        blocks += [block] if found else []
        done += not found and store.steps_done(block) == store.num_segments
    return VerifyReport(str(path), tuple(problems), tuple(blocks), store.num_blocks, done)


def _verify_block(store: Store, block: int) -> list[str]:
    """The problems of one block."""
    try:
        steps = store.steps_done(block)
    except StoreDamaged as error:
        return [str(error)]
    if not 0 <= steps <= store.num_segments:
        return [f"Block {block}: `{COUNTER}` is {steps}, of {store.num_segments} segments."]
    problems = []
    for variable, chunk in promised_chunks(store.layout, block, steps, store.num_segments):
        try:
            values = store.read_chunk(variable, chunk)
        except StoreDamaged as error:
            problems.append(str(error))
            continue
        if variable.name == STATUS and not np.isin(values, [int(status) for status in Status]).all():
            problems.append(f"Block {block}: `{STATUS}` holds an unknown code.")
        elif variable.name == STATUS and steps == store.num_segments and (values == Status.RUNNING).any():
            problems.append(f"Block {block}: finished, but a lane is still RUNNING.")
    return problems


def reset_blocks(path: "str | os.PathLike[str]", blocks: Iterable[int]) -> None:
    """Remove chunks, states and counter of some blocks; the run that made the store then computes them again.

    The states go first and the counter second, so that a kill in between leaves blocks that start again.

    Args:
        path: the store.
        blocks: numbers of blocks, such as `verify(path).blocks`.

    Raises:
        StoreError: if a block is being computed by a live process, or the metadata cannot be read.
        ValueError: for a block that does not exist.
        StorageFailed: if the file system refuses.
    """
    store = Store(path, writable=True)
    for block in blocks:
        check_that(0 <= block < store.num_blocks, "blocks", f"lie in 0..{store.num_blocks - 1}", f"found {block}")
        with storing(store.state_directory):
            store.state_directory.mkdir(exist_ok=True)
        with block_lock(store.lock_file(block)) as locked, storing(store.path):
            if not locked:
                raise StoreError(f"Block {block} of {path} is being computed by another process; stop it first.")
            store.remove_state(block)
            store.chunk_file(COUNTER, (block,)).unlink(missing_ok=True)
            everything = {*promised_chunks(store.layout, block, store.num_segments, store.num_segments)}
            for variable, chunk in everything:
                store.chunk_file(variable.name, chunk).unlink(missing_ok=True)
