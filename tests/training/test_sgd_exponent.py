import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sgd_problems import at_zero, factors, product, random_jacobian, tanh_network

from dynjax.training import _normal_space
from dynjax.training._normal_space import normal_space
from dynjax.training._sgd_exponent import sgd_exponent
from dynjax.training._sgd_stability import sgd_stability

KEY = jax.random.key(1)


def directional(fn, params, direction, size):
    shifted = lambda s: jax.tree.map(lambda p, d: p + s * d, params, direction)
    return (fn(shifted(size)) - fn(shifted(-size))) / (2 * size)


@pytest.mark.parametrize(("batch_size", "scheme"), [(1, "iid"), (2, "iid"), (1, "reshuffle")])
def test_the_derivative_is_that_of_central_differences(x64, batch_size, scheme):
    predict, params, x = tanh_network((3, 8, 1), num_samples=6)
    options = {"batch_size": batch_size, "num_steps": 4000, "key": KEY, "scheme": scheme}
    fn = lambda p, eta: sgd_exponent(predict, p, x, learning_rate=eta, **options)
    by_params, by_rate = jax.grad(fn, argnums=(0, 1))(params, 0.9)
    direction = jax.tree.map(jnp.cos, params)
    # Steps are small since factors near to singular ones make the curve rough.
    slope = sum(jnp.vdot(g, d) for g, d in zip(by_params, direction, strict=True))
    np.testing.assert_allclose(slope, directional(lambda p: fn(p, 0.9), params, direction, 1e-7), rtol=1e-3)
    np.testing.assert_allclose(by_rate, directional(lambda e: fn(params, e), 0.9, 1.0, 1e-7), rtol=1e-3)


def test_the_derivative_is_the_two_sided_formula(x64):
    # d lambda / d eta = mean of u (dA) v / (u A v), v pushed forward and u pulled back through the factors.
    jacobian = random_jacobian(4, 7, scale=1.5)
    rows = np.asarray(normal_space(*at_zero(jacobian)).factor)
    eta, steps = 0.5, 20_000
    matrices, slopes = factors(rows, eta, 1), factors(rows, 1.0, 1) - np.eye(4)
    chosen = np.random.default_rng(0).integers(4, size=steps)
    v, u = [np.ones(4)], [np.ones(4)]
    for i in chosen:
        v.append(matrices[i] @ v[-1] / np.linalg.norm(matrices[i] @ v[-1]))
    for i in chosen[::-1]:
        u.append(matrices[i] @ u[-1] / np.linalg.norm(matrices[i] @ u[-1]))
    back = u[::-1][1:]
    terms = [w @ slopes[i] @ x / (w @ matrices[i] @ x) for i, x, w in zip(chosen, v, back, strict=False)]
    terms = np.array(terms[100:-100])
    blocks = terms[: len(terms) // 50 * 50].reshape(50, -1).mean(axis=1)
    fn = lambda e, key: sgd_exponent(*at_zero(jacobian), learning_rate=e, batch_size=1, num_steps=20_000, key=key)
    found = np.array([jax.grad(fn)(eta, jax.random.key(s)) for s in range(6)])
    error = np.hypot(found.std(ddof=1) / np.sqrt(6), blocks.std(ddof=1) / np.sqrt(50))
    assert abs(found.mean() - terms.mean()) < 4 * error
    assert error < 0.05 * abs(terms.mean())


@pytest.mark.slow
def test_large_networks_have_the_same_derivative(x64, monkeypatch):
    predict, params, x = tanh_network((3, 8, 2), num_samples=4)
    fn = lambda p: sgd_exponent(predict, p, x, learning_rate=0.9, batch_size=1, num_steps=500, key=KEY)
    value, slope = jax.value_and_grad(fn)(params)
    monkeypatch.setattr(_normal_space, "_MAX_ENTRIES", 10)
    other, kernel_slope = jax.value_and_grad(fn)(params)
    np.testing.assert_allclose(other, value, rtol=1e-7)
    for a, b in zip(slope, kernel_slope, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_kernel_of_low_rank_has_the_right_derivative_both_ways(x64, monkeypatch):
    predict = lambda params, x: (x @ params[0]) * params[1]
    params = [jnp.array([0.8, -0.5]), jnp.array(1.1)]
    x = jnp.asarray(np.random.default_rng(0).standard_normal((5, 2)))
    assert normal_space(predict, params, x).rank == 2
    fn = lambda p: sgd_exponent(predict, p, x, learning_rate=0.9, batch_size=2, num_steps=2000, key=KEY)
    direction = jax.tree.map(jnp.sin, params)
    expected = directional(fn, params, direction, 1e-7)
    slope = jax.grad(fn)(params)
    np.testing.assert_allclose(sum(jnp.vdot(g, d) for g, d in zip(slope, direction, strict=True)), expected, rtol=1e-3)
    monkeypatch.setattr(_normal_space, "_MAX_ENTRIES", 10)
    other = jax.grad(fn)(params)
    np.testing.assert_allclose(sum(jnp.vdot(g, d) for g, d in zip(other, direction, strict=True)), expected, rtol=1e-3)


def test_one_dimension_is_exact_and_differentiable(x64):
    x = jnp.sqrt(jnp.array([1.0, 3.0]))
    fn = lambda a, b: sgd_exponent(product, {"a": a, "b": b}, x, learning_rate=0.4, batch_size=1, num_steps=10, key=KEY)
    a, b = jnp.array(1.2), jnp.array(0.7)
    s = 0.4 * (1.2**2 + 0.7**2)
    np.testing.assert_allclose(fn(a, b), np.mean(np.log(np.abs(1 - s * np.array([1, 3])))), rtol=1e-13)
    slope = np.mean([c / (c * s - 1) for c in (1, 3)]) * 0.4 * 2
    np.testing.assert_allclose(jax.grad(fn, argnums=(0, 1))(a, b), [1.2 * slope, 0.7 * slope], rtol=1e-12)
    ranked = jax.jit(
        lambda a, b: sgd_exponent(
            product, {"a": a, "b": b}, x, learning_rate=0.4, batch_size=1, num_steps=10, key=KEY, rank=1
        )
    )
    np.testing.assert_allclose(ranked(a, b), fn(a, b), rtol=1e-13)


def test_under_jit_a_wrong_rank_gives_nan(x64):
    x = jnp.sqrt(jnp.array([1.0, 3.0]))
    fn = lambda a, b: sgd_exponent(product, {"a": a, "b": b}, x, learning_rate=0.4, batch_size=1, num_steps=10, key=KEY)
    assert jnp.isnan(jax.jit(fn)(1.2, 0.7))


@pytest.mark.slow
def test_the_value_agrees_with_the_other_estimator(x64):
    problem = at_zero(random_jacobian(5, 9, scale=1.5))
    result = sgd_stability(*problem, learning_rates=[0.6], batch_size=1, num_steps=40_000, key=KEY)
    values = [
        sgd_exponent(*problem, learning_rate=0.6, batch_size=1, num_steps=10_000, key=jax.random.key(s))
        for s in range(8)
    ]
    error = np.hypot(np.std(values, ddof=1) / np.sqrt(8), result.standard_error[0])
    assert abs(np.mean(values) - result.exponent[0]) < 4 * error


def test_bad_input_is_refused(x64):
    problem = at_zero(random_jacobian(4, 8))
    options = {"learning_rate": 0.1, "batch_size": 1, "num_steps": 10, "key": KEY}
    for change, message in (
        ({"learning_rate": jnp.ones(2)}, "Argument `learning_rate` must be a scalar"),
        ({"learning_rate": -0.1}, "Argument `learning_rate` must be positive and finite"),
        ({"rank": 5}, "Argument `rank` must be an integer from 1 to 4, but found 5"),
        ({"num_steps": 0}, "Argument `num_steps` must be a positive integer"),
    ):
        with pytest.raises(ValueError, match=message):
            sgd_exponent(*problem, **(options | change))
