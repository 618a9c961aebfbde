"""What is done before the sweep: every map is embedded, learnt and measured."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ...propagation import DelayEmbedding, IsotopyEmbedding, ShearEmbedding
from ._config import Config
from ._measures import measure
from ._targets import TARGETS, Target, mean_square_bound, representable, sup_bound
from ._training import trained

EXACT = ("shear", "isotopy", "delay")

# What was made last: the sweep asks for its program more than once.
_KEPT: dict[Config, dict[str, np.ndarray]] = {}


class Lane(NamedTuple):
    """One map and one way to represent it."""

    target: Target
    construction: str  # one of `EXACT`, or "trained"
    state_size: int


def plan() -> list[Lane]:
    """All lanes: the exact embeddings of each map, then networks of all state sizes from d to d + q."""
    planned = []
    for target in TARGETS:
        d, q = target.in_size, target.out_size
        planned.append(Lane(target, "shear", d + q))
        planned += [Lane(target, "isotopy", 1)] * target.increasing
        planned.append(Lane(target, "delay", max(d, q)))
        planned += [Lane(target, "trained", m) for m in range(d, d + q + 1)]
    return planned


def embedding(target: Target, construction: str, config: Config) -> Any:
    """The exact embedding of a map.

    Args:
        target: one of `TARGETS`.
        construction: one of `EXACT`; "isotopy" for increasing maps of the line alone.
        config: the configuration; call this where its precision is enabled.

    Returns:
        A `ShearEmbedding`, `IsotopyEmbedding` or `DelayEmbedding`.

    Raises:
        ValueError: if the map does not increase, or the memory is not above the threshold.
    """
    sizes: dict[str, Any] = {"in_size": target.in_size, "out_size": target.out_size, "dtype": config.precision}
    if construction == "shear":
        return ShearEmbedding(target.function, **sizes)
    if construction == "isotopy":
        return IsotopyEmbedding(target.function, dtype=config.precision)
    return DelayEmbedding(target.function, lipschitz=config.memory, horizon=config.delay_horizon, **sizes)


def measurements(config: Config, say: Callable[[str], None] | None = None) -> dict[str, np.ndarray]:
    """Embed, train and measure; the last result is kept in memory for the next call.

    Args:
        config: the configuration; call this where its precision is enabled.
        say: is told what is being done.

    Returns:
        One array for each record, with a leading axis of lanes in the order of `plan`.

    Raises:
        ValueError: if the memory is not above the threshold of the horizon.
    """
    if config not in _KEPT:
        made = _measure_all(config, say or (lambda text: None))
        _KEPT.clear()
        _KEPT[config] = made
    return _KEPT[config]


def _measure_all(config: Config, say: Callable[[str], None]) -> dict[str, np.ndarray]:
    lanes = plan()
    models = {lane: embedding(lane.target, lane.construction, config) for lane in lanes if lane.construction in EXACT}
    say(f"{len(models)} exact embeddings made")
    sizes = lambda lane: (lane.target.in_size, lane.state_size, lane.target.out_size)
    rest = sorted((lane for lane in lanes if lane not in models), key=sizes)
    for widths, group in itertools.groupby(rest, key=sizes):
        same = list(group)
        say(f"training {len(same)} x {config.num_restarts} neural ODEs of widths {'-'.join(map(str, widths))}")
        found = trained([lane.target for lane in same], widths[1], config)
        models |= dict(zip(same, found, strict=True))
    say(f"measuring {len(lanes)} models")
    rows = [_row(lane, models[lane], config) for lane in lanes]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def _row(lane: Lane, model: Any, config: Config) -> dict[str, Any]:
    """Records of one lane; the bounds are for neural ODEs, so not for delay equations."""
    ode = lane.construction != "delay"
    possible = representable(lane.target, lane.state_size) if ode else True
    return measure(model, lane.target, jnp.dtype(config.precision)) | {
        "sup_bound": sup_bound(lane.target, lane.state_size) if ode else 0.0,
        "mean_square_bound": mean_square_bound(lane.target, lane.state_size) if ode else 0.0,
        "representable": np.int32({True: 1, False: 0, None: -1}[possible]),
    }
