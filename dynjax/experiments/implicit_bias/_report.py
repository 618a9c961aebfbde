"""The report of the worked example: one HTML page made of the pieces of `dynjax.report`."""

import json
import os
from typing import Any

import numpy as np

from ... import report
from .._provenance import add_provenance
from ._summary import COLUMNS, Edges, LaneSummary, edges, limits, summarise, table_rows

_TONES = {
    "within the edge": "good",
    "none, as predicted": "good",
    "several stable intervals": "neutral",
    "unfinished": "warning",
    "beyond the edge": "bad",
    "none, against the prediction": "bad",
    "some, against the prediction": "bad",
}
_BINS = 90


def write_report(dataset: Any, path: str | os.PathLike[str]) -> None:
    """Write the page of the implicit-bias experiment: one self-contained HTML file.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.
        path: where to write it; the file appears whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    config = json.loads(dataset.attrs["config"])
    found, summaries = edges(config["input_squares"]), summarise(dataset)
    squares = ", ".join(f"{square:g}" for square in config["input_squares"])
    page = report.Page(
        "Which minima do gradient descent and SGD find?",
        f"f(x) = a b x with targets y = x, x^2 in {{{squares}}}: {config['num_runs']:,} runs for each learning rate and "
        f"algorithm, from starts uniform on [0, {config['start_high']:g}] x [0, {config['start_high']:g}]",
    )
    page.headline(_headline(found, summaries))
    _figure_section(page, dataset, found)
    _table_section(page, config, summaries)
    add_provenance(page, dataset)
    page.write(path)


def _headline(found: Edges, summaries: list[LaneSummary]) -> list[tuple[str, str, str]]:
    good = sum(_TONES[lane.verdict] == "good" for lane in summaries)
    further = (
        f"; further zeros {', '.join(f'{c:.4g}' for c in found.crossings[1:])}" if len(found.crossings) > 1 else ""
    )
    return [
        (
            "almost sure",
            f"{found.almost_sure:.4g}",
            f"(learning rate) x (a² + b²) at which SGD turns unstable{further}",
        ),
        ("gradient descent", f"{found.gd:.4g}", "the same for the full batch"),
        ("mean square", f"{found.mean_square:.4g}", "the same for the variance of SGD"),
        ("as predicted", f"{good} of {len(summaries)}", "lanes"),
    ]


def _figure_section(page: Any, dataset: Any, found: Edges) -> None:
    page.section(
        "Where the runs end",
        "Every point of the hyperbola a b = 1 is a global minimum. The normal space of the hyperbola has dimension "
        "one there, "
        "and near it SGD multiplies the distance by 1 - (learning rate) (a² + b²) x² with a random x. Its exponent "
        "is the mean of "
        "log |1 - (learning rate) (a² + b²) x²|: SGD can converge to a minimum where it is negative, that is for small "
        "a² + b², and gradient descent where (learning rate) (a² + b²) E x² < 2. Since a² + b² is 2 or more on the "
        "hyperbola, "
        "each algorithm has a learning rate above which it finds no minimum at all.\n\n"
        "The criterion, that the sign of the exponent decides which minima can be limits of SGD, is that of Chemnitz "
        "and Engel (JMLR "
        "26, 2025, arXiv:2407.20209). With several samples and two parameters the gradients here are dependent, "
        "which as far as we "
        "can tell is outside of the hypotheses of their theorem; the thresholds are derived for this example.",
    )
    page.figure(
        limits_figure(dataset),
        "Share of the limits in bins of a² + b², one panel for each learning rate (linear up to 0.001, logarithmic "
        "beyond), with the "
        "predicted edges of the almost sure, mean-square and gradient-descent criterion.",
        alt="Histograms of a squared plus b squared of the end points, for gradient descent and SGD, with predicted edges.",
    )


def limits_figure(dataset: Any) -> Any:
    """Histograms of a^2 + b^2 over the limits, a panel for each learning rate, with the predicted edges.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    found = edges(json.loads(dataset.attrs["config"])["input_squares"])
    rates = np.unique(dataset.learning_rate.values)
    ends = {lane: limits(dataset, lane) for lane in range(dataset.sizes["lane"])}
    largest = [values.max() for values in ends.values() if values.size]
    top = min(max([*largest, 1.1 * found.almost_sure / rates.min(), 2.2]), 4 * found.almost_sure / rates.min() + 2)
    bins = np.linspace(2, 1.02 * top, _BINS + 1)
    figure, axes = report.panels(len(rates), height=2.1, share_x=True)
    for rate, ax in zip(rates, np.atleast_1d(axes), strict=True):
        report.band(
            np.repeat(bins, 2)[1:-1],
            _shares(dataset, ends, rate, bins),
            ax=ax,
            lines=_lines(found, rate),
            linear_width=1e-3,
            y_limits=(0, 1.5),
            x_label="a² + b² of the limit" if rate == rates[-1] else "",
            y_label="share of limits",
            title=f"learning rate {rate:g}",
        )
    return figure


def _lines(found: Edges, rate: float) -> dict[str, float]:
    """The edges that some minimum can reach."""
    named = {"almost sure": found.almost_sure, "mean square": found.mean_square, "GD": found.gd}
    return {name: value / rate for name, value in named.items() if value / rate >= 2}


def _shares(dataset: Any, ends: dict[int, np.ndarray], rate: float, bins: np.ndarray) -> dict[str, np.ndarray]:
    """Share of the limits in each bin as a step curve, for both algorithms."""
    shares = {}
    for lane, values in ends.items():
        if dataset.learning_rate.values[lane] == rate:
            # Rounding can put a limit an ulp below 2.
            counts = np.histogram(np.maximum(values, 2), bins)[0] / max(1, values.size)
            shares[f"{dataset.algorithm.values[lane]}, {_percent(dataset, lane)}"] = np.repeat(counts, 2)
    return dict(sorted(shares.items(), reverse=True))


def _percent(dataset: Any, lane: int) -> str:
    return f"{float(dataset.converged.values[lane, -1]):.1%} converge"


def _table_section(page: Any, config: dict[str, Any], summaries: list[LaneSummary]) -> None:
    page.section(
        "Every learning rate",
        f"A run has converged if |a b - 1| is at most {config['tolerance']:g} after {config['num_steps']:,} steps. A "
        "few limits lie above "
        "the edge of SGD: just above it the exponent is small, so that some runs are near the minimum by chance when "
        "the steps are over, "
        "and in floating point a run that hits a b = 1 exactly stays there, however unstable that is. A lane is within the "
        "edge if 99 % of its limits have a² + b² at most 1.01 times the edge; with an edge below 2 no minimum is stable.",
    )
    rows = [
        [*row[:-1], report.Chip(row[-1], _TONES[lane.verdict])]
        for row, lane in zip(table_rows(summaries), summaries, strict=True)
    ]
    page.table([*COLUMNS], rows, caption="Fractions of the runs, and a² + b² of the limits against the predicted edge.")
