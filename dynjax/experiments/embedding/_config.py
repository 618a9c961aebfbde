"""The configuration of the embedding experiment, shared by the command line and by Python users."""

import dataclasses
import math
from typing import Any, Literal

from ..._core import check_that


@dataclasses.dataclass(frozen=True)
class Config:
    """Six maps, embedded exactly by a shear, an isotopy and a delay, and learnt by neural ODEs of the same widths.

    Every map with every construction that applies to it is a lane.
    """

    memory: float = 0.6
    """Memory capacity K tau of the delay equations; it has to be above the threshold of their horizon."""
    delay_horizon: float = 3.0
    """Their horizon T / tau, in delays."""
    num_steps: int = 1_000
    """Steps of Adam for the neural ODEs that are trained."""
    num_restarts: int = 3
    """Trained networks for each map and width, of which the best one counts."""
    width: int = 16
    """Width of the hidden layer of their fields, which depend on time."""
    ode_steps: int = 6
    """Runge-Kutta steps in training; errors are measured with four times as many."""
    learning_rate: float = 0.03
    """Learning rate of Adam at the start; it decays to zero on a cosine."""
    seed: int = 0
    """Seed of all initial weights."""
    precision: Literal["float32", "float64"] = "float64"
    """Floating-point precision of everything."""

    def __post_init__(self) -> None:
        """Say at once what cannot work."""
        for name in ("num_steps", "num_restarts", "width", "ode_steps"):
            _check_integer(name, getattr(self, name))
        for name in ("memory", "delay_horizon", "learning_rate"):
            value = getattr(self, name)
            check_that(0 < value < math.inf, name, "be positive and finite", f"found {value}")
        check_that(0 <= self.seed < 2**31, "seed", "lie in [0, 2^31)", f"found {self.seed}")
        known = ("float32", "float64")
        check_that(self.precision in known, "precision", "be float32 or float64", f"found {self.precision!r}")


def _check_integer(name: str, value: Any) -> None:
    good = isinstance(value, int) and not isinstance(value, bool) and value > 0
    check_that(good, name, "be a positive integer", f"found {value!r}")
