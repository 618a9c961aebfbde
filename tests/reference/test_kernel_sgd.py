import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ensembles import assert_agrees, simulate

from dynjax import reference


def batch_factors(jacobian, eta, batch_size):
    samples, dim = jacobian.shape

    def draw(rng, chains):
        chosen = np.argsort(rng.random((chains, samples)), axis=1)[:, :batch_size]
        rows = jacobian[chosen]  # (chains, B, dim)
        return np.eye(dim) - eta / batch_size * np.einsum("cbi,cbj->cij", rows, rows)

    return draw


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_orthogonal_gradients_agree_with_a_simulation(x64, batch_size):
    norms = np.array([0.3, 2.0, 5.0])
    estimates = simulate(batch_factors(np.diag(np.sqrt(norms)), 0.7, batch_size), 3, seed=batch_size)
    exact = reference.orthogonal_sgd_exponents(norms, 0.7, batch_size=batch_size)
    if batch_size == 3:  # nothing is random
        np.testing.assert_allclose(np.mean(estimates, axis=0), exact, atol=1e-3)
        np.testing.assert_allclose(exact, reference.gradient_descent_exponents(norms / 3, 0.7), rtol=1e-14)
    else:
        assert_agrees(estimates, exact, resolution=4e-3)


@pytest.mark.parametrize("angle", [0.4, 2.0])
def test_two_unit_gradients_at_an_angle(x64, angle):
    gradients = np.array([[1.0, 0.0], [np.cos(angle), np.sin(angle)]])
    estimates = simulate(batch_factors(gradients, 1.0, 1), 2, k=1)
    exact = reference.two_gradient_sgd_exponents(angle)
    assert_agrees(estimates[:, 0], exact[0], resolution=2e-3)
    assert exact[1] == -np.inf


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_sum_rule_agrees_with_a_simulated_spectrum(x64, batch_size):
    jacobian = np.random.default_rng(3).standard_normal((4, 4))
    estimates = simulate(batch_factors(jacobian, 0.9, batch_size), 4, seed=batch_size)
    exact = reference.sgd_exponent_sum(jacobian @ jacobian.T, 0.9, batch_size=batch_size)
    if batch_size == 4:
        np.testing.assert_allclose(np.mean(np.sum(estimates, axis=1)), exact, rtol=1e-10)
    else:
        assert_agrees(np.sum(estimates, axis=1), exact, resolution=1e-2)


def test_sum_rule_is_the_mean_log_determinant_in_parameter_space(x64):
    jacobian = np.random.default_rng(4).standard_normal((6, 3))  # a kernel of rank 3
    for batch_size in (1, 2, 5):
        factors = [
            np.eye(3) - 0.4 / batch_size * jacobian[list(rows)].T @ jacobian[list(rows)]
            for rows in itertools.combinations(range(6), batch_size)
        ]
        expected = np.mean(np.log(np.abs(np.linalg.det(factors))))
        found = reference.sgd_exponent_sum(jacobian @ jacobian.T, 0.4, batch_size=batch_size)
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_sum_rule_at_batch_size_one_is_a_mean_over_the_diagonal(x64):
    kernel = np.random.default_rng(5).standard_normal((2000, 3))
    kernel = kernel @ kernel.T
    expected = np.mean(np.log(np.abs(1 - 0.3 * np.diag(kernel))))
    np.testing.assert_allclose(reference.sgd_exponent_sum(kernel, 0.3), expected, rtol=1e-12)


def test_sum_rule_of_orthogonal_gradients_is_the_sum_of_their_exponents(x64):
    norms = jnp.array([1.0, 2.0, 3.0, 0.2])
    total = jnp.sum(reference.orthogonal_sgd_exponents(norms, 0.4, batch_size=2))
    np.testing.assert_allclose(reference.sgd_exponent_sum(jnp.diag(norms), 0.4, batch_size=2), total, rtol=1e-14)


def test_the_sum_can_be_differentiated(x64):
    jacobian = np.random.default_rng(6).standard_normal((4, 5))
    total = lambda eta: reference.sgd_exponent_sum(jacobian @ jacobian.T, eta, batch_size=2)
    np.testing.assert_allclose(jax.grad(total)(0.3), (total(0.3 + 1e-6) - total(0.3 - 1e-6)) / 2e-6, rtol=1e-7)


def test_bad_batches_are_refused():
    with pytest.raises(ValueError, match="Argument `batch_size` must be at most the 3 samples, but found 4"):
        reference.sgd_exponent_sum(jnp.eye(3), 0.1, batch_size=4)
    with pytest.raises(ValueError, match="Argument `batch_size` must leave at most 200000 batches, but there are"):
        reference.sgd_exponent_sum(jnp.eye(40), 0.1, batch_size=20)
    with pytest.raises(ValueError, match="Argument `kernel` must be a square matrix"):
        reference.sgd_exponent_sum(jnp.ones((2, 3)), 0.1)
