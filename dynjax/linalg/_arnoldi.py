"""A few eigenpairs of an operator that need not be symmetric: Krylov-Schur, the restarted Arnoldi method."""

from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax import lax
from jaxtyping import Array, Bool, Complex, Float, Int, Int8, PRNGKeyArray, PyTree

from .._core import Status, any_lane, check_positive, check_that, cond_any_lane, found, tree_where
from ._flat import FlatOperator, check_operator, flatten_operator
from ._jacobi import small_eigh
from ._lanczos import direction, norm, orthogonalise
from ._schur import Schur, eigenvalue_order, small_schur, triangular_eigenvectors

# Up to this dimension `method="auto"` forms the matrix and calls LAPACK (40 ms at 100 unknowns).
_DENSE_DIM = 100


class GeneralEigenResult(eqx.Module):
    """Eigenpairs of a real operator that need not be symmetric.

    Attributes:
        values: eigenvalues (k,), complex, the wanted ones first; of a complex pair the one with positive imaginary part first.
            If the k-th is the first of a pair, its conjugate is an eigenvalue too. They carry no derivative.
        vectors: right eigenvectors of unit length, a pytree like the operator's input with complex leaves that have a
            leading axis like `values`; exactly real for real eigenvalues.
        residuals: `|A v - value v|`, from products at the end: (value, v) is an exact eigenpair of a matrix within that
            distance of A. How far the eigenvalue itself may be off depends on its condition: the residual over the
            cosine between left and right eigenvector if it is simple, the residual to the power 1/m in a Jordan block
            of size m.
        converged: per pair, whether the residual is below the tolerance.
        num_products: number of products with the operator, the final verification included.
        status: `Status.OK`, `NOT_CONVERGED` or `NONFINITE`.
    """

    values: Complex[Array, " k"]
    vectors: PyTree[Complex[Array, "k ..."]]
    residuals: Float[Array, " k"]
    converged: Bool[Array, " k"]
    num_products: Int[Array, ""]
    status: Int8[Array, ""]

    def __str__(self) -> str:
        """One line per eigenpair."""
        lines = [f"GeneralEigenResult after {self.num_products} products"]
        lines += [
            f"  {value:+.6e}  residual {residual:.1e}{'' if good else '  not converged'}"
            for value, residual, good in zip(self.values, self.residuals, self.converged, strict=True)
        ]
        return "\n".join(lines)


class _Plan(NamedTuple):
    """Static sizes: eigenvalues wanted, basis vectors, basis vectors kept at a restart (one more for a whole pair)."""

    k: int
    which: str
    size: int
    kept: int
    max_restarts: int


class _State(NamedTuple):
    """A V = (all rows) P for the rows V = basis[:size] that have been multiplied, P the transpose of `projected`."""

    basis: Float[Array, "rows dim"]
    projected: Float[Array, "rows size"]
    position: Int[Array, ""]
    scale: Float[Array, ""]
    schur: Schur
    done: Bool[Array, ""]
    restarts: Int[Array, ""]
    num_products: Int[Array, ""]


def eigs(
    operator: lx.AbstractLinearOperator,
    k: int = 1,
    *,
    which: Literal["LM", "LR"] = "LM",
    tol: float | Float[Array, ""] | None = None,
    v0: PyTree[Array] | None = None,
    key: PRNGKeyArray | None = None,
    max_restarts: int = 300,
    num_krylov: int | None = None,
    method: Literal["auto", "arnoldi", "dense"] = "auto",
) -> GeneralEigenResult:
    r"""Eigenpairs of a square real operator that need not be symmetric: largest modulus, or largest real part.

    The Krylov-Schur form of the restarted Arnoldi method, on device, under `jit` and `vmap`; for small problems the dense
    matrix. The basis is real, and a restart never separates the two of a complex pair. A pair counts as converged when

    $$|A v - \theta v| \le \mathrm{tol} \cdot s, \qquad s = \max(|\theta|, \max |A q|),$$

    with the largest product with a unit basis vector q that was met: s is a lower bound of |A|, and for an operator far
    from normal much larger than its eigenvalues.

    What `converged` does not mean: that no eigenvalue with a better claim was overlooked. In a crowded spectrum, such as that
    of a random matrix, a restart may drop a direction before it has shown itself (as in ARPACK: some per cent of random
    matrices of size 400 to 1,000). A larger `num_krylov` or another `key` tells. One start vector finds one
    eigenvector of each eigenvalue; further ones of an eigenvalue with several come with rounding or
    when the Krylov space is exhausted, late and not for certain.

    Args:
        operator: any square `lineax.AbstractLinearOperator` on a pytree of real arrays. Under `jit`, pass it as an
            argument (`equinox.filter_jit`), so that its data is no constant of the program.
        k: number of eigenvalues.
        which: `"LM"`, largest modulus, or `"LR"`, largest real part.
        tol: residual relative to s; not less than 30 units of rounding are asked for. By default `eps ** (2/3)`:
            4e-11 in double and 2e-5 in single precision.
        v0: start, a pytree like the operator's input. A hundredth of a random direction is mixed in.
        key: random key of the start, `jax.random.key(0)` by default.
        max_restarts: bound on the number of restarts.
        num_krylov: size of the basis; by default 2 k + 30. Memory: about twice that many vectors.
        method: `"arnoldi"`, `"dense"` (forms the matrix: as many products as unknowns), or `"auto"`: dense up to 100
            unknowns, or where the basis would not be smaller than the dimension.

    Returns:
        A `GeneralEigenResult`.

    Raises:
        TypeError: if `operator` is not a lineax operator on floating-point arrays.
        ValueError: if it is not square, or for an impossible `k`, `which`, `method`, `v0`, `tol`, `num_krylov`.
        NotImplementedError: if one differentiates.

    Example:
        ```python
        A = lineax.MatrixLinearOperator(jax.random.normal(key, (500, 500)))
        eigs(A, k=4).values
        ```

    References:
        Stewart, A Krylov-Schur algorithm for large eigenproblems, SIAM J. Matrix Anal. Appl. 23, 601 (2002).
    """
    dim = check_operator(operator)
    _check_arguments(operator, dim, k, which, tol, v0, max_restarts, num_krylov, method)
    size = 2 * k + 30 if num_krylov is None else num_krylov
    dense = method == "dense" or (method == "auto" and dim <= _DENSE_DIM) or size >= dim
    # Keeping a third: for random matrices of size 800, k = 4, 517 products and no eigenvalue overlooked in 8 trials, against
    # 711 and one with a half of 30; ARPACK with 30 vectors 645 and two.
    plan = _Plan(k, which, size, min(max(k + 2, size // 3), size - 3), max_restarts)
    return _solve(operator, tol, v0, jax.random.key(0) if key is None else key, plan, dense)


def _check_arguments(operator, dim, k, which, tol, v0, max_restarts, num_krylov, method) -> None:
    check_that(isinstance(k, int) and not isinstance(k, bool), "k", "be an int", found(k), TypeError)
    check_that(1 <= k <= dim, "k", f"be between 1 and the dimension {dim}", f"found {k}")
    check_that(which in ("LM", "LR"), "which", 'be "LM" or "LR"', f"found {which!r}")
    check_that(method in ("auto", "arnoldi", "dense"), "method", 'be "auto", "arnoldi" or "dense"', f"found {method!r}")
    check_that(max_restarts >= 1, "max_restarts", "be at least 1", f"found {max_restarts}")
    if tol is not None:
        check_positive(tol, "tol")
    if num_krylov is not None:
        check_that(num_krylov >= k + 3, "num_krylov", f"be at least k + 3 = {k + 3}", f"found {num_krylov}")
    if v0 is not None:
        leaves, treedef = jax.tree_util.tree_flatten(operator.in_structure())
        same: bool = jax.tree_util.tree_structure(v0) == treedef  # type: ignore[operator]
        check_that(same, "v0", "have the structure of the operator's input", "the structures differ")
        shapes = [jnp.shape(leaf) for leaf in jax.tree_util.tree_leaves(v0)]
        expected = [leaf.shape for leaf in leaves]
        check_that(shapes == expected, "v0", f"have the shapes {expected}", f"found {shapes}")


@eqx.filter_jit
def _solve(operator, tol, v0, key, plan: _Plan, dense: bool) -> GeneralEigenResult:
    flat = flatten_operator(operator)
    default = flat.eps ** (2 / 3)
    tol = jnp.maximum(jnp.asarray(default if tol is None else tol, flat.dtype), 30 * flat.eps)
    arrays, rest = eqx.partition(flat, eqx.is_array)
    frozen = eqx.combine(_without_derivative(arrays), rest)
    if dense:
        values, vectors, scale, spent = _dense(frozen, plan)
    else:
        draws = jax.random.normal(key, (2, flat.dim), flat.dtype)
        values, vectors, scale, spent = _iterate(frozen, _start(flat, v0, draws[0]), draws[1], plan, tol)
    return _verified(frozen, values, vectors, scale, spent, tol)


@jax.custom_jvp
def _without_derivative(arrays: PyTree[Array]) -> PyTree[Array]:
    return arrays


@_without_derivative.defjvp
def _without_derivative_jvp(primals, tangents):
    raise NotImplementedError(
        "Eigenvalues of operators that need not be symmetric carry no derivative here. "
        "For small matrices differentiate `jnp.linalg.eigvals`."
    )


def _start(flat: FlatOperator, v0, draw: Float[Array, " dim"]) -> Float[Array, " dim"]:
    random = draw / norm(draw)
    if v0 is None:
        return random
    given = flat.ravel(jax.tree_util.tree_map(jnp.asarray, v0))
    size = norm(given)
    usable = jnp.isfinite(size) & (size > 0)
    return jnp.where(usable, given / jnp.where(usable, size, 1), 0) + 0.01 * random


def _dense(flat: FlatOperator, plan: _Plan):
    columns = jax.vmap(flat)(jnp.eye(flat.dim, dtype=flat.dtype))
    values, vectors = jnp.linalg.eig(columns.T)
    chosen = eigenvalue_order(values, plan.which)[: plan.k]
    scale = jnp.maximum(jnp.max(jnp.abs(values)), jnp.max(jnp.sqrt(jnp.sum(jnp.square(columns), axis=1))))
    return values[chosen], vectors.T[chosen], scale, jnp.asarray(flat.dim)


def _iterate(flat: FlatOperator, start: Float[Array, " dim"], noise: Float[Array, " dim"], plan: _Plan, tol):
    def going(state: _State) -> Bool[Array, ""]:
        return ~state.done & (state.restarts <= plan.max_restarts) & jnp.isfinite(state.scale)

    def turn(before: _State) -> _State:
        active = going(before)
        state = _consider(_expand(flat, before, active, noise, plan), plan, tol)
        state = _where(active, state._replace(restarts=state.restarts + 1), before, state.basis)
        again = active & going(state)

        def restarted(state: _State) -> _State:
            new = _restart(state, plan)
            return _where(again, new, state, jnp.where(again, new.basis, state.basis))

        return lax.cond(any_lane(again), restarted, lambda s: s, state)

    state = lax.while_loop(lambda s: any_lane(going(s)), turn, _initial(flat, start, plan))
    vectors = jnp.matmul(
        triangular_eigenvectors(state.schur, plan.k),
        state.basis[: plan.size].astype(state.schur.basis.dtype),
        precision=lax.Precision.HIGHEST,
    )
    return state.schur.values[: plan.k], vectors, state.scale, state.num_products


def _initial(flat: FlatOperator, start: Float[Array, " dim"], plan: _Plan) -> _State:
    rows, count = plan.size + 1, jnp.asarray(0)
    square = jnp.full((plan.size, plan.size), jnp.nan, jnp.result_type(flat.dtype, jnp.complex64))
    return _State(
        basis=jnp.zeros((rows, flat.dim), flat.dtype).at[0].set(start / norm(start)),
        projected=jnp.zeros((rows, plan.size), flat.dtype),
        position=count,
        scale=jnp.zeros((), flat.dtype),
        schur=Schur(square, square),
        done=jnp.asarray(False),
        restarts=count,
        num_products=count,
    )


def _where(condition: Bool[Array, ""], new: _State, old: _State, basis: Float[Array, "rows dim"]) -> _State:
    """`new` where the condition holds, else `old`, but with this basis: lanes in lock-step would copy theirs to choose."""
    return tree_where(condition, new._replace(basis=basis), old._replace(basis=basis))


def _expand(
    flat: FlatOperator, state: _State, active: Bool[Array, ""], noise: Float[Array, " dim"], plan: _Plan
) -> _State:
    """Multiply the rows of the basis until it is full, in lanes at work."""

    def going(state: _State) -> Bool[Array, ""]:
        return active & (state.position < plan.size) & jnp.isfinite(state.scale)

    def body(state: _State) -> _State:
        active, j = going(state), state.position
        w = flat(state.basis[j])
        scale = jnp.maximum(state.scale, norm(w))
        rest, h = orthogonalise(state.basis, w)
        beta = norm(rest)
        # What is not above rounding says that the span is invariant: go on with a random direction, uncoupled from it.
        whole = beta > 10 * flat.eps * scale
        fresh = cond_any_lane(
            active & ~whole & jnp.isfinite(beta),
            lambda: direction(state.basis, jnp.roll(noise, state.num_products)),
            lambda: rest / jnp.where(whole, beta, 1),
        )
        basis = state.basis.at[j + 1].set(jnp.where(active, fresh, state.basis[j + 1]))
        after = state._replace(
            projected=state.projected.at[:, j].set(h).at[j + 1, j].set(jnp.where(whole, beta, 0)),
            position=j + 1,
            scale=scale,
            num_products=state.num_products + 1,
        )
        return _where(active, after, state, basis)

    return lax.while_loop(lambda s: any_lane(going(s)), body, state)


def _consider(state: _State, plan: _Plan, tol: Float[Array, ""]) -> _State:
    """Ritz pairs of the full basis, and whether the wanted ones have converged."""
    square = state.projected[: plan.size]
    schur = small_schur(jnp.where(jnp.isfinite(square), square, 0), plan.which)
    vectors = triangular_eigenvectors(schur, plan.k)
    residuals = jnp.abs(jnp.matmul(vectors, state.projected[plan.size], precision=lax.Precision.HIGHEST))
    scale = jnp.maximum(state.scale, jnp.max(jnp.abs(schur.values)))
    return state._replace(schur=schur, scale=scale, done=jnp.all(residuals <= 0.5 * tol * scale))


def _restart(state: _State, plan: _Plan) -> _State:
    """Compress the basis to the invariant subspace of the best Ritz values, with a real orthonormal basis."""
    size, kept = plan.size, plan.kept
    leading, count = _real_subspace(state.schur, kept)  # (kept + 1, size)
    product = lambda a, b: jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
    basis = jnp.zeros_like(state.basis).at[: kept + 1].set(product(leading, state.basis[:size]))
    square = product(leading, product(state.projected[:size], leading.T))
    projected = jnp.zeros_like(state.projected).at[: kept + 1, : kept + 1].set(square)
    return state._replace(
        basis=basis.at[count].set(state.basis[size]),
        projected=projected.at[count, : kept + 1].set(product(leading, state.projected[size])),
        position=count,
    )


def _real_subspace(schur: Schur, kept: int) -> tuple[Float[Array, "kept+1 size"], Int[Array, ""]]:
    """A real orthonormal basis of the span of the first `kept` Schur vectors, or of one more if these split a pair.

    The span is closed under conjugation exactly if its projector is real.
    """

    def projector(count: int) -> tuple[Array, Array]:
        z = schur.basis[:, :count]
        p = jnp.matmul(z, jnp.conj(z.T), precision=lax.Precision.HIGHEST)
        return jnp.real(p), jnp.linalg.norm(jnp.imag(p))

    (short, defect), (long, other) = projector(kept), projector(kept + 1)
    whole = (defect <= 100 * jnp.finfo(short.dtype).eps * short.shape[0]) | (defect <= other)
    values, vectors = small_eigh(jnp.where(whole, short, long))
    best = jnp.argsort(-values)[: kept + 1]
    count = jnp.where(whole, kept, kept + 1)
    return jnp.where(jnp.arange(kept + 1)[:, None] < count, vectors[best], 0), count


def _verified(flat: FlatOperator, values, vectors, scale, spent, tol) -> GeneralEigenResult:
    """Make real eigenvectors real, and take residuals by products with the real and the imaginary parts."""
    vectors = vectors / jnp.sqrt(jnp.sum(jnp.square(jnp.abs(vectors)), axis=1, keepdims=True))
    # v = exp(i a) r with r real has v . v = exp(2 i a).
    turn = jnp.sqrt(jnp.sum(vectors * vectors, axis=1))
    real = jnp.abs(jnp.abs(turn) - 1) <= 1e4 * flat.eps
    real = real & (jnp.abs(jnp.imag(values)) <= tol * scale)
    rotated = jnp.real(vectors * jnp.conj(turn)[:, None])
    vectors = jnp.where(real[:, None], rotated.astype(vectors.dtype), vectors)
    values = jnp.where(real, jnp.real(values).astype(values.dtype), values)
    images = lax.map(lambda v: lax.complex(flat(jnp.real(v)), flat(jnp.imag(v))), vectors)
    residuals = jnp.sqrt(jnp.sum(jnp.square(jnp.abs(images - values[:, None] * vectors)), axis=1))
    finite = jnp.isfinite(scale) & jnp.all(jnp.isfinite(residuals))
    converged = finite & (residuals <= tol * scale)
    status = jnp.where(jnp.all(converged), int(Status.OK), int(Status.NOT_CONVERGED))
    nan = jnp.asarray(jnp.nan, flat.dtype)
    return GeneralEigenResult(
        values=jnp.where(finite, values, nan),
        vectors=_unravelled(flat, vectors),
        residuals=jnp.where(finite, residuals, nan),
        converged=converged,
        num_products=spent + 2 * values.shape[0],
        status=jnp.where(finite, status, int(Status.NONFINITE)).astype(jnp.int8),
    )


def _unravelled(flat: FlatOperator, vectors: Complex[Array, "k dim"]) -> PyTree[Any]:
    real, imag = (jax.vmap(flat.unravel)(part(vectors)) for part in (jnp.real, jnp.imag))
    wide = lambda leaf: leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
    return jax.tree_util.tree_map(lambda a, b: lax.complex(wide(a), wide(b)), real, imag)
