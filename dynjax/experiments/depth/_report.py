"""The report of the depth experiment: one HTML page made of the pieces of `dynjax.report`."""

import json
import os
from typing import Any

import numpy as np

from ... import report
from .._provenance import add_provenance
from .._report_parts import add_figure_section
from ._figures import exponent_figure, gradient_figure, trainability_figure, training_figure
from ._prediction import critical_variance
from ._summary import COLUMNS, TRAINED, VERDICTS, Cell, summarise, table_rows

_NAMES = {"tanh": "tanh", "relu": "max(0, ·)", "identity": "the identity"}


def write_report(dataset: Any, path: str | os.PathLike[str]) -> None:
    """Write the page of the depth experiment: one self-contained HTML file.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.
        path: where to write it; the file appears whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    config, cells = json.loads(dataset.attrs["config"]), summarise(dataset)
    page = report.Page(
        "How deep can gradients go?",
        f"Plain networks h → φ(W h + b), φ = {_NAMES[config['activation']]}, of width {config['width']} with {config['law']} "
        f"weights of variance σ_w² / width and biases of variance {config['bias_variance']:g}: {dataset.sizes['lane']} networks "
        f"of {min(config['depths'])} to {max(config['depths'])} layers",
    )
    page.headline(_headline(config, cells))
    _exponent_section(page, dataset, config)
    _gradient_section(page, dataset)
    _trainability_section(page, dataset, config)
    _training_section(page, dataset, config)
    _table_section(page, config, cells)
    add_provenance(page, dataset)
    page.write(path)


def _headline(config: dict[str, Any], cells: list[Cell]) -> list[tuple[str, str, str | None]]:
    done = [cell for cell in cells if cell.num_lanes]
    edge = critical_variance(config["activation"], config["bias_variance"])
    entries: list[tuple[str, str, str | None]] = [
        ("edge of chaos", f"σ_w² = {edge:.5g}", "where perturbations neither grow nor shrink, at infinite width")
    ]
    exact = any(np.isfinite(cell.finite_width) for cell in done)
    gaps = [cell.exponent - (cell.finite_width if exact else cell.mean_field) for cell in done]
    gaps = [gap for gap in gaps if np.isfinite(gap)]
    if gaps:
        where = "the exact exponent at this width" if exact else "infinite width"
        entries.append(
            ("exponents", f"{np.mean(gaps):+.3f}", f"per layer from {where}, mean over the weight variances")
        )
    deep = [cell.trained_depth for cell in done]
    if deep:
        best = max(deep)
        there = [f"{cell.weight_variance:g}" for cell in done if cell.trained_depth == best]
        span = there[0] if len(there) == 1 else f"{there[0]} to {there[-1]}"
        note = f"layers, at σ_w² = {span}: the median network of all seeds reaches {TRAINED:.0%} accuracy"
        entries.append(("trained", f"{best}", note if best else f"none reaches {TRAINED:.0%} accuracy"))
    failed = sum(cell.failed for cell in done)
    if failed:
        entries.append(("not finite", f"{failed}", "networks overflowed"))
    return entries


def _exponent_section(page: Any, dataset: Any, config: dict[str, Any]) -> None:
    add_figure_section(
        page,
        exponent_figure(dataset),
        "The edge",
        "The first Lyapunov exponent of the layer-to-layer maps is the rate at which a small perturbation of a hidden state "
        "grows with depth. In an infinitely wide random network it is (1/2) log χ₁, χ₁ = σ_w² E φ'(√q z)², where q is the "
        "variance that signals settle at (Schoenholz, Gilmer, Ganguli and Sohl-Dickstein, arXiv:1611.01232, 2017). Finite "
        "networks lie below it by an amount of order 1 / width.",
        f"The first exponent before training, from the second half of {max(config['depths'])} layers, means over "
        f"{config['num_seeds']} networks, and the curve of infinitely wide ones.",
        alt="Exponents over the weight variance, rising through zero near the edge of chaos.",
    )


def _gradient_section(page: Any, dataset: Any) -> None:
    add_figure_section(
        page,
        gradient_figure(dataset),
        "Gradients, layer by layer",
        "Backpropagation runs through the same derivatives, transposed and in reverse order: a gradient in a random direction "
        "at the top changes on its way back at the rate of the first exponent.",
        "Norms of the gradient with respect to the hidden states over that at the top, mean logarithms over probes and seeds. "
        "Dashed: the predicted slopes (exact at this width where that is known). Right: the same networks after training.",
        alt="Norms of gradients over the layers as straight lines, before training, and after it.",
    )


def _trainability_section(page: Any, dataset: Any, config: dict[str, Any]) -> None:
    add_figure_section(
        page,
        trainability_figure(dataset),
        "Depths that can be trained",
        f"Each network gets {config['num_steps']} steps of Adam at the rate {config['learning_rate']:g} to tell two spirals "
        "apart. What a network cannot tell apart at its top it cannot learn: correlations between inputs approach their fixed "
        "point like exp(-l / ξ). Schoenholz et al. found networks to train up to some 6 ξ.",
        "Median accuracy over the seeds; 0.5 is chance. Lines: the correlation depth ξ of infinitely wide networks, and six "
        "times that.",
        alt="Accuracy over weight variance and depth: deep networks train near the edge of chaos alone.",
    )


def _training_section(page: Any, dataset: Any, config: dict[str, Any]) -> None:
    add_figure_section(
        page,
        training_figure(dataset),
        "What training does to exponents",
        "A network that has learnt to sort inputs into two classes has made them alike within each class: its exponents have "
        "fallen, and gradients of trained networks are smaller below than above.",
        f"Left: every network as a point, coloured by its accuracy. Right: losses of networks with {max(config['depths'])} "
        "layers, medians over the seeds; dashed: log 2, that of a network that does not see its input.",
        alt="Exponents after training against those before, and losses over the steps.",
    )


def _table_section(page: Any, config: dict[str, Any], cells: list[Cell]) -> None:
    page.section(
        "Every weight variance",
        f"Exponents at {max(config['depths'])} layers, with their standard error from seed to seed. Log change is that of the "
        "gradient from the top to the input of these layers; within a factor of ten it counts as balanced. Memory is the "
        "correlation depth ξ in layers. Trained to: the largest depth at which the median network is trained.",
    )
    kept = [
        i
        for i, name in enumerate(COLUMNS[:-1])
        if name != "this width" or any(np.isfinite(cell.finite_width) for cell in cells)
    ]
    rows = [
        [*(row[i] for i in kept), report.Chip(row[-1], VERDICTS[cell.verdict])]
        for row, cell in zip(table_rows(cells), cells, strict=True)
    ]
    columns = [{"sigma_w^2": "σ_w²"}.get(COLUMNS[i], COLUMNS[i]) for i in kept] + [COLUMNS[-1]]
    page.table(
        columns, rows, caption="Networks before training against infinitely wide ones, and what could be trained."
    )
