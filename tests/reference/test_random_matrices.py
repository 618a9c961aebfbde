import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ensembles import assert_agrees, simulate
from scipy.special import digamma, gammaln

from dynjax import reference


def gaussian(dim, scale=1.0):
    return lambda rng, chains: scale * rng.standard_normal((chains, dim, dim))


def test_gaussian_products_have_newmans_spectrum_and_variances(x64):
    steps = 60
    estimates = simulate(gaussian(3, 0.7), 3, chains=4000, steps=steps, burn_in=0)
    assert_agrees(estimates, reference.gaussian_product_exponents(3, 0.49), resolution=3e-3)
    # A sample variance of 4000 nearly normal numbers has a relative standard error of sqrt(2 / 4000).
    ratio = steps * np.var(estimates, axis=0, ddof=1) / reference.gaussian_product_variances(3)
    np.testing.assert_allclose(ratio, 1, atol=4 * np.sqrt(2 / 4000))


def test_printed_values_of_gaussian_products(x64):
    expected = [0.364818577269261, 0.0579657578292062, -0.635181422730739]
    np.testing.assert_allclose(reference.gaussian_product_exponents(3), expected, atol=1e-14)
    np.testing.assert_allclose(reference.gaussian_product_variances(3)[0], 0.233700550136170, rtol=1e-14)
    errors = np.sqrt(reference.gaussian_product_variances(3) / 1e5)
    np.testing.assert_allclose(errors, [1.53e-3, 2.03e-3, 3.51e-3], rtol=3e-3)


def test_complex_gaussian_products(x64):
    def draw(rng, chains):
        return (rng.standard_normal((chains, 3, 3)) + 1j * rng.standard_normal((chains, 3, 3))) * np.sqrt(0.4 / 2)

    estimates = simulate(draw, 3, chains=2000, steps=60, burn_in=0)
    assert_agrees(estimates, reference.ginibre_product_exponents(3, 0.4), resolution=4e-3)
    ratio = 60 * np.var(estimates, axis=0, ddof=1) / reference.ginibre_product_variances(3)
    np.testing.assert_allclose(ratio, 1, atol=4 * np.sqrt(2 / 2000))


@pytest.mark.parametrize("dim", [1, 2, 3, 10, 300])
@pytest.mark.parametrize("scale", [0.02, 0.5, 3.0])
def test_residual_exponent_agrees_with_its_poisson_series(x64, dim, scale):
    mu = 1 / (2 * scale**2)
    k = np.arange(int(mu + 40 * np.sqrt(mu) + 60))
    weights = np.exp(k * np.log(mu) - mu - gammaln(k + 1))
    expected = (np.log(2 * scale**2) + weights @ digamma(dim / 2 + k)) / 2
    np.testing.assert_allclose(reference.gaussian_residual_exponent(dim, scale), expected, atol=2e-12)


def test_residual_exponent_agrees_with_a_simulation(x64):
    estimates = simulate(lambda rng, chains: np.eye(3) + gaussian(3, 0.5)(rng, chains), 3, chains=1000, k=1)
    assert_agrees(estimates[:, 0], reference.gaussian_residual_exponent(3, 0.5), resolution=2e-3)
    np.testing.assert_allclose(reference.gaussian_residual_exponent(3, 0.5), 0.147198717796647, rtol=1e-13)


def test_triangular_products_are_sorted_by_the_diagonal(x64):
    scales = np.array([0.5, 2.0, 1.0])
    draw = lambda rng, chains: (
        np.triu(rng.standard_normal((chains, 3, 3)), 1) + rng.standard_normal((chains, 3, 1)) * np.diag(scales)
    )
    # The chi-like fluctuations of the diagonal are independent: long chains order them.
    assert_agrees(simulate(draw, 3, burn_in=100), reference.gaussian_triangular_exponents(scales), resolution=5e-3)


def test_isotropic_two_by_two_products(x64):
    def draw(rng, chains):
        angle = rng.uniform(0, 2 * np.pi, chains)
        turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], 1).reshape(-1, 2, 2)
        return turn * np.array([2.0, 0.3])

    assert_agrees(simulate(draw, 2), reference.isotropic_two_by_two_exponents((0.3, 2.0)), resolution=3e-3)
    np.testing.assert_array_equal(reference.isotropic_two_by_two_exponents((1.0, 0.0)), [np.log(0.5), -np.inf])


def test_random_fibonacci_sequences(x64):
    def draw(rng, chains):
        signs = rng.choice([-1.0, 1.0], (2, chains))
        zero, one = np.zeros(chains), np.ones(chains)
        return np.stack([signs[0], signs[1], one, zero], 1).reshape(-1, 2, 2)

    assert_agrees(
        simulate(draw, 2, chains=1000, steps=800)[:, 0], reference.random_fibonacci_exponent(), resolution=2e-3
    )
    np.testing.assert_allclose(reference.random_fibonacci_exponent(), 0.123975598803, atol=1e-12)


@pytest.mark.parametrize(("energy", "disorder"), [(0.0, 1.0), (1.0, 0.5), (-2.5, 0.3)])
def test_lloyd_model(x64, energy, disorder):
    def draw(rng, chains):
        site = energy - disorder * rng.standard_cauchy(chains)
        return np.stack([site, -np.ones(chains), np.ones(chains), np.zeros(chains)], 1).reshape(-1, 2, 2)

    estimates = simulate(draw, 2, chains=1000)
    exact = reference.lloyd_exponent(energy, disorder)
    assert_agrees(estimates[:, 0], exact, resolution=3e-3)
    mean = (np.hypot(2 + energy, disorder) + np.hypot(2 - energy, disorder)) / 4
    np.testing.assert_allclose(exact, np.arccosh(mean), rtol=1e-12)


def test_lloyd_exponent_keeps_digits_for_weak_disorder(x64):
    np.testing.assert_allclose(reference.lloyd_exponent(0.0, 1.0), 0.481211825059603, rtol=1e-14)
    np.testing.assert_allclose(reference.lloyd_exponent(1.0, 0.5), 0.281396056245293, rtol=1e-14)
    # In the band lambda = g / sqrt(4 - E^2) to first order; outside it tends to arccosh(E / 2).
    np.testing.assert_allclose(reference.lloyd_exponent(1.0, 1e-12), 1e-12 / np.sqrt(3), rtol=1e-14)
    np.testing.assert_allclose(reference.lloyd_exponent(3.0, 0.0), np.arccosh(1.5), rtol=1e-15)
    np.testing.assert_allclose(reference.lloyd_exponent(2.0, 0.0), 0.0)
    np.testing.assert_allclose(jax.grad(reference.lloyd_exponent, 1)(1.0, 0.0), 1 / np.sqrt(3), rtol=1e-14)
    near = [float(reference.lloyd_exponent(e, 1e-3)) for e in (2 - 1e-9, 2 + 1e-9)]
    np.testing.assert_allclose(near[0], near[1], rtol=1e-5)


PAIR = np.array([[[2.0, 1.0], [1.0, 1.0]], [[3.0, 1.0], [2.0, 1.0]]])


def test_positive_products(x64):
    np.testing.assert_allclose(reference.positive_product_exponent(PAIR), 1.14331103510295, rtol=1e-13)
    draw = lambda rng, chains: PAIR[rng.choice(2, chains, p=[0.2, 0.8])]
    estimates = simulate(draw, 2, chains=1000)
    assert_agrees(estimates[:, 0], reference.positive_product_exponent(PAIR, jnp.array([0.2, 0.8])), resolution=1e-3)


def test_a_product_of_one_positive_matrix_has_its_perron_value(x64):
    single = np.array([[0.3, 2.0], [0.01, 0.5]])
    expected = np.log(np.max(np.linalg.eigvals(single).real))
    np.testing.assert_allclose(reference.positive_product_exponent(single[None]), expected, rtol=1e-12)
    repeated = reference.positive_product_exponent(np.stack([single, single, single]), jnp.array([1.0, 2.0, 5.0]))
    np.testing.assert_allclose(repeated, expected, rtol=1e-12)


def test_bad_matrix_arguments_are_named():
    with pytest.raises(ValueError, match="Argument `dimension` must be an integer, at least 1, but found 0"):
        reference.gaussian_product_exponents(0)
    with pytest.raises(ValueError, match="Argument `variance` must be positive"):
        reference.ginibre_product_exponents(2, -1.0)
    with pytest.raises(ValueError, match="Argument `disorder` must be finite and not negative"):
        reference.lloyd_exponent(0.0, -0.1)
    with pytest.raises(ValueError, match="Argument `matrices` must have positive finite entries"):
        reference.positive_product_exponent(jnp.zeros((1, 2, 2)))
    with pytest.raises(ValueError, match="Argument `scales` must be one-dimensional"):
        reference.gaussian_triangular_exponents(jnp.ones((2, 2)))
    with pytest.raises(ValueError, match="Argument `singular_values` must be two numbers"):
        reference.isotropic_two_by_two_exponents((1.0, 2.0, 3.0))
