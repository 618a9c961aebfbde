"""Where the runs have ended against where the theory lets them end, from the stored arrays alone."""

import dataclasses
import json
from typing import Any

import jax.numpy as jnp
import numpy as np

from ...reference import scalar_sgd_thresholds
from .._text_table import text_table

_MARGIN = 1.01  # limits up to this multiple of the predicted edge count as within it
_WITHIN = 0.99  # fraction of the limits that must lie within the predicted edge


@dataclasses.dataclass(frozen=True)
class Edges:
    """The critical values s of (learning rate) x (a^2 + b^2): minima with a smaller product are stable.

    Attributes:
        gd: 2 / E x^2, for gradient descent.
        mean_square: 2 E x^2 / E x^4.
        almost_sure: first zero of E log abs(1 - s x^2).
        crossings: all its zeros, ascending: stable below the first, unstable up to the second, and so on.
    """

    gd: float
    mean_square: float
    almost_sure: float
    crossings: tuple[float, ...]


def edges(input_squares: Any) -> Edges:
    """The critical values for samples with these squares, all equally likely.

    Args:
        input_squares: x^2 of the samples, not negative and not all zero.

    Returns:
        `Edges`.
    """
    squares = np.asarray(input_squares, np.float64)
    # A sample x = 0 does nothing: the exponent keeps its zeros and the mean curvature is diluted.
    found = scalar_sgd_thresholds(jnp.asarray(squares[squares > 0]))
    crossings = np.asarray(found.crossings, float)
    return Edges(
        gd=2 / float(squares.mean()),
        mean_square=2 * float(squares.mean() / np.mean(squares**2)),
        almost_sure=float(found.almost_sure),
        crossings=tuple(float(c) for c in np.sort(crossings[np.isfinite(crossings)])),
    )


@dataclasses.dataclass(frozen=True)
class LaneSummary:
    """One learning rate and algorithm in numbers.

    Attributes:
        learning_rate: learning rate.
        algorithm: "GD" or "SGD".
        edge: the predicted largest a^2 + b^2 of a limit; below 2 there is no stable minimum.
        converged: fraction of the runs with a b = 1 at the end.
        diverged: fraction of the runs that left every bound; the others wander.
        quantile: 99 % quantile of a^2 + b^2 over the limits; NaN without limits.
        largest: the largest a^2 + b^2 of a limit.
        within: fraction of the limits with a^2 + b^2 at most 1.01 times the edge; NaN without limits.
        above: fraction of the limits strictly above the edge.
        verdict: "within the edge", "beyond the edge", "none, as predicted", "none, against the prediction" or "unfinished".
    """

    learning_rate: float
    algorithm: str
    edge: float
    converged: float
    diverged: float
    quantile: float
    largest: float
    within: float
    above: float
    verdict: str


def limits(dataset: Any, lane: int) -> np.ndarray:
    """a^2 + b^2 of the runs of a lane that have converged."""
    tolerance = json.loads(dataset.attrs["config"])["tolerance"]
    a, b = np.asarray(dataset.a.values[lane], float), np.asarray(dataset.b.values[lane], float)
    with np.errstate(invalid="ignore"):
        good = np.abs(a * b - 1) <= tolerance
    return a[good] ** 2 + b[good] ** 2


def summarise(dataset: Any) -> list[LaneSummary]:
    """Where the runs of every lane have ended.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        One `LaneSummary` for each lane, in the order of the store.
    """
    found = edges(json.loads(dataset.attrs["config"])["input_squares"])
    return [_summarise_lane(dataset, lane, found) for lane in range(dataset.sizes["lane"])]


def _summarise_lane(dataset: Any, lane: int, found: Edges) -> LaneSummary:
    rate, algorithm = float(dataset.learning_rate.values[lane]), str(dataset.algorithm.values[lane])
    edge = (found.almost_sure if algorithm == "SGD" else found.gd) / rate
    ends = limits(dataset, lane)
    converged, diverged = (float(dataset[name].values[lane, -1]) for name in ("converged", "diverged"))
    within = float(np.mean(ends <= _MARGIN * edge)) if ends.size else float("nan")
    return LaneSummary(
        learning_rate=rate,
        algorithm=algorithm,
        edge=edge,
        converged=converged,
        diverged=diverged,
        quantile=float(np.quantile(ends, 0.99)) if ends.size else float("nan"),
        largest=float(ends.max()) if ends.size else float("nan"),
        within=within,
        above=float(np.mean(ends > edge)) if ends.size else float("nan"),
        verdict=_verdict(converged, within, edge, len(found.crossings) if algorithm == "SGD" else 1),
    )


def _verdict(converged: float, within: float, edge: float, crossings: int) -> str:
    if not np.isfinite(converged):
        return "unfinished"
    if crossings > 1:
        return "several stable intervals"
    # The squares of numbers with product 1 sum to 2 at least.
    if edge < 2:
        return "none, as predicted" if converged < 0.01 else "some, against the prediction"
    if not converged:
        return "none, against the prediction"
    return "within the edge" if within >= _WITHIN else "beyond the edge"


COLUMNS = (
    "learning rate",
    "algorithm",
    "converged",
    "diverged",
    "predicted edge",
    "99 % quantile",
    "largest",
    "above the edge",
    "verdict",
)


def table_rows(summaries: list[LaneSummary]) -> list[tuple[str, ...]]:
    """The summaries as text cells under `COLUMNS`."""
    shown = lambda value, form: format(value, form) if np.isfinite(value) else "-"
    return [
        (
            f"{lane.learning_rate:.4g}",
            lane.algorithm,
            shown(lane.converged, ".1%"),
            shown(lane.diverged, ".1%"),
            f"{lane.edge:.4f}" if lane.edge >= 2 else f"{lane.edge:.4f} (none)",
            shown(lane.quantile, ".4f"),
            shown(lane.largest, ".4f"),
            shown(lane.above, ".2%"),
            lane.verdict,
        )
        for lane in summaries
    ]


def table(dataset: Any) -> str:
    """Where the runs have ended, as a plain-text table for a terminal.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A header, a rule, and a line for each lane.
    """
    return text_table(COLUMNS, table_rows(summarise(dataset)))
