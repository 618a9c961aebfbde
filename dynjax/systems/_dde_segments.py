"""A delay equation segment by segment: Diffrax solves each, and earlier segments are the past."""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int8, PyTree

from .._core import Status, status_of_diffrax, tree_all_finite
from ._dde_mesh import Mesh
from ._dde_pieces import Pieces, empty_pieces, local_interpolation, put_piece, take_piece
from ._flow import as_slope


class Inputs(NamedTuple):
    """All that a solution can be differentiated with respect to.

    Attributes:
        y0: the state at the start.
        edges: the breakpoints, `(num_segments + 1,)`.
        delays: constant delays, `(r,)`.
        field: `f(t, y, delayed, args)`, a pytree with what it closes over as leaves.
        history: `phi(t)` for t <= t0, likewise.
        args: of the field.
        stops: times to step on exactly.
    """

    y0: PyTree
    edges: Float[Array, "num_segments_1"]
    delays: Float[Array, " r"]
    field: Callable[..., Any]
    history: Callable[..., Any]
    args: PyTree
    stops: Float[Array, " num_stops"]


class Setup(NamedTuple):
    """How segments are solved.

    Attributes:
        solver: of each segment.
        controller: of its steps.
        max_steps: static room for the steps of one segment.
        neutral: the field also gets derivatives at the delayed times.
        first_step: of the first segment, in units of its length.
        constant: every segment starts with `first_step`, instead of the longest step of the one before.
        meter: told after every segment.
        beyond: the method has stages beyond the end of its step, as `diffrax.Kvaerno5` has one at c = 1.23. They look a little
            beyond the end of a piece of the past, which then continues smoothly: held at its end, it would cost three orders.
    """

    solver: diffrax.AbstractSolver
    controller: diffrax.AbstractStepSizeController
    max_steps: int
    neutral: bool
    first_step: Float[Array, ""]
    constant: bool
    meter: diffrax.AbstractProgressMeter
    beyond: bool


class March(NamedTuple):
    """A solution.

    Attributes:
        final: the state at the last edge.
        pieces: dense output of all segments.
        num_steps: steps tried in all.
        status: the first failure, or OK.
        num_good: segments before it.
    """

    final: PyTree
    pieces: Pieces
    num_steps: Int[Array, ""]
    status: Int8[Array, ""]
    num_good: Int[Array, ""]


class _View(NamedTuple):
    """What a segment sees: itself in real time, and for each delay a piece of the past."""

    begin: Array
    length: Array
    delays: Array
    sources: Array
    source_begins: Array
    source_lengths: Array
    pieces: tuple[Pieces, ...]
    start: Array


def _view(inputs: Inputs, k: Array, sources: Int[Array, " r"], pieces: tuple[Pieces, ...]) -> _View:
    at = jnp.maximum(sources, 0)
    edges = inputs.edges
    begins = edges[at]
    return _View(
        edges[k], edges[k + 1] - edges[k], inputs.delays, sources, begins, edges[at + 1] - begins, pieces, edges[0]
    )


def held(x: Array, high: Any, low: Any = -jnp.inf) -> Array:
    """`x` within bounds that only rounding lets it leave, with its derivative."""
    return x + jax.lax.stop_gradient(jnp.clip(x, low, high) - x)


def _delayed(view: _View, setup: Setup, history: Callable[..., Any], j: int, s: Array) -> Any:
    """The state (and its derivative, for neutral equations) at time t - tau_j."""
    time = view.begin + s * view.length - view.delays[j]
    length = jnp.where(view.source_lengths[j] > 0, view.source_lengths[j], 1)
    place = held((time - view.source_begins[j]) / length, 1.5 if setup.beyond else 1, 0)
    known = view.sources[j] < 0
    choose = lambda old, new: jax.tree_util.tree_map(lambda a, b: jnp.where(known, a.astype(b.dtype), b), old, new)
    before = held(time, view.start + (0.5 * view.length if setup.beyond else 0))
    piece = local_interpolation(view.pieces[j], setup.solver.interpolation_cls, place)
    if not setup.neutral:
        return choose(history(before), piece.evaluate(place))
    past, slope = jax.jvp(history, (before,), (jnp.ones_like(before),))
    rate = jax.tree_util.tree_map(lambda leaf: leaf / length, piece.derivative(place))
    return choose(past, piece.evaluate(place)), choose(slope, rate)


def _rescaled_field(s: Array, y: PyTree, packed: tuple[_View, Setup, Any, Any, Any]) -> PyTree:
    """dy/ds, with time running from 0 to 1 in the segment: derivatives by the delays then pass through the lengths."""
    view, setup, field, history, args = packed
    delayed = tuple(_delayed(view, setup, history, j, s) for j in range(len(view.pieces)))
    slope = as_slope(field(view.begin + s * view.length, y, delayed, args), y)
    return jax.tree_util.tree_map(lambda leaf: view.length * leaf, slope)


class _Solved(NamedTuple):
    final: PyTree
    piece: Pieces
    num_steps: Array
    status: Array


def _solve_segment(
    inputs: Inputs,
    y: PyTree,
    pieces: tuple[Pieces, ...],
    k: Array,
    sources: Array,
    dt0: Array,
    setup: Setup,
) -> _Solved:
    view = _view(inputs, k, sources, pieces)
    controller = setup.controller
    if inputs.stops.shape[0]:
        length = jnp.where(view.length > 0, view.length, 1)
        local = jnp.clip((inputs.stops - view.begin) / length, 0, 1)
        controller = diffrax.ClipStepSizeController(controller, step_ts=jax.lax.stop_gradient(local))
    packed = (view, setup, inputs.field, inputs.history, inputs.args)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(_rescaled_field),  # type: ignore[arg-type]
        setup.solver,
        0.0,  # numbers: with traced ends of the interval JAX's leak checker stumbles over Diffrax
        1.0,
        dt0,
        y,
        packed,
        saveat=diffrax.SaveAt(t1=True, dense=True),
        stepsize_controller=controller,
        max_steps=setup.max_steps,
        adjoint=diffrax.ForwardMode(),
        throw=False,
    )
    final = jax.tree_util.tree_map(lambda leaf: leaf[0], solution.ys)
    knots = jax.lax.stop_gradient(solution.interpolation.ts)
    knots = jnp.where(jnp.isfinite(knots), knots, jnp.inf)
    # Where the solver gave up: there the field is looked at.
    finite = tree_all_finite((final, _rescaled_field(solution.ts[-1], final, packed)))
    status = status_of_diffrax(solution.result, finite)
    return _Solved(
        final,
        Pieces(knots, solution.interpolation.infos),
        jnp.asarray(solution.stats["num_steps"], jnp.result_type(int)),
        status,
    )


def _march(inputs: Inputs, sources: Int[Array, "num_segments r"], setup: Setup) -> March:
    """The loop over segments. It has derivatives in forward mode."""
    num_segments, r = sources.shape
    dtype = inputs.edges.dtype
    pieces = empty_pieces(num_segments, setup.max_steps, _template(inputs, setup).infos, dtype)

    def body(carry: Any, k: Array) -> Any:
        y, pieces, length, status, meter = carry
        view = tuple(take_piece(pieces, jnp.maximum(sources[k, j], 0)) for j in range(r))
        size = jax.lax.stop_gradient(inputs.edges[k + 1] - inputs.edges[k])
        dt0 = _first_step(setup, length, size)
        solve = lambda y: _solve_segment(inputs, y, view, k, sources[k], dt0, setup)
        skip = lambda y: _Solved(y, take_piece(pieces, k), jnp.asarray(0), status)
        solved = jax.lax.cond(status == int(Status.OK), solve, skip, y)
        steps = jnp.diff(solved.piece.knots)
        longest = jnp.max(jnp.where(jnp.isfinite(steps), steps, 0))
        length = jnp.where(size > 0, longest * size, length)
        meter = setup.meter.step(meter, (k + 1) / num_segments)
        carry = (solved.final, put_piece(pieces, k, solved.piece), length, solved.status, meter)
        return carry, (solved.num_steps, solved.status)

    length = setup.first_step * jax.lax.stop_gradient(inputs.edges[1] - inputs.edges[0])
    start = (inputs.y0, pieces, length, jnp.asarray(int(Status.OK), jnp.int8), setup.meter.init())
    end, (counts, codes) = jax.lax.scan(body, start, jnp.arange(num_segments))
    final, pieces, _, status, meter = end
    setup.meter.close(meter)
    return March(final, pieces, jnp.sum(counts), status, jnp.sum(codes == int(Status.OK)))


def _first_step(setup: Setup, length: Array, size: Array) -> Array:
    """The step to begin a segment of this size with, in its units; one whole step for an empty segment."""
    if setup.constant:
        return jnp.where(size > 0, setup.first_step, 1)
    return jnp.where(size > 0, jnp.clip(length / jnp.where(size > 0, size, 1), 1e-6, 1), 1)


def _template(inputs: Inputs, setup: Setup) -> Pieces:
    """A piece of the shapes that the solver makes."""
    zero = jnp.zeros((), inputs.edges.dtype)
    still = diffrax.ODETerm(lambda s, y, args: jax.tree_util.tree_map(jnp.zeros_like, y))

    def one_step(y: PyTree) -> Any:
        state = setup.solver.init(still, zero, zero + 1, y, None)
        return setup.solver.step(still, zero, zero + 1, y, None, state, jnp.asarray(False))[2]

    repeat = lambda leaf: jax.ShapeDtypeStruct((setup.max_steps, *leaf.shape), leaf.dtype)
    infos = jax.tree_util.tree_map(repeat, eqx.filter_eval_shape(one_step, inputs.y0))
    return jax.tree_util.tree_map(lambda leaf: leaf[0], empty_pieces(1, setup.max_steps, infos, zero.dtype))


def march_forward(inputs: Inputs, mesh: Mesh, setup: Setup) -> March:
    """All segments; derivatives in forward mode."""
    return _march(inputs, mesh.sources, setup)


def march_reverse(inputs: Inputs, mesh: Mesh, setup: Setup) -> March:
    """All segments; derivatives in reverse mode, by a loop over the accepted steps, last to first.

    The dense output is all that is kept: it holds the state at the beginning of each step. The loop takes each step once
    more, pulls the cotangents of its end and of its own dense output back through it, and adds what belongs to the past to
    the cotangents of the steps that were looked at. Memory is linear in the number of steps, and the cost is that of one
    step and its pullback each.
    """
    return _reverse(inputs, (mesh.sources, setup))


@eqx.filter_custom_vjp
def _reverse(inputs: Inputs, rest: Any) -> March:
    sources, setup = rest
    return _march(inputs, sources, setup)


@_reverse.def_fwd
def _reverse_forward(perturbed: Any, inputs: Inputs, rest: Any) -> tuple[March, Pieces]:
    del perturbed
    sources, setup = rest
    march = _march(inputs, sources, setup)
    return march, march.pieces


@_reverse.def_bwd
def _reverse_backward(pieces: Pieces, given: March, perturbed: Any, inputs: Inputs, rest: Any) -> Inputs:
    del perturbed
    sources, setup = rest
    # Under `jit` JAX hands over literals in place of constant arrays.
    inputs = jax.tree_util.tree_map(lambda leaf: jnp.asarray(leaf) if hasattr(leaf, "dtype") else leaf, inputs)
    moving, still = eqx.partition(inputs, eqx.is_inexact_array)
    zeros = lambda tree: jax.tree_util.tree_map(jnp.zeros_like, tree)
    dense = lambda ct, tree: eqx.combine(ct, zeros(eqx.filter(tree, eqx.is_inexact_array)))

    def segment(i: Array, carry: Any) -> Any:
        ct_y, ct_infos, ct_inputs = carry
        k = sources.shape[0] - 1 - i
        at = jnp.maximum(sources[k], 0)
        views = tuple(take_piece(pieces, place) for place in at)
        own = take_piece(Pieces(pieces.knots, pieces.infos), k)
        ct_own = jax.tree_util.tree_map(lambda leaf: leaf[k], ct_infos)
        start = (ct_y, zeros(tuple(view.infos for view in views)), ct_inputs)
        ct_y, ct_views, ct_inputs = _pull_segment(moving, still, views, own, ct_own, k, sources[k], setup, start)
        for place, change in zip(at, ct_views, strict=True):
            add = lambda leaf, value, place=place: leaf.at[place].add(value)
            ct_infos = jax.tree_util.tree_map(add, ct_infos, change)
        return ct_y, ct_infos, ct_inputs

    start = (dense(given.final, inputs.y0), dense(given.pieces.infos, pieces.infos), zeros(moving))
    ct_y, _, ct_inputs = jax.lax.fori_loop(0, sources.shape[0], segment, start)
    return ct_inputs._replace(y0=jax.tree_util.tree_map(jnp.add, ct_inputs.y0, ct_y))


def _pull_segment(
    moving: Inputs,
    still: Inputs,
    views: tuple[Pieces, ...],
    own: Pieces,
    ct_own: PyTree,
    k: Array,
    sources: Int[Array, " r"],
    setup: Setup,
    start: Any,
) -> Any:
    """The steps of one segment backwards. `start` and result: cotangents of the state, of the views and of the inputs."""
    interpolation = setup.solver.interpolation_cls
    pick = lambda tree, i: jax.tree_util.tree_map(lambda leaf: leaf[i], tree)

    def again(moving: Inputs, y: PyTree, infos: tuple[PyTree, ...], i: Array) -> tuple[PyTree, PyTree]:
        seen = tuple(view._replace(infos=info) for view, info in zip(views, infos, strict=True))
        inputs = eqx.combine(moving, still)
        packed = (_view(inputs, k, sources, seen), setup, inputs.field, inputs.history, inputs.args)
        terms, ends = diffrax.ODETerm(_rescaled_field), (own.knots[i], own.knots[i + 1])  # type: ignore[arg-type]
        state = setup.solver.init(terms, *ends, y, packed)
        y, _, dense, _, _ = setup.solver.step(terms, *ends, y, packed, state, jnp.asarray(False))
        return y, dense

    def step(carry: Any) -> Any:
        i, (ct_y, ct_views, ct_inputs) = carry
        t0, t1 = own.knots[i], own.knots[i + 1]
        y = interpolation(t0=t0, t1=t1, **pick(own.infos, i)).evaluate(t0)
        infos = tuple(view.infos for view in views)
        _, pull = jax.vjp(lambda moving, y, infos: again(moving, y, infos, i), moving, y, infos)
        more_inputs, ct_y, more_views = pull((ct_y, pick(ct_own, i)))
        add = lambda a, b: jax.tree_util.tree_map(jnp.add, a, b)
        return i - 1, (ct_y, add(ct_views, more_views), add(ct_inputs, more_inputs))

    last = jnp.sum(jnp.isfinite(own.knots)) - 2
    return jax.lax.while_loop(lambda carry: carry[0] >= 0, step, (last, start))[1]
