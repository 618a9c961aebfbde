"""The configuration of a fit of a delay equation, shared by the command line and by Python users."""

import dataclasses
import math
from typing import Literal

from ..._core import check_that
from ._series import KNOWN

_SEGMENTS = 10
_READINGS = 100  # readings of error and delay that a fit aims at


@dataclasses.dataclass(frozen=True)
class Config:
    """Learn a delay equation with an unknown delay from a series, and compare exponents with those of the truth.

    Every initial delay, horizon of the loss and seed is a lane.
    """

    series: str = "mackey-glass"
    """mackey-glass, hutchinson (a cycle, which fits many delays), or an npz file with times `x` and values `y`."""
    num_samples: int = 6_000
    """Samples to make, or to use of a file; the last fifth is for testing."""
    noise: float = 0.03
    """Standard deviation of Gaussian noise on the samples, in units of that of the series."""
    initial_delays: tuple[float, ...] | None = None
    """Delays to start from, in units of time; needed for a file."""
    delay_bounds: tuple[float, ...] | None = None
    """Smallest and largest delay allowed; half the smallest and one and a half times the largest start by default."""
    horizons: tuple[int, ...] = (1, 60)
    """Samples that a forecast in the loss goes ahead."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of the initial weights and of the batches."""
    hidden: tuple[int, ...] = (32,)
    """Widths of the hidden layers of the vector field."""
    decay: float | None = None
    """Known rate of linear decay, taken out of what the network has to learn; unknown by default."""
    num_steps: int = 3_000
    """Steps of Adam."""
    batch_size: int = 32
    """Windows in a batch."""
    learning_rate: float = 0.01
    """Learning rate of the weights at the start; it falls along a cosine."""
    delay_learning_rate: float = 0.05
    """Learning rate of the delay at the start, in samples; it falls along a cosine too."""
    growth: float = 0.5
    """Part of the steps over which forecasts grow from one sample to the horizon of the lane."""
    num_exponents: int = 3
    """Lyapunov exponents of the learnt equations, and of the truth."""
    exponent_steps: int = 100_000
    """Steps, of one sample each, behind the exponents."""
    exponent_margin: float = 1e-3
    """What the first exponent may be off by, beyond three standard errors: with Mackey-Glass, what 1 % in a rate makes."""
    error_margin: float = 0.03
    """Test errors up to the horizon of the loss count as low up to this above the noise, in deviations of the series."""
    precision: Literal["float32", "float64"] = "float64"
    """Floating-point precision of everything in the sweep."""

    def __post_init__(self) -> None:
        """Say at once what cannot work."""
        self._check_lanes()
        positive = ("learning_rate", "delay_learning_rate", "error_margin")
        for name in positive:
            value = getattr(self, name)
            check_that(0 < value < math.inf, name, "be positive and finite", f"found {value}")
        for name in ("noise", "exponent_margin"):
            value = getattr(self, name)
            check_that(0 <= value < math.inf, name, "be 0 or more, and finite", f"found {value}")
        for name, least in (("num_samples", 100), ("num_steps", 1), ("batch_size", 1), ("exponent_steps", 100)):
            check_that(getattr(self, name) >= least, name, f"be at least {least}", f"found {getattr(self, name)}")
        check_that(0 <= self.growth <= 1, "growth", "lie in [0, 1]", f"found {self.growth}")
        check_that(1 <= self.num_exponents <= 20, "num_exponents", "lie in 1 to 20", f"found {self.num_exponents}")
        widths = self.hidden
        check_that(len(widths) > 0 and min(widths) > 0, "hidden", "hold positive widths", f"found {widths}")
        known = self.decay is None or 0 <= self.decay < math.inf
        check_that(known, "decay", "be 0 or more, and finite", f"found {self.decay}")
        precisions = ("float32", "float64")
        check_that(self.precision in precisions, "precision", "be float32 or float64", f"found {self.precision!r}")

    def _check_lanes(self) -> None:
        for name in ("initial_delays", "horizons", "seeds"):
            values = getattr(self, name)
            if values is None:
                continue
            check_that(len(values) > 0, name, "hold at least one entry", "it is empty")
            check_that(len(set(values)) == len(values), name, "hold no entry twice", f"found {values}")
        check_that(min(self.horizons) >= 1, "horizons", "be 1 or more", f"found {self.horizons}")
        seeds = all(0 <= seed < 2**31 for seed in self.seeds)
        check_that(seeds, "seeds", "lie in [0, 2^31)", f"found {self.seeds}")
        given = self.initial_delays is not None or self.series in KNOWN
        check_that(given, "initial_delays", "be given for a series from a file", "it is not")
        good = all(0 < delay < math.inf for delay in self.delays)
        check_that(good, "initial_delays", "be positive and finite", f"found {self.delays}")
        low, high = self.bounds if len(self.delay_bounds or (0, 0)) == 2 else (0.0, 0.0)
        check_that(
            0 < low <= min(self.delays) and max(self.delays) <= high < math.inf,
            "delay_bounds",
            f"hold two positive numbers around the initial delays, {min(self.delays):g} to {max(self.delays):g}",
            f"found {self.delay_bounds}",
        )

    @property
    def delays(self) -> tuple[float, ...]:
        """The delays to start from."""
        return self.initial_delays or KNOWN[self.series].initial_delays

    @property
    def bounds(self) -> tuple[float, float]:
        """Smallest and largest delay allowed."""
        if self.delay_bounds is None:
            return 0.5 * min(self.delays), 1.5 * max(self.delays)
        return self.delay_bounds[0], self.delay_bounds[1]

    @property
    def max_horizon(self) -> int:
        """The longest forecast of a loss."""
        return max(self.horizons)

    @property
    def reading_interval(self) -> int:
        """Steps between two readings of error and delay: a divisor of `num_steps`."""
        wanted = max(1.0, self.num_steps / _READINGS)
        divisors = [d for d in range(1, self.num_steps + 1) if self.num_steps % d == 0]
        return min(divisors, key=lambda d: abs(math.log(d / wanted)))

    @property
    def num_readings(self) -> int:
        """Readings in all; reading r is taken after (r + 1) * reading_interval steps."""
        return self.num_steps // self.reading_interval

    @property
    def num_segments(self) -> int:
        """Segments of a lane, a divisor of `num_readings`."""
        return max(d for d in range(1, _SEGMENTS + 1) if self.num_readings % d == 0)
