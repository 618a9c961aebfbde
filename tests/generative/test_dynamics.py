"""The dynamical view: exponents along sampling, speciation, commitment, stiffness, Lipschitz bounds."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynjax import Status
from dynjax.generative import (
    GaussianMixture,
    ScoreField,
    VariancePreserving,
    VelocityField,
    commitment_times,
    lipschitz_profile,
    sample,
    sampling_exponents,
    speciation_time,
    stiffness,
    wasserstein2,
)
from dynjax.reference import gaussian_flow_exponents, gaussian_flow_slope_range, two_mode_speciation_ratio


def two_modes(distance=2.0, variance=0.25) -> GaussianMixture:
    return GaussianMixture([[-distance, 0.0], [distance, 0.0]], variance)


def test_exponents_of_a_gaussian(x64, key):
    """log sqrt((1 - t)^2 + t^2 s_i^2) / t, the same from everywhere."""
    scales = np.array([0.5, 1.5])
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    law = GaussianMixture([[1.0, -1.0]], (turn * scales**2 @ turn.T)[None])
    times = jnp.array([0.0, 0.2, 0.7, 1.0])
    found = sampling_exponents(law.flow_matching_field(), jax.random.normal(key, (3, 2)), times, num_steps=64)
    expected = jnp.stack([gaussian_flow_exponents(scales, t) for t in times])
    np.testing.assert_allclose(found.exponents, np.broadcast_to(expected, (3, 4, 2)), atol=1e-8)
    np.testing.assert_allclose(found.log_stretching[:, -1], np.broadcast_to(np.log(scales[::-1]), (3, 2)), atol=1e-8)
    assert np.all(np.asarray(found.status) == Status.OK)
    assert "3 of 3 OK" in str(found)


def test_exponents_add_up_to_the_divergence(x64, key):
    """The sum of the logarithms of all singular values is log |det D|, what likelihoods integrate."""
    law = two_modes()
    x0 = jax.random.normal(key, (4, 2))
    found = sampling_exponents(law.flow_matching_field(), x0, num_steps=16)
    ends = found.path[:, -1]
    normal = -jnp.sum(x0**2, -1) / 2 - np.log(2 * np.pi)
    expected = normal - jax.vmap(law.log_density)(ends)
    np.testing.assert_allclose(jnp.sum(found.log_stretching[:, -1], -1), expected, atol=1e-6)
    np.testing.assert_allclose(ends, sample(law.flow_matching_field(), x0, rtol=1e-10, atol=1e-10).points, atol=1e-6)


def test_exponents_run_backwards_too(x64):
    """Along the diffusion times fall from T to 0, and the exponents are those of sampling."""
    scales = np.array([0.5, 1.5])
    field = GaussianMixture([[0.0, 0.0]], scales[None] ** 2).score_field(VariancePreserving.constant(1.0, 6.0))
    found = sampling_exponents(field, jnp.ones(2), num_steps=16)
    noise = np.sqrt(np.exp(-6) * scales**2 - np.expm1(-6))
    np.testing.assert_allclose(found.log_stretching[-1], np.sort(np.log(scales / noise))[::-1], atol=1e-7)


def test_speciation_of_two_modes(x64):
    for distance, variance in ((2.0, 0.25), (1.0, 0.04)):
        law = two_modes(distance, variance)
        ratio = float(two_mode_speciation_ratio(distance, variance**0.5))
        np.testing.assert_allclose(ratio, np.sqrt(distance**2 - variance), rtol=1e-14)
        np.testing.assert_allclose(speciation_time(law.flow_matching_field()), 1 / (1 + ratio), rtol=1e-12)
        path = VariancePreserving.constant(1.0, 8.0)
        time = speciation_time(law.score_field(path))
        np.testing.assert_allclose(path.coefficients(time).signal, (1 + ratio**2) ** -0.5, rtol=1e-12)


def test_speciation_has_a_derivative_and_may_not_happen(x64):
    time = lambda distance: speciation_time(two_modes(distance).flow_matching_field())
    exact = lambda distance: 1 / (1 + jnp.sqrt(distance**2 - 0.25))
    np.testing.assert_allclose(jax.grad(time)(2.0), jax.grad(exact)(2.0), rtol=1e-9)
    assert np.isnan(speciation_time(two_modes(0.3, 1.0).flow_matching_field()))
    assert np.isnan(two_mode_speciation_ratio(0.3, 1.0))
    with pytest.raises(TypeError, match="Argument `field` must be the exact field of a mixture"):
        speciation_time(lambda t, x: x)


def test_commitment_to_two_modes(x64, key):
    """At the speciation time 47.9 per cent of the points of two modes have committed at 0.9, whatever the modes."""
    law = two_modes()
    field = law.flow_matching_field()
    found = commitment_times(field, jax.random.normal(key, (4000, 2)), num_steps=4)
    np.testing.assert_array_equal(found.modes, (np.asarray(found.points)[:, 0] > 0).astype(int))
    share = float(jnp.mean(found.times <= speciation_time(field)))
    assert abs(share - 0.479) < 3 * np.sqrt(0.479 * 0.521 / 4000) + 0.002
    # The responsibility is the threshold at that time.
    late = np.flatnonzero(np.asarray(found.times) > 0.1)[:5]
    for i in late:
        x = sample(
            field, jax.random.normal(key, (4000, 2))[i], times=[0.0, float(found.times[i])], num_steps=256
        ).points
        np.testing.assert_allclose(field.law(found.times[i]).responsibilities(x)[found.modes[i]], 0.9, atol=2e-3)
    assert "4000 of 4000 OK" in str(found)


def test_a_single_mode_is_committed_from_the_start(x64, key):
    field = GaussianMixture([[0.0, 0.0]]).flow_matching_field()
    np.testing.assert_array_equal(
        commitment_times(field, jax.random.normal(key, (3, 2)), num_times=5, num_steps=2).times, 0
    )


def test_stiffness_of_a_gaussian(x64):
    """The slope is the same everywhere, and its range over all times the closed one."""
    for scale in (0.2, 3.0):
        field = GaussianMixture([[1.0, 0.0]], scale**2).flow_matching_field()
        times = jnp.linspace(0, 1, 4001)
        found = stiffness(field, jnp.zeros((4001, 2)), times)
        low, high = gaussian_flow_slope_range(scale)
        np.testing.assert_allclose(jnp.min(found.least_real), low, rtol=1e-5)
        np.testing.assert_allclose(jnp.max(found.abscissa), high, rtol=1e-5)
        np.testing.assert_allclose(found.radius, found.norm, rtol=1e-9)
        np.testing.assert_allclose(found.growth, found.abscissa, atol=1e-9)
    assert "norm up to" in str(found)


def test_slope_ranges_hold_and_are_sharp_for_two_modes(x64, key):
    """The top is reached in the middle between two modes, the bottom far away."""
    field = two_modes().flow_matching_field()
    times = jnp.linspace(0.02, 0.98, 25)
    points = 3 * jax.random.normal(key, (400, 2))
    for t in times:
        low, high = field.slope_range_at(t)
        found = stiffness(field, points, t)
        assert float(jnp.max(found.growth)) <= float(high) + 1e-9
        assert float(jnp.min(found.least_real)) >= float(low) - 1e-9
        middle = stiffness(field, jnp.zeros((1, 2)), t)
        far = stiffness(field, jnp.array([[500.0, 0.0]]), t)
        np.testing.assert_allclose(middle.abscissa[0], high, rtol=1e-9)
        np.testing.assert_allclose(far.least_real[0], low, rtol=1e-9)


@pytest.mark.parametrize("norm", ["euclidean", "sup"])
def test_lipschitz_bounds_hold(x64, key, norm):
    order = 2 if norm == "euclidean" else np.inf
    first, second = 2 * jax.random.normal(key, (2, 300, 2))
    fields = {
        "exact": two_modes().flow_matching_field(),
        "velocity": VelocityField(2, hidden=(16, 16), key=key, dtype=jnp.float64),
        "score": ScoreField(2, hidden=(16,), key=key, dtype=jnp.float64),
    }
    for name, field in fields.items():
        times = jnp.linspace(0, 1, 5)
        profile = lipschitz_profile(field, times if name != "score" else times[::-1], norm=norm)
        for t, bound in zip(profile.times, profile.bounds, strict=True):
            gaps = jax.vmap(lambda x, t=t, field=field: field(t, x))(first) - jax.vmap(
                lambda x, t=t, field=field: field(t, x)
            )(second)
            quotients = np.linalg.norm(gaps, order, axis=1) / np.linalg.norm(first - second, order, axis=1)
            assert np.max(quotients) <= float(bound) * (1 + 1e-12), (name, float(t))
    assert "largest bound" in str(profile)


def test_expansion_is_the_integral_of_the_bound(x64):
    """The slopes between two tight modes: the trapezoidal rule against the integral of the closed form."""
    field = GaussianMixture([[0.0, 0.0]], 1.0).flow_matching_field()
    profile = lipschitz_profile(field, jnp.linspace(0, 1, 2001))
    # |t - (1 - t)| / ((1 - t)^2 + t^2), of which the integral is log 2.
    np.testing.assert_allclose(profile.log_expansion[-1], np.log(2), rtol=1e-6)


def test_wasserstein_by_brute_force():
    rng = np.random.default_rng(8)
    x, y = rng.standard_normal((2, 6, 3))
    costs = [np.mean(np.sum((x - y[list(order)]) ** 2, 1)) for order in itertools.permutations(range(6))]
    np.testing.assert_allclose(wasserstein2(x, y), np.sqrt(min(costs)), rtol=1e-12)
    np.testing.assert_allclose(wasserstein2(x, y), wasserstein2(y, x), rtol=1e-12)
    assert wasserstein2(x, x[::-1]) < 1e-7
    np.testing.assert_allclose(wasserstein2(x, x + 2.0), 2 * np.sqrt(3), rtol=1e-12)


def test_bad_arguments(key):
    law = two_modes()
    field, x = law.flow_matching_field(), jnp.zeros((3, 2))
    uneven = GaussianMixture([[0.0, 0.0], [1.0, 1.0]], [0.1, 0.4])
    with pytest.raises(ValueError, match="Argument `covariances` must be equal for all modes"):
        lipschitz_profile(uneven.flow_matching_field())
    with pytest.raises(ValueError, match='Argument `norm` must be "sup" or "euclidean"'):
        lipschitz_profile(field, norm="l1")
    with pytest.raises(TypeError):
        lipschitz_profile(lambda t, x: x)
    with pytest.raises(ValueError, match=r"Argument `t` must lie in \[0, 1\]"):
        stiffness(field, x, 2.0)
    with pytest.raises(ValueError, match="Argument `t` must broadcast"):
        stiffness(field, x, jnp.zeros(2))
    with pytest.raises(ValueError, match=r"Argument `x0` must hold points of R\^2"):
        sampling_exponents(field, jnp.zeros((3, 3)))
    with pytest.raises(TypeError, match="Argument `exact` must be a MixtureField"):
        commitment_times(VelocityField(2, hidden=(4,), key=key), x)
    with pytest.raises(ValueError, match=r"Argument `threshold` must lie in \[1/2, 1\)"):
        commitment_times(field, x, threshold=1.0)
    with pytest.raises(ValueError, match=r"Argument `y` must have the shape \(3, 2\)"):
        wasserstein2(np.zeros((3, 2)), np.zeros((4, 2)))
    with pytest.raises(ValueError, match="Argument `x` must be finite"):
        wasserstein2(np.full((3, 2), np.nan), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="Argument `x` must be points of shape"):
        wasserstein2(np.zeros(3), np.zeros(3))
    with pytest.raises(TypeError, match="Argument `x` must hold known points"):
        jax.jit(lambda x: wasserstein2(x, x))(x)
    with pytest.raises(ValueError, match="must lie in"):
        gaussian_flow_exponents(np.ones(2), 1.5)
    with pytest.raises(ValueError, match="Argument `scale` must be positive"):
        gaussian_flow_slope_range(0.0)
