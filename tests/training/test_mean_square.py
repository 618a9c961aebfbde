import jax.numpy as jnp
import numpy as np
import pytest
from sgd_problems import at_zero, factors, product, random_jacobian, tanh_network

from dynjax.linalg import eigsh
from dynjax.training import _mean_square
from dynjax.training._mean_square import mean_square_rate, mean_square_threshold, second_moment_operator
from dynjax.training._normal_space import normal_space

CASES = [(12, None, 40, 1), (12, None, 40, 3), (12, None, 40, 12), (5, 2, 20, 1), (5, 2, 20, 3), (12, None, 8, 2)]


def explicit(space, learning_rate, batch_size):
    """E[A (x) A] over all batches."""
    matrices = factors(np.asarray(space.factor), learning_rate, batch_size)
    return np.mean([np.kron(a, a) for a in matrices], axis=0)


@pytest.fixture(params=CASES, ids=str)
def case(request, x64):
    samples, outputs, dimension, batch_size = request.param
    return normal_space(*at_zero(random_jacobian(samples, dimension, num_outputs=outputs))), batch_size


def test_the_operator_is_the_kronecker_matrix(case):
    space, batch_size = case
    matrix = np.asarray(second_moment_operator(space, 0.7, batch_size).as_matrix()).reshape(space.rank**2, -1)
    np.testing.assert_allclose(matrix, explicit(space, 0.7, batch_size), atol=1e-13)


def test_the_rate_is_the_spectral_radius(case):
    space, batch_size = case
    rates = mean_square_threshold(space, batch_size).value * jnp.array([0.1, 0.9, 1.0, 1.4])
    found = mean_square_rate(space, rates, batch_size)
    expected = [np.log(np.max(np.linalg.eigvalsh(explicit(space, eta, batch_size)))) / 2 for eta in np.asarray(rates)]
    np.testing.assert_allclose(found.rate, expected, rtol=0, atol=1e-12)
    assert jnp.all(found.converged)
    assert jnp.all(found.residual < 1e-12)


def test_rates_in_lock_step_are_the_rates_one_by_one(x64):
    """What accelerators do, with a last batch that is not full."""
    space = normal_space(*at_zero(random_jacobian(12, 40)))
    rates = mean_square_threshold(space, 1).value * jnp.linspace(0.05, 1.5, 7)
    alone, together = (_mean_square._rates(space, rates, jnp.asarray(1), at_once) for at_once in (1, 3))
    np.testing.assert_allclose(together.rate, alone.rate, rtol=0, atol=1e-13)
    assert jnp.all(together.converged)


def test_the_second_moment_is_constant_at_the_threshold(case):
    space, batch_size = case
    threshold = mean_square_threshold(space, batch_size)
    assert threshold.converged
    assert abs(2 * mean_square_rate(space, threshold.value[None], batch_size).rate[0]) < 1e-10


def test_lanczos_on_the_operator_finds_the_same_radius(x64):
    space = normal_space(*tanh_network(num_samples=12))
    eta = mean_square_threshold(space, 2).value * 1.1
    top = eigsh(second_moment_operator(space, eta, 2), 1)
    np.testing.assert_allclose(jnp.log(top.values[0]) / 2, mean_square_rate(space, eta[None], 2).rate[0], atol=1e-12)


def test_the_slow_mode_of_an_ill_conditioned_kernel_is_exact(x64):
    # Condition number 1e6: power iteration would stop below the slow mode, which bounds the rate from below.
    left, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((40, 40)))
    space = normal_space(*at_zero(left * np.geomspace(1e-3, 1, 40) * 30))
    eta = 0.5 * mean_square_threshold(space, 1).value
    found = mean_square_rate(space, eta[None], 1)
    slow = np.log1p(-eta * space.eigenvalues[-1] / 40)
    assert slow <= found.rate[0] < 0
    np.testing.assert_allclose(found.rate[0], slow, rtol=1e-2)
    assert found.residual[0] < 1e-12


@pytest.mark.parametrize(("squares", "expected"), [((1.0, 3.0), 0.8), ((1.0, 10.0), 2 * 11 / 101)])
def test_the_product_network_has_the_closed_form(x64, squares, expected):
    space = normal_space(product, {"a": jnp.array(1.0), "b": jnp.array(1.0)}, jnp.sqrt(jnp.asarray(squares)))
    np.testing.assert_allclose(2 * mean_square_threshold(space, 1).value, expected, rtol=1e-13)


def test_single_precision_agrees_with_double(x64):
    jacobian = random_jacobian(20, 60)
    double, single = (normal_space(*at_zero(jacobian, dtype)) for dtype in (jnp.float64, jnp.float32))
    threshold = mean_square_threshold(double, 1).value
    np.testing.assert_allclose(mean_square_threshold(single, 1).value, threshold, rtol=1e-5)
    rates = threshold * jnp.array([0.5, 1.2])
    found = mean_square_rate(single, rates, 1).rate
    np.testing.assert_allclose(found, mean_square_rate(double, rates, 1).rate, atol=2e-6)
