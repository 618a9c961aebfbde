"""The configuration of the attention experiment, shared by the command line and by Python users."""

import dataclasses
import math
from typing import Any, Literal

import numpy as np

from ..._core import check_that
from .._plain_values import check_plain_integer
from ._scales import contraction_rate, scales

_SEGMENTS = 10
_EARLY = 20.0  # units of time up to which readings are evenly spread; then they are so in the logarithm
_STABLE, _STABLE_NOISY = 2.5, 1.8  # a little below where Runge-Kutta of order four, and Heun's method, stop contracting
_MOST_KEPT = 128
_LARGEST_BETA = 80.0  # e^beta must be a float32


@dataclasses.dataclass(frozen=True)
class Config:
    """Self-attention without matrices as tokens that attract each other on a sphere: clusters over inverse temperatures.

    Every inverse temperature with every seed is a lane. The unit of time of a lane is 1 over the rate of the mode that
    grows fastest from a uniform circle at its inverse temperature (e.g. 18.6 for beta = 5 and "usa").
    """

    betas: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 12.0, 16.0, 20.0, 25.0)
    """Inverse temperatures."""
    num_seeds: int = 3
    """Starts at each inverse temperature; the same ones at all of them."""
    kind: Literal["usa", "sa"] = "usa"
    """usa: unnormalised weights exp(beta <x, y>); sa: softmax."""
    dimension: int = 2
    """Dimension of the space of the sphere: 2 is the circle. Above it, clusters are counted but not predicted."""
    num_tokens: int = 128
    """Tokens."""
    start: Literal["equispaced", "uniform"] = "equispaced"
    """equispaced: a regular lattice and a perturbation (circle only); uniform: independent uniform tokens."""
    perturbation: float = 1e-6
    """Standard deviation of the angles about the lattice, in radians."""
    noise: float = 0.0
    """Noise D in units of the threshold above which the uniform circle is stable, I_1(beta) / beta for usa."""
    time: float = 2_000.0
    """Duration, in units of time of the lane."""
    dt: float = 0.1
    """Time step, in units of time of the lane: Runge-Kutta of order four, or with noise Heun's method of weak order two."""
    num_readings: int = 160
    """Readings: evenly spread over the first 20 units of time, evenly in the logarithm after them."""
    seed: int = 0
    """Seed of all starts and noises."""
    precision: Literal["float32", "float64"] = "float64"
    """Floating-point precision of everything in the sweep."""

    def __post_init__(self) -> None:
        """Say at once what cannot work."""
        _check_axis("betas", self.betas)
        for name, least in (("num_seeds", 1), ("dimension", 2), ("num_tokens", 8), ("num_readings", 10)):
            check_plain_integer(name, getattr(self, name), least)
        for name in ("time", "dt"):
            value = getattr(self, name)
            check_that(0 < value < math.inf, name, "be positive and finite", f"found {value}")
        check_that(0 <= self.noise < math.inf, "noise", "be 0 or more, and finite", f"found {self.noise}")
        check_that(0 <= self.seed < 2**31, "seed", "lie in [0, 2^31)", f"found {self.seed}")
        choices: tuple[tuple[str, tuple[str, ...]], ...] = (
            ("kind", ("usa", "sa")),
            ("start", ("equispaced", "uniform")),
            ("precision", ("float32", "float64")),
        )
        for name, known in choices:
            value = getattr(self, name)
            check_that(value in known, name, f"be {known[0]} or {known[1]}", f"found {value!r}")
        self._check_start()
        self._check_steps()

    def _check_start(self) -> None:
        lattice = self.start == "equispaced"
        must = "be uniform on spheres of dimension 3 or more"
        check_that(self.dimension == 2 or not lattice, "start", must, f"found {self.start!r}")
        least = 100 * float(np.finfo(self.precision).eps)
        value = self.perturbation
        must = f"lie in [{least:.1e}, 1): below it, rounding decides in {self.precision}"
        check_that(not lattice or least <= value < 1, "perturbation", must, f"found {value}")

    def _check_steps(self) -> None:
        stable = _STABLE_NOISY if self.noise else _STABLE
        for beta in self.betas:
            most = stable * scales(beta, self.kind).rate / contraction_rate(beta, self.kind)
            must = f"be at most {most:.3g} at beta = {beta:g}, where tokens fall into clusters"
            check_that(self.dt <= most, "dt", must, f"found {self.dt:g}")
        many = self.num_steps >= 2 * self.num_readings
        must = f"hold at least two steps for each of {self.num_readings} readings"
        check_that(many, "time", must, f"found {self.num_steps} steps")
        check_that(self.num_steps < 2**31, "time", "hold less than 2^31 steps", f"found {self.num_steps}")

    @property
    def num_steps(self) -> int:
        """Steps of a lane."""
        return round(self.time / self.dt)

    @property
    def reading_steps(self) -> np.ndarray:
        """The steps after which readings are taken, the first of them 0; strictly increasing, at most `num_readings`."""
        early = _EARLY / self.dt
        span = math.log1p(self.num_steps / early)
        steps = early * np.expm1(np.linspace(0, span, self.num_readings))
        return np.unique(np.round(steps).astype(np.int64))

    @property
    def num_segments(self) -> int:
        """Segments of a lane."""
        return min(_SEGMENTS, self.reading_steps.size)

    @property
    def stride(self) -> int:
        """Every so manieth token is stored over time, which keeps at most 128."""
        return -(-self.num_tokens // _MOST_KEPT)


def _check_axis(name: str, values: Any) -> None:
    check_that(len(values) > 0, name, "hold at least one number", "it is empty")
    good = all(0 < value <= _LARGEST_BETA for value in values)
    check_that(good, name, f"be positive and at most {_LARGEST_BETA:g}", f"found {values}")
    check_that(len(set(values)) == len(values), name, "hold no number twice", f"found {values}")
