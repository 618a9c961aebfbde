"""Errors against what the widths allow, from the stored arrays alone."""

import dataclasses
import json
from typing import Any

import numpy as np

from .._text_table import text_table
from ._constructions import EXACT
from ._targets import find_target

_ROUNDING = 1_000  # units of precision, times the gain, that an exact embedding may be off


@dataclasses.dataclass(frozen=True)
class LaneSummary:
    """One map and one way to represent it.

    Attributes:
        target: name of the map.
        formula: the map.
        construction: "shear", "isotopy", "delay" or "trained".
        widths: such as "1-2-1".
        sup_error: the largest error of a component on a fine grid of [-1, 1]^d.
        mean_square: mean of |error|^2 over [-1, 1]^d.
        sup_bound: what no neural ODE of this width with full-rank layers can beat; 0 for no bound.
        mean_square_bound: the same for the mean square.
        representable: whether some neural ODE of this width is exactly the map; None where that is open.
        lipschitz: of the field, along the solutions; for delay equations K.
        gain: |readout| |lift|.
        verdict: "exact", "not exact", "above its bound", "contradiction", "approximates", "unfinished".
    """

    target: str
    formula: str
    construction: str
    widths: str
    sup_error: float
    mean_square: float
    sup_bound: float
    mean_square_bound: float
    representable: bool | None
    lipschitz: float
    gain: float
    verdict: str


def summarise(dataset: Any) -> list[LaneSummary]:
    """One summary for each lane of a sweep; lanes that were not computed are "unfinished".

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.
    """
    return [_lane(dataset, lane) for lane in range(dataset.sizes["lane"])]


def _lane(dataset: Any, lane: int) -> LaneSummary:
    number = lambda name: float(dataset[name].values[lane])
    target, construction = find_target(str(dataset.target.values[lane])), str(dataset.construction.values[lane])
    done = np.isfinite(number("sup_bound"))
    size = int(number("state_size")) if done else 0
    return LaneSummary(
        target=target.name,
        formula=target.formula,
        construction=construction,
        widths=f"{target.in_size}-{size}-{target.out_size}" if done else "",
        sup_error=number("sup_error"),
        mean_square=number("mean_square"),
        sup_bound=number("sup_bound"),
        mean_square_bound=number("mean_square_bound"),
        representable={1: True, 0: False}.get(int(number("representable"))) if done else None,
        lipschitz=number("lipschitz"),
        gain=number("gain"),
        verdict=_verdict(dataset, lane, construction) if done else "unfinished",
    )


def _verdict(dataset: Any, lane: int, construction: str) -> str:
    number = lambda name: float(dataset[name].values[lane])
    if construction in EXACT:
        eps = float(np.finfo(json.loads(dataset.attrs["config"])["precision"]).eps)
        return "exact" if number("sup_error") <= _ROUNDING * eps * max(1.0, number("gain")) else "not exact"
    if number("sup_bound") > 0 or number("mean_square_bound") > 0:
        kept = number("sup_error") >= number("sup_bound") and number("mean_square") >= number("mean_square_bound")
        return "above its bound" if kept else "contradiction"
    return "approximates"


COLUMNS = ("map", "construction", "widths", "sup error", "bound", "mean square", "bound", "exactly possible",
           "field Lipschitz", "gain", "verdict")  # fmt: skip


def table_rows(lanes: list[LaneSummary]) -> list[tuple[str, ...]]:
    """The summaries as text cells under `COLUMNS`."""
    shown = lambda value: format(value, ".3g") if np.isfinite(value) else "-"
    bound = lambda value: format(value, ".4g") if value > 0 else "-"
    return [
        (
            lane.formula,
            lane.construction,
            lane.widths,
            shown(lane.sup_error),
            bound(lane.sup_bound),
            shown(lane.mean_square),
            bound(lane.mean_square_bound),
            {True: "yes", False: "no", None: "open"}[lane.representable],
            shown(lane.lipschitz),
            shown(lane.gain),
            lane.verdict,
        )
        for lane in lanes
    ]


def table(dataset: Any) -> str:
    """Errors and bounds, as a plain-text table for a terminal.

    Args:
        dataset: what `dynjax.sweep.open` returns for a store of this experiment.

    Returns:
        A header, a rule, and a line for each lane.
    """
    return text_table(COLUMNS, table_rows(summarise(dataset)), left=2)
