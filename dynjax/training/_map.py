"""Training as a system: one step of any optax optimiser."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PyTree

from .._core import Function, check_scalar_loss, check_that, found, split_inexact
from ..systems import AbstractMap


class TrainState(NamedTuple):
    """What training evolves.

    Attributes:
        params: the parameters, the whole pytree, frozen leaves included.
        opt_state: the optimiser's state over the inexact leaves of `params`.
    """

    params: PyTree
    opt_state: Any


def check_optimizer(optimizer: Any) -> None:
    """Raise unless `optimizer` has the two methods of an optax transformation."""
    good = callable(getattr(optimizer, "init", None)) and callable(getattr(optimizer, "update", None))
    check_that(
        good, "optimizer", "be an optax gradient transformation such as `optax.sgd(0.1)`", found(optimizer), TypeError
    )


class TrainingMap(AbstractMap):
    r"""One step of an optimiser as a map on (parameters, optimiser state).

    With g = grad loss(params, *batches(n)) over the inexact leaves of `params`,

        updates, opt_state' = optimizer.update(g, opt_state, params),   params' = params + updates.

    For gradient descent the tangent is I - lr * hessian, so sharpness = 2/lr is a flip of this map. Every floating-point leaf
    of the optimiser's state carries a tangent too (momentum, second moments); integers, random keys and functions do
    not. The tangent of Adam holds 1/sqrt(nu), which is not finite while a second moment is exactly 0: use
    `eps_root > 0` if tangents are wanted from the first step.

    Build the optimiser inside the function that is traced if its learning rate is: `optimizer` is static, and two
    optimisers are equal only when they are the same object.

    Args:
        loss: `loss(params, *batches(n))`, one real scalar; without `batches` it is `loss(params)`.
        optimizer: any optax `GradientTransformation`. Those that want `value`, `grad` and `value_fn` (line searches,
            Polyak steps) get them.
        batches: a path `batches(n)` that returns a tuple, e.g. `MiniBatches`, `ReshuffledBatches` or `FullBatch`.

    Raises:
        TypeError: if `loss` or `batches` is not callable, or `optimizer` is no optax transformation.

    Example:
        ```python
        system = dj.TrainingMap(loss, optax.sgd(0.1, momentum=0.9), dj.MiniBatches((x, y), 32, key=key))
        final = dj.evolve(system, system.init(params), num_steps=1000)
        final.params, final.opt_state
        ```
    """

    loss: Function
    optimizer: optax.GradientTransformation = eqx.field(static=True)
    batches: Function | None
    dt: Float[Array, ""]

    def __init__(
        self,
        loss: Callable[..., Any],
        optimizer: optax.GradientTransformation,
        batches: Callable[[Any], tuple[Any, ...]] | None = None,
    ):
        check_that(callable(loss), "loss", "be a function `loss(params, *batch)`", found(loss), TypeError)
        check_optimizer(optimizer)
        if batches is not None:
            check_that(
                callable(batches), "batches", "be a function of the step `batches(n)`", found(batches), TypeError
            )
        self.loss = Function(loss)
        self.optimizer = optimizer
        self.batches = None if batches is None else Function(batches)
        self.dt = jnp.ones((), jnp.result_type(float))

    def init(self, params: PyTree) -> TrainState:
        """The state at step 0.

        Args:
            params: any pytree; at least one leaf must be a real floating-point array.

        Raises:
            TypeError: if the loss is not one real scalar, `batches(0)` is no tuple, or a leaf is complex.
            ValueError: if `params` holds no floating-point array, or shapes do not fit inside the loss.
        """
        dynamic = split_inexact(params)[0]
        leaves = jax.tree_util.tree_leaves(dynamic)
        check_that(bool(leaves), "params", "hold at least one floating-point array", "none was found")
        for leaf in leaves:
            check_that(jnp.isrealobj(leaf), "params", "hold real arrays", found(leaf), TypeError)
        check_scalar_loss(self.loss, params, self._batch_shapes())
        return TrainState(params, self.optimizer.init(dynamic))

    def step(self, n: Any, x: TrainState) -> TrainState:
        """One step of the optimiser on the batch of step `n`."""
        return self.step_with_loss(n, x)[0]

    def step_with_loss(self, n: Any, x: TrainState) -> tuple[TrainState, Float[Array, ""]]:
        """One step, and the loss on the batch of step `n` before it, which the gradient has computed anyway."""
        dynamic, frozen = split_inexact(x.params)
        batch = () if self.batches is None else self.batches(n)

        def value_fn(p: PyTree) -> Array:
            return self.loss(eqx.combine(p, frozen), *batch)

        value, grads = jax.value_and_grad(value_fn)(dynamic)
        update = optax.with_extra_args_support(self.optimizer).update
        updates, opt_state = update(grads, x.opt_state, dynamic, value=value, grad=grads, value_fn=value_fn)
        return TrainState(eqx.combine(optax.apply_updates(dynamic, updates), frozen), opt_state), value

    def _batch_shapes(self) -> tuple[Any, ...]:
        if self.batches is None:
            return ()
        batch = eqx.filter_eval_shape(self.batches, jnp.zeros((), int))
        check_that(
            isinstance(batch, tuple), "batches", "return a tuple `(inputs, targets, ...)`", found(batch), TypeError
        )
        return batch
