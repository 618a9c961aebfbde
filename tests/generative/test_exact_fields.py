"""Gaussian mixtures and their exact fields against closed forms, monotone transport and the continuity equation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from dynjax import Status
from dynjax.generative import GaussianMixture, MixtureField, StraightLine, VariancePreserving, sample
from dynjax.reference import LineMixture, monotone_transport, variance_preserving_transport

MEANS = np.array([[-1.5, 0.3], [1.0, 1.2], [0.2, -1.4]])
FULL = np.array([[[0.4, 0.1], [0.1, 0.3]], [[0.2, 0.0], [0.0, 0.5]], [[0.3, -0.2], [-0.2, 0.6]]])
WEIGHTS = np.array([0.5, 0.3, 0.2])
FORMS = {"isotropic": np.array([0.3, 0.2, 0.5]), "diagonal": FULL[:, [0, 1], [0, 1]], "full": FULL}


def mixture(form: str) -> GaussianMixture:
    return GaussianMixture(MEANS, FORMS[form], WEIGHTS)


@pytest.mark.parametrize("form", FORMS)
def test_density_score_and_responsibilities(x64, form):
    law = mixture(form)
    points = np.random.default_rng(0).standard_normal((7, 2))
    covariances = np.asarray(law.full_covariances)
    parts = np.stack(
        [
            w * scipy.stats.multivariate_normal(m, s).pdf(points)
            for w, m, s in zip(WEIGHTS, MEANS, covariances, strict=True)
        ]
    )
    np.testing.assert_allclose(jax.vmap(law.log_density)(points), np.log(parts.sum(0)), rtol=1e-12)
    np.testing.assert_allclose(jax.vmap(law.responsibilities)(points).T, parts / parts.sum(0), rtol=1e-11)
    np.testing.assert_allclose(jax.vmap(law.score)(points), jax.vmap(jax.grad(law.log_density))(points), rtol=1e-11)


@pytest.mark.parametrize("form", FORMS)
def test_samples_have_the_moments_of_the_law(x64, form, key):
    law = mixture(form)
    n = 40_000
    points = np.asarray(law.sample(n, key))
    mean, covariance = np.asarray(law.mean), np.asarray(law.covariance)
    assert np.all(np.abs(points.mean(0) - mean) < 4 * np.sqrt(np.diag(covariance) / n))
    squares = (points - mean)[:, :, None] * (points - mean)[:, None]
    assert np.all(np.abs(squares.mean(0) - covariance) < 4 * squares.std(0) / np.sqrt(n))


def test_densities_hold_far_out(x64):
    law = two_modes()
    far = jnp.array([60.0])
    np.testing.assert_allclose(law.log_density(far), np.log(0.5) + scipy.stats.norm(2, 0.5).logpdf(60.0), rtol=1e-13)
    np.testing.assert_allclose(law.score(far), [-58 / 0.25], rtol=1e-13)


def field_of(name: str, form: str) -> MixtureField:
    return mixture(form).flow_matching_field() if name == "flow matching" else mixture(form).score_field()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["flow matching", "diffusion"])
def test_continuity_equation(x64, name, form):
    """d/dt p + div (p u) = 0, here divided by p, at any time and point; the field is a gradient, and the score that of log p."""
    field = field_of(name, form)

    def residuals(t, x):
        slope, score = jax.grad(lambda t, x: field.law(t).log_density(x), (0, 1))(t, x)
        jacobian = jax.jacfwd(lambda x: field(t, x))(x)
        continuity = slope + jnp.trace(jacobian) + field(t, x) @ score
        return continuity, jacobian - jacobian.T, field.score(t, x) - score

    rng = np.random.default_rng(1)
    points, times = 1.5 * rng.standard_normal((50, 2)), rng.uniform(0.01, 0.99, 50)
    for residual in jax.jit(jax.vmap(residuals))(times, points):
        np.testing.assert_allclose(residual, 0, atol=1e-12)


def test_laws_on_the_way(x64):
    """Moments of x_t = a x + b z; at the ends of a diffusion the law of the data and very nearly N(0, I)."""
    law = mixture("diagonal")
    found = law.flow_density(0.3)
    np.testing.assert_allclose(found.mean, 0.3 * law.mean, rtol=1e-13)
    np.testing.assert_allclose(found.covariance, 0.09 * law.covariance + 0.49 * np.eye(2), rtol=1e-13)
    field = law.score_field()
    np.testing.assert_array_equal(field.law(0.0).covariances, law.covariances)
    x = jnp.array([0.3, -1.2])
    normal = jax.scipy.stats.norm.logpdf(x).sum()
    assert 1e-5 < abs(float(field.log_noise_density(x) - normal)) < 0.01  # of the order of a(T) = 0.0066


def test_velocity_and_score_are_tied(x64):
    """u = x / t + (1 - t) / t score for flow matching, -(beta / 2) (x + score) for the diffusion."""
    points = np.random.default_rng(2).standard_normal((6, 2))
    straight, noisy = field_of("flow matching", "full"), field_of("diffusion", "full")
    t = 0.37
    velocity, score = (jax.vmap(lambda x, f=f: f(t, x))(points) for f in (straight, straight.score))
    np.testing.assert_allclose(velocity, points / t + (1 - t) / t * score, rtol=1e-11, atol=1e-12)
    velocity, score = (jax.vmap(lambda x, f=f: f(t, x))(points) for f in (noisy, noisy.score))
    np.testing.assert_allclose(velocity, -noisy.path.rate(t) / 2 * (points + score), rtol=1e-11, atol=1e-12)


START = np.array([[0.5], [1.0], [-2.5], [0.0], [2.2]])
TIGHT = {"rtol": 1e-11, "atol": 1e-12}


def two_modes() -> GaussianMixture:
    return GaussianMixture([-2.0, 2.0], 0.25)


def test_rows_of_the_table_of_reference_values(x64):
    """Rows 22 and 23."""
    out = sample(two_modes().flow_matching_field(), START, **TIGHT)
    np.testing.assert_allclose(out.points[:2, 0], [1.851096089584, 2.237616424624], rtol=0, atol=1e-10)
    out = sample(two_modes().score_field(VariancePreserving.constant(1.0, 8.0)), START, **TIGHT)
    np.testing.assert_allclose(out.points[0, 0], 1.850844625987, rtol=0, atol=1e-10)
    assert np.all(np.asarray(out.status) == Status.OK)


@pytest.mark.parametrize(
    ("weights", "means", "variances"),
    [
        ([0.2, 0.8], [-1.0, 3.0], [0.1, 0.6]),
        ([0.95, 0.05], [0.0, 0.5], [2.0, 0.01]),
        ([0.5, 0.5], [4.0, 4.0], [0.3, 0.3]),
    ],
)
def test_sampling_is_the_monotone_transport_and_encoding_inverts_it(x64, weights, means, variances):
    law = GaussianMixture(means, variances, weights)
    line, normal = law.as_line(), LineMixture([1.0], [0.0], [1.0])
    field = law.flow_matching_field()
    ends = sample(field, START, **TIGHT).points
    np.testing.assert_allclose(ends[:, 0], [monotone_transport(x, normal, line) for x in START[:, 0]], rtol=1e-9)
    np.testing.assert_allclose(sample(field, ends, times=[1.0, 0.0], **TIGHT).points, START, atol=1e-8)
    horizon = 5.0
    field = law.score_field(VariancePreserving.constant(1.0, horizon))
    ends = sample(field, START, **TIGHT).points[:, 0]
    expected = [variance_preserving_transport(x, horizon, line) for x in START[:, 0]]
    np.testing.assert_allclose(ends, expected, rtol=1e-9)


def test_fixed_steps_converge_with_order_four(x64):
    field = two_modes().flow_matching_field()
    x = jnp.array([0.5])
    errors = [float(abs(sample(field, x, num_steps=n).points[0] - 1.851096089584)) for n in (32, 64)]
    assert 14 < errors[0] / errors[1] < 18


def test_paths_and_times(x64):
    """The path holds the points at all times; the whole runs under jit and vmap, and in reverse mode."""
    field = mixture("diagonal").flow_matching_field()
    start = jnp.asarray(np.random.default_rng(4).standard_normal((2, 3, 2)))
    times = jnp.array([0.0, 0.4, 1.0])
    out = sample(field, start, times=times, num_steps=16)
    assert out.path.shape == (2, 3, 3, 2)
    np.testing.assert_array_equal(out.path[..., 0, :], start)
    half = sample(field, start, times=[0.0, 0.4], num_steps=16).points
    np.testing.assert_allclose(out.path[..., 1, :], half, rtol=1e-13)
    np.testing.assert_allclose(jax.jit(lambda x: sample(field, x, num_steps=16).points)(start)[0, 0].shape, (2,))

    def end(shift):
        law = GaussianMixture(MEANS + shift, FORMS["diagonal"], WEIGHTS)
        return jnp.sum(sample(law.flow_matching_field(), start[0], num_steps=16).points)

    slope, step = jax.grad(end)(0.1), 1e-5
    np.testing.assert_allclose(slope, (end(0.1 + step) - end(0.1 - step)) / (2 * step), rtol=1e-7)
    assert "3 times" in str(out)
    assert "6 of 6 OK" in str(out)


def test_single_precision():
    law = two_modes()
    out = sample(law.flow_matching_field(), jnp.array([0.5]))
    assert out.points.dtype == jnp.float32
    np.testing.assert_allclose(out.points, [1.8510961], rtol=1e-4)
    np.testing.assert_allclose(
        sample(law.flow_matching_field(), jnp.array([0.5]), num_steps=64).points, [1.8510961], rtol=2e-5
    )


def test_coefficients_of_the_paths(x64):
    """Slopes are derivatives, the variance is preserved, and the ends are noise and data."""
    for path, preserving in ((StraightLine(), False), (VariancePreserving(0.1, 20.0, 1.0), True)):
        noise, data = path.coefficients(path.noise_time), path.coefficients(path.data_time)
        assert float(data.signal) == 1
        assert float(data.noise_variance) == 0
        assert float(noise.signal) < 0.01
        t = 0.6
        now = path.coefficients(t)
        slope = jax.grad(lambda s, path=path: path.coefficients(s).signal)(t)
        variance_slope = jax.grad(lambda s, path=path: path.coefficients(s).noise_variance)(t)
        np.testing.assert_allclose([slope, variance_slope / 2], [now.signal_slope, now.noise_slope], rtol=1e-13)
        if preserving:
            np.testing.assert_allclose(now.signal**2 + now.noise_variance, 1, rtol=1e-14)
    np.testing.assert_allclose(VariancePreserving.constant(1.0, 8.0).coefficients(8.0).signal, np.exp(-4), rtol=1e-14)


def test_bad_mixtures():
    with pytest.raises(ValueError, match="Argument `means` must have the shape"):
        GaussianMixture(np.zeros((2, 2, 2)))
    with pytest.raises(ValueError, match="Argument `covariances` must be one number or have one of the shapes"):
        GaussianMixture(np.zeros((2, 2)), np.ones(3))
    with pytest.raises(ValueError, match="Argument `covariances` must be symmetric"):
        GaussianMixture(np.zeros((1, 2)), [[[1.0, 0.5], [0.0, 1.0]]])
    with pytest.raises(ValueError, match="Argument `covariances` must be positive definite"):
        GaussianMixture(np.zeros((1, 2)), [[[1.0, 2.0], [2.0, 1.0]]])
    with pytest.raises(ValueError, match="the smallest variance is -1"):
        GaussianMixture([0.0], -1.0)
    with pytest.raises(ValueError, match="the smallest variance is nan"):
        GaussianMixture([0.0], np.nan)
    with pytest.raises(ValueError, match="Argument `means` must be finite"):
        GaussianMixture([0.0, np.nan])
    with pytest.raises(ValueError, match=r"Argument `weights` must have the sum one, but it is 0\.89"):
        GaussianMixture([0.0, 1.0], 1.0, [0.5, 0.4])
    with pytest.raises(ValueError, match="Argument `weights` must be positive"):
        GaussianMixture([0.0, 1.0], 1.0, [1.5, -0.5])
    with pytest.raises(ValueError, match=r"Argument `weights` must have the shape \(2,\)"):
        GaussianMixture([0.0, 1.0], 1.0, [1.0])
    law = GaussianMixture([[0.0, 0.0]])
    with pytest.raises(ValueError, match=r"Argument `x` must be one point of shape \(2,\)"):
        law.log_density(jnp.zeros(3))
    with pytest.raises(ValueError, match=r"Argument `x` must be one point of shape \(2,\)"):
        law.flow_matching_field()(0.5, jnp.zeros((4, 2)))
    with pytest.raises(ValueError, match="must be a mixture on the line"):
        law.as_line()
    with pytest.raises(ValueError, match="Argument `n` must be"):
        law.sample(0, jax.random.key(0))
    with pytest.raises(TypeError, match="Argument `mixture` must be a GaussianMixture"):
        MixtureField(np.zeros(2), StraightLine())
    with pytest.raises(TypeError, match="Argument `path` must be a StraightLine or"):
        MixtureField(law, 1.0)
    for wrong in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="Argument `horizon` must be a positive, finite number"):
            VariancePreserving(horizon=wrong)
    with pytest.raises(ValueError, match="Argument `first` must be a positive, finite number"):
        VariancePreserving(first=np.ones(2))
    with pytest.raises(ValueError, match=r"Argument `t` must lie in \[0, 8\], but found 8\.1"):
        VariancePreserving.constant(1.0, 8.0).coefficients(8.1)
    with pytest.raises(ValueError, match=r"Argument `t` must lie in \[0, 1\], but found nan"):
        StraightLine().coefficients(np.nan)


def test_the_horizon_is_on_the_path():
    """0.7 is less in single than in double precision."""
    field = two_modes().score_field(VariancePreserving(horizon=0.7))
    for t in (0.7, np.float32(0.7), np.float64(0.7), jnp.asarray(0.7)):
        assert 0 < float(field.path.coefficients(t).signal) < 1
    assert np.isfinite(sample(field, jnp.ones(1), times=[0.7, 0.0], num_steps=4).points).all()
    with jax.enable_x64(True):
        assert 0 < float(field.path.coefficients(0.7).signal) < 1
        with pytest.raises(ValueError, match=r"Argument `t` must lie in \[0, 0\.7\]"):
            field.path.coefficients(0.70001)


def test_bad_sampling():
    field = GaussianMixture([[0.0, 0.0]]).flow_matching_field()
    x = jnp.zeros((3, 2))
    with pytest.raises(ValueError, match=r"Argument `x0` must hold points of R\^2"):
        sample(field, jnp.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"Argument `t` must lie in \[0, 1\]"):
        field(1.5, x[0])
    with pytest.raises(ValueError, match=r"Argument `times` must lie in \[0, 1\]"):
        sample(field, x, times=[0.0, 1.2])
    with pytest.raises(ValueError, match="Argument `times` must be strictly monotone"):
        sample(field, x, times=[0.0, 0.5, 0.5])
    with pytest.raises(ValueError, match="Argument `times` must be one-dimensional"):
        sample(field, x, times=[0.0])
    with pytest.raises(TypeError, match="Argument `field` must be a function"):
        sample(1.0, x)
    with pytest.raises(ValueError, match=r"Argument `field` must be callable as `field\(t, x\)`"):
        sample(lambda t: t, x)
    with pytest.raises(ValueError, match="Argument `field` must return a velocity of shape"):
        sample(lambda t, x: x[0], x)
    with pytest.raises(TypeError, match="Argument `solver` must be a Diffrax solver"):
        sample(field, x, solver="tsit5")
    with pytest.raises(ValueError, match="Argument `num_steps` must be"):
        sample(field, x, num_steps=0)
    with pytest.raises(ValueError, match="Argument `x0` must hold points along its last axis"):
        sample(field, 1.0)


def test_a_field_that_blows_up_has_a_status(x64):
    """x' = x^2 from 2 has a pole at 1/2."""
    for steps in ({"max_steps": 300}, {"num_steps": 100}):
        out = sample(_square, jnp.array([[2.0], [0.5]]), **steps)
        assert int(out.status[0]) != Status.OK
        assert np.isnan(out.points[0, 0])
        np.testing.assert_allclose(out.points[1], [1.0], rtol=1e-6)
        assert int(out.status[1]) == Status.OK
        assert "1 of 2 OK" in str(out)


def _square(t, x):
    return x**2
