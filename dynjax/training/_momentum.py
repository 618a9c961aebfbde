"""The cocycle of SGD with heavy-ball momentum on the normal space, in 2r dimensions."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ._normal_space import NormalSpace
from ._sgd_cocycle import CocyclePlan, Growth, chunk_batches, orthonormalise

_HIGHEST = jax.lax.Precision.HIGHEST


@eqx.filter_jit
def run_momentum(
    space: NormalSpace,
    learning_rates: Float[Array, "rates"],
    momentum: Float[Array, ""],
    frame: Float[Array, "2*rank rates k"],
    key: PRNGKeyArray,
    plan: CocyclePlan,
) -> Growth:
    r"""Run u' = beta u - (eta/B) sum_{i in xi} g_i (g_i . w), w' = w + u' on the pairs (w, u), as `run_cocycle` does for w.

    This is `optax.sgd(eta, momentum=beta)`, with u minus the learning rate times its trace. Every step changes all
    coordinates, so nothing is eliminated; the cost is O(B C r) per step, rate and vector.
    """
    factor = jnp.pad(space.factor, ((0, 1), (0, 0), (0, 0)))
    scales = (learning_rates / plan.batch_size)[:, None]

    def step(state: tuple[Array, Array], batch: Int[Array, "size"]) -> tuple[tuple[Array, Array], None]:
        w, u = state
        rows = factor[batch].reshape(-1, space.rank)
        residuals = jnp.tensordot(rows, w, axes=1, precision=_HIGHEST)
        change = momentum * u - scales * jnp.tensordot(rows.T, residuals, axes=1, precision=_HIGHEST)
        stays = batch[0] == space.num_samples  # a step that only fills a block
        u = jnp.where(stays, u, change)
        return (jnp.where(stays, w, w + u), u), None

    def block(frame: Array, batches: Array) -> tuple[Array, Array]:
        state, _ = jax.lax.scan(step, (frame[: space.rank], frame[space.rank :]), batches)
        return orthonormalise(jnp.concatenate(state))

    def chunk(frame: Array, n: Int[Array, ""]) -> tuple[Array, Array]:
        frame, logs = jax.lax.scan(block, frame, chunk_batches(key, n, space.num_samples, plan))
        return frame, jnp.sum(logs, axis=0) / plan.steps

    frame, _ = jax.lax.scan(lambda frame, n: (chunk(frame, n)[0], None), frame, jnp.arange(plan.burn_in))
    frame, logs = jax.lax.scan(chunk, frame, plan.burn_in + jnp.arange(plan.chunks))
    return Growth(logs, jnp.zeros(logs.shape[:2], logs.dtype), frame)


def momentum_gd_exponent(
    space: NormalSpace, learning_rates: Float[Array, "rates"], momentum: Float[Array, ""]
) -> Float[Array, "rates"]:
    """Log of the largest modulus of a root of x^2 - (1 + beta - eta k/N) x + beta, over the eigenvalues k of K."""
    half = (1 + momentum - learning_rates[:, None] * space.eigenvalues / space.num_samples) / 2
    inside = half**2 - momentum
    root = jnp.where(inside > 0, jnp.abs(half) + jnp.sqrt(jnp.maximum(inside, 0)), jnp.sqrt(momentum))
    return jnp.max(jnp.log(root), axis=1)
