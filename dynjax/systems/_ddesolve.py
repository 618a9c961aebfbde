"""Delay differential equations, solved adaptively and differentiably."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int8, PyTree

from .._core import Function, Status, check_count, check_that, found, is_concrete
from ._dde_arguments import (
    Output,
    Span,
    as_delays,
    as_output,
    as_state,
    as_time,
    check_history,
    check_span,
    check_stages,
    closed,
    room_for_segments,
)
from ._dde_defect import DefectControlled
from ._dde_mesh import breakpoint_mesh
from ._dde_pieces import Pieces, evaluate_pieces
from ._dde_segments import Inputs, March, Setup, march_forward, march_reverse
from ._dde_stages import Grid, grid_edges, march_stages, plan_grid
from ._dde_varying import march_varying
from ._dde_varying_arguments import (
    are_varying,
    as_list,
    check_varying,
    room_for_varying,
    varying_inputs,
    varying_setup,
    with_solver,
)
from ._dde_windows import Setup as VaryingSetup

_MOST_STOPS = 32
_FIRST_STEP = 0.01


class DelaySolution(eqx.Module):
    """A solution of a delay equation.

    Attributes:
        ts: the times asked for, `(num_times,)`.
        ys: the states there, or what the `fn` of a `SaveAt` makes of them, each leaf with a leading axis `num_times`; NaN
            after the time where the solver gave up.
        final: the state at `t1`.
        num_steps: steps tried, accepted or not.
        num_segments: stretches between breakpoints that were solved.
        num_sweeps: the most solutions that a segment longer than a delay took to agree with what it sees of itself; 0 if there
            was none.
        breakpoints: where a delayed time met t0 or another breakpoint, or a kink was passed, in order; then NaN. For constant
            delays the ends of the segments. They can be differentiated.
        status: `OK`, `MAX_STEPS` (too few segments or steps), `NOT_CONVERGED` (sweeps), `NONFINITE`, or `ERROR` (a delay that is
            not positive, or becomes negative).
    """

    ts: Float[Array, "num_times"]
    ys: PyTree
    final: PyTree
    num_steps: Int[Array, ""]
    num_segments: Int[Array, ""]
    num_sweeps: Int[Array, ""]
    breakpoints: Float[Array, "max_segments"]
    status: Int8[Array, ""]
    _edges: Array
    _ends: Array
    _end: Array
    _pieces: Pieces
    _history: Function
    _interpolation: Callable[..., Any] = eqx.field(static=True)

    def evaluate(self, t: Any) -> PyTree:
        """The state at a time from the past to `t1`, by the interpolation of the solver; NaN after `t1`. `vmap` it over times.

        Its derivatives with respect to delays and parameters are one order less accurate than those of `ys`.
        """
        t = jnp.asarray(t, self._edges.dtype)
        inside = evaluate_pieces(self._pieces, self._interpolation, self._edges, self._ends, t)
        before = self._history(jnp.minimum(t, self._edges[0]))
        known = lambda b: jnp.where(t <= self._end, b, jnp.nan).astype(b.dtype)
        choose = lambda a, b: jnp.where(t < self._edges[0], a.astype(b.dtype), known(b))
        return jax.tree_util.tree_map(choose, before, inside)

    def __str__(self) -> str:
        """Sizes and status in one line."""
        return (
            f"DelaySolution({self.ts.shape[0]} times, {self.num_segments} segments, {self.num_steps} steps, "
            f"status {self.status})"
        )


def ddesolve(
    vector_field: Callable[[Any, Any, Any, Any], Any],
    t0: Any,
    t1: Any,
    y0: PyTree,
    *,
    history: Callable[[Any], Any],
    delays: Any,
    args: PyTree = None,
    ts: Any = None,
    saveat: diffrax.SaveAt | None = None,
    rtol: Any = None,
    atol: Any = None,
    solver: diffrax.AbstractSolver | None = None,
    engine: str = "segments",
    steps_per_delay: int | None = None,
    max_segments: int | None = None,
    max_steps: int = 256,
    neutral: bool = False,
    min_delay: Any = None,
    kinks: Sequence[Callable[[Any, Any, Any], Any]] = (),
    adjoint: str = "reverse",
    progress_meter: diffrax.AbstractProgressMeter | None = None,
) -> DelaySolution:
    r"""Solve y'(t) = f(t, y(t), (y(t - tau_1), ..., y(t - tau_r)), args) from t0 to t1, with y = history before t0.

    Where the history does not continue smoothly into the solution, y' jumps at t0, y'' at t0 + tau, and so on. All sums of
    delays are therefore ends of steps: the time between two of them is a segment, in which t - tau stays inside one earlier
    segment, and which a Diffrax solver integrates with adaptive steps. The delayed values are those of the solver's
    interpolation, and steps are accepted by its defect too (`DefectControlled`), so that a tolerance means what it says.

    A delay may be a function `tau(t, y, args)` of time and state. Each segment is then solved until t - tau leaves the pieces
    that it can see smoothly; the breakpoint is located on the dense output, and takes its derivative from the implicit function
    theorem. Where a delay is shorter than a step, or vanishes, a segment sees itself and is solved again and again with the
    last solution (waveform iteration), until nothing changes by more than the tolerance; if that takes more than 8 solutions
    (48 where the equation is neutral), over half the length.

    Derivatives with respect to `y0`, `args`, the delays, `t0`, `t1`, and arrays in `history` and `vector_field` are those of
    the discrete solution with its steps held fixed. In reverse mode each step is taken once more, and memory grows
    linearly with the number of segments. Several delays that agree, or have sums that agree, are treated right.
    Steps are chosen for the solution: where it is far smoother than its derivatives, as on a stretch that any step solves
    exactly, ask for times in between (`ts`) to make them smaller.

    Args:
        vector_field: `f(t, y, delayed, args) -> dy`, with `delayed` a tuple of one state for each delay. It may be a module or
            close over arrays, which are then differentiated too.
        t0: the start.
        t1: the end, later.
        y0: the state at t0, a pytree of inexact arrays. It may differ from `history(t0)`.
        history: `phi(t)` for t <= t0, of the structure of `y0`. Methods with stages beyond the end of a step (`diffrax.Kvaerno5`)
            ask for it a little later too.
        delays: one or several, each a positive number or a function `tau(t, y, args)` with values that are not negative. Traced
            numbers may be differentiated and mapped over, and so may what the functions close over.
        args: passed to the vector field.
        ts: times for the output, increasing, in [t0, t1]; t1 alone by default. Up to 32 of them are made ends of steps, which
            makes derivatives there as accurate as the states; more are interpolated.
        saveat: `diffrax.SaveAt` with `t0`, `t1`, `ts` or `fn`, in place of `ts`. Dense output is always there, as `evaluate`.
        rtol: relative tolerance; a tenth of the square root of the precision by default.
        atol: absolute tolerance; `rtol` by default.
        solver: a Diffrax solver with an error estimate; `diffrax.Tsit5()` by default. Implicit ones work as well.
        engine: "segments", or "stages" for fixed steps without any interpolation: the mesh repeats with the delay (the common
            divisor of several), and stage i of a step takes its delayed value from stage i of an earlier step. The full order of
            any explicit Runge-Kutta method of Diffrax is kept, and both modes of differentiation work. Steps of one fused
            kernel: the choice for training.
        steps_per_delay: fixed steps: for "stages" (where it is required) steps for the smallest delay; for "segments" steps for
            each segment, in place of adaptive ones (no others are then made for `ts`).
        max_segments: static room for segments. Derived where t0, t1 and the delays are concrete, required where one of them is
            traced. For one delay (t1 - t0) / tau, rounded up; for several the number of sums of delays below t1 - t0.
            128 by default where a delay is a function.
        max_steps: static room for the steps of one segment. Batches pay for the room: where 64 are enough a batch of 256 took a
            fifth of the time.
        neutral: whether every entry of `delayed` is a pair (y(t - tau), y'(t - tau)). The solution then does not become smoother.
        min_delay: for delays that are functions: a positive lower bound, in units of time. No segment then sees itself.
        kinks: functions `kappa(t, y, args)`, one number each: where one changes sign, the vector field or a delay has a kink
            (y for a delay like 1 + |y|), and a segment ends. Kinks that are not declared cost steps that are tried in vain.
        adjoint: "reverse" for reverse mode, "forward" for forward mode (`jax.jvp`, `jax.jacfwd`). The stages engine has both.
        progress_meter: a Diffrax one, told after every segment; for the segments engine. It calls the host, which keeps the
            program out of the persistent compile cache.

    Returns:
        A `DelaySolution`. Failures are a status and NaN, no exception.

    Raises:
        ValueError: if a delay is not positive, t1 is not later than t0, `ts` does not increase or leaves [t0, t1], the history is
            not finite at the largest delay or has other shapes than `y0`, `max_segments` is missing where it cannot be derived or
            is too small, or `vector_field` does not return the shapes of `y0`.
        TypeError: if `vector_field`, `history` or one of `kinks` is not callable.

    Example:
        ```python
        solution = dj.ddesolve(lambda t, y, delayed, args: -delayed[0], 0.0, 10.0, 1.0, history=lambda t: 1.0, delays=1.0)
        ```

    References:
        Bellen and Zennaro, Numerical Methods for Delay Differential Equations (2003).
        Guglielmi and Hairer, Computing breaking points in implicit delay differential equations (2008).
    """
    check_that(
        callable(vector_field), "vector_field", "be a function `f(t, y, delayed, args)`", found(vector_field), TypeError
    )
    check_that(callable(history), "history", "be a function of time", found(history), TypeError)
    check_that(adjoint in ("reverse", "forward"), "adjoint", 'be "reverse" or "forward"', f"found {adjoint!r}")
    check_that(engine in ("segments", "stages"), "engine", 'be "segments" or "stages"', f"found {engine!r}")
    check_count(max_steps, "max_steps", 2)
    y0 = as_state(y0)
    dtype = jnp.result_type(*(jnp.finfo(leaf.dtype).dtype for leaf in jax.tree_util.tree_leaves(y0)))
    start, end = as_time(t0, "t0", dtype), as_time(t1, "t1", dtype)
    if are_varying(delays, kinks):
        _check_varying(engine, steps_per_delay, progress_meter)
        check_varying(delays, kinks, t0, t1, y0, args, min_delay)
        output = as_output(ts, saveat, start, end, Span.of(t0, t1, 1.0))
        solver = diffrax.Tsit5() if solver is None else solver
        room = room_for_varying(max_segments, min_delay, t0, t1)
        plan: Any = _varying_plan(solver, rtol, atol, dtype, max_steps, room, neutral, min_delay is None, adjoint)
        return _once(_run_varying)(vector_field, history, start, end, as_list(delays), kinks, y0, args, output, plan)
    lags = as_delays(delays, dtype)
    span = Span.of(t0, t1, delays)
    check_span(span)
    output = as_output(ts, saveat, start, end, span)
    check_history(history, y0, span)
    solver = diffrax.Tsit5() if solver is None else solver
    if engine == "stages":
        check_stages(solver, steps_per_delay, neutral)
        plan = plan_grid(span, lags.shape[0], dtype, int(steps_per_delay or 0), max_segments)
    else:
        setup = _setup(solver, dtype, rtol, atol, steps_per_delay, max_steps, neutral, progress_meter)
        room = room_for_segments(span, dtype, max_segments)
        plan = _Segments(setup, room, span is not None, adjoint)
    return _once(_run)(vector_field, history, start, end, lags, y0, args, output, solver, plan, neutral)


_JITTED: dict[Callable[..., Any], Callable[..., Any]] = {}


def _once(run: Callable[..., Any]) -> Callable[..., Any]:
    """The function compiled; or as it is inside someone's `jit`, where compiling it again would keep their closures alive."""
    if not is_concrete(jnp.zeros(())):
        return run
    return _JITTED.setdefault(run, eqx.filter_jit(run))


def _check_varying(engine: str, steps_per_delay: int | None, meter: Any) -> None:
    why = "delays that are functions, or `kinks`, were given"
    check_that(engine == "segments", "engine", 'be "segments"', why)
    check_that(steps_per_delay is None, "steps_per_delay", "be left out", why)
    check_that(meter is None, "progress_meter", "be left out", why)


def _varying_plan(
    solver: Any, rtol: Any, atol: Any, dtype: Any, max_steps: int, room: int, neutral: bool, overlap: bool, adjoint: str
) -> "_Varying":
    setup = varying_setup(rtol, atol, dtype, max_steps, room, neutral, overlap)
    solver = _with_tolerances(solver, setup.controller)
    return _Varying(with_solver(setup, solver), adjoint)


class _Varying(NamedTuple):
    setup: VaryingSetup
    adjoint: str


class _Segments(NamedTuple):
    setup: Setup
    room: int
    merge: bool
    adjoint: str


def _setup(
    solver: diffrax.AbstractSolver,
    dtype: Any,
    rtol: Any,
    atol: Any,
    num_steps: int | None,
    max_steps: int,
    neutral: bool,
    meter: diffrax.AbstractProgressMeter | None,
) -> Setup:
    meter = diffrax.NoProgressMeter() if meter is None else meter
    nodes = getattr(getattr(solver, "tableau", None), "c", None)
    beyond = nodes is not None and bool(np.max(nodes) > 1)
    if num_steps is not None:
        check_count(num_steps, "steps_per_delay")
        room, fixed = num_steps + 1, diffrax.ConstantStepSize()
        solver = _with_tolerances(solver, fixed)
        return Setup(solver, fixed, room, neutral, jnp.asarray(1 / num_steps, dtype), True, meter, beyond)
    rtol = float(jnp.finfo(dtype).eps) ** 0.5 / 10 if rtol is None else rtol
    controller = diffrax.PIDController(rtol=rtol, atol=rtol if atol is None else atol)
    judged = DefectControlled(_with_tolerances(solver, controller))
    return Setup(judged, controller, max_steps, neutral, jnp.asarray(_FIRST_STEP, dtype), False, meter, beyond)


def _with_tolerances(solver: Any, controller: Any) -> Any:
    """Implicit methods solve their equations to the tolerances of the steps, unless they have some of their own."""
    if not isinstance(solver, diffrax.AbstractImplicitSolver):
        return solver
    for name in ("rtol", "atol", "norm"):
        # Diffrax marks what is left open by an object that is neither a number nor a function.
        own = getattr(solver.root_finder, name)
        if not (eqx.is_array_like(own) or callable(own)):
            fixed = f"its root finder has no `{name}`, and fixed steps have none to give"
            check_that(hasattr(controller, name), "solver", "have tolerances", fixed)
            where = lambda s, name=name: getattr(s.root_finder, name)
            solver = eqx.tree_at(where, solver, getattr(controller, name))
    return solver


def _run(
    vector_field: Any, history: Any, start: Array, end: Array, lags: Array, y0: PyTree, args: PyTree, output: Output,
    solver: Any, plan: Any, neutral: bool,
) -> DelaySolution:  # fmt: skip
    """One program for each vector field, history and set of sizes."""
    field, past = closed(vector_field, history, start, y0, lags.shape[0], args, neutral)
    ts = output.ts
    if isinstance(plan, Grid):
        edges, reached = grid_edges(start, end, lags, plan)
        march = march_stages(Inputs(y0, edges, lags, field, past, args, ts[:0]), plan, solver)
        return _solution(march, y0, edges, reached, output, args, past, solver.interpolation_cls, lags)
    mesh = breakpoint_mesh(start, end, lags, plan.room, merge=plan.merge)
    few = ts if 1 < ts.shape[0] <= _MOST_STOPS and not plan.setup.constant else ts[:0]
    inputs = Inputs(y0, mesh.edges, lags, field, past, args, few)
    march = (march_forward if plan.adjoint == "forward" else march_reverse)(inputs, mesh, plan.setup)
    return _solution(march, y0, mesh.edges, mesh.reached, output, args, past, plan.setup.solver.interpolation_cls, lags)


def _run_varying(
    vector_field: Any, history: Any, start: Array, end: Array, delays: Any, kinks: Any, y0: PyTree, args: PyTree,
    output: Output, plan: _Varying,
) -> DelaySolution:  # fmt: skip
    """One program for each vector field, history, delay function and set of sizes."""
    setup = plan.setup
    field, past = closed(vector_field, history, start, y0, len(delays), args, setup.neutral)
    ts = output.ts
    few = ts if 1 < ts.shape[0] <= _MOST_STOPS else ts[:0]
    inputs = varying_inputs(field, past, start, end, delays, kinks, y0, args, few)
    march = march_varying(inputs, setup, forward=plan.adjoint == "forward")
    rest = (output, args, past, setup.solver.interpolation_cls)
    return _answer(_Answer(march, march.edges, march.ends, march.breakpoints, march.most_sweeps), y0, march.cut, *rest)


def _solution(
    march: March,
    y0: PyTree,
    edges: Array,
    reached: Array,
    output: Output,
    args: PyTree,
    past: Callable[..., Any],
    interpolation: Any,
    lags: Array,
) -> DelaySolution:
    valid = jnp.all(lags > 0) & (edges[-1] > edges[0])
    status = jnp.where(
        march.status == int(Status.OK), jnp.where(reached, int(Status.OK), int(Status.MAX_STEPS)), march.status
    )
    status = jnp.where(valid, status, int(Status.ERROR)).astype(jnp.int8)
    cut = jnp.where(valid, edges[march.num_good], edges[0])
    breakpoints = jnp.where(edges[1:] < edges[-1], edges[1:], jnp.nan)
    march = march._replace(status=status)
    answer = _Answer(march, edges, edges[1:], breakpoints, jnp.zeros_like(march.num_steps))
    return _answer(answer, y0, cut, output, args, past, interpolation)


class _Answer(NamedTuple):
    march: Any
    edges: Array
    ends: Array
    breakpoints: Array
    num_sweeps: Array


def _answer(
    answer: _Answer, y0: PyTree, cut: Array, output: Output, args: PyTree, past: Callable[..., Any], interpolation: Any
) -> DelaySolution:
    """What either engine found, at the times asked for."""
    march, edges, ends, breakpoints, num_sweeps = answer
    status = march.status

    def at(t: Array) -> PyTree:
        y = evaluate_pieces(march.pieces, interpolation, edges, ends, t)
        y = jax.tree_util.tree_map(lambda a, b: jnp.where(t <= edges[0], a, b), y0, y)
        return jax.tree_util.tree_map(lambda leaf: jnp.where(t <= cut, leaf, jnp.nan), y)

    final = jax.tree_util.tree_map(lambda leaf: jnp.where(status == int(Status.OK), leaf, jnp.nan), march.final)
    ys = jax.vmap(at)(output.ts)
    fn = output.fn
    if fn is not None:
        ys = jax.vmap(lambda t, y: fn(t, y, args))(output.ts, ys)
    num_segments = jnp.sum(jnp.diff(edges) > 0)
    return DelaySolution(
        output.ts,
        ys,
        final,
        march.num_steps,
        num_segments,
        num_sweeps,
        breakpoints,
        status,
        edges,
        ends,
        cut,
        march.pieces,
        Function(past),
        interpolation,
    )
