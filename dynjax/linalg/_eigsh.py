"""A few eigenpairs of a symmetric operator, with verified residuals and differentiable eigenvalues."""

from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float, Int, Int8, PRNGKeyArray, PyTree

from .._core import Status, check_positive, check_that, found
from ._flat import FlatOperator, check_operator, flatten_operator
from ._gram import largest_by_gram, num_rows
from ._lanczos import Outcome, Plan, lanczos
from ._rayleigh import attach_derivative, rayleigh_quotients

# Up to this dimension `method="auto"` forms the matrix. Top 5 of the Hessian of a small MLP on 500 samples, two CPU cores:
# 115 parameters 19 ms against 12 ms by Lanczos, 238 parameters 124 against 11. Below, compiling less and exact multiplicities
# count for more.
_DENSE_DIM = 100


class EigenResult(eqx.Module):
    """Eigenpairs of a symmetric operator.

    Attributes:
        values: eigenvalues (k,) descending; for `which="both"` (2k,): the k largest descending, then the k smallest
            descending. Differentiable once with respect to whatever the operator depends on.
        vectors: orthonormal eigenvectors, a pytree like the operator's input whose leaves have a leading axis like
            `values`. They carry no derivative.
        residuals: `|A v - value v|`. An eigenvalue of A lies within that distance of `values`.
        converged: per pair, whether the residual is below the tolerance and the search for missed copies has ended.
        num_products: number of products with the operator, the final verification included.
        status: `Status.OK`, `NOT_CONVERGED` or `NONFINITE`.
    """

    values: Float[Array, " k"]
    vectors: PyTree[Float[Array, "k ..."]]
    residuals: Float[Array, " k"]
    converged: Bool[Array, " k"]
    num_products: Int[Array, ""]
    status: Int8[Array, ""]

    def __str__(self) -> str:
        """One line per eigenpair."""
        lines = [f"EigenResult after {self.num_products} products"]
        lines += [
            f"  {value:+.6e}  residual {residual:.1e}{'' if good else '  not converged'}"
            for value, residual, good in zip(self.values, self.residuals, self.converged, strict=True)
        ]
        return "\n".join(lines)


class _Options(NamedTuple):
    k: int
    which: str
    route: str
    num_krylov: int | None
    max_restarts: int
    find_copies: bool


def eigsh(
    operator: lx.AbstractLinearOperator,
    k: int = 1,
    *,
    which: Literal["largest", "smallest", "both"] = "largest",
    tol: float | Float[Array, ""] | None = None,
    v0: PyTree[Array] | None = None,
    key: PRNGKeyArray | None = None,
    max_restarts: int = 300,
    num_krylov: int | None = None,
    find_copies: bool = True,
    method: Literal["auto", "lanczos", "dense"] = "auto",
) -> EigenResult:
    r"""Eigenpairs at one or both ends of the spectrum of a symmetric operator.

    Thick-restart Lanczos with full two-pass reorthogonalisation, on device, under `jit` and `vmap`; for small
    problems the dense matrix. A pair counts as converged when

    $$|A v - \theta v| \le \mathrm{tol} \cdot \max |\theta|,$$

    The residuals are exact to rounding: the Gram-Schmidt coefficients of all products are kept, and checked at exit by one
    further product with a random sum of the pairs; its discrepancy is added to them. Eigenvalues have the derivative
    $d\lambda_i = u_i \cdot dA\, u_i$, which is right for simple eigenvalues; a second derivative raises
    `NotImplementedError`.

    What `converged` means: a residual that small, from a start with a random component, rules out that a simple eigenvalue
    beyond the returned ones was overlooked (unless the start had by chance next to no share in it). For `k > 1` from
    fewer than k start vectors, further copies of multiple eigenvalues are searched for from a random direction orthogonal
    to everything known. Where the rest of the spectrum is well below the k-th eigenvalue, the search ends as soon as the
    probability that it has missed one is below 1e-4; otherwise after `8 + k / 2` products without a finding, and copies
    that lie beyond the k-th eigenvalue by a small part of the spread are not certain to be found.

    Args:
        operator: any square symmetric `lineax.AbstractLinearOperator` on a pytree of real arrays. Symmetry is not checked.
            Under `jit`, pass it as an argument (`equinox.filter_jit`), so that its data is no constant of the program.
        k: number of eigenvalues, at each end for `which="both"`.
        which: `"largest"` and `"smallest"` in the algebraic sense, or `"both"` ends from one basis.
        tol: residual relative to the largest |eigenvalue| seen; not less than 30 units of rounding are asked for.
            By default `eps ** (2/3)`: 4e-11 in double and 2e-5 in single precision.
        v0: start: a pytree like the operator's input, or such a pytree with a leading axis for a block of vectors
            (`EigenResult.vectors` of an earlier call). A hundredth of a random direction is mixed in, so
            that a stale start cannot hide an eigenvalue. Vectors that are zero or not finite are replaced.
        key: random key of start and breakdown directions, `jax.random.key(0)` by default.
        max_restarts: bound on the number of restarts.
        num_krylov: size of the basis; by default twice the number of eigenvalues wanted and 22 (both ends: 32). Memory:
            about twice that many vectors.
        find_copies: whether to search for further copies of multiple eigenvalues when `k > 1` (at most `8 + k / 2` products
            if there are none).
        method: `"lanczos"`, `"dense"` (forms the matrix: as many products as unknowns), or `"auto"`: dense up to
            100 unknowns, or where more than a quarter of at most 2,000 eigenvalues are wanted; for the largest eigenvalues of
            an operator R^T R with a method `root()` that gives a factor R of at most 100 rows, by the dense R R^T.

    Returns:
        An `EigenResult`.

    Raises:
        TypeError: if `operator` is not a lineax operator on floating-point arrays.
        ValueError: if it is not square, or for an impossible `k`, `which`, `method`, `v0`, `tol`, `num_krylov`.

    Example:
        ```python
        A = lineax.FunctionLinearOperator(lambda v: d * v, jax.eval_shape(lambda: d), lineax.symmetric_tag)
        eigsh(A, k=2, which="both").values
        ```

    References:
        Wu and Simon, Thick-restart Lanczos method for large symmetric eigenvalue problems, SIAM J. Matrix Anal. Appl.
        22, 602 (2000). Kuczynski and Wozniakowski, SIAM J. Matrix Anal. Appl. 13, 1094 (1992).
    """
    dim = check_operator(operator)
    block = _check_arguments(operator, dim, k, which, tol, v0, max_restarts, num_krylov, method)
    wanted = 2 * k if which == "both" else k
    route = _choose_route(operator, dim, k, which, wanted) if method == "auto" else method
    options = _Options(k, which, route, num_krylov, max_restarts, find_copies)
    key = jax.random.key(0) if key is None else key
    return _solve(operator, tol, v0 if block else None, key, options, max(block, 1))


def _choose_route(operator, dim: int, k: int, which: str, wanted: int) -> str:
    """What `method="auto"` does: the matrix, the Gram matrix of a factor with few rows, or Lanczos."""
    if dim <= _DENSE_DIM or (dim <= 2000 and 4 * wanted > dim):
        return "dense"
    rows = num_rows(operator)
    return "gram" if which == "largest" and rows is not None and k <= rows <= _DENSE_DIM else "lanczos"


def _check_arguments(operator, dim, k, which, tol, v0, max_restarts, num_krylov, method) -> int:
    """Check everything but the operator; returns the number of start vectors, 0 without `v0`."""
    check_that(isinstance(k, int) and not isinstance(k, bool), "k", "be an int", found(k), TypeError)
    check_that(1 <= k <= dim, "k", f"be between 1 and the dimension {dim}", f"found {k}")
    check_that(
        which in ("largest", "smallest", "both"), "which", 'be "largest", "smallest" or "both"', f"found {which!r}"
    )
    check_that(method in ("auto", "lanczos", "dense"), "method", 'be "auto", "lanczos" or "dense"', f"found {method!r}")
    check_that(max_restarts >= 1, "max_restarts", "be at least 1", f"found {max_restarts}")
    if tol is not None:
        check_positive(tol, "tol")
    wanted = min(dim, 2 * k if which == "both" else k)
    if num_krylov is not None:
        check_that(
            num_krylov > wanted, "num_krylov", f"be above the {wanted} eigenvalues wanted", f"found {num_krylov}"
        )
    if v0 is None:
        return 0
    block = _block_size(operator.in_structure(), v0)
    check_that(block <= wanted, "v0", f"hold at most {wanted} vectors, as many as are wanted", f"found {block}")
    return block


def _block_size(structure: PyTree, v0: PyTree) -> int:
    """Number of vectors stacked in `v0`; one if it has the shape of the operator's input."""
    expected, treedef = jax.tree_util.tree_flatten(structure)
    leaves, given = jax.tree_util.tree_flatten(v0)
    same: bool = treedef == given  # type: ignore[operator]
    check_that(same, "v0", f"have the structure {treedef} of the operator's input", f"found {given}")
    shapes = [jnp.shape(leaf) for leaf in leaves]
    if shapes == [leaf.shape for leaf in expected]:
        return 1
    block = shapes[0][0] if shapes[0] else 0
    check_that(
        shapes == [(block, *leaf.shape) for leaf in expected] and block > 0,
        "v0",
        "have the shapes of the operator's input, or these with one leading axis for all",
        f"found {shapes} for {[leaf.shape for leaf in expected]}",
    )
    return block


@eqx.filter_jit
def _solve(operator, tol, v0, key, options: _Options, block: int) -> EigenResult:
    flat = flatten_operator(operator)
    frozen = flat.detached()
    default = flat.eps ** (2 / 3)
    tol = jnp.maximum(jnp.asarray(default if tol is None else jax.lax.stop_gradient(tol), flat.dtype), 30 * flat.eps)
    if options.route == "dense":
        outcome = _dense(frozen, options)
    elif options.route == "gram":
        outcome = _gram(operator, frozen, key, options)
    else:
        outcome = _iterate(frozen, v0, tol, key, options, block)
    return _result(flat, outcome, tol, options)


def _dense(flat: FlatOperator, options: _Options) -> Outcome:
    rows = jax.vmap(flat)(jnp.eye(flat.dim, dtype=flat.dtype))
    theta, columns = jnp.linalg.eigh((rows + rows.T) / 2)
    return _with_residuals(flat, _ends(columns.T[::-1], options), jnp.max(jnp.abs(theta)), flat.dim)


def _gram(operator, flat: FlatOperator, key, options: _Options) -> Outcome:
    rows = jax.lax.stop_gradient(operator.root()).astype(flat.dtype)
    noise = jax.random.normal(key, (options.k, flat.dim), flat.dtype)
    vectors, scale = largest_by_gram(rows, options.k, noise)
    return _with_residuals(flat, vectors, scale, rows.shape[0])


def _with_residuals(flat: FlatOperator, vectors, scale, num_products: int) -> Outcome:
    """The outcome of a direct method: one product per pair gives the value and its residual."""
    values, residuals = rayleigh_quotients(flat, vectors)
    spent = jnp.asarray(num_products + vectors.shape[0])
    return Outcome(values, vectors, residuals, jnp.asarray(True), scale, spent)


def _ends(descending, options: _Options):
    """The wanted rows of an array that is sorted by descending eigenvalue."""
    k = options.k
    if options.which == "both":
        return jnp.concatenate([descending[:k], descending[-k:]])
    return descending[:k] if options.which == "largest" else descending[-k:]


def _iterate(flat: FlatOperator, v0, tol, key, options: _Options, block: int) -> Outcome:
    everything = options.which == "both" and 2 * options.k > flat.dim
    k = flat.dim if everything else options.k
    plan = make_plan(flat.dim, k, options.which == "both" and not everything, block, v0 is not None, options)
    # The lower end of A is the upper end of -A.
    sign = -1 if options.which == "smallest" else 1
    signed = eqx.tree_at(lambda f: f.apply, flat, lambda v: jax.tree_util.tree_map(lambda x: sign * x, flat.apply(v)))
    draws = jax.random.normal(key, (block + 1, flat.dim), flat.dtype)
    start = _start(flat, v0, draws[:-1])
    outcome = lanczos(signed if sign < 0 else flat, start, draws[-1], plan, tol)
    wanted = jnp.arange(plan.wanted)
    if sign < 0:
        chosen = wanted[::-1]
    elif everything:
        chosen = _ends(wanted, options)
    else:
        # The lower end comes with the smallest first.
        chosen = jnp.concatenate([wanted[:k], wanted[k:][::-1]])
    values, vectors, residuals = (a[chosen] for a in (sign * outcome.values, outcome.vectors, outcome.residuals))
    return outcome._replace(values=values, vectors=vectors, residuals=residuals)


def make_plan(dim: int, k: int, both: bool, block: int, warm: bool, options: _Options) -> Plan:
    """Choose the sizes of a run.

    A small step keeps many Ritz vectors, which never costs products; a large one saves Rayleigh-Ritz work. From a random start
    convergence is looked at early; from a given one not before a whole step, since a stale start looks converged.
    Products to residual 1e-4, top 5, dimension 3,000, without the search (ARPACK with 20 / 40 vectors in brackets): outliers
    of a Hessian 16 (21 / 41), uniform spectrum 422 (356 / 412), normal 92 (85 / 104).
    """
    wanted = 2 * k if both else k
    size = (2 * wanted + (32 if both else 22)) if options.num_krylov is None else options.num_krylov
    if size >= dim:
        # One pass over the whole space; the rows kept only serve a second one.
        step = max(dim - wanted, 1)
        return Plan(k, both, block, wanted, step, wanted + step, options.max_restarts, searches=False)
    step = max(min(8 + wanted // 2, 2 * (size - wanted) // 3), min(block, size - wanted), 1)
    first = min(size, step if warm else wanted + 3)
    return Plan(k, both, block, size - step, step, first, options.max_restarts, options.find_copies and block < k)


def _start(flat: FlatOperator, v0, draws: Float[Array, "block dim"]) -> Float[Array, "block dim"]:
    """The start vectors: `v0` with a hundredth of a random direction, or that direction alone."""
    random = draws / jnp.linalg.norm(draws, axis=1, keepdims=True)
    if v0 is None:
        return random
    v0 = jax.tree_util.tree_map(lambda x, leaf: jnp.reshape(x, (-1, *leaf.shape)), v0, flat.tree_structure)
    given = jax.lax.stop_gradient(jax.vmap(flat.ravel)(v0))
    norm = jnp.linalg.norm(given, axis=1, keepdims=True)
    usable = jnp.isfinite(norm) & (norm > 0)
    return jnp.where(usable, given / jnp.where(usable, norm, 1), 0) + 0.01 * random


def _result(flat: FlatOperator, outcome: Outcome, tol, options: _Options) -> EigenResult:
    """Sort, attach the derivative, and say what converged."""
    order = _descending(outcome.values, options)
    vectors, residuals = outcome.vectors[order], outcome.residuals[order]
    norms = jnp.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors / jnp.where(norms > 0, norms, 1)
    values = attach_derivative(flat, vectors, outcome.values[order])
    finite = jnp.isfinite(outcome.scale) & jnp.all(jnp.isfinite(residuals))
    nan = jnp.asarray(jnp.nan, flat.dtype)
    live = (norms[:, 0] > 0) & finite
    converged = live & outcome.done & (residuals <= tol * outcome.scale)
    status = jnp.where(jnp.all(converged), int(Status.OK), int(Status.NOT_CONVERGED))
    status = jnp.where(finite, status, int(Status.NONFINITE)).astype(jnp.int8)
    return EigenResult(
        values=jnp.where(live, values, nan),
        vectors=jax.vmap(flat.unravel)(vectors),
        residuals=jnp.where(live, residuals, nan),
        converged=converged,
        num_products=outcome.num_products,
        status=status,
    )


def _descending(values, options: _Options):
    """Rounding may have exchanged neighbours: sort each end again."""
    if options.which != "both":
        return jnp.argsort(-values, stable=True)
    k = options.k
    return jnp.concatenate([jnp.argsort(-values[:k], stable=True), k + jnp.argsort(-values[k:], stable=True)])
