"""The bounded-Lipschitz distance of measures on the circle of length 1, of equal masses or not."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from ..._core import check_that, is_concrete
from .circle_distance import CircleMeasure, Points, as_measure, difference, masses_agree, wasserstein


def bounded_lipschitz(first: Any, second: Any, *, convention: str = "max") -> Float[Array, ""]:
    r"""The bounded-Lipschitz distance on the circle of length 1, sup_f int f d(first - second).

    Two conventions are in use; the test functions are

        "max":  |f| <= 1 and Lip(f) <= 1,              "sum":  sup |f| + Lip(f) <= 1.

    For two unit atoms at the distance d they give d and 2 d / (2 + d).

    "max" is also called the flat metric. The circle has diameter 1/2, so a test function may be shifted until one of its
    bounds is met and the other cannot be: for equal masses it is W1, and in general it is

        |c| + min over ways to remove the excess mass |c| of W1 between what is left,    c = first mass - second mass.

    With F the difference of the distribution functions this is an isotonic regression, min_G int |F - G| over the
    monotone G with G(1) <= G(0) + c, whose solution is the unconstrained one cut off to an interval. (Both steps are
    derived here.) It is exact for atoms, can be traced and has the derivatives of `circle_wasserstein`; unequal masses cost
    O(n^2) operations and O(n) memory.

    "sum" is a linear programme in n + 1 unknowns, solved on the host.

    Args:
        first: phases in radians of weight 1/n each, (n,), or `Points`, or `CellMasses` (where masses are equal).
        second: likewise.
        convention: "max" or "sum".

    Raises:
        ValueError: if `convention` is unknown; for a measure with a fibre axis; for "sum" with traced arguments.
        TypeError: for a density where atoms are needed.

    Example:
        ```python
        two, one = Points(jnp.zeros(1), 2.0), Points(2 * jnp.pi * jnp.array([0.3]))
        bounded_lipschitz(two, one)                                # 1.3
        ```
    """
    first, second = as_measure(first, "first"), as_measure(second, "second")
    check_that(convention in ("max", "sum"), "convention", "be 'max' or 'sum'", f"found {convention!r}")
    for measure, name in ((first, "first"), (second, "second")):
        check_that(measure.mass().ndim == 0, name, "be one measure", "it has a fibre axis; take `fibre_distance`")
    return by_convention(first, second, convention)


def by_convention(first: CircleMeasure, second: CircleMeasure, convention: str) -> Float[Array, ""]:
    """The distance of two single measures that have been checked."""
    if convention == "sum":
        check_that(is_concrete((first, second)), "convention", "be 'max' for traced measures", "found 'sum'")
        _check_atoms(first, second)
        assert isinstance(first, Points)
        assert isinstance(second, Points)
        return jnp.asarray(_linear_programme(first, second), first.mass().dtype)
    if is_concrete((first, second)) and bool(masses_agree(first, second)):
        return wasserstein(first, second)
    _check_atoms(first, second)
    return _flat(first, second)


def _check_atoms(first: CircleMeasure, second: CircleMeasure) -> None:
    for measure, name in ((first, "first"), (second, "second")):
        but = "found a density; take `Points` at the centres of its cells"
        check_that(isinstance(measure, Points), name, "be `Points` unless masses are equal", but, TypeError)


@jax.jit
def _flat(first: CircleMeasure, second: CircleMeasure) -> Float[Array, ""]:
    """The flat metric: isotonic regression of F, cut off."""
    excess = first.mass() - second.mass()
    sign = jnp.where(excess < 0, -1, 1).astype(excess.dtype)
    gaps, flux, _ = difference(first, second)
    flux, excess = sign * flux, jnp.abs(excess)
    fixed_gaps, fixed, width = lax.stop_gradient((gaps, flux, excess))
    chosen = _isotonic(fixed, fixed_gaps)
    fit = fixed[chosen]
    # The loss is convex and piecewise linear in the lower end, with kinks where an end meets a value.
    ends = jnp.concatenate([fixed, fixed - width])
    losses = lax.map(lambda low: jnp.sum(fixed_gaps * jnp.abs(fixed - jnp.clip(fit, low, low + width))), ends)
    # The minimisers are values of F. They move with them: the integral has kinks there.
    low = jnp.concatenate([flux, flux - excess])[jnp.argmin(losses)]
    return excess + jnp.sum(gaps * jnp.abs(flux - jnp.clip(flux[chosen], low, low + excess)))


def _isotonic(values: Float[Array, "arcs"], weights: Float[Array, "arcs"]) -> Int[Array, "arcs"]:
    """The nondecreasing G that minimises sum w |values - G|, as positions in `values`, one threshold after the other.

    The indices with G >= t are a suffix; the best one minimises the weight on the wrong side of t.
    """
    index = jnp.arange(values.shape[0])

    def raise_to(chosen: Array, position: Array) -> tuple[Array, None]:
        lost = jnp.cumsum(jnp.where(values >= values[position], weights, -weights))
        start = jnp.argmin(jnp.concatenate([jnp.zeros(1, lost.dtype), lost]))
        return jnp.where(index >= start, position, chosen), None

    order = jnp.argsort(values)
    chosen, _ = lax.scan(raise_to, jnp.full_like(index, order[0]), order)
    return chosen


def _linear_programme(first: Points, second: Points) -> float:
    """The distance in the sum convention; the unknowns are f at the atoms and the Lipschitz constant."""
    from scipy import sparse
    from scipy.optimize import linprog

    angles = np.concatenate([np.asarray(measure.angles, float) for measure in (first, second)])
    weights = np.concatenate([np.asarray(first.weights, float), -np.asarray(second.weights, float)])
    turns, where = np.unique(np.mod(angles / (2 * np.pi), 1.0), return_inverse=True)
    sigma = np.bincount(np.ravel(where), weights)
    n = turns.size
    gaps = np.diff(np.append(turns, turns[0] + 1))[:, None]
    identity, ones = sparse.identity(n, format="csr"), np.ones((n, 1))
    step = sparse.csr_matrix((np.ones(n), (np.arange(n), (np.arange(n) + 1) % n)), (n, n)) - identity
    above = sparse.bmat([[identity, ones], [-identity, ones], [step, -gaps], [-step, -gaps]], format="csr")
    limits = np.concatenate([np.ones(2 * n), np.zeros(2 * n)])
    bounds = [(None, None)] * n + [(0, 1)]
    answer = linprog(-np.append(sigma, 0), A_ub=above, b_ub=limits, bounds=bounds, method="highs")
    return -float(answer.fun) if answer.success else float("nan")
