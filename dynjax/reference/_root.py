"""Roots of scalar functions by bisection, differentiable with respect to the function's arguments."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def find_root(
    function: Callable[..., Any], low: Float[Array, ""], high: Float[Array, ""], *args: Any
) -> Float[Array, ""]:
    """The root of `function(x, *args)` between `low`, where it is negative, and `high`, where it is positive.

    Bisection finds it with all derivatives cut. Then two Newton steps from there carry them: each doubles the number of
    correct terms of the Taylor series in `args`, so that the first three derivatives are exact.
    A function that is positive everywhere leads to `low`.
    """
    fixed = jax.tree_util.tree_map(lax.stop_gradient, args)
    x = bisect(lambda y: function(y, *fixed) > 0, lax.stop_gradient(low), lax.stop_gradient(high))
    return newton(function, newton(function, x, *args), *args)


def bisect(beyond: Callable[[Any], Any], low: Float[Array, ""], high: Float[Array, ""]) -> Float[Array, ""]:
    """The point where `beyond(x)` turns from false to true, to the rounding of `high`."""

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = low + (high - low) / 2
        above = beyond(middle)
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    low, high = jnp.broadcast_arrays(low, high)
    low, high = lax.fori_loop(0, jnp.finfo(low.dtype).nmant + 2, halve, (low, high))
    return low + (high - low) / 2


def newton(function: Callable[..., Any], x: Float[Array, ""], *args: Any) -> Float[Array, ""]:
    """One Newton step; none where the slope is 0."""
    value, slope = jax.value_and_grad(function)(x, *args)
    flat = slope == 0
    return x - jnp.where(flat, 0, value) / jnp.where(flat, 1, slope)
