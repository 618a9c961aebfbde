"""Progress between segments, as events: a bar, log lines, JSON lines for a parent process, or any callable."""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, TextIO

import numpy as np

from ._signals import worker_identity

Event = dict[str, Any]


class Meter(Protocol):
    """Something that shows events; `close` is called once."""

    def __call__(self, event: Event) -> None:
        """Show an event."""

    def close(self) -> None:
        """Finish the display."""


def make_meter(progress: "bool | Callable[[Event], None] | None") -> Meter:
    """The meter for an argument `progress`: None or False is silent, True looks at the terminal, or a callable."""
    if callable(progress):
        return CallableMeter(progress)
    if not progress:
        return CallableMeter(lambda event: None)
    if worker_identity() is not None:
        return JsonMeter(sys.stdout)
    return BarMeter() if sys.stderr.isatty() else LineMeter(sys.stderr)


class CallableMeter:
    """Hands every event to a function."""

    def __init__(self, function: Callable[[Event], None]):
        self.function = function

    def __call__(self, event: Event) -> None:
        """Show an event."""
        self.function(event)

    def close(self) -> None:
        """Nothing to finish."""


class JsonMeter:
    """One JSON line per event: what a worker tells its parent."""

    def __init__(self, stream: TextIO):
        self.stream = stream

    def __call__(self, event: Event) -> None:
        """Write the line; a parent that is gone is noticed elsewhere."""
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(event), file=self.stream, flush=True)

    def close(self) -> None:
        """Nothing to finish."""


class Tally:
    """Finished segments and living lanes, from the events of one or of several processes."""

    def __init__(self) -> None:
        self.done: dict[int, int] = {}
        self.dead: dict[int, int] = {}
        self.num_blocks = self.num_segments = self.num_lanes = 0
        self.summary: dict[str, float] = {}

    def add(self, event: Event) -> None:
        """Take an event into account."""
        if event["event"] == "plan":
            self.num_blocks, self.num_segments = event["num_blocks"], event["num_segments"]
            self.num_lanes = event["num_lanes"]
            for block, steps in enumerate(event["done"]):
                self.done[block] = max(steps, self.done.get(block, 0))
        elif event["event"] == "segment":
            self.done[event["block"]] = event["segment"]
            self.dead[event["block"]] = event["dead"]
            self.summary = event["summary"]

    @property
    def finished(self) -> int:
        """Segments finished, over all blocks."""
        return sum(self.done.values())

    @property
    def total(self) -> int:
        """Segments of the whole sweep."""
        return self.num_blocks * self.num_segments

    @property
    def alive(self) -> int:
        """Lanes not known to have ended early."""
        return self.num_lanes - sum(self.dead.values())

    def text(self) -> str:
        """Lanes alive and the medians of the last records."""
        values = "".join(f", {name} {value:.4g}" for name, value in self.summary.items() if value is not None)
        return f"{self.alive}/{self.num_lanes} lanes alive{values}"


class BarMeter:
    """A tqdm bar over (block, segment), with lanes alive, medians and the time left."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.bar: Any = None

    def __call__(self, event: Event) -> None:
        """Show an event."""
        from tqdm import tqdm

        if event["event"] in ("note", "failed"):
            tqdm.write(event["text"], file=sys.stderr)
            return
        self.tally.add(event)
        if self.bar is None:
            self.bar = tqdm(total=self.tally.total, initial=self.tally.finished, unit="segment", dynamic_ncols=True)
        self.bar.set_postfix_str(self.tally.text(), refresh=False)
        self.bar.update(self.tally.finished - self.bar.n)

    def close(self) -> None:
        """Leave the bar as it is."""
        if self.bar is not None:
            self.bar.close()


class LineMeter:
    """Plain lines, at most one in `interval` seconds, and one at the end."""

    def __init__(self, stream: TextIO, interval: float = 5.0):
        self.stream, self.interval = stream, interval
        self.tally = Tally()
        self.start = self.last = time.monotonic()
        self.initial: int | None = None

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if event["event"] in ("note", "failed"):
            print(event["text"], file=self.stream, flush=True)
            return
        self.tally.add(event)
        if self.initial is None:
            self.initial, self.start = self.tally.finished, time.monotonic()
        now = time.monotonic()
        at_end = self.tally.finished == self.tally.total and event["event"] == "segment"
        if at_end or now - self.last >= self.interval:
            self.last = now
            print(self._line(now), file=self.stream, flush=True)

    def close(self) -> None:
        """Nothing to finish."""

    def _line(self, now: float) -> str:
        tally = self.tally
        gained = tally.finished - (self.initial or 0)
        left = (tally.total - tally.finished) * (now - self.start) / gained if gained else math.nan
        time_left = f", about {left:.0f} s left" if gained and left else ""
        return f"{tally.finished}/{tally.total} segments, {tally.text()}{time_left}"


def segment_event(
    block: int, segment: int, num_segments: int, alive: np.ndarray, records: dict[str, np.ndarray]
) -> Event:
    """What there is to say about a finished segment: lanes alive, and for each float record its median over them.

    Args:
        block: the block.
        segment: segments finished in it.
        num_segments: segments there are.
        alive: which lanes of the block live; padding left out, shape (lanes,).
        records: records of the segment, shape (lanes, ...); the last entry of each counts.
    """
    summary = {}
    for name, values in records.items():
        if values.dtype.kind == "f" and values.ndim <= 2 and alive.any():
            last = values.reshape(len(values), -1)[alive, -1]
            finite = last[np.isfinite(last)]
            summary[name] = float(np.median(finite)) if finite.size else None
    dead = int(np.count_nonzero(~alive))
    return {
        "event": "segment",
        "block": block,
        "segment": segment,
        "num_segments": num_segments,
        "alive": len(alive) - dead,
        "dead": dead,
        "summary": summary,
    }
