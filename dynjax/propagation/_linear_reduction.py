"""The ordinary differential equation inside a linear delay equation."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optimistix as optx
from jaxtyping import Array, Complex, Float, Int8

from .._core import Status, check_positive, check_that, found, is_concrete

_ITERATIONS = 500


class LinearReduction(eqx.Module):
    """The special solutions x(t) = exp(t M) c of a linear delay equation.

    Attributes:
        matrix: M.
        condition: |B| tau exp(1 + |A| tau), below 1.
        residual: |M - A - B exp(-tau M)| in the Euclidean norm.
        status: `OK`, `NOT_CONVERGED`, or `ERROR` where a traced condition is not below 1 (`matrix` is then NaN).
    """

    matrix: Float[Array, "m m"]
    condition: Float[Array, ""]
    residual: Float[Array, ""]
    status: Int8[Array, ""]

    @property
    def roots(self) -> Complex[Array, "m"]:
        """The m dominant characteristic roots of the delay equation, by descending real part; on a CPU only."""
        values = jnp.linalg.eigvals(self.matrix)
        return values[jnp.lexsort((-values.imag, -values.real))]

    def __str__(self) -> str:
        return (
            f"LinearReduction({self.matrix.shape[0]} components, condition {float(self.condition):.4g}, "
            f"residual {float(self.residual):.1e}, status {Status(int(self.status)).name})"
        )


def linear_reduction(growth: Any, feedback: Any, delay: Any) -> LinearReduction:
    r"""The matrix M with M = A + B exp(-tau M), for x'(t) = A x(t) + B x(t - tau).

    If |B| tau exp(1 + |A| tau) < 1 the iteration M_{k+1} = A + B exp(-tau M_k) from M_0 = A converges to the only solution
    that is small enough. The solutions exp(t M) c are those that exist at all times and do not grow faster than
    exp(-t / tau) backwards, every other solution approaches one of them, and the eigenvalues of M are the dominant
    characteristic roots. For a scalar M is the rightmost root, `dynjax.reference.delay_roots`.

    Args:
        growth: A, per unit of time; a matrix or a number.
        feedback: B, likewise.
        delay: tau.

    Returns:
        A `LinearReduction`, differentiable in all three by the implicit function theorem. Cost: one matrix exponential for each
        of about log(eps) / log(rate) iterations.

    Raises:
        ValueError: if the condition does not hold, the delay is not positive, or the shapes do not fit.

    Example:
        ```python
        A, B = jnp.array([[-0.3, 0.2], [0.1, -0.1]]), jnp.array([[0.1, -0.25], [0.2, 0.15]])
        dj.propagation.linear_reduction(A, B, 0.5).roots        # -0.0521145 +- 0.0402549i
        ```

    References:
        Feher, Marton and Pituk, Approximation of a linear autonomous differential equation with small delay,
        Symmetry 11 (2019) 1299.
    """
    dtype = jnp.result_type(growth, feedback, delay, float)
    a, b = (jnp.atleast_2d(jnp.asarray(value, dtype)) for value in (growth, feedback))
    good = a.ndim == 2 and a.shape[0] == a.shape[1]
    check_that(good, "growth", "be a square matrix", found(growth))
    check_that(b.shape == a.shape, "feedback", f"have the shape {a.shape} of `growth`", found(b))
    check_positive(delay, "delay")
    tau = jnp.asarray(delay, dtype)
    condition = _condition(a, b, tau)
    if is_concrete(condition):
        must = "be so small that |B| tau exp(1 + |A| tau) < 1"
        check_that(bool(condition < 1), "feedback", must, f"it is {float(condition):.6g}")
    return _reduce(a, b, tau)


@jax.jit
def _condition(a: Array, b: Array, tau: Array) -> Array:
    size = lambda matrix: jnp.linalg.svd(matrix, compute_uv=False)[0]
    return size(b) * tau * jnp.exp(1 + size(a) * tau)


@jax.jit
def _reduce(a: Array, b: Array, tau: Array) -> LinearReduction:
    condition = _condition(a, b, tau)
    valid = condition < 1
    eps = float(jnp.finfo(a.dtype).eps)
    shrunk = jnp.where(valid, b, 0)
    solution: Any = optx.fixed_point(
        _step,
        optx.FixedPointIteration(rtol=2 * eps, atol=2 * eps),
        a,
        (a, shrunk, tau),
        max_steps=_ITERATIONS,
        throw=False,
    )
    matrix = jnp.where(valid, solution.value, jnp.nan)
    residual = jnp.linalg.norm(matrix - _step(matrix, (a, b, tau)))
    scale = jnp.linalg.norm(a) + jnp.linalg.norm(b)
    small = residual <= 100 * eps * (scale + jnp.finfo(a.dtype).tiny)
    status = jnp.where(valid, jnp.where(small, int(Status.OK), int(Status.NOT_CONVERGED)), int(Status.ERROR))
    return LinearReduction(matrix, condition, residual, status.astype(jnp.int8))


def _step(matrix: Array, args: tuple[Array, Array, Array]) -> Array:
    a, b, tau = args
    return a + jnp.matmul(b, jax.scipy.linalg.expm(-tau * matrix), precision=jax.lax.Precision.HIGHEST)
