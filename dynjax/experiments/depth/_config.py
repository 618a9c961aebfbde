"""The configuration of the depth experiment, shared by the command line and by Python users."""

import dataclasses
import math
from typing import Any, Literal

from ..._core import check_that
from .._plain_values import check_plain_integer


@dataclasses.dataclass(frozen=True)
class Config:
    """Plain deep networks h -> phi(W h + b): exponents and gradients over depth, and which depths can be trained.

    Every weight variance at every depth with every seed is a lane. Weights have the variance weight_variance / width and
    biases bias_variance. Each lane is looked at, trained to tell two spirals apart, and looked at again.
    """

    weight_variances: tuple[float, ...] = (0.5, 0.9, 1.3, 1.6, 1.76, 1.9, 2.2, 2.6, 3.2, 4.0)
    """sigma_w^2; for tanh and the bias variance 0.05 the edge of chaos is at 1.761."""
    depths: tuple[int, ...] = (8, 16, 32, 64, 128)
    """Numbers of hidden layers."""
    num_seeds: int = 2
    """Networks at each weight variance and depth. Those of one seed share their directions of weights and their data."""
    activation: Literal["tanh", "relu", "identity"] = "tanh"
    """phi."""
    law: Literal["gaussian", "orthogonal"] = "gaussian"
    """Independent Gaussian weights, or sigma_w times orthogonal matrices."""
    bias_variance: float = 0.05
    """sigma_b^2."""
    width: int = 32
    """Units of each hidden layer."""
    num_exponents: int = 8
    """Lyapunov exponents, at most the width."""
    num_points: int = 64
    """Points on both spirals together."""
    num_probes: int = 8
    """Points at which exponents and gradients are taken."""
    num_steps: int = 300
    """Steps of training by Adam on all points; gradients are clipped to norm 1."""
    num_readings: int = 30
    """Readings of loss and accuracy; it must divide the steps."""
    learning_rate: float = 5e-4
    """Of Adam."""
    seed: int = 0
    """Seed of everything."""
    precision: Literal["float32", "float64"] = "float32"
    """Floating-point precision of everything in the sweep."""

    def __post_init__(self) -> None:
        """Say at once what cannot work."""
        _check_axis("weight_variances", self.weight_variances)
        _check_axis("depths", self.depths)
        for depth in self.depths:
            check_plain_integer("depths", depth, 2)
        least = {"num_seeds": 1, "width": 2, "num_exponents": 1, "num_points": 4, "num_probes": 1}
        for name, smallest in (least | {"num_steps": 1, "num_readings": 1}).items():
            check_plain_integer(name, getattr(self, name), smallest)
        most = {"num_exponents": ("width", self.width), "num_probes": ("num_points", self.num_points)}
        for name, (other, largest) in most.items():
            value = getattr(self, name)
            check_that(value <= largest, name, f"be at most {largest}, the {other}", f"found {value}")
        fits = self.num_steps % self.num_readings == 0
        check_that(fits, "num_readings", f"divide {self.num_steps}, the steps", f"found {self.num_readings}")
        check_that(0 < self.learning_rate < math.inf, "learning_rate", "be positive", f"found {self.learning_rate}")
        check_that(0 <= self.bias_variance < math.inf, "bias_variance", "be 0 or more", f"found {self.bias_variance}")
        check_that(0 <= self.seed < 2**31, "seed", "lie in [0, 2^31)", f"found {self.seed}")
        choices: tuple[tuple[str, tuple[str, ...]], ...] = (
            ("activation", ("tanh", "relu", "identity")),
            ("law", ("gaussian", "orthogonal")),
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
        return max(n for n in range(1, min(5, self.num_readings) + 1) if self.num_readings % n == 0)


def _check_axis(name: str, values: Any) -> None:
    check_that(len(values) > 0, name, "hold at least one number", "it is empty")
    check_that(all(0 < v < math.inf for v in values), name, "be positive and finite", f"found {values}")
    check_that(len(set(values)) == len(values), name, "hold no number twice", f"found {values}")
