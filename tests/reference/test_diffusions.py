import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ensembles import assert_agrees
from scipy.special import airy

from dynjax import reference


def test_geometric_brownian_motion_agrees_with_its_solution(x64):
    a, s, time = 0.3, 0.9, 4.0
    rng = np.random.default_rng(0)
    log_x = (a - s**2 / 2) * time + s * np.sqrt(time) * rng.standard_normal(200_000)
    assert_agrees(log_x / time, reference.geometric_brownian_exponent(a, s), resolution=2e-3)
    np.testing.assert_allclose(np.var(log_x / time) * time, reference.geometric_brownian_variance(s), rtol=0.02)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    for p in (0.5, 1.0, 2.0):
        moment = weights @ np.exp(p * ((a - s**2 / 2) * time + s * np.sqrt(time) * nodes)) / np.sqrt(2 * np.pi)
        np.testing.assert_allclose(
            reference.geometric_brownian_moment_function(p, a, s), np.log(moment) / time, rtol=1e-10
        )


def test_moment_function_has_the_exponent_as_slope_and_a_second_zero(x64):
    slope = jax.grad(reference.geometric_brownian_moment_function)(0.0, 0.1, 0.8)
    np.testing.assert_allclose(slope, reference.geometric_brownian_exponent(0.1, 0.8), rtol=1e-14)
    tail = 1 - 2 * 0.1 / 0.8**2
    np.testing.assert_allclose(reference.geometric_brownian_moment_function(tail, 0.1, 0.8), 0, atol=1e-15)


@pytest.mark.parametrize("stiffness", [-100.0, -5.0, -1.0, -0.1, 0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0])
def test_oscillator_exponent_agrees_with_airy_functions(x64, stiffness):
    s = 1.3
    ai, ai_prime, bi, bi_prime = airy((2 / s**2) ** (2 / 3) * stiffness)
    expected = (s**2 / 2) ** (1 / 3) * ((ai_prime - 1j * bi_prime) / (ai - 1j * bi)).real
    np.testing.assert_allclose(reference.white_noise_oscillator_exponent(s, stiffness), expected, rtol=2e-12)


def test_oscillator_exponent_at_the_band_edge_and_far_away(x64):
    np.testing.assert_allclose(reference.white_noise_oscillator_exponent(1.0), 0.28930825983423926, rtol=1e-14)
    np.testing.assert_allclose(
        reference.white_noise_oscillator_exponent(0.3), 0.28930825983423926 * 0.3 ** (2 / 3), rtol=1e-14
    )
    np.testing.assert_allclose(reference.white_noise_oscillator_exponent(1.0, 1e6), 1e3, rtol=1e-8)
    np.testing.assert_allclose(reference.white_noise_oscillator_exponent(1.0, -1e6), 1 / 8e6, rtol=1e-8)


def test_oscillator_exponent_agrees_with_a_simulation(x64):
    rng = np.random.default_rng(1)
    dt, stiffness, chains, steps, burn_in = 0.01, -0.3, 1000, 6000, 500
    x, v = np.ones(chains), np.zeros(chains)
    total = np.zeros(chains)
    for n in range(steps + burn_in):
        v = v + (stiffness * dt + np.sqrt(dt) * rng.standard_normal(chains)) * x
        x = x + dt * v
        norm = np.hypot(x, v)
        x, v = x / norm, v / norm
        total += np.log(norm) * (n >= burn_in)
    assert_agrees(total / (steps * dt), reference.white_noise_oscillator_exponent(1.0, stiffness), resolution=3e-3)


def test_derivatives_of_the_oscillator_exponent(x64):
    found = jax.jit(jax.grad(reference.white_noise_oscillator_exponent, (0, 1)))(1.1, 0.7)
    for i, h in enumerate(np.eye(2) * 1e-5):
        difference = reference.white_noise_oscillator_exponent(
            1.1 + h[0], 0.7 + h[1]
        ) - reference.white_noise_oscillator_exponent(1.1 - h[0], 0.7 - h[1])
        np.testing.assert_allclose(found[i], difference / 2e-5, rtol=1e-8)


def test_dtype_follows_the_arguments(x64):
    assert reference.white_noise_oscillator_exponent(jnp.float32(1.0)).dtype == jnp.float32
    np.testing.assert_allclose(reference.white_noise_oscillator_exponent(jnp.float32(1.0)), 0.28930826, rtol=1e-6)


def test_noise_must_be_positive():
    with pytest.raises(ValueError, match="Argument `noise` must be positive"):
        reference.white_noise_oscillator_exponent(0.0)
