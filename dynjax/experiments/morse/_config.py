"""The configuration of the Morse experiment, shared by the command line and by Python users."""

import dataclasses
import math
from typing import Literal

from ..._core import check_that
from .._plain_values import check_plain_integer


@dataclasses.dataclass(frozen=True)
class Config:
    """Networks R^2 -> R of six architectures: their critical points in a square, against what the theorems allow.

    Every architecture with every seed is a lane: perceptrons and neural ODEs, each non-augmented, augmented, and with a
    bottleneck or a degenerate lift.
    """

    num_seeds: int = 8
    """Networks of each architecture."""
    weights: Literal["random", "trained"] = "random"
    """Random networks, or networks that were first trained to the bowl |x|^2 / half_width^2."""
    gain: float = 2.5
    """Factor on the default weights: larger ones bend the level sets more."""
    half_width: float = 2.0
    """Critical points are looked for in the square [-half_width, half_width]^2."""
    horizon: float = 2.0
    """Time T of the flow of the neural ODEs."""
    ode_steps: int = 32
    """Runge-Kutta steps of the neural ODEs; the bound of their gradient needs small ones."""
    max_cells: int = 2_000
    """The most cells that the proof of completeness looks at, for each perceptron; 0 tries no proof."""
    ode_max_cells: int = 0
    """The same for neural ODEs, where a cell costs a hundred times as much and enclosures widen along the flow."""
    num_steps: int = 1_000
    """Steps of Adam, where networks are trained."""
    learning_rate: float = 0.02
    """Its learning rate at the start; it decays to zero on a cosine."""
    seed: int = 0
    """Seed of all initial weights."""
    precision: Literal["float32", "float64"] = "float64"
    """Floating-point precision of everything but the proofs, which are in double precision."""

    def __post_init__(self) -> None:
        """Say at once what cannot work."""
        for name, least in (
            ("num_seeds", 1),
            ("ode_steps", 1),
            ("max_cells", 0),
            ("ode_max_cells", 0),
            ("num_steps", 1),
        ):
            check_plain_integer(name, getattr(self, name), least)
        for name in ("gain", "half_width", "horizon", "learning_rate"):
            value = getattr(self, name)
            check_that(0 < value < math.inf, name, "be positive and finite", f"found {value}")
        check_that(0 <= self.seed < 2**31, "seed", "lie in [0, 2^31)", f"found {self.seed}")
        for name, known in (("weights", ("random", "trained")), ("precision", ("float32", "float64"))):
            value = getattr(self, name)
            check_that(value in known, name, f"be {known[0]} or {known[1]}", f"found {value!r}")
