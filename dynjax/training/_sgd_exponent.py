"""The Lyapunov exponent of SGD as a differentiable function of the parameters and of the learning rate."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from .._core import check_positive, check_that, found, is_concrete
from ..curvature import tangent_kernel
from ._batch_indices import Scheme
from ._cocycle_plan import start_frame
from ._normal_space import Network, check_network, fits_in_memory, jacobian
from ._sgd_cocycle import CocyclePlan, advance, chunk_batches, orthonormalise
from ._sgd_stability import check_batch_size, check_steps
from ._volume import all_batches, log_distance_from_one

_HIGHEST = jax.lax.Precision.HIGHEST
_BLOCKS = 32
# In the start; the derivative forgets it only once the direction is found.
_NOISE = 1e-2


def sgd_exponent(
    predict: Callable[[Any, Any], Array],
    params: PyTree,
    inputs: PyTree,
    *,
    learning_rate: Float[Array, ""] | float,
    batch_size: int,
    num_steps: int,
    key: PRNGKeyArray,
    scheme: Scheme = "iid",
    burn_in: int | None = None,
    rank: int | None = None,
) -> Float[Array, ""]:
    r"""The top exponent of `sgd_stability` for one learning rate, once differentiable in `params` and `learning_rate`.

    The batches do not depend on the state, so that the derivative of the average over the run is an estimate of the derivative
    of the exponent,

        d lambda = E[ u^T (dA) v / (u^T A v) ],

    with v the direction that the past has made and u that of the future; reverse mode through the run computes it. (Through a
    chaotic state it would be worthless.) The exponent depends on `params` through the tangent kernel alone, and it makes sense
    at interpolation solutions: follow the derivative along these. Where steps come close to singular ones it has heavy tails:
    look at several keys. Chunks of the run are recomputed in the backward pass, so that
    memory is that of some `num_steps / 256` directions.

    Args:
        predict: `predict(params, inputs)`, outputs (N,) or (N, C).
        params: the solution.
        inputs: array or pytree of arrays with samples along the first axis.
        learning_rate: eta > 0.
        batch_size: B.
        num_steps: steps to average over, rounded up to whole chunks, of at most 256 independent batches.
        key: fixes the batches. Values at different parameters and rates are comparable if they share it.
        scheme: "iid" or "reshuffle".
        burn_in: steps before averaging starts; a tenth of `num_steps` by default.
        rank: the rank of the Jacobian, `normal_space(...).rank`. If not given it is found where values are known, and taken to be
            full under `jit`, where the result is NaN if it is not. In rank one with few batches the result is exact.

    Returns:
        The exponent per step. Forming the kernel and its derivative costs some N C passes through the network.

    Raises:
        TypeError: if `predict` is not a function that returns one real array.
        ValueError: if sizes or values are impossible.

    Example:
        ```python
        towards_stability = jax.grad(lambda p: dj.sgd_exponent(predict, p, x, learning_rate=0.1, batch_size=1,
                                                               num_steps=10_000, key=key))(params)
        ```
    """
    problem = check_network(predict, params, inputs)
    batch_size = check_batch_size(batch_size, problem.num_samples)
    num_steps, burn_in = check_steps(num_steps, burn_in)
    check_that(jnp.shape(learning_rate) == (), "learning_rate", "be a scalar", found(learning_rate))
    check_positive(jax.lax.stop_gradient(learning_rate), "learning_rate")
    check_that(scheme in ("iid", "reshuffle"), "scheme", 'be "iid" or "reshuffle"', f"found {scheme!r}")
    factor, valid = _factor(problem, rank)
    eta = jnp.asarray(learning_rate, factor.dtype)
    batches = all_batches(problem.num_samples, batch_size) if factor.shape[2] == 1 else None
    if batches is not None:
        own = jnp.sum(factor**2, axis=(1, 2))
        value = jnp.mean(log_distance_from_one(eta / batch_size * jnp.sum(own[batches], axis=1)))
    else:
        plan = _plan(problem.num_samples, problem.num_outputs, batch_size, num_steps, burn_in, scheme)
        value = exponent_along_path(factor, eta, key, plan)
    return jnp.where(valid, value, jnp.nan)


@eqx.filter_jit
def exponent_along_path(
    factor: Float[Array, "samples outputs rank"], eta: Float[Array, ""], key: PRNGKeyArray, plan: CocyclePlan
) -> Float[Array, ""]:
    """The mean log growth of one vector over the run, differentiable with respect to the factor and the rate."""
    samples, outputs, rank = factor.shape
    start_key, path_key = jax.random.split(key)

    def block(carry: tuple[Array, Array, Array], batches: Int[Array, "steps size"]) -> tuple[Any, Array]:
        rows, scale, frame = carry
        taken = (batches[..., None] * outputs + jnp.arange(outputs)).reshape(batches.shape[0], -1)
        used = rows[taken.ravel()]
        own = jnp.matmul(used, used.T, precision=_HIGHEST)
        frame = advance(used, own, scale[None], frame, jnp.arange(taken.size).reshape(taken.shape))
        frame, logs = orthonormalise(frame)
        return (rows, scale, frame), logs[0, 0]

    @jax.checkpoint
    def chunk(carry: tuple[Array, Array, Array], n: Int[Array, ""]) -> tuple[Any, Array]:
        carry, logs = jax.lax.scan(block, carry, chunk_batches(path_key, n, samples, plan))
        return carry, jnp.sum(logs) / plan.steps

    rows = jnp.pad(factor.reshape(-1, rank), ((0, outputs), (0, 0)))
    scale = eta / plan.batch_size
    carry = (rows, scale, start_frame(rank, 1, 1, start_key, factor.dtype, _NOISE))
    # The burn-in is differentiated too: it forgets the choice of coordinates, which the factor's derivative depends on.
    carry, _ = jax.lax.scan(chunk, carry, jnp.arange(plan.burn_in))
    _, growth = jax.lax.scan(chunk, carry, plan.burn_in + jnp.arange(plan.chunks))
    return jnp.mean(growth)


def _plan(
    num_samples: int, num_outputs: int, batch_size: int, num_steps: int, burn_in: int, scheme: Scheme
) -> CocyclePlan:
    """Sizes that do not depend on values."""
    epoch = num_samples // batch_size if scheme == "reshuffle" else 1
    length = min(max(1, 8 // (batch_size * num_outputs)), num_steps)
    wanted = min(_BLOCKS * length, num_steps)
    steps = -(-wanted // epoch) * epoch if scheme == "reshuffle" else -(-wanted // length) * length
    return CocyclePlan(
        batch_size=batch_size,
        scheme=scheme,
        num_vectors=1,
        block_length=length,
        blocks=-(-steps // length),
        steps=steps,
        burn_in=-(-burn_in // steps),
        chunks=-(-num_steps // steps),
        triangular=False,
        averaged=False,
    )


def _factor(problem: Network, rank: int | None) -> tuple[Float[Array, "samples outputs rank"], Array]:
    r"""A factor of the kernel whose derivative gives that of the kernel, and whether its rank is as said.

    J V, with V fixed, an orthonormal basis of the row space of J: the derivative of (J V)(J V)^T is that of J J^T. Where J is too
    large, with K = U S^2 U^T, P = U U^T and D the change of K: U S + (1 - P/2) D U / S.
    """
    if fits_in_memory(problem):
        matrix = jacobian(problem)
        _, sigma, basis = jnp.linalg.svd(jax.lax.stop_gradient(matrix), full_matrices=False)
        tolerance = max(matrix.shape) * float(jnp.finfo(matrix.dtype).eps)
        rank = _rank(sigma, tolerance, rank)
        rows = jnp.matmul(matrix, basis[:rank].T, precision=_HIGHEST)
    else:
        kernel = tangent_kernel(problem.predict, problem.params, problem.inputs).as_matrix()
        fixed = jax.lax.stop_gradient(kernel)
        values, vectors = jnp.linalg.eigh((fixed + fixed.T) / 2)
        sigma = jnp.sqrt(jnp.maximum(values[::-1], 0))
        tolerance = math.sqrt(max(kernel.shape[0], problem.num_params) * float(jnp.finfo(kernel.dtype).eps))
        rank = _rank(sigma, tolerance, rank)
        u, s = vectors[:, ::-1][:, :rank], sigma[:rank]
        change = jnp.matmul(kernel - fixed, u / s, precision=_HIGHEST)
        rows = u * s + change - u @ (u.T @ change) / 2
    valid = sigma[rank - 1] > tolerance * sigma[0]
    return rows.reshape(problem.num_samples, problem.num_outputs, rank), valid


def _rank(sigma: Float[Array, "values"], tolerance: Any, rank: int | None) -> int:
    if rank is not None:
        good = isinstance(rank, int) and 1 <= rank <= sigma.size
        check_that(good, "rank", f"be an integer from 1 to {sigma.size}", f"found {rank!r}")
        return rank
    if not is_concrete((sigma, tolerance)):
        return sigma.size
    values = np.asarray(sigma)
    return max(1, int(np.sum(values > float(tolerance) * values[0])))
