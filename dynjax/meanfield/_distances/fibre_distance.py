"""Distances between families of measures on the circle, one for each label."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import check_count, check_that, found, is_concrete
from .bounded_lipschitz import by_convention
from .circle_distance import (
    CircleMeasure,
    as_measure,
    check_equal_masses,
    check_nonnegative,
    masses_agree,
    wasserstein,
)

_METRICS = ("wasserstein", "bounded_lipschitz")


def fibre_distances(first: Any, second: Any, *, metric: str = "wasserstein") -> Float[Array, "fibres"]:
    """The distance of two families in every fibre, on the circle of length 1.

    Args:
        first: phases in radians (fibres, points), or `Points` or `CellMasses` with that leading axis, or one measure
            against which all fibres are held.
        second: likewise; numbers of points and cells may differ.
        metric: "wasserstein", or "bounded_lipschitz" (convention "max"; equal masses are not needed).

    Raises:
        ValueError: if the numbers of fibres differ, or masses do where "wasserstein" needs equal ones.
    """
    first, second = as_measure(first, "first"), as_measure(second, "second")
    check_that(metric in _METRICS, "metric", f"be one of {', '.join(_METRICS)}", f"found {metric!r}")
    sizes = [measure.mass().shape for measure in (first, second)]
    check_that(sizes != [(), ()], "first", "have a fibre axis", "neither argument has one; take `circle_wasserstein`")
    good = () in sizes or sizes[0] == sizes[1]
    check_that(good, "second", "have as many fibres as `first`", f"found {sizes[1]} and {sizes[0]}")
    if metric == "wasserstein":
        check_equal_masses(first, second)
    elif is_concrete((first, second)) and bool(masses_agree(first, second).all()):
        metric = "wasserstein"  # the same number, without a regression
    return _all(first, second, metric)


def fibre_distance(
    first: Any,
    second: Any,
    *,
    kind: str = "sup",
    weights: Any = None,
    metric: str = "wasserstein",
) -> Float[Array, ""]:
    """The fibre metric: the largest or the mean distance over the labels, on the circle of length 1.

    Args:
        first: phases in radians (fibres, points), or `Points` or `CellMasses` with that leading axis, or one measure
            against which all fibres are held.
        second: likewise; numbers of points and cells may differ.
        kind: "sup" or "mean".
        weights: of the labels for the mean, (fibres,); equal by default. They are divided by their sum.
        metric: "wasserstein" or "bounded_lipschitz", as in `fibre_distances`.

    Raises:
        ValueError: if the numbers of fibres differ, masses do where "wasserstein" needs equal ones, or `kind` is unknown.

    Example:
        ```python
        particles = group_by_cells(angles, num_cells=50)                      # (50, N / 50)
        fibre_distance(particles, limit.fibre_measure(state))                 # sup over x of W1
        ```
    """
    check_that(kind in ("sup", "mean"), "kind", "be 'sup' or 'mean'", f"found {kind!r}")
    check_that(weights is None or kind == "mean", "weights", "be None for the supremum", "it is not")
    distances = fibre_distances(first, second, metric=metric)
    if kind == "sup":
        return jnp.max(distances)
    if weights is None:
        return jnp.mean(distances)
    check_nonnegative(weights, "weights")
    weights = jnp.asarray(weights, distances.dtype)
    good = weights.shape == distances.shape
    check_that(good, "weights", f"have the shape {distances.shape} of the fibres", found(weights))
    return jnp.sum(weights * distances) / jnp.sum(weights)


def group_by_cells(values: Float[Array, "nodes *rest"], num_cells: int) -> Float[Array, "cells points *rest"]:
    """Values on nodes, grouped into cells of equally many consecutive nodes.

    Raises:
        ValueError: if the number of nodes is no multiple of `num_cells`.
    """
    values = jnp.asarray(values)
    check_count(num_cells, "num_cells")
    good = values.ndim > 0 and values.shape[0] % num_cells == 0
    check_that(good, "num_cells", "divide the number of nodes", f"found {num_cells} for the shape {values.shape}")
    return values.reshape(num_cells, -1, *values.shape[1:])


@functools.partial(jax.jit, static_argnums=2)
def _all(first: CircleMeasure, second: CircleMeasure, metric: str) -> Float[Array, "fibres"]:
    axes = tuple(0 if measure.mass().ndim else None for measure in (first, second))
    return jax.vmap(_DISTANCES[metric], in_axes=axes)(first, second)


def _flat(first: CircleMeasure, second: CircleMeasure) -> Float[Array, ""]:
    return by_convention(first, second, "max")


_DISTANCES: dict[str, Callable[..., Any]] = {"wasserstein": wasserstein, "bounded_lipschitz": _flat}
