import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ensembles import assert_agrees, simulate
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import beta, digamma

from dynjax import reference


def sgd_factors(dim, eta, scale=1.0):
    def draw(rng, chains):
        x = scale * rng.standard_normal((chains, dim))
        return np.eye(dim) - eta * x[:, :, None] * x[:, None, :]

    return draw


@pytest.mark.parametrize(("dim", "eta", "scale"), [(2, 0.8, 1.0), (4, 0.3, 1.0), (5, 1.5, 0.6)])
def test_spectrum_agrees_with_a_simulation(x64, dim, eta, scale):
    estimates = simulate(sgd_factors(dim, eta, scale), dim, chains=600, steps=500)
    exact = reference.isotropic_sgd_exponents(dim, eta, variance=scale**2)
    assert_agrees(estimates, exact, resolution=6e-3)


def test_printed_spectrum(x64):
    expected = [-0.0827386, -0.1285424, -0.2155611, -0.4943286]
    np.testing.assert_allclose(reference.isotropic_sgd_exponents(4, 0.3), expected, atol=5e-8)


@pytest.mark.parametrize(("dim", "k", "eta"), [(3, 1, 0.4), (4, 2, 0.3), (4, 3, 0.9), (7, 2, 0.05)])
def test_partial_sums_agree_with_nested_quadrature(x64, dim, k, eta):
    # The Beta variable is sin(x)^2: its density in x has no singularity for k, d - k >= 1.
    normal = 2 / beta(k / 2, (dim - k) / 2)

    def inner(r):
        c = eta * r * (2 - eta * r)
        law = lambda x: math.log1p(-c * math.sin(x) ** 2) * math.sin(x) ** (k - 1) * math.cos(x) ** (dim - k - 1)
        return normal * quad(law, 0, np.pi / 2, epsabs=1e-10)[0] * density(r)

    density = lambda r: r ** (dim / 2 - 1) * math.exp(-r / 2) / (2 ** (dim / 2) * math.gamma(dim / 2))
    pieces = [
        quad(inner, 0, 1 / eta, epsabs=1e-9)[0],
        quad(inner, 1 / eta, max(2 / eta, 60), epsabs=1e-9, limit=200)[0],
    ]
    found = jnp.sum(reference.isotropic_sgd_exponents(dim, eta, num_exponents=k))
    np.testing.assert_allclose(found, sum(pieces) / 2, atol=1e-8)


def test_two_dimensions_agree_with_fixed_singular_values(x64):
    # Given R the factor has singular values 1 and abs(1 - eta R^2), and rotations are random.
    eta = 0.7
    exact = lambda r: np.log((1 + abs(1 - eta * r)) / 2) * np.exp(-r / 2) / 2
    first = quad(exact, 0, 1 / eta, epsabs=1e-14)[0] + quad(exact, 1 / eta, np.inf, epsabs=1e-14)[0]
    np.testing.assert_allclose(reference.isotropic_sgd_exponents(2, eta)[0], first, atol=1e-13)


def test_small_learning_rates_keep_relative_accuracy(x64):
    # Second order: lambda_1 + ... + lambda_k = -eta k + eta^2 (k (d + 2) / 2 - k (k + 2)).
    eta, k = 1e-7, np.arange(1, 4)
    sums = -eta * k + eta**2 * (k * 5 / 2 - k * (k + 2))
    np.testing.assert_allclose(np.cumsum(reference.isotropic_sgd_exponents(3, eta)), sums, rtol=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 3, 10])
def test_large_learning_rates_grow_as_the_rank_one_part(x64, dim):
    # eta^2 S_k R^2 - 2 eta S_k: for eta -> inf lambda_1 = log eta + E log(R^2 abs(cos angle)).
    eta = 1e6
    mean_log_chi2 = lambda d: np.log(2) + digamma(d / 2)
    expected = np.log(eta) + mean_log_chi2(1) / 2 + mean_log_chi2(dim) / 2
    np.testing.assert_allclose(reference.isotropic_sgd_exponents(dim, eta)[0], expected, atol=1e-2 / dim**0.5)


def test_thresholds(x64):
    # From the quadrature of SciPy for d = 2; the others to the digits of an earlier computation.
    exact = lambda r, eta: np.log((1 + abs(1 - eta * r)) / 2) * np.exp(-r / 2) / 2
    first = lambda eta: quad(exact, 0, 1 / eta, (eta,))[0] + quad(exact, 1 / eta, np.inf, (eta,))[0]
    two = brentq(first, 0.5, 1.5, xtol=1e-13)
    np.testing.assert_allclose(reference.isotropic_sgd_critical_learning_rate(2), two, rtol=1e-10)
    printed = {1: 2.42124952103683604, 2: 0.937087, 3: 0.593113, 5: 0.351222, 10: 0.179889, 50: 0.0386373}
    for dim, value in printed.items():
        found = reference.isotropic_sgd_critical_learning_rate(dim)
        digits = {1: 1e-14, 50: 5e-8}.get(dim, 5e-7)
        np.testing.assert_allclose(found, value, atol=digits)
        top = reference.isotropic_sgd_exponents(dim, found, num_exponents=1)
        np.testing.assert_allclose(top, 0, atol=1e-12)


@pytest.mark.parametrize("dim", [2, 3, 5, 10, 50])
def test_mean_square_threshold_is_below_the_almost_sure_one(x64, dim):
    mean_square = reference.isotropic_sgd_mean_square_learning_rate(dim)
    np.testing.assert_allclose(mean_square, 2 / (dim + 2), rtol=1e-15)
    # E abs((I - eta x x^T) w)^2 = 1 - 2 eta + eta^2 E x_1^2 abs(x)^2 at abs(w) = 1, by exact moments.
    np.testing.assert_allclose(1 - 2 * mean_square + mean_square**2 * (dim + 2), 1, rtol=1e-14)
    assert reference.isotropic_sgd_exponents(dim, mean_square, num_exponents=1)[0] < 0


def test_thresholds_scale_with_the_variance(x64):
    found = jax.jit(lambda s: reference.isotropic_sgd_critical_learning_rate(3, variance=s))(4.0)
    np.testing.assert_allclose(found, reference.isotropic_sgd_critical_learning_rate(3) / 4, rtol=1e-14)
    np.testing.assert_allclose(reference.gaussian_sgd_critical_learning_rate(variance=2.0), 2.42124952103683604 / 2)


def test_kaczmarz_agrees_with_a_simulation_and_the_printed_digits(x64):
    def draw(rng, chains):
        u = rng.standard_normal((chains, 4))
        u /= np.linalg.norm(u, axis=1, keepdims=True)
        return np.eye(4) - u[:, :, None] * u[:, None, :]

    exact = reference.kaczmarz_exponents(4)
    assert_agrees(simulate(draw, 4, k=3, chains=600), exact[:3], resolution=3e-3)
    np.testing.assert_allclose(reference.kaczmarz_exponents(2), [-np.log(2), -np.inf])
    np.testing.assert_allclose(
        reference.kaczmarz_exponents(3), [-0.306852819440055, -0.693147180559945, -np.inf], rtol=1e-13
    )
    np.testing.assert_allclose(
        reference.kaczmarz_exponents(5)[:2], [-0.140186152773388, -0.193147180559945], rtol=1e-13
    )
    np.testing.assert_array_equal(reference.kaczmarz_exponents(1), [-np.inf])


def test_derivatives_in_the_learning_rate(x64):
    exponents = lambda eta: reference.isotropic_sgd_exponents(3, eta)
    found = jax.jit(jax.jacrev(exponents))(0.4)
    np.testing.assert_allclose(found, (exponents(0.4 + 1e-5) - exponents(0.4 - 1e-5)) / 2e-5, rtol=1e-8)
    assert abs(found[-1]) < 10


def test_single_precision(x64):
    found = reference.isotropic_sgd_exponents(5, jnp.float32(0.2))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, reference.isotropic_sgd_exponents(5, 0.2), rtol=1e-5)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="Argument `num_exponents` must be at most the dimension 3, but found 4"):
        reference.isotropic_sgd_exponents(3, 0.1, num_exponents=4)
    with pytest.raises(ValueError, match="Argument `learning_rate` must be positive"):
        reference.isotropic_sgd_exponents(3, 0.0)
    with pytest.raises(ValueError, match="Argument `dimension` must be an integer, at least 1"):
        reference.kaczmarz_exponents(-1)
