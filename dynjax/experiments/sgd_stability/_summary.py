"""What the real runs say about the predictions, from the stored arrays alone."""

import dataclasses
import json
from typing import Any

import numpy as np

from .._text_table import text_table

LEAST_ESCAPED = 0.95  # fraction of the runs that must escape where the exponent is positive
_SURE = 2.0  # an exponent within so many standard errors of zero has no sign
_AGREES = 3.0  # rates that differ by at most so many standard errors agree


@dataclasses.dataclass(frozen=True)
class LaneSummary:
    """One learning rate in numbers.

    Attributes:
        factor: learning rate in units of the almost sure threshold.
        learning_rate: learning rate.
        exponent: the predicted Lyapunov exponent per step, and its standard error.
        exponent_error: standard error of the prediction.
        measured: mean growth of log |f - y| per step over the real runs, while all residuals lie in the window.
        measured_error: standard error of the mean over the runs.
        measured_steps: over how many steps; 0 where some residual starts outside of the window.
        deviation: (measured - exponent) / (both standard errors together).
        escaped: fraction of the runs whose residual grew by the factor `escape`.
        stayed: fraction of the runs whose residual never grew by more than the factor `stay`.
        median_growth: median over the runs of the largest growth of the residual.
        verdict: "escapes, as predicted", "stays, as predicted", "no clear sign", "not decided yet", "stays, against the
            prediction", "escapes, against the prediction" or "unfinished".
    """

    factor: float
    learning_rate: float
    exponent: float
    exponent_error: float
    measured: float
    measured_error: float
    measured_steps: int
    deviation: float
    escaped: float
    stayed: float
    median_growth: float
    verdict: str

    @property
    def agrees(self) -> bool:
        """Whether measured and predicted rate differ by at most three standard errors."""
        return abs(self.deviation) <= _AGREES


def summarise(dataset: Any) -> list[LaneSummary]:
    """The verdict on every learning rate of the real runs.

    The growth rate is measured from the start to the last reading before which no residual of any run has left the window:
    stopping each run at its own exit would favour those that leave in a burst.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        One `LaneSummary` for each lane, in the order of the store.
    """
    config = json.loads(dataset.attrs["config"])
    columns = {name: np.asarray(dataset[name].values) for name in (*dataset.data_vars, *dataset.coords)}
    return [_summarise_lane(columns, lane, config) for lane in range(dataset.sizes["lane"])]


def _summarise_lane(columns: dict[str, np.ndarray], lane: int, config: dict[str, Any]) -> LaneSummary:
    value = {name: float(columns[name][lane]) for name in ("factor", "learning_rate", "exponent", "standard_error")}
    finished = bool(columns["steps_done"].min() > 0) and np.isfinite(value["exponent"])
    peak, stop = columns["peak"][lane], columns["stop_step"][lane]
    mean, error, steps = _growth_rate(
        columns["residual"][lane], columns["start"][lane], columns["reading"], config["window"]
    )
    escaped, stayed = float(np.mean(stop >= 0)), float(np.mean(peak <= config["stay"]))
    both = np.hypot(error, value["standard_error"])
    return LaneSummary(
        factor=value["factor"],
        learning_rate=value["learning_rate"],
        exponent=value["exponent"],
        exponent_error=value["standard_error"],
        measured=mean,
        measured_error=error,
        measured_steps=steps,
        deviation=(mean - value["exponent"]) / both if both > 0 else float("nan"),
        escaped=escaped,
        stayed=stayed,
        median_growth=float(np.median(peak)),
        verdict=_verdict(value["exponent"], value["standard_error"], escaped, stayed) if finished else "unfinished",
    )


def _growth_rate(
    residual: np.ndarray, start: np.ndarray, reading: np.ndarray, window: list[float]
) -> tuple[float, float, int]:
    """(mean, standard error, steps) of the growth of log |f - y| per step while all runs are in the window."""
    inside = np.all((residual >= window[0]) & (residual <= window[1]), axis=1)
    last = len(inside) if inside.all() else int(np.argmin(inside))
    if last == 0 or not np.all((start >= window[0]) & (start <= window[1])):
        return float("nan"), float("nan"), 0
    steps = int(reading[last - 1])
    growth = np.log(residual[last - 1] / start) / steps
    return float(growth.mean()), float(growth.std(ddof=1) / np.sqrt(growth.size)), steps


def _verdict(exponent: float, error: float, escaped: float, stayed: float) -> str:
    if abs(exponent) <= _SURE * error:
        return "no clear sign"
    if exponent > 0:
        if escaped >= LEAST_ESCAPED:
            return "escapes, as predicted"
        return "stays, against the prediction" if stayed == 1 else "not decided yet"
    if stayed == 1:
        return "stays, as predicted"
    return "escapes, against the prediction" if escaped >= LEAST_ESCAPED else "not decided yet"


COLUMNS = (
    "learning rate",
    "/ threshold",
    "exponent",
    "+-",
    "measured",
    "+-",
    "deviation",
    "escaped",
    "stayed",
    "verdict",
)


def table_rows(summaries: list[LaneSummary]) -> list[tuple[str, ...]]:
    """The summaries as text cells under `COLUMNS`."""
    return [
        (
            f"{lane.learning_rate:.4g}",
            f"{lane.factor:.4g}",
            f"{lane.exponent:+.2e}",
            f"{lane.exponent_error:.0e}",
            f"{lane.measured:+.2e}" if lane.measured_steps else "-",
            f"{lane.measured_error:.0e}" if lane.measured_steps else "-",
            f"{lane.deviation:+.1f}" if lane.measured_steps else "-",
            f"{lane.escaped:.0%}",
            f"{lane.stayed:.0%}",
            lane.verdict,
        )
        for lane in summaries
    ]


def table(dataset: Any) -> str:
    """Thresholds and the verdict on every rate as plain text for a terminal.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A line with the thresholds, a header, a rule, and a line for each lane.
    """
    thresholds = ", ".join(
        f"{str(name).replace('_', ' ')} {float(value):.4g}"
        for name, value in zip(dataset.criterion.values, dataset.threshold.values[0], strict=True)
    )
    return f"critical learning rates: {thresholds}\n\n{text_table(COLUMNS, table_rows(summarise(dataset)))}"
