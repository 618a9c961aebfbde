"""Delay differential equations on a fixed grid: the state is the history, kept in a ring buffer."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._core import Function, Static, check_that, found, freeze, is_concrete, thaw
from ._flow import as_slope, check_dt, clock
from ._system import AbstractSystem, IntScalarLike, as_inexact, as_number
from ._tableau import TABLEAUX, shifted

# The distinct nodes of classical RK4, where the delayed values are needed.
_NODES = (0.0, 0.5, 1.0)


class History(eqx.Module):
    """The state of a `DelayFlow`: the present, and ring buffers of the solution and its derivative at the grid points before.

    Attributes:
        y: the present state y(t).
        f: the derivative at the grid point before, not yet in the buffer.
        ys: earlier values, each leaf of `y` with a leading axis of `size` slots.
        fs: their time derivatives, likewise.
        steps: steps since the start, wrapped once the past is out of reach; it says where the newest slot lies.
    """

    # What a step found is stored by the next step, which writes before it reads. A step that read a buffer before it wrote
    # to it would make XLA fuse the two and copy the whole buffer: 3 us in place of 0.04 us.
    y: PyTree
    f: PyTree
    ys: PyTree
    fs: PyTree
    steps: Int[Array, ""]


def _slot(position: Array, size: int) -> Array:
    """The slot of a position that is not negative; no sign to look at, so cheaper than `%`."""
    return jax.lax.rem(position, jnp.asarray(size, position.dtype))


def _read(buffers: tuple[PyTree, ...], slot: Array) -> tuple[PyTree, ...]:
    """One slot of each member. Member i has its slots along axis i: the state first, then `k` stacked tangents."""
    take = lambda axis: (
        lambda leaf: jax.lax.dynamic_index_in_dim(leaf, slot, axis, keepdims=False, allow_negative_indices=False)
    )
    return tuple(jax.tree_util.tree_map(take(axis), member) for axis, member in enumerate(buffers))


def _write(buffers: tuple[PyTree, ...], slot: Array, values: tuple[PyTree, ...]) -> tuple[PyTree, ...]:
    put = lambda axis: (
        lambda leaf, value: jax.lax.dynamic_update_index_in_dim(leaf, value, slot, axis, allow_negative_indices=False)
    )
    return tuple(
        jax.tree_util.tree_map(put(axis), member, value)
        for axis, (member, value) in enumerate(zip(buffers, values, strict=True))
    )


def _in_steps(delays: list[Any], dt: Any) -> tuple[Any, Any]:
    """The delays in steps, and the array module that holds them: NumPy (in double precision) if they are known."""
    known = is_concrete((delays, dt))
    xp: Any = np if known else jnp
    values = [np.asarray(value) if known else jnp.asarray(value) for value in (dt, *delays)]
    kinds = [value.dtype for value in values if jnp.issubdtype(value.dtype, jnp.inexact)]
    eps = max((float(jnp.finfo(kind).eps) for kind in kinds), default=float(jnp.finfo(float).eps))
    q = xp.stack([value.astype(float) for value in values[1:]]) / values[0].astype(float)
    nearest = xp.round(q)
    # A multiple of dt is one exactly, although neither number need be representable; its derivative is that of the number.
    exact = nearest if known else nearest + (q - jax.lax.stop_gradient(q))
    return xp.where(abs(q - nearest) <= 8 * eps * nearest, exact, q), xp


def _positions(q: Any, dt: Any, size: int, xp: Any) -> tuple[Array, Array]:
    """Where the delayed values of one step lie: for each delay a cell of the grid relative to the step, and weights.

    The nodes of RK4 lie in that cell or in the next; the weights (num_delays, 3, 9) of the Hermite cubic belong to the
    values at left and right of the one cell and of the other, to the derivatives there, and to the derivative at the step
    itself, which is not in the buffer yet.

    Computed once, at construction. Inside a loop the cell and the fraction could be rounded differently, so that they
    disagree at grid points; behind the barrier both come from one number.
    """
    offset = xp.stack([c - q for c in _NODES], axis=1)  # (num_delays, 3)
    if xp is jnp:
        offset = jax.lax.optimization_barrier(offset)
    # The last node takes its limit from the left, so that a jump or a corner at a grid point is never stepped over.
    whole = xp.concatenate([xp.floor(offset[:, :2]), xp.ceil(offset[:, 2:]) - 1], axis=1)
    s, later = offset - whole, whole - whole[:, :1]
    cubic = [(1 + 2 * s) * (1 - s) ** 2, s**2 * (3 - 2 * s), s * (1 - s) ** 2 * dt, s**2 * (s - 1) * dt]
    value_left, value_right, slope_left, slope_right = cubic
    ends_here = whole == -1
    stored = xp.where(ends_here, 0.0, slope_right)
    weights = [
        w * (later == cell)
        for left, right in ((value_left, value_right), (slope_left, stored))
        for cell in (0, 1)
        for w in (left, right)
    ]
    weights.append(slope_right * ends_here)
    # A traced delay that the grid cannot serve becomes NaN, never a wrong number.
    valid = ((q >= 1) & (q <= size - 2))[:, None, None]
    return jnp.asarray(whole[:, 0]).astype(jnp.int32), jnp.asarray(xp.where(valid, xp.stack(weights, axis=2), xp.nan))


class DelayFlow(AbstractSystem):
    """The delay equation y'(t) = f(t, y(t), (y(t - tau_1), ..., y(t - tau_m)), args) on a fixed grid.

    One step is one fused classical Runge-Kutta step (order four); between grid points the history is a Hermite cubic
    through values and derivatives, so that delays need not be multiples of `dt`. The state is a `History`, two ring
    buffers over the longest delay: a step reads and writes a few slots, whatever the length of the history. Tangents
    are those of this numerical step, as a map on its history; they cost one linearisation per stage.

    The error is O(dt^4) if the solution is smooth, or if its corners fall on grid points: a past that does not continue
    smoothly into the solution makes corners at t0, t0 + tau, t0 + 2 tau, ..., which are grid points if the delays are
    multiples of `dt`; otherwise the order falls to two. A past that jumps at t0 (`y0`) costs the same.

    Delays are constant and at least `dt`. Gradients with respect to delays hold for the numerical step. For delays that
    vary with time or state, and for adaptive steps, this class is not the right one.

    Args:
        vector_field: `f(t, y, delayed, args) -> dy`; `y` is a pytree of inexact arrays, and `delayed` has the structure
            of `delays` with a pytree like `y` in place of each delay.
        delays: a scalar, or a pytree of scalars, in units of time; at least `dt`. They may be traced, then `num_history`
            is needed.
        dt: Time per step, positive.
        args: passed to the vector field; its arrays are traced, all the rest (Python numbers too) is static.
        t0: Time of step 0; times come from the integer step, `t0 + n * dt`.
        num_history: length of the history in steps, static; the longest delay, rounded up, by default. Where a delay
            is traced and does not lie between `dt` and `num_history * dt`, the state becomes NaN.

    Raises:
        ValueError: if a delay or `dt` is out of range, no scalar, or traced without `num_history`.
        TypeError: if `vector_field` is not callable.

    Example:
        ```python
        hutchinson = dj.DelayFlow(lambda t, y, delayed, args: 1.5 * y * (1 - delayed), 1.0, dt=0.05)
        orbit = dj.trajectory(hutchinson, hutchinson.init(0.5), num_steps=160, observe=lambda n, x: x.y)
        ```

    References:
        Bellen and Zennaro, Numerical Methods for Delay Differential Equations (2003), chapter 6.
    """

    vector_field: Function
    delays: PyTree
    dt: Float[Array, ""]
    t0: Float[Array, ""]
    cells: Int[Array, "num_delays"]
    weights: Float[Array, "num_delays 3 9"]
    args_arrays: PyTree
    args_static: Static = eqx.field(static=True)
    size: int = eqx.field(static=True)

    def __init__(
        self,
        vector_field: Callable[[Any, Any, Any, Any], Any],
        delays: Any,
        dt: Any,
        *,
        args: Any = None,
        t0: Any = 0.0,
        num_history: int | None = None,
    ):
        check_that(
            callable(vector_field),
            "vector_field",
            "be a function `f(t, y, delayed, args)`",
            found(vector_field),
            TypeError,
        )
        self.vector_field = Function(vector_field)
        self.dt = as_number(dt, "dt")
        check_dt(self.dt, positive=True)
        self.t0 = as_number(t0, "t0")
        self.delays = jax.tree_util.tree_map(lambda d: as_number(d, "delays"), delays)
        leaves = jax.tree_util.tree_leaves(self.delays)
        check_that(bool(leaves), "delays", "hold at least one delay", "it is empty; use `Flow`")
        q, xp = _in_steps(jax.tree_util.tree_leaves(delays), dt)
        self.size = _num_history(q, xp, num_history) + 2
        self.cells, self.weights = _positions(q, float(dt) if xp is np else self.dt, self.size, xp)
        self.args_arrays, self.args_static = freeze(args)

    @property
    def args(self) -> Any:
        """The arguments of the vector field."""
        return thaw(self.args_arrays, self.args_static)

    def time(self, n: IntScalarLike) -> Float[Array, ""]:
        """The time of step `n`, t0 + n dt."""
        return clock(self.t0, self.dt, n)

    def init(self, past: Any, *, y0: Any = None) -> History:
        """The history at time t0.

        Args:
            past: a function of time `past(t) -> y`, differentiable, evaluated at t0, t0 - dt, ..., t0 - num_history dt
                (a little earlier than the longest delay if that is no multiple of `dt`); or a constant `y`.
            y0: the state at t0, if it differs from the past there.

        Returns:
            The state for `step`, `evolve`, `trajectory`, ...
        """
        function = past if callable(past) else lambda t: past
        times = self.t0.astype(self.dt.dtype) - jnp.arange(self.size - 1).astype(self.dt.dtype) * self.dt
        values = lambda t: jax.tree_util.tree_map(as_inexact, function(t))
        ys, fs = jax.vmap(lambda t: jax.jvp(values, (t,), (jnp.ones_like(t),)))(times)
        return _as_history(ys, fs, y0)

    def step(self, n: IntScalarLike, x: History) -> History:
        """The history one Runge-Kutta step later."""

        def slope(c: float, y: tuple[PyTree], delayed: tuple[PyTree]) -> tuple[PyTree]:
            return (self._field(n, c, y[0], delayed[0]),)

        return self._advance(slope, x)[0]

    def tangent_step(self, n: IntScalarLike, x: History, v: History) -> tuple[History, History]:
        """One step of the history and of `k` stacked tangents: one linearisation per stage."""

        def slope(c: float, y: tuple[PyTree, PyTree], delayed: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            dy, push = jax.linearize(lambda a, b: self._field(n, c, a, b), y[0], delayed[0])
            return dy, jax.vmap(push)(y[1], delayed[1])

        image, pushed = self._advance(slope, x, v)
        return image, pushed

    def _field(self, n: IntScalarLike, c: float, y: PyTree, delayed: PyTree) -> PyTree:
        return as_slope(self.vector_field(clock(self.t0, self.dt, n, c), y, delayed, self.args), y)

    def _advance(self, slope: Callable[..., Any], *members: History) -> tuple[History, ...]:
        """Classical RK4 on the state, and on its tangents together with it."""
        steps = members[0].steps
        y = tuple(x.y for x in members)
        ys = _write(tuple(x.ys for x in members), _slot(steps, self.size), y)
        # The first step puts the derivative of the past back where it was.
        fs = _write(tuple(x.fs for x in members), _slot(steps + self.size - 1, self.size), tuple(x.f for x in members))
        stored = self._stored(ys, fs, steps)
        k1 = slope(0.0, y, self._delayed(stored, 0, None))
        middle, last = self._delayed(stored, 1, k1), self._delayed(stored, 2, k1)
        k2 = slope(0.5, shifted(y, self.dt, (0.5,), [k1]), middle)
        k3 = slope(0.5, shifted(y, self.dt, (0.5,), [k2]), middle)
        k4 = slope(1.0, shifted(y, self.dt, (1.0,), [k3]), last)
        y = shifted(y, self.dt, TABLEAUX["rk4"].b, [k1, k2, k3, k4])
        clocks = (self._next(steps), *(x.steps for x in members[1:]))
        return tuple(History(*parts) for parts in zip(y, k1, ys, fs, clocks, strict=True))

    def _stored(self, ys: Any, fs: Any, steps: Array) -> list[list[tuple[PyTree, ...]]]:
        """For each delay the eight buffer entries that its weights belong to, each for every member."""
        entries = []
        for cell in self.cells:
            slots = []
            for left in (steps + cell, steps + cell + 1):
                # Cells of the past lie one slot lower: t0 has one slot for each side.
                left = left - (left < 0) + self.size
                slots += [_slot(left, self.size), _slot(left + 1, self.size)]
            entries.append([_read(buffers, slot) for buffers in (ys, fs) for slot in slots])
        return entries

    def _delayed(self, stored: list[list[Any]], node: int, newest: Any) -> tuple[PyTree, ...]:
        """The delayed values at one node of the step, for every member."""
        values = [
            _weighted(
                [self.weights[j, node, i] for i in range(9)], [*entries] if newest is None else [*entries, newest]
            )
            for j, entries in enumerate(stored)
        ]
        treedef = jax.tree_util.tree_structure(self.delays)
        return tuple(jax.tree_util.tree_unflatten(treedef, [*member]) for member in zip(*values, strict=True))

    def _next(self, steps: Array) -> Array:
        """One more step; wrapped, without changing its slot, where no delay reaches the past any more."""
        following = steps + 1
        return jnp.where(following >= 2 * self.size, self.size, following)


@jax.jit
def _as_history(ys: PyTree, fs: PyTree, y0: PyTree) -> History:
    """The buffers of a history from values and derivatives at t0, t0 - dt, ... and the state at t0, if it differs."""
    first = jax.tree_util.tree_map(lambda leaf: leaf[0], ys)
    if y0 is not None:
        first = jax.tree_util.tree_map(lambda p, q: jnp.broadcast_to(as_inexact(q), p.shape).astype(p.dtype), first, y0)
    # Slot 0 is t0 seen from the right, slots -1, -2, ... are t0, t0 - dt, ... seen from the left.
    ring = lambda leaf: jnp.concatenate([jnp.zeros_like(leaf[:1]), leaf[::-1]])
    ys, fs = (jax.tree_util.tree_map(ring, buffer) for buffer in (ys, fs))
    return History(first, jax.tree_util.tree_map(lambda leaf: leaf[-1], fs), ys, fs, jnp.zeros((), jnp.int32))


def _weighted(weights: list[Array], trees: list[PyTree]) -> PyTree:
    def leaf(*leaves: Array) -> Array:
        dtype = jnp.finfo(leaves[0].dtype).dtype
        terms = [w.astype(dtype) * value for w, value in zip(weights, leaves, strict=False)]
        return sum(terms[1:], terms[0])

    return jax.tree_util.tree_map(leaf, *trees)


def _num_history(q: Any, xp: Any, num_history: int | None) -> int:
    """The length of the history in steps."""
    if num_history is not None:
        check_that(
            isinstance(num_history, int) and num_history >= 1,
            "num_history",
            "be a positive integer",
            f"found {num_history!r}",
        )
    if xp is jnp:
        check_that(num_history is not None, "num_history", "be given where a delay or `dt` is traced", "it is not")
        return int(num_history)  # type: ignore[arg-type]
    check_that(
        bool(np.all(np.isfinite(q)) and np.min(q) >= 1),
        "delays",
        "be finite and at least one step `dt`",
        f"the shortest is {np.min(q):.6g} steps",
    )
    longest = math.ceil(float(np.max(q)))
    check_that(
        num_history is None or num_history >= longest,
        "num_history",
        f"be at least the longest delay, {longest} steps",
        f"found {num_history}",
    )
    return longest if num_history is None else num_history
