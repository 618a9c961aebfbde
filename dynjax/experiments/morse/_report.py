"""The report of the Morse experiment: one HTML page made of the pieces of `dynjax.report`."""

import json
import os
from typing import Any

import jax

from ... import report
from ...propagation import classify
from .._provenance import add_provenance
from ._architectures import ARCHITECTURES, networks
from ._config import Config
from ._figures import error_figure, gallery_figure, gradient_figure, levels_figure
from ._summary import COLUMNS, TRAINED_COLUMNS, LaneSummary, by_architecture, is_trained, summarise, table_rows
from ._training import bowl_bound

_TONES = {
    "agrees with the theorem": "good",
    "contradiction": "bad",
    "degrees differ": "warning",
    "unfinished": "warning",
}
_LANE_COLUMNS = ("architecture", "seed", "allowed", "found", "minima", "saddles", "maxima", "degenerate", "degree",
                 "winding number", "completeness", "smallest |grad|", "proved bound", "verdict")  # fmt: skip


def write_report(dataset: Any, path: str | os.PathLike[str]) -> None:
    """Write the page of the Morse experiment: one self-contained HTML file.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.
        path: where to write it; the file appears whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    config, lanes, trained = json.loads(dataset.attrs["config"]), summarise(dataset), is_trained(dataset)
    side = f"[−{config['half_width']:g}, {config['half_width']:g}]²"
    made = f"trained to the bowl |x|² / {config['half_width']:g}²" if trained else "with random weights"
    page = report.Page(
        "Which networks can have critical points?",
        f"{len(lanes)} networks R² → R of six architectures {made}, and all critical points that they have in {side}",
    )
    page.headline(_headline(lanes, trained))
    _levels_section(page, dataset, trained)
    if trained:
        _error_section(page, dataset)
    _table_section(page, dataset, trained)
    _gradient_section(page, dataset)
    _theorem_section(page, Config(**config))
    _lane_section(page, lanes)
    add_provenance(page, dataset)
    page.write(path)


def _headline(lanes: list[LaneSummary], trained: bool) -> list[tuple[str, Any, str | None]]:
    done = [lane for lane in lanes if lane.verdict != "unfinished"]
    compared = [lane for lane in done if lane.degree == lane.degree and lane.boundary_degree == lane.boundary_degree]
    agree = sum(lane.degree == lane.boundary_degree for lane in compared)
    proved = sum(lane.completeness in ("branch and bound", "gradient bound") for lane in done)
    entries: list[tuple[str, Any, str | None]] = [
        ("contradictions", sum(lane.verdict == "contradiction" for lane in done), f"in {len(done)} networks"),
        ("degrees agree", f"{agree} of {len(compared)}", "sum of (−1)^index = winding number of the gradient"),
        ("complete", f"{proved} of {len(done)}", "lists of critical points proved complete"),
    ]
    if trained:
        can = [kind.name for kind in ARCHITECTURES if kind.extremum]
        best = [
            min((lane.sup_error for lane in done if (lane.architecture in can) == side), default=float("nan"))
            for side in (True, False)
        ]
        note = f"augmented; the others {best[1]:.3f}, bound {bowl_bound():g}"
        entries.append(("best sup error", f"{best[0]:.3f}", note))
    return entries


def _levels_section(page: Any, dataset: Any, trained: bool) -> None:
    text = (
        "The level sets of a network without augmentation are a foliation of the square: curves that begin and end "
        "on the boundary, none of which closes or crosses another, since the gradient vanishes nowhere. One more "
        "dimension, or one layer that is wider than the input, lets them close around minima and maxima and cross at "
        "saddles. Behind a bottleneck, or a lift that does not see all directions, the map is constant along lines, "
        "and where it is critical it is so on a whole line."
    )
    if trained:
        text += (
            "\n\nHere training asks all of them for a minimum in the middle. Networks without augmentation cannot "
            "have one. The neural ODE leads a channel from the middle to the boundary, so that no level set has to "
            "close. The perceptron does something else: the target is even, and descent takes the rank of its first "
            "matrix away. It leaves the full-rank networks, which have no critical point, for those with a whole "
            "line of them, and `classify` sees that in its weights."
        )
    page.section("Level sets", text)
    page.figure(
        levels_figure(dataset),
        "One network of each architecture; lighter is higher. Of a line of degenerate critical points at most 16 are "
        "marked.",
        alt="Level sets of six networks with minima, saddles, maxima and degenerate critical points marked.",
    )
    page.figure(
        gallery_figure(dataset),
        "All networks, one row for each architecture.",
        alt="A gallery of level sets, one row for each architecture, with critical points marked.",
    )


def _error_section(page: Any, dataset: Any) -> None:
    page.section(
        "What augmentation buys",
        "The bowl is 1 deep. If a continuous map without local extremum came closer to it than 1/2 everywhere, its "
        "minimum over the square would lie inside. So the sup error is at least 1/2, whatever the width, the depth "
        "and the training; the same holds for maps that are constant along lines, since the line through the middle "
        "meets both 0 and 1.",
    )
    page.figure(
        error_figure(dataset),
        "Every dot is a network after training in the mean square.",
        alt="Sup errors of trained networks: those that cannot have an extremum stay above one half, augmented ones do not.",
    )


def _table_section(page: Any, dataset: Any, trained: bool) -> None:
    page.section(
        "Classes",
        "C1: no critical point. C2: all critical points are nondegenerate, and there is one. C3: one is degenerate. "
        "Degrees agree if the sum of (−1)^index over the points found is the winding number of the gradient around "
        "the square, as it must be if none was missed. That does not prove completeness: a missed pair of a minimum "
        "and a saddle would not show. What proves it is a positive lower bound of the gradient, or branch and bound "
        "with interval arithmetic.",
    )
    rows = [
        [*map(_as_number, row[: len(COLUMNS)]), *row[len(COLUMNS) :]]
        for row in table_rows(by_architecture(dataset), trained=trained)
    ]
    caption = "Networks in each class, critical points in all, and networks against their theorem."
    page.table([*COLUMNS, *TRAINED_COLUMNS * trained], rows, caption)


def _as_number(cell: str) -> Any:
    return int(cell) if cell.isdigit() else cell


def _gradient_section(page: Any, dataset: Any) -> None:
    page.section(
        "How small can the gradient get?",
        "For a neural ODE without augmentation |grad| ≥ σ_min(W) e^(−KT) |V|, with the readout V, the lift W and a "
        "Lipschitz constant K of the field (with the factor of each Runge-Kutta step in place of e^(−KT) for the "
        "steps that are taken). For a perceptron it is at least the product of the smallest singular values and "
        "slopes. The bounds are small, but they are positive, which is all that a proof needs.",
    )
    page.figure(
        gradient_figure(dataset),
        "The smallest |grad| on a grid of the square, and the lower bound that is proved.",
        alt="Smallest gradients of all networks and their proved lower bounds, on a logarithmic axis.",
    )


def _theorem_section(page: Any, config: Config) -> None:
    page.section("The theorems", "As `dynjax.classify` states them for the first network of each architecture.")
    with jax.enable_x64(config.precision == "float64"):
        rows = [[kind.title, classify(networks(kind, config)[0]).theorem] for kind in ARCHITECTURES]
    page.table(["architecture", "theorem"], rows, "[derived] marks what is proved for dynjax and not in a paper.")


def _lane_section(page: Any, lanes: list[LaneSummary]) -> None:
    page.section("Every network", "Allowed are the classes that the actual weights leave, ranks included.")
    rows = [
        [lane.architecture, lane.seed, lane.allowed, lane.found, lane.minima, lane.saddles, lane.maxima, lane.degenerate,
         lane.degree, lane.boundary_degree, lane.completeness, lane.least_gradient, lane.certificate,
         report.Chip(lane.verdict, _TONES[lane.verdict])]
        for lane in lanes
    ]  # fmt: skip
    page.table(_LANE_COLUMNS, rows, "Critical points in the square, their degrees, and how completeness is known.")
