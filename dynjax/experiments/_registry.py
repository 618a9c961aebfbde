"""The experiments that stores and the command line can name."""

import dataclasses
from collections.abc import Callable
from typing import Any

from ..sweep import StoreMismatch
from . import edge_of_stability


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What the command line needs to know of an experiment.

    Attributes:
        name: as stored in `attrs["experiment"]`.
        config: its frozen configuration dataclass, with a field `precision`.
        program: `program(config)`, an `AbstractProgram`.
        lanes: `lanes(config)`, numeric lane coordinates.
        labels: `labels(config)`, lane coordinates that are only stored, such as the optimiser's name.
        fingerprint: `fingerprint(program)`, a digest of the data.
        table: `table(dataset)`, the summary as text.
        write_report: `write_report(dataset, path)`.
    """

    name: str
    config: type
    program: Callable[[Any], Any]
    lanes: Callable[[Any], dict[str, Any]]
    labels: Callable[[Any], dict[str, Any]]
    fingerprint: Callable[[Any], str]
    table: Callable[[Any], str]
    write_report: Callable[[Any, Any], None]


EXPERIMENTS = {
    "edge-of-stability": Experiment(
        name="edge-of-stability",
        config=edge_of_stability.Config,
        program=edge_of_stability.program,
        lanes=edge_of_stability.lanes,
        labels=edge_of_stability.labels,
        fingerprint=edge_of_stability.fingerprint,
        table=edge_of_stability.table,
        write_report=edge_of_stability.write_report,
    ),
}


def find_experiment(name: str) -> Experiment:
    """The experiment of a name.

    Args:
        name: as a store's `attrs["experiment"]` gives it.

    Returns:
        An `Experiment`.

    Raises:
        StoreMismatch: if this version of dynjax has no such experiment.
    """
    if name not in EXPERIMENTS:
        raise StoreMismatch(f"This store was made by the experiment {name!r}; known are {', '.join(EXPERIMENTS)}.")
    return EXPERIMENTS[name]
