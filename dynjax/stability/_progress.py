"""A line on stderr while a long computation runs from the host."""

import sys
import time


class Progress:
    """Shows how far a run is, once it has taken longer than `patience` seconds; silent before.

    On a terminal the line is rewritten; elsewhere a new one appears every ten seconds.

    Args:
        label: what runs.
        total: number of steps in all.
        show: False for no output at all.
        patience: seconds before the first line.
    """

    def __init__(self, label: str, total: int, *, show: bool = True, patience: float = 3.0):
        self.label, self.total, self.show = label, total, show
        self.start = time.monotonic()
        self.next = self.start + patience
        self.first = 0
        self.shown = False

    def begin(self, done: int) -> None:
        """Reckon the speed from here, with `done` steps finished: what came before was compilation."""
        self.first, self.start = done, time.monotonic()

    def update(self, done: int) -> None:
        """Tell that `done` steps are finished."""
        now = time.monotonic()
        if not self.show or now < self.next or done >= self.total:
            return
        terminal = sys.stderr.isatty()
        left = (now - self.start) * (self.total - done) / max(done - self.first, 1)
        text = f"{self.label}: {100 * done / self.total:.0f} % of {self.total:,} steps, about {left:.0f} s left"
        print(f"\r{text}\033[K" if terminal else text, end="" if terminal else "\n", file=sys.stderr, flush=True)
        self.shown = self.shown or terminal
        self.next = now + (0.5 if terminal else 10.0)

    def close(self) -> None:
        """Clear the line of a terminal."""
        if self.shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
