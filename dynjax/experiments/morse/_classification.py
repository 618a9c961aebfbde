"""What is done before the sweep: networks are made, perhaps trained, and classified one by one."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ...networks import MLP
from ...propagation import Classification, CriticalPoints, classify
from ._architectures import ARCHITECTURES, Architecture, networks
from ._config import Config
from ._training import bowl, train

GRID = 81  # points along each side, an odd number: the middle is one of them
MOST_POINTS = 64  # critical points that are stored; all are counted
CLASSES = ("C1", "C2", "C3")
KINDS = ("minimum", "saddle", "maximum", "degenerate")
PROOFS = ("not proved", "branch and bound", "gradient bound")
REASONS = ("", "not tried", "budget of cells spent", "degenerate point", "point on the boundary or no enclosure")

# What was made last: the sweep asks for its program more than once.
_KEPT: dict[Config, dict[str, np.ndarray]] = {}


def classifications(config: Config, say: Callable[[str], None] | None = None) -> dict[str, np.ndarray]:
    """Make, train and classify the networks of a configuration; the last result is kept in memory for the next call.

    Args:
        config: the configuration; call this where its precision is enabled.
        say: is told what was found for each architecture.

    Returns:
        One array for each record, with a leading axis of lanes: architecture by architecture, seed by seed.
    """
    if config not in _KEPT:
        rows = [row for kind in ARCHITECTURES for row in _rows(kind, config, say or (lambda text: None))]
        made = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        _KEPT.clear()
        _KEPT[config] = made
    return _KEPT[config]


def grid(config: Config) -> np.ndarray:
    """The points along each side of the square."""
    return np.linspace(-config.half_width, config.half_width, GRID)


def _rows(kind: Architecture, config: Config, say: Callable[[str], None]) -> list[dict[str, Any]]:
    models = networks(kind, config)
    if config.weights == "trained":
        models = train(models, config)
    rows = [_row(model, kind, config) for model in models]
    found = [CLASSES[int(row["found"])] for row in rows]
    counts = ", ".join(f"{found.count(name)} {name}" for name in CLASSES if name in found)
    say(f"{kind.title}: {len(rows)} networks, {counts}")
    return rows


def _row(model: Any, kind: Architecture, config: Config) -> dict[str, Any]:
    """The records of one network."""
    dtype = jnp.dtype(config.precision)
    corner = jnp.full(2, config.half_width, dtype)
    box = (-corner, corner)
    verdict = classify(model, box=box, prove_complete=False)
    cells = config.max_cells if isinstance(model, MLP) else config.ode_max_cells
    if verdict.certificate is None and cells > 0:
        # With a gradient bound there is nothing left to prove.
        verdict = classify(model, box=box, max_cells=cells)
    across = jnp.asarray(grid(config), dtype)
    points = jnp.stack(jnp.meshgrid(across, across), -1)  # (y, x, 2)
    values, slopes = _surface(model, points)
    found = verdict.empirical
    assert found is not None
    return _findings(verdict, found, kind, cells) | {
        "value": np.asarray(values),
        "least_gradient": min(float(jnp.min(slopes)), float(jnp.min(found.gradient_norm, initial=jnp.inf))),
        "mean_gradient": float(jnp.mean(slopes)),
        "sup_error": float(jnp.max(jnp.abs(values - bowl(points, config.half_width)))),
    }


@eqx.filter_jit
def _surface(model: Any, points: Float[Array, "y x 2"]) -> tuple[Float[Array, "y x"], Float[Array, "y x"]]:
    """The map and the length of its gradient at the points of the grid."""
    values, gradients = jax.vmap(jax.vmap(jax.value_and_grad(lambda x: model(x)[0])))(points)
    return values, jnp.linalg.norm(gradients, axis=-1)


def _findings(verdict: Classification, found: CriticalPoints, kind: Architecture, cells: int) -> dict[str, Any]:
    degenerate, index = np.asarray(found.degenerate), np.asarray(found.morse_index)
    kinds = np.where(degenerate, 3, index)
    certificate = float("nan") if verdict.certificate is None else verdict.certificate.value
    proof = 2 if certificate > 0 else int(found.complete)
    as_listed = verdict.architecture == kind.profile
    allowed = verdict.classes & set(kind.allowed) if as_listed else verdict.classes
    places = np.full((MOST_POINTS, 2), np.nan)
    places[: len(kinds)] = np.asarray(found.points)[:MOST_POINTS]
    shown = np.full(MOST_POINTS, -1, np.int32)
    shown[: len(kinds)] = kinds[:MOST_POINTS]
    return {
        "found": np.int32(CLASSES.index(found.morse_class)),
        "allowed": np.array([name in allowed for name in CLASSES], np.int32),
        "as_listed": np.int32(as_listed),
        "consistent": np.int32(found.morse_class in allowed),
        "count": np.bincount(kinds, minlength=4).astype(np.int32),
        "point": places,
        "kind": shown,
        "degree": _or_nan(found.degree),
        "boundary_degree": _or_nan(found.boundary_degree),
        "proof": np.int32(proof),
        "reason": np.int32(_reason(proof, bool(degenerate.any()), found.num_cells, cells)),
        "num_cells": np.int32(found.num_cells),
        "num_restarts": np.int32(found.num_restarts),
        "certificate": certificate,
    }


def _or_nan(value: int | None) -> float:
    return float("nan") if value is None else float(value)


def _reason(proof: int, degenerate: bool, num_cells: int, most_cells: int) -> int:
    if proof:
        return 0
    if most_cells == 0:
        return 1
    if degenerate:
        return 3
    return 2 if num_cells >= most_cells else 4
