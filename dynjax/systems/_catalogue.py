"""What the standard systems share: their parameters as arrays, and a register of their initial states."""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._core import check_that, found
from ._system import as_inexact

_Maker = TypeVar("_Maker", bound=Callable[..., Any])
_STARTS: dict[Callable[..., Any], Callable[..., Any]] = {}


def start(state: Callable[..., Any]) -> Callable[[_Maker], _Maker]:
    """Register `state(**parameters)` as the initial state of the standard system that is decorated."""

    def register(maker: _Maker) -> _Maker:
        _STARTS[maker] = state
        return maker

    return register


def initial_state(maker: Callable[..., Any], *args: Any, **kwargs: Any) -> PyTree:
    """The usual initial state of a standard system, in JAX's default floating dtype.

    Args:
        maker: a function of the catalogue, e.g. `dj.systems.lorenz63`.
        *args: the arguments that are given to `maker`, where they matter (a size, a matrix, a delay).
        **kwargs: likewise.

    Returns:
        A state for `step`.

    Raises:
        ValueError: if `maker` is no function of the catalogue.

    Example:
        ```python
        x0 = dj.systems.initial_state(dj.systems.lorenz96, size=20)
        orbit = dj.trajectory(dj.systems.lorenz96(size=20), x0, num_steps=1000)
        ```
    """
    check_that(maker in _STARTS, "maker", "be a function of the catalogue of standard systems", found(maker))
    return _STARTS[maker](*args, **kwargs)


def parameters(**values: Any) -> tuple[Array, ...]:
    """The parameters as floating arrays, so that they are traced."""
    arrays = []
    for name, value in values.items():
        array = as_inexact(value)
        check_that(not jnp.issubdtype(array.dtype, jnp.complexfloating), name, "be real", f"its dtype is {array.dtype}")
        arrays.append(array)
    return tuple(arrays)


def like(values: PyTree, x: Array) -> Any:
    """The parameters in the dtype of the state."""
    return jax.tree_util.tree_map(lambda value: value.astype(x.dtype), values)


def matrix(a: Any) -> Float[Array, "dim dim"]:
    """A square matrix."""
    a = jnp.asarray(a)
    check_that(a.ndim == 2 and a.shape[0] == a.shape[1], "a", "be a square matrix", found(a))
    return a
