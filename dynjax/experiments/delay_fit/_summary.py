"""What every lane has learnt: its delay, its errors, and its exponents against the truth, from the stored arrays alone."""

import dataclasses
import json
from typing import Any

import numpy as np

from ..._core import Status
from .._text_table import text_table

DELAY_MARGIN = 0.01  # a delay is found if it is off by at most this part of the true one
SURE = 3.0  # standard errors
_CLEAR = 0.5  # with three standard errors above this part of the true exponent, and the margin, nothing can be said
_FAILED = "not learnt"


@dataclasses.dataclass(frozen=True)
class LaneSummary:
    """One lane in numbers. Errors are root mean squares on the test part, in units of the deviation of the series.

    Attributes:
        horizon: samples that forecasts in the loss go ahead.
        initial_delay: the delay it started from.
        seed: of weights and batches.
        delay: the delay it has found.
        true_delay: NaN if not known.
        one_step_error: error of forecasts of one sample.
        horizon_error: error of forecasts up to the horizon of the loss.
        exponent: first Lyapunov exponent of the learnt equation, per unit of time.
        exponent_error: its standard error.
        true_exponent: that of the true equation, by the same steps; NaN if not known.
        true_exponent_error: its standard error.
        verdict: with a known truth "chaos reproduced" ("exponent reproduced" if there is none), "low error without chaos",
            "low error, wrong exponent", "exponent too uncertain" or "not learnt"; otherwise "chaotic", "not chaotic" or "not
            learnt"; "unfinished".
    """

    horizon: int
    initial_delay: float
    seed: int
    delay: float
    true_delay: float
    one_step_error: float
    horizon_error: float
    exponent: float
    exponent_error: float
    true_exponent: float
    true_exponent_error: float
    verdict: str

    @property
    def delay_error(self) -> float:
        """The relative error of the delay; NaN if the true one is not known."""
        return self.delay / self.true_delay - 1

    @property
    def delay_found(self) -> bool:
        """Whether the delay is right to within 1 %."""
        return abs(self.delay_error) <= DELAY_MARGIN

    @property
    def deviation(self) -> float:
        """Learnt exponent minus true exponent."""
        return self.exponent - self.true_exponent

    @property
    def deviation_error(self) -> float:
        """The standard error of that difference."""
        return float(np.hypot(self.exponent_error, self.true_exponent_error))


def summarise(dataset: Any) -> list[LaneSummary]:
    """The verdict on every lane.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        One `LaneSummary` for each lane, in the order of the store.
    """
    config = json.loads(dataset.attrs["config"])
    names = ("horizon", "initial_delay", "seed", "true_delay", "delay", "one_step_error", "horizon_error")
    exponents = ("exponents", "exponent_errors", "true_exponents", "true_exponent_errors")
    columns = {name: np.asarray(dataset[name].values) for name in (*names, *exponents)}
    finished = np.asarray(dataset.status.values) != int(Status.RUNNING)
    lanes = []
    for lane in range(dataset.sizes["lane"]):
        value = {name: column[lane] if column[lane].ndim == 0 else column[lane][-1] for name, column in columns.items()}
        value |= {name: columns[name][lane][0] for name in exponents}
        lanes.append(_summarise_lane({name: float(v) for name, v in value.items()}, bool(finished[lane]), config))
    return lanes


def _summarise_lane(value: dict[str, float], finished: bool, config: dict[str, Any]) -> LaneSummary:
    lane = LaneSummary(
        horizon=int(value["horizon"]),
        initial_delay=value["initial_delay"],
        seed=int(value["seed"]),
        delay=value["delay"],
        true_delay=value["true_delay"],
        one_step_error=value["one_step_error"],
        horizon_error=value["horizon_error"],
        exponent=value["exponents"],
        exponent_error=value["exponent_errors"],
        true_exponent=value["true_exponents"],
        true_exponent_error=value["true_exponent_errors"],
        verdict="unfinished",
    )
    return dataclasses.replace(lane, verdict=_verdict(lane, config)) if finished else lane


def _verdict(lane: LaneSummary, config: dict[str, Any]) -> str:
    good = lane.horizon_error <= config["noise"] + config["error_margin"]
    if not good or not np.isfinite(lane.exponent):
        return _FAILED
    chaotic = lane.exponent > SURE * lane.exponent_error
    if not np.isfinite(lane.true_exponent):
        return "chaotic" if chaotic else "not chaotic"
    margin, doubt = config["exponent_margin"], SURE * lane.deviation_error
    if doubt > margin + _CLEAR * abs(lane.true_exponent):
        return "exponent too uncertain"
    truly_chaotic = lane.true_exponent > SURE * lane.true_exponent_error
    if abs(lane.deviation) <= doubt + margin:
        return "chaos reproduced" if truly_chaotic else "exponent reproduced"
    return "low error without chaos" if truly_chaotic and not chaotic else "low error, wrong exponent"


COLUMNS = (
    "horizon",
    "delay from",
    "seed",
    "delay found",
    "off by",
    "one-step error",
    "horizon error",
    "exponent",
    "+-",
    "truth",
    "+-",
    "verdict",
)


def table_rows(summaries: list[LaneSummary]) -> list[tuple[str, ...]]:
    """The summaries as text cells under `COLUMNS`."""
    shown = lambda value, form: format(value, form) if np.isfinite(value) else "-"
    return [
        (
            str(lane.horizon),
            f"{lane.initial_delay:g}",
            str(lane.seed),
            shown(lane.delay, ".3f"),
            shown(lane.delay_error, "+.2%"),
            shown(lane.one_step_error, ".4f"),
            shown(lane.horizon_error, ".4f"),
            shown(lane.exponent, "+.5f"),
            shown(lane.exponent_error, ".5f"),
            shown(lane.true_exponent, "+.5f"),
            shown(lane.true_exponent_error, ".5f"),
            lane.verdict,
        )
        for lane in summaries
    ]


def table(dataset: Any) -> str:
    """What every lane has learnt, as a plain-text table for a terminal.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A header, a rule, and a line for each lane.
    """
    return text_table(COLUMNS, table_rows(summarise(dataset)))
