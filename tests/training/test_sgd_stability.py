import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq
from sgd_problems import at_zero, factors, linear, product, random_jacobian, reshuffled, simulate, tanh_network

from dynjax import reference
from dynjax._core import Status
from dynjax.linalg import student_factor
from dynjax.training._normal_space import normal_space
from dynjax.training._sgd_stability import sgd_stability


def stability(problem, rates, batch_size=1, *, num_steps=20_000, seed=0, **options):
    return sgd_stability(
        *problem,
        learning_rates=jnp.asarray(rates),
        batch_size=batch_size,
        num_steps=num_steps,
        key=jax.random.key(seed),
        **options,
    )


def product_problem(squares=(1.0, 3.0)):
    return product, {"a": jnp.array(1.0), "b": jnp.array(1.0)}, jnp.sqrt(jnp.asarray(squares))


def test_one_dimension_is_exact(x64):
    rates = jnp.array([0.3, 0.45, 0.55, 0.6, 0.7])
    result = stability(product_problem(), rates)
    expected = [reference.scalar_sgd_exponent(2 * eta, jnp.array([1.0, 3.0])) for eta in rates]
    np.testing.assert_allclose(result.exponent, expected, rtol=1e-13)
    assert result.exact
    np.testing.assert_array_equal(result.standard_error, 0)
    np.testing.assert_array_equal(result.sign_confidence, 1)
    np.testing.assert_allclose(result.tail_index[1:], [1.25289063, 0.70863591, 0.41593289, np.nan], rtol=1e-7)
    np.testing.assert_allclose(result.gd_exponent, np.log(np.abs(1 - 4 * np.asarray(rates))), rtol=1e-12)
    np.testing.assert_allclose(
        result.mean_square_rate, [np.log(np.mean((1 - 2 * e * np.array([1, 3])) ** 2)) / 2 for e in rates], rtol=1e-11
    )
    assert (result.rank, bool(jnp.any(result.regular))) == (1, False)


@pytest.mark.parametrize("scheme", ["iid", "reshuffle"])
def test_one_dimension_is_exact_for_batches_of_two(x64, scheme):
    result = stability(product_problem((1.0, 3.0, 5.0)), [0.4], 2, scheme=scheme)
    expected = np.mean([np.log(abs(1 - 0.4 / 2 * 2 * s)) for s in (4, 6, 8)])
    np.testing.assert_allclose(result.exponent, expected, rtol=1e-13)


@pytest.mark.parametrize(("outputs", "batch_size"), [(None, 1), (None, 3), (2, 1), (2, 2)])
def test_exponents_agree_with_plain_simulation(x64, outputs, batch_size):
    jacobian = random_jacobian(6, 24, num_outputs=outputs, scale=1.5, seed=4)
    rates = [0.3, 0.8]
    result = stability(at_zero(jacobian), rates, batch_size)
    rows = np.asarray(normal_space(*at_zero(jacobian)).factor)
    for lane, eta in enumerate(rates):
        value, error = simulate(factors(rows, eta, batch_size), 1000)
        assert abs(result.exponent[lane] - value) < 4 * math.hypot(error, result.standard_error[lane])
        assert result.standard_error[lane] < 5e-3
    assert jnp.all(result.status == Status.OK)


@pytest.mark.slow
def test_reshuffled_epochs_differ_from_independent_batches(x64):
    jacobian = random_jacobian(4, 8, scale=1.5, seed=3)
    eta = 0.8
    result = stability(at_zero(jacobian), [eta], scheme="reshuffle", num_steps=40_000)
    matrices = factors(np.asarray(normal_space(*at_zero(jacobian)).factor), eta, 1)
    value, error = simulate(matrices, 1200, order=reshuffled(4))
    assert abs(result.exponent[0] - value) < 4 * math.hypot(error, result.standard_error[0])
    independent = stability(at_zero(jacobian), [eta], num_steps=40_000)
    gap = abs(result.exponent[0] - independent.exponent[0])
    assert gap > 10 * math.hypot(result.standard_error[0], independent.standard_error[0])
    assert jnp.isnan(result.mean_square_rate[0])


def test_orthogonal_gradients_have_the_closed_form(x64):
    squares = np.array([0.3, 2.0, 5.0])
    result = stability(at_zero(np.diag(np.sqrt(squares))), [0.7, 0.1], 2, k=3)
    for lane, eta in enumerate((0.7, 0.1)):
        exact = reference.orthogonal_sgd_exponents(squares, eta, batch_size=2)
        assert np.all(np.abs(result.exponents[lane] - exact) < 4 * result.standard_errors[lane])
        # Each direction alone is an exact mean.
        np.testing.assert_allclose(np.sort(result.block_exponents[lane])[::-1], exact, rtol=1e-12)
    assert result.blocks == (0, 1, 2)
    assert not jnp.any(result.regular)


def test_singular_steps_give_minus_infinity_and_no_nan(x64):
    angle = 0.7
    rows = np.array([[1.0, 0.0], [np.cos(angle), np.sin(angle)]])
    result = stability(at_zero(rows), [1.0], k=2)
    exact = reference.two_gradient_sgd_exponents(angle)
    assert abs(result.exponents[0, 0] - exact[0]) < 4 * result.standard_errors[0, 0]
    assert result.exponents[0, 1] == result.lower_bound[0] == -np.inf
    assert (bool(result.resonant[0]), bool(result.regular[0]), float(result.sum_rule_residual[0])) == (True, False, 0.0)
    assert result.status[0] == Status.OK
    alone = stability(at_zero(np.ones((1, 1))), [1.0])
    assert (float(alone.exponent[0]), float(alone.standard_error[0])) == (-np.inf, 0.0)


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_the_spectrum_of_a_tanh_network_obeys_the_sum_rule(x64, batch_size):
    result = stability(tanh_network((3, 40, 1), num_samples=16), [0.05, 0.3], batch_size, k=16, num_steps=6000)
    error = np.sqrt(np.sum(np.square(result.standard_errors), axis=1))
    if batch_size == 16:  # full batches: nothing is random
        np.testing.assert_allclose(result.sum_rule_residual, 0, atol=1e-10)
    else:
        assert np.all(np.abs(result.sum_rule_residual) < 4 * np.maximum(error, np.sum(result.standard_errors, axis=1)))
        assert np.all(np.sum(result.standard_errors, axis=1) < 0.2 * np.abs(np.sum(result.exponents, axis=1)))
    np.testing.assert_allclose(result.lower_bound * 16, np.sum(result.exponents, axis=1) - result.sum_rule_residual)


def test_reshuffled_epochs_obey_the_sum_rule_exactly(x64):
    # Each epoch meets each sample once, so that the log determinants add up to the same in every epoch.
    result = stability(at_zero(random_jacobian(5, 9)), [0.4, 1.1], scheme="reshuffle", k=5, num_steps=2000)
    np.testing.assert_allclose(result.sum_rule_residual, 0, atol=1e-11)


def test_the_bounds_hold(x64):
    problem = tanh_network((3, 40, 1), num_samples=12)
    critical = 2 * 12 / normal_space(*problem).eigenvalues[0]
    for batch_size in (1, 3):
        result = stability(problem, critical * jnp.array([0.02, 0.1, 0.3, 0.6]), batch_size)
        slack = 4 * result.standard_error + 1e-12
        assert jnp.all(result.lower_bound <= result.exponent + slack)
        assert jnp.all(result.exponent <= result.upper_bound + slack)
        assert jnp.all(result.gd_exponent <= result.mean_square_rate + 1e-12)


def test_full_batches_are_gradient_descent(x64):
    problem = tanh_network((3, 40, 1), num_samples=8)
    result = stability(problem, [0.01, 0.2], 8, k=2)
    k = np.asarray(normal_space(*problem).eigenvalues)
    expected = [np.sort(np.log(np.abs(1 - eta * k / 8)))[::-1][:2] for eta in (0.01, 0.2)]
    np.testing.assert_allclose(result.exponents, expected, rtol=1e-10)
    np.testing.assert_allclose(result.gd_exponent, result.exponent, rtol=1e-12)
    assert result.exact


def test_float32_keeps_its_zero_modes_apart_over_1e5_steps(x64):
    # Four samples, 200 parameters: in parameter space rounding feeds 196 directions that never decay.
    jacobian = random_jacobian(4, 200, seed=2)
    eta, steps = 0.5, 100_000
    double = stability(at_zero(jacobian), [eta], num_steps=steps)
    single = stability(at_zero(jacobian, jnp.float32), [eta], num_steps=steps)
    assert single.exponent.dtype == jnp.float32
    error = math.hypot(double.standard_error[0], single.standard_error[0])
    assert abs(double.exponent[0] - single.exponent[0]) < 3 * error
    assert error < 2e-3 < -double.exponent[0] / 20
    dual = dual_exponent(jacobian @ jacobian.T, eta, steps)
    assert abs(dual - double.exponent[0]) < 3 * math.hypot(double.standard_error[0], 2e-3)
    # What is being avoided: the product of the same factors in parameter space.
    naive = parameter_space_exponent(jnp.asarray(jacobian, jnp.float32), eta, 4000)
    assert naive > -0.02


def dual_exponent(kernel, eta, steps):
    rng = np.random.default_rng(0)
    alpha, total = rng.standard_normal(len(kernel)), 0.0
    for i in rng.integers(len(kernel), size=steps):
        alpha[i] -= eta * (kernel[i] @ alpha)
        norm = np.sqrt(alpha @ alpha)
        alpha, total = alpha / norm, total + np.log(norm)
    return total / steps


def parameter_space_exponent(jacobian, eta, steps):
    def step(v, i):
        v = v - eta * jacobian[i] * (jacobian[i] @ v)
        norm = jnp.linalg.norm(v)
        return v / norm, jnp.log(norm)

    indices = jax.random.randint(jax.random.key(0), (steps,), 0, jacobian.shape[0])
    start = jacobian.T @ jnp.ones(jacobian.shape[0], jacobian.dtype)
    return float(jnp.mean(jax.lax.scan(step, start, indices)[1]))


def test_momentum_agrees_with_the_explicit_matrices(x64):
    jacobian = random_jacobian(5, 9, scale=1.5, seed=4)
    rows = np.asarray(normal_space(*at_zero(jacobian)).factor)
    eta, beta = 0.4, 0.6
    steps = [np.block([[f, beta * np.eye(5)], [f - np.eye(5), beta * np.eye(5)]]) for f in factors(rows, eta, 2)]
    value, error = simulate(np.stack(steps), 1000)
    result = stability(at_zero(jacobian), [eta, 0.1], 2, momentum=beta, k=10)
    assert abs(result.exponent[0] - value) < 4 * math.hypot(error, result.standard_error[0])
    # The determinant of every step is beta^r.
    np.testing.assert_allclose(np.sum(result.exponents, axis=1), 5 * np.log(beta), rtol=1e-11)
    np.testing.assert_allclose(result.lower_bound, np.log(beta) / 2, rtol=1e-14)
    mean = np.mean(steps, axis=0)
    np.testing.assert_allclose(result.gd_exponent[0], np.log(np.max(np.abs(np.linalg.eigvals(mean)))), rtol=1e-10)


def transfer_tail_index(matrices, points=128):
    """p* of 2 x 2 factors from the operator f -> E |A u|^p f(A u / |A u|) on functions of the direction, by collocation."""
    angles = np.pi * np.arange(points) / points
    directions = np.stack([np.cos(angles), np.sin(angles)])
    modes = 2 * np.fft.fftfreq(points, 1 / points)
    basis = np.exp(1j * np.outer(angles, modes))

    def log_radius(p):
        operator = 0
        for a in matrices:
            image = a @ directions
            moved = np.exp(1j * np.outer(np.arctan2(image[1], image[0]), modes)) @ np.linalg.inv(basis)
            operator = operator + np.linalg.norm(image, axis=0)[:, None] ** p * moved.real / len(matrices)
        return np.log(np.max(np.abs(np.linalg.eigvals(operator))))

    return brentq(log_radius, 0.05, 2)


@pytest.mark.slow
def test_the_population_estimate_of_the_tail_index(x64):
    jacobian = np.array([[1.0, 0.0], [1.0, 1.2], [0.3, 1.0]])
    rates = [1.1, 1.2]
    result = stability(at_zero(jacobian), rates, num_particles=1000, num_steps=200_000)
    for lane, eta in enumerate(rates):
        exact = transfer_tail_index(factors(jacobian, eta, 1))
        assert 0.3 < exact < 1.9
        assert abs(result.tail_index[lane] - exact) < 4 * result.tail_index_standard_error[lane] + 0.01
        assert result.tail_index_standard_error[lane] < 0.05


def test_too_short_runs_admit_it(x64):
    result = stability(at_zero(random_jacobian(4, 8)), [0.5], num_steps=1)
    assert result.status[0] == Status.NOT_CONVERGED
    assert jnp.isinf(result.standard_error[0])
    assert result.sign_confidence[0] == 0.5


def test_targets_are_compared_with_the_outputs(x64):
    predict, params, x = tanh_network(num_samples=6)
    outputs = predict(params, x)
    stability((predict, params, x), [0.1], targets=outputs, num_steps=50)
    with pytest.raises(ValueError, match=r"Argument `params` must fit the targets .*, but the relative residual is"):
        stability((predict, params, x), [0.1], targets=outputs + 0.1)
    with pytest.raises(ValueError, match="Argument `targets` must have the shape"):
        stability((predict, params, x), [0.1], targets=outputs[:, None])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 7}, "Argument `batch_size` must be an integer from 1 to the number of samples 6, but found 7"),
        ({"batch_size": 0}, "Argument `batch_size` must be an integer"),
        ({"num_steps": 0}, "Argument `num_steps` must be a positive integer, but found 0"),
        ({"num_steps": True}, "Argument `num_steps` must be a positive integer, but found True"),
        ({"num_steps": 10.0}, "Argument `num_steps` must be a positive integer, but found 10.0"),
        ({"burn_in": -1}, "Argument `burn_in` must be a non-negative integer, but found -1"),
        ({"k": 7}, "Argument `k` must be an integer from 1 to the 6 dimensions of the cocycle, but found 7"),
        ({"scheme": "cyclic"}, 'Argument `scheme` must be "iid" or "reshuffle"'),
        ({"rates": [0.1, -0.1]}, "Argument `learning_rates` must be positive and finite"),
        ({"rates": [np.nan]}, "Argument `learning_rates` must be positive and finite"),
        ({"rates": 0.1}, "Argument `learning_rates` must be one-dimensional"),
        ({"momentum": 1.0}, "Argument `momentum` must be at least 0 and below 1, but found 1.0"),
    ],
)
def test_bad_input_is_refused(x64, change, message):
    options = {"rates": [0.1], "batch_size": 1, "num_steps": 100} | change
    with pytest.raises(ValueError, match=message):
        stability(at_zero(random_jacobian(6, 9)), **options)


def test_counts_may_be_integers_of_numpy(x64):
    problem = at_zero(random_jacobian(6, 9))
    own = stability(problem, [0.5], 2, num_steps=200, k=2)
    numpy = stability(problem, [0.5], np.int64(2), num_steps=np.int32(200), k=np.int64(2))
    np.testing.assert_array_equal(own.exponents, numpy.exponents)


@pytest.mark.parametrize(("dtype", "small", "large"), [(jnp.float64, 1e-6, 1e-4), (jnp.float32, 1e-3, 0.05)])
def test_a_loss_that_is_not_zero_is_refused_in_either_precision(x64, dtype, small, large):
    predict, params, x = tanh_network(num_samples=6, dtype=dtype)
    outputs = predict(params, x)
    options = {"num_steps": 50}
    stability((predict, params, x), [0.1], targets=outputs * (1 + small), **options)
    with pytest.raises(ValueError, match="Argument `params` must fit the targets"):
        stability((predict, params, x), [0.1], targets=outputs * (1 + large), **options)


def test_nan_parameters_are_refused(x64):
    with pytest.raises(ValueError, match="Argument `params` must be finite"):
        stability((linear, jnp.array([1.0, jnp.nan]), jnp.ones((3, 2))), [0.1])


def test_the_same_key_gives_the_same_bits(x64):
    first, second = (stability(at_zero(random_jacobian(6, 9)), [0.5], num_steps=500) for _ in range(2))
    np.testing.assert_array_equal(first.exponent, second.exponent)
    assert "learning rate 0.5: exponent" in str(first)


@pytest.mark.slow
def test_error_bars_cover(x64):
    problem = at_zero(random_jacobian(12, 20, scale=1.5))
    truth = stability(problem, [0.5, 1.0], num_steps=2_000_000, seed=1000)
    runs = [stability(problem, [0.5, 1.0], num_steps=10_000, seed=s) for s in range(200)]
    z = np.array([(run.exponent - truth.exponent) / run.standard_error for run in runs])
    covered = np.mean(np.abs(z) < student_factor(21, 0.95), axis=0)  # ten frequencies, 20 degrees of freedom
    assert np.all((covered > 0.9) & (covered < 0.98))


@pytest.mark.slow
def test_the_slow_mode_is_met_in_runs_that_are_short_for_it(x64):
    """Condition 1e4: the start must not leave more than 3e-4 of the exponent as a bias. About 10 seconds."""
    turn, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((30, 20)))
    jacobian = np.geomspace(0.05, 5, 20)[:, None] * turn.T
    problem, rates = at_zero(jacobian + 0.02 * np.random.default_rng(1).standard_normal((20, 30))), [0.01, 0.05]
    long = stability(problem, rates, num_steps=4_000_000, burn_in=4_000_000)
    for seed in range(3):
        short = stability(problem, rates, num_steps=50_000, seed=seed)
        np.testing.assert_allclose(short.exponent, long.exponent, rtol=3e-4)
