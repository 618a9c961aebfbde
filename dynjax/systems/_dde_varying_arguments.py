"""Delays that are functions, and kinks: what they must be, and the equation and the sizes that follow."""

from collections.abc import Callable, Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._core import check_count, check_positive, check_that, found, is_concrete
from ._dde_defect import DefectControlled
from ._dde_windows import Inputs, Setup

DEFAULT_SEGMENTS = 128
_WINDOW = 3  # one piece, the one that it moves on to, and the segment itself
_FIRST_STEP = 0.01
_ALL_ROUGH = 1_000_000 - 1


class ConstantDelay(eqx.Module):
    """A delay that is a number, as a function."""

    value: Float[Array, ""]

    def __call__(self, t: Any, y: PyTree, args: PyTree) -> Float[Array, ""]:
        """The number."""
        del t, y, args
        return self.value


def as_list(delays: Any) -> list[Any]:
    """The delays one by one."""
    return list(delays) if isinstance(delays, Sequence) else [delays]


def are_varying(delays: Any, kinks: Any) -> bool:
    """Whether breakpoints must be found on the march."""
    return bool(kinks) or any(callable(delay) for delay in as_list(delays))


def check_varying(delays: Any, kinks: Any, t0: Any, t1: Any, y0: PyTree, args: PyTree, min_delay: Any) -> None:
    """Raise unless delays and kinks are real numbers, or functions of `(t, y, args)` with one real number as value."""
    check_that(isinstance(kinks, Sequence), "kinks", "be a sequence of functions", found(kinks), TypeError)
    check_that(len(as_list(delays)) > 0, "delays", "be one delay or a sequence of them", "there is none")
    for kink in kinks:
        check_that(callable(kink), "kinks", "be functions `kappa(t, y, args)`", found(kink), TypeError)
        _check_scalar(kink, "kinks", t0, y0, args)
    for delay in as_list(delays):
        if callable(delay):
            _check_scalar(delay, "delays", t0, y0, args)
        else:
            check_that(jnp.ndim(delay) == 0, "delays", "be numbers or functions `tau(t, y, args)`", found(delay))
            check_positive(delay, "delays")
    if min_delay is not None:
        check_positive(min_delay, "min_delay")
    if is_concrete((t0, t1)):
        begin, end = float(np.asarray(t0)), float(np.asarray(t1))
        good = bool(np.isfinite([begin, end]).all() and end > begin)
        check_that(good, "t1", "be finite and later than `t0`", f"found t0 = {begin}, t1 = {end}")
    _check_first(delays, t0, y0, args)


def _check_scalar(fn: Callable[..., Any], name: str, t0: Any, y0: PyTree, args: PyTree) -> None:
    out = eqx.filter_eval_shape(lambda y, args: fn(jnp.asarray(t0), y, args), y0, args)
    shape = getattr(out, "shape", ())
    real = not hasattr(out, "dtype") or not jnp.issubdtype(out.dtype, jnp.complexfloating)
    number = hasattr(out, "dtype") or isinstance(out, (int, float))
    check_that(number and real and shape == (), name, "return one real number each", found(out))


def _check_first(delays: Any, t0: Any, y0: PyTree, args: PyTree) -> None:
    """Where nothing is traced: a delay that is negative from the beginning."""
    for delay in as_list(delays):
        value = delay(jnp.asarray(t0), y0, args) if callable(delay) else delay
        if is_concrete(value):
            good = bool(np.isfinite(value) and np.asarray(value) >= -1e-6 * (1 + abs(np.asarray(t0, float))))
            check_that(good, "delays", "not be negative at t0", f"found {np.asarray(value)}")


def room_for_varying(max_segments: int | None, min_delay: Any, t0: Any, t1: Any) -> int:
    """How many segments to make room for: known only by trying, so the default is generous for a few dozen delays."""
    if max_segments is not None:
        check_count(max_segments, "max_segments")
        return max_segments
    if min_delay is not None and is_concrete((min_delay, t0, t1)):
        shortest = float(np.asarray(min_delay))
        return max(DEFAULT_SEGMENTS, 2 * int(np.ceil((float(np.asarray(t1)) - float(np.asarray(t0))) / shortest)) + 2)
    return DEFAULT_SEGMENTS


def varying_setup(
    rtol: Any, atol: Any, dtype: Any, max_steps: int, num_segments: int, neutral: bool, overlap: bool
) -> Setup:
    """The sizes and rules of the march, with a solver yet to be put in by `with_solver`."""
    rtol = float(jnp.finfo(dtype).eps) ** 0.5 / 10 if rtol is None else rtol
    atol = rtol if atol is None else atol
    controller = diffrax.PIDController(rtol=rtol, atol=atol)
    plain = diffrax.Tsit5()
    return Setup(
        DefectControlled(plain), plain, controller, rtol, atol, max_steps, num_segments, _WINDOW, neutral, 0, overlap,
        _FIRST_STEP,
    )  # fmt: skip


def with_solver(setup: Setup, solver: Any) -> Setup:
    """With a solver that has its tolerances. Breakpoints of an order above its own by two are smooth to it."""
    order = solver.order(diffrax.ODETerm(lambda t, y, args: y)) or 1
    smooth = _ALL_ROUGH if setup.neutral else order + 1
    return setup._replace(solver=DefectControlled(solver), plain=solver, smooth=smooth)


def varying_inputs(
    field: Any, past: Any, start: Array, end: Array, delays: Any, kinks: Any, y0: PyTree, args: PyTree, stops: Array
) -> Inputs:
    """The equation, with all functions as pytrees of what they close over."""

    def closed(fn: Callable[..., Any]) -> Any:
        number = lambda t, y, args: jnp.asarray(fn(t, y, args), start.dtype)
        return eqx.filter_closure_convert(number, start, y0, args)

    each = tuple(
        closed(delay) if callable(delay) else ConstantDelay(jnp.asarray(delay, start.dtype))
        for delay in as_list(delays)
    )
    return Inputs(y0, start, end, each, field, past, tuple(closed(kink) for kink in kinks), args, stops)
