import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import scipy.linalg
from jax.flatten_util import ravel_pytree

from dynjax import curvature as dc


def test_spectrum_agrees_with_scipy_generalised_problem(problem):
    # D A has the eigenvalues mu of A x = mu P x with P = 1/D.
    H = dc.hessian(problem.squared_error, problem.params, problem.x, problem.y)
    P = jax.tree.map(lambda leaf: 0.01 + leaf**2, problem.params)
    operator = dc.preconditioned(H, jax.tree.map(lambda p: 1 / p, P))
    expected = scipy.linalg.eigh(H.as_matrix(), np.diag(ravel_pytree(P)[0]), eigvals_only=True)
    found = np.linalg.eigvalsh(operator.as_matrix())
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10 * np.abs(expected).max())


def test_one_number_scales_the_operator(problem, relative):
    H = dc.hessian(problem.squared_error, problem.params, problem.x, problem.y)
    for scale in (0.25, jnp.asarray(0.25)):
        scaled = dc.preconditioned(H, scale).mv(problem.direction)
        assert relative(scaled, jax.tree.map(lambda leaf: leaf / 4, H.mv(problem.direction))) < 1e-14


def test_any_symmetric_lineax_operator_may_be_preconditioned(x64, relative):
    matrix = jax.random.normal(jax.random.key(0), (5, 5))
    inner = lx.MatrixLinearOperator(matrix @ matrix.T, lx.positive_semidefinite_tag)
    scale = jnp.arange(1.0, 6.0)
    operator = dc.preconditioned(inner, scale)
    assert lx.is_positive_semidefinite(operator)
    assert relative(operator.as_matrix(), jnp.sqrt(scale)[:, None] * (matrix @ matrix.T) * jnp.sqrt(scale)) < 1e-14
    assert lx.linearise(operator).mv(scale).shape == (5,)
