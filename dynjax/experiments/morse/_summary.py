"""What was found against what the theorems allow, from the stored arrays alone."""

import dataclasses
import json
from typing import Any

import numpy as np

from .._text_table import text_table
from ._architectures import ARCHITECTURES, Architecture
from ._classification import CLASSES, PROOFS, REASONS
from ._training import bowl_bound


@dataclasses.dataclass(frozen=True)
class LaneSummary:
    """One network in words and numbers.

    Attributes:
        architecture: as stored.
        seed: which network of its architecture.
        allowed: the classes that `classify` leaves for the actual weights, such as "C1 or C2".
        as_listed: whether these are the classes of the architecture; training can take away the rank of a matrix.
        found: "C1", "C2" or "C3", what was found in the square.
        minima: nondegenerate minima.
        saddles: nondegenerate saddles.
        maxima: nondegenerate maxima.
        degenerate: degenerate critical points, at most 16 for a curve of them.
        degree: sum of (-1)^index; NaN where a point is degenerate.
        boundary_degree: winding number of the gradient around the square.
        completeness: how it was proved that there are no others, or why it was not.
        least_gradient: the smallest |grad| on a grid and at the points.
        certificate: a proved lower bound of |grad|; NaN where there is none.
        sup_error: the largest distance to the bowl on the grid.
        verdict: "agrees with the theorem", "contradiction", "degrees differ" or "unfinished".
    """

    architecture: str
    seed: int
    allowed: str
    as_listed: bool
    found: str
    minima: int
    saddles: int
    maxima: int
    degenerate: int
    degree: float
    boundary_degree: float
    completeness: str
    least_gradient: float
    certificate: float
    sup_error: float
    verdict: str


@dataclasses.dataclass(frozen=True)
class KindSummary:
    """All finished networks of an architecture.

    Attributes:
        architecture: the architecture.
        lanes: its networks.
    """

    architecture: Architecture
    lanes: tuple[LaneSummary, ...]

    @property
    def classes(self) -> dict[str, int]:
        """How many networks were found in each class."""
        return {name: sum(lane.found == name for lane in self.lanes) for name in CLASSES}

    @property
    def contradictions(self) -> int:
        """Networks against their theorem."""
        return sum(lane.verdict == "contradiction" for lane in self.lanes)

    @property
    def degrees(self) -> tuple[int, int]:
        """Networks whose degrees agree, and those that have degrees to compare."""
        compared = [lane for lane in self.lanes if np.isfinite(lane.degree) and np.isfinite(lane.boundary_degree)]
        return sum(lane.degree == lane.boundary_degree for lane in compared), len(compared)

    @property
    def proved(self) -> int:
        """Networks with a proof that nothing was missed."""
        return sum(lane.completeness in PROOFS[1:] for lane in self.lanes)

    @property
    def lost_rank(self) -> int:
        """Networks whose weights are not those of the theorem of their architecture any more."""
        return sum(not lane.as_listed for lane in self.lanes)

    @property
    def best_error(self) -> float:
        """The smallest sup error: what the best network of the architecture reaches."""
        return min((lane.sup_error for lane in self.lanes), default=float("nan"))


def summarise(dataset: Any) -> list[LaneSummary]:
    """One summary for each lane of a sweep; lanes that were not computed are "unfinished".

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.
    """
    return [_lane(dataset, lane) for lane in range(dataset.sizes["lane"])]


def by_architecture(dataset: Any) -> list[KindSummary]:
    """One summary for each architecture, of its finished networks."""
    lanes = [lane for lane in summarise(dataset) if lane.verdict != "unfinished"]
    return [
        KindSummary(kind, tuple(lane for lane in lanes if lane.architecture == kind.name)) for kind in ARCHITECTURES
    ]


def _lane(dataset: Any, lane: int) -> LaneSummary:
    number = lambda name: float(dataset[name].values[lane])
    name, seed = str(dataset.architecture.values[lane]), int(dataset.seed.values[lane])
    if not np.isfinite(number("least_gradient")):
        nothing = float("nan")
        return LaneSummary(name, seed, "", True, "", 0, 0, 0, 0, nothing, nothing, "", nothing, nothing, nothing,
                           "unfinished")  # fmt: skip
    counts = [int(value) for value in dataset["count"].values[lane]]
    allowed = [CLASSES[i] for i in np.flatnonzero(dataset.allowed.values[lane])]
    proof = int(number("proof"))
    return LaneSummary(
        architecture=name,
        seed=seed,
        allowed=" or ".join(allowed),
        as_listed=bool(number("as_listed")),
        found=CLASSES[int(number("found"))],
        minima=counts[0],
        saddles=counts[1],
        maxima=counts[2],
        degenerate=counts[3],
        degree=number("degree"),
        boundary_degree=number("boundary_degree"),
        completeness=PROOFS[proof] if proof else REASONS[int(number("reason"))],
        least_gradient=number("least_gradient"),
        certificate=number("certificate"),
        sup_error=number("sup_error"),
        verdict=_verdict(dataset, lane),
    )


def _verdict(dataset: Any, lane: int) -> str:
    number = lambda name: float(dataset[name].values[lane])
    if not number("consistent") or number("least_gradient") < number("certificate"):
        return "contradiction"
    degrees = number("degree"), number("boundary_degree")
    return "degrees differ" if np.all(np.isfinite(degrees)) and degrees[0] != degrees[1] else "agrees with the theorem"


COLUMNS = ("architecture", "allowed", *CLASSES, "minima", "saddles", "maxima", "degenerate", "degrees agree", "complete",
           "smallest |grad|", "contradictions")  # fmt: skip
TRAINED_COLUMNS = ("best sup error", "bound", "rank lost")


def table_rows(kinds: list[KindSummary], *, trained: bool) -> list[tuple[str, ...]]:
    """The architectures as text cells under `COLUMNS`, and `TRAINED_COLUMNS` where networks were trained."""
    rows = []
    for kind in kinds:
        total = lambda name, kind=kind: str(sum(getattr(lane, name) for lane in kind.lanes))
        agree, compared = kind.degrees
        least = min((lane.least_gradient for lane in kind.lanes), default=float("nan"))
        row = (
            kind.architecture.title,
            " or ".join(kind.architecture.allowed),
            *(str(number) for number in kind.classes.values()),
            *(total(name) for name in ("minima", "saddles", "maxima", "degenerate")),
            f"{agree} of {compared}" if compared else "-",
            f"{kind.proved} of {len(kind.lanes)}",
            f"{least:.2g}" if np.isfinite(least) and least > 1e-9 else "0" if np.isfinite(least) else "-",
            str(kind.contradictions),
        )
        if trained:
            bound = "none" if kind.architecture.extremum else f"{bowl_bound():g}"
            row = (*row, f"{kind.best_error:.3f}", bound, str(kind.lost_rank))
        rows.append(row)
    return rows


def table(dataset: Any) -> str:
    """What was found for each architecture, as a plain-text table for a terminal.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A header, a rule, and a line for each architecture.
    """
    trained = is_trained(dataset)
    columns = (*COLUMNS, *TRAINED_COLUMNS * trained)
    return text_table(columns, table_rows(by_architecture(dataset), trained=trained), left=1, prose=False)


def is_trained(dataset: Any) -> bool:
    """Whether the networks of a store were trained."""
    return bool(json.loads(dataset.attrs["config"])["weights"] == "trained")
