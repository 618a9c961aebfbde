"""The lanes of the Morse experiment; what a lane holds is computed before the sweep, since proofs cannot be traced."""

import numpy as np

from ... import data
from .._tabulated import TabulatedProgram
from ._architectures import ARCHITECTURES
from ._classification import CLASSES, GRID, KINDS, MOST_POINTS, classifications, grid
from ._config import Config

_DIMS: dict[str, tuple[str, ...]] = {
    "found": (),
    "allowed": ("morse_class",),
    "as_listed": (),
    "consistent": (),
    "count": ("kind_of_point",),
    "point": ("critical_point", "coordinate"),
    "kind": ("critical_point",),
    "degree": (),
    "boundary_degree": (),
    "proof": (),
    "reason": (),
    "num_cells": (),
    "num_restarts": (),
    "certificate": (),
    "value": ("y", "x"),
    "least_gradient": (),
    "mean_gradient": (),
    "sup_error": (),
}


def program(config: Config) -> TabulatedProgram:
    """The program of a configuration; it classifies all networks, or takes what was found last.

    Args:
        config: the configuration.

    Returns:
        A `TabulatedProgram`; build it where the precision of the configuration is enabled.
    """
    axes = {
        "morse_class": np.arange(1, len(CLASSES) + 1),
        "kind_of_point": np.arange(len(KINDS)),
        "critical_point": np.arange(MOST_POINTS),
        "coordinate": np.arange(1, 3),
        "y": grid(config),
        "x": grid(config),
    }
    return TabulatedProgram(classifications(config), _DIMS, axes)


def lanes(config: Config) -> dict[str, np.ndarray]:
    """The lanes of a configuration: every architecture with every seed."""
    number = len(ARCHITECTURES) * config.num_seeds
    return {
        "row": np.arange(number, dtype=np.int32),
        "seed": np.tile(np.arange(config.num_seeds, dtype=np.int32), len(ARCHITECTURES)),
    }


def labels(config: Config) -> dict[str, np.ndarray]:
    """Lane coordinates that are stored but not computed with: the name of the architecture."""
    return {"architecture": np.repeat(np.asarray([kind.name for kind in ARCHITECTURES]), config.num_seeds)}


def fingerprint(program: TabulatedProgram) -> str:
    """SHA-256 of the grid; the networks follow from the configuration."""
    return data.sha256(np.asarray(program.axes["x"]), np.asarray([GRID, MOST_POINTS]))
