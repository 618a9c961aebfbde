"""Distributed delays with a constant kernel, as one more state with constant delays."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._core import check_count, check_that, found, is_concrete


class DistributedDelay(NamedTuple):
    """An equation with constant delays whose state is the pair (y, integral), ready for `ddesolve`.

    Attributes:
        vector_field: of the pair.
        y0: the pair at t0.
        history: of the pair. Its second part is zero: the equation never asks for past integrals.
        delays: the ends of the window, without one that is zero.
    """

    vector_field: Callable[[Any, Any, Any, Any], Any]
    y0: PyTree
    history: Callable[[Any], Any]
    delays: tuple[Any, ...]


def distributed_delay(
    vector_field: Callable[[Any, Any, Any, Any], Any],
    t0: Any,
    y0: PyTree,
    *,
    history: Callable[[Any], Any],
    window: tuple[Any, Any],
    num_nodes: int = 16,
) -> DistributedDelay:
    r"""Write y'(t) = f(t, y(t), z(t), args) with z(t) = \int_{t-b}^{t-a} y(s) ds as an equation with constant delays.

    The integral obeys z'(t) = y(t - a) - y(t - b). Its value at t0 is computed by Gauss-Legendre quadrature of the history.
    Errors of the solver add up in z and are not damped, so that z drifts by about the tolerance in each delay.

    Args:
        vector_field: `f(t, y, integral, args) -> dy`.
        t0: the start.
        y0: the state there, a pytree of inexact arrays.
        history: `phi(t)` for t <= t0, of the structure of `y0`.
        window: the ages (a, b) with 0 <= a < b, in units of time. Both may be traced, and differentiated, if a is positive.
        num_nodes: of the quadrature; 16 are enough for a history as smooth as a polynomial of degree 31.

    Returns:
        A `DistributedDelay`: solve it by `ddesolve(p.vector_field, t0, t1, p.y0, history=p.history, delays=p.delays)`. States of
        the solution are pairs (y, integral). Divide the integral by b - a for a mean.

    Raises:
        ValueError: if the window is not 0 <= a < b, or `num_nodes` is not positive.
        TypeError: if `vector_field` or `history` is not callable.

    Example:
        ```python
        p = dj.systems.distributed_delay(lambda t, y, z, args: -z, 0.0, 1.0, history=lambda t: 1.0, window=(0.0, 1.0))
        solution = dj.ddesolve(p.vector_field, 0.0, 5.0, p.y0, history=p.history, delays=p.delays)
        ```

    References:
        Smith, An Introduction to Delay Differential Equations with Applications to the Life Sciences (2011), chapter 7.
    """
    check_that(
        callable(vector_field),
        "vector_field",
        "be a function `f(t, y, integral, args)`",
        found(vector_field),
        TypeError,
    )
    check_that(callable(history), "history", "be a function of time", found(history), TypeError)
    check_count(num_nodes, "num_nodes")
    check_that(isinstance(window, tuple) and len(window) == 2, "window", "be a pair of ages", found(window))
    young, old = window
    if is_concrete(window):
        good = 0 <= float(np.asarray(young)) < float(np.asarray(old)) < np.inf
        check_that(good, "window", "be ages (a, b) with 0 <= a < b", f"found {window}")
    now = is_concrete(young) and float(np.asarray(young)) == 0

    def both(t: Any, pair: Any, delayed: Any, args: PyTree) -> Any:
        y, integral = pair
        newest = y if now else delayed[0][0]
        change = jax.tree_util.tree_map(lambda a, b: a - b, newest, delayed[-1][0])
        return vector_field(t, y, integral, args), change

    state = jax.tree_util.tree_map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf, float)), y0)
    start = _integral(history, t0, young, old, num_nodes, state)
    past = lambda t: (history(t), jax.tree_util.tree_map(jnp.zeros_like, state))
    return DistributedDelay(both, (state, start), past, (old,) if now else (young, old))


def _integral(history: Callable[[Any], Any], t0: Any, young: Any, old: Any, num_nodes: int, like: PyTree) -> PyTree:
    """The integral of the history over the window at t0."""
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    dtype = jnp.result_type(*(jnp.finfo(leaf.dtype).dtype for leaf in jax.tree_util.tree_leaves(like)))
    half, middle = (old - young) / 2, (old + young) / 2
    times = jnp.asarray(t0 - middle, dtype) + jnp.asarray(half, dtype) * jnp.asarray(nodes, dtype)
    shaped = lambda t: jax.tree_util.tree_map(
        lambda a, b: jnp.broadcast_to(a, b.shape).astype(b.dtype), history(t), like
    )
    values = jax.vmap(shaped)(times)
    add = lambda leaf: _weighted(leaf, jnp.asarray(half, dtype) * jnp.asarray(weights, dtype))
    return jax.tree_util.tree_map(add, values)


def _weighted(values: Array, weights: Array) -> Array:
    return jnp.tensordot(weights.astype(values.dtype), values, axes=1)
