"""The sharpness: the largest eigenvalue of the Hessian."""

from collections.abc import Callable
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int8, PRNGKeyArray, PyTree

from ..linalg import eigsh
from ._hessian import Mode, hessian
from ._point import Filter


class Sharpness(eqx.Module):
    """The largest eigenvalue of a Hessian.

    Attributes:
        value: the eigenvalue; `jax.grad` goes through it.
        vector: its unit eigenvector, a pytree like the parameters that vary.
        residual: |H v - value v|: some eigenvalue lies within this distance of `value`.
        converged: whether the residual met the tolerance.
        num_products: Hessian-vector products spent.
        status: `Status.OK`, `NOT_CONVERGED` or `NONFINITE`.
    """

    value: Float[Array, ""]
    vector: PyTree[Array]
    residual: Float[Array, ""]
    converged: Bool[Array, ""]
    num_products: Int[Array, ""]
    status: Int8[Array, ""]

    def __str__(self) -> str:
        state = "converged" if self.converged else "not converged"
        return f"sharpness {self.value:.6g} +- {self.residual:.1g} ({state}, {self.num_products} products)"


def sharpness(
    loss: Callable[..., Float[Array, ""]],
    params: PyTree,
    *args: Any,
    key: PRNGKeyArray | None = None,
    tol: float | None = None,
    v0: PyTree[Array] | None = None,
    filter: Filter = None,
    chunk_size: int | None = None,
    mode: Mode = "recompute",
    method: Literal["auto", "lanczos", "dense"] = "auto",
    **options: Any,
) -> Sharpness:
    """The sharpness of a loss: the largest eigenvalue of its Hessian, with its eigenvector.

    Gradient descent with step `lr` is linearly stable where the sharpness is below 2/lr. The derivative of the value
    with respect to anything in `params` or `args` is u . dH u, with u the eigenvector; it needs a simple eigenvalue.

    Args:
        loss: `loss(params, *args)`, a real scalar.
        params: any pytree.
        args: data, as arrays.
        key: seeds the starting vector, where `v0` is not given.
        tol: relative tolerance of the residual, as in `eigsh`.
        v0: starting vector, a pytree like the parameters that vary: the last eigenvector, along a training run.
        filter: which leaves vary, as in `hessian`.
        chunk_size: samples in memory at a time, as in `hessian`.
        mode: `"recompute"` or `"linearise"`, as in `hessian`.
        method: `"auto"`, `"lanczos"` or `"dense"`, as in `eigsh`.
        options: further options of `eigsh`.

    Returns:
        `.value`, `.vector`, `.residual`, `.converged`, `.num_products`.

    Raises:
        TypeError: as `hessian`.
        ValueError: as `hessian` and `eigsh`.

    Example:
        ```python
        top = dj.sharpness(loss, params, x, y, key=jax.random.key(0))
        slope = jax.grad(lambda p: dj.sharpness(loss, p, x, y).value)(params)
        ```

    References:
        Cohen et al., "Gradient descent on neural networks typically occurs at the edge of stability", ICLR 2021.
    """
    operator = hessian(loss, params, *args, filter=filter, chunk_size=chunk_size, mode=mode)
    top = eigsh(operator, k=1, tol=tol, v0=v0, key=key, method=method, **options)
    return Sharpness(
        value=top.values[0],
        vector=jax.tree_util.tree_map(lambda leaf: leaf[0], top.vectors),
        residual=top.residuals[0],
        converged=jnp.all(top.converged),
        num_products=top.num_products,
        status=top.status,
    )
