"""Lipschitz constants of activation functions."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._core import check_that

# The largest absolute value of the derivative, rounded up in the last digit where it has no closed form.
_CONSTANTS: dict[Any, float] = {
    jnp.tanh: 1.0,
    jax.lax.tanh: 1.0,
    jnp.sin: 1.0,
    jnp.cos: 1.0,
    jnp.arctan: 1.0,
    jnp.abs: 1.0,
    jax.nn.identity: 1.0,
    jax.nn.relu: 1.0,
    jax.nn.relu6: 1.0,
    jax.nn.leaky_relu: 1.0,
    jax.nn.elu: 1.0,
    jax.nn.celu: 1.0,
    jax.nn.hard_tanh: 1.0,
    jax.nn.soft_sign: 1.0,
    jax.nn.softplus: 1.0,
    jax.nn.log_sigmoid: 1.0,
    jax.nn.sigmoid: 0.25,
    jax.nn.selu: 1.7580993409,
    jax.nn.silu: 1.0998394,
    jax.nn.gelu: 1.128994,
    jax.scipy.special.erf: 2 / math.sqrt(math.pi),
}


def activation_constant(activation: Callable[[Any], Any], given: float | None = None) -> float:
    """The Lipschitz constant of an activation, from the table or as stated by the caller.

    Raises:
        ValueError: if it is in no table and not stated, or the stated one is not positive.
    """
    if given is not None:
        check_that(math.isfinite(given) and given > 0, "activation_lipschitz", "be positive", f"found {given}")
        return float(given)
    constant = _CONSTANTS.get(activation) if callable(activation) else None
    name = getattr(activation, "__name__", type(activation).__name__)
    check_that(
        constant is not None,
        "activation_lipschitz",
        "be given for an activation that is in no table",
        f"the constant of `{name}` is not known",
    )
    return float(constant)  # type: ignore[arg-type]
