import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynjax as dj
from dynjax import Status, systems
from dynjax.stability import finite_time_exponents, finite_time_field, lyapunov_spectrum


def product(factors):
    factors = jnp.asarray(factors)
    return dj.RandomMap(lambda x, a: a @ x, lambda n: factors[n])


@pytest.mark.parametrize("dim", [1, 2, 3, 6])
def test_exponents_and_directions_are_singular_values_and_vectors(x64, dim):
    factors = np.random.default_rng(dim).standard_normal((4, dim, dim))
    result = finite_time_exponents(product(factors), jnp.ones(dim), num_steps=4)
    u, s, vt = np.linalg.svd(factors[3] @ factors[2] @ factors[1] @ factors[0])
    np.testing.assert_allclose(result.exponents, np.log(s) / 4, atol=1e-12)
    np.testing.assert_allclose(np.abs(np.sum(vt * np.asarray(result.directions), axis=1)), 1, atol=1e-9)
    np.testing.assert_allclose(np.abs(np.sum(u.T * np.asarray(result.images), axis=1)), 1, atol=1e-9)


def test_small_singular_values_keep_their_accuracy_over_long_products(x64):
    """Diagonal factors in a rotating basis: the product telescopes, and its singular values are known over 400 decades."""
    rng = np.random.default_rng(0)
    num, dim = 300, 4
    turns = [np.linalg.qr(rng.standard_normal((dim, dim)))[0] for _ in range(num + 1)]
    logs = rng.uniform(-1, 1, (num, dim)) + np.array([2.0, 1.0, -0.5, -2.0])
    factors = [turns[i + 1] @ np.diag(np.exp(logs[i])) @ turns[i].T for i in range(num)]
    result = finite_time_exponents(product(np.stack(factors)), jnp.zeros(dim), num_steps=num)
    np.testing.assert_allclose(result.exponents, logs.mean(axis=0), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(np.abs(np.sum(turns[-1].T * np.asarray(result.images), axis=1)), 1, atol=1e-10)
    np.testing.assert_allclose(np.abs(np.sum(turns[0].T * np.asarray(result.directions), axis=1)), 1, atol=1e-10)
    assert int(result.status) == Status.OK


def test_singular_factors_give_minus_infinity(x64):
    factors = np.stack([np.diag([2.0, 1.0, 0.0]), np.diag([2.0, 0.5, 3.0])])
    result = finite_time_exponents(product(factors), jnp.ones(3), num_steps=2)
    np.testing.assert_allclose(result.exponents, [np.log(4) / 2, np.log(0.5) / 2, -np.inf])


def test_sum_is_the_mean_divergence_and_long_times_give_lyapunov_exponents(x64):
    lorenz = systems.lorenz63(0.01, method="dopri5")
    result = finite_time_exponents(lorenz, jnp.ones(3), num_steps=20_000)
    np.testing.assert_allclose(jnp.sum(result.exponents), -41 / 3, atol=1e-6)
    long = lyapunov_spectrum(lorenz, jnp.ones(3), num_steps=20_000, burn_in=0)
    np.testing.assert_allclose(result.exponents, long.exponents, atol=0.05)  # frames differ by O(1 / time)
    assert float(result.exponents[0]) >= float(long.exponents[0]) - 1e-12  # a norm is the largest growth of a vector


def test_leading_values_above_64_dimensions_are_those_of_the_dense_derivative(x64):
    w = jnp.asarray(np.random.default_rng(1).standard_normal((80, 80)) / 8)
    net = dj.Map(lambda n, x: jnp.tanh(w @ x))
    x0 = jnp.asarray(np.random.default_rng(2).standard_normal(80))
    result = finite_time_exponents(net, x0, num_steps=5, k=3)
    dense = jax.jacobian(lambda x: dj.evolve(net, x, num_steps=5))(x0)
    _, s, vt = np.linalg.svd(dense)
    np.testing.assert_allclose(result.exponents, np.log(s[:3]) / 5, atol=1e-6)
    np.testing.assert_allclose(np.abs(np.sum(vt[:3] * np.asarray(result.directions), axis=1)), 1, atol=1e-4)
    assert int(result.status) == Status.OK


def test_field_is_the_loop_over_its_points(x64):
    pendulum = dj.Flow(lambda t, y, args: jnp.stack([y[1], -jnp.sin(y[0])]), 0.05)
    angle, speed = jnp.meshgrid(jnp.linspace(-3, 3, 7), jnp.linspace(-2, 2, 5), indexing="ij")
    states = jnp.stack([angle, speed], axis=-1)
    field = finite_time_field(pendulum, states, num_steps=40, k=2, chunk_size=8)
    assert field.exponents.shape == (7, 5, 2)
    np.testing.assert_allclose(field.exponents.sum(axis=-1), 0, atol=1e-6)  # area is preserved
    one = finite_time_exponents(pendulum, states[2, 3], num_steps=40)
    np.testing.assert_allclose(field.exponents[2, 3], one.exponents, atol=1e-12)
    np.testing.assert_allclose(field.final[2, 3], one.final, atol=1e-12)
    # Points near the upright position part, those near the bottom do not.
    assert float(field.exponents[0, 2, 0]) > 2 * float(field.exponents[3, 2, 0])


def test_field_takes_pytrees_of_states(x64):
    system = dj.Map(lambda n, x: {"a": 2 * x["a"], "b": 0.5 * x["b"]})
    field = finite_time_field(system, {"a": jnp.ones((3, 4)), "b": jnp.ones((3, 4, 2))}, num_steps=3)
    assert field.exponents.shape == (3, 4, 1)
    np.testing.assert_allclose(field.exponents, np.log(2))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_steps": 0}, "Argument `num_steps` must be an integer of at least 1"),
        ({"num_steps": 3, "k": 4}, "Argument `k` must be at most the dimension of the tangent space, 2"),
    ],
)
def test_counts_that_do_not_fit_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        finite_time_exponents(systems.henon(), jnp.zeros(2), **kwargs)


def test_bad_states_are_refused():
    with pytest.raises(ValueError, match="Argument `k` must be given above 64 dimensions"):
        finite_time_exponents(systems.linear_map(jnp.eye(65)), jnp.ones(65), num_steps=2)
    with pytest.raises(ValueError, match="Argument `states` must hold states of `system`"):
        finite_time_field(systems.henon(), jnp.zeros((4, 3)), num_steps=2)
    with pytest.raises(TypeError, match="Argument `system` must be a dynjax system"):
        finite_time_exponents(3, jnp.zeros(2), num_steps=2)


def test_an_orbit_that_leaves_the_numbers_is_reported(x64):
    result = finite_time_exponents(systems.henon(), jnp.array([10.0, 0.0]), num_steps=100)
    assert int(result.status) == Status.NONFINITE
    assert np.all(np.isnan(result.exponents))
    linear = dj.Map(lambda n, x: 2 * x)
    for dim, k in ((2, None), (65, 1)):
        result = finite_time_exponents(linear, jnp.full(dim, jnp.nan), num_steps=3, k=k)
        assert int(result.status) == Status.NONFINITE
        assert np.all(np.isnan(result.exponents))
