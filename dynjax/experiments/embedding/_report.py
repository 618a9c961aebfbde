"""The report of the embedding experiment: one HTML page made of the pieces of `dynjax.report`."""

import json
import os
from typing import Any

from ... import report
from .._provenance import add_provenance
from ._constructions import EXACT
from ._figures import bowl_figure, fits_figure, paths_figure, plane_figure
from ._summary import COLUMNS, LaneSummary, summarise, table_rows

_TONES = {
    "exact": "good",
    "above its bound": "good",
    "approximates": "neutral",
    "not exact": "bad",
    "contradiction": "bad",
    "unfinished": "warning",
}


def write_report(dataset: Any, path: str | os.PathLike[str]) -> None:
    """Write the page of the embedding experiment: one self-contained HTML file.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.
        path: where to write it; the file appears whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    config, lanes = json.loads(dataset.attrs["config"]), summarise(dataset)
    page = report.Page(
        "How wide must a neural ODE be?",
        "Six maps of [−1, 1]^d, embedded exactly and learnt by neural ODEs of state size m: an affine lift to R^m, a "
        "flow, an affine readout",
    )
    page.headline(_headline(lanes))
    _line_section(page, dataset, config)
    _plane_section(page, dataset)
    _table_section(page, config, lanes)
    add_provenance(page, dataset)
    page.write(path)


def _headline(lanes: list[LaneSummary]) -> list[tuple[str, Any, str | None]]:
    exact = [lane for lane in lanes if lane.construction in EXACT and lane.verdict != "unfinished"]
    bounded = [lane for lane in lanes if lane.verdict in ("above its bound", "contradiction")]
    worst = max((lane.sup_error for lane in exact), default=float("nan"))
    entries: list[tuple[str, Any, str | None]] = [
        (
            "exact embeddings",
            f"{sum(lane.verdict == 'exact' for lane in exact)} of {len(exact)}",
            f"largest error {worst:.1e}",
        ),
        (
            "above their bounds",
            f"{sum(lane.verdict == 'above its bound' for lane in bounded)} of {len(bounded)}",
            "trained networks whose width forbids the map",
        ),
    ]
    gains = [lane.gain for lane in exact if lane.construction == "delay"]
    if gains:
        entries.append(("gain of the delay", f"{min(gains):.0f} to {max(gains):.0f}", "the price of no augmentation"))
    return entries


def _line_section(page: Any, dataset: Any, config: dict[str, Any]) -> None:
    page.section(
        "Maps of the line",
        "A flow on the line keeps the order of its points, so that what it can do to the input is an increasing map, "
        "and with an affine readout a monotone one. A monotone map is at least 1/2 away from x² somewhere on [−1, "
        "1], and at least 9/160 in the mean square. With one more dimension there is an exact formula, the shear: "
        "the input u rests and drives the output, v' = ψ(u) / T.",
    )
    page.figure(
        fits_figure(dataset),
        "Maps, their exact embeddings, and the best of the trained networks in the mean square.",
        alt="Three scalar maps with the shear embedding on top of them and the best fits of one- and two-dimensional flows.",
    )
    page.text(
        "On the left nothing can pass anything. In the middle points lie side by side, and each rises to the height "
        "it should "
        f"have: what looks like a crossing of outputs is none of states. On the right Kτ = {config['memory']:g} is "
        f"above the memory "
        "threshold: all solutions are zero together at one time, which no ordinary differential equation allows, and "
        "the delayed term still knows where they came from. The readout then has to magnify small differences.",
    )
    page.figure(
        paths_figure(dataset),
        "The state for 21 inputs, dark to light from −1 to 1, when the map is x².",
        alt="Paths of the state: ordered on the line, rising in the plane, and passing through zero together with a delay.",
    )


def _plane_section(page: Any, dataset: Any) -> None:
    page.section(
        "Maps of the plane",
        "The twist is a diffeomorphism that a flow of the plane can reach. The fold takes x and −x to one point, and "
        "its derivative vanishes at 0: rank D Φ ≥ rank W + rank V − m excludes it for all m < d + q = 4. For m = 2 "
        "that is a gap of 1/2 in its first component; for m = 3 it says only that no network is exact, not how close "
        "one can come.",
    )
    page.figure(
        plane_figure(dataset),
        "The image of a grid of the square; errors are the largest of a component.",
        alt="A grid under the twist and the fold: exact, and trained with two, three and four dimensions.",
    )
    page.figure(
        bowl_figure(dataset),
        "Level sets for |x|². Those of a flow of the plane never close.",
        alt="Level sets of the bowl: circles for embeddings and the augmented network, open curves for the one without.",
    )


def _table_section(page: Any, config: dict[str, Any], lanes: list[LaneSummary]) -> None:
    page.section(
        "All maps and constructions",
        "Shear: m = d + q (Kuehn and Kuntz, arXiv:2308.01213; arXiv:2507.05164, theorem 2.6). Isotopy: increasing "
        "maps of the line, points move on straight lines. Delay: m = max(d, q) above the memory threshold [derived]. "
        "Trained: the best of "
        f"{config['num_restarts']} networks whose field depends on time. Bounds are for all neural ODEs of these "
        f"widths with full-rank "
        "layers [derived]; “open” means that ranks at 0 do not exclude the map. The Lipschitz constant is the "
        "largest along the solutions.",
    )
    rows = [
        [*row[:-1], report.Chip(row[-1], _TONES[lane.verdict])]
        for row, lane in zip(table_rows(lanes), lanes, strict=True)
    ]
    page.table(
        [*COLUMNS],
        rows,
        "Errors on [−1, 1]^d, bounds for the width, and the effort of the field and of the affine layers.",
    )
