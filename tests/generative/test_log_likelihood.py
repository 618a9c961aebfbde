"""Log-likelihoods along exact fields are the densities of the mixtures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynjax import Status
from dynjax.generative import GaussianMixture, VariancePreserving, log_likelihood

TIGHT = {"rtol": 1e-10, "atol": 1e-11}


def laws() -> dict[str, GaussianMixture]:
    rng = np.random.default_rng(5)
    root = rng.standard_normal((3, 3, 3)) / 3
    return {
        "line": GaussianMixture([-2.0, 2.0], 0.25),
        "plane": GaussianMixture([[-1.0, 0.0], [1.0, 0.5]], [[0.2, 0.4], [0.5, 0.1]], [0.3, 0.7]),
        "space": GaussianMixture(rng.standard_normal((3, 3)), root @ np.swapaxes(root, 1, 2) + 0.1 * np.eye(3)),
    }


@pytest.mark.parametrize("name", ["line", "plane", "space"])
def test_flow_matching_gives_the_density(x64, name, key):
    law = laws()[name]
    points = law.sample(6, key)
    found = log_likelihood(law.flow_matching_field(), points, **TIGHT)
    np.testing.assert_allclose(found.value, jax.vmap(law.log_density)(points), atol=1e-8)
    np.testing.assert_array_equal(found.standard_error, 0)
    np.testing.assert_allclose(found.bits_per_dimension, -np.asarray(found.value) / law.size / np.log(2))
    assert np.all(np.asarray(found.status) == Status.OK)
    assert "6 of 6 OK" in str(found)


@pytest.mark.parametrize("name", ["line", "space"])
def test_the_diffusion_gives_the_density_with_its_own_base(x64, name, key):
    """With the standard normal law in place of p_T an error of the order of a(T)^2 or so is seen."""
    law = laws()[name]
    field = law.score_field(VariancePreserving.constant(1.0, 8.0))
    points = law.sample(6, key)
    exact = jax.vmap(law.log_density)(points)
    found = log_likelihood(field, points, base=field.log_noise_density, **TIGHT)
    np.testing.assert_allclose(found.value, exact, atol=1e-7)
    rough = log_likelihood(field, points, **TIGHT)
    assert 1e-4 < np.max(np.abs(rough.value - exact)) < 0.2


def test_fixed_steps_and_single_precision(key):
    law = laws()["plane"]
    points = law.sample(5, key)
    exact = jax.vmap(law.log_density)(points)
    found = log_likelihood(law.flow_matching_field(), points, num_steps=128)
    assert found.value.dtype == jnp.float32
    np.testing.assert_allclose(found.value, exact, atol=2e-4)


def test_hutchinson_is_unbiased_with_its_standard_error(x64, key):
    """Over 400 points the normalised errors have mean 0 and variance 1; they follow Student's law with 15 degrees of freedom."""
    law = laws()["space"]
    points = law.sample(400, key)
    exact = jax.vmap(law.log_density)(points)
    options = {"num_steps": 64, "times": [1.0, 0.0]}
    sampled = log_likelihood(law.flow_matching_field(), points, divergence="hutchinson", key=key, **options)
    score = np.asarray((sampled.value - exact) / sampled.standard_error)
    assert abs(score.mean()) < 3 / np.sqrt(400 * 13 / 15)
    assert 0.8 < score.std() < 1.4
    one = log_likelihood(
        law.flow_matching_field(), points[:3], divergence="hutchinson", key=key, num_probes=1, **options
    )
    assert np.all(np.isinf(one.standard_error))


def test_hutchinson_is_exact_for_isotropic_slopes(x64, key):
    """For one isotropic Gaussian the Jacobian is a multiple of the identity: every probe has the same value."""
    law = GaussianMixture([[1.0, -1.0, 0.5]], 0.3)
    found = log_likelihood(law.flow_matching_field(), jnp.zeros((2, 3)), divergence="hutchinson", key=key, **TIGHT)
    np.testing.assert_allclose(found.value, jnp.stack([law.log_density(jnp.zeros(3))] * 2), atol=1e-8)
    assert np.all(np.asarray(found.standard_error) < 1e-12)


def test_gradients_with_respect_to_the_field(x64):
    """d/dm log p(x) of the mixture, through the solver."""
    point = jnp.array([0.7])

    def through_the_flow(mean):
        field = GaussianMixture(jnp.stack([-2.0, mean]), 0.25).flow_matching_field()
        return log_likelihood(field, point, num_steps=64).value

    exact = jax.grad(lambda mean: GaussianMixture(jnp.stack([-2.0, mean]), 0.25).log_density(point))(2.0)
    np.testing.assert_allclose(jax.grad(through_the_flow)(2.0), exact, rtol=1e-5)


def test_bad_arguments(key):
    law = laws()["plane"]
    field, x = law.flow_matching_field(), jnp.zeros((2, 2))
    with pytest.raises(ValueError, match='Argument `divergence` must be "exact" or "hutchinson"'):
        log_likelihood(field, x, divergence="random")
    with pytest.raises(ValueError, match="Argument `key` must be given for Hutchinson's estimate"):
        log_likelihood(field, x, divergence="hutchinson")
    with pytest.raises(ValueError, match="Argument `num_probes` must be"):
        log_likelihood(field, x, divergence="hutchinson", key=key, num_probes=0)
    with pytest.raises(TypeError, match="Argument `base` must be a function"):
        log_likelihood(field, x, base=1.0)
    with pytest.raises(ValueError, match=r"Argument `x1` must hold points of R\^2"):
        log_likelihood(field, jnp.zeros(3))
    with pytest.raises(ValueError, match=r"Argument `times` must lie in \[0, 1\]"):
        log_likelihood(field, x, times=[2.0, 0.0])
