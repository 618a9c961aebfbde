"""Arguments of closed forms: one floating dtype for all of them, and checks of counts."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import check_that, found, is_concrete

EULER_GAMMA = float(np.euler_gamma)


def floats(*values: Any) -> tuple[Array, ...]:
    """The values as arrays of their common floating dtype; whole numbers get JAX's default one."""
    leaves = [jnp.asarray(value) if isinstance(value, list | tuple) else value for value in values]
    dtype = jnp.result_type(*leaves, float)
    return tuple(jnp.asarray(leaf, dtype) for leaf in leaves)


def default_float(value: Any) -> Float[Array, "..."]:
    """A constant in JAX's default floating dtype."""
    return jnp.asarray(value, jnp.result_type(float))


def check_count(value: Any, argument: str, smallest: int = 1) -> None:
    """Raise unless `value` is a static integer, at least `smallest`."""
    is_count = isinstance(value, int | np.integer) and not isinstance(value, bool)
    but = f"found {value}" if is_concrete(value) else "it is traced; sizes are part of the shapes"
    check_that(is_count and value >= smallest, argument, f"be an integer, at least {smallest}", but)


def check_values(value: Any, argument: str, must: str, test: Any) -> None:
    """Raise unless `test` holds for all entries of `value`; a traced value passes, NaN does not."""
    if is_concrete(value):
        array = np.asarray(value)
        check_that(bool(np.all(test(array))), argument, must, f"found {value}")


def check_non_negative(value: Any, argument: str) -> None:
    """Raise unless `value` is finite and not negative; a traced value passes."""
    check_values(value, argument, "be finite and not negative", lambda x: np.isfinite(x) & (x >= 0))


def check_vector(value: Any, argument: str) -> None:
    """Raise unless `value` is an array of one axis with at least one entry."""
    shape = jnp.shape(value)
    check_that(len(shape) == 1 and shape[0] > 0, argument, "be one-dimensional and not empty", f"its shape is {shape}")


def check_square(value: Any, argument: str) -> None:
    """Raise unless `value` is a square matrix."""
    shape = jnp.shape(value)
    square = len(shape) == 2 and shape[0] == shape[1] > 0
    check_that(square, argument, "be a square matrix", found(value) if not shape else f"its shape is {shape}")


def descending(values: Float[Array, "n"]) -> Float[Array, "n"]:
    """The values from the largest to the smallest."""
    return jnp.sort(values, descending=True)
