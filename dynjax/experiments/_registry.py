"""The experiments that stores and the command line can name."""

import dataclasses
from collections.abc import Callable
from typing import Any

from ..sweep import StoreMismatch
from . import (
    attention,
    delay_fit,
    depth,
    edge_of_stability,
    embedding,
    flow,
    implicit_bias,
    meanfield,
    memory_capacity,
    morse,
    sgd_stability,
)


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
        workers: worker processes unless asked otherwise: None for one per core on a CPU, 0 where each of them would have
            to repeat what is computed before the first lane.
        block: lanes computed together unless asked otherwise; None for the default of a sweep.
        prepare: `prepare(config, say)`, what may be computed, and said, before the sweep begins; None for nothing.
    """

    name: str
    config: type
    program: Callable[[Any], Any]
    lanes: Callable[[Any], dict[str, Any]]
    labels: Callable[[Any], dict[str, Any]]
    fingerprint: Callable[[Any], str]
    table: Callable[[Any], str]
    write_report: Callable[[Any, Any], None]
    workers: int | None = None
    block: int | None = None
    prepare: Callable[[Any, Callable[[str], None]], Any] | None = None


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
    "sgd-stability": Experiment(
        name="sgd-stability",
        config=sgd_stability.Config,
        program=sgd_stability.program,
        lanes=sgd_stability.lanes,
        labels=sgd_stability.labels,
        fingerprint=sgd_stability.fingerprint,
        table=sgd_stability.table,
        write_report=sgd_stability.write_report,
        workers=0,
        block=1,
        prepare=sgd_stability.predictions,
    ),
    "implicit-bias": Experiment(
        name="implicit-bias",
        config=implicit_bias.Config,
        program=implicit_bias.program,
        lanes=implicit_bias.lanes,
        labels=implicit_bias.labels,
        fingerprint=implicit_bias.fingerprint,
        table=implicit_bias.table,
        write_report=implicit_bias.write_report,
        workers=0,
        block=5,
    ),
    "meanfield": Experiment(
        name="meanfield",
        config=meanfield.Config,
        program=meanfield.program,
        lanes=meanfield.lanes,
        labels=meanfield.labels,
        fingerprint=meanfield.fingerprint,
        table=meanfield.table,
        write_report=meanfield.write_report,
        block=12,
    ),
    "memory-capacity": Experiment(
        name="memory-capacity",
        config=memory_capacity.Config,
        program=memory_capacity.program,
        lanes=memory_capacity.lanes,
        labels=memory_capacity.labels,
        fingerprint=memory_capacity.fingerprint,
        table=memory_capacity.table,
        write_report=memory_capacity.write_report,
        block=10,
    ),
    "embedding": Experiment(
        name="embedding",
        config=embedding.Config,
        program=embedding.program,
        lanes=embedding.lanes,
        labels=embedding.labels,
        fingerprint=embedding.fingerprint,
        table=embedding.table,
        write_report=embedding.write_report,
        workers=0,
        block=32,
        prepare=embedding.measurements,
    ),
    "morse": Experiment(
        name="morse",
        config=morse.Config,
        program=morse.program,
        lanes=morse.lanes,
        labels=morse.labels,
        fingerprint=morse.fingerprint,
        table=morse.table,
        write_report=morse.write_report,
        workers=0,
        block=16,
        prepare=morse.classifications,
    ),
    "attention": Experiment(
        name="attention",
        config=attention.Config,
        program=attention.program,
        lanes=attention.lanes,
        labels=attention.labels,
        fingerprint=attention.fingerprint,
        table=attention.table,
        write_report=attention.write_report,
        block=5,
    ),
    "depth": Experiment(
        name="depth",
        config=depth.Config,
        program=depth.program,
        lanes=depth.lanes,
        labels=depth.labels,
        fingerprint=depth.fingerprint,
        table=depth.table,
        write_report=depth.write_report,
        block=10,
    ),
    "flow": Experiment(
        name="flow",
        config=flow.Config,
        program=flow.program,
        lanes=flow.lanes,
        labels=flow.labels,
        fingerprint=flow.fingerprint,
        table=flow.table,
        write_report=flow.write_report,
        block=5,
    ),
    "delay-fit": Experiment(
        name="delay-fit",
        config=delay_fit.Config,
        program=delay_fit.program,
        lanes=delay_fit.lanes,
        labels=delay_fit.labels,
        fingerprint=delay_fit.fingerprint,
        table=delay_fit.table,
        write_report=delay_fit.write_report,
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
