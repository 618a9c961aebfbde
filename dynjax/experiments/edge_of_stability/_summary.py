"""What a sweep says about each lane, from the stored arrays alone."""

import dataclasses
from typing import Any

import numpy as np

from ..._core import Status
from .._text_table import text_table

CROSSING = 0.95  # a lane has reached the edge when its edge ratio passes this
BAND = (0.95, 1.05)  # where the median of the edge ratio lies for a lane at the edge
RISES = 0.02  # least fraction of steps after the crossing on which the loss of a lane at the edge rises


@dataclasses.dataclass(frozen=True)
class LaneSummary:
    """One lane in numbers.

    Attributes:
        learning_rate: learning rate.
        seed: seed.
        threshold: critical (preconditioned) sharpness of the optimiser.
        first_loss: loss before the first step.
        last_loss: mean loss over the last 2 % of the steps; NaN where the lane has stopped.
        first_sharpness: sharpness at the start.
        last_sharpness: median sharpness over the last half of the readings.
        edge_ratio: median edge ratio over the last half of the readings.
        edge_ratio_range: its 5th and 95th percentiles.
        crossing: step of the first reading with an edge ratio above 0.95; -1 if there is none.
        rises: fraction of the steps after the crossing on which the loss rises; NaN without a crossing.
        verdict: "at the edge", "below the edge", "crossed, no oscillation", "diverged" or "unfinished".
        status: how the lane ended.
        stop_step: step at which it stopped early; -1 if it did not.
        worst_residual: largest relative residual of its sharpness readings.
    """

    learning_rate: float
    seed: int
    threshold: float
    first_loss: float
    last_loss: float
    first_sharpness: float
    last_sharpness: float
    edge_ratio: float
    edge_ratio_range: tuple[float, float]
    crossing: int
    rises: float
    verdict: str
    status: Status
    stop_step: int
    worst_residual: float


def summarise(dataset: Any) -> list[LaneSummary]:
    """The verdict on every lane of a sweep.

    A lane is *at the edge* when its edge ratio passed 0.95 before half time and its loss rises on at least 2 % of the steps
    after that; its median edge ratio over the last half of the readings is then expected in [0.95, 1.05].

    Args:
        dataset: what `dynjax.sweep.open` returns for an edge-of-stability store.

    Returns:
        One `LaneSummary` for each lane, in the order of the store.
    """
    columns = {name: np.asarray(dataset[name].values) for name in (*dataset.data_vars, *dataset.coords)}
    return [_summarise_lane(columns, lane) for lane in range(dataset.sizes["lane"])]


def local_exponents(dataset: Any) -> np.ndarray | None:
    r"""The local exponent of the training map along the top eigenvector, for full-batch gradient descent.

    The tangent of a step is I - lr H. With H frozen at its value of a reading, a displacement along the eigenvector of the
    largest eigenvalue h grows by log |1 - lr h| per step: negative below the edge h = 2/lr, zero there, positive above.
    It follows from the recorded sharpness and costs nothing. It is no Lyapunov exponent: those belong to the product of the
    tangents along the run, whose eigenvectors turn, and directions in which H is almost zero always contribute exponents near 0.

    Args:
        dataset: what `dynjax.sweep.open` returns for an edge-of-stability store.

    Returns:
        An array (lane, reading), -inf where h = 1/lr and NaN once a lane has stopped; None for another optimiser than
        gradient descent, and for batches.
    """
    if "batch_sharpness" in dataset or set(map(str, dataset.optimizer.values)) != {"gd"}:
        return None
    product = dataset.learning_rate.values[:, None] * np.asarray(dataset.sharpness.values, float)
    with np.errstate(divide="ignore"):
        return np.log(np.abs(1 - product))


def _summarise_lane(columns: dict[str, np.ndarray], lane: int) -> LaneSummary:
    loss = columns["loss"][lane]
    ratio = columns["edge_ratio"][lane]
    sharpness = columns["sharpness"][lane]
    half = len(ratio) // 2
    crossing = _crossing(ratio, columns["reading"])
    rises = _fraction_of_rises(loss, crossing)
    status = Status(int(columns["status"][lane]))
    seen = np.isfinite(sharpness) & (sharpness != 0)
    relative = columns["sharpness_residual"][lane][seen] / np.abs(sharpness[seen])
    return LaneSummary(
        learning_rate=float(columns["learning_rate"][lane]),
        seed=int(columns["seed"][lane]),
        threshold=float(columns["threshold"][lane]),
        first_loss=float(loss[0]),
        last_loss=float(np.mean(loss[-max(1, len(loss) // 50) :])),
        first_sharpness=float(sharpness[0]),
        last_sharpness=_median(sharpness[half:]),
        edge_ratio=_median(ratio[half:]),
        edge_ratio_range=_range(ratio[half:]),
        crossing=crossing,
        rises=rises,
        verdict=_verdict(status, crossing, rises, len(loss)),
        status=status,
        stop_step=int(columns["stop_step"][lane]) if "stop_step" in columns else -1,
        worst_residual=float(relative.max()) if relative.size else float("nan"),
    )


def _crossing(ratio: np.ndarray, reading: np.ndarray) -> int:
    above = np.flatnonzero(ratio > CROSSING)
    return int(reading[above[0]]) if above.size else -1


def _fraction_of_rises(loss: np.ndarray, crossing: int) -> float:
    after = loss[max(crossing, 0) :]
    if crossing < 0 or len(after) < 2 or not np.all(np.isfinite(after)):
        return float("nan")
    return float(np.mean(np.diff(after) > 0))


def _verdict(status: Status, crossing: int, rises: float, num_steps: int) -> str:
    if status in (Status.DIVERGED, Status.NONFINITE):
        return "diverged"
    if status != Status.OK:
        return "unfinished" if status == Status.RUNNING else status.name.lower().replace("_", " ")
    if 0 <= crossing < num_steps / 2 and rises >= RISES:
        return "at the edge"
    if crossing >= num_steps / 2:
        return "reached the edge late"
    return "crossed, no oscillation" if crossing >= 0 else "below the edge"


def _median(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float("nan")


def _range(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return (float("nan"), float("nan"))
    low, high = np.percentile(finite, [5, 95])
    return (float(low), float(high))


COLUMNS = (
    "learning rate",
    "seed",
    "threshold",
    "sharpness",
    "edge ratio",
    "5-95 %",
    "crossed at",
    "final loss",
    "verdict",
)


def table_rows(summaries: list[LaneSummary]) -> list[tuple[str, ...]]:
    """The summaries as text cells under `COLUMNS`."""
    return [
        (
            f"{lane.learning_rate:.4g}",
            str(lane.seed),
            f"{lane.threshold:.4g}",
            f"{lane.last_sharpness:.4g}",
            f"{lane.edge_ratio:.3f}",
            f"{lane.edge_ratio_range[0]:.2f}-{lane.edge_ratio_range[1]:.2f}",
            str(lane.crossing) if lane.crossing >= 0 else "-",
            f"{lane.last_loss:.4g}",
            lane.verdict + (f" at step {lane.stop_step}" if lane.stop_step >= 0 else ""),
        )
        for lane in summaries
    ]


def table(dataset: Any) -> str:
    """The verdict on every lane as a plain-text table for a terminal.

    Args:
        dataset: what `dynjax.sweep.open` returns for an edge-of-stability store.

    Returns:
        A header, a rule, and a line for each lane.
    """
    return text_table(COLUMNS, table_rows(summarise(dataset)))
