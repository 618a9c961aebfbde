"""Training of flows."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int8, PRNGKeyArray

from .._core import check_count, check_positive, check_that, found
from ._field import as_points, finite_status
from ._gaussian_mixture import GaussianMixture
from ._losses import flow_matching_loss, score_matching_loss
from ._noise_paths import AbstractNoisePath

_LAST = 10  # the report averages over the last tenth of the losses


class FittedFlow(eqx.Module):
    """A trained field.

    Attributes:
        field: the field with its final parameters.
        losses: the loss of every batch before its step, `(num_steps,)`.
        status: `OK`, or `NONFINITE` if a loss or a parameter is not finite.
    """

    field: Any
    losses: Float[Array, "num_steps"]
    status: Int8[Array, ""]

    def __str__(self) -> str:
        last = self.losses[-(-self.losses.shape[0] // _LAST) :]
        return f"FittedFlow({self.losses.shape[0]} steps, last losses {jnp.mean(last):.4g}, status {self.status})"


def fit_flow(
    field: Any,
    data: GaussianMixture | Float[Array, "samples d"],
    *,
    key: PRNGKeyArray,
    num_steps: int = 2000,
    batch_size: int = 256,
    learning_rate: Any = 2e-3,
    loss: Callable[[Any, Any, Any], Any] | None = None,
    optimizer: optax.GradientTransformation | None = None,
) -> FittedFlow:
    r"""Train a field by stochastic gradients, in one compiled program.

    Step n draws its batch, times and noise from `fold_in(key, n)`: from a mixture fresh points, from an array rows with
    replacement. The default optimiser is Adam, its rate falling to 0 along half a cosine.

    Args:
        field: a `VelocityField`, a `ScoreField`, or any module; its inexact arrays, save those of a path, are the parameters.
        data: points `(samples, d)`, or the mixture that they come from.
        key: of the batches.
        num_steps: number of steps.
        batch_size: points in each batch.
        learning_rate: the rate of Adam at the start; may be traced. Not used with an `optimizer`.
        loss: `loss(field, batch, key) -> scalar`; `score_matching_loss` for a field with a score, else `flow_matching_loss`.
        optimizer: any optax transformation in place of Adam. A new one is a new program.

    Returns:
        A `FittedFlow`.

    Raises:
        ValueError: if counts or the learning rate are not positive, or the data do not fit the field.
        TypeError: if `loss` is not callable.

    Example:
        ```python
        field = dj.generative.VelocityField(2, key=key)
        fitted = dj.generative.fit_flow(field, mixture, num_steps=1000, key=key)
        ```
    """
    check_count(num_steps, "num_steps")
    check_count(batch_size, "batch_size")
    check_positive(learning_rate, "learning_rate")
    if not isinstance(data, GaussianMixture):
        data = as_points(data, "data")
        check_that(data.ndim == 2, "data", "be points of shape (samples, d) or a GaussianMixture", found(data))
    size, width = getattr(field, "size", None), data.size if isinstance(data, GaussianMixture) else data.shape[-1]
    but = f"their dimension is {width}"
    check_that(size is None or size == width, "data", f"hold points of R^{size}, the dimension of the field", but)
    if loss is None:
        loss = score_matching_loss if hasattr(field, "score") else flow_matching_loss
    check_that(callable(loss), "loss", "be a function `loss(field, batch, key)`", found(loss), TypeError)
    return _train(field, data, key, jnp.asarray(learning_rate), num_steps, batch_size, loss, optimizer)


@eqx.filter_jit
def _train(
    field: Any,
    data: Any,
    key: PRNGKeyArray,
    learning_rate: Array,
    num_steps: int,
    batch_size: int,
    loss: Callable[[Any, Any, Any], Any],
    optimizer: optax.GradientTransformation | None,
) -> FittedFlow:
    if optimizer is None:
        optimizer = optax.adam(optax.cosine_decay_schedule(learning_rate, num_steps))
    params, rest = eqx.partition(field, _trained(field))

    def step(carry: tuple[Any, Any], n: Array) -> tuple[tuple[Any, Any], Array]:
        params, state = carry
        batch_key, loss_key = jax.random.split(jax.random.fold_in(key, n))
        batch = _draw(data, batch_size, batch_key)
        value, gradient = jax.value_and_grad(lambda p: loss(eqx.combine(p, rest), batch, loss_key))(params)
        updates, state = optimizer.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), value

    (params, _), losses = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(num_steps))
    return FittedFlow(eqx.combine(params, rest), losses, finite_status(params, losses))


def _trained(field: Any) -> Any:
    """Which leaves are parameters: paths are none, and optimisers that decay weights must not see them."""
    is_path = lambda node: isinstance(node, AbstractNoisePath)
    return jax.tree_util.tree_map(eqx.is_inexact_array, field, is_leaf=is_path)


def _draw(data: Any, batch_size: int, key: PRNGKeyArray) -> Float[Array, "batch d"]:
    if isinstance(data, GaussianMixture):
        return data.sample(batch_size, key)
    return data[jax.random.randint(key, (batch_size,), 0, data.shape[0])]
