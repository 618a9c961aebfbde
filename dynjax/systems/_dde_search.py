"""The end of a segment whose delays vary: solve until a delayed time leaves its view, and repeat where it sees itself."""

from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int8, PyTree

from .._core import Status, status_of_diffrax, tree_all_finite, tree_where
from ._dde_crossing import FINISH, PLAIN, Bounds, bounds, crossed, first_crossing, see
from ._dde_pieces import Pieces
from ._dde_replay import trimmed_knots
from ._dde_windows import (
    Chart,
    Inputs,
    Setup,
    Sight,
    extended_interpolation,
    lags,
    open_view,
    rescaled_field,
    take_windows,
    window_slots,
)

_MOST_SWEEPS = 8
# Derivatives of the past come back with a factor below 1 that does not shrink with the segment where the delay vanishes.
_MOST_SWEEPS_NEUTRAL = 48
_MOST_HALVINGS = 12
_SAMPLES = 8
_SHORT = 2  # a delay below so many steps makes a segment overlap with its own past
_FIRST_OVERLAP = 4  # and be so many steps long, at first


def most_sweeps(setup: Setup) -> int:
    """How often a segment that sees itself is solved before its length is halved."""
    return _MOST_SWEEPS_NEUTRAL if setup.neutral else _MOST_SWEEPS


class Habits(NamedTuple):
    """What one segment tells the next: the size of steps, and the length of a segment that sees itself (0: none yet)."""

    step: Float[Array, ""]
    overlap: Float[Array, ""]


class Found(NamedTuple):
    """A segment as it was found; nothing here carries derivatives.

    Attributes:
        end: its end.
        hit: what happened there, the number of a crossing, `PLAIN` or `FINISH`.
        sight: the windows.
        own: its dense output, and the time where time 1 of it lies.
        own_end: see there.
        knots: the steps up to `end`, in time from 0 to 1.
        sweeps: how often it was solved until it agreed with what it saw of itself; 0 where it sees nothing of itself.
        num_steps: steps tried.
        habits: for the next segment.
        status: whether it was found.
    """

    end: Float[Array, ""]
    hit: Int[Array, ""]
    sight: Sight
    own: Pieces
    own_end: Float[Array, ""]
    knots: Float[Array, " max_steps_1"]
    sweeps: Int[Array, ""]
    num_steps: Int[Array, ""]
    habits: Habits
    status: Int8[Array, ""]


class _Attempt(NamedTuple):
    """One solution over a tentative length, up to the first crossing."""

    length: Array
    own: Pieces
    end: Array
    hit: Array
    watched: Array
    sweeps: Array
    num_solves: Array
    num_steps: Array
    status: Array
    done: Array


class _Task(NamedTuple):
    """The segment to be found."""

    inputs: Inputs
    chart: Chart
    windows: tuple[Pieces, ...]
    sight: Sight
    limits: Bounds
    k: Array
    y: PyTree
    step: Array
    overlap: Bool[Array, ""]


def find_segment(
    inputs: Inputs,
    chart: Chart,
    y: PyTree,
    k: Array,
    where: Array,
    sides: Array,
    ledger: Any,
    habits: Habits,
    setup: Setup,
) -> Found:
    """Find segment k by solving it. Arguments must have no derivatives."""
    begin = chart.begins[k]
    rest = inputs.end - begin
    step = jnp.minimum(habits.step, rest)
    short = jnp.any(lags(inputs, begin, y) < _SHORT * step)
    overlap = jnp.any(where >= k) | (short & setup.overlap)
    sight = see(where, ledger, k, overlap, setup)
    limits = bounds(inputs, chart.begins, sight, sides, setup)
    windows = take_windows(chart.pieces, sight, setup)
    task = _Task(inputs, chart, windows, sight, limits, k, y, step, overlap)
    usual = jnp.where(habits.overlap > 0, habits.overlap, _FIRST_OVERLAP * step)
    length = jnp.where(overlap, jnp.minimum(usual, rest), rest)
    zero = jnp.zeros((), jnp.result_type(int))
    start = _Attempt(
        length, _still(task, setup), begin, jnp.asarray(PLAIN, jnp.int32), where > k, zero, zero, zero,
        jnp.asarray(int(Status.RUNNING), jnp.int8), jnp.asarray(False),
    )  # fmt: skip
    last = jax.lax.while_loop(lambda a: ~a.done, lambda a: _next_attempt(a, task, setup), start)
    return _conclude(last, task, habits, setup)


def _conclude(last: _Attempt, task: _Task, habits: Habits, setup: Setup) -> Found:
    begin = task.chart.begins[task.k]
    whole = jnp.where(last.length > 0, last.length, 1)
    cut = (last.end - begin) / whole
    knots = trimmed_knots(last.own.knots, cut)
    sizes = jnp.diff(knots)
    longest = jnp.max(jnp.where(jnp.isfinite(sizes), sizes, 0)) * (last.end - begin)
    # One step may be all that fits between two breakpoints: let the next one try more.
    step = jnp.where(last.end > begin, jnp.where(jnp.isfinite(knots[2]), longest, 5 * longest), task.step)
    easy = last.sweeps <= most_sweeps(setup) // 2
    overlap = jnp.where(task.overlap, jnp.where(easy, 2, 1) * last.length, habits.overlap)
    # A delay that did not see the segment after all may still reach its beginning by rounding, and would find no derivatives.
    above = jnp.where(
        last.watched | (task.sight.base >= task.k), task.sight.above, jnp.minimum(task.sight.above, task.k)
    )
    return Found(
        last.end, last.hit, Sight(task.sight.base, above), last.own, begin + last.length, knots, last.sweeps, last.num_steps,
        Habits(step, overlap), last.status,
    )  # fmt: skip


def _next_attempt(before: _Attempt, task: _Task, setup: Setup) -> _Attempt:
    """Solve once more: with the last solution for what the segment sees of itself, or over half the length."""
    now = _solve(before, task, setup)
    whole = jnp.where(now.length > 0, now.length, 1)
    cut = (now.end - task.chart.begins[task.k]) / whole
    watched, gap = _compare(now, before, cut, task, setup)
    alone = ~jnp.any(watched)
    agreed = alone | ((gap <= 1) & (now.sweeps > 1))
    failed = (now.status != int(Status.OK)) | ~jnp.isfinite(gap)
    most = most_sweeps(setup)
    spent = now.num_solves >= _MOST_HALVINGS * most
    halve = task.overlap & ~spent & (failed | (~agreed & (now.sweeps >= most)))
    done = spent | jnp.where(failed, ~task.overlap, agreed)
    why = jnp.where(now.status == int(Status.OK), int(Status.NONFINITE), now.status)
    status = jnp.where(failed, why, jnp.where(spent & ~agreed, int(Status.NOT_CONVERGED), now.status))
    again = _still(task, setup)
    own = tree_where(halve, again, now.own)
    sweeps = jnp.where(halve | alone, 0, now.sweeps)
    length = jnp.where(halve, 0.5 * now.length, now.length)
    return now._replace(
        length=length, own=own, watched=watched, sweeps=sweeps, status=status.astype(jnp.int8), done=done
    )


def _solve(before: _Attempt, task: _Task, setup: Setup) -> _Attempt:
    """One adaptive solution over the tentative length, and where it is cut off."""
    inputs, begin, length = task.inputs, task.chart.begins[task.k], before.length
    solution = _integrate(before, task, setup)
    knots = solution.interpolation.ts
    own = Pieces(jnp.where(jnp.isfinite(knots), knots, jnp.inf), solution.interpolation.infos)
    accepted = jnp.sum(jnp.isfinite(own.knots)) - 1
    low, high = own.knots[jnp.maximum(accepted - 1, 0)], own.knots[jnp.maximum(accepted, 0)]
    at = lambda s: extended_interpolation(_alone(own), setup, jnp.asarray(0), s).value
    flags = lambda s: crossed(inputs, task.limits, begin + s * length, at(s))
    happened = solution.result == diffrax.RESULTS.event_occurred
    cut, passed = first_crossing(flags, low, high)
    cut = jnp.where(happened, cut, high)
    through = ~happened & (high >= 1)
    finish = through & (length >= inputs.end - begin)
    # At t1 not the sum, which may differ from t1 in the last digit.
    end = jnp.where(finish, inputs.end, begin + jnp.where(through, 1, cut) * length)
    hit = jnp.where(happened, jnp.argmax(passed), jnp.where(finish, FINISH, PLAIN)).astype(jnp.int32)
    finite = tree_all_finite(at(cut))
    code = status_of_diffrax(solution.result, finite)
    # Out of steps is no failure as long as there were some: the segment ends there.
    partly = (accepted > 0) & finite & (code == int(Status.MAX_STEPS))
    tried = jnp.asarray(solution.stats["num_steps"], before.num_steps.dtype)
    return before._replace(
        own=own, end=end, hit=hit, sweeps=before.sweeps + 1, num_solves=before.num_solves + 1,
        num_steps=before.num_steps + tried, status=jnp.where(partly, int(Status.OK), code).astype(jnp.int8),
    )  # fmt: skip


def _integrate(before: _Attempt, task: _Task, setup: Setup) -> Any:
    """Steps until a delayed time leaves its view or a kink was passed at the end of a step, or to the end."""
    inputs, k, length = task.inputs, task.k, before.length
    begin = task.chart.begins[k]
    windows = put_own(task.windows, task.sight, k, before.own, setup)
    ends = task.chart.ends.at[k].set(begin + length)
    view = open_view(inputs, task.chart.begins, ends, windows, task.sight, k, begin + length, setup)
    whole = jnp.where(length > 0, length, 1)

    def left(t: Any, y: PyTree, args: Any, **_: Any) -> Array:
        del args
        return (t > 0) & jnp.any(crossed(inputs, task.limits, begin + t * length, y))

    controller: diffrax.AbstractStepSizeController = setup.controller
    if inputs.stops.shape[0]:
        controller = diffrax.ClipStepSizeController(controller, step_ts=jnp.clip((inputs.stops - begin) / whole, 0, 1))
    return diffrax.diffeqsolve(
        diffrax.ODETerm(rescaled_field), setup.solver, jnp.zeros_like(begin), jnp.ones_like(begin),
        jnp.clip(task.step / whole, jnp.finfo(begin.dtype).eps, 1), task.y, (view, setup, inputs), stepsize_controller=controller,
        saveat=diffrax.SaveAt(t1=True, dense=True), max_steps=setup.max_steps, adjoint=diffrax.ForwardMode(),
        event=diffrax.Event(left), throw=False,
    )  # fmt: skip


def _compare(now: _Attempt, before: _Attempt, cut: Array, task: _Task, setup: Setup) -> tuple[Array, Array]:
    """Which delays saw the segment itself, and the change from one solution to the next, in units of the tolerance."""
    places = jnp.arange(1, _SAMPLES + 1, dtype=cut.dtype) / _SAMPLES * cut
    begin = task.chart.begins[task.k]
    value = lambda own: jax.vmap(lambda s: extended_interpolation(_alone(own), setup, jnp.asarray(0), s).value)(places)
    new, old = value(now.own), value(before.own)
    times = begin + places * now.length
    delayed = times[:, None] - jax.vmap(lambda t, y: lags(task.inputs, t, y))(times, new)
    inside = (task.sight.base >= task.k) | jnp.any(delayed > begin + task.limits.near, axis=0)
    watched = (task.sight.above > task.k) & inside
    tiny = jnp.finfo(cut.dtype).tiny
    allowed = lambda a, b: setup.atol + setup.rtol * jnp.maximum(jnp.abs(a), jnp.abs(b)) + tiny
    scale = lambda a, b: jnp.max(jnp.abs(a - b) / allowed(a, b))
    gaps = [scale(a, b) for a, b in zip(jax.tree_util.tree_leaves(new), jax.tree_util.tree_leaves(old), strict=True)]
    return watched, jnp.max(jnp.stack(gaps))


def _alone(piece: Pieces) -> Pieces:
    return jax.tree_util.tree_map(lambda leaf: leaf[None], piece)


def put_own(windows: tuple[Pieces, ...], sight: Sight, k: Array, own: Pieces, setup: Setup) -> tuple[Pieces, ...]:
    """The windows with the segment's own solution where they reach it."""

    def put(j: int, window: Pieces) -> Pieces:
        mine = window_slots(sight, j, setup) == k
        pick = lambda leaf, new: jnp.where(mine.reshape((-1,) + (1,) * new.ndim), new, leaf)
        return jax.tree_util.tree_map(pick, window, own)

    return tuple(put(j, window) for j, window in enumerate(windows))


def _still(task: _Task, setup: Setup) -> Pieces:
    """A constant as dense output: what a segment that sees itself sees at first."""
    zero = jnp.zeros_like(task.step)
    term = diffrax.ODETerm(lambda s, y, args: jax.tree_util.tree_map(jnp.zeros_like, y))
    state = setup.plain.init(term, zero, zero + 1, task.y, None)
    infos = setup.plain.step(term, zero, zero + 1, task.y, None, state, False)[2]
    room = jax.tree_util.tree_map(lambda leaf: leaf[task.k], task.chart.pieces)
    put = lambda leaf, new: leaf.at[0].set(new.astype(leaf.dtype))
    return Pieces(
        jnp.full_like(room.knots, jnp.inf).at[0].set(0).at[1].set(1),
        jax.tree_util.tree_map(put, room.infos, infos),
    )
