"""The lanes of the embedding experiment; what a lane holds is computed before the sweep, since the lanes share no program."""

import numpy as np

from ... import data
from .._tabulated import TabulatedProgram
from ._config import Config
from ._constructions import measurements, plan
from ._measures import MOST_OUTPUTS, MOST_STATES, PATHS, POINTS, TIMES
from ._targets import TARGETS

_DIMS: dict[str, tuple[str, ...]] = {
    "state_size": (),
    "sup_error": (),
    "mean_square": (),
    "lipschitz": (),
    "gain": (),
    "output": ("point", "component"),
    "path": ("time", "start", "state"),
    "time_of_path": ("time",),
    "sup_bound": (),
    "mean_square_bound": (),
    "representable": (),
}


def program(config: Config) -> TabulatedProgram:
    """The program of a configuration; it makes and measures all models, or takes what was made last.

    Args:
        config: the configuration.

    Returns:
        A `TabulatedProgram`; build it where the precision of the configuration is enabled.

    Raises:
        ValueError: if the memory is not above the threshold of the horizon.
    """
    axes = {
        "point": np.arange(POINTS),
        "component": np.arange(1, MOST_OUTPUTS + 1),
        "time": np.arange(TIMES),
        "start": np.arange(PATHS),
        "state": np.arange(1, MOST_STATES + 1),
    }
    return TabulatedProgram(measurements(config), _DIMS, axes)


def lanes(config: Config) -> dict[str, np.ndarray]:
    """The lanes of a configuration: every map with every construction."""
    return {"row": np.arange(len(plan()), dtype=np.int32)}


def labels(config: Config) -> dict[str, np.ndarray]:
    """Lane coordinates that are stored but not computed with: the names of map and construction."""
    return {
        "target": np.asarray([lane.target.name for lane in plan()]),
        "construction": np.asarray([lane.construction for lane in plan()]),
    }


def fingerprint(program: TabulatedProgram) -> str:
    """SHA-256 of what is to be represented: the formulas of the maps."""
    text = "\n".join(target.formula for target in TARGETS).encode()
    return data.sha256(np.frombuffer(text, np.uint8))
