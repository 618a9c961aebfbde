"""How far training is from the edge of stability, as one number for every optimiser."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from .._core import Function, split_inexact
from ..curvature import Preconditioned, hessian
from ..linalg import eigsh
from ._coordinate import Coordinate
from ._map import check_optimizer
from ._preconditioner import diagonal_scale, work_dtype
from ._threshold import critical_curvature, read_shared


class EdgeResult(eqx.Module):
    """The distance of a state of training from the edge of stability.

    Attributes:
        edge_ratio: `sharpness / threshold`; 1 at the edge of stability.
        sharpness: the largest eigenvalue of D^1/2 H D^1/2, D from `preconditioner`: of the Hessian itself where D = 1.
        threshold: the critical curvature of the optimiser in this state.
        residual: |A u - sharpness u|: some eigenvalue lies within this distance of `sharpness`.
        converged: whether the residual met the tolerance.
        num_products: Hessian-vector products spent.
        vector: the unit eigenvector u of D^1/2 H D^1/2, a pytree like the parameters that vary; the direction in parameter
            space is D^1/2 u.
    """

    edge_ratio: Float[Array, ""]
    sharpness: Float[Array, ""]
    threshold: Float[Array, ""]
    residual: Float[Array, ""]
    converged: Bool[Array, ""]
    num_products: Int[Array, ""]
    vector: PyTree[Array]

    @property
    def preconditioned_sharpness(self) -> Float[Array, ""]:
        """The same as `sharpness`, by its full name."""
        return self.sharpness

    def __str__(self) -> str:
        state = "converged" if self.converged else "not converged"
        return f"edge ratio {self.edge_ratio:.4f}: sharpness {self.sharpness:.6g} of {self.threshold:.6g} ({state})"


def edge_ratio(
    loss: Callable[..., Float[Array, ""]],
    optimizer: Any,
    params: PyTree,
    opt_state: Any,
    *args: Any,
    v0: PyTree[Array] | None = None,
    key: PRNGKeyArray | None = None,
    tol: float | None = None,
    filter: Any = None,
    **options: Any,
) -> EdgeResult:
    """lambda_max(D^1/2 H D^1/2) / s*: 1 at the edge of stability, whatever the optimiser.

    H is the Hessian of `loss(params, *args)`, D = `preconditioner(optimizer, opt_state)` and s* =
    `stability_threshold(optimizer, opt_state)`, so schedules and injected hyperparameters count with the value of the last step.

    It runs under `jit` and `vmap` (build the optimiser inside); give `max_restarts` to bound the work of a lane, and `v0` to
    start from the last eigenvector.

    Args:
        loss: `loss(params, *args)`, a real scalar.
        optimizer: an optax transformation that acts coordinate by coordinate.
        params: the parameters, any pytree.
        opt_state: the state of the optimiser after its last step.
        args: data, as arrays.
        v0: starting vector, the `.vector` of an earlier result.
        key: seeds the starting vector where `v0` is not given.
        tol: relative tolerance of the residual, as in `eigsh`.
        filter: which leaves vary, as in `hessian`; the ratio is then that of the block.
        options: further options of `eigsh`: `max_restarts`, `num_krylov`, `method`.

    Returns:
        `.edge_ratio`, `.sharpness`, `.threshold`, `.residual`, `.converged`, `.num_products`, `.vector`. The ratio is 0
        where nothing is unstable (learning rate 0), and `nan` where the optimiser has no threshold.

    Raises:
        TypeError: as `hessian`, or if `optimizer` is no optax transformation.
        ValueError: as `hessian`, `eigsh` and `preconditioner`.

    Example:
        ```python
        result = dj.edge_ratio(loss, optimizer, params, opt_state, x, y)
        again = dj.edge_ratio(loss, optimizer, new_params, new_state, x, y, v0=result.vector)
        ```
    """
    check_optimizer(optimizer)
    return _edge_ratio(Function(loss), optimizer, params, opt_state, args, filter, v0, key, tol, options)


@eqx.filter_jit
def _edge_ratio(
    loss: Any,
    optimizer: Any,
    params: PyTree,
    opt_state: Any,
    args: tuple[Any, ...],
    filter: Any,
    v0: Any,
    key: Any,
    tol: Any,
    options: dict[str, Any],
) -> EdgeResult:
    operator, threshold = stability_problem(loss, optimizer, params, opt_state, args, filter)
    top = eigsh(operator, 1, tol=tol, v0=v0, key=key, **options)
    sharpness = top.values[0]
    return EdgeResult(
        edge_ratio=ratio_to(sharpness, threshold),
        sharpness=sharpness,
        threshold=threshold.astype(sharpness.dtype),
        residual=top.residuals[0],
        converged=jnp.all(top.converged),
        num_products=top.num_products,
        vector=jax.tree_util.tree_map(lambda leaf: leaf[0], top.vectors),
    )


def stability_problem(
    loss: Callable[..., Any], optimizer: Any, params: PyTree, opt_state: Any, args: tuple[Any, ...], filter: Any
) -> tuple[lx.AbstractLinearOperator, Float[Array, ""]]:
    """The operator D^1/2 H D^1/2 and the critical value of its largest eigenvalue."""
    operator = hessian(loss, params, *args, filter=filter)
    dynamic = split_inexact(params)[0]
    coordinate = Coordinate(optimizer, work_dtype(dynamic, opt_state))
    kept, rest = read_shared(coordinate, opt_state)
    threshold = critical_curvature(coordinate, kept, rest)
    if coordinate.nothing_even():
        return operator, threshold
    scale = diagonal_scale(coordinate, opt_state, dynamic)
    chosen = split_inexact(params, filter)[0]
    scale = jax.tree_util.tree_map(
        lambda p, d: None if p is None else d, chosen, scale, is_leaf=lambda leaf: leaf is None
    )
    return Preconditioned(operator, scale), threshold


def ratio_to(sharpness: Float[Array, ""], threshold: Float[Array, ""]) -> Float[Array, ""]:
    """The edge ratio, in the dtype of the sharpness."""
    return sharpness / threshold.astype(sharpness.dtype)
