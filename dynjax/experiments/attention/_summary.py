"""How tokens have clustered at each inverse temperature, against what the linearised equations predict."""

import dataclasses
import json
from typing import Any

import numpy as np

from .._text_table import text_table
from ._lane import Lane, read_lane
from ._scales import plateau_rate, scales

_MOST_LISTED = 5  # lanes whose numbers are written out in a table


@dataclasses.dataclass(frozen=True)
class Cell:
    """All lanes of one inverse temperature in numbers; times in units of 1 / `rate`.

    Attributes:
        beta: inverse temperature.
        predicted: argmax_k k^2 (I_k(beta)/beta - D), the number of clusters expected; 0 where the uniform state is stable,
            None off the circle.
        rate: growth rate of the fastest mode without noise, per unit of time of the equations.
        noise_threshold: D above which the uniform state is stable.
        growth: predicted rate of the fastest mode at the noise of the run, over `rate`.
        next_mode: the runner-up among the modes.
        next_growth: its rate over `rate`: near `growth`, either mode may win, depending on the start.
        fitted: median over the lanes of the fitted rate of that mode; NaN if there is no phase of linear growth.
        dominant: the dominant mode of each lane.
        clusters: clusters on the first plateau of each lane; 0 where none formed.
        lifetime: median life of the plateaus that held more than one cluster; a lower bound where `censored`.
        censored: whether at least half of these plateaus outlived the run.
        leaving_time: 1 over the rate at which equal clusters leave their places, as many as the first plateaus mostly had: a
            scale for `lifetime`.
        final: clusters at the end in each lane.
        survived: lanes whose uniform state is still there.
        num_lanes: finished lanes.
        verdict: one of `VERDICTS`.
    """

    beta: float
    predicted: int | None
    rate: float
    noise_threshold: float
    growth: float
    next_mode: int
    next_growth: float
    fitted: float
    dominant: tuple[int, ...]
    clusters: tuple[int, ...]
    lifetime: float
    censored: bool
    leaving_time: float
    final: tuple[int, ...]
    survived: int
    num_lanes: int
    verdict: str


# every verdict with its tone
VERDICTS = {
    "as predicted": "good",
    "within one": "neutral",
    "different": "warning",
    "stays uniform, as predicted": "good",
    "stays uniform against the prediction": "warning",
    "clusters against the prediction": "bad",
    "one cluster": "good",
    "several clusters left": "neutral",
    "not formed yet": "neutral",
    "unfinished": "warning",
}


def summarise(dataset: Any) -> list[Cell]:
    """Compare every inverse temperature with its prediction.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        One `Cell` for each inverse temperature, sorted.
    """
    config = json.loads(dataset.attrs["config"])
    lanes = [read_lane(dataset, number) for number in range(dataset.sizes["lane"])]
    return [
        _summarise_cell(config, beta, [lane for lane in lanes if lane.beta == beta and lane.finished])
        for beta in sorted({lane.beta for lane in lanes})
    ]


def _summarise_cell(config: dict[str, Any], beta: float, lanes: list[Lane]) -> Cell:
    kind, circular = config["kind"], config["dimension"] == 2
    theory = scales(beta, kind, config["noise"])
    predicted = theory.growing_mode if circular else None
    left = [lane for lane in lanes if lane.clusters > 1]
    numbers = [lane.clusters for lane in left]
    common = max(numbers, key=numbers.count, default=0) if circular else 0
    leaving = plateau_rate(common, beta, kind)
    fitted = [lane.rates[predicted - 1] for lane in lanes if predicted and predicted <= lane.rates.size]
    return Cell(
        beta=beta,
        predicted=predicted,
        rate=theory.rate,
        noise_threshold=theory.noise_threshold,
        growth=theory.growing_rate / theory.rate,
        next_mode=theory.next_mode,
        next_growth=theory.next_rate / theory.rate,
        fitted=_median(fitted),
        dominant=tuple(lane.dominant_mode for lane in lanes),
        clusters=tuple(lane.clusters for lane in lanes),
        lifetime=_median([lane.lifetime for lane in left]),
        censored=2 * sum(lane.censored for lane in left) >= max(len(left), 1),
        leaving_time=theory.rate / leaving if leaving > 0 else float("nan"),
        final=tuple(lane.final_clusters for lane in lanes),
        survived=sum(not lane.ordered for lane in lanes) if circular else 0,
        num_lanes=len(lanes),
        verdict=_verdict(predicted, lanes, noisy=config["noise"] > 0),
    )


def _median(values: list[float]) -> float:
    finite = [value for value in values if np.isfinite(value)]
    return float(np.median(finite)) if finite else float("nan")


def _verdict(predicted: int | None, lanes: list[Lane], *, noisy: bool) -> str:
    """One word for the majority of the lanes."""
    if not lanes:
        return "unfinished"
    half = len(lanes) / 2
    if predicted is None:
        return "one cluster" if sum(lane.final_clusters == 1 for lane in lanes) > half else "several clusters left"
    uniform = sum(not lane.ordered for lane in lanes) > half
    if noisy and (predicted == 0 or uniform):
        if predicted:
            return "stays uniform against the prediction"
        return "stays uniform, as predicted" if uniform else "clusters against the prediction"
    # Noise keeps clusters wide; what is counted then is the mode that wins.
    found = np.array([lane.dominant_mode if noisy else lane.clusters for lane in lanes])
    if np.sum(found == 0) > half:
        return "not formed yet"
    if np.sum(found == predicted) > half:
        return "as predicted"
    return "within one" if np.sum(np.abs(found - predicted) <= 1) > half else "different"


COLUMNS = (
    "beta",
    "predicted",
    "next, growth",
    "dominant",
    "clusters",
    "rate",
    "fitted / rate",
    "life",
    "1 / leaving",
    "final",
    "uniform",
    "verdict",
)


def table_rows(cells: list[Cell]) -> list[tuple[str, ...]]:
    """The cells as text under `COLUMNS`."""
    shown = lambda value, form: format(value, form) if np.isfinite(value) else "-"
    return [
        (
            f"{cell.beta:g}",
            "-" if cell.predicted is None else str(cell.predicted),
            "-" if cell.predicted is None else f"{cell.next_mode}, {cell.next_growth:.2f}",
            _listed(cell.dominant if cell.predicted is not None else ()),
            _listed(cell.clusters),
            f"{cell.rate:.5g}",
            shown(cell.fitted / cell.growth, ".4f"),
            (">" if cell.censored and np.isfinite(cell.lifetime) else "") + shown(cell.lifetime, ".3g"),
            shown(cell.leaving_time, ".3g"),
            _listed(cell.final),
            "-" if cell.predicted is None else f"{cell.survived}/{cell.num_lanes}",
            cell.verdict,
        )
        for cell in cells
    ]


def _listed(numbers: tuple[int, ...]) -> str:
    """One number of all lanes, a few as they are, and many with how often they occur: 3, or 2,3,3, or 3 (x8) 4 (x1)."""
    different = sorted(set(numbers))
    if not different:
        return "-"
    if len(different) == 1:
        return str(different[0])
    if len(numbers) <= _MOST_LISTED:
        return ",".join(map(str, sorted(numbers)))
    return " ".join(f"{number} (x{numbers.count(number)})" for number in different)


def table(dataset: Any) -> str:
    """What tokens have done at each inverse temperature, as a plain-text table for a terminal.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A header, a rule, and a line for each inverse temperature.
    """
    return text_table(COLUMNS, table_rows(summarise(dataset)))
