"""What the tools of this room ask of a field, and the solver that they share."""

from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Int8, PyTree

from .._core import Status, check_count, check_that, found, is_concrete, tree_all_finite
from ..systems import Flow
from ._noise_paths import as_float, check_time


class SolveOptions(NamedTuple):
    """How an equation is solved: by fixed steps if `num_steps` is given, by an adaptive Diffrax solver otherwise."""

    num_steps: int | None = None
    method: str = "rk4"
    solver: Any = None
    rtol: float | None = None
    atol: float | None = None
    max_steps: int = 4096
    adjoint: Any = None

    def checked(self) -> "SolveOptions":
        """The options, if they make sense."""
        if self.num_steps is not None:
            check_count(self.num_steps, "num_steps")
        check_count(self.max_steps, "max_steps")
        good = self.solver is None or isinstance(self.solver, diffrax.AbstractSolver)
        check_that(good, "solver", "be a Diffrax solver", found(self.solver), TypeError)
        return self


class Term(eqx.Module):
    """A field with the arguments of Diffrax."""

    field: Any

    def __call__(self, t: Any, y: Array, args: Any) -> Array:
        return self.field(t, y)


def as_points(x: Any, argument: str) -> Float[Array, "*batch d"]:
    """Points with their coordinates along the last axis."""
    x = as_float(x)
    check_that(x.ndim >= 1 and x.size > 0, argument, "hold points along its last axis", found(x))
    return x


def check_field(field: Any, x: Float[Array, "*batch d"], argument: str) -> None:
    """Raise unless `field(t, x)` is a velocity for each of the points."""
    check_that(callable(field), "field", "be a function `field(t, x)`", found(field), TypeError)
    size = getattr(field, "size", None)
    if isinstance(size, int):
        must = f"hold points of R^{size}, the dimension of the field"
        check_that(x.shape[-1] == size, argument, must, f"the length of its last axis is {x.shape[-1]}")
    point = jax.ShapeDtypeStruct(x.shape[-1:], x.dtype)
    try:
        out = eqx.filter_eval_shape(field, jax.ShapeDtypeStruct((), x.dtype), point)
    except (TypeError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"Argument `field` must be callable as `field(t, x)` with one point of shape {point.shape}, "
            f"but it raised: {reason}"
        ) from error
    good = getattr(out, "shape", None) == point.shape
    check_that(good, "field", f"return a velocity of shape {point.shape}", found(out))


def time_span(field: Any) -> tuple[Any, Any]:
    """The times of noise and data; 0 and 1 where the field does not say."""
    return getattr(field, "noise_time", 0.0), getattr(field, "data_time", 1.0)


def as_times(times: Any, field: Any, dtype: Any, *, to_data: bool = True) -> Float[Array, "times"]:
    """Strictly monotone times on the path of the field, by default its two ends; without `to_data` from data to noise."""
    noise, data = time_span(field)
    if times is None:
        ends = (noise, data) if to_data else (data, noise)
        return jnp.stack([jnp.asarray(end, dtype) for end in ends])
    values = as_float(times)
    good = values.ndim == 1 and values.shape[0] >= 2
    check_that(good, "times", "be one-dimensional with at least two times", found(values))
    if is_concrete(values):
        gaps = np.diff(np.asarray(values))
        check_that(bool(np.all(gaps > 0) or np.all(gaps < 0)), "times", "be strictly monotone", f"found {times}")
    if is_concrete((noise, data)):
        low, high = sorted((float(noise), float(data)))
        check_time(values, low, high, "times")
        if not to_data and is_concrete(values):
            backwards = (float(values[-1]) - float(values[0])) * (float(noise) - float(data)) > 0
            must = f"run from the data at time {float(data):g} towards the noise at time {float(noise):g}"
            check_that(backwards, "times", must, f"found {times}")
    return values.astype(dtype)


def solve(
    field: Any, y0: PyTree, times: Float[Array, "times"], options: SolveOptions
) -> tuple[PyTree, Int[Array, ""], Int8[Array, ""]]:
    """The solution of y' = field(t, y) at all `times`, the steps tried, and a status."""
    if options.num_steps is not None:
        return _fixed(field, y0, times, options.num_steps, options.method)
    extra = {} if options.adjoint is None else {"adjoint": options.adjoint}
    out = Flow(Term(field), 1.0).solve(
        y0,
        times,
        rtol=options.rtol,
        atol=options.atol,
        solver=options.solver,
        max_steps=options.max_steps,
        **extra,
    )
    return _or_nan(out.ys, out.status), out.num_steps, out.status


def interval_flow(field: Any, start: Array, stop: Array, num_steps: int, method: str) -> Flow:
    """The flow that takes `num_steps` equal steps from `start` to `stop`."""
    return Flow(Term(field), (stop - start) / num_steps, method=method, t0=start)


def _fixed(
    field: Any, y0: PyTree, times: Float[Array, "times"], num_steps: int, method: str
) -> tuple[PyTree, Int[Array, ""], Int8[Array, ""]]:
    def interval(y: PyTree, ends: tuple[Array, Array]) -> tuple[PyTree, PyTree]:
        flow = interval_flow(field, *ends, num_steps, method)
        y = jax.lax.scan(lambda y, n: (flow.step(n, y), None), y, jnp.arange(num_steps))[0]
        return y, y

    last, later = jax.lax.scan(interval, y0, (times[:-1], times[1:]))
    ys = jax.tree_util.tree_map(lambda first, rest: jnp.concatenate([first[None], rest]), y0, later)
    status = finite_status(last)
    return _or_nan(ys, status), jnp.asarray(num_steps * (times.shape[0] - 1)), status


def _or_nan(ys: PyTree, status: Int8[Array, ""]) -> PyTree:
    return jax.tree_util.tree_map(lambda leaf: jnp.where(status == int(Status.OK), leaf, jnp.nan), ys)


def finite_status(*trees: PyTree) -> Int8[Array, ""]:
    """`OK`, or `NONFINITE` if anything is not finite."""
    return jnp.where(tree_all_finite(trees), int(Status.OK), int(Status.NONFINITE)).astype(jnp.int8)


def over_points(single: Any, x: Float[Array, "*batch d"], *others: Array) -> PyTree:
    """`single(x_i, ...)` mapped over the leading axes of the points (and of the others, of one flat axis)."""
    batch = x.shape[:-1]
    if not batch:
        return single(x, *(other[0] for other in others))
    out = jax.vmap(single)(x.reshape(-1, x.shape[-1]), *others)
    return jax.tree_util.tree_map(lambda leaf: leaf.reshape(*batch, *leaf.shape[1:]), out)


def summary(status: Int8[Array, "*batch"]) -> str:
    """How many lanes ended well, in words."""
    if not is_concrete(status):
        return "traced"
    codes = np.atleast_1d(np.asarray(status)).ravel()
    good = int(np.sum(codes == int(Status.OK)))
    return f"{good} of {codes.size} OK"
