"""Mean-square stability of SGD at interpolation, exactly, without the Kronecker matrix."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Float, Int

from ..linalg import eigsh
from ._normal_space import NormalSpace

_HIGHEST = jax.lax.Precision.HIGHEST
_NEWTON_STEPS = 60
_KRYLOV = 16
_AT_ONCE = 256  # rates in lock-step on an accelerator


class MeanSquareRate(eqx.Module):
    """Growth of the second moment of SGD near a solution, for each learning rate.

    Attributes:
        rate: (1/2) log rho, rho the spectral radius of M -> E[A M A^T]: half the growth of E |w|^2 per step.
        residual: |T M - rho M| / |M| for the positive M that was found, in the Frobenius norm.
        converged: whether the residual is at the level of rounding.
    """

    rate: Float[Array, "rates"]
    residual: Float[Array, "rates"]
    converged: Bool[Array, "rates"]


class MeanSquareThreshold(eqx.Module):
    """The learning rate above which E |w|^2 grows.

    Attributes:
        value: the threshold.
        residual: of the eigenpair behind it, relative to the eigenvalue.
        converged: whether the eigensolver met its tolerance.
    """

    value: Float[Array, ""]
    residual: Float[Array, ""]
    converged: Bool[Array, ""]


class _Moments(NamedTuple):
    """The pieces of T = 1 - eta (k_a + k_b) / N + eta^2 (quadratic k_a k_b + coupling R* R) in the eigenbasis of K."""

    factor: Float[Array, "samples outputs rank"]
    sums: Float[Array, "rank rank"]  # (k_a + k_b) / N
    products: Float[Array, "rank rank"]  # k_a k_b p2 / B^2
    coupling: Float[Array, ""]  # (p1 - p2) / B^2

    def onto_samples(self, moment: Float[Array, "rank rank"]) -> Float[Array, "samples outputs outputs"]:
        """R M: the diagonal blocks G_i M G_i^T."""
        half = jnp.einsum("ica,ab->icb", self.factor, moment, precision=_HIGHEST)
        return jnp.einsum("icb,idb->icd", half, self.factor, precision=_HIGHEST)

    def from_samples(self, weights: Float[Array, "samples outputs outputs"]) -> Float[Array, "rank rank"]:
        """R* x: sum_i G_i^T x_i G_i."""
        half = jnp.einsum("icd,idb->icb", weights, self.factor, precision=_HIGHEST)
        return jnp.einsum("ica,icb->ab", self.factor, half, precision=_HIGHEST)


def _moments(space: NormalSpace, batch_size: Any) -> _Moments:
    n, k = space.num_samples, space.eigenvalues
    size = jnp.asarray(batch_size, k.dtype)
    # p2 / B^2 and (p1 - p2) / B^2; a single sample has no pairs, but is its own diagonal.
    pairs = (size - 1) / (size * n * (n - 1)) if n > 1 else jnp.ones_like(size)
    rest = (n - size) / (size * n * (n - 1)) if n > 1 else jnp.zeros_like(size)
    return _Moments(space.factor, (k[:, None] + k) / n, k[:, None] * k * pairs, rest)


def second_moment_operator(
    space: NormalSpace, learning_rate: Float[Array, ""] | float, batch_size: int
) -> lx.FunctionLinearOperator:
    r"""M -> E[A M A^T] for the factor A of one SGD step, on r x r matrices in normal coordinates.

    T(M) = M - (eta/N)(H M + M H) + (eta/B)^2 G^T E[S Q S] G with H = G^T G, Q = G M G^T and
    E[S Q S] = p2 Q + (p1 - p2) blockdiag(Q), p1 = B/N, p2 = B(B-1)/(N(N-1)): batches without replacement. T is self-adjoint in
    the Frobenius inner product and maps positive matrices to positive matrices. Four products of N C x r matrices with r x r.

    Args:
        space: of `normal_space`.
        learning_rate: eta.
        batch_size: B.
    """
    parts = _moments(space, batch_size)
    eta = jnp.asarray(learning_rate, space.factor.dtype)

    def apply(moment: Float[Array, "rank rank"]) -> Float[Array, "rank rank"]:
        noise = parts.from_samples(parts.onto_samples(moment))
        return moment - (eta * parts.sums - eta**2 * parts.products) * moment + eta**2 * parts.coupling * noise

    structure = jax.ShapeDtypeStruct((space.rank, space.rank), space.factor.dtype)
    return lx.FunctionLinearOperator(apply, structure, lx.symmetric_tag)


def mean_square_rate(space: NormalSpace, learning_rates: Float[Array, "rates"], batch_size: int) -> MeanSquareRate:
    r"""(1/2) log of the spectral radius of `second_moment_operator`: an upper bound of the exponent for independent batches.

    T = 1 - D + c R* R with D elementwise and R* R positive, so that its largest eigenvalue is 1 + m where the largest
    eigenvalue of F(m) = c R (m + D)^-1 R* is 1. That problem lives on the samples, and slow modes, which crowd the top of
    T and stall Lanczos and power iterations there, are divided out. 1 / lambda_max(F) is a concave function of m, and a
    Rayleigh quotient gives a start below the root, from where Newton's method climbs to it. The result is verified on T
    itself; since the matrix found is positive its eigenvalue is the spectral radius. (Derived here.)

    Args:
        space: of `normal_space`.
        learning_rates: eta, one-dimensional.
        batch_size: B.

    Returns:
        A `MeanSquareRate`. About 100 products of N C x r and r x r matrices for each rate.
    """
    # A core is busy with one rate; an accelerator would wait for a thousand small kernels of each.
    at_once = 1 if jax.default_backend() == "cpu" else _AT_ONCE
    return _rates(space, jnp.asarray(learning_rates, space.factor.dtype), jnp.asarray(batch_size), at_once)


@eqx.filter_jit
def _rates(
    space: NormalSpace, learning_rates: Float[Array, "rates"], batch_size: Array, at_once: int
) -> MeanSquareRate:
    parts = _moments(space, batch_size)
    size = {} if at_once == 1 else {"batch_size": min(at_once, learning_rates.shape[0])}
    return jax.lax.map(lambda eta: _rate(parts, eta), learning_rates, **size)


def _rate(parts: _Moments, eta: Float[Array, ""]) -> MeanSquareRate:
    decay = eta * parts.sums - eta**2 * parts.products
    slowest = jnp.min(decay)
    gaps = decay - slowest
    coupling = eta**2 * parts.coupling
    eps = jnp.finfo(gaps.dtype).eps
    # Rayleigh quotients of the eigenvectors of K, counted from the slowest decay.
    own = jnp.sum(jnp.sum(parts.factor**2, axis=1) ** 2, axis=0)
    start = jnp.max(coupling * own - jnp.diagonal(gaps))

    def improve(state: Any) -> Any:
        n, excess, _, x = state
        value, x = _top_on_samples(parts, coupling, gaps + excess, x)
        moment = parts.from_samples(x)
        slope = coupling * jnp.sum((moment / (gaps + excess)) ** 2)
        step = (value - 1) * value / slope
        excess = jnp.maximum(excess + step, excess / 8)
        return n + 1, excess, jnp.abs(step), x

    def unfinished(state: Any) -> Array:
        n, excess, step, _ = state
        return (n < _NEWTON_STEPS) & (step > 4 * eps * (excess + jnp.abs(slowest)))

    samples, outputs, _ = parts.factor.shape
    x = jnp.broadcast_to(jnp.eye(outputs, dtype=gaps.dtype), (samples, outputs, outputs))
    begin = (0, start, jnp.full_like(start, jnp.inf), x)
    _, excess, _, x = jax.lax.while_loop(unfinished, improve, begin)
    # A full batch leaves nothing to chance: the slowest mode itself is the answer.
    fixed = parts.coupling == 0
    excess = jnp.where(fixed, 0, excess)
    moment = jnp.where(
        fixed, (gaps == 0).astype(gaps.dtype), parts.from_samples(x) / jnp.where(fixed, 1, gaps + excess)
    )
    change = coupling * parts.from_samples(parts.onto_samples(moment)) - (gaps + excess) * moment
    residual = jnp.linalg.norm(change) / jnp.linalg.norm(moment)
    size = 1 + jnp.max(jnp.abs(decay))
    rate = jnp.log1p(jnp.maximum(excess - slowest, -1)) / 2
    return MeanSquareRate(rate, residual, residual <= jnp.sqrt(eps) * size)


def _top_on_samples(parts: _Moments, coupling: Array, shifted: Array, x: Array) -> tuple[Array, Array]:
    """The largest Ritz pair of c R (shifted)^-1 R* in a short Krylov space of `x`, which Newton's method makes warm."""
    shape, size = x.shape, min(x.size, _KRYLOV)

    def grow(j: Int[Array, ""], state: tuple[Array, Array]) -> tuple[Array, Array]:
        basis, products = state
        product = coupling * parts.onto_samples(parts.from_samples(basis[j].reshape(shape)) / shifted)
        products = products.at[j].set(product.ravel())
        new = product.ravel()
        for _ in range(2):
            new = new - jnp.matmul(basis.T, jnp.matmul(basis, new, precision=_HIGHEST), precision=_HIGHEST)
        norm = jnp.linalg.norm(new)
        lost = norm <= 64 * jnp.finfo(new.dtype).eps * jnp.linalg.norm(product)
        new = jnp.where(lost, 0, new / jnp.where(lost, 1, norm))
        return basis.at[(j + 1) % size].set(jnp.where(j + 1 < size, new, basis[0])), products

    first = jnp.zeros((size, x.size), x.dtype).at[0].set(x.ravel() / jnp.linalg.norm(x))
    basis, products = jax.lax.fori_loop(0, size, grow, (first, jnp.zeros_like(first)))
    projected = jnp.matmul(basis, products.T, precision=_HIGHEST)
    values, vectors = jnp.linalg.eigh((projected + projected.T) / 2)
    return values[-1], jnp.matmul(vectors[:, -1], basis, precision=_HIGHEST).reshape(shape)


def mean_square_threshold(space: NormalSpace, batch_size: int) -> MeanSquareThreshold:
    r"""The learning rate at which the second moment of SGD neither grows nor decays: 2 / lambda_max(C^+ D).

    With T(M) = M - 2 eta C(M) + eta^2 D(M) the spectral radius of T is 1 at that rate, below it smaller, above it larger. C
    is elementwise in the eigenbasis of K, so that the symmetric C^-1/2 D C^-1/2 is at hand, of which Lanczos finds the
    largest eigenvalue.

    References:
        Mulayoff and Michaeli, Exact mean square linear stability analysis for SGD, arXiv:2306.07850 (2023).
    """
    return _threshold(space, jnp.asarray(batch_size))


@eqx.filter_jit
def _threshold(space: NormalSpace, batch_size: Array) -> MeanSquareThreshold:
    parts = _moments(space, batch_size)
    scale = 1 / jnp.sqrt(parts.sums)

    def apply(moment: Float[Array, "rank rank"]) -> Float[Array, "rank rank"]:
        scaled = scale * moment
        noise = parts.coupling * parts.from_samples(parts.onto_samples(scaled))
        return scale * (parts.products * scaled + noise)

    structure = jax.ShapeDtypeStruct(scale.shape, scale.dtype)
    operator = lx.FunctionLinearOperator(apply, structure, lx.symmetric_tag)
    start = jnp.eye(scale.shape[0], dtype=scale.dtype)
    top = eigsh(operator, 1, v0=start, method="lanczos", find_copies=False)
    return MeanSquareThreshold(1 / top.values[0], top.residuals[0] / top.values[0], top.converged[0])
