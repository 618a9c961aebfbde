"""Ordinary differential equations as systems: fused fixed steps, and adaptive solves by Diffrax."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8, PyTree

from .._core import (
    Function,
    Static,
    check_that,
    found,
    freeze,
    is_concrete,
    split_inexact,
    status_of_diffrax,
    thaw,
    tree_all_finite,
)
from ._system import AbstractSystem, IntScalarLike, as_number, tangent_space
from ._tableau import TABLEAUX, runge_kutta_step


def check_dt(dt: Array, *, positive: bool) -> None:
    """Raise unless the step is finite and positive (or at least not zero); a traced one passes."""
    if is_concrete(dt):
        value = float(dt)
        good = math.isfinite(value) and (value > 0 if positive else value != 0)
        check_that(good, "dt", f"be finite and {'positive' if positive else 'not zero'}", f"found {value}")


def clock(t0: Array, dt: Array, n: IntScalarLike, c: float = 0.0) -> Array:
    """The time t0 + (n + c) dt, from the integer step: it does not drift."""
    return t0.astype(dt.dtype) + (jnp.asarray(n).astype(dt.dtype) + c) * dt


def as_slope(dy: PyTree, y: PyTree) -> PyTree:
    """What a vector field returned, restricted to the leaves of `y` and in their dtypes.

    Raises:
        ValueError: if it has not the structure and shapes of `y`, or is complex where `y` is real.
    """

    def leaf(p: Any, q: Any) -> Any:
        if p is None:
            return None
        if not jax.tree_util.all_leaves([q]):
            raise TypeError("a subtree where an array should be")
        q = jnp.asarray(q)
        check_that(
            q.shape == p.shape and (jnp.iscomplexobj(p) or not jnp.iscomplexobj(q)),
            "vector_field",
            "return the shapes of `y`, real where `y` is real",
            f"a leaf {p.dtype}{list(p.shape)} has the derivative {q.dtype}{list(q.shape)}",
        )
        return q.astype(p.dtype)

    try:
        return jax.tree_util.tree_map(leaf, y, dy, is_leaf=lambda p: p is None)
    except (TypeError, ValueError) as error:
        if str(error).startswith("Argument"):
            raise
        raise ValueError(
            "Argument `vector_field` must return the pytree structure of `y`, but the structures differ."
        ) from error


class FlowSolution(eqx.Module):
    """An adaptive solution of `Flow.solve`.

    Attributes:
        ts: the times asked for, `(num_times,)`.
        ys: the states there, each leaf with a leading axis `num_times`; infinite where the solver did not arrive.
        final: the last state that was reached.
        num_steps: steps tried, accepted or not.
        status: `OK`, `NONFINITE`, `MAX_STEPS`, or `ERROR` for any other failure of the solver.
        raw: the `diffrax.Solution` (statistics, event mask, result).
    """

    ts: Float[Array, "num_times"]
    ys: PyTree
    final: PyTree
    num_steps: Array
    status: Int8[Array, ""]
    raw: Any

    def __str__(self) -> str:
        return f"FlowSolution({self.ts.shape[0]} times, {self.num_steps} steps, status {self.status})"


class _Slope(eqx.Module):
    """The vector field over the leaves that move, with the others put back."""

    vector_field: Function
    frozen: PyTree

    def __call__(self, t: Any, y: PyTree, args: Any) -> PyTree:
        return as_slope(self.vector_field(t, eqx.combine(y, self.frozen), args), y)


class _Whole:
    """Stages that see the state as it is."""

    def split(self, y: PyTree, axis: int = 0) -> PyTree:
        return y

    def join(self, parts: PyTree, axis: int = 0) -> PyTree:
        return parts

    def separate(self, stage: PyTree) -> PyTree:
        return stage


class _Components(NamedTuple):
    """Stages that see the components of a single vector; XLA then has nothing to concatenate inside a step."""

    treedef: Any

    def split(self, y: PyTree, axis: int = 0) -> PyTree:
        (vector,) = self.treedef.flatten_up_to(y)
        return tuple(jax.lax.index_in_dim(vector, i, axis, keepdims=False) for i in range(vector.shape[axis]))

    def join(self, parts: PyTree, axis: int = 0) -> PyTree:
        return self.treedef.unflatten([jnp.stack(parts, axis=axis)])

    def separate(self, stage: PyTree) -> PyTree:
        """Keeps the simplifier from mixing stages."""
        return jax.lax.optimization_barrier(stage)


class Flow(AbstractSystem):
    """The flow of y' = vector_field(t, y, args), advanced by one explicit Runge-Kutta step of fixed size.

    One step is one fused kernel, its stages unrolled from a Butcher tableau:

        k_i = f(t + c_i dt, y + dt sum_j a_ij k_j),    y' = y + dt sum_i b_i k_i,    t = t0 + n dt.

    Its tangents are those of this numerical step, from one linearisation of the vector field per stage, mapped over the
    block: a step with k tangents costs about 1 + k steps, less what the stages share.

    Args:
        vector_field: `f(t, y, args) -> dy`, as in Diffrax. `y` is any pytree; leaves that are not inexact arrays stay as
            they are, and the derivative may hold `None` or anything else in their place. An Equinox module keeps its
            arrays traced.
        dt: Time per step, in the units of the vector field; traced. Negative steps run backwards.
        method: "euler", "midpoint", "heun", "rk4", "dopri5" or "tsit5" (the last two of order five, with fixed step).
        args: passed to the vector field; its arrays are traced, all the rest (Python numbers too) is static.
        t0: Time of step 0. Only equations that depend on `t` notice it: times come from the integer step,
            `t0 + n * dt`, and do not drift.
        componentwise: in steps with tangents, carry the components of a state that is a single vector through the stages
            one by one. For two or three components and a vector field that stacks simple expressions, a step of "rk4"
            takes half the time on a CPU (0.11 instead of 0.23 us for Lorenz' equations). Longer vectors, matrix products and more
            than four stages are slower with it, and can be very much slower, because the compiler repeats work.

    Raises:
        ValueError: if `method` is unknown, `dt` is zero, not finite or no scalar, or a state is not a single vector where
            `componentwise` is set.
        TypeError: if `vector_field` is not callable.

    Example:
        ```python
        pendulum = dj.Flow(lambda t, y, args: jnp.stack([y[1], -jnp.sin(y[0])]), dt=0.01)
        orbit = dj.trajectory(pendulum, jnp.array([1.0, 0.0]), num_steps=1000)
        ```

    References:
        Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I (1993), section II.1.
    """

    vector_field: Function
    dt: Float[Array, ""]
    t0: Float[Array, ""]
    args_arrays: PyTree
    args_static: Static = eqx.field(static=True)
    method: str = eqx.field(static=True)
    componentwise: bool = eqx.field(static=True)

    def __init__(
        self,
        vector_field: Callable[[Any, Any, Any], Any],
        dt: Any,
        *,
        method: str = "rk4",
        args: Any = None,
        t0: Any = 0.0,
        componentwise: bool = False,
    ):
        check_that(
            callable(vector_field), "vector_field", "be a function `f(t, y, args)`", found(vector_field), TypeError
        )
        check_that(
            method in TABLEAUX,
            "method",
            f"be one of {', '.join(TABLEAUX)}",
            f"found {method!r}; for others use `solve`",
        )
        self.vector_field = Function(vector_field)
        self.dt = as_number(dt, "dt")
        check_dt(self.dt, positive=False)
        self.t0 = as_number(t0, "t0")
        self.args_arrays, self.args_static = freeze(args)
        self.method = method
        self.componentwise = componentwise

    @property
    def args(self) -> Any:
        """The arguments of the vector field."""
        return thaw(self.args_arrays, self.args_static)

    def time(self, n: IntScalarLike) -> Float[Array, ""]:
        """The time of step `n`, t0 + n dt."""
        return clock(self.t0, self.dt, n)

    def step(self, n: IntScalarLike, x: PyTree) -> PyTree:
        """The state one Runge-Kutta step later."""
        y, frozen = tangent_space(x)
        field = _Slope(self.vector_field, frozen)

        def slope(c: float, y: PyTree) -> PyTree:
            return field(clock(self.t0, self.dt, n, c), y, self.args)

        return eqx.combine(runge_kutta_step(TABLEAUX[self.method], slope, y, self.dt), frozen)

    def tangent_step(self, n: IntScalarLike, x: PyTree, v: PyTree) -> tuple[PyTree, PyTree]:
        """One Runge-Kutta step of the state and of `k` stacked tangents: one linearisation per stage."""
        y, frozen = tangent_space(x)
        field, form = _Slope(self.vector_field, frozen), self._form(y)

        def slope(c: float, pair: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            t = clock(self.t0, self.dt, n, c)
            parts, tangents = form.separate(pair)
            dy, push = jax.linearize(lambda parts: form.split(field(t, form.join(parts), self.args)), parts)
            return dy, jax.vmap(push)(tangents)

        start = (form.split(y), form.split(v, axis=1))
        y, v = runge_kutta_step(TABLEAUX[self.method], slope, start, self.dt)
        return eqx.combine(form.join(y), frozen), form.join(v, axis=1)

    def _form(self, y: PyTree) -> "_Components | _Whole":
        """How the stages see the state."""
        if not self.componentwise:
            return _Whole()
        leaves, treedef = jax.tree_util.tree_flatten(y)
        good = len(leaves) == 1 and jnp.ndim(leaves[0]) == 1
        check_that(good, "componentwise", "be False unless the state is a single vector", found(y))
        return _Components(treedef)

    def solve(
        self,
        x0: PyTree,
        ts: Any,
        *,
        rtol: Any = None,
        atol: Any = None,
        solver: Any = None,
        stepsize_controller: Any = None,
        **kwargs: Any,
    ) -> FlowSolution:
        """The solution at the times `ts` by `diffrax.diffeqsolve`: adaptive, explicit or implicit, with adjoints and events.

        It has nothing to do with `dt` and `method`, which belong to `step`.

        Args:
            x0: the state at the time `ts[0]`.
            ts: increasing (or decreasing) times, at least two, in the units of the vector field; taken in the precision
                of `x0`.
            rtol: relative tolerance; a tenth of the square root of the precision by default.
            atol: absolute tolerance; `rtol` by default.
            solver: a Diffrax solver; `diffrax.Tsit5()` by default.
            stepsize_controller: `diffrax.PIDController(rtol, atol)` by default.
            **kwargs: everything else of `diffrax.diffeqsolve`, such as `adjoint`, `event`, `max_steps`, `dt0`.

        Returns:
            A `FlowSolution`. A failure is a status and no exception, unless `throw=True` is passed.

        Raises:
            ValueError: if `ts` is no one-dimensional array of at least two monotone times, or `x0` holds no inexact array.
        """
        y0, frozen = split_inexact(x0)
        check_that(bool(jax.tree_util.tree_leaves(y0)), "x0", "hold inexact arrays", "there is none")
        kinds = [jnp.finfo(leaf.dtype).dtype for leaf in jax.tree_util.tree_leaves(y0)]
        ts = jnp.asarray(ts, jnp.result_type(*kinds))
        _check_times(ts)
        if stepsize_controller is None:
            rtol = max(float(jnp.finfo(kind).eps) for kind in kinds) ** 0.5 / 10 if rtol is None else rtol
            stepsize_controller = diffrax.PIDController(rtol=rtol, atol=rtol if atol is None else atol)
        field = _Slope(self.vector_field, frozen)
        saves = [diffrax.SubSaveAt(ts=ts), diffrax.SubSaveAt(t1=True)]
        options = {"dt0": None, "throw": False, "args": self.args} | kwargs
        raw = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Tsit5() if solver is None else solver,
            ts[0],
            ts[-1],
            y0=y0,
            saveat=diffrax.SaveAt(subs=saves),
            stepsize_controller=stepsize_controller,
            **options,
        )
        ys, ends = raw.ys
        final = jax.tree_util.tree_map(lambda leaf: leaf[-1], ends)
        finite = tree_all_finite((final, field(raw.ts[1][-1], final, options["args"])))
        status = status_of_diffrax(raw.result, finite)
        both = lambda y: eqx.combine(y, frozen)
        return FlowSolution(ts, both(ys), both(final), raw.stats["num_steps"], status, raw)


def _check_times(ts: Array) -> None:
    check_that(ts.ndim == 1 and ts.shape[0] >= 2, "ts", "be one-dimensional with at least two times", found(ts))
    if is_concrete(ts):
        gaps = np.diff(np.asarray(ts))
        check_that(bool(np.all(gaps > 0) or np.all(gaps < 0)), "ts", "be strictly monotone", "it is not")
