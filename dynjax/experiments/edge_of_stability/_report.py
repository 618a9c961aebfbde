"""The report of a sweep: one HTML page made of the pieces of `dynjax.report`."""

import json
import os
from typing import Any

import numpy as np

from ... import report
from ..._core import Status
from .._provenance import add_provenance
from ._summary import BAND, COLUMNS, CROSSING, RISES, LaneSummary, local_exponents, summarise, table_rows

_TONES = {
    "at the edge": "good",
    "below the edge": "neutral",
    "reached the edge late": "special",
    "crossed, no oscillation": "warning",
    "unfinished": "warning",
    "diverged": "bad",
}
_OPTIMIZERS = {
    "gd": "gradient descent",
    "heavy-ball": "heavy ball",
    "nesterov": "Nesterov",
    "adam": "Adam",
    "rmsprop": "RMSProp",
}
_LOWEST_EXPONENT = -2.0
_GRID = 512  # points of a drawn spectral density


def write_report(dataset: Any, path: str | os.PathLike[str]) -> None:
    """Write the page of an edge-of-stability sweep: one self-contained HTML file.

    Args:
        dataset: what `dynjax.sweep.open` returns for an edge-of-stability store.
        path: where to write it; the file appears whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    config = json.loads(dataset.attrs["config"])
    summaries = summarise(dataset)
    page = report.Page("Edge of stability", _subtitle(config, summaries))
    page.headline(_headline(summaries))
    _training_section(page, dataset, config)
    _ratio_section(page, dataset, summaries)
    exponents = local_exponents(dataset)
    if exponents is not None:
        _exponent_section(page, dataset, exponents)
    if "density_nodes" in dataset:
        _density_section(page, dataset, summaries)
    _table_section(page, summaries)
    add_provenance(page, dataset)
    page.write(path)


def _subtitle(config: dict[str, Any], summaries: list[LaneSummary]) -> str:
    rates = [lane.learning_rate for lane in summaries]
    optimizer = _OPTIMIZERS.get(config["optimizer"], config["optimizer"])
    return (
        f"{optimizer} on {config['task']}, {config['loss']} loss, {config['num_steps']} steps, "
        f"{len(summaries)} lanes, learning rates {min(rates):g} to {max(rates):g}"
    )


def _headline(summaries: list[LaneSummary]) -> list[tuple[str, str, str]]:
    at_edge = [lane for lane in summaries if lane.verdict == "at the edge"]
    ended = [lane for lane in summaries if lane.status in (Status.DIVERGED, Status.NONFINITE)]
    ratios = [lane.edge_ratio for lane in at_edge]
    middle = f"{np.median(ratios):.3f}" if ratios else "-"
    spread = f"lanes at the edge, from {min(ratios):.3f} to {max(ratios):.3f}" if ratios else "no lane at the edge"
    residuals = [lane.worst_residual for lane in summaries if np.isfinite(lane.worst_residual)]
    worst = f"{max(residuals):.1e}" if residuals else "-"
    return [
        ("at the edge", f"{len(at_edge)} of {len(summaries)}", "lanes"),
        ("median edge ratio", middle, spread),
        ("diverged", str(len(ended)), "lanes"),
        ("largest residual", worst, "of all sharpness readings, relative"),
    ]


def _training_section(page: Any, dataset: Any, config: dict[str, Any]) -> None:
    law = "2/learning rate" if config["optimizer"] in ("gd", "rmsprop") else "the optimiser's threshold"
    kind = _kind(dataset)
    page.section(
        "Loss and sharpness",
        f"The {kind}, the largest eigenvalue of the Hessian of the training loss, rises while the loss falls, until it meets "
        f"the dashed line of its lane, {law}, above which a step of the optimiser is no longer stable along the top "
        "eigenvector. From there on the loss falls without being monotone.",
    )
    figure = training_figure(dataset)
    page.figure(
        figure,
        "Training loss (above) and " + kind + " (below) of every lane; dashed, the stability threshold of its lane.",
        alt=f"Loss falling and {kind} rising to the threshold, one line for each learning rate.",
    )
    if "batch_sharpness" in dataset:
        _batch_figure(page, dataset)


def training_figure(dataset: Any) -> Any:
    """Loss and sharpness against step, one line for each lane in the colour of its learning rate, thresholds dashed.

    Args:
        dataset: what `dynjax.sweep.open` returns for an edge-of-stability store.

    Returns:
        A `matplotlib.figure.Figure`.
    """
    values = dataset.learning_rate.values
    figure, (top, bottom) = report.panels(2, height=3.4, share_x=True)
    report.curves(
        dataset.step.values,
        dataset.loss.values,
        ax=top,
        values=values,
        log_y=True,
        y_label="training loss",
        x_label="",
        show_values=False,
    )
    report.curves(
        dataset.reading.values,
        _compared(dataset),
        ax=bottom,
        values=values,
        thresholds=dataset.threshold.values,
        threshold_label="stability threshold",
        log_y=True,
        y_label=_kind(dataset),
    )
    return figure


def _kind(dataset: Any) -> str:
    return "preconditioned sharpness" if "preconditioned_sharpness" in dataset else "sharpness"


def _compared(dataset: Any) -> np.ndarray:
    """The curvature that is compared with the threshold: preconditioned where the optimiser is."""
    name = "preconditioned_sharpness" if "preconditioned_sharpness" in dataset else "sharpness"
    return dataset[name].values


def _batch_figure(page: Any, dataset: Any) -> None:
    figure, ax = report.panels(height=2.9)
    report.curves(
        dataset.reading.values,
        dataset.batch_sharpness.values,
        ax=ax,
        values=dataset.learning_rate.values,
        thresholds=dataset.threshold.values,
        threshold_label="stability threshold",
        y_label="batch sharpness",
    )
    page.figure(
        figure,
        "Batch sharpness, the mean over batches of g.Hg / g.g with gradient and Hessian of the same batch.",
        alt="Batch sharpness against step, one line for each learning rate.",
    )


def _ratio_section(page: Any, dataset: Any, summaries: list[LaneSummary]) -> None:
    page.section(
        "Edge ratio",
        "The edge ratio is the (preconditioned) sharpness divided by the optimiser's threshold: 1 is the edge for every "
        f"optimiser. A lane is called at the edge when its ratio passed {CROSSING} before half time and its loss rises on at "
        f"least {RISES:.0%} of the steps after that; its median over the last half is then expected between {BAND[0]} and "
        f"{BAND[1]}.",
    )
    half = dataset.sizes["reading"] // 2
    figure, ax = report.panels(height=3.1)
    report.ratio_against(
        dataset.learning_rate.values,
        dataset.edge_ratio.values[:, half:],
        ax=ax,
        verdicts=[lane.verdict for lane in summaries],
        tones=_tones(summaries),
        band=BAND,
    )
    page.figure(
        figure,
        "Median and 5-95 % range of the edge ratio over the last half of the readings, against the learning rate.",
        alt="Edge ratio against learning rate with a band around one.",
    )
    if len({lane.learning_rate for lane in summaries}) > 2:
        figure, ax = report.panels(height=3.1)
        report.heat_map(
            dataset.reading.values,
            dataset.learning_rate.values,
            dataset.edge_ratio.values,
            ax=ax,
            limits=(0.0, 1.25),
            crossing=CROSSING,
            log_y=True,
            value_label="edge ratio",
        )
        page.figure(
            figure,
            f"Progressive sharpening: the edge ratio over step and learning rate; marked, the first crossing of {CROSSING}.",
            alt="Heat map of the edge ratio.",
        )


def _exponent_section(page: Any, dataset: Any, exponents: np.ndarray) -> None:
    page.section(
        "Local exponent of the training map",
        "A step of gradient descent has the tangent I - (learning rate) H. Along the top eigenvector of the Hessian H, with "
        "eigenvalue h, and with H frozen at its value of the reading, a displacement grows by log |1 - (learning "
        "rate) h| per "
        "step. At the edge of stability this local exponent is zero: training moves to where its own map is neither "
        "stable nor "
        "unstable. It is computed from the recorded sharpness. The Lyapunov exponents of a run are those of the "
        "product of all its "
        "tangents and are not shown here.",
    )
    figure, ax = report.panels(height=3.1)
    report.curves(
        dataset.reading.values,
        exponents,
        ax=ax,
        values=dataset.learning_rate.values,
        y_label="log |1 - (learning rate) h|",
    )
    seen = exponents[np.isfinite(exponents)]
    if seen.size:
        # Where h passes 1 / (learning rate) the logarithm has a pole, which must not set the scale.
        ax.set_ylim(max(float(seen.min()), _LOWEST_EXPONENT) - 0.1, float(np.quantile(seen, 0.995)) + 0.1)
    ax.axhline(0, color="#22262b", linewidth=0.9, zorder=1.5)
    page.figure(
        figure,
        "Local exponent of gradient descent along the top eigenvector at every reading, shown from "
        f"{_LOWEST_EXPONENT:g} upwards.",
        alt="Local exponent of the training map against the step, one line for each learning rate, with a line at zero.",
    )


def _tones(summaries: list[LaneSummary]) -> dict[str, str]:
    return {lane.verdict: _TONES.get(lane.verdict, "warning") for lane in summaries}


def _density_section(page: Any, dataset: Any, summaries: list[LaneSummary]) -> None:
    nodes, weights = dataset.density_nodes.values, dataset.density_weights.values
    shown = [i for i, lane in enumerate(summaries) if np.all(np.isfinite(nodes[i])) and lane.stop_step < 0]
    if not shown:
        return
    shown = sorted(shown, key=lambda i: (summaries[i].learning_rate, summaries[i].seed))
    page.section(
        "Spectral density of the Hessian",
        "At the last step, by stochastic Lanczos quadrature: most eigenvalues lie in a bulk near zero, and a few "
        "outliers stand "
        "at the threshold.",
    )
    grid = np.linspace(nodes[shown].min(), 1.05 * nodes[shown].max(), _GRID)
    width = 0.01 * (grid[-1] - grid[0])
    density = np.stack([_broaden(grid, nodes[i], weights[i], width) for i in shown])
    raw = [float(dataset.sharpness.values[i][-1] / dataset.edge_ratio.values[i][-1]) for i in shown]
    figure, ax = report.panels(height=max(2.6, 0.36 * len(shown) + 1.2))
    report.densities(
        grid,
        density,
        ax=ax,
        values=[summaries[i].learning_rate for i in shown],
        markers=raw,
        marker_label="sharpness at the edge",
        x_label="eigenvalue of the Hessian",
    )
    page.figure(
        figure,
        f"Spectral density of every lane that ran to its end, logarithmic heights, Gaussian width {width:.2g}.",
        alt="Spectral densities as ridges, one for each learning rate.",
    )


def _broaden(grid: np.ndarray, nodes: np.ndarray, weights: np.ndarray, width: float) -> np.ndarray:
    """The mean over probes of the quadrature, each node a Gaussian of the given width."""
    distance = (grid[:, None] - nodes.reshape(1, -1)) / width
    kernel = np.exp(-0.5 * distance**2) / (width * np.sqrt(2 * np.pi))
    return kernel @ weights.reshape(-1) / len(nodes)


def _table_section(page: Any, summaries: list[LaneSummary]) -> None:
    page.section("Every lane")
    tones = _tones(summaries)
    rows = [
        [*row[:-1], report.Chip(row[-1], tones[lane.verdict]), lane.status.name.lower()]
        for row, lane in zip(table_rows(summaries), summaries, strict=True)
    ]
    page.table(
        [*COLUMNS, "status"],
        rows,
        caption="Threshold, median sharpness and edge ratio over the last half of the readings, and the verdict.",
    )
