import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynjax import curvature as dc


@pytest.fixture
def linear(x64):
    """f = x . w with six samples in three dimensions, and its quotients by NumPy."""
    rng = np.random.default_rng(0)
    x, y, w = rng.normal(size=(6, 3)), rng.normal(size=6), rng.normal(size=3)

    def quotient(batch):
        xb, yb = x[list(batch)], y[list(batch)]
        H = xb.T @ xb / len(batch)
        g = xb.T @ (xb @ w - yb) / len(batch)
        return g @ H @ g / (g @ g)

    return x, y, w, quotient


def linear_loss(w, x, y):
    return 0.5 * jnp.mean((x @ w - y) ** 2)


def test_enumeration_is_exact(linear):
    x, y, w, quotient = linear
    expected = np.mean([quotient(batch) for batch in itertools.combinations(range(6), 2)])
    found = dc.batch_sharpness(linear_loss, w, x, y, batch_size=2)
    np.testing.assert_allclose(found.value, expected, rtol=1e-12)
    assert found.standard_error == 0
    assert found.num_batches == 15
    assert "batch sharpness" in str(found)


def test_full_batch_is_the_rayleigh_quotient_of_the_gradient_and_differentiable(problem):
    flat_loss = lambda flat: problem.cross_entropy(problem.unravel(flat), problem.x, problem.labels)

    def rayleigh(flat):
        g = jax.grad(flat_loss)(flat)
        return g @ jax.jvp(jax.grad(flat_loss), (flat,), (g,))[1] / (g @ g)

    def found(flat):
        params = problem.unravel(flat)
        return dc.batch_sharpness(problem.cross_entropy, params, problem.x, problem.labels, batch_size=11).value

    value, slope = jax.value_and_grad(found)(problem.flat)
    expected_value, expected_slope = jax.jit(jax.value_and_grad(rayleigh))(problem.flat)
    np.testing.assert_allclose(value, expected_value, rtol=1e-12)
    np.testing.assert_allclose(slope, expected_slope, rtol=0, atol=1e-12 * np.abs(expected_slope).max())


def test_quotients_of_given_batches(linear):
    x, y, w, quotient = linear
    batches = np.array([[0, 3, 4], [5, 1, 2]])
    found = dc.batch_quotients(linear_loss, w, x, y, batches)
    np.testing.assert_allclose(found.values, [quotient(batch) for batch in batches], rtol=1e-12)


def test_standard_error_covers(linear):
    x, y, w, quotient = linear
    exact = np.mean([quotient(batch) for batch in itertools.combinations(range(6), 2)])

    @jax.jit
    @jax.vmap
    def estimate(key):
        found = dc.batch_sharpness(linear_loss, jnp.asarray(w), x, y, batch_size=2, num_batches=100, key=key)
        return found.value, found.standard_error

    values, errors = estimate(jax.random.split(jax.random.key(1), 400))
    # 95 % intervals: the number that cover is binomial, standard deviation 0.011 of 400.
    covered = np.mean(np.abs(values - exact) < 1.96 * errors)
    assert 0.91 < covered < 0.985
    np.testing.assert_allclose(np.mean(errors), np.std(values), rtol=0.12)


def test_same_key_same_bits(linear):
    x, y, w, _ = linear
    draw = lambda seed: (
        dc.batch_sharpness(linear_loss, w, x, y, batch_size=3, num_batches=5, key=jax.random.key(seed)).value
    )
    assert draw(0) == draw(0)
    assert draw(0) != draw(1)


def test_small_gradients_do_not_underflow(linear):
    x, _, w, _ = linear
    near = jnp.asarray(1e-25 * w, jnp.float32)
    cast = lambda a: jnp.asarray(a, jnp.float32)
    expected = np.mean([(lambda g, H: g @ H @ g / (g @ g))(x[[i]].T @ x[[i]] @ w, x[[i]].T @ x[[i]]) for i in range(6)])
    found = dc.batch_sharpness(linear_loss, near, cast(x), jnp.zeros(6, jnp.float32), batch_size=1)
    np.testing.assert_allclose(found.value, expected, rtol=1e-5)


def test_batches_without_a_gradient_are_left_out(linear):
    # Integers, so that the first two residuals are exactly zero.
    x, y = np.round(8 * linear[0]), np.round(8 * linear[1])
    y[:2] = x[:2] @ np.ones(3)
    found = dc.batch_sharpness(linear_loss, np.ones(3), x, y, batch_size=1)
    assert found.num_batches == 4
    np.testing.assert_allclose(found.value, np.mean(np.sum(x[2:] ** 2, axis=1)), rtol=1e-12)


def test_nan_data_is_not_hidden(linear):
    x, y, w, _ = linear
    x = np.where(np.arange(6)[:, None] == 0, np.nan, x)
    found = dc.batch_sharpness(linear_loss, w, x, y, batch_size=1)
    assert jnp.isnan(found.value)
