"""Losses against their floors, and training."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dynjax import Status
from dynjax.data import digits
from dynjax.generative import (
    GaussianMixture,
    ScoreField,
    VariancePreserving,
    VelocityField,
    fit_flow,
    flow_matching_loss,
    loss_floor,
    sample,
    score_matching_loss,
    wasserstein2,
)


def ring(num_modes: int = 8, radius: float = 2.0, variance: float = 0.04) -> GaussianMixture:
    angles = 2 * np.pi * np.arange(num_modes) / num_modes
    return GaussianMixture(radius * np.stack([np.cos(angles), np.sin(angles)], 1), variance)


@eqx.filter_jit
def _terms(loss, field, points, key):
    return loss(field, points, key, per_sample=True)


def test_the_floor_of_a_gaussian_is_pi_s_over_two(x64):
    """Row 24 of the table of reference values, and any covariance: the mean of pi s_i / 2."""
    for scale in (0.5, 1.0, 2.0):
        assert abs(loss_floor(GaussianMixture([0.0], scale**2)).value - np.pi * scale / 2) < 1e-14
    law = GaussianMixture([[1.0, 0.0]], [[[2.0, 0.6], [0.6, 1.0]]])
    roots = np.sqrt(np.linalg.eigvalsh(np.asarray(law.covariances[0])))
    np.testing.assert_allclose(loss_floor(law).value, np.pi / 2 * roots.mean(), rtol=1e-13)


def test_the_exact_field_reaches_the_floor_and_no_other_does(x64, key):
    """Monte Carlo over 40,000 draws; the same draws for a field that is 5 per cent off."""
    law = GaussianMixture([-2.0, 2.0], 0.25)
    field, floor = law.flow_matching_field(), float(loss_floor(law).value)
    points, loss_key = law.sample(40_000, key), jax.random.fold_in(key, 1)
    terms = _terms(flow_matching_loss, field, points, loss_key)
    error = float(jnp.std(terms)) / 200
    assert abs(float(jnp.mean(terms)) - floor) < 3 * error
    off = _terms(flow_matching_loss, lambda t, x: 1.05 * field(t, x), points, loss_key) - terms
    assert float(jnp.mean(off)) > 3 * float(jnp.std(off)) / 200


def test_the_sampled_floor_in_the_plane(x64, key):
    law = ring()
    floor = loss_floor(law, key=key)
    points = law.sample(20_000, key)
    terms = _terms(flow_matching_loss, law.flow_matching_field(), points, jax.random.fold_in(key, 1))
    error = np.hypot(float(jnp.std(terms)) / 20_000**0.5, float(floor.standard_error))
    assert abs(float(jnp.mean(terms) - floor.value)) < 3 * error
    assert 0 < float(floor.standard_error) < 0.01
    assert "+-" in str(floor)


def test_the_sampled_floor_of_modes_in_a_row(x64, key):
    """Along the row it is the floor on the line, across it that of one Gaussian, and a turn of the plane changes nothing."""
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    law = GaussianMixture(np.array([[-2.0, 0.0], [2.0, 0.0]]) @ turn.T, 0.25)
    floor = loss_floor(law, key=key)
    expected = (float(loss_floor(GaussianMixture([-2.0, 2.0], 0.25)).value) + np.pi / 4) / 2
    assert abs(float(floor.value) - expected) < 3 * float(floor.standard_error)
    assert float(floor.standard_error) < 0.01


def test_the_score_loss_of_a_gaussian(x64, key):
    """For N(0, s^2 I) it is E a^2 s^2 / (a^2 s^2 + b^2) over times."""
    law = GaussianMixture([[0.0, 0.0]], 0.25)
    field = law.score_field()
    terms = _terms(score_matching_loss, field, law.sample(40_000, key), jax.random.fold_in(key, 1))
    times = jnp.linspace(0, 1, 4001)
    now = jax.vmap(field.path.coefficients)(times)
    ratio = now.signal**2 * 0.25 / (now.signal**2 * 0.25 + now.noise_variance)
    expected = float(jnp.trapezoid(ratio, times))
    assert abs(float(jnp.mean(terms)) - expected) < 3 * float(jnp.std(terms)) / 200


def test_couplings_of_noise_and_data(x64, key):
    """With x_1 = x_0 + 1 the velocity is 1 and the loss 0."""
    x0 = jax.random.normal(key, (10, 2))
    assert float(flow_matching_loss(lambda t, x: jnp.ones(2), x0 + 1, key, x0=x0)) < 1e-28


def test_losses_are_means_of_their_terms(x64, key):
    law = ring()
    x = law.sample(50, key)
    for field, loss in ((law.flow_matching_field(), flow_matching_loss), (law.score_field(), score_matching_loss)):
        terms = loss(field, x, key, per_sample=True)
        assert terms.shape == (50,)
        np.testing.assert_allclose(loss(field, x, key), jnp.mean(terms), rtol=1e-12)


@pytest.fixture(scope="module")
def fitted():
    """A small network for two modes in the plane, trained for 600 steps."""
    key = jax.random.key(3)
    law = GaussianMixture([[-1.5, 0.0], [1.5, 0.0]], 0.09)
    field = VelocityField(2, hidden=(32, 32), key=key)
    return law, fit_flow(field, law, num_steps=600, learning_rate=5e-3, key=key), key


def test_training_comes_near_the_floor_and_not_below(fitted):
    law, result, key = fitted
    assert int(result.status) == Status.OK
    assert "600 steps" in str(result)
    floor = loss_floor(law, key=key)
    terms = _terms(flow_matching_loss, result.field, law.sample(40_000, key), jax.random.fold_in(key, 7))
    error = np.hypot(float(jnp.std(terms)) / 200, float(floor.standard_error))
    excess = float(jnp.mean(terms) - floor.value)
    assert -3 * error < excess < 0.2
    assert float(jnp.mean(result.losses[:20])) - float(floor.value) > 3 * excess


def test_a_trained_field_samples_both_modes(fitted):
    law, result, key = fitted
    points = np.asarray(sample(result.field, jax.random.normal(key, (500, 2)), num_steps=32).points)
    share = np.mean(points[:, 0] > 0)
    assert abs(share - 0.5) < 0.12
    first, second = (np.asarray(law.sample(500, jax.random.fold_in(key, i))) for i in (1, 2))
    assert wasserstein2(points, first) < 3 * wasserstein2(first, second)


def test_a_score_network_trains(key):
    """Nine tenths of what the untrained network loses to the exact score are won, in 1,000 steps from 2,000 points."""
    law = GaussianMixture([[-2.0], [2.0]], 0.04)
    field = ScoreField(1, hidden=(32, 32), key=key)
    result = fit_flow(field, law.sample(2000, key), num_steps=1000, learning_rate=1e-2, key=key)
    assert int(result.status) == Status.OK
    points, loss_key = law.sample(20_000, jax.random.fold_in(key, 1)), jax.random.fold_in(key, 2)
    exact, before, after = (
        _terms(score_matching_loss, one, points, loss_key) for one in (law.score_field(), field, result.field)
    )
    assert float(jnp.mean(after - exact)) > -3 * float(jnp.std(after - exact)) / 20_000**0.5
    assert float(jnp.mean(after - exact)) < 0.1 * float(jnp.mean(before - exact))
    # The schedule is not trained.
    np.testing.assert_array_equal(result.field.path.last, field.path.last)
    t, x = 0.3, jnp.array([0.4])
    rate = field.path.rate(t)
    np.testing.assert_allclose(field(t, x), -rate / 2 * (x + field.score(t, x)), rtol=1e-5)
    assert np.all(np.isfinite(sample(result.field, jnp.ones((4, 1)), num_steps=50).points))


def test_an_optimiser_and_a_loss_of_ones_own(key):
    data = np.zeros((8, 2))
    field = VelocityField(2, hidden=(4,), key=key)
    loss = lambda field, batch, key: jnp.sum(field(0.0, jnp.zeros(2)) ** 2)
    result = fit_flow(field, data, num_steps=100, batch_size=4, loss=loss, optimizer=optax.sgd(0.1), key=key)
    assert float(result.losses[-1]) < 1e-6
    frozen = fit_flow(field, data, num_steps=3, batch_size=4, optimizer=optax.sgd(0.0), key=key)
    assert eqx.tree_equal(eqx.filter(frozen.field, eqx.is_array), eqx.filter(field, eqx.is_array))


def test_weight_decay_leaves_the_schedule_alone(key):
    field = ScoreField(2, hidden=(4,), key=key)
    result = fit_flow(field, np.zeros((8, 2)), num_steps=5, batch_size=4, optimizer=optax.adamw(0.1), key=key)
    assert eqx.tree_equal(result.field.schedule, field.schedule)
    assert not eqx.tree_equal(result.field.network, field.network)


def test_learning_rates_share_one_program(key):
    """A lane of a vmap over rates is the run with that rate, and a rate that diverges has a status."""
    field, law = VelocityField(2, hidden=(8,), key=key), ring(3)
    run = lambda rate: fit_flow(field, law, num_steps=20, batch_size=16, learning_rate=rate, key=key).losses
    rates = jnp.array([1e-3, 1e-2])
    np.testing.assert_allclose(jax.vmap(run)(rates)[1], run(1e-2), rtol=1e-4)
    bad = fit_flow(field, law, num_steps=20, batch_size=16, optimizer=optax.sgd(1e12), key=key)
    assert int(bad.status) == Status.NONFINITE


def test_training_on_digits(key):
    """From 8 x 8 images: on held-out ones the loss is far below that of the best constant velocity, the mean image."""
    images = jnp.asarray(digits(standardise=False)[0]) / 8 - 1
    field = VelocityField(64, hidden=(64,), key=key)
    result = fit_flow(field, images[:1500], num_steps=300, batch_size=128, learning_rate=5e-3, key=key)
    held_out = jnp.tile(images[1500:], (10, 1))
    constant, trained = (
        flow_matching_loss(one, held_out, jax.random.fold_in(key, 1))
        for one in (lambda t, x: jnp.mean(images, 0), result.field)
    )
    assert float(trained) < 0.7 * float(constant)
    made = sample(result.field, jax.random.normal(key, (100, 64)), num_steps=20).points
    # Pixels that are always blank stay blank.
    blank = np.flatnonzero(np.std(images, 0) < 0.01)
    assert blank.size >= 3
    np.testing.assert_allclose(np.mean(made[:, blank], 0), -1, atol=0.1)


@pytest.mark.slow  # a minute for both
@pytest.mark.parametrize("target", ["ring", "moons"])
def test_a_trained_model_is_as_near_as_two_samples(target, key):
    """W2 of 1,000 points to the target is within twice that between two samples of the target."""
    data_key, train_key, noise_key = jax.random.split(key, 3)
    if target == "ring":
        draw = ring().sample
    else:

        def draw(n, key):
            angle_key, noise_key = jax.random.split(key)
            angle = jnp.pi * jax.random.uniform(angle_key, (n,))
            upper = jnp.arange(n) % 2 == 0
            x = jnp.where(upper, jnp.cos(angle), 1 - jnp.cos(angle)) - 0.5
            y = jnp.where(upper, jnp.sin(angle), 0.5 - jnp.sin(angle)) - 0.25
            return 1.5 * jnp.stack([x, y], 1) + 0.1 * jax.random.normal(noise_key, (n, 2))

    data = draw(20_000, data_key)
    field = VelocityField(2, hidden=(128, 128, 128), key=train_key)
    fitted = fit_flow(field, data, num_steps=8000, batch_size=512, key=train_key)
    points = sample(fitted.field, jax.random.normal(noise_key, (1000, 2)), rtol=1e-4, atol=1e-4).points
    first, second = draw(1000, jax.random.fold_in(key, 1)), draw(1000, jax.random.fold_in(key, 2))
    assert wasserstein2(points, first) < 2 * wasserstein2(first, second)


def test_bad_arguments(key):
    law = ring()
    field = VelocityField(2, hidden=(4,), key=key)
    with pytest.raises(ValueError, match="Argument `key` must be given for several modes"):
        loss_floor(law)
    with pytest.raises(TypeError, match="Argument `mixture` must be a GaussianMixture"):
        loss_floor(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="Argument `x1` must be a batch of points"):
        flow_matching_loss(field, jnp.zeros(2), key)
    with pytest.raises(ValueError, match=r"Argument `x1` must hold points of R\^2"):
        flow_matching_loss(field, jnp.zeros((4, 3)), key)
    with pytest.raises(ValueError, match=r"Argument `x0` must have the shape \(4, 2\)"):
        flow_matching_loss(field, jnp.zeros((4, 2)), key, x0=jnp.zeros((3, 2)))
    with pytest.raises(TypeError, match="Argument `field` must have a method `score`"):
        score_matching_loss(field, jnp.zeros((4, 2)), key)
    with pytest.raises(TypeError, match="Argument `field` must have a method `score`"):
        score_matching_loss(law.flow_matching_field(), jnp.zeros((4, 2)), key)
    with pytest.raises(ValueError, match="Argument `field` must have its noise at time 0, as in flow matching"):
        flow_matching_loss(law.score_field(), jnp.zeros((4, 2)), key)
    with pytest.raises(ValueError, match="Argument `field` must have its data at time 1, as in flow matching"):
        fit_flow(ScoreField(2, hidden=(4,), key=key), np.zeros((4, 2)), loss=flow_matching_loss, key=key)
    with pytest.raises(TypeError, match="Argument `field` must be a function"):
        flow_matching_loss(1.0, jnp.zeros((4, 2)), key)
    with pytest.raises(ValueError, match="Argument `x` must be a batch of points"):
        score_matching_loss(law.score_field(), jnp.zeros(2), key)
    with pytest.raises(ValueError, match="Argument `num_samples` must be"):
        loss_floor(law, key=key, num_samples=1)
    with pytest.raises(ValueError, match=r"Argument `data` must hold points of R\^2"):
        fit_flow(field, np.zeros((4, 3)), key=key)
    with pytest.raises(ValueError, match=r"Argument `data` must be points of shape \(samples, d\)"):
        fit_flow(field, np.zeros(2), key=key)
    with pytest.raises(ValueError, match="Argument `learning_rate` must be positive"):
        fit_flow(field, law, key=key, learning_rate=0.0)
    with pytest.raises(ValueError, match="Argument `num_steps` must be"):
        fit_flow(field, law, key=key, num_steps=0)
    with pytest.raises(TypeError, match="Argument `loss` must be a function"):
        fit_flow(field, law, key=key, loss=1.0)
    with pytest.raises(TypeError, match="Argument `path` must be a VariancePreserving"):
        ScoreField(2, path=1.0, key=key)
    with pytest.raises(ValueError, match="Argument `size` must be"):
        VelocityField(0, key=key)
    with pytest.raises(ValueError, match=r"Argument `x` must be one point of shape \(2,\)"):
        field(0.5, jnp.zeros((4, 2)))
    with pytest.raises(ValueError, match="Argument `batch_size` must be"):
        fit_flow(field, law, key=key, batch_size=0)
    with pytest.raises(ValueError, match="Argument `frequencies` must be"):
        ScoreField(2, frequencies=-1, path=VariancePreserving(), key=key)
