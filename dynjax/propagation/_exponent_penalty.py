"""A penalty on the exponents of a network: gradient flossing."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import check_that, found
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
    (-inf, behind a dead layer) have no derivative and are left out. Where a state or a tangent is not finite P is NaN.

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
        ValueError: if shapes do not fit, or `target` is neither a number nor one for each exponent.

    Example:
        ```python
        slope = eqx.filter_grad(lambda m: loss(m) + dj.propagation.exponent_penalty(m, inputs, k=8))(model)
        ```

    References:
        Engelken, Gradient flossing: improving gradient descent through dynamic control of Jacobians (2023).
    """
    target = jnp.asarray(target)
    check_that(
        target.shape in ((), (k,)), "target", f"be a number, or {k} of them, one for each exponent", found(target)
    )
    rates = layer_exponents(model, inputs, k=k, readout=readout, num_steps=num_steps).per_input
    lost = jnp.isneginf(rates)  # alone: what has overflowed must not look as if it were at the target
    gaps = jnp.where(lost, 0, jnp.where(lost, 0, rates) - target.astype(rates.dtype))
    return jnp.mean(jnp.sum(gaps**2, 1))
