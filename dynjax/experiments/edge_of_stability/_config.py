"""The configuration of an edge-of-stability sweep, shared by the command line and by Python users."""

import dataclasses
import math
from typing import Literal

from ..._core import check_that
from .._optimizers import OPTIMIZERS, OptimizerName
from .._tasks import ActivationName, LossName

_READINGS = 100  # sharpness readings that a run aims at when `sharpness_every` is left open
_SEGMENT = 10  # readings in a segment at the most: a second or so of work between two saved states


@dataclasses.dataclass(frozen=True)
class Config:
    """What to train, at which learning rates, and what to measure.

    Every combination of a learning rate and a seed is a lane.
    """

    task: str = "digits"
    """digits, chebyshev, deep-linear, or the path of a data file (npz, IDX, CIFAR)."""
    optimizer: OptimizerName = "gd"
    """Which optimiser."""
    learning_rates: tuple[float, ...] = (0.1, 0.2, 0.24, 0.26, 0.28, 0.3, 0.32, 0.34)
    """Learning rates; one lane each and seed."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of the initial weights (and of the batches)."""
    num_steps: int = 2000
    """Optimiser steps of each lane."""
    widths: tuple[int, ...] | None = None
    """Widths of the hidden layers; the task's own by default (digits 64 64, chebyshev 100, deep-linear 19 of 50)."""
    activation: ActivationName = "tanh"
    """Activation function."""
    loss: LossName = "mse"
    """Loss: mse is (1/N) sum |f - y|^2 / 2."""
    batch_size: int | None = None
    """Samples in a batch; the full data by default. Smaller ones record the batch sharpness too."""
    num_samples: int | None = None
    """Samples to use; by default 500 of the digits, all of a file."""
    degree: int = 4
    """Degree of the Chebyshev polynomial (chebyshev only)."""
    momentum: float = 0.9
    """Momentum of heavy-ball and nesterov, first decay rate of adam."""
    beta2: float = 0.999
    """Decay rate of the second moment of adam and rmsprop."""
    sharpness_every: int | None = None
    """Steps between sharpness readings; by default about a hundred readings in all."""
    sharpness_tolerance: float = 1e-2
    """Relative residual that a sharpness reading must reach; its error is about the square of that over the relative gap."""
    density_probes: int = 4
    """Probe vectors of the final spectral density; 0 for none."""
    density_order: int = 50
    """Lanczos steps for each probe of the spectral density."""
    batch_sharpness_batches: int = 16
    """Batches for each reading of the batch sharpness (batch_size below the number of samples only)."""
    divergence: float = 1e4
    """A lane has diverged when its loss exceeds this many times its first loss."""
    precision: Literal["float32", "float64"] = "float32"
    """Floating-point precision of everything in the sweep."""

    def __post_init__(self) -> None:
        """Say at once what cannot work."""
        self._check_numbers()
        self._check_choices()
        check_that(
            len(set(self.learning_rates)) == len(self.learning_rates),
            "learning_rates",
            "hold no rate twice",
            f"found {self.learning_rates}",
        )
        check_that(len(set(self.seeds)) == len(self.seeds), "seeds", "hold no seed twice", f"found {self.seeds}")
        if self.sharpness_every is not None:
            check_that(
                self.num_steps % self.sharpness_every == 0,
                "sharpness_every",
                "divide `num_steps`",
                f"{self.sharpness_every} does not divide {self.num_steps}",
            )

    def _check_choices(self) -> None:
        check_that(
            self.optimizer in OPTIMIZERS, "optimizer", f"be one of {', '.join(OPTIMIZERS)}", f"found {self.optimizer!r}"
        )
        check_that(
            self.precision in ("float32", "float64"),
            "precision",
            "be float32 or float64",
            f"found {self.precision!r}",
        )
        check_that(0 <= self.momentum < 1, "momentum", "lie in [0, 1)", f"found {self.momentum}")
        check_that(0 <= self.beta2 < 1, "beta2", "lie in [0, 1)", f"found {self.beta2}")
        check_that(
            0 < self.sharpness_tolerance < 1,
            "sharpness_tolerance",
            "lie in (0, 1)",
            f"found {self.sharpness_tolerance}",
        )
        check_that(self.divergence > 1, "divergence", "exceed 1", f"found {self.divergence}")

    def _check_numbers(self) -> None:
        check_that(len(self.learning_rates) > 0, "learning_rates", "hold at least one rate", "it is empty")
        check_that(
            all(math.isfinite(rate) and rate > 0 for rate in self.learning_rates),
            "learning_rates",
            "be positive and finite",
            f"found {self.learning_rates}",
        )
        check_that(len(self.seeds) > 0, "seeds", "hold at least one seed", "it is empty")
        check_that(all(0 <= seed < 2**31 for seed in self.seeds), "seeds", "lie in [0, 2^31)", f"found {self.seeds}")
        for name in ("num_steps", "num_samples", "batch_size", "sharpness_every", "degree", "batch_sharpness_batches"):
            value = getattr(self, name)
            check_that(value is None or value > 0, name, "be positive", f"found {value}")
        check_that(self.batch_sharpness_batches > 1, "batch_sharpness_batches", "be at least 2", "found 1")
        check_that(self.density_probes >= 0, "density_probes", "be 0 or more", f"found {self.density_probes}")
        check_that(self.density_order > 1, "density_order", "be at least 2", f"found {self.density_order}")

    @property
    def reading_interval(self) -> int:
        """Steps between two sharpness readings."""
        if self.sharpness_every is not None:
            return self.sharpness_every
        wanted = self.num_steps / _READINGS
        divisors = [d for d in range(1, self.num_steps + 1) if self.num_steps % d == 0]
        return min(divisors, key=lambda d: abs(math.log(d / wanted)))

    @property
    def num_readings(self) -> int:
        """Sharpness readings in all; reading r is taken before step r * reading_interval."""
        return self.num_steps // self.reading_interval

    @property
    def segment_readings(self) -> int:
        """Readings in one segment, a divisor of `num_readings`."""
        return max(d for d in range(1, _SEGMENT + 1) if self.num_readings % d == 0)
