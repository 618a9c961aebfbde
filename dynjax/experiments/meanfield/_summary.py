"""What the oscillators did against what theory says, from the stored arrays alone."""

import dataclasses
import math
from typing import Any

import jax
import numpy as np

from ...meanfield import convergence_report
from .._text_table import text_table
from ._config import Config
from ._onset import Onset, find_onset
from ._prediction import critical_of
from ._stored import averages, first_finite, stored_config, table_of

NEAR = 0.1  # |K/Kc - 1| within which finite systems smear the transition
_SAMPLING = 2.0  # distances up to this over sqrt(N |1 - K/Kc|) are those of finite size
_SPARSE = 3.0  # and up to this over the mean degree, since the limit is that of dense graphs
_LARGE_DEGREE = 1000.0  # below it the onset on random graphs is seen to lie above that of the limit
_CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Point:
    """All lanes of one coupling in numbers.

    Attributes:
        coupling: K.
        ratio: K over the predicted critical coupling; NaN where there is none.
        limit: r of the limit; NaN where it is not known.
        order: mean r over seeds and time at each size; NaN for a size without finished lanes.
        error: standard error of it, from the scatter of the seeds; from the run itself if there is one seed.
        fluctuation: N E|z|^2 at each size.
        projected: E|v . u|^2, v the leading left eigenvector.
        distance: |r - limit| at the largest size.
        verdict: "follows the limit", "off the limit", "near critical", "no limit to compare", or "unfinished".
    """

    coupling: float
    ratio: float
    limit: float
    order: tuple[float, ...]
    error: tuple[float, ...]
    fluctuation: tuple[float, ...]
    projected: tuple[float, ...]
    distance: float
    verdict: str


@dataclasses.dataclass(frozen=True)
class Approach:
    """How fast the order parameter approaches its limit in one range of couplings.

    Attributes:
        name: "below", "around" or "above" the critical coupling; "all" where there is none.
        distances: root mean square of r - limit over the couplings of the range, (sizes, seeds).
        typical: the same over the seeds too, (sizes,).
        slope: of log distance against log N; NaN if it cannot be fitted.
        interval: its confidence interval of 95 %.
    """

    name: str
    distances: np.ndarray
    typical: np.ndarray
    slope: float
    interval: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Summary:
    """Everything that was found.

    Attributes:
        critical: the predicted critical coupling; infinite where there is none.
        sizes: numbers of oscillators.
        finite_critical: the critical coupling by the leading eigenvalue of the very graph of each size; NaN without a threshold.
        mean_degrees: drivers of a node at each size.
        onset: the critical coupling that was measured.
        points: by coupling.
        approaches: by range of couplings.
        verdicts: for each size: "follows the limit", "off the limit", "no limit to compare" or "unfinished".
    """

    critical: float
    sizes: tuple[int, ...]
    finite_critical: tuple[float, ...]
    mean_degrees: tuple[float, ...]
    onset: Onset
    points: tuple[Point, ...]
    approaches: tuple[Approach, ...]
    verdicts: tuple[str, ...]


def summarise(dataset: Any) -> Summary:
    """What the oscillators did at every coupling and size, the onset of synchrony, and the approach to the limit.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.
    """
    config = stored_config(dataset)
    order, error = averages(dataset, "order")
    couplings = np.unique(np.asarray(dataset.coupling.values, float))
    limit = first_finite(table_of(dataset, np.asarray(dataset["limit"].values, float)), 1)
    critical = _critical(dataset)
    sizes = tuple(int(size) for size in dataset["size"].values)
    eigenvalues = first_finite(np.asarray(dataset.eigenvalue.values, float), 0)
    degrees = first_finite(np.asarray(dataset.mean_degree.values, float), 0).tolist()
    known = math.isfinite(critical)
    finite = tuple(critical_of(float(value), config) if known else math.nan for value in eigenvalues)
    points = _points(dataset, couplings, critical, limit, order, error, sizes, degrees[-1])
    return Summary(
        critical=critical,
        sizes=sizes,
        finite_critical=finite,
        mean_degrees=tuple(degrees),
        onset=find_onset(dataset, config, critical, couplings, order[:, :, -1]),
        points=points,
        approaches=_approaches(couplings, critical, order - limit[:, None, None], sizes),
        verdicts=tuple(_size_verdict(points, k, *pair) for k, pair in enumerate(zip(sizes, degrees, strict=True))),
    )


def _critical(dataset: Any) -> float:
    """The predicted critical coupling; infinity is stored as such, NaN in lanes that are not finished."""
    values = np.asarray(dataset.critical.values, float)
    values = values[~np.isnan(values)]
    return float(values[0]) if values.size else math.nan


def _mean_and_error(values: np.ndarray, errors: np.ndarray) -> tuple[float, float]:
    """Over the seeds that are finished."""
    good = np.isfinite(values)
    values, errors = values[good], errors[good]
    if not values.size:
        return math.nan, math.nan
    error = np.std(values, ddof=1) / math.sqrt(values.size) if values.size > 1 else errors[0]
    return float(values.mean()), float(error)


def _points(
    dataset: Any,
    couplings: np.ndarray,
    critical: float,
    limit: np.ndarray,
    order: np.ndarray,
    error: np.ndarray,
    sizes: tuple[int, ...],
    degree: float,
) -> tuple[Point, ...]:
    squares = {name: averages(dataset, name)[0] for name in ("fluctuation", "projected")}
    means = {name: _mean_over_seeds(values) for name, values in squares.items()}
    threshold = math.isfinite(critical) and critical > 0
    points = []
    for i, coupling in enumerate(couplings):
        pairs = [_mean_and_error(order[i, :, k], error[i, :, k]) for k in range(len(sizes))]
        ratio = float(coupling / critical) if threshold else math.nan
        distance = abs(pairs[-1][0] - limit[i])
        points.append(
            Point(
                coupling=float(coupling),
                ratio=ratio,
                limit=float(limit[i]),
                order=tuple(pair[0] for pair in pairs),
                error=tuple(pair[1] for pair in pairs),
                fluctuation=tuple(means["fluctuation"][i].tolist()),
                projected=tuple(means["projected"][i].tolist()),
                distance=float(distance),
                verdict=_verdict(pairs[-1], float(limit[i]), ratio, sizes[-1], degree),
            )
        )
    return tuple(points)


def _mean_over_seeds(values: np.ndarray) -> np.ndarray:
    good = np.isfinite(values)
    count = good.sum(axis=1)
    return np.where(count > 0, np.where(good, values, 0).sum(axis=1) / np.maximum(count, 1), np.nan)


def _verdict(pair: tuple[float, float], limit: float, ratio: float, size: int, degree: float) -> str:
    if not math.isfinite(pair[0]):
        return "unfinished"
    if not math.isfinite(limit):
        return "no limit to compare"
    if abs(ratio - 1) < NEAR:
        return "near critical"
    return "follows the limit" if abs(pair[0] - limit) <= _allowance(pair[1], ratio, size, degree) else "off the limit"


def _allowance(error: float, ratio: float, size: int, degree: float) -> float:
    """The distance from the limit that N oscillators with so many drivers explain, or three standard errors.

    Fluctuations grow towards the critical coupling like (N |1 - K/Kc|)^(-1/2).
    """
    distance = min(1.0, abs(1 - ratio)) if math.isfinite(ratio) else 1.0
    sampling = _SAMPLING / math.sqrt(size * distance)
    return max(sampling, _SPARSE / degree, 3 * error if math.isfinite(error) else 0.0)


def _size_verdict(points: tuple[Point, ...], index: int, size: int, degree: float) -> str:
    """Of the couplings away from the critical one, nine of ten must follow."""
    verdicts = [
        _verdict((point.order[index], point.error[index]), point.limit, point.ratio, size, degree) for point in points
    ]
    judged = [word for word in verdicts if word in ("follows the limit", "off the limit")]
    if not judged:
        return "unfinished" if "unfinished" in verdicts else "no limit to compare"
    good = judged.count("follows the limit")
    return "follows the limit" if good >= 0.9 * len(judged) else "off the limit"


def _approaches(
    couplings: np.ndarray, critical: float, distance: np.ndarray, sizes: tuple[int, ...]
) -> tuple[Approach, ...]:
    """`distance` is r - limit, (couplings, seeds, sizes)."""
    if math.isfinite(critical) and critical > 0:
        ratio = couplings / critical
        near = np.abs(ratio - 1) < NEAR
        groups = {"below": (ratio < 1) & ~near, "around": near, "above": (ratio > 1) & ~near}
    else:
        groups = {"all": np.ones(len(couplings), bool)}
    found = []
    for name, chosen in groups.items():
        part = distance[chosen]
        whole = np.all(np.isfinite(part), axis=(0, 2)) if part.size else np.zeros(distance.shape[1], bool)
        if not whole.any():
            continue
        errors = np.sqrt(np.mean(part[:, whole] ** 2, axis=0)).T
        found.append(_approach(name, errors, sizes))
    return tuple(found)


def _approach(name: str, errors: np.ndarray, sizes: tuple[int, ...]) -> Approach:
    """Each seed is a replicate: couplings of one seed share their frequencies and are not independent."""
    slope, interval = math.nan, (math.nan, math.nan)
    if len(sizes) > 1 and errors.size >= 3 and np.all(errors > 0):
        with jax.enable_x64(True):
            fit = convergence_report(np.asarray(sizes, float), errors, confidence=_CONFIDENCE)
        slope, interval = float(fit.slope), (float(fit.slope_interval[0]), float(fit.slope_interval[1]))
    return Approach(name, errors, np.sqrt(np.mean(errors**2, axis=1)), slope, interval)


def validity(summary: Summary, config: Config) -> list[str]:
    """What limits the validity of the comparison, one sentence each."""
    import warnings

    from ... import meanfield as guards
    from ._config import IN_CELLS
    from ._prediction import law

    def run() -> None:
        for degree in sorted(set(summary.mean_degrees))[:1]:
            guards.warn_low_degree(degree)
            if config.drawn and config.mean_degree > 0:
                guards.warn_clipped_edges(degree, config.mean_degree)
        if config.graph in IN_CELLS:
            guards.warn_single_particles(min(summary.sizes) // config.cells)
        if config.draws == "midpoints":
            guards.warn_heavy_tails(law(config))
        couplings = [point.coupling for point in summary.points]
        if math.isfinite(summary.critical):
            guards.warn_near_critical(couplings, summary.critical, summary.sizes[-1])

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    sentences = [str(entry.message) for entry in caught]
    sparsest = min(summary.mean_degrees)
    if config.drawn and math.isfinite(summary.critical) and sparsest < _LARGE_DEGREE:
        sentences.append(
            f"At a mean degree of {sparsest:.4g} the onset on a random graph lies above that of the limit, by an amount of order "
            "1 / degree: on the small world of radius 0.2 and rewiring 0.1 by 3.6 % at degree 100, by 1.6(6) % at 400."
        )
    return sentences


def columns(summary: Summary) -> tuple[str, ...]:
    """Headings of the table over the couplings."""
    return ("K", "K / Kc", "limit", *(f"r, N = {size:,}" for size in summary.sizes), "distance", "verdict")


def table_rows(summary: Summary) -> list[tuple[str, ...]]:
    """The couplings as text under `columns`."""
    shown = lambda value, form: format(value, form) if math.isfinite(value) else "-"

    def cell(value: float, error: float) -> str:
        return "-" if not math.isfinite(value) else f"{value:.4f} ± {error:.4f}"

    return [
        (
            f"{point.coupling:.4g}",
            shown(point.ratio, ".3f"),
            shown(point.limit, ".4f"),
            *(cell(value, error) for value, error in zip(point.order, point.error, strict=True)),
            shown(point.distance, ".4f"),
            point.verdict,
        )
        for point in summary.points
    ]


def critical_words(critical: float) -> str:
    """The predicted critical coupling in words."""
    if math.isnan(critical):
        return "not found"
    if math.isinf(critical):
        return "no threshold"
    return f"{critical:.4g}"


def onset_words(onset: Onset) -> str:
    """The measured critical coupling in words."""
    if not math.isfinite(onset.value):
        return "-"
    return f"{onset.value:.4g}" + (f" ± {onset.error:.2g}" if math.isfinite(onset.error) else "")


def table(dataset: Any) -> str:
    """Predicted and measured onset and order parameters, as plain text for a terminal.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A line for each coupling, and what follows from all of them below.
    """
    summary = summarise(dataset)
    lines = [text_table(columns(summary), table_rows(summary)), ""]
    lines.append(f"critical coupling: {critical_words(summary.critical)} predicted; measured: {onset_words(summary.onset)}"
                 f" ({summary.onset.method})")  # fmt: skip
    for size, value, verdict in zip(summary.sizes, summary.finite_critical, summary.verdicts, strict=True):
        known = f"; by the eigenvalue of this graph {value:.4g}" if math.isfinite(value) else ""
        lines.append(f"N = {size:,}: {verdict}{known}")
    for approach in summary.approaches:
        if math.isfinite(approach.slope):
            low, high = approach.interval
            where = "all couplings" if approach.name == "all" else f"couplings {approach.name} the critical one"
            lines.append(f"|r - limit| ~ N^{approach.slope:.2f} ({low:.2f} to {high:.2f}) at {where}")
    lines += [f"note: {sentence}" for sentence in validity(summary, stored_config(dataset))]
    return "\n".join(lines)
