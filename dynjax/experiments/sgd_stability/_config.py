"""The configuration of a test of SGD stability, shared by the command line and by Python users."""

import dataclasses
import math
from typing import Any, Literal

import numpy as np

from ..._core import check_that
from .._tasks import ActivationName

_READINGS = 200  # residual readings that a run aims at
_SEGMENTS = 10


@dataclasses.dataclass(frozen=True)
class Config:
    """A network that fits its data, the learning rates at which SGD is predicted to stay there, and real runs of SGD."""

    task: str = "digits-parity"
    """digits-parity, digits, chebyshev, deep-linear, or the path of a data file (npz, IDX, CIFAR)."""
    num_samples: int | None = None
    """Samples to use; by default 100 of digits-parity, 500 of digits, all of a file."""
    widths: tuple[int, ...] | None = None
    """Widths of the hidden layers; the task's own by default (digits-parity 64 64)."""
    activation: ActivationName = "tanh"
    """Activation function."""
    batch_size: int = 1
    """Samples in a batch."""
    seed: int = 0
    """Seed of the initial weights and of all batches."""
    learning_rates: tuple[float, ...] | None = None
    """Learning rates of the curve of the exponent; by default around all thresholds, closer near the almost sure one."""
    exponent_steps: int = 100_000
    """Steps behind every exponent."""
    threshold_steps: int = 100_000
    """Steps of each run of the search for the almost sure threshold."""
    check_rates: tuple[float, ...] = (0.8, 0.9, 0.97, 1.03, 1.1, 1.2)
    """Learning rates of the real runs, in units of the almost sure threshold; one lane each."""
    num_seeds: int = 32
    """Real runs at each rate."""
    num_steps: int = 10_000
    """Steps of each real run."""
    distance: float = 1e-6
    """Distance from the solution at which the real runs start."""
    start: Literal["aligned", "random"] = "aligned"
    """Direction of the start: that of the linearised dynamics after a long time, or isotropic in the normal space."""
    alignment_steps: int = 100_000
    """Linearised steps before the start that find the direction, in hundreds (aligned starts only)."""
    escape: float = 1e3
    """A run has escaped when its residual has grown by this factor; it is not followed further."""
    stay: float = 10.0
    """A run has stayed when its residual never grew by more than this factor."""
    window: tuple[float, ...] = (1e-10, 1e-4)
    """The residual norms between which the growth rate of the real runs is measured."""
    precision: Literal["float32", "float64"] = "float64"
    """Floating-point precision of everything in the sweep."""

    def __post_init__(self) -> None:
        """Say at once what cannot work."""
        for name, least in (("num_seeds", 2), ("num_steps", 1), ("exponent_steps", 100), ("threshold_steps", 100)):
            check_that(getattr(self, name) >= least, name, f"be at least {least}", f"found {getattr(self, name)}")
        for name in ("batch_size", "num_samples"):
            value = getattr(self, name)
            check_that(value is None or value > 0, name, "be positive", f"found {value}")
        check_that(self.alignment_steps >= 0, "alignment_steps", "be 0 or more", f"found {self.alignment_steps}")
        check_that(0 <= self.seed < 2**31, "seed", "lie in [0, 2^31)", f"found {self.seed}")
        check_rates("check_rates", self.check_rates)
        if self.learning_rates is not None:
            check_rates("learning_rates", self.learning_rates)
        choices = (("precision", ("float32", "float64")), ("start", ("aligned", "random")))
        for name, known in choices:
            check_that(getattr(self, name) in known, name, f"be {' or '.join(known)}", f"found {getattr(self, name)!r}")
        self._check_scales()

    def _check_scales(self) -> None:
        check_that(self.stay > 1, "stay", "exceed 1", f"found {self.stay}")
        check_that(self.escape >= self.stay, "escape", "be at least `stay`", f"found {self.escape} < {self.stay}")
        good = len(self.window) == 2 and 0 < self.window[0] < self.window[1] < math.inf
        check_that(good, "window", "hold two positive numbers in ascending order", f"found {self.window}")
        least = 1e3 * float(np.finfo(self.precision).eps)
        check_that(
            least <= self.distance < math.inf,
            "distance",
            f"be at least {least:.1e}, a thousand times the rounding of {self.precision}",
            f"found {self.distance}",
        )

    @property
    def reading_interval(self) -> int:
        """Steps between two readings of the residual."""
        wanted = max(1.0, self.num_steps / _READINGS)
        divisors = [d for d in range(1, self.num_steps + 1) if self.num_steps % d == 0]
        return min(divisors, key=lambda d: abs(math.log(d / wanted)))

    @property
    def num_readings(self) -> int:
        """Residual readings in all; reading r is taken after (r + 1) * reading_interval steps."""
        return self.num_steps // self.reading_interval

    @property
    def num_segments(self) -> int:
        """Segments of a lane, a divisor of `num_readings`."""
        return max(d for d in range(1, _SEGMENTS + 1) if self.num_readings % d == 0)


def check_rates(name: str, rates: Any) -> None:
    """Raise unless there are rates, all different, positive and finite."""
    check_that(len(rates) > 0, name, "hold at least one rate", "it is empty")
    good = all(math.isfinite(rate) and rate > 0 for rate in rates)
    check_that(good, name, "be positive and finite", f"found {rates}")
    check_that(len(set(rates)) == len(rates), name, "hold no rate twice", f"found {rates}")
