"""A delay equation whose delays depend on time and state: breakpoints are found on the march, with their derivatives."""

import functools
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int8, PyTree

from .._core import Status, cond_any_lane, tree_where
from ._dde_crossing import Landing, Ledger, empty_ledger, kink_values, land, move_on, nearness, starts_smoothly
from ._dde_pieces import Pieces, empty_pieces, put_piece, take_piece
from ._dde_replay import Replay
from ._dde_search import Found, Habits, find_segment, put_own
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
    without_derivatives,
)

_SAMPLES = 16


class VaryingMarch(NamedTuple):
    """A solution.

    Attributes:
        final: the state at the end.
        edges: the ends of the segments, filled up with t1.
        ends: where time 1 of their dense output lies: the next edge, without derivatives.
        pieces: the dense output.
        breakpoints: the edges at which a delayed time met a breakpoint, or where there was a kink; then NaN.
        num_segments: how many segments were solved.
        num_steps: steps tried in all.
        cut: up to where there is a solution.
        most_sweeps: the most solutions of one segment that sees itself.
        status: the first failure, or OK.
    """

    final: PyTree
    edges: Float[Array, "num_segments_1"]
    ends: Float[Array, " num_segments"]
    pieces: Pieces
    breakpoints: Float[Array, " num_segments"]
    num_segments: Int[Array, ""]
    num_steps: Int[Array, ""]
    cut: Float[Array, ""]
    most_sweeps: Int[Array, ""]
    status: Int8[Array, ""]


class _Tape(NamedTuple):
    """For each segment what its second solution needs."""

    starts: PyTree
    sight: Sight
    hit: Array
    sweeps: Array
    active: Array


class _Raw(NamedTuple):
    final: PyTree
    begins: Array
    ends: Array
    pieces: Pieces
    tape: _Tape
    num_steps: Array
    status: Array


def march_varying(inputs: Inputs, setup: Setup, *, forward: bool) -> VaryingMarch:
    """All segments.

    Each one is solved until the first delayed time leaves what it can see smoothly (`find_segment`), and then once more
    with the steps found, this time with derivatives. In reverse mode every segment has a reverse pass of its own, and memory
    grows linearly with the number of segments.

    Args:
        inputs: the equation.
        setup: how to solve it.
        forward: for forward mode; otherwise for reverse mode.
    """
    raw = _march(inputs, setup, forward=True) if forward else _reverse(inputs, setup)
    count = jnp.sum(raw.tape.active)
    number = jnp.arange(setup.num_segments + 1)
    edges = jnp.where(number <= count, raw.begins, inputs.end)
    ends = jnp.where(number[:-1] < count, raw.ends, jax.lax.stop_gradient(inputs.end))
    located = raw.tape.active & (raw.tape.hit >= 0)
    breakpoints = jnp.sort(jnp.where(located, edges[1:], jnp.nan))
    status = jnp.where(raw.status == int(Status.RUNNING), int(Status.MAX_STEPS), raw.status).astype(jnp.int8)
    # The last segment is no good if something failed in it.
    good = jnp.where((status == int(Status.OK)) | (status == int(Status.MAX_STEPS)), count, jnp.maximum(count - 1, 0))
    cut = jax.lax.stop_gradient(edges[good])
    sweeps = jnp.max(jnp.where(raw.tape.active, raw.tape.sweeps, 0))
    return VaryingMarch(raw.final, edges, ends, raw.pieces, breakpoints, count, raw.num_steps, cut, sweeps, status)


class _State(NamedTuple):
    y: PyTree
    begins: Array
    ends: Array
    pieces: Pieces
    ledger: Ledger
    where: Array
    sides: Array
    habits: Habits
    status: Array  # RUNNING until t1 is reached or something fails


class _Solved(NamedTuple):
    """A segment with derivatives."""

    end: Landing
    piece: Pieces


def _march(inputs: Inputs, setup: Setup, *, forward: bool) -> _Raw:
    """The loop over segments."""
    frozen = without_derivatives(inputs)

    def body(state: _State, k: Array) -> tuple[_State, Any]:
        active = state.status == int(Status.RUNNING)
        step = jax.jit(lambda s: _advance(inputs, frozen, s, k, setup, forward))  # traced once for the two uses
        shapes = jax.eval_shape(step, state)
        skip = lambda s: jax.tree_util.tree_map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        # Big buffers stay outside the branches: under `vmap` both run, and what they return is chosen by copying.
        solved, found, marks, status = cond_any_lane(active, step, skip, state)
        keep = functools.partial(tree_where, active)
        ledger, where, sides = keep(marks, (state.ledger, state.where, state.sides))
        after = _State(
            keep(solved.end.state, state.y),
            state.begins.at[k + 1].set(jnp.where(active, solved.end.time, state.begins[k + 1])),
            state.ends.at[k].set(jnp.where(active, found.end, state.ends[k])),
            put_piece(state.pieces, k, keep(solved.piece, take_piece(state.pieces, k))),
            ledger, where, sides, keep(found.habits, state.habits), jnp.where(active, status, state.status),
        )  # fmt: skip
        tape = _Tape(state.y, found.sight, found.hit, found.sweeps, active)
        return after, (tape, jnp.where(active, found.num_steps, 0))

    start = _begin(inputs, frozen, setup)
    last, (tape, counts) = jax.lax.scan(body, start, jnp.arange(setup.num_segments))
    return _Raw(last.y, last.begins, last.ends, last.pieces, tape, jnp.sum(counts), last.status)


def _begin(inputs: Inputs, frozen: Inputs, setup: Setup) -> _State:
    r, dtype = len(inputs.delays), inputs.start.dtype
    times = frozen.start - lags(frozen, frozen.start, frozen.y0)
    near = nearness(frozen)
    where = jnp.where(times >= frozen.start - near, 0, -1).astype(jnp.int32)
    valid = jnp.all(times <= frozen.start + near) & (frozen.end > frozen.start)
    sides = jnp.sign(kink_values(frozen, frozen.start, frozen.y0)).astype(jnp.int32)
    habits = Habits(setup.first_step * (frozen.end - frozen.start), jnp.zeros((), dtype))
    status = jnp.where(valid, int(Status.RUNNING), int(Status.ERROR)).astype(jnp.int8)
    return _State(
        inputs.y0,
        jnp.full((setup.num_segments + 1,), inputs.start),
        jnp.full((setup.num_segments,), frozen.start),
        empty_pieces(setup.num_segments, setup.max_steps, _template(inputs, setup), dtype),
        empty_ledger(setup.num_segments, r, starts_smoothly(frozen, times, setup)),
        where,
        sides,
        habits,
        status,
    )


def _template(inputs: Inputs, setup: Setup) -> PyTree:
    """Shapes of the dense output of one segment."""
    zero = jnp.zeros((), inputs.start.dtype)
    still = diffrax.ODETerm(lambda s, y, args: jax.tree_util.tree_map(jnp.zeros_like, y))

    def one_step(y: PyTree) -> Any:
        state = setup.plain.init(still, zero, zero + 1, y, None)
        return setup.plain.step(still, zero, zero + 1, y, None, state, False)[2]

    repeat = lambda leaf: jax.ShapeDtypeStruct((setup.max_steps, *leaf.shape), leaf.dtype)
    return jax.tree_util.tree_map(repeat, eqx.filter_eval_shape(one_step, inputs.y0))


def _advance(
    inputs: Inputs, frozen: Inputs, state: _State, k: Array, setup: Setup, forward: bool
) -> tuple[_Solved, Found, Any, Array]:
    """Find one segment, solve it with derivatives, and note what happened at its end."""
    still = without_derivatives(state)
    chart = Chart(still.begins, still.ends, still.pieces)
    found = find_segment(frozen, chart, still.y, k, still.where, still.sides, still.ledger, still.habits, setup)
    found = without_derivatives(found)
    windows = take_windows(state.pieces, found.sight, setup)
    solve = lambda own, own_end: _solve(
        inputs, state.y, state.begins, put_own(windows, found.sight, k, own, setup), found.knots,
        state.ends.at[k].set(own_end), found.end, found.sight, found.hit, k, setup, diffrax.ForwardMode(),
    )  # fmt: skip
    solved = solve(found.own, found.own_end)
    if forward:
        # The derivative of a segment that sees itself depends on itself: as many sweeps again.
        again = lambda _, solved: solve(solved.piece, found.end)
        solved = jax.lax.fori_loop(0, found.sweeps + (found.sweeps > 0), again, solved)
    quiet = without_derivatives(solved)
    marks, status = _after(frozen, still, found, quiet, k, setup)
    return solved, found, marks, status


def _after(
    frozen: Inputs, still: _State, found: Found, solved: _Solved, k: Array, setup: Setup
) -> tuple[tuple[Ledger, Array, Array], Array]:
    begins = still.begins.at[k + 1].set(solved.end.time)
    marks = move_on(frozen, still.ledger, begins, found.sight, still.sides, k, found.hit, solved.end, setup)
    status = jnp.where(solved.end.time >= frozen.end - nearness(frozen), int(Status.OK), int(Status.RUNNING))
    status = jnp.where(_is_ahead(frozen, still.begins[k], found.end, solved.piece, setup), int(Status.ERROR), status)
    status = jnp.where(found.status != int(Status.OK), found.status, status)
    status = jnp.where(solved.end.finite, status, int(Status.NONFINITE))
    return marks, status.astype(jnp.int8)


def _is_ahead(frozen: Inputs, begin: Array, end: Array, piece: Pieces, setup: Setup) -> Array:
    """Whether a delay is negative along the segment, by more than the error of the state may explain."""
    alone = jax.tree_util.tree_map(lambda leaf: leaf[None], piece)
    places = jnp.linspace(0, 1, _SAMPLES + 1, dtype=begin.dtype)

    def smallest(s: Array) -> Array:
        y = extended_interpolation(alone, setup, jnp.asarray(0), s).value
        return jnp.min(lags(frozen, begin + s * (end - begin), y))

    scale = jnp.maximum(jnp.abs(begin), jnp.abs(end))
    slack = 100 * (setup.atol + setup.rtol * scale) + jnp.sqrt(jnp.finfo(begin.dtype).eps) * scale
    return jnp.any(jax.vmap(smallest)(places) < -slack)


def _solve(
    inputs: Inputs, y: PyTree, begins: Array, windows: tuple[Pieces, ...], knots: Array, ends: Array, end: Array,
    sight: Sight, hit: Array, k: Array, setup: Setup, adjoint: Any,
) -> _Solved:  # fmt: skip
    """Segment k with known steps, up to its end."""
    view = open_view(inputs, begins, ends, windows, sight, k, end, setup)
    packed = (view, setup, inputs)
    zero = jnp.zeros_like(end)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(rescaled_field), setup.plain, zero, zero + 1, knots[1], y, packed,
        saveat=diffrax.SaveAt(t1=True, dense=True), stepsize_controller=Replay(
            knots=knots, rtol=setup.rtol, atol=setup.atol, norm=setup.controller.norm
        ),
        max_steps=setup.max_steps, adjoint=adjoint, throw=False,
    )  # fmt: skip
    final = jax.tree_util.tree_map(lambda leaf: leaf[0], solution.ys)
    landing = land(inputs, begins, sight, hit, end, final, packed)
    infos = jax.tree_util.tree_map(lambda leaf: _without_gaps(leaf, knots), solution.interpolation.infos)
    return _Solved(landing, Pieces(knots, infos))


def _without_gaps(leaf: Array, knots: Array) -> Array:
    """Zero where no step was taken: infinities there would turn zero cotangents into NaN."""
    there = jnp.isfinite(knots[1:]).reshape((-1,) + (1,) * (leaf.ndim - 1))
    return jnp.where(there, leaf, 0)


@eqx.filter_custom_vjp
def _reverse(inputs: Inputs, setup: Setup) -> _Raw:
    return _march(inputs, setup, forward=False)


@_reverse.def_fwd
def _reverse_forward(perturbed: Any, inputs: Inputs, setup: Setup) -> tuple[_Raw, _Raw]:
    del perturbed
    raw = _march(inputs, setup, forward=False)
    return raw, raw


@_reverse.def_bwd
def _reverse_backward(raw: _Raw, given: _Raw, perturbed: Any, inputs: Inputs, setup: Setup) -> Inputs:
    """Segments last to first, each solved once more; the cotangents of a piece go to the segments that looked at it."""
    del perturbed
    dense = lambda ct, tree: eqx.combine(ct, _zeros(eqx.filter(tree, eqx.is_inexact_array)))
    # Under `jit` JAX hands over literals in place of constant arrays.
    inputs = jax.tree_util.tree_map(lambda leaf: jnp.asarray(leaf) if hasattr(leaf, "dtype") else leaf, inputs)
    moving, still = eqx.partition(inputs, eqx.is_inexact_array)
    start = _Cotangents(
        dense(given.final, raw.final), dense(given.begins, raw.begins), dense(given.pieces.infos, raw.pieces.infos),
        _zeros(moving),
    )  # fmt: skip

    def body(i: Array, carry: _Cotangents) -> _Cotangents:
        k = setup.num_segments - 1 - i
        own = jax.tree_util.tree_map(lambda leaf: leaf[k], carry.infos)
        pull = jax.jit(lambda y, begins, own: _pull_segment(raw, moving, still, y, begins, own, k, setup))
        shapes = jax.eval_shape(pull, carry.y, carry.begins, own)
        none = jax.tree_util.tree_map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        skip = lambda y, begins, own: none._replace(y=y, begins=begins)
        part = cond_any_lane(raw.tape.active[k], pull, skip, carry.y, carry.begins, own)
        infos = carry.infos
        for j, change in enumerate(part.infos):
            slots = window_slots(jax.tree_util.tree_map(lambda leaf: leaf[k], raw.tape.sight), j, setup)
            infos = jax.tree_util.tree_map(lambda leaf, value, slots=slots: leaf.at[slots].add(value), infos, change)
        return _Cotangents(part.y, part.begins, infos, jax.tree_util.tree_map(jnp.add, carry.inputs, part.inputs))

    last = jax.lax.fori_loop(0, setup.num_segments, body, start)
    return last.inputs._replace(
        y0=jax.tree_util.tree_map(jnp.add, last.inputs.y0, last.y),
        start=last.inputs.start + jnp.sum(last.begins),
    )


class _Cotangents(NamedTuple):
    y: PyTree
    begins: Array
    infos: PyTree
    inputs: Inputs


def _zeros(tree: PyTree) -> PyTree:
    return jax.tree_util.tree_map(jnp.zeros_like, tree)


def _pull_segment(
    raw: _Raw, moving: Any, still: Any, y: PyTree, begins: Array, given: PyTree, k: Array, setup: Setup
) -> _Cotangents:
    """Cotangents by segment k alone: `infos` a tuple with those of the window of each delay, `begins` updated."""
    tape = jax.tree_util.tree_map(lambda leaf: leaf[k], raw.tape)
    windows = take_windows(raw.pieces, tape.sight, setup)
    adjoint = diffrax.RecursiveCheckpointAdjoint(checkpoints=setup.max_steps)
    time = begins[k + 1]

    def solve(moving: Any, y: PyTree, begins: Array, infos: tuple[PyTree, ...]) -> tuple[PyTree, Array, PyTree]:
        views = tuple(view._replace(infos=info) for view, info in zip(windows, infos, strict=True))
        solved = _solve(
            eqx.combine(moving, still), y, begins, views, raw.pieces.knots[k], raw.ends, raw.ends[k], tape.sight,
            tape.hit, k, setup, adjoint,
        )  # fmt: skip
        return solved.end.state, solved.end.time, solved.piece.infos

    _, pull = jax.vjp(solve, moving, tape.starts, raw.begins, tuple(view.infos for view in windows))

    def of_itself(changes: tuple[PyTree, ...]) -> PyTree:
        """What the segment hands to itself."""
        parts = []
        for j, change in enumerate(changes):
            mine = tape.sight.base[j] + jnp.arange(setup.window) == k
            pick = lambda leaf, mine=mine: jnp.tensordot(mine.astype(leaf.dtype), leaf, axes=1)
            parts.append(jax.tree_util.tree_map(pick, change))
        return jax.tree_util.tree_map(lambda *leaves: sum(leaves[1:], leaves[0]), *parts)

    def sweep(_: Array, own: PyTree) -> PyTree:
        return jax.tree_util.tree_map(jnp.add, given, of_itself(pull((y, time, own))[3]))

    own = jax.lax.fori_loop(0, jnp.where(tape.sweeps > 0, tape.sweeps + 1, 0), sweep, given)
    step_inputs, ct_y, ct_begins, changes = pull((y, time, own))
    return _Cotangents(ct_y, begins.at[k + 1].set(0) + ct_begins, changes, step_inputs)
