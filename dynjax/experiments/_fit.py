"""A training loop for examples and experiments; people's own loops need nothing of it."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import optax
from jaxtyping import Array, Float, PyTree

from .._core import check_count, check_scalar_loss, check_that, found


class Fit(eqx.Module):
    """A trained model.

    Attributes:
        model: after the last step.
        losses: before each step, `(num_steps,)`.
    """

    model: PyTree
    losses: Float[Array, " num_steps"]

    def __str__(self) -> str:
        """First and last loss."""
        return f"Fit({self.losses.shape[0]} steps, loss {float(self.losses[0]):.3g} to {float(self.losses[-1]):.3g})"


def fit(
    loss: Callable[..., Float[Array, ""]],
    model: PyTree,
    *args: Any,
    num_steps: int = 1000,
    learning_rate: Any = 1e-2,
    optimizer: Any = None,
) -> Fit:
    """Minimise a loss over the arrays of a model, on all data at every step, in one compiled loop.

    To train many models at once, stack them (`eqx.filter_vmap` over keys) and sum their losses: each then sees the gradient of
    its own. For mini-batches, and for training as a map with exponents, see `dj.TrainingMap`.

    Args:
        loss: `loss(model, *args)`, a real scalar.
        model: any pytree; its floating-point arrays are trained.
        args: data.
        num_steps: steps, static.
        learning_rate: of Adam at the beginning; it falls to zero along a cosine.
        optimizer: any optax transformation, in place of that.

    Returns:
        A `Fit`.

    Raises:
        TypeError: if the loss is not one real number, or `optimizer` no optax transformation.
        ValueError: if `num_steps` is not positive.

    Example:
        ```python
        model = dj.NeuralODE((1, 2, 1), key=jax.random.key(0))
        done = dj.experiments.fit(lambda m, x, y: jnp.mean((m.batch(x) - y) ** 2), model, x, x**2)
        ```
    """
    check_count(num_steps, "num_steps")
    check_scalar_loss(loss, model, args)
    if optimizer is None:
        optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))
    good = hasattr(optimizer, "init") and hasattr(optimizer, "update")
    check_that(good, "optimizer", "be an optax transformation", found(optimizer), TypeError)
    return _fit(loss, model, args, optimizer, num_steps)


@eqx.filter_jit
def _fit(loss: Any, model: PyTree, args: Any, optimizer: Any, num_steps: int) -> Fit:
    params, static = eqx.partition(model, eqx.is_inexact_array)
    objective = jax.value_and_grad(lambda params: loss(eqx.combine(params, static), *args))

    def step(carry: tuple[Any, Any], _: None) -> tuple[tuple[Any, Any], Array]:
        params, state = carry
        value, grads = objective(params)
        updates, state = optimizer.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), value

    (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), None, length=num_steps)
    return Fit(eqx.combine(params, static), losses)
