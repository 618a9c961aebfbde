import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynjax import curvature as dc


def test_kernel_agrees_with_per_sample_jacobians(problem, relative):
    one = lambda flat, x: problem.predict(problem.unravel(flat), x[None])[0]
    J = np.concatenate([jax.jacobian(one)(problem.flat, x) for x in problem.x])
    K = dc.tangent_kernel(problem.predict, problem.params, problem.x, chunk_size=4)
    assert relative(K.as_matrix(), J @ J.T) < 1e-12
    u = jnp.cos(problem.y)
    assert relative(K.mv(u), (J @ J.T @ u.ravel()).reshape(u.shape)) < 1e-12


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_kernel_of_scalar_outputs_is_n_by_n(problem, relative, chunk_size):
    scalar = lambda params, x: problem.predict(params, x)[:, 0]
    J = jax.jacobian(lambda flat: scalar(problem.unravel(flat), problem.x))(problem.flat)
    K = dc.tangent_kernel(scalar, problem.params, problem.x, chunk_size=chunk_size)
    assert K.in_structure().shape == (11,)
    assert relative(K.as_matrix(), J @ J.T) < 1e-12


def test_kernel_over_n_has_the_nonzero_spectrum_of_the_gauss_newton_matrix(make_problem, x64):
    problem = make_problem(widths=(4, 8, 3), samples=6)
    K = dc.tangent_kernel(problem.predict, problem.params, problem.x)
    G = dc.gauss_newton(problem.predict, "mse", problem.params, problem.x, problem.y)
    kernel = np.linalg.eigvalsh(K.as_matrix() / 6)[::-1]
    full = np.linalg.eigvalsh(G.as_matrix())[::-1]
    np.testing.assert_allclose(kernel, full[:18], rtol=0, atol=1e-12 * full[0])


def test_kernels_of_subtrees_add_up(problem, relative):
    u = jnp.cos(problem.y)
    parts = [
        dc.tangent_kernel(problem.predict, problem.params, problem.x, filter=[layer == 0, layer == 1]).mv(u)
        for layer in (0, 1)
    ]
    assert relative(parts[0] + parts[1], dc.tangent_kernel(problem.predict, problem.params, problem.x).mv(u)) < 1e-13
