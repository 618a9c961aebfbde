"""The dynamical view: exponents along sampling, speciation, commitment, stiffness, Lipschitz bounds."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize

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
from dynjax.networks import lipschitz_bound
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
    np.testing.assert_allclose(ends, sample(law.flow_matching_field(), x0, num_steps=512).points, atol=1e-6)


def test_exponents_run_backwards_too(x64):
    """Along the diffusion times fall from T to 0, and the exponents are those of sampling."""
    scales = np.array([0.5, 1.5])
    field = GaussianMixture([[0.0, 0.0]], scales[None] ** 2).score_field(VariancePreserving.constant(1.0, 6.0))
    found = sampling_exponents(field, jnp.ones(2), num_steps=16)
    noise = np.sqrt(np.exp(-6) * scales**2 - np.expm1(-6))
    np.testing.assert_allclose(found.log_stretching[-1], np.sort(np.log(scales / noise))[::-1], atol=1e-7)


def test_exponents_of_a_field_without_symmetry(x64):
    """x' = A x: the singular values of expm(A t), at the start the eigenvalues of the symmetric part; forwards and backwards."""
    a = np.array([[-1.0, 4.0], [0.0, -2.0]])
    times = jnp.array([0.0, 0.3, 1.0])
    for sign in (1, -1):
        found = sampling_exponents(lambda t, x: jnp.asarray(a) @ x, jnp.ones(2), times[::sign], num_steps=64)
        elapsed = np.abs(found.times - found.times[0])[1:]
        later = [np.log(np.linalg.svd(scipy.linalg.expm(sign * a * t), compute_uv=False)) / t for t in elapsed]
        np.testing.assert_allclose(found.exponents[1:], later, atol=1e-8)
        np.testing.assert_allclose(found.exponents[0], np.linalg.eigvalsh(sign * (a + a.T) / 2)[::-1], rtol=1e-12)


def test_exponents_that_are_not_finite_have_a_status(x64):
    found = sampling_exponents(lambda t, x: x**2, jnp.array([[2.0], [0.5]]))
    assert list(np.asarray(found.status)) == [Status.NONFINITE, Status.OK]
    assert np.all(np.isnan(found.exponents[0]))
    # x = x_0 / (1 - x_0 t), of which the derivative at time 1 is 4.
    np.testing.assert_allclose(found.exponents[1, [0, -1], 0], [1.0, np.log(4)], rtol=1e-9)


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
    # With so short a horizon there are two modes from the start.
    assert np.isnan(speciation_time(two_modes().score_field(VariancePreserving.constant(1.0, 0.5))))
    with pytest.raises(TypeError, match="Argument `field` must be the exact field of a mixture"):
        speciation_time(lambda t, x: x)


@eqx.filter_jit
def _log_densities(law, points):
    return jax.vmap(law.log_density)(points)


def test_the_law_has_one_mode_before_speciation_and_two_after(x64):
    """Along the line through two modes of a full, turned covariance, by counting the maxima of the density."""
    covariance = np.array([[0.4, 0.15], [0.15, 0.3]])
    law = GaussianMixture([[-1.5, -1.0], [1.5, 1.0]], np.stack([covariance] * 2))
    for field in (law.flow_matching_field(), law.score_field()):
        time = float(speciation_time(field))
        step = 0.02 * (field.data_time - float(field.noise_time))
        # The score vanishes only on this line, at a times a mean of the means.
        line = jnp.linspace(-2, 2, 2001)[:, None] * law.means[1]
        counts = []
        for t in (time - step, time + step):
            now = field.law(t)
            values = np.asarray(_log_densities(now, line))
            counts.append(np.sum((values[1:-1] > values[:-2]) & (values[1:-1] > values[2:])))
        assert counts == [1, 2]


def test_commitment_to_two_modes(x64, key):
    """At the speciation time 47.9 per cent of the points of two modes have committed at 0.9, whatever the modes."""
    law = two_modes()
    field = law.flow_matching_field()
    found = commitment_times(field, jax.random.normal(key, (2000, 2)), num_steps=4)
    np.testing.assert_array_equal(found.modes, (np.asarray(found.points)[:, 0] > 0).astype(int))
    share = float(jnp.mean(found.times <= speciation_time(field)))
    assert abs(share - 0.479) < 3 * np.sqrt(0.479 * 0.521 / 2000)
    # The responsibility is the threshold at that time.
    late = np.flatnonzero(np.asarray(found.times) > 0.1)[:5]
    for i in late:
        x = sample(
            field, jax.random.normal(key, (2000, 2))[i], times=[0.0, float(found.times[i])], num_steps=256
        ).points
        np.testing.assert_allclose(field.law(found.times[i]).responsibilities(x)[found.modes[i]], 0.9, atol=2e-3)
    assert "2000 of 2000 OK" in str(found)


def test_commitment_is_the_last_crossing(x64):
    """A path x(t) = -1.5 cos(3 pi t) that visits the right mode, leaves it and comes back for good, against a root finder."""
    exact = two_modes().flow_matching_field()
    path = lambda t: -1.5 * np.cos(3 * np.pi * t)
    found = commitment_times(_wandering, jnp.array([path(0.0), 0.0]), exact=exact, num_times=513)
    # The log-odds of +m against -m at x are 2 t m x / ((1 - t)^2 + t^2 s^2).
    excess = lambda t: 4 * t * path(t) / ((1 - t) ** 2 + 0.25 * t**2) - np.log(9)
    assert excess(1 / 3) > 0
    np.testing.assert_allclose(found.times, scipy.optimize.brentq(excess, 5 / 6, 0.99), atol=1e-5)
    assert int(found.modes) == 1


def _wandering(t, x):
    return jnp.stack([4.5 * jnp.pi * jnp.sin(3 * jnp.pi * t), jnp.zeros_like(x[1])])


def test_between_modes_that_overlap_no_point_is_committed(x64):
    field = two_modes(0.3, 1.0).flow_matching_field()
    found = commitment_times(field, jnp.array([[0.1, 0.0], [6.0, 0.0]]), num_times=17, num_steps=4)
    assert np.isnan(found.times[0])
    assert 0 < found.times[1] < 1


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


def test_stiffness_of_a_field_without_symmetry(x64):
    """Eigenvalues, norm and growth are different numbers: x' = (A + t) x with A not normal, and a rotation."""
    a = np.array([[-1.0, 4.0, 0.0], [0.0, -2.0, 3.0], [0.0, 0.0, 0.5]])
    found = stiffness(lambda t, x: jnp.asarray(a) @ x + t * x, jnp.ones((2, 3)), [0.0, 1.0])
    for i, matrix in enumerate((a, a + np.eye(3))):
        np.testing.assert_allclose([found.abscissa[i], found.least_real[i]], [0.5 + i, -2 + i], atol=1e-12)
        np.testing.assert_allclose(found.radius[i], max(2 - i, 0.5 + i), rtol=1e-12)
        np.testing.assert_allclose(found.norm[i], np.linalg.norm(matrix, 2), rtol=1e-12)
        np.testing.assert_allclose(found.growth[i], np.linalg.eigvalsh((matrix + matrix.T) / 2)[-1], rtol=1e-12)
    turn = stiffness(lambda t, x: 3 * jnp.array([-x[1], x[0]]), jnp.ones(2), 0.5)
    np.testing.assert_allclose([turn.abscissa, turn.radius, turn.norm, turn.growth], [0, 3, 3, 0], atol=1e-12)
    assert np.isnan(stiffness(lambda t, x: 1 / x, jnp.zeros(1), 0.5).radius)


def test_stiffness_near_the_data(x64):
    """In the centre of a narrow mode the eigenvalue is about -1/(1 - t) until 1 - t is about s, then it turns to 1."""
    scale = 1e-3
    field = two_modes(variance=scale**2).flow_matching_field()
    left = np.array([0.1, 0.03, 0.01, scale, 0.0])
    points = (1 - left)[:, None] * np.array([2.0, 0.0])
    found = stiffness(field, points, 1 - left)
    slope = ((1 - left) * scale**2 - left) / (left**2 + ((1 - left) * scale) ** 2)
    np.testing.assert_allclose(found.least_real[1:], slope[1:], rtol=1e-9)
    np.testing.assert_allclose(found.least_real[:3], -1 / left[:3], rtol=0.02)
    np.testing.assert_allclose(found.least_real[3], -1 / (2 * scale), rtol=0.01)
    assert found.least_real[4] == 1


@pytest.mark.parametrize("name", ["flow matching", "diffusion"])
def test_slope_ranges_of_any_common_covariance(x64, key, name):
    """Three modes of a full covariance: all eigenvalues at all points lie in the range, for both signs of the mixing term."""
    covariance = np.array([[0.5, 0.3], [0.3, 0.4]])
    law = GaussianMixture([[-1.5, 0.0], [1.0, 1.0], [0.5, -1.5]], np.stack([covariance] * 3), [0.2, 0.5, 0.3])
    field = law.flow_matching_field() if name == "flow matching" else law.score_field()
    times, points = jnp.linspace(0, 1, 21), 2 * jax.random.normal(key, (21, 300, 2))
    low, high = jax.vmap(field.slope_range_at)(times)
    found = stiffness(field, points, times[:, None])
    assert np.all(np.max(found.growth, 1) <= high + 1e-9)
    assert np.all(np.min(found.least_real, 1) >= low - 1e-9)
    bounds = lipschitz_profile(field, times if name == "flow matching" else times[::-1]).bounds
    expected = np.maximum(np.abs(low), np.abs(high))
    np.testing.assert_allclose(bounds if name == "flow matching" else bounds[::-1], expected, rtol=1e-12)
    assert np.all(np.max(found.norm, 1) <= expected + 1e-9)


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


@eqx.filter_jit
def _values(field, t, points):
    return jax.vmap(lambda x: field(t, x))(points)


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
            gaps = _values(field, t, first) - _values(field, t, second)
            quotients = np.linalg.norm(gaps, order, axis=1) / np.linalg.norm(first - second, order, axis=1)
            assert np.max(quotients) <= float(bound) * (1 + 1e-12), (name, float(t))
        if name == "velocity":
            np.testing.assert_array_equal(profile.bounds, lipschitz_bound(field, norm))
    assert "largest bound" in str(profile)


def test_expansion_is_the_integral_of_the_bound(x64):
    """For a single Gaussian: the trapezoidal rule against the integral of the closed form, forwards and backwards in time."""
    field = GaussianMixture([[0.0, 0.0]], 1.0).flow_matching_field()
    profile = lipschitz_profile(field, jnp.linspace(0, 1, 2001))
    # |t - (1 - t)| / ((1 - t)^2 + t^2), of which the integral is log 2.
    np.testing.assert_allclose(profile.log_expansion[-1], np.log(2), rtol=1e-6)
    # With the variance C of the state the slope of a diffusion is C' / (2 C), of one sign here.
    path = VariancePreserving.constant(1.0, 4.0)
    field = GaussianMixture([[0.0, 0.0]], 0.1).score_field(path)
    profile = lipschitz_profile(field, jnp.linspace(4, 0, 4001))
    np.testing.assert_allclose(profile.log_expansion[-1], np.log((1 - 0.9 * np.exp(-4)) / 0.1) / 2, rtol=1e-5)
    assert np.all(np.diff(profile.log_expansion) > 0)


def test_bounds_are_no_larger_than_they_need_be(x64, key):
    """Of an affine field the norm of the block of x; of modes askew to the axes a sup norm above the Euclidean one."""
    field = VelocityField(2, hidden=(), key=key, dtype=jnp.float64)
    block = np.asarray(field.network.mlp.weights[0])[:, :2]
    for norm, order in (("euclidean", 2), ("sup", np.inf)):
        np.testing.assert_allclose(lipschitz_profile(field, norm=norm).bounds, np.linalg.norm(block, order), rtol=1e-12)
    mode = np.array([np.cos(np.pi / 8), np.sin(np.pi / 8)])
    field = GaussianMixture(np.stack([-mode, mode]), 0.25).flow_matching_field()
    times = jnp.linspace(0.3, 0.7, 41)
    jacobians = jax.vmap(lambda t: jax.jacfwd(lambda x: field(t, x))(jnp.zeros(2)))(times)
    needed = np.max(np.sum(np.abs(jacobians), 2), 1)
    assert np.all(needed <= lipschitz_profile(field, times, norm="sup").bounds)
    assert np.max(needed / lipschitz_profile(field, times).bounds) > 1.2


def test_wasserstein_by_brute_force():
    rng = np.random.default_rng(8)
    x, y = rng.standard_normal((2, 6, 3))
    costs = [np.mean(np.sum((x - y[list(order)]) ** 2, 1)) for order in itertools.permutations(range(6))]
    np.testing.assert_allclose(wasserstein2(x, y), np.sqrt(min(costs)), rtol=1e-12)
    np.testing.assert_allclose(wasserstein2(x, y), wasserstein2(y, x), rtol=1e-12)
    assert wasserstein2(x, x[::-1]) < 1e-7
    shift = np.array([3.0, -1.0, 0.5])
    np.testing.assert_allclose(wasserstein2(x, x + shift), np.linalg.norm(shift), rtol=1e-12)
    np.testing.assert_allclose(wasserstein2(x + shift, y + shift), wasserstein2(x, y), rtol=1e-12)
    # W2^2 is that of the centred samples plus the square of the distance of the means.
    apart = np.sum((x.mean(0) - y.mean(0)) ** 2)
    centred = wasserstein2(x - x.mean(0), y - y.mean(0))
    np.testing.assert_allclose(wasserstein2(x, y) ** 2, centred**2 + apart, rtol=1e-12)
    np.testing.assert_allclose(wasserstein2(3 * x, 3 * y), 3 * wasserstein2(x, y), rtol=1e-12)
    # On the line sorted points belong together.
    first, second = rng.standard_normal((2, 200, 1))
    squares = (np.sort(first[:, 0]) - np.sort(second[:, 0])) ** 2
    np.testing.assert_allclose(wasserstein2(first, second), np.sqrt(squares.mean()), rtol=1e-12)


def test_bad_arguments(key):
    law = two_modes()
    field, x = law.flow_matching_field(), jnp.zeros((3, 2))
    uneven = GaussianMixture([[0.0, 0.0], [1.0, 1.0]], [0.1, 0.4])
    with pytest.raises(ValueError, match="Argument `covariances` must be equal for all modes"):
        lipschitz_profile(uneven.flow_matching_field())
    with pytest.raises(ValueError, match='Argument `norm` must be "sup" or "euclidean"'):
        lipschitz_profile(field, norm="l1")
    with pytest.raises(ValueError, match='Argument `norm` must be "sup" or "euclidean"'):
        field.lipschitz_bound_at(0.5, "l1")
    with pytest.raises(TypeError, match="Argument `field` must be one of the fields with a known bound"):
        lipschitz_profile(lambda t, x: x)
    with pytest.raises(ValueError, match="Argument `times` must be strictly monotone"):
        lipschitz_profile(field, [0.0, 0.5, 0.4])
    with pytest.raises(ValueError, match=r"Argument `times` must lie in \[0, 1\]"):
        lipschitz_profile(field, [0.0, 1.5])
    with pytest.raises(ValueError, match=r"Argument `t` must lie in \[0, 1\]"):
        stiffness(field, x, 2.0)
    with pytest.raises(ValueError, match="Argument `t` must broadcast"):
        stiffness(field, x, jnp.zeros(2))
    with pytest.raises(ValueError, match=r"Argument `x0` must hold points of R\^2"):
        sampling_exponents(field, jnp.zeros((3, 3)))
    with pytest.raises(ValueError, match=r"Argument `times` must lie in \[0, 1\]"):
        sampling_exponents(field, x, [0.0, 2.0])
    with pytest.raises(ValueError, match="Argument `num_steps` must be"):
        sampling_exponents(field, x, num_steps=0)
    with pytest.raises(TypeError, match="Argument `field` must be a function"):
        sampling_exponents(None, x)
    with pytest.raises(TypeError, match="Argument `field` must be a function"):
        stiffness(None, x, 0.5)
    with pytest.raises(ValueError, match=r"Argument `x` must hold points of R\^2"):
        stiffness(field, jnp.zeros((3, 3)), 0.5)
    with pytest.raises(TypeError, match="Argument `exact` must be a MixtureField"):
        commitment_times(VelocityField(2, hidden=(4,), key=key), x)
    with pytest.raises(ValueError, match=r"Argument `threshold` must lie in \[1/2, 1\)"):
        commitment_times(field, x, threshold=1.0)
    with pytest.raises(ValueError, match=r"Argument `threshold` must lie in \[1/2, 1\)"):
        commitment_times(field, x, threshold=np.array([0.8, 0.9]))
    with pytest.raises(ValueError, match="Argument `exact` must have noise and data at the times 0 and 1 of `field`"):
        commitment_times(field, x, exact=law.score_field())
    with pytest.raises(ValueError, match=r"Argument `x0` must hold points of R\^2"):
        commitment_times(field, jnp.zeros(3))
    with pytest.raises(ValueError, match="Argument `num_times` must be"):
        commitment_times(field, x, num_times=1)
    with pytest.raises(ValueError, match=r"Argument `y` must have the shape \(3, 2\)"):
        wasserstein2(np.zeros((3, 2)), np.zeros((4, 2)))
    with pytest.raises(ValueError, match="Argument `x` must be finite"):
        wasserstein2(np.full((3, 2), np.nan), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="Argument `x` must be points of shape"):
        wasserstein2(np.zeros(3), np.zeros(3))
    with pytest.raises(TypeError, match="Argument `x` must hold known points"):
        jax.jit(lambda x: wasserstein2(x, x))(x)
