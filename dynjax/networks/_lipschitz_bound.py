"""Certified upper bounds on Lipschitz constants."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import Function, found, thaw
from ._activations import activation_constant
from ._affine import Affine
from ._fields import MLPField
from ._lipschitz_field import LipschitzField
from ._mlp import MLP
from ._operator_norms import block_norm, check_norm


def lipschitz_bound(module: Any, norm: str = "sup", *, activation_lipschitz: float | None = None) -> Float[Array, ""]:
    r"""An upper bound on the Lipschitz constant of a network or vector field.

    The product of the operator norms of the matrices and of the Lipschitz constants of the activations,

        Lip <= |W_1| c |W_2| c ... |W_L|,

    with the largest l1 norm of a row for "sup" and the largest singular value for "euclidean". For a vector field it is the
    constant K with |F(t, y, v) - F(t, y', v')| <= K max(|y - y'|, |v_1 - v'_1|, ...) at every time: the column of the time does
    not count, and in the Euclidean norm the first matrix counts with the sum of the norms of its blocks. The bound holds up to
    rounding; it is sharp for affine maps (fields with delays: in the sup norm) and in general too large.

    Args:
        module: an `Affine`, `MLP`, `MLPField` or `LipschitzField`, or an object with a method `lipschitz_bound(norm)`.
        norm: "sup" or "euclidean".
        activation_lipschitz: the Lipschitz constant of the activation, where it is in no table.

    Returns:
        The bound, differentiable with respect to the parameters.

    Raises:
        ValueError: if the norm or the constant of the activation is unknown.
        TypeError: if nothing is known about the module.

    Example:
        ```python
        dj.networks.lipschitz_bound(dj.MLP((2, 16, 1), key=jax.random.key(0)), "euclidean")
        ```

    References:
        Szegedy et al., Intriguing properties of neural networks (2014), section 4.3.
    """
    check_norm(norm)
    if isinstance(module, Function):
        module = thaw(module.arrays, module.static)
    if isinstance(module, Affine):
        return block_norm(module.weight, (module.in_size,), norm)
    if isinstance(module, MLP):
        return _mlp_bound(module, (module.widths[0],), norm, activation_lipschitz)
    if isinstance(module, MLPField):
        return _mlp_bound(module.mlp, (module.size,) * (1 + module.num_delays), norm, activation_lipschitz)
    if isinstance(module, LipschitzField):
        return module.bound(norm)
    if hasattr(module, "lipschitz_bound"):
        return module.lipschitz_bound(norm)
    raise TypeError(
        "Argument `module` must be an Affine, MLP, MLPField or LipschitzField, or have a method `lipschitz_bound(norm)`, "
        f"but {found(module)}."
    )


def _mlp_bound(mlp: MLP, blocks: tuple[int, ...], norm: str, given: float | None) -> Array:
    """The bound for the first `sum(blocks)` inputs, the others held fixed."""
    first, *rest = mlp.weights
    value = block_norm(first[:, : sum(blocks)], blocks, norm)
    for weight in rest:
        value = value * activation_constant(mlp.activation, given) * block_norm(weight, (weight.shape[1],), norm)
    return jnp.asarray(value)
