"""Arguments that thresholds, growth rates and stationary states share."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import check_that, found, is_concrete


def as_real(value: Any, argument: str, *, non_negative: bool = False) -> Float[Array, ""]:
    """A finite real scalar, not negative if so wanted; a traced value passes."""
    value = jnp.asarray(value)
    good = value.ndim == 0 and not jnp.iscomplexobj(value)
    check_that(good, argument, "be a real scalar; map over it by `jax.vmap`", found(value))
    value = value.astype(jnp.result_type(value.dtype, float))
    if is_concrete(value):
        number = float(np.asarray(value))
        good = np.isfinite(number) and (number >= 0 or not non_negative)
        check_that(bool(good), argument, f"be finite{' and not negative' if non_negative else ''}", f"found {number}")
    return value


def as_coefficients(harmonics: Any) -> Float[Array, "harmonics"]:
    """a_1, a_2, ...: one for sin alone where `harmonics` is None."""
    values = jnp.asarray([1.0] if harmonics is None else harmonics, jnp.result_type(float))
    good = values.ndim == 1 and values.shape[0] > 0
    check_that(good, "harmonics", "be a vector of coefficients of sin(m u), m = 1, 2, ...", found(values))
    if is_concrete(values):
        check_that(bool(np.all(np.isfinite(np.asarray(values)))), "harmonics", "be finite", f"found {harmonics}")
    return values
