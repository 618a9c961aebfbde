"""Stochastic differential equations with additive noise as systems: one fixed step of a frozen noise path."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ..._core import Function, check_positive, check_that, found, is_concrete
from ...systems import AbstractMap
from ...systems._flow import clock
from ...systems._system import IntScalarLike, as_number


class Diffusion(AbstractMap):
    """The particles of dx = f(t, x) dt + sqrt(2 D) dW, advanced by one step of fixed size along a frozen noise path.

        "euler":  x' = x + dt f(t, x) + sqrt(2 D dt) xi_n,
        "heun":   y = x + dt f(t, x) + sqrt(2 D dt) xi_n,  x' = x + (dt/2)(f(t, x) + f(t + dt, y)) + sqrt(2 D dt) xi_n.

    The draws of step n come from `fold_in(key, n)`, leaf by leaf, so that a path can be replayed bit by bit and runs with
    different D share it. With additive noise both have strong order one; averages converge with order one and two.

    Args:
        vector_field: `f(t, x, args)` as in `Flow`; `args` is None.
        dt: time per step, traced.
        noise: D, not negative, in units of x^2 per time; traced.
        key: fixes the path.
        method: "euler" or "heun".

    Raises:
        ValueError: if `dt` is not positive, `noise` is negative or `method` unknown.
    """

    vector_field: Function
    dt: Float[Array, ""]
    noise: Float[Array, ""]
    key: PRNGKeyArray
    method: str = eqx.field(static=True)

    def __init__(
        self,
        vector_field: Callable[[Any, Any, Any], Any],
        dt: Any,
        *,
        noise: Any,
        key: PRNGKeyArray,
        method: str = "heun",
    ):
        check_that(callable(vector_field), "vector_field", "be a function", found(vector_field), TypeError)
        check_that(method in ("euler", "heun"), "method", "be 'euler' or 'heun'", f"found {method!r}")
        check_positive(dt, "dt")
        check_noise(noise)
        self.vector_field = Function(vector_field)
        self.dt, self.noise = as_number(dt, "dt"), as_number(noise, "noise")
        self.key, self.method = key, method

    def step(self, n: IntScalarLike, x: PyTree) -> PyTree:
        """The state one step later."""
        kicks = scaled_noise(jax.random.fold_in(self.key, n), x, 2 * self.noise * self.dt)
        slope = self._slope(n, 0.0, x)
        moved = jax.tree_util.tree_map(lambda p, k, s: p + self._dt(p) * s + k, x, kicks, slope)
        if self.method == "euler":
            return moved
        later = self._slope(n, 1.0, moved)
        return jax.tree_util.tree_map(lambda p, k, s, q: p + self._dt(p) / 2 * (s + q) + k, x, kicks, slope, later)

    def _slope(self, n: IntScalarLike, c: float, x: PyTree) -> PyTree:
        slope = self.vector_field(clock(jnp.zeros_like(self.dt), self.dt, n, c), x, None)
        return jax.tree_util.tree_map(lambda p, s: s.astype(p.dtype), x, slope)

    def _dt(self, leaf: Array) -> Array:
        return self.dt.astype(jnp.finfo(leaf.dtype).dtype)


def check_noise(noise: Any) -> None:
    """Raise unless the noise is finite and not negative; a traced one passes."""
    if is_concrete(noise):
        value = float(noise)
        check_that(0 <= value < float("inf"), "noise", "be finite and not negative", f"found {value}")


def scaled_noise(key: PRNGKeyArray, x: PyTree, variance: Array) -> PyTree:
    """Independent normal draws of a common variance in the shapes of `x`; a gradient at zero variance is zero."""
    leaves, treedef = jax.tree_util.tree_flatten(x)
    still = variance == 0
    scale = jnp.where(still, 0, jnp.sqrt(jnp.where(still, 1, variance)))
    keys = jax.random.split(key, len(leaves))
    draws = [scale.astype(y.dtype) * jax.random.normal(k, y.shape, y.dtype) for k, y in zip(keys, leaves, strict=True)]
    return jax.tree_util.tree_unflatten(treedef, draws)
