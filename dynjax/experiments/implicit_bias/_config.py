"""The configuration of the worked example f(x) = a b x, shared by the command line and by Python users."""

import dataclasses
import math
from typing import Literal

from ..._core import check_that

_SEGMENTS = 10


@dataclasses.dataclass(frozen=True)
class Config:
    """Gradient descent and SGD on f(x) = a b x with targets y = x: which of the minima a b = 1 are found.

    Every learning rate is a lane for gradient descent and one for SGD with batch size 1.
    """

    learning_rates: tuple[float, ...] = (0.35, 0.45, 0.55, 0.65, 0.7)
    """Learning rates; two lanes each."""
    input_squares: tuple[float, ...] = (1.0, 3.0)
    """The squares x^2 of the samples, all equally likely."""
    num_runs: int = 40_000
    """Runs of each lane, each from its own start."""
    num_steps: int = 2_000
    """Steps of each run."""
    start_high: float = 2.2
    """Starts (a, b) are uniform on [0, start_high]^2."""
    tolerance: float = 1e-6
    """A run has converged if abs(a b - 1) is at most this after the last step."""
    bound: float = 1e3
    """A run has diverged, and stops, when abs(a) or abs(b) exceeds this."""
    seed: int = 0
    """Seed of starts and samples."""
    precision: Literal["float32", "float64"] = "float64"
    """Floating-point precision of everything in the sweep."""

    def __post_init__(self) -> None:
        """Say at once what cannot work."""
        rates, squares = self.learning_rates, self.input_squares
        check_that(len(rates) > 0, "learning_rates", "hold at least one rate", "it is empty")
        positive = all(math.isfinite(rate) and rate > 0 for rate in rates)
        check_that(positive, "learning_rates", "be positive and finite", f"found {rates}")
        check_that(len(set(rates)) == len(rates), "learning_rates", "hold no rate twice", f"found {rates}")
        check_that(len(squares) > 0, "input_squares", "hold at least one sample", "it is empty")
        good = all(math.isfinite(square) and square >= 0 for square in squares) and any(s > 0 for s in squares)
        check_that(good, "input_squares", "be finite, not negative, and not all zero", f"found {squares}")
        for name in ("num_runs", "num_steps", "start_high", "tolerance", "bound"):
            value = getattr(self, name)
            check_that(0 < value < math.inf, name, "be positive and finite", f"found {value}")
        check_that(0 <= self.seed < 2**31, "seed", "lie in [0, 2^31)", f"found {self.seed}")
        check_that(
            self.precision in ("float32", "float64"),
            "precision",
            "be float32 or float64",
            f"found {self.precision!r}",
        )

    @property
    def num_segments(self) -> int:
        """Segments of a lane, a divisor of `num_steps`."""
        return max(d for d in range(1, _SEGMENTS + 1) if self.num_steps % d == 0)
