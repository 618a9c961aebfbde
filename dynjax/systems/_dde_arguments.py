"""What the arguments of a delay solve must be, looked at before anything is traced."""

from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import check_count, check_that, found, is_concrete, split_inexact
from ._dde_mesh import count_segments
from ._flow import as_slope
from ._system import as_number

_MOST_SEGMENTS = 20_000


class Span(NamedTuple):
    """The interval and the delays as they were given, in double precision; None where something is traced.

    Inside someone's `jit` every array that is made becomes traced, so that what is known has to be kept aside.
    """

    start: float
    end: float
    lags: np.ndarray

    @classmethod
    def of(cls, t0: Any, t1: Any, delays: Any) -> "Span | None":
        """The known values."""
        if not is_concrete((t0, t1, delays)):
            return None
        return cls(float(np.asarray(t0)), float(np.asarray(t1)), np.atleast_1d(np.asarray(delays, float)))


def as_state(y0: PyTree) -> PyTree:
    """The initial state as inexact arrays; Python numbers and integers get the default floating dtype."""

    def leaf(value: Any) -> Any:
        if not eqx.is_array_like(value):
            return value
        array = jnp.asarray(value)
        array = array if eqx.is_inexact_array(array) else array.astype(jnp.result_type(float))
        return jnp.asarray(array, array.dtype)  # without a weak type

    moving, rest = split_inexact(jax.tree_util.tree_map(leaf, y0))
    good = bool(jax.tree_util.tree_leaves(moving)) and not jax.tree_util.tree_leaves(rest)
    check_that(good, "y0", "be a pytree of floating or complex arrays", found(y0))
    return moving


def as_delays(delays: Any, dtype: Any) -> Float[Array, " r"]:
    """The delays as one vector."""
    lags = jnp.atleast_1d(jnp.asarray(delays, dtype))
    check_that(lags.ndim == 1 and lags.shape[0] > 0, "delays", "be one number or a sequence of numbers", found(lags))
    return jnp.asarray(lags, dtype)


def as_time(value: Any, name: str, dtype: Any) -> Float[Array, ""]:
    """A real scalar in the precision of the state."""
    return as_number(value, name).astype(dtype)


def check_span(span: Span | None) -> None:
    """Raise unless the interval and the delays are positive and finite; traced ones pass."""
    if span is None:
        return
    good = np.isfinite([span.start, span.end]).all() and span.end > span.start
    check_that(bool(good), "t1", "be finite and later than `t0`", f"found t0 = {span.start}, t1 = {span.end}")
    good = np.all(np.isfinite(span.lags) & (span.lags > 0))
    check_that(bool(good), "delays", "be positive and finite", f"found {span.lags.tolist()}")


def room_for_segments(span: Span | None, dtype: Any, max_segments: int | None) -> int:
    """How many segments to make room for."""
    if max_segments is not None:
        check_count(max_segments, "max_segments")
    if span is None:
        why = "`t0`, `t1` or a delay is traced, so that it cannot be derived"
        check_that(max_segments is not None, "max_segments", "be given", why)
        return int(max_segments or 0)
    most = _MOST_SEGMENTS if max_segments is None else max_segments
    needed = count_segments(span.start, span.end, span.lags, most, dtype)
    name = "delays" if max_segments is None else "max_segments"
    check_that(
        needed <= most, name, f"allow to reach `t1` in {most} segments", "there are more sums of delays before it"
    )
    return needed


class Output(NamedTuple):
    """What to return: `fn(t, y, args)` at the times `ts`."""

    ts: Float[Array, " num_times"]
    fn: Callable[[Any, Any, Any], Any] | None


def as_output(ts: Any, saveat: diffrax.SaveAt | None, start: Array, end: Array, span: Span | None) -> Output:
    """The times asked for, from `ts` or a Diffrax `SaveAt`."""
    check_that(ts is None or saveat is None, "saveat", "be left out where `ts` is given", "found both")
    if saveat is None:
        return Output(end[None] if ts is None else _as_times(ts, "ts", start, span), None)
    subs = saveat.subs
    good = isinstance(subs, diffrax.SubSaveAt) and not subs.steps
    must = "be `diffrax.SaveAt` with `t0`, `t1`, `ts` or `fn`"
    check_that(good, "saveat", must, "found `steps`, `subs`, or nothing; `.evaluate` is always there")
    inner = [] if subs.ts is None else [_as_times(subs.ts, "saveat", start, span)]
    ends = ([start[None]] if subs.t0 else [], [end[None]] if subs.t1 else [])
    return Output(jnp.concatenate([*ends[0], *inner, *ends[1]]), subs.fn)


def _as_times(ts: Any, name: str, start: Array, span: Span | None) -> Float[Array, " num_times"]:
    times = jnp.asarray(ts, start.dtype)
    check_that(times.ndim == 1 and times.shape[0] > 0, name, "be one-dimensional and not empty", found(times))
    if span is not None and is_concrete(ts):
        values = np.asarray(ts, float)
        slack = 4 * float(jnp.finfo(start.dtype).eps) * max(abs(span.start), abs(span.end))
        inside = values[0] >= span.start - slack and values[-1] <= span.end + slack
        good = bool(np.all(np.diff(values) > 0)) and inside
        check_that(good, name, "increase and stay within [t0, t1]", f"found {values[0]} to {values[-1]}")
    return times


def check_stages(solver: Any, steps_per_delay: int | None, neutral: bool) -> None:
    """Raise unless fixed steps on a repeating mesh can solve this."""
    check_count(steps_per_delay, "steps_per_delay")
    check_that(
        isinstance(solver, diffrax.AbstractERK),
        "solver",
        'be an explicit Runge-Kutta method for `engine="stages"`',
        found(solver),
        TypeError,
    )
    check_that(not neutral, "neutral", 'be False for `engine="stages"`', "found True")


def check_history(history: Callable[[Any], Any], y: PyTree, span: Span | None) -> None:
    """Raise where the history is known not to reach back to the largest delay."""
    if span is None:
        return
    dtype = jnp.result_type(*(jnp.finfo(leaf.dtype).dtype for leaf in jax.tree_util.tree_leaves(y)))
    for time in (span.start - float(span.lags.max()), span.start):
        value = as_past(history(np.asarray(time, dtype)), y)
        if is_concrete(value):
            finite = all(bool(np.all(np.isfinite(np.asarray(leaf)))) for leaf in jax.tree_util.tree_leaves(value))
            check_that(finite, "history", "be finite from t0 - max(delays) to t0", f"it is not at t = {time}")


def as_past(value: PyTree, y: PyTree) -> PyTree:
    """What a history returned, in the dtypes of the state."""
    try:
        return as_slope(value, y)
    except ValueError as error:
        text = str(error).replace("`vector_field`", "`history`").replace("`y`", "`y0`")
        raise ValueError(text.replace("the derivative", "the past")) from error


def closed(
    vector_field: Callable[..., Any],
    history: Callable[[Any], Any],
    t: Array,
    y: PyTree,
    r: int,
    args: PyTree,
    neutral: bool,
) -> tuple[Callable[..., Any], Callable[[Any], Any]]:
    """Field and history with the arrays they close over as leaves, checked for their shapes."""
    past = eqx.filter_closure_convert(lambda t: as_past(history(t), y), t)
    delayed = tuple((y, y) if neutral else y for _ in range(r))
    field = eqx.filter_closure_convert(
        lambda t, y, delayed, args: as_slope(vector_field(t, y, delayed, args), y), t, y, delayed, args
    )
    return field, past
