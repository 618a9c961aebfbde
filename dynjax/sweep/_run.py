"""Running a sweep: block by block, segment by segment, so that any kill is harmless and any shard gives the same."""

import itertools
import os
import pathlib
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from .._core import Status
from ._create import check_free_space, create_or_open, identity_of
from ._errors import DONE, LANE_FAILED, STOPPED, LaneError, Stopped, StoreDamaged
from ._lanes import Lanes, make_lanes, shard_blocks
from ._layout import FINAL, Variable
from ._lock import block_lock
from ._memory import shortage
from ._metadata import read_attributes
from ._program import AbstractProgram, Shapes, alive, final_block, init_block, segment_block, shapes_of
from ._progress import Event, make_meter, segment_event
from ._provenance import changed
from ._signals import StopRequest, worker_identity
from ._state import load_newest, save_state
from ._store import Store
from ._watchdog import Watchdog

_LOCK_POLL_SECONDS = 0.2


class RunResult(eqx.Module):
    """How a run ended.

    Args:
        status: "done"; "stopped" (asked to, or out of time); "busy" (other processes hold what is left); "failed".
        path: the store.
        num_blocks: blocks of the shard.
        blocks_done: how many of them are finished.
        lane_status: how many lanes of the shard have which stored status, by name.
        failed: for each block that could not be computed, why.
        notes: one line for everything out of the ordinary, such as a damaged state.
        reason: why and where it stopped.
    """

    status: str
    path: pathlib.Path
    num_blocks: int
    blocks_done: int
    lane_status: dict[str, int]
    failed: dict[int, str]
    notes: tuple[str, ...]
    reason: str

    @property
    def exit_code(self) -> int:
        """0 done (or left to other processes), 70 a lane could not be computed, 75 stopped."""
        return {"done": DONE, "busy": DONE, "failed": LANE_FAILED, "stopped": STOPPED}[self.status]

    def check(self) -> "RunResult":
        """This result, or an exception if the run failed or stopped.

        Raises:
            LaneError: if a block could not be computed.
            Stopped: if the run was stopped.
        """
        if self.status in ("failed", "stopped"):
            raise (LaneError if self.status == "failed" else Stopped)(str(self))
        return self

    def __str__(self) -> str:
        counts = ", ".join(f"{number} {name}" for name, number in self.lane_status.items())
        text = f"{self.path}: {self.status}, {self.blocks_done} of {self.num_blocks} blocks, lanes: {counts}"
        if self.reason:
            text += f"; {self.reason}"
        return text + "".join(f"\n  block {block}: {why}" for block, why in self.failed.items())


class Sweep(eqx.Module):
    """A store made ready for a program: what `prepare` returns and `run` works through."""

    program: AbstractProgram
    lanes: Lanes
    shapes: Shapes
    store: Store
    notes: tuple[str, ...]
    probed: bool


def prepare(
    program: AbstractProgram,
    lanes: Mapping[str, Any],
    config: Any,
    store: "str | os.PathLike[str]",
    *,
    experiment: str = "name",
    block: int | None = None,
    coords: Mapping[str, Any] | None = None,
    data_hash: str = "",
    argv: Sequence[str] | None = None,
) -> Sweep:
    """Check everything that can be checked without computing, and create the store at its full size.

    A process that starts workers calls it first, so that a bad argument, another configuration or a full disc is met
    once and early. The arguments are those of `run`.

    Returns:
        The sweep, whose `.store` knows what is finished.

    Raises:
        ValueError: for lanes or records that do not fit together.
        StoreMismatch: if the path holds another configuration (differences listed) or something else.
        StoreDamaged: if the store that is there cannot be read.
        StorageFailed: if the file system refuses or has too little space.
    """
    return _prepared(
        program, lanes, config, store,
        experiment=experiment, block=block, coords=coords, data_hash=data_hash, argv=argv, probe=False,
    )  # fmt: skip


def _prepared(
    program: AbstractProgram,
    lanes: Mapping[str, Any],
    config: Any,
    store: "str | os.PathLike[str]",
    *,
    experiment: str,
    block: int | None,
    coords: Mapping[str, Any] | None,
    data_hash: str,
    argv: Sequence[str] | None,
    probe: bool,
) -> Sweep:
    """`prepare`; with `probe` a new store is made only if its blocks fit into memory, of a size that fits if nobody chose."""
    path = pathlib.Path(store)
    fresh, made_smaller = not path.exists(), ""
    if block is None and not fresh:
        block = read_attributes(path)["block"]
    cut = make_lanes(lanes, coords, block)
    shapes = shapes_of(program, cut.padded(0))
    missing = shortage(program, cut) if probe and fresh else None
    if missing is not None:
        if block is not None or not missing.fitting:
            raise missing.error()
        made_smaller = str(missing)
        cut = make_lanes(lanes, coords, missing.fitting)
        shapes = shapes_of(program, cut.padded(0))
    identity = identity_of(program, shapes, cut, config, experiment, data_hash)
    arrays = {**cut.numeric, **cut.labels, **program.coords()}
    if fresh:
        records = sum(Variable(**row).num_bytes for row in identity["layout"])
        check_free_space(path, records + 2 * shapes.state_bytes * cut.num_blocks)
    opened = create_or_open(path, identity, arrays, argv)
    check_free_space(path, opened.remaining_bytes(shapes.state_bytes))
    notes = (*([made_smaller] if made_smaller else []), *changed(opened.attributes))
    return Sweep(program, cut, shapes, opened, notes, probed=probe and fresh)


def run(
    program: AbstractProgram,
    lanes: Mapping[str, Any],
    config: Any,
    store: "str | os.PathLike[str]",
    *,
    experiment: str = "name",
    block: int | None = None,
    coords: Mapping[str, Any] | None = None,
    data_hash: str = "",
    shard: Sequence[int] = (0, 1),
    progress: "bool | Callable[[Event], None] | None" = None,
    stop: StopRequest | None = None,
    time_budget: float | None = None,
    wait_for_locks: bool = False,
    hang_timeout: float | None = None,
    argv: Sequence[str] | None = None,
) -> RunResult:
    """Compute every unfinished lane of a shard into a store, resuming whatever is there.

    Lanes are cut into equal blocks. A block is what is compiled, stored, locked, resumed and handed to shards. After
    each segment of a block its records are written, then its state, then its counter, so that repeating a segment after
    a kill writes the same bytes. A block computed alone, in any shard, after any number of kills is bit-equal, for
    equal block size, device kind, versions and number of threads of the process; otherwise only statistics agree.

    Args:
        program: the computation of one lane.
        lanes: numeric coordinates of the lanes, handed to `program.init`; each of shape (num_lanes,).
        config: the configuration, stored as JSON; dataclasses, mappings, lists, numbers and text.
        store: path of the store. An existing one must have the same configuration, lanes and block.
        experiment: name stored with the results.
        block: lanes in a block; by default that of the store, or 4 on a CPU and 32 elsewhere.
        coords: further coordinates of the lanes, stored only; may be text.
        data_hash: hash of the data, part of what must agree.
        shard: (k, n): do the blocks with `block % n == k`.
        progress: None, True, or a callable that takes the events.
        stop: an object with a flag `.requested`, looked at between segments.
        time_budget: seconds after which to stop between segments (monotonic clock).
        wait_for_locks: whether to wait for blocks that other processes hold, and take over those they leave.
        hang_timeout: seconds for one segment, compilation included, after which the process prints where it stands and ends
            with exit code 75; never by default.
        argv: command line to be stored; `sys.argv` by default.

    Returns:
        The result. A block that cannot be computed is marked `OOM` or `ERROR`, the others go on, and the result is
        "failed"; the next run tries it again.

    Raises:
        ValueError: see `prepare`.
        StoreError: see `prepare`.
        BlockTooLarge: if the compiler says that a block needs more than 70 % of the memory of the device. Without `block`, a
            new store gets blocks that fit.
        StorageFailed: if a write fails; finished segments are intact.
    """
    started = time.monotonic()
    sweep = _prepared(
        program, lanes, config, store,
        experiment=experiment, block=block, coords=coords, data_hash=data_hash, argv=argv, probe=True,
    )  # fmt: skip
    watchdog = Watchdog(hang_timeout)
    runner = _Runner(sweep, progress, stop, None if time_budget is None else started + time_budget, watchdog)
    try:
        with watchdog:
            return runner.run(shard_blocks(sweep.lanes.num_blocks, shard), wait_for_locks)
    finally:
        runner.meter.close()


class _Runner:
    """One pass of a process over the blocks of its shard."""

    def __init__(
        self, sweep: Sweep, progress: Any, stop: StopRequest | None, deadline: float | None, watchdog: Watchdog
    ):
        self.sweep, self.store, self.program = sweep, sweep.store, sweep.program
        self.stop, self.deadline, self.watchdog = stop, deadline, watchdog
        self.meter = make_meter(progress)
        self.probed = sweep.probed
        self.failed: dict[int, str] = {}
        self.notes: list[str] = []
        self.at = ""
        self.expected = {name: self.store.attributes[name] for name in ("config_hash", "store_id")}
        self.final_names = {variable.name for variable in self.store.layout if variable.kind == FINAL}
        self.variables = {variable.name: variable for variable in self.store.layout}

    def run(self, blocks: list[int], wait: bool) -> RunResult:
        """Pass over the blocks until none is left that this process may do."""
        store = self.store
        done = store.all_steps_done()
        sizes = {"num_blocks": store.num_blocks, "num_segments": store.num_segments, "num_lanes": store.num_lanes}
        self.meter({"event": "plan", **sizes, "done": done.tolist()})
        for text in self.sweep.notes:
            self.note(text)
        left = [block for block in blocks if done[block] < store.num_segments]
        for attempt in itertools.count():
            left = self.one_pass(left)
            if not left or self.reason() or (attempt and not wait):
                break
            if attempt:
                self.watchdog.alive("a block that another process holds")
                (self.stop or StopRequest()).wait(_LOCK_POLL_SECONDS)
        return self.result(blocks, left)

    def one_pass(self, blocks: list[int]) -> list[int]:
        """Do what can be locked; return the blocks that others hold, or all that is left when stopped."""
        held: list[int] = []
        for i, block in enumerate(_own_first(blocks)):
            if self.reason():
                return held + _own_first(blocks)[i:]
            with block_lock(self.store.lock_file(block)) as locked:
                if not (locked and self.do_block(block)):
                    held.append(block)
        return held

    def do_block(self, block: int) -> bool:
        """Bring a locked block to its end; False if stopped on the way. Failure of the computation ends it too."""
        if self.store.steps_done(block) == self.store.num_segments:  # another process was here since
            return True
        self.probe()
        start, state = self.restore(block)
        try:
            state = init_block(self.program, self.sweep.lanes.padded(block)) if state is None else state
        except Exception as error:
            self.fail(block, error)
            return True
        for segment in range(start, self.store.num_segments):
            if self.reason():
                self.at = f"block {block}, segment {segment} of {self.store.num_segments}"
                return False
            self.watchdog.alive(f"segment {segment} of block {block}")
            last = segment + 1 == self.store.num_segments
            try:
                state, records, status = self.compute(state, last)
            except Exception as error:
                self.fail(block, error)
                return True
            self.keep(block, segment, state, records, status)
        return True

    def probe(self) -> None:
        """Ask once whether the blocks of a store that was there fit here, before a state takes part of the memory."""
        missing = None if self.probed else shortage(self.program, self.sweep.lanes)
        self.probed = True
        if missing is not None:
            raise missing.error()

    def compute(self, state: PyTree, last: bool) -> tuple[PyTree, dict[str, np.ndarray], np.ndarray]:
        """One segment of a block, on the host when it returns."""
        state, records, status = segment_block(self.program, state)
        if last and self.final_names:
            records = {**records, **final_block(self.program, state)}
        state, records, status = jax.block_until_ready((state, records, status))
        codes = np.array(status)
        if last:
            codes[codes == Status.RUNNING] = Status.OK
        return state, {name: np.asarray(values) for name, values in records.items()}, codes

    def keep(self, block: int, segment: int, state: PyTree, records: dict[str, np.ndarray], status: np.ndarray) -> None:
        """Results, then state, then the counter: the order that makes a kill harmless."""
        for name, values in {**records, "status": status}.items():
            self.store.write(self.variables[name], block, segment, values)
        save_state(self.store.state_file(block), state, {**self.expected, "block": block, "segments_done": segment + 1})
        self.store.set_steps_done(block, segment + 1)
        members = self.store.members(block)
        size = members.stop - members.start
        watched = self.program.watched()
        names = set(records) - self.final_names if watched is None else watched
        shown = {name: records[name][:size] for name in records if name in names}
        self.meter(segment_event(block, segment + 1, self.store.num_segments, alive(status[:size]), shown))

    def restore(self, block: int) -> tuple[int, PyTree | None]:
        """(segments done, state) of the newest state that can be trusted, or (0, None)."""
        steps = self.store.steps_done(block)

        def check(file: pathlib.Path, meta: dict[str, Any]) -> None:
            if not 0 < meta["segments_done"] <= min(steps + 1, self.store.num_segments):
                raise StoreDamaged(f"State {file} is ahead of the records.")

        state, meta, complaints = load_newest(
            self.store.state_file(block),
            self.sweep.shapes.state,
            {**self.expected, "block": block},
            required=steps > 0,
            check=check,
        )
        if complaints:
            then = "The block starts again." if meta is None else "Going on from the state before it."
            self.note(f"Block {block}: {' '.join(complaints)} {then}")
        return (0, None) if meta is None else (self.settle(block, meta["segments_done"], steps), state)

    def settle(self, block: int, segments: int, steps: int) -> int:
        """Raise the counter if the process died between state and counter: the records are older than the state."""
        if segments > steps:
            self.store.set_steps_done(block, segments)
        return segments

    def fail(self, block: int, error: Exception) -> None:
        """Mark the lanes of a block that still ran, and go on with the others."""
        reason = " ".join(str(error).split()) or type(error).__name__
        memory = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in reason
        advice = f" Use a smaller block than {self.store.block}." if memory else ""
        self.failed[block] = f"{'out of memory' if memory else type(error).__name__}: {reason[:300]}{advice}"
        members = self.store.members(block)
        status = np.full(self.store.block, Status.OOM if memory else Status.ERROR, np.int8)
        old = self.store.statuses(block)
        size = members.stop - members.start
        status[:size] = np.where(old == Status.RUNNING, status[:size], old)
        self.store.write(self.variables["status"], block, 0, status)
        self.meter({"event": "failed", "block": block, "text": f"Block {block} failed: {self.failed[block]}"})

    def note(self, text: str) -> None:
        """Say something out of the ordinary, once."""
        self.notes.append(text)
        self.meter({"event": "note", "text": text})

    def reason(self) -> str:
        """Why to stop now, or an empty text."""
        if self.stop is not None and self.stop.requested:
            return getattr(self.stop, "reason", "") or "stop requested"
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return "time budget used up"
        return ""

    def result(self, blocks: list[int], left: list[int]) -> RunResult:
        """Sum up."""
        steps = self.store.all_steps_done()
        done = sum(int(steps[block]) == self.store.num_segments for block in blocks)
        names = [Status(int(code)).name for block in blocks for code in self.store.statuses(block)]
        status, reason = "done", ""
        if left and self.reason():
            where = f"stopped at {self.at} ({self.reason()})" if self.at else f"stopped ({self.reason()})"
            status, reason = "stopped", f"{where}; run the same command to resume"
        elif self.failed:
            status = "failed"
        elif left:
            status, reason = "busy", f"{len(left)} blocks are being computed by other processes"
        counts = dict(sorted(Counter(names).items()))
        return RunResult(status, self.store.path, len(blocks), done, counts, self.failed, tuple(self.notes), reason)


def _own_first(blocks: list[int]) -> list[int]:
    """Worker k of n begins with blocks k, k + n, ...: fewer meet at one lock."""
    k, n = worker_identity() or (0, 1)
    return sorted(blocks, key=lambda block: (block % n != k, block))
