"""How a run of the SGD cocycle is cut into blocks and chunks, and where it starts."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ._batch_indices import Scheme, independent_batches
from ._normal_space import NormalSpace
from ._sgd_cocycle import CocyclePlan, orthonormalise
from ._volume import batch_eigenvalues

# Rows that are eliminated together. 100 samples, 16 rates, float64, two CPU cores: 20 rows 1.6, 32 rows 2.1, 64 rows 2.4 in
# 1e7 lane-steps/s, of which the mean over the next sample, once per block, is worth more in short blocks.
_ROWS = {False: 32, True: 128}
_CHUNKS = 1024
_MAX_DRAWS = 2**20
_PILOT = 256


def plan_run(
    space: NormalSpace,
    learning_rates: Float[Array, "rates"],
    batch_size: int,
    *,
    num_steps: int,
    burn_in: int,
    scheme: Scheme = "iid",
    k: int = 1,
    block_length: int | None = None,
    triangular: bool | None = None,
    averaged: bool = True,
) -> CocyclePlan:
    """Choose the sizes of a run. `num_steps` and `burn_in` are rounded up to whole chunks."""
    on_cpu = jax.default_backend() == "cpu"
    triangular = not on_cpu if triangular is None else triangular
    length = block_length or _block_length(space, learning_rates, batch_size, k, _ROWS[triangular])
    length = min(length, num_steps)
    wanted = min(math.ceil(num_steps / _CHUNKS), max(1, _MAX_DRAWS // space.num_samples))
    if scheme == "iid":
        blocks = math.ceil(wanted / length)
        steps = blocks * length
    else:
        epoch = space.num_samples // batch_size
        steps = math.ceil(wanted / epoch) * epoch
        blocks = math.ceil(steps / length)
        length = math.ceil(steps / blocks)
    return CocyclePlan(
        batch_size=batch_size,
        scheme=scheme,
        num_vectors=k,
        block_length=length,
        blocks=blocks,
        steps=steps,
        burn_in=math.ceil(burn_in / steps),
        chunks=math.ceil(num_steps / steps),
        triangular=triangular,
        averaged=averaged and batch_size == 1 and k == 1 and scheme == "iid",
    )


@eqx.filter_jit
def start_frame(
    rank: int, rates: int, k: int, key: PRNGKeyArray, dtype: Any, noise: float = 1e-3
) -> Float[Array, "rank rates k"]:
    """The slowest modes, with a little noise: below a threshold they are where the frame ends up, after very long.

    What the noise puts into other slow modes decays there as slowly as they do, and its square is a bias of the exponent: on a
    kernel of condition 1e4 a part of 2e-3 of it after 50,000 steps with noise of 1e-2, and 5e-5 with 1e-3. Without any, blocks
    that do not interact would never be seen; with little, short runs above a threshold take longer to find their direction.
    """
    modes = jnp.eye(rank, dtype=dtype)[:, ::-1][:, :k]
    modes = modes + noise * jax.random.normal(key, (rank, k), dtype)
    frame = jnp.broadcast_to(modes[:, None, :], (rank, rates, k))
    return orthonormalise(frame)[0]


def _block_length(space: NormalSpace, learning_rates: Array, batch_size: int, k: int, rows: int) -> int:
    """As many steps as fit: no overflow, and for frames a condition number below 1/sqrt(eps)."""
    info = jnp.finfo(space.factor.dtype)
    longest = max(1, rows // (batch_size * space.num_outputs))
    own = np.sort(np.sum(np.asarray(space.factor, float) ** 2, axis=(1, 2)))[::-1]
    top = min(float(own[:batch_size].sum()), float(space.eigenvalues[0]))
    growth = math.log(max(math.e**0.01, float(jnp.max(learning_rates)) / batch_size * top - 1))
    longest = max(1, min(longest, int(math.log(float(info.max)) / 4 / growth)))
    if k == 1 or longest == 1:
        return longest
    mean, worst = _spread(space, learning_rates, batch_size)
    limit = -0.5 * math.log(float(info.eps))
    return int(np.clip((limit - worst) / mean, 1, longest))


def _spread(space: NormalSpace, learning_rates: Array, batch_size: int) -> tuple[float, float]:
    """Log condition number of one step, singular factors left out: its mean and its maximum, over rates and some batches."""
    batches = independent_batches(jax.random.key(0), _PILOT, space.num_samples, batch_size)
    values = np.asarray(batch_eigenvalues(space, batches), float)
    gap = np.abs(1 - np.asarray(learning_rates, float)[:, None, None] / batch_size * values)
    gap = np.where(gap < 1e-5, 1, gap)
    logs = np.log(gap)
    ranges = np.maximum(logs.max(axis=2), 0) - np.minimum(logs.min(axis=2), 0)
    return max(float(ranges.mean(axis=1).max()), 1e-6), float(ranges.max())
