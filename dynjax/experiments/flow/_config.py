"""The configuration of the flow experiment, shared by the command line and by Python users."""

import dataclasses
import math
from typing import Any, Literal

from ..._core import check_that
from .._plain_values import check_plain_integer

KINDS = ("flow-matching", "diffusion")
_LEAST_VARIANCE = 1e-3  # the path of a diffusion, and single precision, resolve no narrower modes


@dataclasses.dataclass(frozen=True)
class Config:
    """Generative flows trained to a Gaussian mixture of the plane, against the exact flow: how close, and by which dynamics.

    Every kind at every learning rate with every seed is a lane. Lanes of one seed share the parameters they begin with, the
    data, and the noise that they are tested with.
    """

    target: Literal["ring", "pair", "grid"] = "ring"
    """ring: eight modes on a circle of radius 2; pair: two modes at distance 4; grid: three by three modes, 2 apart."""
    variance: float = 0.04
    """Variance of each mode in each direction."""
    kinds: tuple[str, ...] = KINDS
    """flow-matching: a velocity along straight lines; diffusion: the score of a variance-preserving diffusion."""
    learning_rates: tuple[float, ...] = (1e-4, 5e-4, 2e-3, 8e-3, 3e-2)
    """Of Adam at the start; they fall to 0 along half a cosine."""
    num_seeds: int = 3
    """Runs of each kind at each learning rate."""
    width: int = 64
    """Units of each hidden layer."""
    num_layers: int = 3
    """Hidden layers."""
    num_steps: int = 4000
    """Steps of training, each with new data."""
    batch_size: int = 256
    """Points in each batch."""
    num_readings: int = 40
    """Readings of the loss; it must divide the steps."""
    num_tests: int = 8192
    """Points, times and noises with which the loss is tested against that of the exact field."""
    num_samples: int = 1000
    """Points sampled at the end."""
    sampling_steps: int = 128
    """Runge-Kutta steps of each sample; a multiple of 32."""
    seed: int = 0
    """Seed of everything."""
    precision: Literal["float32", "float64"] = "float32"
    """Floating-point precision of everything in the sweep."""

    def __post_init__(self) -> None:
        """Say at once what cannot work."""
        _check_axis("kinds", self.kinds)
        for kind in self.kinds:
            check_that(kind in KINDS, "kinds", f"be {' or '.join(KINDS)}", f"found {kind!r}")
        _check_axis("learning_rates", self.learning_rates)
        good = all(0 < rate < math.inf for rate in self.learning_rates)
        check_that(good, "learning_rates", "be positive and finite", f"found {self.learning_rates}")
        least = {"num_seeds": 1, "width": 1, "num_layers": 1, "num_steps": 1, "batch_size": 1, "num_readings": 1}
        for name, smallest in (least | {"num_tests": 2, "num_samples": 16}).items():
            check_plain_integer(name, getattr(self, name), smallest)
        check_plain_integer("sampling_steps", self.sampling_steps, NUM_INTERVALS)
        fits = self.num_steps % self.num_readings == 0
        check_that(fits, "num_readings", f"divide {self.num_steps}, the steps", f"found {self.num_readings}")
        fits = self.sampling_steps % NUM_INTERVALS == 0
        check_that(fits, "sampling_steps", f"be a multiple of {NUM_INTERVALS}", f"found {self.sampling_steps}")
        good = _LEAST_VARIANCE <= self.variance < math.inf
        check_that(good, "variance", f"be at least {_LEAST_VARIANCE:g}, and finite", f"found {self.variance}")
        check_that(0 <= self.seed < 2**31, "seed", "lie in [0, 2^31)", f"found {self.seed}")
        choices: tuple[tuple[str, tuple[str, ...]], ...] = (
            ("target", ("ring", "pair", "grid")),
            ("precision", ("float32", "float64")),
        )
        for name, known in choices:
            value = getattr(self, name)
            check_that(value in known, name, f"be one of {', '.join(known)}", f"found {value!r}")

    @property
    def reading_interval(self) -> int:
        """Steps between readings."""
        return self.num_steps // self.num_readings

    @property
    def num_segments(self) -> int:
        """Segments of a lane, a divisor of the readings."""
        return max(n for n in range(1, min(8, self.num_readings) + 1) if self.num_readings % n == 0)

    @property
    def num_paths(self) -> int:
        """Samples of which the whole path is looked at."""
        return min(self.num_samples, 256)


NUM_INTERVALS = 32  # between the times at which paths are looked at


def _check_axis(name: str, values: Any) -> None:
    check_that(len(values) > 0, name, "hold at least one entry", "it is empty")
    check_that(len(set(values)) == len(values), name, "hold nothing twice", f"found {values}")
