"""The abstraction everything is built on: something that advances a state, and tangent vectors along it."""

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .._core import Function, check_positive, check_that, found, split_inexact

IntScalarLike = int | Int[Array, ""]


def tangent_space(x: PyTree) -> tuple[PyTree, PyTree]:
    """Split a state into the part that carries tangents (its inexact arrays) and the rest.

    Integers (an optimiser's counter), random keys and functions carry no tangent.

    Args:
        x: the state.

    Returns:
        (dynamic, frozen), each with `None` in place of the other; `equinox.combine` joins them.
    """
    return split_inexact(x)


class AbstractSystem(eqx.Module):
    """Something that advances a state by one step, and a block of tangent vectors along it.

    The clock is the integer `n`; time is `t = t0 + n * dt`, so that it does not drift in single precision. Neither method
    has a batch axis: batch with `jax.vmap` over states, or over the system itself.
    """

    dt: eqx.AbstractVar[Float[Array, ""]]

    @abc.abstractmethod
    def step(self, n: IntScalarLike, x: PyTree) -> PyTree:
        """The state after step `n`. Pure; structure, shapes and dtypes are those of `x`.

        Args:
            n: the step number, an integer.
            x: the state.
        """

    @abc.abstractmethod
    def tangent_step(self, n: IntScalarLike, x: PyTree, v: PyTree) -> tuple[PyTree, PyTree]:
        """One step of the state together with `k` tangent vectors.

        Args:
            n: the step number, an integer.
            x: the state.
            v: `k` stacked tangents: the tangent space of `x` with a leading axis of length `k` on every leaf.

        Returns:
            (x', v'): the state of `step(n, x)` and the tangents Dstep(n, x) v, of the *numerical* step.
        """


class AbstractMap(AbstractSystem):
    """A system whose tangent is the derivative of its `step`, linearised once and mapped over the block."""

    def tangent_step(self, n: IntScalarLike, x: PyTree, v: PyTree) -> tuple[PyTree, PyTree]:
        """One step of the state and of `k` stacked tangents, from one linearisation of `step`."""
        dynamic, frozen = tangent_space(x)

        def moving(y: PyTree) -> tuple[PyTree, PyTree]:
            return tangent_space(self.step(n, eqx.combine(y, frozen)))

        image, push, still = jax.linearize(moving, dynamic, has_aux=True)
        return eqx.combine(image, still), jax.vmap(push)(v)


def as_inexact(value: Any) -> Array:
    """An array of a floating or complex dtype, which it keeps; anything else gets JAX's default floating one."""
    array = jnp.asarray(value)
    return array if jnp.issubdtype(array.dtype, jnp.inexact) else array.astype(jnp.result_type(float))


def as_number(value: Any, argument: str) -> Float[Array, ""]:
    """A real scalar array of a floating dtype; a floating array keeps its dtype."""
    array = as_inexact(value)
    real = array.ndim == 0 and not jnp.iscomplexobj(array)
    check_that(real, argument, "be a real scalar", found(jnp.asarray(value)))
    return array


def _time_per_step(dt: Any) -> Float[Array, ""]:
    check_positive(dt, "dt")
    return as_number(dt, "dt")


class Map(AbstractMap):
    """A discrete-time system x' = fn(n, x).

    Args:
        fn: `fn(n, x) -> x'`, pure, with the structure, shapes and dtypes of `x`. It may be an Equinox module whose arrays
            are then traced, so that one may differentiate with respect to them or `vmap` over them.
        dt: Time per step; other than 1 where the map is the step of an integrator, so that rates come out per unit of time.

    Example:
        ```python
        henon = dj.Map(lambda n, x: jnp.stack([1 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]]))
        orbit = dj.trajectory(henon, jnp.zeros(2), num_steps=1000)
        ```
    """

    fn: Function
    dt: Float[Array, ""]

    def __init__(self, fn: Callable[[Any, Any], Any], *, dt: Any = 1.0):
        check_that(callable(fn), "fn", "be a function `fn(n, x)`", found(fn), TypeError)
        self.fn = Function(fn)
        self.dt = _time_per_step(dt)

    def step(self, n: IntScalarLike, x: PyTree) -> PyTree:
        """fn(n, x)."""
        return self.fn(n, x)


class RandomMap(AbstractMap):
    """A random map x' = fn(x, path(n)): a cocycle over the frozen noise `path`.

    Args:
        fn: `fn(x, noise) -> x'`.
        path: `path(n)`, a pure function of the integer step, e.g. `WhiteNoise` or `MiniBatches`.
        dt: Time per step; other than 1 where the map is the step of a stochastic differential equation.
    """

    fn: Function
    path: Function
    dt: Float[Array, ""]

    def __init__(self, fn: Callable[[Any, Any], Any], path: Callable[[Any], Any], *, dt: Any = 1.0):
        check_that(callable(fn), "fn", "be a function `fn(x, noise)`", found(fn), TypeError)
        check_that(callable(path), "path", "be a function of the step `path(n)`", found(path), TypeError)
        self.fn = Function(fn)
        self.path = Function(path)
        self.dt = _time_per_step(dt)

    def step(self, n: IntScalarLike, x: PyTree) -> PyTree:
        """fn(x, path(n))."""
        return self.fn(x, self.path(n))
