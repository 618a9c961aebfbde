"""stability_threshold against closed forms, dense eigenvalues and simulated training."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from dynjax.systems import trajectory
from dynjax.training import TrainingMap, TrainState, preconditioner, stability_threshold

LR = 0.1


def ema(b, lr=LR, debias=True):
    return optax.chain(optax.ema(b, debias=debias), optax.scale(-lr))


MOMENTUM = {
    "heavy ball": (lambda b: optax.sgd(LR, momentum=b), lambda b: (2 + 2 * b) / LR),
    "nesterov": (lambda b: optax.sgd(LR, momentum=b, nesterov=True), lambda b: (2 + 2 * b) / ((1 + 2 * b) * LR)),
    "averaged": (lambda b: ema(b), lambda b: (2 + 2 * b) / ((1 - b) * LR)),
}


@pytest.mark.parametrize("b", [0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", list(MOMENTUM))
def test_momentum_agrees_with_its_closed_form(x64, name, b):
    build, law = MOMENTUM[name]
    np.testing.assert_allclose(stability_threshold(build(b)), law(b), rtol=1e-12)


ADAM = (2 + 2 * 0.9) / (0.1 * LR)
CLOSED_FORMS = {
    "gradient descent": (lambda: optax.sgd(LR), 2 / LR, 1e-12),
    "weight decay": (lambda: optax.chain(optax.add_decayed_weights(0.3), optax.sgd(LR)), 2 / LR - 0.3, 1e-12),
    "adam": (lambda: optax.adam(LR), ADAM, 1e-7),
    "adam without eps": (lambda: optax.adam(LR, eps=0.0), ADAM, 1e-12),
    "adamw": (lambda: optax.adamw(LR, weight_decay=0.01), ADAM - 0.01 * 1.9 / 0.1, 1e-7),
    "nadam": (lambda: optax.nadam(LR), 3.8 / (0.1 * 2.8 * LR), 1e-7),
    "amsgrad": (lambda: optax.amsgrad(LR), ADAM, 1e-7),
    "adabelief": (lambda: optax.adabelief(LR), ADAM, 1e-7),
    "adamax": (lambda: optax.adamax(LR), ADAM, 1e-7),
    "rmsprop": (lambda: optax.rmsprop(LR), 2 / LR, 1e-7),
    "centred rmsprop": (lambda: optax.rmsprop(LR, centered=True), 2 / LR, 1e-7),
    "rmsprop with momentum": (lambda: optax.rmsprop(LR, momentum=0.9), 3.8 / LR, 1e-7),
    "adagrad": (lambda: optax.adagrad(LR), 2 / LR, 1e-7),
    "injected": (lambda: optax.inject_hyperparams(optax.adam)(LR), ADAM, 1e-7),
    "schedule": (lambda: optax.sgd(optax.linear_schedule(3.0, LR, 100)), 2 / LR, 1e-7),
    "clipped": (lambda: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(LR)), ADAM, 1e-7),
    "noisy": (lambda: optax.noisy_sgd(LR, key=0), 2 / LR, 1e-12),
    # w' = w - lr (2 g - g_last): z^2 - z + lr s (2 z - 1) = 0 has the root -1 at 3 lr s = 2.
    "optimistic": (lambda: optax.optimistic_gradient_descent(LR), 2 / (3 * LR), 1e-12),
}


@pytest.mark.parametrize("name", list(CLOSED_FORMS))
def test_threshold_agrees_with_its_closed_form(x64, name):
    build, expected, rtol = CLOSED_FORMS[name]
    np.testing.assert_allclose(stability_threshold(build()), expected, rtol=rtol)


def test_complex_pair_agrees_with_dense_eigenvalues(x64):
    b, c = 0.9, 0.8
    optimizer = optax.chain(optax.ema(b, debias=False), optax.ema(c, debias=False), optax.scale(-LR))

    def radius(s):
        # m' = b m + (1 - b) s w, k' = c k + (1 - c) m', w' = w - lr k'
        m = np.array([(1 - b) * s, b, 0.0])
        k = c * np.array([0, 0, 1.0]) + (1 - c) * m
        return np.max(np.abs(np.linalg.eigvals(np.array([np.array([1.0, 0, 0]) - LR * k, m, k])))) - 1

    expected = scipy.optimize.brentq(radius, 0.5, 100.0, xtol=1e-14, rtol=1e-14)
    np.testing.assert_allclose(stability_threshold(optimizer), expected, rtol=1e-9)


class HandMade(NamedTuple):
    velocity: jax.Array
    squares: jax.Array


def hand_made(rate, b, decay):
    """Somebody's own optimiser: RMS scaling, then momentum, in a state of its own."""

    def init(params):
        zeros = jax.tree_util.tree_map(jnp.zeros_like, params)
        return HandMade(zeros, zeros)

    def update(grads, state, params=None):
        squares = jax.tree_util.tree_map(lambda q, g: decay * q + (1 - decay) * g**2, state.squares, grads)
        scaled = jax.tree_util.tree_map(lambda g, q: g / jnp.sqrt(q), grads, squares)
        velocity = jax.tree_util.tree_map(lambda v, g: b * v + g, state.velocity, scaled)
        return jax.tree_util.tree_map(lambda v: -rate * v, velocity), HandMade(velocity, squares)

    return optax.GradientTransformation(init, update)


def test_transformation_with_a_state_of_its_own_is_analysed(x64):
    np.testing.assert_allclose(stability_threshold(hand_made(LR, 0.7, 0.95)), 3.4 / LR, rtol=1e-12)


def test_learning_rates_batch_under_vmap_and_jit(x64):
    rates = jnp.array([0.5, 0.1, 1e-3])
    np.testing.assert_allclose(jax.vmap(lambda r: stability_threshold(optax.sgd(r)))(rates), 2 / rates, rtol=1e-12)
    adam = jax.jit(jax.vmap(lambda r: stability_threshold(optax.adam(r))))(rates)
    np.testing.assert_allclose(adam, 38 / rates, rtol=1e-7)


def test_single_precision_is_right_to_its_rounding():
    for b in (0.0, 0.9, 0.99):
        np.testing.assert_allclose(stability_threshold(optax.sgd(LR, momentum=b)), (2 + 2 * b) / LR, rtol=1e-6)
    value = stability_threshold(optax.adam(LR))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, ADAM, rtol=2e-6)


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda: optax.sgd(0.0), np.inf),
        (lambda: optax.sgd(optax.cosine_decay_schedule(0.1, 10)), np.inf),
        (lambda: optax.sgd(-0.1), 0.0),
        (lambda: optax.sign_sgd(LR), np.nan),
        (lambda: optax.lion(LR), np.nan),
        (lambda: optax.chain(optax.normalize_by_update_norm(), optax.sgd(LR)), np.nan),
        (lambda: optax.lars(LR), np.nan),
        (lambda: optax.adam(LR, b2=0.0), np.nan),
        (lambda: optax.polyak_sgd(), np.nan),
        (lambda: optax.contrib.schedule_free_sgd(LR), np.nan),
    ],
    ids=["rate 0", "decay to 0", "ascent", "sign", "lion", "normalised", "lars", "b2 = 0", "polyak", "schedule-free"],
)
def test_optimizers_without_a_threshold_say_so(x64, build, expected):
    np.testing.assert_array_equal(stability_threshold(build()), expected)


def test_state_gives_counters_and_hyperparameters(x64):
    optimizer = optax.adam(LR)
    state = optimizer.init(jnp.ones(3))
    for t in range(1, 6):
        _, state = optimizer.update(jnp.ones(3), state)
        np.testing.assert_allclose(stability_threshold(optimizer, state), ADAM * (1 - 0.9**t), rtol=1e-7)
    injected = optax.inject_hyperparams(optax.sgd)(LR)
    state = injected.init(jnp.ones(3))
    state.hyperparams["learning_rate"] = jnp.asarray(0.5)
    np.testing.assert_allclose(stability_threshold(injected, state), 4.0, rtol=1e-12)
    scheduled = optax.sgd(optax.linear_schedule(1.0, 0.0, 10))
    state = scheduled.init(jnp.ones(3))
    for t in range(3):
        _, state = scheduled.update(jnp.ones(3), state)
        np.testing.assert_allclose(stability_threshold(scheduled, state), 2 / (1 - 0.1 * t), rtol=1e-6)


# Simulated training on a quadratic of 50 dimensions.

SIMULATED = {
    "gradient descent": lambda: optax.sgd(LR),
    "heavy ball": lambda: optax.sgd(LR, momentum=0.9),
    "nesterov": lambda: optax.sgd(LR, momentum=0.9, nesterov=True),
    # Without bias correction, whose early factor 1 / (1 - b^t) multiplies the first steps by far more.
    "averaged": lambda: ema(0.9, debias=False),
    "weight decay": lambda: optax.chain(optax.add_decayed_weights(0.3), optax.sgd(LR)),
}


def quadratic(top, seed=0):
    """A symmetric matrix of size 50 with eigenvalues from top / 1000 to top."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.standard_normal((50, 50)))
    return jnp.asarray(q @ np.diag(top * np.geomspace(1e-3, 1, 50)) @ q.T)


def growth(optimizer, matrix, state=None, num_steps=20_000):
    """The largest coordinate on the way, relative to the start."""
    system = TrainingMap(lambda w, a: 0.5 * w @ a @ w, optimizer, lambda n: (matrix,))
    x = system.init(jnp.full(50, 1e-8))
    x = x if state is None else TrainState(x.params, state)
    run = trajectory(system, x, num_steps=num_steps, save_every=20, observe=lambda n, s: jnp.max(jnp.abs(s.params)))
    return float(jnp.max(run.ys)) / 1e-8


@pytest.mark.parametrize("name", list(SIMULATED))
def test_quadratic_is_bounded_below_and_diverges_above(x64, name):
    optimizer = SIMULATED[name]()
    threshold = float(stability_threshold(optimizer))
    assert growth(optimizer, quadratic(0.999 * threshold)) < 100
    above = growth(optimizer, quadratic(1.001 * threshold))
    assert not above < 1e6


def test_adam_with_second_moments_that_stand_still(x64):
    # With b2 this close to 1 and the counter late, nu_hat is what it is set to, up to 1e-6.
    b2, count = 1 - 1e-13, 2**30
    optimizer = optax.adam(LR, b2=b2, eps=0.0)
    rms = jnp.asarray(np.random.default_rng(1).uniform(0.3, 3.0, 50))
    initial = optimizer.init(jnp.zeros(50))
    moments = initial[0]._replace(count=jnp.asarray(count, jnp.int32), nu=rms**2 * (1 - b2**count))
    state = (moments, *initial[1:])
    scale = preconditioner(optimizer, state)
    np.testing.assert_allclose(scale, 1 / rms, rtol=1e-9)
    threshold = float(stability_threshold(optimizer, state))
    np.testing.assert_allclose(threshold, ADAM, rtol=1e-7)
    matrix = quadratic(1.0)
    root = jnp.sqrt(scale)
    matrix = matrix / jnp.max(jnp.linalg.eigvalsh(root[:, None] * matrix * root))
    assert growth(optimizer, 0.999 * threshold * matrix, state, 1000) < 100
    assert not growth(optimizer, 1.001 * threshold * matrix, state, 1000) < 1e6


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda: stability_threshold(0.1), TypeError, "Argument `optimizer` must be an optax gradient transformation"),
        (
            lambda: stability_threshold(optax.MultiSteps(optax.sgd(LR), 2)),
            ValueError,
            "Argument `optimizer` must do the same at every step",
        ),
        (
            lambda: stability_threshold(optax.adafactor(LR)),
            ValueError,
            "Argument `optimizer` must act coordinate by coordinate",
        ),
        (
            lambda: stability_threshold(optax.partition({"a": optax.sgd(LR)}, {"w": "a"})),
            ValueError,
            "Argument `optimizer` must act coordinate by coordinate",
        ),
        (
            lambda: stability_threshold(optax.adam(LR), optax.sgd(LR).init(jnp.ones(2))),
            ValueError,
            "Argument `opt_state` must be a state of `optimizer`",
        ),
    ],
)
def test_bad_input_is_told_in_one_sentence(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
