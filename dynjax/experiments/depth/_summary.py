"""Exponents, gradients and trainable depths at each weight variance, against those of wide random networks."""

import dataclasses
import json
from typing import Any

import numpy as np

from .._text_table import text_table
from ._prediction import predict

TRAINED = 0.95  # accuracy from which a network counts as trained
_BALANCED = np.log(10)  # gradients within a factor of ten from end to end are balanced
_BEFORE, _AFTER = 0, 1

# every verdict with its tone
VERDICTS = {
    "balanced": "good",
    "vanish": "warning",
    "explode": "warning",
    "not finite": "bad",
    "unfinished": "neutral",
}


@dataclasses.dataclass(frozen=True)
class Cell:
    """All lanes of one weight variance in numbers.

    Attributes:
        weight_variance: sigma_w^2.
        exponent: the first exponent before training, per layer, mean over the seeds at the largest depth.
        standard_error: of it, from seed to seed; NaN for a single one.
        mean_field: the exponent at infinite width.
        finite_width: the exact one at this width, where known; NaN otherwise.
        correlation_depth: layers over which correlations of inputs are remembered at infinite width.
        change: log of the change of gradients over the largest depth on their way back, mean over the seeds.
        trained_exponent: the first exponent after training, mean over the seeds at the largest depth.
        accuracies: median accuracy after training at each depth; NaN where no lane is finished.
        trained_depth: the largest depth up to which the median network is trained; 0 if none is.
        num_lanes: finished lanes.
        failed: lanes that are not finite any more.
        verdict: one of `VERDICTS`: what gradients do over the largest depth.
    """

    weight_variance: float
    exponent: float
    standard_error: float
    mean_field: float
    finite_width: float
    correlation_depth: float
    change: float
    trained_exponent: float
    accuracies: tuple[float, ...]
    trained_depth: int
    num_lanes: int
    failed: int
    verdict: str


def summarise(dataset: Any) -> list[Cell]:
    """Compare every weight variance with infinitely wide networks.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        One `Cell` for each weight variance, sorted.
    """
    config = json.loads(dataset.attrs["config"])
    return [_cell(dataset, config, variance) for variance in sorted({float(v) for v in config["weight_variances"]})]


def _seen(dataset: Any) -> np.ndarray:
    """Which lanes have come to their end, finite or not."""
    return np.isfinite(np.asarray(dataset.exponents.values[:, _BEFORE, 0], float))


def _cell(dataset: Any, config: dict[str, Any], variance: float) -> Cell:
    depths = sorted(config["depths"])
    here = np.isclose(np.asarray(dataset.weight_variance.values, float), variance, rtol=1e-6) & _seen(dataset)
    depth = np.asarray(dataset.depth.values)
    accuracy = np.asarray(dataset.accuracy.values[:, -1], float)
    failed = here & ~np.isfinite(accuracy)
    # What has overflowed has not been trained.
    reached = np.where(np.isfinite(accuracy), accuracy, 0.0)
    medians = [
        float(np.median(reached[here & (depth == d)])) if np.any(here & (depth == d)) else np.nan for d in depths
    ]
    deepest = here & (depth == depths[-1])
    first = np.asarray(dataset.exponents.values[deepest, _BEFORE, 0], float)
    later = np.asarray(dataset.exponents.values[deepest, _AFTER, 0], float)
    change = np.asarray(dataset.gradients.values[deepest, _BEFORE, 0], float)
    theory = predict(config["activation"], config["law"], config["width"], variance, config["bias_variance"])
    good = [d for d, value in zip(depths, medians, strict=True) if value >= TRAINED]
    return Cell(
        weight_variance=variance,
        exponent=_mean(first),
        standard_error=float(np.std(first, ddof=1) / np.sqrt(first.size)) if first.size > 1 else float("nan"),
        mean_field=theory.exponent,
        finite_width=theory.finite_width,
        correlation_depth=theory.correlation_depth,
        change=_mean(change),
        trained_exponent=_mean(later),
        accuracies=tuple(medians),
        trained_depth=max(good, default=0),
        num_lanes=int(np.sum(here)),
        failed=int(np.sum(failed)),
        verdict=_verdict(_mean(change), int(np.sum(here)), int(np.sum(failed))),
    )


def _mean(values: np.ndarray) -> float:
    """NaN of nothing, -inf where one of them is."""
    return float(np.mean(values)) if values.size else float("nan")


def _verdict(change: float, num_lanes: int, failed: int) -> str:
    if num_lanes and failed == num_lanes:
        return "not finite"
    if np.isnan(change):
        return "unfinished"
    if abs(change) <= _BALANCED:
        return "balanced"
    return "vanish" if change < 0 else "explode"


COLUMNS = (
    "sigma_w^2",
    "exponent",
    "infinite width",
    "this width",
    "log change",
    "memory",
    "trained to",
    "after training",
    "gradients",
)


def table_rows(cells: list[Cell]) -> list[tuple[str, ...]]:
    """The cells as text under `COLUMNS`."""
    shown = lambda value, form: "-" if np.isnan(value) else format(value, form)
    return [
        (
            f"{cell.weight_variance:g}",
            shown(cell.exponent, ".4f") + ("" if np.isnan(cell.standard_error) else f" +- {cell.standard_error:.1g}"),
            f"{cell.mean_field:.4f}",
            shown(cell.finite_width, ".4f"),
            shown(cell.change, ".3g"),
            f"{cell.correlation_depth:.3g}",
            str(cell.trained_depth) if cell.num_lanes else "-",
            shown(cell.trained_exponent, ".3f"),
            cell.verdict,
        )
        for cell in cells
    ]


def table(dataset: Any) -> str:
    """What depth does at each weight variance, as a plain-text table for a terminal.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A header, a rule, and a line for each weight variance.
    """
    return text_table(COLUMNS, table_rows(summarise(dataset)))
