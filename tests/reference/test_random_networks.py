import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ensembles import assert_agrees, simulate
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import binom, digamma
from scipy.stats import norm

from dynjax import reference


def test_deep_linear_networks(x64):
    draw = lambda rng, chains: rng.standard_normal((chains, 4, 4)) * np.sqrt(1.3 / 4)
    estimates = simulate(draw, 4, burn_in=0, steps=200)
    assert_agrees(estimates, reference.deep_linear_exponents(4, 1.3), resolution=6e-3)
    orthogonal = reference.deep_linear_exponents(3, 1.3, initialization="orthogonal")
    np.testing.assert_allclose(orthogonal, np.full(3, np.log(1.3) / 2), rtol=1e-14)


def test_relu_networks_agree_with_a_simulation_given_survival(x64):
    rng, width, chains, depth = np.random.default_rng(0), 6, 2000, 200
    h, total = rng.standard_normal((chains, width)), np.zeros(chains)
    h = np.abs(h) / np.linalg.norm(h, axis=1, keepdims=True)
    for _ in range(depth):
        image = np.zeros((chains, width))
        dead = np.full(chains, True)
        while np.any(dead):  # a layer with no active unit is drawn again
            weights = rng.standard_normal((np.sum(dead), width, width)) * np.sqrt(2 / width)
            image[dead] = np.maximum(np.einsum("cij,cj->ci", weights, h[dead]), 0)
            dead = np.all(image == 0, axis=1)
        growth = np.linalg.norm(image, axis=1)
        total += np.log(growth)
        h = image / growth[:, None]
    assert_agrees(total / depth, reference.relu_network_exponent(width), resolution=2e-3)


@pytest.mark.parametrize(("width", "printed"), [(10, -0.153731), (50, -0.0258694), (100, -0.0127104)])
def test_relu_exponent_agrees_with_the_binomial_sum(x64, width, printed):
    found = reference.relu_network_exponent(width)
    m = np.arange(1, width + 1)
    weights = binom(width, m) / (2.0**width - 1)
    np.testing.assert_allclose(found, (np.log(4 / width) + weights @ digamma(m / 2)) / 2, atol=1e-14)
    np.testing.assert_allclose(found, printed, atol=6e-7 if width == 10 else 6e-8)


def test_relu_exponent_of_wide_networks(x64):
    np.testing.assert_allclose(2000 * reference.relu_network_exponent(2000), -5 / 4, rtol=2e-3)
    np.testing.assert_allclose(reference.relu_network_exponent(1, 2.0), (np.log(4) + digamma(0.5)) / 2, rtol=1e-14)


def normal_average(f, q):
    return quad(lambda z: f(np.sqrt(q) * z) * norm.pdf(z), -12, 12, epsabs=1e-13, epsrel=1e-13, limit=400)[0]


@pytest.mark.parametrize(("sw2", "sb2"), [(3.0, 0.05), (1.0, 0.1), (1.5, 0.05), (50.0, 2.0)])
def test_tanh_networks_agree_with_adaptive_quadrature(x64, sw2, sb2):
    power, slope = (lambda x: np.tanh(x) ** 2), (lambda x: np.cosh(x) ** -4.0)
    q = brentq(lambda q: sw2 * normal_average(power, q) + sb2 - q, 1e-9, sw2 + sb2, xtol=1e-13)
    np.testing.assert_allclose(reference.wide_network_variance(sw2, sb2), q, rtol=1e-11)
    expected = np.log(sw2 * normal_average(slope, q)) / 2
    np.testing.assert_allclose(reference.wide_network_exponent(sw2, sb2), expected, atol=1e-11)


def test_printed_values_of_tanh_networks(x64):
    for (sw2, sb2), printed in {(3, 0.05): 0.0948697, (1, 0.1): -0.1863739, (1.5, 0.05): -0.0316636}.items():
        np.testing.assert_allclose(reference.wide_network_exponent(sw2, sb2), printed, atol=6e-8)
    np.testing.assert_allclose(reference.wide_network_variance(3.0, 0.05), 1.428008, atol=5e-7)
    critical = {
        0.01: (1.4242052905, 0.2733009),
        0.05: (1.7609546396, 0.5700479),
        0.1: (1.9860726411, 0.8057992),
        0.3: (2.5051271897, 1.4611694),
    }
    for sb2, (sw2, q) in critical.items():
        found = reference.critical_weight_variance(sb2)
        np.testing.assert_allclose(found, sw2, atol=6e-11)
        np.testing.assert_allclose(reference.wide_network_variance(found, sb2), q, atol=6e-8)
        np.testing.assert_allclose(reference.wide_network_susceptibility(found, sb2), 1, atol=1e-12)


def test_error_function_networks_agree_with_closed_forms(x64):
    # E erf(sqrt(q) z)^2 = (2/pi) arcsin(2q / (1 + 2q)), E erf'(sqrt(q) z)^2 = (4/pi) / sqrt(1 + 4q)
    sw2, sb2, erf = 2.3, 0.2, jax.scipy.special.erf
    q = brentq(lambda q: sw2 * 2 / np.pi * np.arcsin(2 * q / (1 + 2 * q)) + sb2 - q, 1e-9, 10, xtol=1e-14)
    np.testing.assert_allclose(reference.wide_network_variance(sw2, sb2, activation=erf), q, rtol=1e-13)
    expected = np.log(sw2 * 4 / np.pi / np.sqrt(1 + 4 * q)) / 2
    np.testing.assert_allclose(reference.wide_network_exponent(sw2, sb2, activation=erf), expected, rtol=1e-12)


def test_without_bias_the_variance_vanishes_up_to_the_critical_weights(x64):
    assert reference.critical_weight_variance(0.0) == 1
    assert reference.wide_network_variance(0.8, 0.0) == 0
    np.testing.assert_allclose(reference.wide_network_susceptibility(0.8, 0.0), 0.8, rtol=1e-15)
    # chi_1 = sw2 (1 - 2q) and q = sb2 / (1 - sw2) to first order
    slope = jax.grad(reference.wide_network_susceptibility, 1)(0.8, 0.0)
    np.testing.assert_allclose(slope, -2 * 0.8 / 0.2, rtol=1e-12)
    assert reference.wide_network_variance(1.5, 0.0) > 0.2


def test_linear_networks_without_a_fixed_point_give_nan(x64):
    identity = lambda z: 1.0 * z
    np.testing.assert_allclose(reference.wide_network_variance(0.5, 0.1, activation=identity), 0.2, rtol=1e-12)
    assert np.isnan(reference.wide_network_variance(1.5, 0.1, activation=identity))


def test_derivatives_of_mean_field_quantities(x64):
    for function, x in (
        (lambda s: reference.wide_network_exponent(s, 0.1), 2.0),
        (lambda s: reference.wide_network_exponent(2.0, s), 0.1),
        (reference.critical_weight_variance, 0.1),
    ):
        found = jax.jit(jax.grad(function))(x)
        np.testing.assert_allclose(found, (function(x + 1e-5) - function(x - 1e-5)) / 2e-5, rtol=1e-8)


def test_batches_and_single_precision(x64):
    line = jax.jit(jax.vmap(reference.critical_weight_variance))(jnp.array([0.01, 0.1]))
    np.testing.assert_allclose(line, [1.4242052905, 1.9860726411], atol=1e-10)
    found = reference.wide_network_exponent(jnp.float32(3.0), 0.05)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, 0.0948697, atol=1e-5)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match='Argument `initialization` must be "gaussian" or "orthogonal"'):
        reference.deep_linear_exponents(3, initialization="uniform")
    with pytest.raises(ValueError, match="Argument `width` must be an integer, at least 1"):
        reference.relu_network_exponent(0)
    with pytest.raises(ValueError, match="Argument `bias_variance` must be finite and not negative"):
        reference.wide_network_variance(1.0, -0.1)
    with pytest.raises(TypeError, match="Argument `activation` must be a function of one number, but found a str"):
        reference.wide_network_variance(1.0, 0.1, activation="tanh")
