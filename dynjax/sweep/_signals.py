"""Asking a sweep to stop: a flag that signals, a time budget or a vanished parent set, looked at between segments."""

import contextlib
import os
import select
import signal
import threading
import types
from collections.abc import Callable, Iterator

from .._core import check_that

WORKER_VARIABLE = "DYNJAX_WORKER"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """A flag: once requested, the sweep ends its segment, saves and returns."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.reason = ""

    @property
    def requested(self) -> bool:
        """Whether somebody asked to stop."""
        return self._event.is_set()

    def request(self, reason: str) -> None:
        """Ask to stop; the first reason is kept."""
        if not self.requested:
            self.reason = reason
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Sleep, but wake up when asked to stop; whether that is so."""
        return self._event.wait(seconds)


def worker_identity() -> tuple[int, int] | None:
    """(k, n) in a process that `run_workers` started, otherwise None."""
    text = os.environ.get(WORKER_VARIABLE, "")
    k, slash, n = text.partition("/")
    return (int(k), int(n)) if slash and k.isdigit() and n.isdigit() else None


@contextlib.contextmanager
def stop_on_signals(on_abort: Callable[[], None] | None = None) -> Iterator[StopRequest]:
    """Inside the block, SIGINT and SIGTERM set the flag of the yielded `StopRequest`; a second SIGINT ends the process.

    Python runs signal handlers only when the main thread returns from compiled code, which may take a whole segment.
    Therefore a thread watches the signals as they arrive. In a worker process it also watches standard input, whose end
    means that the parent is gone. The old handlers are put back at the end.

    Args:
        on_abort: called before a second SIGINT ends the process.

    Raises:
        ValueError: outside the main thread.
    """
    is_main = threading.current_thread() is threading.main_thread()
    check_that(is_main, "stop_on_signals()", "be used in the main thread", "this is another")
    stop = StopRequest()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def handler(number: int, frame: types.FrameType | None) -> None:
        stop.request(signal.Signals(number).name)

    old_wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    old_handlers = {number: signal.signal(number, handler) for number in _SIGNALS}
    watcher = threading.Thread(target=_watch, args=(reader, stop, on_abort), name="dynjax-signals", daemon=True)
    watcher.start()
    try:
        yield stop
    finally:
        for number, old in old_handlers.items():
            signal.signal(number, old)
        signal.set_wakeup_fd(old_wakeup)
        os.close(writer)
        watcher.join()
        os.close(reader)


def _watch(reader: int, stop: StopRequest, on_abort: Callable[[], None] | None) -> None:
    """Read signal numbers until the other end closes; also standard input, in a worker."""
    watched = [reader] if worker_identity() is None else [reader, 0]
    interrupts = 0
    while True:
        ready = select.select(watched, [], [])[0]
        if 0 in ready and not os.read(0, 4096):
            stop.request("the parent process ended")
            watched = [reader]
        if reader in ready:
            numbers = os.read(reader, 4096)
            if not numbers:
                return
            for number in numbers:
                if number in _SIGNALS:
                    stop.request(signal.Signals(number).name)
            interrupts += numbers.count(signal.SIGINT)
            if interrupts > 1:
                if on_abort is not None:
                    on_abort()
                os._exit(128 + signal.SIGINT)
