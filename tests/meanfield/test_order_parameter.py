"""Order parameters against NumPy, at the point where they have no derivative, and the warnings of the room."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynjax.meanfield import (
    AllToAll,
    Dense,
    Lorentzian,
    MeanFieldWarning,
    Phases,
    complex_order_parameter,
    kuramoto,
    local_order_parameter,
    order_parameter,
)
from dynjax.meanfield._particles.validity import (
    warn_filamentation,
    warn_low_degree,
    warn_near_critical,
    warn_single_particles,
)


@pytest.fixture
def angles():
    return np.random.default_rng(0).uniform(0, 2 * np.pi, 50)


@pytest.mark.parametrize("mode", [1, 2, 3])
def test_order_parameter_is_that_of_numpy(x64, angles, mode):
    z = np.mean(np.exp(1j * mode * angles))
    for state in (jnp.asarray(angles), Phases.of(angles)):
        np.testing.assert_allclose(complex_order_parameter(state, mode=mode), z, rtol=1e-12)
        np.testing.assert_allclose(order_parameter(state, mode=mode), abs(z), rtol=1e-12)


def test_weights_and_lanes(x64, angles):
    lanes = np.stack([angles, 2 * angles], axis=1)
    weights = np.linspace(0, 1, 50)
    expected = np.abs(weights @ np.exp(1j * lanes))
    np.testing.assert_allclose(order_parameter(jnp.asarray(lanes), weights=weights), expected, rtol=1e-12)


def test_local_order_parameter(x64, angles):
    weights = np.random.default_rng(1).uniform(size=(50, 50)) * (np.random.default_rng(2).uniform(size=(50, 50)) < 0.2)
    weights[7] = 0  # nobody drives node 7
    mass = weights.sum(1)
    expected = np.abs(weights @ np.exp(1j * angles)) / np.where(mass == 0, 1, mass)
    np.testing.assert_allclose(
        local_order_parameter(Dense(weights), Phases.of(angles)), expected, rtol=1e-11, atol=1e-15
    )
    assert local_order_parameter(Dense(weights), Phases.of(angles))[7] == 0


def test_gradient_at_zero_and_elsewhere(x64, angles):
    quarter = jnp.asarray([0.3, 0.3 + np.pi])
    cancelling = Phases(jnp.asarray([1.0, -1.0]), jnp.asarray([0.0, 0.0]))
    assert order_parameter(cancelling) == 0
    gradient = jax.grad(order_parameter)(cancelling)
    assert bool(jnp.all(gradient.cos == 0))
    assert bool(jnp.all(gradient.sin == 0))
    assert bool(jnp.all(jnp.isfinite(jax.grad(order_parameter)(quarter))))
    h = 1e-6
    step = h * np.eye(50)[3]
    difference = (order_parameter(jnp.asarray(angles + step)) - order_parameter(jnp.asarray(angles - step))) / (2 * h)
    np.testing.assert_allclose(jax.grad(order_parameter)(jnp.asarray(angles))[3], difference, rtol=1e-6)


def test_bad_arguments(angles):
    with pytest.raises(ValueError, match="Argument `mode` must be an integer"):
        order_parameter(angles, mode=0)
    with pytest.raises(ValueError, match="Argument `weights` must be a vector of 50"):
        order_parameter(angles, weights=np.ones(3))
    with pytest.raises(TypeError, match="Argument `state` must hold phases"):
        order_parameter(np.exp(1j * angles))


@pytest.mark.parametrize(
    ("warn", "bad", "good", "advice"),
    [
        (warn_low_degree, (6.0,), (25.0,), "denser graph"),
        (warn_single_particles, (1,), (8,), "several oscillators"),
        (warn_filamentation, (0.0, 32), (0.1, 32), "quantile"),
        (warn_near_critical, (1.03, 1.0, 500), (1.2, 1.0, 500), "more nodes"),
        (warn_near_critical, (jnp.asarray([0.5, 0.98]), 1.0, 500), (3.0, np.inf, 500), "more nodes"),
    ],
)
def test_guards_speak_only_where_they_should(warn, bad, good, advice):
    with pytest.warns(MeanFieldWarning, match=advice):
        warn(*bad)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn(*good)
        if warn is not warn_single_particles:  # that one takes a static count
            jax.jit(lambda x: (warn(x, *bad[1:]), x)[1])(bad[0])  # traced values pass


def test_midpoints_of_a_lorentzian_warn_and_draws_do_not():
    with pytest.warns(MeanFieldWarning, match="tails"):
        kuramoto(AllToAll(10), Lorentzian(1.0), 1.0, dt=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kuramoto(AllToAll(10), Lorentzian(1.0), 1.0, dt=0.1, frequency_key=jax.random.key(0))
