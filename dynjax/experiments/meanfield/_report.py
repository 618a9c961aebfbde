"""The report of the mean-field experiment: one HTML page made of the pieces of `dynjax.report`."""

import math
import os
from typing import Any

from ... import report
from .._provenance import add_provenance
from .._report_parts import add_figure_section
from ._config import Config, is_file
from ._figures import approach_figure, fluctuation_figure, order_figure, profile_figure, relaxation_figure
from ._stored import stored_config
from ._summary import (
    Summary,
    columns,
    critical_words,
    onset_words,
    summarise,
    table_rows,
    validity,
)

_TONES = {
    "follows the limit": "good",
    "near critical": "neutral",
    "no limit to compare": "neutral",
    "unfinished": "warning",
    "off the limit": "bad",
}
_LAWS = {
    "lorentzian": "Lorentzian frequencies of half width {0:g}",
    "gaussian": "Gaussian frequencies of deviation {0:g}",
    "uniform": "frequencies uniform on [−{0:g}, {0:g}]",
    "identical": "identical frequencies",
}


def write_report(dataset: Any, path: str | os.PathLike[str]) -> None:
    """Write the page of the mean-field experiment: one self-contained HTML file.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.
        path: where to write it; the file appears whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    config, summary = stored_config(dataset), summarise(dataset)
    law = _LAWS[config.frequencies].format(config.width)
    noise = f", noise D = {config.noise:g}" if config.noise > 0 else ""
    numbers = ", ".join(f"{size:,}" for size in summary.sizes)
    page = report.Page(
        f"Synchrony on {graph_words(config)}",
        f"Kuramoto oscillators with {law}{noise}, N = {numbers}, at {len(summary.points)} couplings with "
        f"{config.num_seeds} {'seeds' if config.num_seeds > 1 else 'seed'} each, against their mean-field limit",
    )
    page.headline(_headline(summary))
    _order_section(page, dataset, config, summary)
    _fluctuation_section(page, dataset)
    _approach_section(page, dataset, summary)
    _profile_section(page, dataset, config)
    _relaxation_section(page, dataset, config)
    _table_section(page, config, summary)
    add_provenance(page, dataset)
    page.write(path)


def graph_words(config: Config) -> str:
    """The graph in words."""
    if is_file(config.graph):
        return f"the graph of {os.path.basename(config.graph)}"
    return {
        "complete": "the complete graph",
        "erdos-renyi": f"Erdős-Rényi graphs, p = {config.probability:g}",
        "stochastic-block": f"stochastic block graphs of {len(config.block_sizes)} blocks",
        "ring": f"the ring of radius {config.radius:g}",
        "small-world": f"small worlds of radius {config.radius:g}, rewiring {config.rewiring:g}",
        "power-law": f"power-law graphs of exponent {config.exponent:g}",
        "min": "the kernel min(x, y)",
        "max": "the kernel 1 − max(x, y)",
        "shift-ring": f"the ring with shift {config.shift:g}",
        "sphere": "the sphere of orthogonal neighbours",
        "star": "the star",
        "volterra": "the Volterra kernel",
        "tree": f"a binary tree of {config.cells} populations",
    }[config.graph]


def _headline(summary: Summary) -> list[tuple[str, str, str | None]]:
    known = math.isfinite(summary.critical)
    note = "of the limit" if known else "the incoherent state is stable at every coupling"
    if summary.critical == 0:
        note = "identical oscillators without noise synchronise at any coupling"
    if math.isnan(summary.critical):
        note = "the leading eigenvalue was not found"
    entries: list[tuple[str, str, str | None]] = [("critical coupling", critical_words(summary.critical), note)]
    if math.isfinite(summary.onset.value):
        entries.append(("measured", onset_words(summary.onset), f"{summary.onset.method}, N = {summary.sizes[-1]:,}"))
    judged = [point for point in summary.points if point.verdict in ("follows the limit", "off the limit")]
    if judged:
        good = sum(point.verdict == "follows the limit" for point in judged)
        entries.append(("follow the limit", f"{good} of {len(judged)}", f"couplings, at N = {summary.sizes[-1]:,}"))
    fits = [approach for approach in summary.approaches if math.isfinite(approach.slope)]
    if fits:
        last = fits[-1]
        low, high = (f"{end:.2f}".replace("-", "−") for end in last.interval)
        where = "all couplings" if last.name == "all" else f"{last.name} the critical coupling"
        entries.append(("slope in N", f"{last.slope:.2f}".replace("-", "−"), f"{where}; {low} to {high}"))
    return entries


def _order_section(page: Any, dataset: Any, config: Config, summary: Summary) -> None:
    text = (
        "θ_i′ = ω_i + (K/N) Σ_j a_ij sin(θ_j − θ_i), with a_ij the weight of the edge j → i"
        f"{' and white noise √(2D) ξ_i' if config.noise > 0 else ''}; r is the modulus of the mean of exp(iθ), averaged over "
        f"time {config.burn_in:g} to {config.num_readings * config.reading_interval:g}. The curve is the "
        "stationary state of the limit of many oscillators, in which every label x feels the field h(x) = ∫ z(y) η^x(dy)."
    )
    if math.isfinite(summary.critical):
        text += " The dashed line is the coupling at which the incoherent state of the limit loses stability."
    elif math.isinf(summary.critical):
        text += (
            " There is no threshold: the spectrum of this directed graph is {0}, so that the incoherent state is linearly stable "
            "at any coupling, and what is seen of r is transient or of finite size."
        )
    if summary.onset.method == "matched curve":
        text += (
            " The measured onset stretches the curve of the limit to the r of the largest size, above r = 0.15: it is the "
            "critical coupling of the limit whose curve fits best, not a direct sight of the transition, which a finite system "
            "smears."
        )
    page.section("Order parameter against coupling", text)
    page.figure(
        order_figure(dataset),
        "Dots: means over the seeds with their standard errors. Solid line: the limit.",
        alt="Order parameter against coupling for several sizes with the curve of the limit and the critical coupling.",
    )
    for sentence in validity(summary, config):
        page.text(f"Note. {sentence}")


def _fluctuation_section(page: Any, dataset: Any) -> None:
    add_figure_section(
        page,
        fluctuation_figure(dataset),
        "Fluctuations below the onset",
        "Let v be the leading left eigenvector of the graph, of norm one, and u the phasors. In the incoherent state "
        "1 / E|v · u|² = 1 − K/Kc for many oscillators (derived here); on regular graphs v · u is √N times the mean phasor. The "
        "line through 1 at K = 0 is fitted between 0.45 and 0.85 of the predicted value and meets zero at the measured one.",
        "Dots: inverse fluctuations with standard errors over the seeds. Line: the prediction.",
        alt="Inverse fluctuations against the coupling: a falling straight line that ends at the critical coupling.",
    )


def _approach_section(page: Any, dataset: Any, summary: Summary) -> None:
    sparse = any(degree < size / 2 for degree, size in zip(summary.mean_degrees, summary.sizes, strict=True))
    add_figure_section(
        page,
        approach_figure(dataset),
        "The approach to the limit",
        "Distances |r − limit|, root mean squares over the couplings of each range. Independent oscillators give the slope −1/2; "
        "within 10 % of the critical coupling the approach is slower. Slopes are fitted over sizes and seeds, each seed one "
        "observation, with intervals of 95 %."
        + (
            " At a fixed mean degree d the approach ends at a distance of the order 1/d, since the limit is that of dense graphs."
            if sparse
            else ""
        ),
        "Pale dots: seeds. Dots: root mean squares over them.",
        alt="Distance from the limit against the number of oscillators on logarithmic axes.",
    )


def _profile_section(page: Any, dataset: Any, config: Config) -> None:
    add_figure_section(
        page,
        profile_figure(dataset),
        "Who is synchronised",
        "The mean phasor of the nodes near each label, along the mean phasor of all. In the limit it is |z(x)|; where all labels "
        "are driven alike it is the same for all.",
        "Dots: averages over time and seeds in bins of labels, with standard errors. Line: the limit.",
        alt="Local order parameter by label at several couplings against the limit.",
    )


def _relaxation_section(page: Any, dataset: Any, config: Config) -> None:
    start = "all phases equal" if config.start == "coherent" else "independent uniform phases"
    page.section("Relaxation", f"Runs start from {start}.")
    page.figure(
        relaxation_figure(dataset),
        "The order parameter of the largest size, mean over the seeds.",
        alt="Order parameter against time for all couplings.",
    )


def _table_section(page: Any, config: Config, summary: Summary) -> None:
    page.section(
        "Every coupling",
        "A coupling follows the limit if |r − limit| at the largest size is at most 2 / √(N |1 − K/Kc|), three over the mean "
        "degree, or three standard errors. Within 10 % of the critical coupling nothing is judged. A size follows the limit if "
        "nine of ten couplings do.",
    )
    rows = [[*row[:-1], report.Chip(row[-1], _TONES[row[-1]])] for row in table_rows(summary)]
    page.table([*columns(summary)], rows, caption="Means over seeds and standard errors.")
    page.table(
        ["oscillators", "mean degree", "critical coupling by its eigenvalue", "verdict"],
        [
            [size, float(degree), value if math.isfinite(value) else None, report.Chip(verdict, _TONES[verdict])]
            for size, degree, value, verdict in zip(
                summary.sizes, summary.mean_degrees, summary.finite_critical, summary.verdicts, strict=True
            )
        ],
        caption="The graphs that were run. The third column takes the leading eigenvalue of each graph itself.",
    )
