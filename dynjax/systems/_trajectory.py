"""Orbits of systems."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int8, PyTree

from .._core import Status, check_count, check_that, found, split_inexact, tree_all_finite
from ._system import AbstractSystem, IntScalarLike


class Trajectory(eqx.Module):
    """A saved orbit.

    Attributes:
        steps: step numbers of the saved states, `(num_saved,)`.
        ts: their times since step 0, `steps * dt`, `(num_saved,)`.
        ys: the saved states (or observations), each leaf with a leading axis `num_saved`.
        final: the state after the last step.
        status: `OK`, or `NONFINITE` if the final state is not finite.
    """

    steps: Int[Array, "num_saved"]
    ts: Float[Array, "num_saved"]
    ys: PyTree
    final: PyTree
    status: Int8[Array, ""]

    def __str__(self) -> str:
        return f"Trajectory({self.steps.shape[0]} states, steps {self.steps[0]} to {self.steps[-1]})"


def check_system(system: Any, x0: PyTree) -> None:
    """Raise unless `system` is a dynjax system and structure, shapes and dtypes of `x0` are a fixed point of its `step`.

    Args:
        system: what should be a system.
        x0: what should be a state of it.

    Raises:
        TypeError: if `system` is no `AbstractSystem`.
        ValueError: if `step` returns something that is not like `x0`.
    """
    check_that(
        isinstance(system, AbstractSystem), "system", "be a dynjax system such as `Map`", found(system), TypeError
    )
    before = eqx.filter_eval_shape(lambda x: x, x0)
    after = eqx.filter_eval_shape(system.step, jnp.zeros((), int), x0)
    same = jax.tree_util.tree_structure(before) == jax.tree_util.tree_structure(after)  # type: ignore[operator]
    check_that(same, "x0", "have the structure that `step` returns", "the pytree structures differ")
    for a, b in zip(jax.tree_util.tree_leaves(before), jax.tree_util.tree_leaves(after), strict=True):
        if isinstance(a, jax.ShapeDtypeStruct):
            check_that(
                (a.shape, a.dtype) == (b.shape, b.dtype),
                "x0",
                "have the shapes and dtypes that `step` returns",
                f"a leaf {a.dtype}{list(a.shape)} becomes {b.dtype}{list(b.shape)}",
            )


def _advance(system: AbstractSystem, x: PyTree, start: Array, num_steps: int) -> PyTree:
    dynamic, static = eqx.partition(x, eqx.is_array)

    def body(y: PyTree, n: Array) -> tuple[PyTree, None]:
        return eqx.filter(system.step(n, eqx.combine(y, static)), eqx.is_array), None

    dynamic, _ = jax.lax.scan(body, dynamic, start + jnp.arange(num_steps))
    return eqx.combine(dynamic, static)


@eqx.filter_jit
def _evolve(system: AbstractSystem, x0: PyTree, start: Array, num_steps: int) -> PyTree:
    return _advance(system, x0, start, num_steps)


def evolve(system: AbstractSystem, x0: PyTree, *, num_steps: int, start: IntScalarLike = 0) -> PyTree:
    """The state after `num_steps` steps: x_{n+1} = step(n, x_n), n = start, ..., start + num_steps - 1.

    Args:
        system: the system.
        x0: the state at step `start`.
        num_steps: how many steps, static.
        start: the first step number; a run that goes on passes the number of steps done so far.

    Returns:
        The final state, a pytree like `x0`.

    Raises:
        TypeError: if `system` is no dynjax system.
        ValueError: if `num_steps` is negative, or `x0` does not have the structure that `step` returns.
    """
    check_count(num_steps, "num_steps", 0)
    check_system(system, x0)
    return _evolve(system, x0, jnp.asarray(start), num_steps)


@eqx.filter_jit
def _trajectory(
    system: AbstractSystem,
    x0: PyTree,
    start: Array,
    num_steps: int,
    save_every: int,
    observe: Callable[..., Any] | None,
) -> Trajectory:
    look = (lambda n, x: eqx.filter(x, eqx.is_array)) if observe is None else observe
    dynamic, static = eqx.partition(x0, eqx.is_array)

    def block(y: PyTree, n: Array) -> tuple[PyTree, PyTree]:
        x = eqx.combine(y, static)
        seen = look(n, x)
        return eqx.filter(_advance(system, x, n, save_every), eqx.is_array), seen

    num_blocks = num_steps // save_every
    steps = start + save_every * jnp.arange(num_blocks + 1)
    dynamic, seen = jax.lax.scan(block, dynamic, steps[:-1])
    final = eqx.combine(dynamic, static)
    last = look(steps[-1], final)
    ys = jax.tree_util.tree_map(lambda a, b: jnp.concatenate([a, jnp.asarray(b)[None]]), seen, last)
    if observe is None:
        ys = eqx.combine(ys, static)
    finite = tree_all_finite(split_inexact(final)[0])
    status = jnp.where(finite, int(Status.OK), int(Status.NONFINITE)).astype(jnp.int8)
    return Trajectory(steps, steps * system.dt, ys, final, status)


def trajectory(
    system: AbstractSystem,
    x0: PyTree,
    *,
    num_steps: int,
    save_every: int = 1,
    observe: Callable[[Any, Any], Any] | None = None,
    start: IntScalarLike = 0,
) -> Trajectory:
    """An orbit of `system`, saved at steps start, start + save_every, ..., start + num_steps, both ends included.

    It runs as one compiled program, and inside other people's `jit` and `vmap`.

    Args:
        system: the system.
        x0: the state at step `start`.
        num_steps: how many steps, static; a multiple of `save_every`.
        save_every: steps between saved states, static.
        observe: `observe(n, x)`, a pytree of arrays to save in place of the state.
        start: the first step number.

    Returns:
        A `Trajectory`; memory grows with `num_steps / save_every`.

    Raises:
        TypeError: if `system` is no dynjax system.
        ValueError: if the counts do not fit, or `x0` does not have the structure that `step` returns.
    """
    check_count(num_steps, "num_steps", 1)
    check_count(save_every, "save_every", 1)
    check_that(
        num_steps % save_every == 0, "save_every", "divide `num_steps`", f"{save_every} does not divide {num_steps}"
    )
    check_system(system, x0)
    return _trajectory(system, x0, jnp.asarray(start), num_steps, save_every, observe)
