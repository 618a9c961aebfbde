"""Products of SGD steps on the normal space, many learning rates over one noise path: the hot kernel of SGD stability."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ._batch_indices import Scheme, independent_batches, reshuffled_batches
from ._normal_space import NormalSpace

_HIGHEST = jax.lax.Precision.HIGHEST


class CocyclePlan(NamedTuple):
    """The static sizes of a run: chunks of blocks of steps.

    Attributes:
        batch_size: B.
        scheme: "iid" or "reshuffle".
        num_vectors: tangent vectors k per learning rate.
        block_length: steps that are eliminated together; frames are orthonormalised after each block.
        blocks: blocks in a chunk.
        steps: steps in a chunk. What is missing to `blocks * block_length` is filled with steps that do nothing.
        burn_in: chunks that are run and dropped.
        chunks: chunks that count.
        triangular: solve blocks by batched triangular solves, for accelerators, instead of step by step.
        averaged: also average the growth of a step exactly over all samples, once per block; batch size 1, one vector.
    """

    batch_size: int
    scheme: Scheme
    num_vectors: int
    block_length: int
    blocks: int
    steps: int
    burn_in: int
    chunks: int
    triangular: bool
    averaged: bool


class Growth(NamedTuple):
    """Mean log growth per step in each chunk: of each vector, and its average over the sample that comes next."""

    logs: Float[Array, "chunks rates k"]
    averages: Float[Array, "chunks rates"]
    frame: Float[Array, "rank rates k"]


@eqx.filter_jit
def run_cocycle(
    space: NormalSpace,
    learning_rates: Float[Array, "rates"],
    frame: Float[Array, "rank rates k"],
    key: PRNGKeyArray,
    plan: CocyclePlan,
) -> Growth:
    """Run the cocycle; every learning rate sees the same batches. The burn-in is not part of the result."""
    rows, kernel = _padded(space)
    own = space.own_kernels

    def block(frame: Array, batches: Array) -> tuple[Array, tuple[Array, Array]]:
        taken = _row_numbers(batches, space.num_outputs)
        residuals, average = None, jnp.zeros(())
        if plan.averaged:
            residuals = _product(rows, frame)
            average = _mean_growth(residuals, frame, learning_rates, own)
        frame = advance(rows, kernel, learning_rates / plan.batch_size, frame, taken, residuals, plan.triangular)
        frame, logs = orthonormalise(frame)
        return frame, (logs, average)

    def chunk(frame: Array, n: Int[Array, ""]) -> tuple[Array, tuple[Array, Array]]:
        frame, (logs, averages) = jax.lax.scan(block, frame, chunk_batches(key, n, space.num_samples, plan))
        return frame, (jnp.sum(logs, axis=0) / plan.steps, jnp.mean(averages, axis=0))

    frame, _ = jax.lax.scan(lambda frame, n: (chunk(frame, n)[0], None), frame, jnp.arange(plan.burn_in))
    frame, (logs, averages) = jax.lax.scan(chunk, frame, plan.burn_in + jnp.arange(plan.chunks))
    return Growth(logs, averages, frame)


def advance(
    rows: Float[Array, "rows rank"],
    kernel: Float[Array, "rows rows"],
    scales: Float[Array, "rates"],
    frame: Float[Array, "rank rates k"],
    taken: Int[Array, "steps size"],
    residuals: Float[Array, "rows rates k"] | None = None,
    triangular: bool = False,
) -> Float[Array, "rank rates k"]:
    r"""Several steps of SGD, eliminated together, exactly.

    With I the stacked rows of all batches, and L the strictly block-lower part of K_II, the residuals z_t = G_t w_t that the
    steps meet solve (1 + s L) z = G_I w, s = eta/B, and then w' = w - s G_I^T z. The steps thus share their two large products,
    and what is left in sequence has the size of the batches, not of the space.

    Args:
        rows: G.
        kernel: K = G G^T.
        scales: s = eta/B for each rate.
        frame: w, k columns for each rate.
        taken: row numbers of the batch of each step.
        residuals: G w, if known.
        triangular: by one triangular solve per rate rather than step by step.
    """
    rank, rates, k = frame.shape
    flat = taken.ravel()
    columns = frame.reshape(rank, rates * k)
    used = rows[flat]
    right = _product(used, columns) if residuals is None else residuals.reshape(-1, rates * k)[flat]
    low = jnp.where(_earlier(*taken.shape), kernel[flat][:, flat], 0)
    if triangular:
        z = _solve_triangular(low, scales, right.reshape(-1, rates, k)).reshape(right.shape)
    else:
        z = _substitute(low, jnp.repeat(scales, k), right, taken.shape)
    return (columns - _product(used.T, jnp.repeat(scales, k) * z)).reshape(frame.shape)


def orthonormalise(frame: Float[Array, "rank rates k"]) -> tuple[Float[Array, "rank rates k"], Float[Array, "rates k"]]:
    """An orthonormal frame with the same flags, and the logarithms of the diagonal of R; -inf where a direction is lost."""
    if frame.shape[2] == 1:
        return _normalise(frame)
    tiny = 16 * frame.shape[0] * jnp.finfo(frame.dtype).eps
    q, r = jnp.linalg.qr(jnp.moveaxis(frame, 1, 0))
    diagonal = jnp.abs(jnp.diagonal(r, axis1=1, axis2=2))
    size = jnp.linalg.norm(r, axis=1)
    # A column that lies in the span of those before it, to rounding, has met a singular factor.
    lost = diagonal <= tiny * size
    return jnp.moveaxis(q, 0, 1), jnp.where(lost, -jnp.inf, jnp.log(jnp.where(lost, 1, diagonal)))


def _normalise(frame: Float[Array, "rank rates 1"]) -> tuple[Float[Array, "rank rates 1"], Float[Array, "rates 1"]]:
    # Scaled first: squares of a vector that a block has contracted may underflow.
    size = jax.lax.stop_gradient(jnp.max(jnp.abs(frame), axis=0))
    lost = size == 0
    scaled = jnp.where(lost, 1, frame) / jnp.where(lost, 1, size)
    norm = jnp.sqrt(jnp.sum(scaled * scaled, axis=0))
    # The zero vector stays zero: nothing is left to grow. Any direction serves to go on with.
    return scaled / norm, jnp.where(lost, -jnp.inf, jnp.log(norm) + jnp.log(jnp.where(lost, 1, size)))


def chunk_batches(
    key: PRNGKeyArray, n: Int[Array, ""], num_samples: int, plan: CocyclePlan
) -> Int[Array, "blocks block_length batch_size"]:
    """The batches of chunk `n`, cut into blocks; steps that fill the last block have the number `num_samples`."""
    if plan.scheme == "iid":
        batches = independent_batches(jax.random.fold_in(key, n), plan.steps, num_samples, plan.batch_size)
    else:
        epochs = plan.steps // (num_samples // plan.batch_size)
        batches = reshuffled_batches(key, n * epochs, epochs, num_samples, plan.batch_size)
    missing = plan.blocks * plan.block_length - plan.steps
    batches = jnp.pad(batches, ((0, missing), (0, 0)), constant_values=num_samples)
    return batches.reshape(plan.blocks, plan.block_length, plan.batch_size)


def _padded(space: NormalSpace) -> tuple[Float[Array, "rows rank"], Float[Array, "rows rows"]]:
    """G and K with the rows of one more sample that never moves anything."""
    rows = jnp.pad(space.rows, ((0, space.num_outputs), (0, 0)))
    return rows, _product(rows, rows.T)


def _row_numbers(batches: Int[Array, "steps size"], num_outputs: int) -> Int[Array, "steps rows"]:
    """Row numbers of all outputs of the samples."""
    return (batches[..., None] * num_outputs + jnp.arange(num_outputs)).reshape(batches.shape[0], -1)


def _earlier(steps: int, size: int) -> Array:
    """Where the column belongs to an earlier step than the row."""
    step = jnp.repeat(jnp.arange(steps), size)
    return step[:, None] > step


def _substitute(low: Array, scales: Array, right: Array, shape: tuple[int, ...]) -> Array:
    """Forward substitution, step by step."""
    steps, size = shape

    def step(z: Array, x: tuple[Array, Array, Array]) -> tuple[Array, None]:
        t, part, b = x
        return jax.lax.dynamic_update_slice(z, b - scales * _product(part, z), (t * size, 0)), None

    stacked = (jnp.arange(steps), low.reshape(steps, size, -1), right.reshape(steps, size, -1))
    return jax.lax.scan(step, jnp.zeros_like(right), stacked)[0]


def _solve_triangular(low: Array, scales: Array, right: Array) -> Array:
    """(1 + s L)^-1 b for every rate s: one batch of triangular systems."""
    matrices = jnp.eye(low.shape[0], dtype=low.dtype) + scales[:, None, None] * low
    z = jax.lax.linalg.triangular_solve(
        matrices, jnp.moveaxis(right, 1, 0), left_side=True, lower=True, unit_diagonal=True
    )
    return jnp.moveaxis(z, 0, 1)


def _product(a: Array, b: Array) -> Array:
    return jnp.tensordot(a, b, axes=1, precision=_HIGHEST)


def _mean_growth(residuals: Array, frame: Array, learning_rates: Array, own: Array) -> Float[Array, "rates"]:
    """The mean over all samples i of (1/2) log(1 - 2 eta |r_i|^2 + eta^2 r_i^T K_ii r_i), w a unit vector."""
    num_samples, num_outputs, _ = own.shape
    r = residuals[: num_samples * num_outputs, :, 0]
    r = r / jnp.sqrt(jnp.sum(frame[:, :, 0] ** 2, axis=0))
    if num_outputs == 1:
        growth = 1 - learning_rates * (2 - learning_rates * own[:, 0]) * r * r
    else:
        r = r.reshape(num_samples, num_outputs, -1)
        quadratic = jnp.einsum("icl,icd,idl->il", r, own, r, precision=_HIGHEST)
        growth = 1 - 2 * learning_rates * jnp.sum(r * r, axis=1) + learning_rates**2 * quadratic
    return _mean_log(jnp.maximum(growth, 0)) / 2


def _mean_log(x: Float[Array, "samples rates"]) -> Float[Array, "rates"]:
    """The mean of log x over the first axis, from logarithms of products of a few, which lose nothing that counts."""
    size = 8
    missing = -x.shape[0] % size
    padded = jnp.pad(x, ((0, missing), (0, 0)), constant_values=1)
    products = jnp.prod(padded.reshape(size, -1, x.shape[1]), axis=0)
    return jnp.sum(jnp.log(products), axis=0) / x.shape[0]
