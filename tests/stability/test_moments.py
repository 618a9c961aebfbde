import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynjax as dj
from dynjax import Status, reference, systems
from dynjax.stability import lyapunov_spectrum, moment_function, tail_index


def scalar_sgd(s, squares=(1.0, 3.0)):
    def fn(w, u):
        return (1 - s * jnp.where(u < 0.5, *squares)) * w

    return lambda key: dj.RandomMap(fn, lambda n: jax.random.uniform(jax.random.fold_in(key, n), ()))


def gaussian(dim, scale):
    return lambda key: dj.RandomMap(lambda x, a: a @ x, dj.WhiteNoise((dim, dim), key=key, scale=scale))


def test_scalar_moments_agree_with_the_closed_form(x64):
    orders = jnp.array([0.5, 1.0, 2.0])
    result = moment_function(scalar_sgd(0.9), jnp.zeros(()), orders, num_steps=2_000, key=jax.random.key(0))
    exact = jnp.stack([reference.scalar_sgd_moment_function(p, 0.9, jnp.array([1.0, 3.0])) for p in orders])
    assert np.all(np.abs(result.values - exact) < 4 * result.standard_error)
    assert np.all(result.standard_error < 2e-3)
    assert int(result.status) == Status.OK


def test_matrix_moments_agree_with_the_kronecker_product(x64):
    """Gaussian matrices: E |A v|^2 = s^2 N and E |A v|^4 = s^4 N (N + 2) for unit v, whatever v."""
    result = moment_function(
        gaussian(3, 0.3), jnp.zeros(3), jnp.array([2.0, 4.0]), num_steps=2_000, key=jax.random.key(1)
    )
    exact = np.log([0.09 * 3, 0.0081 * 15])
    assert np.all(np.abs(result.values - exact) < 4 * np.asarray(result.standard_error) + 3 * np.array([1, 4]) / 1024)


def test_it_is_convex_with_the_exponent_as_slope_at_zero(x64):
    orders = jnp.array([-0.2, -0.1, 0.0, 0.1, 0.2, 1.0, 2.0])
    result = moment_function(scalar_sgd(0.7), jnp.zeros(()), orders, num_steps=2_000, key=jax.random.key(2))
    values = np.asarray(result.values)
    assert values[2] == 0
    slopes = np.diff(values) / np.diff(np.asarray(orders))
    assert np.all(np.diff(slopes) > 0)
    exact = float(reference.scalar_sgd_exponent(0.7, jnp.array([1.0, 3.0])))
    error = float(result.standard_error[3]) / 0.1
    assert abs((values[3] - values[1]) / 0.2 - exact) < 3 * error


def test_diffusion_with_time_steps(x64):
    """Geometric Brownian motion: L(p) = p a + p (p - 1) s^2 / 2 per unit of time, whatever the step of the exact solution."""
    system = lambda key: systems.geometric_brownian_motion(key, a=0.05, s=0.4, dt=0.1)
    result = moment_function(
        system, jnp.ones(()), jnp.array([1.0, 2.0]), num_steps=5_000, key=jax.random.key(3), resample_every=5
    )
    exact = [reference.geometric_brownian_moment_function(p, 0.05, 0.4) for p in (1.0, 2.0)]
    assert np.all(np.abs(result.values - np.asarray(exact)) < 4 * result.standard_error)


@pytest.mark.parametrize(("s", "exact"), [(0.9, 1.2529), (1.1, 0.7086)])
def test_tail_index_of_scalar_sgd(x64, s, exact):
    result = tail_index(scalar_sgd(s), jnp.zeros(()), num_steps=1_000, key=jax.random.key(4), p_max=3.0, num_orders=8)
    np.testing.assert_allclose(reference.scalar_sgd_tail_index(s, jnp.array([1.0, 3.0])), exact, atol=1e-4)
    assert abs(float(result.value) - exact) < 4 * float(result.standard_error) + 0.01
    assert float(result.standard_error) < 0.05


def test_a_tail_index_below_the_first_order_of_the_grid_is_found(x64):
    """p* = 0.4159 at s = 1.2, and the coarse grid of orders begins at 0.5."""
    result = tail_index(scalar_sgd(1.2), jnp.zeros(()), num_steps=2_000, key=jax.random.key(8), num_orders=8, p_max=4.0)
    exact = float(reference.scalar_sgd_tail_index(1.2, jnp.array([1.0, 3.0])))
    np.testing.assert_allclose(exact, 0.4159, atol=1e-4)
    assert abs(float(result.value) - exact) < 4 * float(result.standard_error) + 0.01
    assert float(result.standard_error) < 0.05


def test_tail_index_is_nan_where_the_product_grows_and_infinite_where_no_moment_does(x64):
    growing = tail_index(
        scalar_sgd(1.6), jnp.zeros(()), num_steps=100, key=jax.random.key(5), num_orders=4, num_walkers=64
    )
    assert np.isnan(growing.value)
    bounded = tail_index(
        scalar_sgd(0.3), jnp.zeros(()), num_steps=100, key=jax.random.key(5), num_orders=4, num_walkers=64
    )
    assert float(bounded.value) == np.inf


def test_a_population_carried_by_a_few_is_reported(x64):
    result = moment_function(gaussian(2, 1.0), jnp.zeros(2), 40.0, num_steps=50, key=jax.random.key(6), num_walkers=64)
    assert int(result.status) == Status.INACCURATE


def test_bad_input_is_refused():
    key = jax.random.key(0)
    with pytest.raises(TypeError, match="Argument `system` must be a function from a random key to a dynjax system"):
        moment_function(systems.henon(), jnp.zeros(2), 1.0, num_steps=10, key=key)
    with pytest.raises(TypeError, match="Argument `system` must be a dynjax system"):
        moment_function(lambda key: 3, jnp.zeros(2), 1.0, num_steps=10, key=key)
    with pytest.raises(ValueError, match="Argument `num_walkers` must be an integer of at least 2"):
        moment_function(gaussian(2, 1.0), jnp.zeros(2), 1.0, num_steps=10, key=key, num_walkers=1)
    with pytest.raises(ValueError, match="Argument `resample_every` must divide `num_steps`"):
        moment_function(gaussian(2, 1.0), jnp.zeros(2), 1.0, num_steps=10, key=key, resample_every=3)
    with pytest.raises(ValueError, match="Argument `p` must be a number or one-dimensional"):
        moment_function(gaussian(2, 1.0), jnp.zeros(2), jnp.ones((2, 2)), num_steps=10, key=key)
    with pytest.raises(ValueError, match="Argument `p_max` must be positive"):
        tail_index(gaussian(2, 1.0), jnp.zeros(2), num_steps=10, key=key, p_max=0.0)


def test_small_orders_agree_with_the_engine(x64):
    """L(p) / p at a small order is the exponent plus p / 2 of its variance."""
    result = moment_function(gaussian(3, 1.0), jnp.zeros(3), 0.02, num_steps=500, key=jax.random.key(7))
    exact = float(reference.gaussian_product_exponents(3)[0]) + 0.01 * float(reference.gaussian_product_variances(3)[0])
    assert abs(float(result.values[0]) / 0.02 - exact) < 4 * float(result.standard_error[0]) / 0.02
    engine = lyapunov_spectrum(gaussian(3, 1.0)(jax.random.key(8)), jnp.zeros(3), num_steps=20_000, k=1)
    assert abs(float(engine.exponents[0] - exact)) < 4 * float(engine.standard_error[0]) + 0.01
