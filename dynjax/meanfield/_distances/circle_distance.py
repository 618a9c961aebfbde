"""The Wasserstein distance on the circle of length 1, exact for atoms, for densities on cells, and between the two."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float

from ..._core import check_that, found, is_concrete
from .._limits.phase_laws import wrap

_BISECTIONS = 64


class Points(eqx.Module):
    """Measures with atoms: phases in radians and their weights.

    Args:
        angles: radians, (points,) or (fibres, points).
        weights: at least 0, broadcast to `angles`; 1/points by default.
    """

    angles: Float[Array, "*fibres points"]
    weights: Float[Array, "*fibres points"]

    def __init__(self, angles: Any, weights: Any = None):
        angles = jnp.asarray(angles)
        angles = angles if jnp.issubdtype(angles.dtype, jnp.inexact) else angles.astype(jnp.result_type(float))
        good = angles.ndim in (1, 2) and angles.shape[-1] > 0 and not jnp.iscomplexobj(angles)
        check_that(good, "angles", "be real with the axes (points,) or (fibres, points)", found(angles))
        check_nonnegative(weights, "weights")
        weights = jnp.asarray(1 / angles.shape[-1] if weights is None else weights, angles.dtype)
        self.angles, self.weights = angles, jnp.broadcast_to(weights, angles.shape)

    def mass(self) -> Float[Array, "*fibres"]:
        """The total weight."""
        return jnp.sum(self.weights, axis=-1)


class CellMasses(eqx.Module):
    """Measures with a density that is constant on equal cells of the circle, the first of which begins at -pi.

    Args:
        masses: of the cells, at least 0, (cells,) or (fibres, cells). A single cell is the uniform law.
    """

    masses: Float[Array, "*fibres cells"]

    def __init__(self, masses: Any):
        masses = jnp.asarray(masses)
        masses = masses if jnp.issubdtype(masses.dtype, jnp.inexact) else masses.astype(jnp.result_type(float))
        good = masses.ndim in (1, 2) and masses.shape[-1] > 0 and not jnp.iscomplexobj(masses)
        check_that(good, "masses", "be real with the axes (cells,) or (fibres, cells)", found(masses))
        self.masses = masses

    def mass(self) -> Float[Array, "*fibres"]:
        """The total mass."""
        return jnp.sum(self.masses, axis=-1)


CircleMeasure = Points | CellMasses


def circle_wasserstein(first: Any, second: Any) -> Float[Array, ""]:
    r"""The Wasserstein distance W1 on the circle of length 1.

    With F the difference of the two distribution functions from any starting point,

        W1 = min_m int_0^1 |F(x) - m| dx,

    attained where m is the median of F under the length. Phases are in radians and the result is in turns: an arc of
    angle a counts a / (2 pi), and no distance exceeds 1/2. The integral is exact, F being linear between breakpoints.

    The result is invariant under rotations up to rounding. Its derivative exists wherever phases do not meet; where they
    do, a subgradient without NaN is returned. It costs O(n log n) for n atoms and cells together.

    Args:
        first: phases of equal weight in radians, (points,), or `Points`, or `CellMasses`.
        second: likewise, of the same mass.

    Raises:
        ValueError: if a concrete pair does not have equal masses (take `bounded_lipschitz`), or a measure has a fibre axis
            (take `fibre_distance`).

    Example:
        ```python
        circle_wasserstein(jnp.array([0.0, 0.1]), jnp.array([0.1, 6.2]))
        circle_wasserstein(Points(angles), CellMasses(jnp.ones(1)))          # distance to the uniform law
        ```

    References:
        Werman, Peleg, Melter and Kong 1986, Bipartite graph matching for points on a line or a circle; Rabin, Delon and
        Gousseau 2011, Transportation distances on the circle (arXiv:0906.5499).
    """
    first, second = as_measure(first, "first"), as_measure(second, "second")
    for measure, name in ((first, "first"), (second, "second")):
        check_that(measure.mass().ndim == 0, name, "be one measure", "it has a fibre axis; take `fibre_distance`")
    check_equal_masses(first, second)
    return wasserstein(first, second)


@jax.jit
def wasserstein(first: CircleMeasure, second: CircleMeasure) -> Float[Array, ""]:
    """W1 of two single measures that have been checked."""
    gaps, left, right = difference(first, second)
    level = lax.stop_gradient(_median(gaps, left, right))
    # At the minimum the derivative in the median is zero where it exists. Of atoms the median is a value of F, the integral
    # has a kink there, and derivatives with respect to weights are right if the median moves with that value.
    values = jnp.concatenate([left, right])
    nearest = values[jnp.argmin(jnp.abs(lax.stop_gradient(values) - level))]
    eps = jnp.finfo(level.dtype).eps
    met = jnp.abs(lax.stop_gradient(nearest) - level) <= 8 * eps * jnp.max(jnp.abs(lax.stop_gradient(values)))
    level = jnp.where(met, nearest, level)
    return jnp.sum(gaps * _mean_distance(left - level, right - level))


def as_measure(value: Any, argument: str) -> CircleMeasure:
    """A measure; arrays are phases of equal weight."""
    if isinstance(value, Points | CellMasses):
        return value
    array = jnp.asarray(value)
    good = array.ndim in (1, 2) and array.shape[-1] > 0 and not jnp.iscomplexobj(array)
    check_that(good, argument, "be phases (points,) or (fibres, points), `Points` or `CellMasses`", found(array))
    return Points(array)


def masses_agree(first: CircleMeasure, second: CircleMeasure) -> Bool[np.ndarray, "*fibres"]:
    """Whether two concrete families have equal masses, to the rounding of their sums."""
    a, b = (np.asarray(measure.mass(), float) for measure in (first, second))
    leaves = jax.tree_util.tree_leaves((first, second))
    eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in leaves)
    count = max(leaf.shape[-1] for leaf in leaves)
    # NaN masses are no reason to complain here: the distance is NaN.
    return ~(np.abs(a - b) > (16 + count) * eps * np.maximum(np.abs(a), np.abs(b)))


def check_equal_masses(first: CircleMeasure, second: CircleMeasure) -> None:
    """Raise where the masses are seen to differ."""
    if is_concrete((first, second)):
        agree = masses_agree(first, second)
        worst = int(np.argmin(agree))
        a, b = (np.broadcast_to(measure.mass(), agree.shape).ravel()[worst] for measure in (first, second))
        but = f"found {b:.6g} instead of {a:.6g} in fibre {worst}; `bounded_lipschitz` takes unequal masses"
        check_that(bool(np.all(agree)), "second", "have the mass of `first` in every fibre", but)


def check_nonnegative(weights: Any, argument: str) -> None:
    """Raise where a weight is seen to be negative or not finite."""
    if weights is not None and is_concrete(weights):
        values = np.asarray(weights)
        good = bool(np.all(np.isfinite(values) & (values >= 0)))
        check_that(good, argument, "be finite and at least 0", "one is not")


def difference(first: CircleMeasure, second: CircleMeasure) -> tuple[Array, Array, Array]:
    """F = F_first - F_second between its sorted breakpoints on the circle of length 1.

    Returns:
        (lengths, left, right): for the arcs between breakpoints, in order, their lengths in turns and the values of F at
        their two ends. The first arc starts at the origin, after the atoms there.
    """
    pieces, jumps = [], []
    for measure, sign in ((first, 1), (second, -1)):
        if isinstance(measure, Points):
            turns = wrap(measure.angles) / (2 * jnp.pi) + 0.5
            pieces.append(jnp.clip(turns, 0, 1))
            jumps.append(sign * measure.weights)
        else:
            cells = measure.masses.shape[-1]
            pieces.append(jnp.arange(cells, dtype=measure.masses.dtype) / cells)
            jumps.append(jnp.zeros(cells, measure.masses.dtype))
    # The origin is a breakpoint of no weight.
    turns, steps = jnp.concatenate([jnp.zeros(1, pieces[0].dtype), *pieces]), jnp.concatenate([jnp.zeros(1), *jumps])
    order = jnp.argsort(lax.stop_gradient(turns), stable=True)
    turns, steps = turns[order], steps.astype(turns.dtype)[order]
    ends = jnp.concatenate([turns[1:], jnp.ones(1, turns.dtype)])
    jumped = jnp.cumsum(steps)
    left, right = jumped, jumped
    for measure, sign in ((first, 1), (second, -1)):
        if isinstance(measure, CellMasses):
            left = left + sign * _smooth_part(measure.masses, turns)
            right = right + sign * _smooth_part(measure.masses, ends)
    return ends - turns, left, right


def _smooth_part(masses: Float[Array, "cells"], turns: Float[Array, "points"]) -> Float[Array, "points"]:
    """The distribution function of a density on cells."""
    cells = masses.shape[-1]
    total = jnp.concatenate([jnp.zeros(1, masses.dtype), jnp.cumsum(masses)])
    # The cell and the place in it come from one float, clipped: at an edge both choices give the same value.
    cell = jnp.clip(jnp.floor(lax.stop_gradient(turns) * cells).astype(int), 0, cells - 1)
    return total[cell] + masses[cell] * (turns * cells - cell)


def _mean_distance(a: Float[Array, "arcs"], b: Float[Array, "arcs"]) -> Float[Array, "arcs"]:
    """The mean of |f| where f is linear from a to b."""
    crossing = a * b < 0
    spread = jnp.where(crossing, jnp.abs(a - b), 1)
    return jnp.where(crossing, (a**2 + b**2) / (2 * spread), jnp.abs(a + b) / 2)


def _median(gaps: Float[Array, "arcs"], left: Float[Array, "arcs"], right: Float[Array, "arcs"]) -> Float[Array, ""]:
    """A level m with at least half of the length on either side of F = m, by bisection."""
    low, high = jnp.minimum(left, right), jnp.maximum(left, right)
    slope = jnp.where(high > low, high - low, 1)

    def halve(ends: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
        bottom, top = ends
        level = (bottom + top) / 2
        share = jnp.where(high > low, jnp.clip((level - low) / slope, 0, 1), (low <= level).astype(low.dtype))
        below = 2 * jnp.sum(gaps * share) < jnp.sum(gaps)
        return (jnp.where(below, level, bottom), jnp.where(below, top, level)), None

    (bottom, top), _ = lax.scan(halve, (jnp.min(low), jnp.max(high)), length=_BISECTIONS)
    return (bottom + top) / 2
