"""A delay equation on a mesh that repeats with the delay: the past of a Runge-Kutta stage is a stage, nothing is interpolated."""

import math
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import Status, check_that, tree_all_finite
from ._dde_arguments import Span
from ._dde_pieces import Pieces
from ._dde_segments import Inputs, March, held

_MOST_MULTIPLES = 1000
_LOOSE_ULPS = 32  # how far delays may be from multiples of one number, in units of their last place


class Grid(NamedTuple):
    """A mesh that repeats with the period of the delays.

    Attributes:
        multiples: each delay in periods.
        first: steps in the first part of a period, which ends where t1 lies in its period.
        second: steps in the rest of it; 0 where t1 - t0 is a multiple of the period.
        windows: periods, of which the last has its first part only.
    """

    multiples: tuple[int, ...]
    first: int
    second: int
    windows: int


def plan_grid(span: Span | None, r: int, dtype: Any, steps_per_delay: int, max_segments: int | None) -> Grid:
    """The sizes of the mesh.

    With one delay that is traced, `max_segments` is the number of delays from t0 to t1, rounded up; both parts of a period
    then get all the steps, since nothing is known about their lengths.

    Raises:
        ValueError: if delays are not multiples of one number, or several are traced.
    """
    if span is None:
        why = "several are given and something is traced"
        check_that(r == 1, "delays", 'be concrete for `engine="stages"`', why)
        why = "`t0`, `t1` or the delay is traced, so that it cannot be derived"
        check_that(max_segments is not None, "max_segments", "be given", why)
        return Grid((1,), steps_per_delay, steps_per_delay, int(max_segments or 0))
    loose = _LOOSE_ULPS * float(jnp.finfo(dtype).eps)
    multiples = _multiples(span.lags, loose)
    period = float(span.lags[0]) / multiples[0]
    per_period = steps_per_delay / min(multiples)
    exact = (span.end - span.start) / period
    windows = max(1, math.ceil(exact * (1 - loose)))
    share = min(1.0, exact - (windows - 1))
    whole = share > 1 - loose * exact
    first = max(1, math.ceil(per_period * share - loose))
    second = 0 if whole else max(1, math.ceil(per_period * (1 - share) - loose))
    return Grid(multiples, first, second, windows)


def _multiples(values: np.ndarray, loose: float) -> tuple[int, ...]:
    """The delays as multiples of their largest common divisor."""
    smallest = values.min()
    for parts in range(1, _MOST_MULTIPLES + 1):
        ratios = values / smallest * parts
        near = np.round(ratios)
        if np.all(np.abs(ratios - near) <= loose * ratios):
            return tuple(int(ratio) for ratio in near)
    raise ValueError(
        'Argument `delays` must be multiples of one number for `engine="stages"`, but '
        f'found {values.tolist()}; take `engine="segments"`.'
    )


def grid_edges(start: Array, end: Array, lags: Array, grid: Grid) -> tuple[Float[Array, "windows_1"], Array]:
    """Ends of the periods, the last of them t1, and whether t1 lies in the last period."""
    period = lags[0] / grid.multiples[0]
    edges = start + period * jnp.arange(grid.windows, dtype=start.dtype)
    slack = 1e-6 * period
    fits = (end > edges[-1] - slack) & (end <= edges[-1] + period + slack)
    return jnp.append(edges, end), fits


def march_stages(inputs: Inputs, grid: Grid, solver: diffrax.AbstractERK) -> March:
    """All steps. It can be differentiated either way, and stores the stages of every step for reverse mode.

    The last period goes on to its own end as well, with steps of size zero at t1: one loop compiles in half of the time
    that a second one for the rest would take.
    """
    rule = _Rule.of(solver, inputs.edges.dtype)
    begin, period = inputs.edges[:-1], inputs.delays[0] / grid.multiples[0]
    rest = inputs.edges[-1] - inputs.edges[-2]
    sizes = jnp.concatenate(
        [jnp.full((grid.first,), rest / grid.first), jnp.full((grid.second,), (period - rest) / max(grid.second, 1))]
    ).astype(inputs.edges.dtype)
    marks = jnp.concatenate([jnp.zeros((1,), sizes.dtype), jnp.cumsum(sizes)])
    depth = max(grid.multiples)
    early = jnp.arange(grid.first + grid.second) < grid.first

    def past(window: Array) -> PyTree:
        at = lambda mark, size: jax.vmap(lambda c: inputs.history(held(window + mark + c * size, inputs.edges[0])))(
            rule.c
        )
        return jax.vmap(at)(marks[:-1], sizes)

    ring = jax.vmap(past)(inputs.edges[0] - period * jnp.arange(depth, 0, -1, dtype=sizes.dtype))
    advance = lambda y, row: _step(inputs, rule, y, row)

    def window(carry: Any, row: Any) -> Any:
        (y, ring), (first, whole) = carry, row
        delayed = tuple(jax.tree_util.tree_map(lambda leaf, m=m: leaf[depth - m], ring) for m in grid.multiples)
        taken = early | whole
        times = first + jnp.where(taken, marks[:-1], rest)
        y, (stages, infos) = jax.lax.scan(advance, y, (times, jnp.where(taken, sizes, 0), delayed))
        ring = jax.tree_util.tree_map(lambda leaf, new: jnp.concatenate([leaf[1:], new[None]]), ring, stages)
        return (y, ring), infos

    whole = jnp.arange(grid.windows) < grid.windows - 1
    (final, _), infos = jax.lax.scan(window, (inputs.y0, ring), (begin, whole))
    pieces = _pieces(infos, marks, period, grid)
    # A state that has left the finite numbers does not come back; to look at all of them would keep all of them.
    status = jnp.where(tree_all_finite(final), int(Status.OK), int(Status.NONFINITE)).astype(jnp.int8)
    total = (grid.windows - 1) * (grid.first + grid.second) + grid.first
    good = jnp.where(status == int(Status.OK), grid.windows, 0)
    return March(final, pieces, jnp.asarray(total), status, good)


class _Rule(NamedTuple):
    """A Butcher tableau with the first stage written out."""

    a: tuple[Array, ...]
    b: Array
    c: Array

    @classmethod
    def of(cls, solver: diffrax.AbstractERK, dtype: Any) -> "_Rule":
        tableau: Any = solver.tableau
        rows = tuple(jnp.asarray(row, dtype) for row in tableau.a_lower)
        c = np.concatenate([[0.0], np.asarray(tableau.c)])
        return cls((jnp.zeros((0,), dtype), *rows), jnp.asarray(tableau.b_sol, dtype), jnp.asarray(c, dtype))


def _step(inputs: Inputs, rule: _Rule, y: PyTree, row: Any) -> tuple[PyTree, tuple[PyTree, dict[str, PyTree]]]:
    """One step, its stages, and what the interpolation needs. Stage i looks back to stage i of an earlier step."""
    t, size, delayed = row
    stages: list[PyTree] = []
    slopes: list[PyTree] = []
    add = lambda weights: jax.tree_util.tree_map(
        lambda p, *ks: p + sum((w * k for w, k in zip(weights, ks, strict=True)), jnp.zeros_like(p)), y, *slopes
    )
    for i, weights in enumerate(rule.a):
        stages.append(add(weights))
        seen = tuple(jax.tree_util.tree_map(lambda leaf, i=i: leaf[i], member) for member in delayed)
        slope = inputs.field(t + rule.c[i] * size, stages[-1], seen, inputs.args)
        slopes.append(jax.tree_util.tree_map(lambda leaf: size * leaf, slope))
    new = add(rule.b)
    stack = lambda trees: jax.tree_util.tree_map(lambda *leaves: jnp.stack(leaves), *trees)
    return new, (stack(stages), {"y0": y, "y1": new, "k": stack(slopes)})


def _pieces(infos: PyTree, marks: Array, period: Array, grid: Grid) -> Pieces:
    """Steps as dense output, one piece for each period; the last one ends with its first part."""
    whole = marks / period
    part = jnp.where(jnp.arange(marks.shape[0]) <= grid.first, jnp.arange(marks.shape[0]) / grid.first, jnp.inf)
    knots = jnp.concatenate([jnp.tile(whole, (grid.windows - 1, 1)), part[None].astype(marks.dtype)])
    return Pieces(jax.lax.stop_gradient(knots), infos)
