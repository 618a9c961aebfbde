"""Curvature of data that do not fit into memory: products that read batch after batch."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._core import Raveler, Status, check_count, check_positive, check_that, found, tree_random, tree_scale
from ..linalg import EigenResult
from ._chunks import num_samples
from ._operator import AbstractCurvature

_LOOK_EVERY = 2  # products between two looks at convergence


class _Pass(NamedTuple):
    """What one pass over the batches gave."""

    product: PyTree[Array]
    sizes: tuple[int, ...]
    digests: tuple[int, ...]


class Streamed:
    """The mean over all samples of operators that are known batch by batch; made by `streamed`.

    It lives on the host: products cannot be traced, and `streamed_eigsh` takes the place of `eigsh`.
    """

    def __init__(self, build: Callable[..., AbstractCurvature], batches: Callable[[], Iterator[Any]]):
        self._batches = batches
        first = _as_batch(next(iter(self._passes()), None))
        operator = build(*first)
        good = isinstance(operator, AbstractCurvature)
        check_that(good, "build", "give a curvature operator, such as `dj.hessian(...)`", found(operator), TypeError)
        self._structure = operator.in_structure()
        self._product = eqx.filter_jit(lambda batch, vector: build(*batch).mv(vector))

    def in_structure(self) -> PyTree[jax.ShapeDtypeStruct]:
        """Shapes and dtypes of the vectors."""
        return self._structure

    def mv(self, vector: PyTree[Array]) -> PyTree[Array]:
        """The product: one pass over the batches, each weighted by its number of samples.

        Raises:
            ValueError: if the pass gives no batch, or arrays of a batch have different numbers of samples.
        """
        return self._one_pass(vector, digests=False).product

    def check_deterministic(self, *, key: PRNGKeyArray | None = None) -> PyTree[Array]:
        """Read everything twice; both passes must give the same product with one random vector.

        Args:
            key: of the vector.

        Returns:
            The product.

        Raises:
            ValueError: if they differ by more than rounding, with the likely cause: a pass with other samples (shuffling and
                a dropped rest, augmentation, an iterator that is used up), or the same samples and another product
                (dropout, random numbers that are no argument).
        """
        vector = tree_random(jax.random.key(0) if key is None else key, self._structure)
        first, second = self._one_pass(vector, digests=True), self._one_pass(vector, digests=True)
        raveler = Raveler(self._structure)
        one, two = (np.asarray(raveler.ravel(each.product), np.float64) for each in (first, second))
        eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in raveler.leaves)
        gap, size = float(np.linalg.norm(one - two)), float(np.linalg.norm(one))
        # Other batches of the same samples sum in another order.
        if not gap <= 1000 * eps * size:
            raise ValueError(
                f"Argument `batches` must give the same product in every pass, but two passes differ by {gap / size:.2g} of its "
                f"size. {_cause(first, second)}"
            )
        return first.product

    def _passes(self) -> Iterator[Any]:
        return iter(self._batches())

    def _one_pass(self, vector: PyTree[Array], digests: bool) -> _Pass:
        total, sizes, checks = None, [], []
        for given in self._passes():
            batch = _as_batch(given)
            size = num_samples(_sampled(batch), "batches")
            term = tree_scale(float(size), self._product(batch, vector))
            total = term if total is None else jax.tree_util.tree_map(jnp.add, total, term)
            sizes.append(size)
            if digests:
                checks.append(_digest(batch))
        must = "give at least one batch in every pass"
        check_that(
            total is not None, "batches", must, "a pass gave none: an iterator that is used up can be read once only"
        )
        return _Pass(tree_scale(1 / sum(sizes), total), tuple(sizes), tuple(checks))


def streamed(build: Callable[..., AbstractCurvature], batches: Iterable[Any] | Callable[[], Iterable[Any]]) -> Streamed:
    """An operator that reads its data batch by batch, in every product anew.

    A = sum_b (n_b / N) A_b, with the operator A_b of a batch of n_b samples: exact where A is a mean over samples, as Hessians,
    Gauss-Newton matrices and Fisher matrices of mean losses are.

    Args:
        build: `build(*batch)` gives the operator of a batch, for example `lambda x, y: dj.hessian(loss, params, x, y)`. It is
            traced once for every shape of a batch.
        batches: tuples of arrays with samples along the first axis: a list, a data loader, or a function that returns an
            iterator. It is read once for every product, and must give the same samples each time.

    Returns:
        A `Streamed`, with `mv`, `in_structure` and `check_deterministic`; `streamed_eigsh` finds its eigenvalues.

    Raises:
        TypeError: if `batches` can be read only once, or `build` gives no curvature operator.
        ValueError: if there is no batch.

    Example:
        ```python
        def batches():
            for file in sorted(folder.glob("*.npz")):
                part = np.load(file)
                yield part["x"], part["y"]

        H = dj.curvature.streamed(lambda x, y: dj.hessian(loss, params, x, y), batches)
        dj.curvature.streamed_eigsh(H, k=5)
        ```
    """
    check_that(callable(build), "build", "be a function of a batch", found(build), TypeError)
    if callable(batches):
        return Streamed(build, lambda: iter(batches()))
    once = not isinstance(batches, Iterable) or isinstance(batches, Iterator)
    must = "be a list, a loader that can be read again and again, or a function that returns an iterator"
    check_that(not once, "batches", must, found(batches), TypeError)
    return Streamed(build, lambda: iter(batches))


def streamed_eigsh(
    operator: Streamed,
    k: int = 1,
    *,
    which: Literal["largest", "smallest"] = "largest",
    tol: float | None = None,
    key: PRNGKeyArray | None = None,
    max_products: int = 300,
    check: bool = True,
) -> EigenResult:
    r"""Eigenpairs at one end of the spectrum of a `Streamed` operator, by as few passes over the data as Lanczos needs.

    Lanczos on the host with two-pass reorthogonalisation against all vectors. A pair counts as converged when
    $|A v - \theta v| \le \mathrm{tol} \cdot \max |\theta|$, of the residual that one more product with each pair gives. Copies of
    multiple eigenvalues are not searched for.

    Args:
        operator: of `streamed`.
        k: number of eigenvalues.
        which: `"largest"` or `"smallest"` in the algebraic sense.
        tol: residual relative to the largest |eigenvalue| seen; `eps ** (2/3)` by default.
        key: of the start.
        max_products: bound on the products before the verification. Memory on the host: as many vectors.
        check: whether to begin with `check_deterministic`, for two further passes.

    Returns:
        An `EigenResult`, descending.

    Raises:
        TypeError: if `operator` is no `Streamed`.
        ValueError: for an impossible `k`, `which` or `tol`, or data that are not the same in every pass.

    Example:
        ```python
        dj.curvature.streamed_eigsh(operator, k=5, tol=1e-3).values
        ```

    References:
        Lanczos, An iteration method for the solution of the eigenvalue problem (1950); Parlett, The Symmetric Eigenvalue Problem
        (1998), chapter 13.
    """
    check_that(isinstance(operator, Streamed), "operator", "be made by `streamed`", found(operator), TypeError)
    raveler = Raveler(operator.in_structure())
    check_count(k, "k")
    check_that(k <= raveler.size, "k", f"be at most {raveler.size}, the number of unknowns", f"found {k}")
    check_that(which in ("largest", "smallest"), "which", 'be "largest" or "smallest"', f"found {which!r}")
    check_count(max_products, "max_products", k)
    eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in raveler.leaves)
    if tol is not None:
        check_positive(tol, "tol")
    tol = max(eps ** (2 / 3) if tol is None else float(tol), 30 * eps)
    key = jax.random.key(0) if key is None else key
    if check:
        operator.check_deterministic(key=jax.random.fold_in(key, 1))

    def apply(flat: np.ndarray) -> np.ndarray:
        vector = raveler.unravel(jnp.asarray(flat, raveler.dtype))
        return np.asarray(raveler.ravel(operator.mv(vector)), np.float64)

    sign = 1.0 if which == "largest" else -1.0
    start = np.asarray(raveler.ravel(tree_random(key, operator.in_structure())), np.float64)
    vectors, scale, spent = _lanczos(lambda v: sign * apply(v), start, k, tol, max_products)
    vectors = vectors if sign > 0 else vectors[::-1]
    products = np.array([apply(v) for v in vectors])
    values = np.sum(vectors * products, 1)
    residuals = np.linalg.norm(products - values[:, None] * vectors, axis=1)
    scale = max(scale, float(np.max(np.abs(values))))
    converged = residuals <= tol * scale
    status = Status.OK if converged.all() else Status.NOT_CONVERGED
    if not np.isfinite(residuals).all():
        status = Status.NONFINITE
    return EigenResult(
        values=jnp.asarray(values, raveler.dtype),
        vectors=jax.vmap(raveler.unravel)(jnp.asarray(vectors, raveler.dtype)),
        residuals=jnp.asarray(residuals, raveler.dtype),
        converged=jnp.asarray(converged),
        num_products=jnp.asarray(spent + k),
        status=jnp.asarray(int(status), jnp.int8),
    )


def _lanczos(
    apply: Callable[[np.ndarray], np.ndarray], start: np.ndarray, k: int, tol: float, max_products: int
) -> tuple[Float[np.ndarray, "k dim"], float, int]:
    """(Ritz vectors of the k largest, the largest modulus seen, products)."""
    dim = start.size
    most = min(max_products, dim)
    basis = np.zeros((most + 1, dim))
    projected = np.zeros((most, most))
    basis[0] = start / np.linalg.norm(start)
    generator = np.random.default_rng(0)
    for j in range(most):
        image = apply(basis[j])
        known = basis[: j + 1]
        projected[j, : j + 1] = projected[: j + 1, j] = known @ image
        rest = image - known.T @ projected[: j + 1, j]
        rest -= known.T @ (known @ rest)
        beta = float(np.linalg.norm(rest))
        lost = beta <= 1e-14 * max(float(np.linalg.norm(image)), np.finfo(float).tiny)
        if lost:  # an invariant space: go on in any direction beside it
            rest = generator.standard_normal(dim)
            for _ in range(2):
                rest -= known.T @ (known @ rest)
            beta, fresh = 0.0, float(np.linalg.norm(rest))
            basis[j + 1] = rest / fresh if fresh > 0 else 0
        else:
            basis[j + 1] = rest / beta
        last = j + 1 == most
        if not np.isfinite(beta):
            return basis[:k], float("nan"), j + 1
        if j + 1 >= k and (last or j % _LOOK_EVERY == 0):
            theta, inner = np.linalg.eigh(projected[: j + 1, : j + 1])
            scale = float(np.max(np.abs(theta)))
            settled = bool(np.all(beta * np.abs(inner[-1, -k:]) <= tol * scale / 2)) and not lost
            if last or settled:
                return (inner[:, -k:].T @ known)[::-1], scale, j + 1
    raise AssertionError("unreachable")


def _as_batch(given: Any) -> tuple[Any, ...]:
    check_that(given is not None, "batches", "give at least one batch", "it is empty")
    batch = tuple(given) if isinstance(given, tuple | list) else (given,)
    return jax.tree_util.tree_map(lambda leaf: jnp.asarray(leaf) if _numeric(leaf) else leaf, batch)


def _numeric(leaf: Any) -> bool:
    return hasattr(leaf, "__array__") or hasattr(leaf, "dtype")


def _sampled(batch: tuple[Any, ...]) -> list[Any]:
    return [leaf for leaf in jax.tree_util.tree_leaves(batch) if eqx.is_array(leaf) and leaf.ndim > 0]


def _digest(batch: tuple[Any, ...]) -> int:
    value = 0
    for leaf in _sampled(batch):
        value = zlib.crc32(np.ascontiguousarray(np.asarray(leaf)).tobytes(), value)
    return value


def _cause(first: _Pass, second: _Pass) -> str:
    if first.digests == second.digests:
        return (
            "Both read the same numbers: the loss itself is not deterministic (dropout, or random numbers that are not an "
            "argument). Pass a random key as an argument, and the same one for every product."
        )
    if sum(first.sizes) != sum(second.sizes):
        return (
            f"The first read {sum(first.sizes)} samples, the second {sum(second.sizes)}: an iterator that does not begin anew, "
            "or a loader that drops samples."
        )
    return (
        "They read other numbers: the loader shuffles and drops the rest, or changes samples at random (augmentation)."
    )
