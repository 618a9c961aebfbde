"""What a segment of a delay equation with varying delays sees: itself, and for each delay a few pieces of the past."""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ._dde_pieces import Pieces
from ._flow import as_slope


class Inputs(NamedTuple):
    """All that a solution can be differentiated with respect to; every function is a pytree with its arrays as leaves.

    Attributes:
        y0: the state at the start.
        start: t0.
        end: t1.
        delays: functions `tau_j(t, y, args)`.
        field: `f(t, y, delayed, args)`.
        history: `phi(t)` for t <= t0.
        kinks: functions `kappa_c(t, y, args)`; where one is zero, f is not smooth.
        args: of all of them.
        stops: times to step on exactly.
    """

    y0: PyTree
    start: Float[Array, ""]
    end: Float[Array, ""]
    delays: tuple[Callable[..., Any], ...]
    field: Callable[..., Any]
    history: Callable[..., Any]
    kinks: tuple[Callable[..., Any], ...]
    args: PyTree
    stops: Float[Array, " num_stops"]


class Setup(NamedTuple):
    """How segments are solved.

    Attributes:
        solver: a Diffrax solver with an error estimate that covers its interpolation.
        plain: the same without the interpolation's part, for steps that are known already.
        controller: for the steps.
        rtol: relative tolerance.
        atol: absolute tolerance.
        max_steps: static room for the steps of one segment.
        num_segments: static room for segments.
        window: pieces of the past that one delay can see in one segment.
        neutral: whether the field also gets derivatives at the delayed times.
        smooth: breakpoints of a higher order than this are smooth enough to be stepped over.
        overlap: whether a segment may be longer than a delay.
        first_step: the first step, as a fraction of the whole time.
    """

    solver: diffrax.AbstractSolver
    plain: diffrax.AbstractSolver
    controller: diffrax.PIDController
    rtol: Any
    atol: Any
    max_steps: int
    num_segments: int
    window: int
    neutral: bool
    smooth: int
    overlap: bool
    first_step: float


class Chart(NamedTuple):
    """The segments so far.

    Attributes:
        begins: where they begin, with derivatives.
        ends: where their interpolations end: the next beginning up to a correction far below the tolerance, no derivatives.
        pieces: their dense output.
    """

    begins: Float[Array, "num_segments_1"]
    ends: Float[Array, " num_segments"]
    pieces: Pieces


class Sight(NamedTuple):
    """Which pieces each delay sees; integers, found in the forward pass.

    Attributes:
        base: the first piece, -1 for the history.
        above: the breakpoint at which the view ends; `num_segments + 1` where it is open.
    """

    base: Int[Array, " r"]
    above: Int[Array, " r"]


class View(NamedTuple):
    """A segment in real time, and the windows of its delays."""

    begin: Float[Array, ""]
    length: Float[Array, ""]
    start: Float[Array, ""]
    known: Bool[Array, " r"]
    begins: Float[Array, "r window"]
    lengths: Float[Array, "r window"]
    inner: Float[Array, "r window"]
    pieces: tuple[Pieces, ...]


def without_derivatives(tree: PyTree) -> PyTree:
    """The same numbers."""
    return jax.tree_util.tree_map(
        lambda leaf: jax.lax.stop_gradient(jnp.asarray(leaf)) if hasattr(leaf, "dtype") else leaf, tree
    )


def window_slots(sight: Sight, j: int, setup: Setup) -> Int[Array, " window"]:
    """Numbers of the pieces in the window of delay j; those that are not there yet are repeated, never looked at."""
    return jnp.clip(sight.base[j] + jnp.arange(setup.window), 0, setup.num_segments - 1)


def take_windows(pieces: Pieces, sight: Sight, setup: Setup) -> tuple[Pieces, ...]:
    """The pieces that each delay sees."""
    take = lambda j: jax.tree_util.tree_map(lambda leaf: leaf[window_slots(sight, j, setup)], pieces)
    return tuple(take(j) for j in range(sight.base.shape[0]))


def open_view(
    inputs: Inputs,
    begins: Float[Array, "num_segments_1"],
    ends: Float[Array, " num_segments"],
    windows: tuple[Pieces, ...],
    sight: Sight,
    k: Array,
    end: Array,
    setup: Setup,
) -> View:
    """The view of segment k, from `begins[k]` to `end`. `ends[k]` is where its own interpolation in the windows ends."""
    r = sight.base.shape[0]
    slots = jnp.stack([window_slots(sight, j, setup) for j in range(r)])
    place = sight.base[:, None] + jnp.arange(setup.window)
    # A slot is left for the next one at its own end, if the next one is there and within the view.
    later = place + 1
    passable = (later < sight.above[:, None]) & (later <= k) & (sight.base[:, None] >= 0)
    passable = passable.at[:, -1].set(False)
    inner = jnp.where(passable, begins[jnp.clip(later, 0, setup.num_segments)], jnp.inf)
    own = begins[slots]
    begin = begins[k]
    return View(
        begin,
        end - begin,
        inputs.start,
        sight.base < 0,
        own,
        ends[slots] - own,
        jax.lax.stop_gradient(inner),
        windows,
    )


def lags(inputs: Inputs, t: Array, y: PyTree) -> Float[Array, " r"]:
    """All delays at a time and state."""
    return jnp.stack([jnp.asarray(tau(t, y, inputs.args), inputs.start.dtype) for tau in inputs.delays])


def rescaled_field(s: Any, y: PyTree, packed: tuple[View, Setup, Inputs]) -> PyTree:
    """dy/ds, with time running from 0 to 1 in the segment."""
    view = packed[0]
    slope = real_field(view.begin + s * view.length, y, packed)
    return jax.tree_util.tree_map(lambda leaf: view.length * leaf, slope)


def real_field(t: Any, y: PyTree, packed: tuple[View, Setup, Inputs]) -> PyTree:
    """dy/dt."""
    view, setup, inputs = packed
    times = t - lags(inputs, t, y)
    delayed = tuple(_delayed(view, setup, inputs.history, j, times[j]) for j in range(len(view.pieces)))
    return as_slope(inputs.field(t, y, delayed, inputs.args), y)


def _delayed(view: View, setup: Setup, history: Callable[..., Any], j: int, time: Array) -> Any:
    """The state (and its derivative, for neutral equations) at a delayed time."""
    slot = jnp.sum(jax.lax.stop_gradient(time) >= view.inner[j])
    length = view.lengths[j, slot]
    length = jnp.where(length > 0, length, 1)
    piece = extended_interpolation(view.pieces[j], setup, slot, (time - view.begins[j, slot]) / length)
    past, slope = _extended_history(history, time, view.start)
    choose = lambda old, new: jax.tree_util.tree_map(
        lambda a, b: jnp.where(view.known[j], a.astype(b.dtype), b), old, new
    )
    value = choose(past, piece.value)
    if not setup.neutral:
        return value
    return value, choose(slope, jax.tree_util.tree_map(lambda leaf: leaf / length, piece.slope()))


class _Local(NamedTuple):
    value: PyTree
    slope: Callable[[], PyTree]


def extended_interpolation(pieces: Pieces, setup: Setup, slot: Array, s: Array) -> _Local:
    """A piece at time s of [0, 1], and beyond it by the polynomials of its first and last step, up to one step away.

    A delayed time reaches the end of a piece inside a step, and the stages behind that point must not see what is not
    smooth there: the step would be rejected until it is tiny.
    """
    knots = pieces.knots[slot]
    last = jnp.sum(jnp.isfinite(knots)) - 2
    # Counting compiles to much less than a search, and is as fast for a few hundred knots.
    step = jnp.clip(jnp.sum(knots < jax.lax.stop_gradient(s)) - 1, 0, last)
    left, right = knots[step], knots[step + 1]
    s = jnp.clip(s, left - (right - left), right + (right - left))
    infos = jax.tree_util.tree_map(lambda leaf: leaf[slot, step], pieces.infos)
    local = setup.solver.interpolation_cls(t0=left, t1=right, **infos)
    return _Local(local.evaluate(s), lambda: local.derivative(s))


def _extended_history(history: Callable[..., Any], time: Array, start: Array) -> tuple[PyTree, PyTree]:
    """The history and its slope, beyond t0 along the tangent: where rounding puts a time there, derivatives stay right."""
    before = jnp.minimum(time, start)
    past, slope = jax.jvp(history, (before,), (jnp.ones_like(before),))
    slope = jax.tree_util.tree_map(lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, 0), slope)
    value = jax.tree_util.tree_map(lambda p, d: p + jax.lax.stop_gradient(d) * (time - before), past, slope)
    return value, slope
