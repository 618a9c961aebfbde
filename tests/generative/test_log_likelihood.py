"""Log-likelihoods along exact fields are the densities of the mixtures."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynjax import Status
from dynjax.generative import GaussianMixture, VariancePreserving, VelocityField, log_likelihood

TIGHT = {"rtol": 1e-10, "atol": 1e-11}
STEPS = {"num_steps": 128, "method": "tsit5"}
FORMS = ("isotropic", "diagonal", "full")


def mixture(form: str, size: int) -> GaussianMixture:
    """Three modes of different covariances."""
    rng = np.random.default_rng(5)
    means, root = rng.standard_normal((3, size)), rng.standard_normal((3, size, size)) / 2
    full = root @ np.swapaxes(root, 1, 2) + 0.1 * np.eye(size)
    covariances = {"isotropic": full[:, 0, 0], "diagonal": np.diagonal(full, 0, 1, 2), "full": full}[form]
    return GaussianMixture(means, covariances, [0.5, 0.3, 0.2])


@pytest.mark.parametrize(("form", "size"), list(itertools.product(FORMS, (1, 2, 3))))
def test_both_flows_give_the_density(x64, form, size, key):
    """Flow matching, and a diffusion with its own law at the horizon for the base."""
    law = mixture(form, size)
    points = law.sample(6, key)
    exact = jax.vmap(law.log_density)(points)
    found = log_likelihood(law.flow_matching_field(), points, **STEPS)
    np.testing.assert_allclose(found.value, exact, atol=1e-10)
    field = law.score_field(VariancePreserving.constant(1.0, 8.0))
    # Fixed steps need to be shorter near the data.
    times = 8 * jnp.linspace(0, 1, 6) ** 3
    found = log_likelihood(field, points, base=field.log_noise_density, times=times, **STEPS)
    np.testing.assert_allclose(found.value, exact, atol=1e-10)


def test_adaptive_steps(x64, key):
    """Of a diffusion; with the standard normal density in place of that of p_T an error of the order of a(T) is seen."""
    law = mixture("full", 2)
    points = law.sample(6, key)
    exact = jax.vmap(law.log_density)(points)
    field = law.score_field(VariancePreserving.constant(1.0, 8.0))
    found = log_likelihood(field, points, base=field.law(8.0), **TIGHT)
    np.testing.assert_allclose(found.value, exact, atol=1e-8)
    np.testing.assert_array_equal(found.standard_error, 0)
    np.testing.assert_allclose(found.bits_per_dimension, -np.asarray(found.value) / law.size / np.log(2))
    assert np.all(np.asarray(found.status) == Status.OK)
    assert "6 of 6 OK" in str(found)
    gap = jax.vmap(field.law(8.0).log_density)(found.noise) - jax.scipy.stats.norm.logpdf(found.noise).sum(-1)
    assert 1e-4 < np.max(np.abs(gap)) < 0.2


def test_fixed_steps_and_single_precision(key):
    law = mixture("diagonal", 2)
    points = law.sample(5, key)
    exact = jax.vmap(law.log_density)(points)
    found = log_likelihood(law.flow_matching_field(), points, num_steps=128)
    assert found.value.dtype == jnp.float32
    np.testing.assert_allclose(found.value, exact, atol=2e-4)


def test_hutchinson_is_unbiased_with_its_standard_error(x64, key):
    """Over 400 points the normalised errors have mean 0 and follow Student's law with 15 degrees of freedom."""
    law = mixture("diagonal", 3)
    points = law.sample(400, key)
    exact = jax.vmap(law.log_density)(points)
    options = {"divergence": "hutchinson", "key": key, "num_steps": 64}
    sampled = log_likelihood(law.flow_matching_field(), points, **options)
    score = np.asarray((sampled.value - exact) / sampled.standard_error)
    assert abs(score.mean()) < 3 / np.sqrt(400 * 13 / 15)
    assert 0.8 < score.std() < 1.4
    assert float(jnp.median(sampled.standard_error)) > 0.01  # there is something to estimate
    one = log_likelihood(law.flow_matching_field(), points[:3], num_probes=1, **options)
    assert np.all(np.isinf(one.standard_error))


def test_hutchinson_is_exact_for_isotropic_slopes(x64, key):
    """For one isotropic Gaussian the Jacobian is a multiple of the identity: every probe has the same value."""
    law = GaussianMixture([[1.0, -1.0, 0.5]], 0.3)
    options = {"divergence": "hutchinson", "key": key, **STEPS}
    found = log_likelihood(law.flow_matching_field(), jnp.zeros((2, 3)), **options)
    np.testing.assert_allclose(found.value, jnp.stack([law.log_density(jnp.zeros(3))] * 2), atol=1e-10)
    assert np.all(np.asarray(found.standard_error) < 1e-12)


def test_a_trained_field_has_a_density_of_mass_one(x64, key):
    """Whatever the parameters: the integral over the line of the density that a network gives, by the trapezoidal rule."""
    field = VelocityField(1, hidden=(16,), key=key, dtype=jnp.float64)
    grid = jnp.linspace(-12, 12, 1201)
    value = log_likelihood(field, grid[:, None], num_steps=32).value
    np.testing.assert_allclose(jnp.trapezoid(jnp.exp(value), grid), 1, atol=1e-8)


def test_gradients_with_respect_to_the_field(x64):
    """log p(x) and d/dm log p(x) of the mixture, through the adaptive solver."""
    point = jnp.array([0.7])

    def through_the_flow(mean):
        field = GaussianMixture(jnp.stack([-2.0, mean]), 0.25).flow_matching_field()
        return log_likelihood(field, point, rtol=1e-8, atol=1e-8).value

    exact = jax.value_and_grad(lambda mean: GaussianMixture(jnp.stack([-2.0, mean]), 0.25).log_density(point))(2.0)
    np.testing.assert_allclose(jax.value_and_grad(through_the_flow)(2.0), exact, rtol=1e-7)


def test_a_pole_on_the_way_is_no_number(x64):
    """Backwards from -2 the equation x' = x^2 has a pole at time 1/2."""
    found = log_likelihood(lambda t, x: x**2, jnp.array([[-2.0], [0.5]]), num_steps=50)
    assert list(np.asarray(found.status)) == [Status.NONFINITE, Status.OK]
    assert np.isnan(found.value[0])
    # x(0) = 1/3 with the derivative (1/3)^2 / (1/2)^2.
    expected = -1 / 18 - np.log(2 * np.pi) / 2 + 2 * np.log(2 / 3)
    np.testing.assert_allclose(found.value[1], expected, atol=1e-6)


def test_bad_arguments(key):
    law = mixture("full", 2)
    field, x = law.flow_matching_field(), jnp.zeros((2, 2))
    with pytest.raises(ValueError, match='Argument `divergence` must be "exact" or "hutchinson"'):
        log_likelihood(field, x, divergence="random")
    with pytest.raises(ValueError, match="Argument `key` must be given for Hutchinson's estimate"):
        log_likelihood(field, x, divergence="hutchinson")
    with pytest.raises(ValueError, match="Argument `num_probes` must be"):
        log_likelihood(field, x, divergence="hutchinson", key=key, num_probes=0)
    with pytest.raises(TypeError, match="Argument `base` must be a function"):
        log_likelihood(field, x, base=1.0)
    with pytest.raises(ValueError, match=r"Argument `base` must give one number .* but found float32\[2\]"):
        log_likelihood(field, x, base=lambda x: -(x**2) / 2)
    with pytest.raises(ValueError, match=r"Argument `base` must give one number .* but it raised: Argument `x`"):
        log_likelihood(field, x, base=mixture("full", 3))
    with pytest.raises(ValueError, match=r"Argument `x1` must hold points of R\^2"):
        log_likelihood(field, jnp.zeros(3))
    with pytest.raises(ValueError, match=r"Argument `times` must lie in \[0, 1\]"):
        log_likelihood(field, x, times=[2.0, 0.0])
    with pytest.raises(
        ValueError, match="Argument `times` must run from the data at time 1 towards the noise at time 0"
    ):
        log_likelihood(field, x, times=[0.0, 1.0])
    with pytest.raises(
        ValueError, match="Argument `times` must run from the data at time 0 towards the noise at time 1"
    ):
        log_likelihood(law.score_field(), x, times=[1.0, 0.0])
    with pytest.raises(TypeError, match="Argument `field` must be a function"):
        log_likelihood(1.0, x)
