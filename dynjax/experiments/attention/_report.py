"""The report of the attention experiment: one HTML page made of the pieces of `dynjax.report`."""

import json
import os
from typing import Any

import numpy as np

from ... import report
from .._provenance import add_provenance
from .._report_parts import add_figure_section
from ._figures import energy_figure, growth_figure, space_time_figure, staircase_figure
from ._lane import read_lane
from ._summary import COLUMNS, VERDICTS, Cell, summarise, table_rows

_EQUATION = {
    "usa": "x_i' = P_i (1/n) Σ_j exp(β⟨x_i, x_j⟩) x_j",
    "sa": "x_i' = P_i Σ_j softmax_j(β⟨x_i, x_j⟩) x_j",
}


def write_report(dataset: Any, path: str | os.PathLike[str]) -> None:
    """Write the page of the attention experiment: one self-contained HTML file.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.
        path: where to write it; the file appears whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    config, cells = json.loads(dataset.attrs["config"]), summarise(dataset)
    place = "the circle" if config["dimension"] == 2 else f"the unit sphere of R^{config['dimension']}"
    page = report.Page(
        "How many clusters do tokens form?",
        f"Self-attention {_EQUATION[config['kind']]} on {place}, P_i the projection to the tangent space: "
        f"{dataset.sizes['lane']} runs with {config['num_tokens']} tokens each"
        + (f", noise {config['noise']:g} of the threshold" if config["noise"] else ""),
    )
    page.headline(_headline(dataset, config, cells))
    _staircase_section(page, dataset, config)
    _picture_section(page, dataset)
    _energy_section(page, dataset, config)
    _growth_section(page, dataset, config)
    _table_section(page, config, cells)
    add_provenance(page, dataset)
    page.write(path)


def _headline(dataset: Any, config: dict[str, Any], cells: list[Cell]) -> list[tuple[str, str, str | None]]:
    done = [cell for cell in cells if cell.num_lanes]
    entries: list[tuple[str, str, str | None]] = []
    if config["dimension"] == 2:
        good = sum(VERDICTS[cell.verdict] == "good" for cell in done)
        entries.append(
            ("as predicted", f"{good} of {len(done)}", "inverse temperatures, by the majority of their runs")
        )
        off = [abs(cell.fitted / cell.growth - 1) for cell in done if np.isfinite(cell.fitted)]
        if off and not config["noise"]:
            entries.append(("growth rate", f"{max(off):.1e}", "largest relative deviation from the prediction"))
    lives = [cell.lifetime for cell in done if np.isfinite(cell.lifetime)]
    if lives and not config["noise"]:
        note = "life of the first plateau, in units of 1 / fastest rate, medians over seeds"
        entries.append(("plateaus live for", f"{min(lives):.3g} to {max(lives):.3g}", note))
    ended = sum(n == 1 for cell in done for n in cell.final)
    runs = sum(cell.num_lanes for cell in done)
    entries.append(("one cluster", f"{ended} of {runs}", f"runs, after {config['time']:g} units of time"))
    if not config["noise"]:
        lanes = [read_lane(dataset, number) for number in range(dataset.sizes["lane"])]
        drops = [lane.energy_drop for lane in lanes if lane.finished]
        if drops:
            entries.append(("largest energy loss", f"{max(drops):.1e}", "relative; in theory the energy never falls"))
    return entries


def _staircase_section(page: Any, dataset: Any, config: dict[str, Any]) -> None:
    over = "" if config["kind"] == "usa" else ", here divided by I_0(β)"
    text = (
        "Tokens at rest everywhere on the circle are in equilibrium, and an unstable one: the k-th Fourier mode of their "
        f"density grows at the rate k² (I_k(β)/β − D){over} (derived here), where I_k is a modified Bessel function and D the "
        "noise. The mode that grows fastest wins, and leaves as many clusters: about √(2β) of them. These are not at rest "
        "either. Equal clusters at equal distances pull at each other from all sides in balance, which small differences "
        "undo at a much smaller rate; then two of them merge.\n\n"
        "That attention forms such metastable clusters, and their number, is from Bruno, Pasqualotto and Agazzi "
        "(arXiv:2410.23228, 2024)."
    )
    if config["dimension"] != 2:
        text = (
            "Clusters are counted when tokens have gathered in tight groups for the first time. On higher spheres "
            "no number is predicted here; for almost every start a single cluster is left in the end (Geshkovski, Letrouit, "
            "Polyanskiy and Rigollet, arXiv:2312.10794, 2023). The unit of time is that of the circle."
        )
    page.section("The number of clusters", text)
    caption = (
        "Above: predicted number of clusters (line), dominant mode during growth (crosses) and clusters on the first "
        "plateau (dots; the larger, the more seeds). Below: how long that plateau lasted, in units of 1 / fastest rate, "
        "and the inverse of the rate at which equal clusters leave their places."
    )
    if config["dimension"] != 2:
        caption = "Above: clusters on the first plateau; the larger the dot, the more seeds. Below: how long it lasted."
    page.figure(
        staircase_figure(dataset), caption, alt="Number of clusters over the inverse temperature, and their lives."
    )


def _picture_section(page: Any, dataset: Any) -> None:
    add_figure_section(
        page,
        space_time_figure(dataset),
        "Tokens in space and time",
        "Every line is a token, coloured by where it started.",
        "Angles against time, which is logarithmic. Dashed: when the first clusters were tight. Lines that leave below come "
        "back above.",
        alt="Angles of tokens against time: they gather in a few bundles, which later merge two by two.",
    )


def _energy_section(page: Any, dataset: Any, config: dict[str, Any]) -> None:
    noise = " (without noise)" if config["noise"] else ""
    caption = "Energy over that of a single cluster, and the number of clusters once they are tight; the first seed."
    if config["dimension"] == 2:
        caption += " Dashed: the energy of equal clusters at equal distances, as many as on the first plateau."
    add_figure_section(
        page,
        energy_figure(dataset),
        "Energy",
        f"The energy mean_ij exp(β⟨x_i, x_j⟩) / 2β never falls along self-attention{noise}: it rests on plateaus, and climbs "
        "at mergers.",
        caption,
        alt="Energies against time in steps, and numbers of clusters.",
    )


def _growth_section(page: Any, dataset: Any, config: dict[str, Any]) -> None:
    add_figure_section(
        page,
        growth_figure(dataset),
        "The growth of modes",
        f"From a lattice of tokens, displaced by {config['perturbation']:g}, every mode grows on its own until products of "
        "others matter. Rates are fitted up to there.",
        "Left: moduli of the fastest modes of one run, with the predicted exponentials (dotted). Right: fitted rates of all "
        "runs (dots) and the predicted ones (lines).",
        alt="Fourier modes growing exponentially in time, and their rates against the prediction.",
    )


def _table_section(page: Any, config: dict[str, Any], cells: list[Cell]) -> None:
    page.section(
        "Every inverse temperature",
        "Next is the runner-up among the modes with its growth rate over that of the fastest without noise: where that is near "
        "1, either may win, depending on the start. Times are in units of 1 / rate; the rate itself is per unit of time of the "
        "equations. A life with > is a lower bound: the plateau outlived the run. 1 / leaving is the inverse rate at which as "
        "many equal clusters leave their places: a scale for the life, which also grows with how equal they are.",
    )
    # Without noise no run stays uniform: that column is left out.
    kept = [i for i, name in enumerate(COLUMNS[:-1]) if name != "uniform" or config["noise"]]
    rows = [
        [*(row[i] for i in kept), report.Chip(row[-1], VERDICTS[cell.verdict])]
        for row, cell in zip(table_rows(cells), cells, strict=True)
    ]
    columns = [{"beta": "β"}.get(COLUMNS[i], COLUMNS[i]) for i in kept] + [COLUMNS[-1]]
    page.table(columns, rows, caption="Predictions and what was found, seed by seed where they differ.")
