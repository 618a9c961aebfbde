"""Mini-batches of many steps at once, as sample numbers: what a cocycle of SGD runs over."""

from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

Scheme = Literal["iid", "reshuffle"]

# Up to this size a batch without replacement is drawn by Floyd's method, B^2 comparisons; above, N values are sorted.
_FLOYD = 16


def independent_batches(
    key: PRNGKeyArray, num_steps: int, num_samples: int, batch_size: int
) -> Int[Array, "num_steps batch_size"]:
    """Independent batches, drawn without replacement inside a batch."""
    if batch_size == num_samples:
        return jnp.broadcast_to(jnp.arange(num_samples), (num_steps, num_samples))
    if batch_size > _FLOYD:
        return jax.lax.top_k(jax.random.uniform(key, (num_steps, num_samples)), batch_size)[1]
    last = jnp.arange(num_samples - batch_size, num_samples)
    draws = jax.random.randint(key, (num_steps, batch_size), 0, last + 1)
    chosen = draws[:, :1]
    for i in range(1, batch_size):
        # A number that is taken already is replaced by the largest one allowed, which is not.
        taken = jnp.any(chosen == draws[:, i : i + 1], axis=1)
        chosen = jnp.concatenate([chosen, jnp.where(taken, last[i], draws[:, i])[:, None]], axis=1)
    return chosen


def reshuffled_batches(
    key: PRNGKeyArray, first_epoch: Int[Array, ""], num_epochs: int, num_samples: int, batch_size: int
) -> Int[Array, "num_steps batch_size"]:
    """Whole epochs of `num_samples // batch_size` steps each, the same as `ReshuffledBatches(data, batch_size, key=key)`."""
    steps = num_samples // batch_size
    keys = jax.vmap(lambda e: jax.random.fold_in(key, e))(first_epoch + jnp.arange(num_epochs))
    orders = jax.vmap(lambda k: jax.random.permutation(k, num_samples))(keys)
    return orders[:, : steps * batch_size].reshape(num_epochs * steps, batch_size)
