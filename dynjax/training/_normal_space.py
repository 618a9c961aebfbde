"""The normal space of the zero-loss set at a point: the coordinates in which SGD near an interpolation solution acts."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree
from scipy.sparse.csgraph import connected_components

from .._core import Raveler, check_positive, check_that, found, is_concrete, split_inexact
from ..curvature import tangent_kernel

# Above this number of entries the Jacobian is not stored, and the factor is taken from the kernel instead.
_MAX_ENTRIES = 2**25
_ROWS_AT_ONCE = 64
_HIGHEST = jax.lax.Precision.HIGHEST


class NormalSpace(eqx.Module):
    """The row space of the Jacobian J of a network on its samples, with orthonormal coordinates w in R^r.

    In these coordinates one step of SGD on the batch xi is w' = w - (eta/B) sum_{i in xi} g_i (g_i . w), where the rows g_i
    of the factor G hold the gradients, K = G G^T is the tangent kernel, and G^T G is diagonal.

    Attributes:
        factor: G, (samples, outputs, rank).
        eigenvalues: the nonzero eigenvalues of K, descending: those of the Gauss-Newton matrix times N.
        singular_values: all singular values of J, descending.
        rank_tolerance: singular values up to this multiple of the largest one count as zero.
        blocks: the connected component, 0, 1, ..., of each sample in the graph K_ij != 0. Components do not interact.
        num_samples: N.
        num_outputs: C, 1 for a network that returns (N,).
        rank: r.
        full_rank: whether r = N C, so that all gradients are independent.
    """

    factor: Float[Array, "samples outputs rank"]
    eigenvalues: Float[Array, "rank"]
    singular_values: Float[Array, "values"]
    rank_tolerance: float = eqx.field(static=True)
    blocks: tuple[int, ...] = eqx.field(static=True)
    num_samples: int = eqx.field(static=True)
    num_outputs: int = eqx.field(static=True)
    rank: int = eqx.field(static=True)
    full_rank: bool = eqx.field(static=True)

    @property
    def rows(self) -> Float[Array, "rows rank"]:
        """G as a matrix, one row for each output of each sample."""
        return self.factor.reshape(-1, self.rank)

    @property
    def kernel(self) -> Float[Array, "rows rows"]:
        """K = G G^T, with samples as the slow index."""
        return jnp.matmul(self.rows, self.rows.T, precision=_HIGHEST)

    @property
    def own_kernels(self) -> Float[Array, "samples outputs outputs"]:
        """The blocks K_ii of each sample with itself."""
        return jnp.einsum("ica,ida->icd", self.factor, self.factor, precision=_HIGHEST)

    @property
    def num_blocks(self) -> int:
        """Number of connected components."""
        return 1 + max(self.blocks)

    def component(self, label: int) -> "NormalSpace":
        """The part of the space that belongs to one component: the same samples, whose other gradients vanish there."""
        inside = np.asarray(self.blocks) == label
        rows = np.asarray(self.factor) * inside[:, None, None]
        left, sigma, _ = np.linalg.svd(rows.reshape(-1, self.rank), full_matrices=False)
        rank = max(1, int(np.sum(sigma > max(rows.shape) * np.finfo(rows.dtype).eps * sigma[0])))
        return NormalSpace(
            factor=jnp.asarray((left[:, :rank] * sigma[:rank]).reshape(self.num_samples, self.num_outputs, rank)),
            eigenvalues=jnp.asarray(sigma[:rank] ** 2),
            singular_values=jnp.asarray(sigma),
            rank_tolerance=self.rank_tolerance,
            blocks=self.blocks,
            num_samples=self.num_samples,
            num_outputs=self.num_outputs,
            rank=rank,
            full_rank=rank == int(inside.sum()) * self.num_outputs,
        )

    @eqx.filter_jit
    def resonant(self, learning_rates: Float[Array, "rates"], batch_size: int) -> Bool[Array, "rates"]:
        """Whether some I - (eta/B) K_ii is singular to rounding: one sample alone then annihilates a direction."""
        own = jnp.linalg.eigvalsh(self.own_kernels).ravel()
        gap = jnp.abs(1 - learning_rates[:, None] / batch_size * own)
        return jnp.any(gap <= 16 * jnp.finfo(own.dtype).eps, axis=1)

    def __str__(self) -> str:
        """Sizes and spectrum in one line."""
        return (
            f"normal space of rank {self.rank} of {self.num_samples * self.num_outputs}, kernel eigenvalues "
            f"{self.eigenvalues[-1]:.4g} to {self.eigenvalues[0]:.4g}, {self.num_blocks} block(s)"
        )


def normal_space(
    predict: Callable[[Any, Any], Array], params: PyTree, inputs: PyTree, *, rank_tolerance: float | None = None
) -> NormalSpace:
    """The normal space at `params`: rank, orthonormal coordinates, and what there is to say about its regularity.

    Up to 2^25 entries the Jacobian is formed and decomposed, which resolves kernel eigenvalues down to eps^2 k_max; a larger
    one is never stored: the kernel is formed by N C products and resolves eps k_max.

    Args:
        predict: `predict(params, inputs)`, outputs (N,) or (N, C).
        params: any pytree; integer arrays and leaves that are not arrays are held fixed.
        inputs: array or pytree of arrays with samples along the first axis.
        rank_tolerance: singular values of J up to this multiple of the largest one count as zero;
            max(N C, D) eps by default, and its square root where the kernel is used.

    Returns:
        A `NormalSpace`.

    Raises:
        TypeError: if `predict` is not a function that returns one real array, or values are traced.
        ValueError: if shapes do not fit, or `params`, `inputs` or the Jacobian hold NaN or infinity, or it vanishes.
    """
    problem = check_network(predict, params, inputs)
    check_that(
        is_concrete((params, inputs)),
        "params",
        "be known when the normal space is built, whose rank sets array sizes",
        "it is traced; call this function outside of `jit`, or use `sgd_exponent`",
        TypeError,
    )
    if rank_tolerance is not None:
        check_positive(rank_tolerance, "rank_tolerance")
    left, sigma, tolerance = _decompose(problem)
    check_that(bool(np.all(np.isfinite(sigma))), "predict", "have a finite Jacobian at `params`", "it is not finite")
    check_that(sigma[0] > 0, "predict", "depend on `params`", "its Jacobian vanishes")
    tolerance = tolerance if rank_tolerance is None else float(rank_tolerance)
    rank = int(np.sum(sigma > tolerance * sigma[0]))
    factor = left[:, :rank] * sigma[:rank]
    return NormalSpace(
        factor=jnp.asarray(factor.reshape(problem.num_samples, problem.num_outputs, rank)),
        eigenvalues=jnp.asarray(sigma[:rank] ** 2),
        singular_values=jnp.asarray(sigma),
        rank_tolerance=tolerance,
        blocks=_components(factor, problem.num_samples),
        num_samples=problem.num_samples,
        num_outputs=problem.num_outputs,
        rank=rank,
        full_rank=rank == left.shape[0],
    )


class Network(NamedTuple):
    """A checked network at a point."""

    predict: Callable[[Any, Any], Array]
    params: PyTree
    inputs: PyTree
    num_samples: int
    num_outputs: int
    num_params: int


def check_network(predict: Any, params: PyTree, inputs: PyTree) -> Network:
    """Check predict, params and inputs together; nothing is computed but shapes and a test for NaN."""
    kernel = tangent_kernel(predict, params, inputs)
    shape = kernel.in_structure().shape
    for name, tree in (("params", params), ("inputs", inputs)):
        if is_concrete(tree):
            check_that(_all_finite(tree), name, "be finite", "it holds NaN or infinity")
    size = Raveler(split_inexact(jax.tree_util.tree_map(_array, params))[0]).size
    return Network(predict, params, inputs, shape[0], math.prod(shape[1:]), size)


def _all_finite(tree: PyTree) -> bool:
    """Of known values, looked at by NumPy: inside `jit` JAX would trace even these."""
    leaves = [leaf for leaf in jax.tree_util.tree_leaves(tree) if eqx.is_inexact_array_like(leaf)]
    return all(bool(np.all(np.isfinite(np.asarray(leaf, dtype=float)))) for leaf in leaves)


def _array(leaf: Any) -> Any:
    return jnp.asarray(leaf) if isinstance(leaf, np.ndarray | np.generic) else leaf


def check_targets(problem: Network, targets: Any) -> None:
    """Raise unless the network interpolates: |f - y| <= 2 eps^(1/3) max(|f|, |y|), for the norms of all outputs together."""
    outputs = jnp.asarray(problem.predict(problem.params, problem.inputs))
    targets = jnp.asarray(targets)
    check_that(
        targets.shape == outputs.shape, "targets", f"have the shape {outputs.shape} of the outputs", found(targets)
    )
    scale = jnp.maximum(jnp.linalg.norm(outputs), jnp.linalg.norm(targets))
    relative = float(jnp.linalg.norm(outputs - targets) / jnp.where(scale > 0, scale, 1))
    limit = 2 * float(jnp.finfo(outputs.dtype).eps) ** (1 / 3)
    check_that(
        relative <= limit,
        "params",
        f"fit the targets (loss zero, relative residual at most {limit:.1e})",
        f"the relative residual is {relative:.1e}; find a solution by `find_interpolation`",
    )


def jacobian(problem: Network) -> Float[Array, "rows dim"]:
    """The Jacobian of all outputs with respect to the flat parameters, row by row in reverse mode. Differentiable."""
    chosen, rest = split_inexact(jax.tree_util.tree_map(_array, problem.params))
    raveler = Raveler(chosen)
    outputs = lambda flat: problem.predict(eqx.combine(raveler.unravel(flat), rest), problem.inputs).ravel()
    with jax.default_matmul_precision("highest"):
        value, pull = jax.vjp(outputs, raveler.ravel(chosen))
        return jax.lax.map(lambda u: pull(u)[0], jnp.eye(value.size, dtype=value.dtype), batch_size=_ROWS_AT_ONCE)


def fits_in_memory(problem: Network) -> bool:
    """Whether the Jacobian may be stored."""
    return problem.num_samples * problem.num_outputs * problem.num_params <= _MAX_ENTRIES


def _decompose(problem: Network) -> tuple[np.ndarray, np.ndarray, float]:
    """Left singular vectors and singular values of J, and the relative tolerance of the rank."""
    rows = problem.num_samples * problem.num_outputs
    if fits_in_memory(problem):
        matrix = np.asarray(eqx.filter_jit(jacobian)(problem))
        if not np.all(np.isfinite(matrix)):
            return np.zeros((rows, 1)), np.full(1, np.nan), 0.0
        left, sigma, _ = np.linalg.svd(matrix, full_matrices=False)
        return left, sigma, max(matrix.shape) * float(np.finfo(matrix.dtype).eps)
    kernel = np.asarray(tangent_kernel(problem.predict, problem.params, problem.inputs).as_matrix())
    if not np.all(np.isfinite(kernel)):
        return np.zeros((rows, 1)), np.full(1, np.nan), 0.0
    values, vectors = np.linalg.eigh((kernel + kernel.T) / 2)
    sigma = np.sqrt(np.maximum(values[::-1], 0))
    return vectors[:, ::-1], sigma, math.sqrt(max(rows, problem.num_params) * float(np.finfo(kernel.dtype).eps))


def _components(rows: np.ndarray, num_samples: int) -> tuple[int, ...]:
    """Connected components of the graph of the pairs with |K_ij| above rounding."""
    norms = np.linalg.norm(rows, axis=1)
    unit = rows / np.where(norms > 0, norms, 1)[:, None]
    linked = np.abs(unit @ unit.T) > 64 * rows.shape[0] * np.finfo(rows.dtype).eps
    outputs = rows.shape[0] // num_samples
    pairs = linked.reshape(num_samples, outputs, num_samples, outputs).any(axis=(1, 3))
    return tuple(int(label) for label in connected_components(pairs, directed=False)[1])
