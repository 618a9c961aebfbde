"""Lower bounds on the Lipschitz constants of vector fields, from derivatives at sampled states."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

_ROUNDS = 12


@eqx.filter_jit
def sampled_lipschitz(
    field: Any, size: int, num_delays: int, horizon: Any, scale: Any, norm: str, num_samples: int, key: PRNGKeyArray
) -> Float[Array, ""]:
    """The largest norm of the derivative of `field(t, y, delayed)`, or `field(t, h)` without delays, over random states.

    The norm is that of (y, v_1, ..., v_r) -> R^m with the largest of the norms of y, v_1, ..., v_r: exact for "sup",
    a lower bound by alternating maximisation for "euclidean". Either way no Lipschitz constant can be smaller.

    Args:
        field: the vector field.
        size: m.
        num_delays: r.
        horizon: times are uniform in [0, horizon].
        scale: states are normal with this standard deviation.
        norm: "sup" or "euclidean".
        num_samples: how many.
        key: seeds the samples.
    """
    time_key, state_key = jax.random.split(key)
    dtype = jnp.result_type(scale)
    times = jax.random.uniform(time_key, (num_samples,), dtype) * horizon
    states = jax.random.normal(state_key, (num_samples, 1 + num_delays, size), dtype) * scale

    def steepness(t: Array, z: Array) -> Array:
        slope = lambda z: field(t, z[0], tuple(z[1:])) if num_delays else field(t, z[0])
        jacobian = jax.jacrev(slope)(z)  # (m, 1 + r, m)
        if norm == "sup":
            return jnp.max(jnp.sum(jnp.abs(jacobian), (1, 2)))
        return _alternate(jacobian)

    return jnp.max(jax.vmap(steepness)(times, states))


def _alternate(jacobian: Float[Array, "m blocks m"]) -> Float[Array, ""]:
    """Largest |sum_j J_j u_j| over unit vectors u_j, from below: the best u_j for a direction, and the direction for these."""
    size = jacobian.shape[0]
    tiny = jnp.finfo(jacobian.dtype).tiny
    flat = jacobian.reshape(size, -1)
    direction = jnp.linalg.svd(flat, full_matrices=False)[0][:, 0]

    def improve(_: int, direction: Array) -> Array:
        pulled = jnp.einsum("i,ijk->jk", direction, jacobian)
        units = pulled / jnp.maximum(jnp.linalg.norm(pulled, axis=-1, keepdims=True), tiny)
        pushed = jnp.einsum("ijk,jk->i", jacobian, units)
        return pushed / jnp.maximum(jnp.linalg.norm(pushed), tiny)

    direction = jax.lax.fori_loop(0, _ROUNDS, improve, direction)
    return jnp.sum(jnp.linalg.norm(jnp.einsum("i,ijk->jk", direction, jacobian), axis=-1))
