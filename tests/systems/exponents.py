"""Lyapunov exponents by plain Householder QR, to look at the systems through their tangents. Not the engine."""

import jax
import jax.numpy as jnp
import numpy as np
from systems.contract import random_tangents


def exponents(system, x0, k, *, blocks, every=1, burn_in=0, return_blocks=False):
    """The leading `k` exponents per unit of time, from `blocks` blocks of `every` steps after `burn_in` blocks."""
    frame = random_tangents(jax.random.key(1), x0, k)
    treedef, shapes = jax.tree_util.tree_structure(frame), [leaf.shape for leaf in jax.tree_util.tree_leaves(frame)]

    def orthonormal(frame):
        leaves = jax.tree_util.tree_leaves(frame)
        q, r = jnp.linalg.qr(jnp.concatenate([leaf.reshape(k, -1) for leaf in leaves], axis=1).T)
        parts = jnp.split(q.T, np.cumsum([leaf[0].size for leaf in leaves])[:-1], axis=1)
        back = [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        return jax.tree_util.tree_unflatten(treedef, back), jnp.log(jnp.abs(jnp.diagonal(r)))

    def block(carry, m):
        x, frame = jax.lax.fori_loop(0, every, lambda i, c: system.tangent_step(m * every + i, *c), carry)
        frame, logs = orthonormal(frame)
        return (x, frame), logs

    @jax.jit
    def run(x0, frame):
        return jax.lax.scan(block, (x0, orthonormal(frame)[0]), jnp.arange(burn_in + blocks))[1]

    logs = run(x0, frame)[burn_in:] / (every * system.dt)
    return logs if return_blocks else logs.mean(axis=0)
