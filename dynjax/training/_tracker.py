"""Follow the sharpness through someone else's training loop."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._core import (
    Function,
    Raveler,
    check_positive,
    check_that,
    cond_any_lane,
    found,
    split_inexact,
    tree_add_scaled,
    tree_dot,
    tree_norm,
)
from ..linalg import eigsh
from ._edge import ratio_to, stability_problem
from ._map import check_optimizer


class Track(eqx.Module):
    """What a tracker carries from step to step; structure, shapes and dtypes never change.

    Attributes:
        sharpness: the largest eigenvalue of D^1/2 H D^1/2 (of the Hessian where D = 1) at the last update: from
            Lanczos at a refresh, a Rayleigh quotient of the last eigenvector between. `nan` before the first update.
        residual: |A u - sharpness u| at the last update: some eigenvalue lies within this distance.
        edge_ratio: `sharpness / threshold`.
        threshold: the critical curvature of the optimiser in its last state.
        converged: whether the residual met the tolerance; between refreshes it soon does not, since the eigenvector turns.
        vector: unit eigenvector of the last refresh, a pytree like the parameters that vary.
        num_products: Hessian-vector products spent so far.
        count: updates so far.
    """

    sharpness: Float[Array, ""]
    residual: Float[Array, ""]
    edge_ratio: Float[Array, ""]
    threshold: Float[Array, ""]
    converged: Bool[Array, ""]
    vector: PyTree[Array]
    num_products: Int[Array, ""]
    count: Int[Array, ""]

    def __str__(self) -> str:
        return (
            f"edge ratio {self.edge_ratio:.4f}: sharpness {self.sharpness:.6g} +- {self.residual:.1g} "
            f"of {self.threshold:.6g} after {self.count} updates"
        )


class SharpnessTracker(eqx.Module):
    """Sharpness and edge ratio along a training run, at a small part of its cost.

    Every `every`-th update, the first one included, runs Lanczos from the last eigenvector u; the updates between cost
    one Hessian product, for the Rayleigh quotient u . A u, a lower bound of the sharpness up to rounding. `update` is a
    pure function, compiled once; it also runs inside other people's `jit`, `scan` and `vmap`: tracks that began together are
    refreshed together, in lock-step, and cost one product each between.

    Args:
        loss: `loss(params, *args)`, a real scalar: the training loss.
        optimizer: the optax transformation that trains, for the threshold and the preconditioner.
        every: updates from one Lanczos run to the next, static.
        tol: relative tolerance of the residual, as in `eigsh`; `eps ** (1/3)` by default: 6e-6 in double, 5e-3 in single
            precision, which bounds the relative error of the sharpness.
        filter: which leaves vary, as in `hessian`.
        max_restarts: bound on the restarts of one refresh, static.

    Raises:
        TypeError: if `loss` is not a function or `optimizer` no optax transformation.
        ValueError: if `every` is not a positive integer.

    Example:
        ```python
        tracker = dj.SharpnessTracker(loss, optimizer=optimizer, every=20)
        track = tracker.init(params)
        for batch in batches:
            params, opt_state = train_step(params, opt_state, batch)
            track = tracker.update(track, params, opt_state, batch)
        track.sharpness, track.edge_ratio
        ```
    """

    loss: Function
    optimizer: Any = eqx.field(static=True)
    every: int = eqx.field(static=True)
    tol: float | Float[Array, ""] | None
    filter: Any = eqx.field(static=True)
    max_restarts: int = eqx.field(static=True)

    def __init__(
        self,
        loss: Callable[..., Any],
        *,
        optimizer: Any,
        every: int,
        tol: float | None = None,
        filter: Any = None,
        max_restarts: int = 30,
    ):
        check_that(callable(loss), "loss", "be a function `loss(params, *args)`", found(loss), TypeError)
        check_optimizer(optimizer)
        good = isinstance(every, int) and not isinstance(every, bool) and every > 0
        check_that(good, "every", "be a positive integer", f"found {every!r}")
        if tol is not None:
            check_positive(tol, "tol")
        self.loss = Function(loss)
        self.optimizer = optimizer
        self.every = every
        self.tol = None if tol is None else jnp.asarray(tol)
        self.filter = filter
        self.max_restarts = max_restarts

    def init(self, params: PyTree) -> Track:
        """The track before the first update.

        Raises:
            ValueError: if `params` holds no floating-point array.
        """
        chosen = split_inexact(params, self.filter)[0]
        dtype = jnp.promote_types(Raveler(chosen).dtype, jnp.float32)
        nan = jnp.asarray(jnp.nan, dtype)
        vector = jax.tree_util.tree_map(jnp.zeros_like, chosen)
        zero = jnp.zeros((), jnp.int32)
        return Track(nan, nan, nan, nan, jnp.asarray(False), vector, zero, zero)

    def update(self, track: Track, params: PyTree, opt_state: Any, *args: Any) -> Track:
        """The track after a step of training.

        Args:
            track: the last track.
            params: the parameters now.
            opt_state: the state of the optimiser that came with them.
            args: data of the loss, as arrays.

        Raises:
            TypeError: as `hessian`.
            ValueError: as `hessian` and `preconditioner`, or if `track` does not belong to such parameters.
        """
        structure: Any = jax.tree_util.tree_structure(split_inexact(params, self.filter)[0])
        same = isinstance(track, Track) and jax.tree_util.tree_structure(track.vector) == structure
        check_that(same, "track", "come from `init(params)` of such parameters", "its structure differs")
        return _update(self, track, params, opt_state, args)


@eqx.filter_jit
def _update(tracker: SharpnessTracker, track: Track, params: PyTree, opt_state: Any, args: tuple[Any, ...]) -> Track:
    operator, threshold = stability_problem(tracker.loss, tracker.optimizer, params, opt_state, args, tracker.filter)
    dtype = track.sharpness.dtype
    tol = jnp.finfo(dtype).eps ** (1 / 3) if tracker.tol is None else tracker.tol
    refresh = track.count % tracker.every == 0
    value, residual, vector, converged, products = cond_any_lane(
        refresh,
        lambda v: _lanczos(operator, v, tol, tracker.max_restarts, dtype),
        lambda v: _rayleigh(operator, v, tol, dtype),
        track.vector,
    )
    return Track(
        sharpness=value,
        residual=residual,
        edge_ratio=ratio_to(value, threshold),
        threshold=threshold.astype(dtype),
        converged=converged,
        vector=vector,
        num_products=track.num_products + products,
        count=track.count + 1,
    )


def _lanczos(
    operator: lx.AbstractLinearOperator, start: PyTree, tol: Any, max_restarts: int, dtype: Any
) -> tuple[Any, ...]:
    top = eigsh(operator, 1, tol=tol, v0=start, max_restarts=max_restarts)
    vector = jax.tree_util.tree_map(lambda leaf: leaf[0], top.vectors)
    value, residual = top.values[0].astype(dtype), top.residuals[0].astype(dtype)
    return value, residual, vector, jnp.all(top.converged), top.num_products.astype(jnp.int32)


def _rayleigh(operator: lx.AbstractLinearOperator, vector: PyTree, tol: Any, dtype: Any) -> tuple[Any, ...]:
    u, image = (jax.tree_util.tree_map(lambda leaf: leaf.astype(dtype), tree) for tree in (vector, operator.mv(vector)))
    square = tree_dot(u, u)
    value = tree_dot(u, image) / square
    residual = tree_norm(tree_add_scaled(image, -value, u)) / jnp.sqrt(square)
    return value, residual, vector, residual <= tol * jnp.abs(value), jnp.ones((), jnp.int32)
