"""The report of the flow experiment: one HTML page made of the pieces of `dynjax.report`."""

import json
import os
from typing import Any

import numpy as np

from ... import report
from .._provenance import add_provenance
from .._report_parts import add_figure_section
from ._figures import best_cells, decision_figure, distance_figure, loss_figure, sample_figure, stiffness_figure
from ._summary import CLOSE, COLUMNS, VERDICTS, Cell, summarise, table_rows

_TARGETS = {
    "ring": "eight modes on a circle of radius 2",
    "pair": "two modes at distance 4",
    "grid": "three by three modes, 2 apart",
}


def write_report(dataset: Any, path: str | os.PathLike[str]) -> None:
    """Write the page of the flow experiment: one self-contained HTML file.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.
        path: where to write it; the file appears whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    config, cells = json.loads(dataset.attrs["config"]), summarise(dataset)
    page = report.Page(
        "From noise to data, and how",
        f"Flows from normal noise to {_TARGETS[config['target']]} of variance {config['variance']:g}: {dataset.sizes['lane']} "
        f"networks with {config['num_layers']} hidden layers of {config['width']} units, each trained for "
        f"{config['num_steps']} steps and compared with the exact flow",
    )
    page.headline(_headline(dataset, cells))
    _sample_section(page, dataset)
    _loss_section(page, dataset, config)
    _distance_section(page, dataset, config)
    _decision_section(page, dataset)
    _stiffness_section(page, dataset)
    _table_section(page, cells)
    add_provenance(page, dataset)
    page.write(path)


def _headline(dataset: Any, cells: list[Cell]) -> list[tuple[str, str, str | None]]:
    entries: list[tuple[str, str, str | None]] = []
    for cell in best_cells(dataset):
        note = (
            f"is W2 to the target over that between two samples of it; divergence {cell.divergence:.2g}, at the learning rate "
            f"{cell.learning_rate:g}"
        )
        entries.append((cell.kind, f"{cell.ratio:.2f}", note))
    impossible = sum(cell.verdict == "below the floor" for cell in cells)
    if impossible:
        entries.append(("below the floor", str(impossible), "rows of the table report losses that no field can have"))
    failed = sum(cell.failed for cell in cells)
    if failed:
        entries.append(("not finite", str(failed), "networks overflowed in training"))
    return entries


def _sample_section(page: Any, dataset: Any) -> None:
    add_figure_section(
        page,
        sample_figure(dataset),
        "Samples, and the paths that lead there",
        "Sampling solves x' = u(t, x) from standard normal noise to the data. Flow matching (Lipman et al., 2023) trains u "
        "itself, along straight lines between noise and data; a diffusion (Song et al., 2021) trains the score of its law, from "
        "which u follows.",
        "A sample of the target, and samples of both kinds at their best learning rate, coloured by the mode where they end, "
        "with some of the paths.",
        alt="Three panels of points around the modes; in two of them curves lead there from the centre.",
    )


def _loss_section(page: Any, dataset: Any, config: dict[str, Any]) -> None:
    add_figure_section(
        page,
        loss_figure(dataset),
        "The loss, and what it cannot fall below",
        "The loss of the exact field is not 0, as a state on the way does not tell where it came from and where it will go. What "
        "counts is the loss above that: the mean squared error of the field. It is measured in two ways on the same draws: as "
        "the difference of two losses, which by chance may be negative, and directly.",
        f"Mean squared error per dimension against the exact field, on {config['num_tests']} draws; medians over the seeds. For "
        "a diffusion it is that of the noise it predicts.",
        alt="Falling curves, one for each learning rate.",
    )


def _distance_section(page: Any, dataset: Any, config: dict[str, Any]) -> None:
    add_figure_section(
        page,
        distance_figure(dataset),
        "How close are the laws?",
        f"Two samples of {config['num_samples']} points of one law have a Wasserstein distance too, mostly because they hold "
        f"different numbers of points in each mode. A model within {CLOSE:g} times that distance counts as close. The divergence "
        "E_p [log p - log q] sees what the distance does not: it compares the exact density with that of the model, which is "
        "known from the divergence of the field along the path (Chen et al., 2018).",
        f"Left: W2, dots for single runs, lines for medians, shaded up to {CLOSE:g}. Right: Kullback-Leibler divergence with "
        "three standard errors; the scale is linear below 0.05.",
        alt="Distances and divergences over the learning rate.",
    )


def _decision_section(page: Any, dataset: Any) -> None:
    add_figure_section(
        page,
        decision_figure(dataset),
        "When is it decided?",
        "A trajectory commits to its mode when the responsibility of that mode rises above 0.9 for good. On the clock of the "
        "noise level b / a, the noise over the signal in x_t = a x + b z, both exact flows are the same flow, and so their "
        "curves coincide. Speciation is the level at which the centre of the law stops being its mode (Raya and Ambrogioni, "
        "2023). Right: how much each trajectory stretched its surroundings, the first finite-time Lyapunov exponent times the "
        "duration. Where points lie on the diagonal a network has learnt the dynamics and not only the law.",
        "Left: the part of trajectories that has committed. Right: stretching of the same noise by the trained and exact flows.",
        alt="Cumulative curves over the noise level, and a cloud of points around the diagonal.",
    )


def _stiffness_section(page: Any, dataset: Any) -> None:
    add_figure_section(
        page,
        stiffness_figure(dataset),
        "Stiffness",
        "The norm of the Jacobian bounds the step of an explicit method. It rises towards the data, in flow matching like 1 / (1 "
        "- t) until 1 - t is about the width of a mode.",
        "The largest norm over paths and seeds, for trained and exact fields, and the bound of the exact field over the plane.",
        alt="Norms over the part of the path, rising towards its end.",
    )


def _table_section(page: Any, cells: list[Cell]) -> None:
    page.section(
        "Every kind and learning rate",
        "Floor: the loss of the exact field. Loss above it: with its standard error; more than four of them below 0 would be an "
        "error of the program. Least mode: the share of samples in the emptiest mode over its weight; below a quarter a mode is "
        "missed. Commits at: median noise level.",
    )
    rows = [
        [*row[:-1], report.Chip(row[-1], VERDICTS[cell.verdict])]
        for row, cell in zip(table_rows(cells), cells, strict=True)
    ]
    columns = [{"divergence": "divergence (KL)", "W2 / sample": "W₂ / sample"}.get(name, name) for name in COLUMNS]
    unfinished = [row for row, cell in zip(rows, cells, strict=True) if np.isnan(cell.excess)]
    caption = "All runs, means or medians over the seeds." + (
        " Dashes: not computed yet, or not finite." if unfinished else ""
    )
    page.table(columns, rows, caption=caption)
