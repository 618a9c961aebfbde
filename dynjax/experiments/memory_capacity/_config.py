"""The configuration of the memory experiment, shared by the command line and by Python users."""

import dataclasses
import math
from typing import Any, Literal

from ..._core import check_that
from .._plain_values import check_plain_integer
from ._targets import TARGETS, TargetName

_READINGS = 60  # readings that a run aims at
_SEGMENTS = 10
_CLOSE = 1e-9


@dataclasses.dataclass(frozen=True)
class Config:
    """Scalar neural delay equations y' = F(t, y, y(t - tau)) with a hard Lipschitz bound K, trained to a map of [-1, 1].

    Every pair of a horizon and a memory capacity, with every seed, is a lane. The input is the constant past, the output
    an affine readout of y(T), fitted by least squares at every step of training.
    """

    horizons: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0, 4.0)
    """Horizons T / tau, in delays."""
    memories: tuple[float, ...] = (0.36, 0.42, 0.46, 0.5, 0.56, 0.61, 0.68, 0.74, 0.9, 1.1)
    """Memory capacities K tau: the bound on the Lipschitz constant of the field, per delay."""
    num_seeds: int = 4
    """Networks at each horizon and memory, from different initial weights."""
    target: TargetName = "square"
    """The map to be learnt: square (x^2), cube (x^3, monotone: nothing forbids it) or sine (sin pi x)."""
    width: int = 8
    """Width of the hidden layer of the field."""
    time_pieces: int = 4
    """Sets of weights of the field, interpolated over [0, T]."""
    num_steps: int = 1_500
    """Steps of Adam."""
    learning_rate: float = 0.01
    """Learning rate of Adam."""
    num_nodes: int = 32
    """Gauss-Legendre nodes at which the network is trained; the error is measured at four times as many."""
    steps_per_delay: int = 8
    """Runge-Kutta steps for each delay in training; the error is measured with four times as many."""
    tolerance: float = 0.002
    """A network has learnt the map if its mean square error is at most this."""
    seed: int = 0
    """Seed of all initial weights."""
    precision: Literal["float32", "float64"] = "float64"
    """Floating-point precision of everything in the sweep."""

    def __post_init__(self) -> None:
        """Say at once what cannot work."""
        for name in ("horizons", "memories"):
            _check_axis(name, getattr(self, name))
        for name, least in (("num_seeds", 1), ("width", 1), ("time_pieces", 1), ("num_steps", 1)):
            check_plain_integer(name, getattr(self, name), least)
        check_plain_integer("num_nodes", self.num_nodes, 8)
        check_plain_integer("steps_per_delay", self.steps_per_delay, 2)
        for name in ("learning_rate", "tolerance"):
            value = getattr(self, name)
            check_that(0 < value < math.inf, name, "be positive and finite", f"found {value}")
        for horizon in self.horizons:
            steps = horizon * self.steps_per_delay
            whole = abs(steps - round(steps)) <= _CLOSE * steps and round(steps) > 0
            must = f"be multiples of 1 / steps_per_delay = {1 / self.steps_per_delay:g}"
            check_that(whole, "horizons", must, f"found {horizon:g}")
        check_that(0 <= self.seed < 2**31, "seed", "lie in [0, 2^31)", f"found {self.seed}")
        choices: tuple[tuple[str, tuple[str, ...]], ...] = (
            ("target", tuple(TARGETS)),
            ("precision", ("float32", "float64")),
        )
        for name, known in choices:
            value = getattr(self, name)
            check_that(value in known, name, f"be {', '.join(known[:-1])} or {known[-1]}", f"found {value!r}")

    @property
    def reading_interval(self) -> int:
        """Steps between two readings, a divisor of `num_steps`."""
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


def _check_axis(name: str, values: Any) -> None:
    check_that(len(values) > 0, name, "hold at least one number", "it is empty")
    good = all(math.isfinite(value) and value > 0 for value in values)
    check_that(good, name, "be positive and finite", f"found {values}")
    check_that(len(set(values)) == len(values), name, "hold no number twice", f"found {values}")
