"""A penalty on the exponents of a network: gradient flossing."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from ._layer_exponents import layer_exponents


def exponent_penalty(
    model: Any,
    inputs: Any,
    *,
    k: int = 1,
    target: Any = 0.0,
    readout: bool = False,
    num_steps: int | None = None,
) -> Float[Array, ""]:
    r"""The mean square distance of the leading finite-time exponents from a target, differentiable in the model.

        P = mean over inputs of sum_{i <= k} (lambda_i - target)^2.

    Added to a loss, or minimised before training, it turns a network in which gradients vanish or explode into one in
    which they arrive: at target 0 the k leading directions neither grow nor shrink from layer to layer. The exponents and
    their derivatives are those of the factorised products, so that depth does no harm. Directions that are lost for good
    (-inf, behind a dead layer) have no derivative and are left out.

    Args:
        model: as for `layer_exponents`.
        inputs: a batch, as there.
        k: number of exponents.
        target: a number, or one for each exponent.
        readout: whether the last affine layer counts as a layer.
        num_steps: as for `layer_exponents`.

    Returns:
        P. Cost: k + 1 derivatives of each layer for each input, and their reverse pass; memory for all frames.

    Raises:
        TypeError: if the model is none of those.
        ValueError: if shapes do not fit.

    Example:
        ```python
        slope = eqx.filter_grad(lambda m: loss(m) + dj.propagation.exponent_penalty(m, inputs, k=8))(model)
        ```

    References:
        Engelken, Gradient flossing: improving gradient descent through dynamic control of Jacobians (2023).
    """
    rates = layer_exponents(model, inputs, k=k, readout=readout, num_steps=num_steps).per_input
    there = jnp.isfinite(rates)
    gaps = jnp.where(there, jnp.where(there, rates, 0) - jnp.asarray(target, rates.dtype), 0)
    return jnp.mean(jnp.sum(gaps**2, 1))
