"""Ends a process that hangs, and says where: compiled code that never returns cannot be interrupted from within."""

import faulthandler
import os
import sys
import threading

from .._core import check_positive
from ._errors import STOPPED


class Watchdog:
    """Ends the process with exit code 75 if nobody called `alive` for some time.

    First it prints where every thread of Python stands. Finished segments are on disc, so the same command goes on from there;
    a lane that hangs for a reason will hang again.

    Args:
        timeout: seconds between two calls, or None to watch nothing. The first call may be preceded by a compilation.

    Raises:
        ValueError: if `timeout` is not positive.
    """

    def __init__(self, timeout: float | None):
        if timeout is not None:
            check_positive(timeout, "hang_timeout")
        self.timeout, self.what = timeout, "the first segment"
        self._event, self._over = threading.Event(), False

    def __enter__(self) -> "Watchdog":
        if self.timeout is not None:
            threading.Thread(target=self._watch, name="dynjax watchdog", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._event.set()

    def alive(self, what: str) -> None:
        """The process did something; `what` it does next is named if it hangs there."""
        self.what = what
        self._event.set()

    def _watch(self) -> None:
        while self._event.wait(self.timeout):
            self._event.clear()
            if self._over:
                return
        sys.stderr.write(
            f"dynjax: nothing was heard for {self.timeout:g} s from {self.what}; this process ends. Finished segments are "
            "intact: run the same command to go on.\n"
        )
        faulthandler.dump_traceback(sys.stderr, all_threads=True)
        sys.stderr.flush()
        os._exit(STOPPED)
