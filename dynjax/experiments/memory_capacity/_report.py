"""The report of the memory experiment: one HTML page made of the pieces of `dynjax.report`."""

import json
import os
from typing import Any

import numpy as np

from ... import report
from .._provenance import add_provenance
from .._report_parts import add_figure_section
from ._figures import error_figure, maps_figure, phase_figure
from ._summary import COLUMNS, Cell, summarise, table_rows
from ._targets import TARGETS

_TONES = {
    "respects the bound": "good",
    "learnt": "good",
    "beyond the bound": "neutral",
    "not learnt": "warning",
    "unfinished": "warning",
    "violates the bound": "bad",
}


def write_report(dataset: Any, path: str | os.PathLike[str]) -> None:
    """Write the page of the memory experiment: one self-contained HTML file.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.
        path: where to write it; the file appears whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    config, cells = json.loads(dataset.attrs["config"]), summarise(dataset)
    formula = TARGETS[config["target"]].formula
    page = report.Page(
        f"Which delay equations can learn {formula}?",
        f"y'(t) = F(t, y(t), y(t − τ)) with a hard Lipschitz bound K, constant past x in [−1, 1], output an affine readout of "
        f"y(T): {dataset.sizes['lane']} networks trained by {config['num_steps']:,} steps of Adam",
    )
    page.headline(_headline(cells, config))
    _diagram_section(page, dataset, cells, formula)
    _error_section(page, dataset, config, cells)
    _maps_section(page, dataset, formula)
    _table_section(page, config, cells)
    add_provenance(page, dataset)
    page.write(path)


def _headline(cells: list[Cell], config: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    under = [cell for cell in cells if cell.injective and cell.num_networks]
    over = [cell for cell in cells if not cell.injective and cell.num_networks]
    entries: list[tuple[str, str, str | None]] = []
    if cells[0].bound > 0:
        entries.append(
            ("best monotone map", f"{cells[0].bound:.4g}", "mean square error that no injective network can beat")
        )
        good = sum(cell.verdict == "respects the bound" for cell in under)
        entries.append(("below the curve", f"{good} of {len(under)}", "pairs at or above that error, as proven"))
    good = sum(cell.verdict == "learnt" for cell in over)
    entries.append(
        ("above the curve", f"{good} of {len(over)}", f"pairs with an error of at most {config['tolerance']:g}")
    )
    shrinkage = [cell.shrinkage for cell in cells if np.isfinite(cell.shrinkage)]
    if shrinkage:
        entries.append(("smallest slope / w(T)", f"{min(shrinkage):.4f}", "below the curve; theory: at least 1"))
    return entries


def _diagram_section(page: Any, dataset: Any, cells: list[Cell], formula: str) -> None:
    page.section(
        "The phase diagram",
        "Let w solve w'(t) = −K w(t − τ) with w = 1 on the past, and let T* be its first zero. Differences of two solutions with "
        "constant pasts cannot shrink below w(t) times their start, whatever F is as long as its Lipschitz constant is at most "
        "K in the sup norm. Before T* the state is therefore an injective function of the input, and a scalar network is "
        f"monotone, which {formula} {'is too' if cells[0].bound == 0 else 'is not'}. After T* every Lipschitz map is "
        "represented exactly by some F, at the price of a large readout gain. For Kτ at most 1/e there is no such time.\n\n"
        "The notion of memory capacity Kτ and the non-approximation for small Kτ are due to Kuehn and Kuntz "
        "(arXiv:2505.07244, 2025); the sharp curve is derived here.",
    )
    page.figure(
        phase_figure(dataset),
        "Shaded: the state is injective. Faint lines: the smallest slope w(T) that it keeps there. Dots: the best of the trained "
        "networks at each pair, coloured by its mean square error.",
        alt="Phase diagram over memory capacity and horizon with the predicted curve and trained networks as dots.",
    )


def _error_section(page: Any, dataset: Any, config: dict[str, Any], cells: list[Cell]) -> None:
    text = (
        "Every dot is a network, every line joins the best ones. The error is the integral over [−1, 1], by Gauss-Legendre "
        f"quadrature at {4 * config['num_nodes']} nodes with four times the time steps of training: the lower bound holds for "
        "the integral and for exact solutions, and a few samples or coarse steps would undercut it."
    )
    if cells[0].bound > 0:
        text += (
            " Below the threshold training stops above the bound, since slopes of at least w(T) must be kept; some seeds end in "
            "a poorer local minimum, in which the state expands."
        )
    page.section("The error across the threshold", text)
    page.figure(
        error_figure(dataset),
        "Mean square error against the memory capacity, with the predicted threshold of each horizon (dashed), and the same in "
        "units of the threshold.",
        alt="Mean square error against K tau for every horizon; it drops at the predicted thresholds.",
    )


def _maps_section(page: Any, dataset: Any, formula: str) -> None:
    add_figure_section(
        page,
        maps_figure(dataset),
        "The maps on both sides",
        "The pairs next to the threshold: on the left below it, on the right above it.",
        f"{formula} (dashed), the best network (solid) and the other seeds (thin).",
        alt="Learnt maps below and above the threshold against the target.",
    )


def _table_section(page: Any, config: dict[str, Any], cells: list[Cell]) -> None:
    page.section(
        "Every pair",
        f"A map is learnt if the error of the best of {config['num_seeds']} networks is at most {config['tolerance']:g}. "
        "Above the threshold theory says that some field reaches any accuracy, not that training finds it; close to it the gain "
        "that this needs grows without bound.",
    )
    rows = [
        [*row[:-1], report.Chip(row[-1], _TONES[cell.verdict])]
        for row, cell in zip(table_rows(cells), cells, strict=True)
    ]
    page.table([*COLUMNS], rows, caption="Errors of the networks of each pair; slope / w(T) is at least 1 by theory.")
