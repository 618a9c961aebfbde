"""Spreading a sweep over the cores of one machine: the same command in several processes, one core each."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from .._core import check_that
from ._errors import BAD_ARGUMENTS, BAD_STORE, DONE, LANE_FAILED, STOPPED, STORAGE_FAILED
from ._progress import Event, make_meter
from ._signals import WORKER_VARIABLE, StopRequest, stop_on_signals

_WORST_FIRST = (BAD_ARGUMENTS, BAD_STORE, STORAGE_FAILED, LANE_FAILED, STOPPED, DONE)
_POLL_SECONDS = 0.2
_SINGLE_THREAD = "--xla_cpu_multi_thread_eigen=false"
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def run_workers(
    command: Sequence[str],
    *,
    num_workers: int | None = None,
    progress: "bool | Callable[[Event], None] | None" = True,
) -> int:
    """Run `command` in several processes at once and wait for them.

    Every process sees `DYNJAX_WORKER=k/n`, is single-threaded and, where the system allows it, tied to one core: XLA
    splits work over threads in a way that depends on their number, and with it the last bits. The processes share the
    store and claim blocks by their locks; call `run(..., progress=True)` in them, inside `stop_on_signals()`.

    SIGINT or SIGTERM here is passed on once as a request to stop, a second SIGINT kills the workers. If this process
    dies, the workers see the end of their standard input, finish their segment and stop.

    Args:
        command: program and arguments.
        num_workers: how many; one per usable core by default.
        progress: None, True or a callable, as in `run`.

    Returns:
        The worst exit code. A worker killed by a signal or by an exception counts as 70, after a sentence on standard
        error; the others go on.

    Raises:
        ValueError: if `num_workers` is not positive.
    """
    cores = usable_cores()
    num_workers = len(cores) if num_workers is None else num_workers
    check_that(num_workers > 0, "num_workers", "be positive", f"found {num_workers}")
    meter = make_meter(progress)
    children: list[_Worker] = []
    try:
        with stop_on_signals(on_abort=lambda: _kill(children)) as stop:
            events: queue.Queue[Event] = queue.Queue()
            for k in range(num_workers):
                children.append(_Worker(command, k, num_workers, cores[k % len(cores)], events))
            _attend(children, stop, events, meter)
            return _worst([child.exit_code(stop.requested, meter) for child in children])
    finally:
        _kill(children)
        for child in children:
            child.close()
        meter.close()


def usable_cores() -> list[int]:
    """The cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def worker_environment(k: int, n: int) -> dict[str, str]:
    """The environment of worker k of n: this one, single-threaded."""
    environment = {**os.environ, WORKER_VARIABLE: f"{k}/{n}", **dict.fromkeys(_THREAD_VARIABLES, "1")}
    flags = [flag for flag in environment.get("XLA_FLAGS", "").split() if "xla_cpu_multi_thread_eigen" not in flag]
    environment["XLA_FLAGS"] = " ".join([*flags, _SINGLE_THREAD])
    return environment


class _Worker:
    """A child process and the thread that reads what it prints."""

    def __init__(self, command: Sequence[str], k: int, n: int, core: int, events: "queue.Queue[Event]"):
        self.k, self.events = k, events
        self.process = subprocess.Popen(
            list(command),
            env=worker_environment(k, n),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
            process_group=0,  # Ctrl-C in the terminal goes to the parent alone
        )
        if hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(OSError):  # it may have ended already
                os.sched_setaffinity(self.process.pid, {core})
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.put(_parse(line))

    def close(self) -> None:
        """Wait for the process and close its pipes."""
        self.process.wait()
        self.reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def exit_code(self, stopping: bool, meter: Any) -> int:
        """Its code in the terms of this package; says what a signal means."""
        code = self.process.wait()
        if code < 0 and stopping and -code == signal.SIGTERM:
            return STOPPED  # it had not begun yet
        if code in _WORST_FIRST:
            return code
        if code < 0:
            name = signal.Signals(-code).name
            hint = " (often for lack of memory: use smaller blocks or fewer workers)" if name == "SIGKILL" else ""
            cause = f"was killed by {name}{hint}"
        else:
            cause = f"failed with exit code {code}"
        meter({"event": "note", "text": f"Worker {self.k} {cause}; run the same command to finish its block."})
        return LANE_FAILED


def _parse(line: str) -> Event:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if isinstance(event, dict) and event.get("event") in ("plan", "segment", "note", "failed"):
        return event
    return {"event": "text", "text": line}


def _attend(children: list[_Worker], stop: StopRequest, events: "queue.Queue[Event]", meter: Any) -> None:
    """Show events until every worker has ended; pass a stop request on, once."""
    passed_on = False
    said: set[str] = set()
    while True:
        running = [child for child in children if child.process.poll() is None or child.reader.is_alive()]
        if stop.requested and not passed_on:
            passed_on = True
            text = f"{stop.reason}: finishing the current segments; Ctrl-C again ends at once."
            meter({"event": "note", "text": text})
            for child in running:
                child.process.send_signal(signal.SIGTERM)
        try:
            event = events.get(timeout=_POLL_SECONDS)
        except queue.Empty:
            if not running:
                return
            continue
        if event["event"] == "text":
            sys.stdout.write(event["text"])
        elif event.get("text") not in said:  # every worker notes the same about the store
            said |= {event["text"]} if "text" in event else set()
            meter(event)


def _kill(children: list[_Worker]) -> None:
    for child in children:
        if child.process.poll() is None:
            child.process.kill()


def _worst(codes: list[int]) -> int:
    return next(code for code in _WORST_FIRST if code in codes)
