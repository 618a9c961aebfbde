"""TrainingMap: one optimiser step as a system."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from systems.contract import check_system

from dynjax.networks import MLP
from dynjax.systems import FullBatch, MiniBatches, evolve, trajectory
from dynjax.training import TrainingMap, TrainState


def loss(params, x, y):
    hidden = jnp.tanh(x @ params["w"] + params["b"])
    return jnp.mean((hidden @ params["v"] - y) ** 2) * params["scale"]


def problem(key):
    a, b, c, d = jax.random.split(key, 4)
    params = {
        "w": jax.random.normal(a, (3, 5)),
        "b": jnp.linspace(-0.2, 0.3, 5),
        "v": jax.random.normal(b, (5,)),
        "scale": jnp.asarray(2),
    }
    return params, (jax.random.normal(c, (12, 3)), jax.random.normal(d, (12,)))


OPTIMIZERS = {
    "sgd": lambda: optax.sgd(0.1),
    "momentum": lambda: optax.sgd(0.05, momentum=0.9),
    "adam": lambda: optax.adam(0.01, b2=0.9, eps_root=1e-12),
    "noisy": lambda: optax.chain(optax.add_noise(0.01, 0.5, key=0), optax.inject_hyperparams(optax.sgd)(0.1)),
}


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_training_keeps_the_contract_of_systems(x64, key, name):
    params, data = problem(key)
    system = TrainingMap(loss, OPTIMIZERS[name](), MiniBatches(data, 4, key=key))
    x0 = evolve(system, system.init(params), num_steps=10)
    # Second moments are small numbers, and the update has their root.
    check_system(system, x0, start=10, h=1e-8 if name == "adam" else 1e-6)


def test_step_is_the_step_of_optax(x64, key):
    params, data = problem(key)
    optimizer = optax.adamw(0.01, weight_decay=0.1)
    system = TrainingMap(loss, optimizer, FullBatch(*data))
    final = evolve(system, system.init(params), num_steps=20)
    varying = {k: v for k, v in params.items() if k != "scale"}
    state = optimizer.init(varying)
    for _ in range(20):
        grads = jax.grad(lambda p: loss({**p, "scale": params["scale"]}, *data))(varying)
        updates, state = optimizer.update(grads, state, varying)
        varying = optax.apply_updates(varying, updates)
    for name, value in varying.items():
        np.testing.assert_allclose(final.params[name], value, rtol=1e-12, atol=1e-14)
    assert final.params["scale"] == 2
    assert int(final.opt_state[0].count) == 20


def test_tangent_of_gradient_descent_is_identity_minus_rate_times_hessian(x64, key):
    params, data = problem(key)
    flat, unravel = jax.flatten_util.ravel_pytree({k: v for k, v in params.items() if k != "scale"})

    def flat_loss(p, *batch):
        return loss({**unravel(p), "scale": params["scale"]}, *batch)

    system = TrainingMap(flat_loss, optax.sgd(0.1), FullBatch(*data))
    x0 = system.init(flat)
    v = TrainState(jnp.eye(flat.size), jax.tree_util.tree_map(lambda _: None, x0.opt_state))
    _, pushed = system.tangent_step(0, x0, v)
    expected = jnp.eye(flat.size) - 0.1 * jax.hessian(flat_loss)(flat, *data)
    np.testing.assert_allclose(pushed.params.T, expected, rtol=1e-12, atol=1e-13)


def test_equinox_model_keeps_its_functions_and_trains(x64, key):
    x = jax.random.normal(key, (30, 2))
    y = jnp.sum(x, axis=1, keepdims=True)
    model = MLP((2, 8, 1), key=key)

    def model_loss(model, x, y):
        return jnp.mean((jax.vmap(model)(x) - y) ** 2)

    system = TrainingMap(model_loss, optax.sgd(0.1), FullBatch(x, y))
    run = trajectory(system, system.init(model), num_steps=40, observe=lambda n, s: model_loss(s.params, x, y))
    assert run.ys[-1] < 0.1 * run.ys[0]
    assert run.final.params(x[0]).shape == (1,)


def test_loss_without_batches_takes_the_parameters_alone(x64):
    system = TrainingMap(lambda p: 0.5 * jnp.sum(p**2), optax.sgd(0.25))
    assert jnp.array_equal(system.step(0, system.init(jnp.ones(3))).params, jnp.full(3, 0.75))


def test_line_searches_get_the_value_of_the_loss(x64):
    optimizer = optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(max_backtracking_steps=15))
    system = TrainingMap(lambda p: jnp.sum(p**4 + p**2), optimizer)
    final = evolve(system, system.init(jnp.array([1.0, -0.7])), num_steps=30)
    assert float(jnp.max(jnp.abs(final.params))) < 1e-3


def test_learning_rates_batch_when_the_optimizer_is_built_inside(x64):
    def final(rate):
        system = TrainingMap(lambda p: 0.5 * jnp.sum(p**2), optax.sgd(rate, momentum=0.5))
        return evolve(system, system.init(jnp.ones(2)), num_steps=10).params

    rates = jnp.array([0.1, 0.2, 0.4])
    together = jax.jit(jax.vmap(final))(rates)
    for rate, row in zip(rates, together, strict=True):
        np.testing.assert_allclose(row, final(float(rate)), rtol=1e-12)


# The two-layer linear network f = u.v / sqrt(n) on one sample, where gradient descent closes on (f, curvature).


def catapult_start(key, n=1024):
    u, v = jax.random.normal(key, (2, n))
    # Set f = 1 by moving v along u.
    v = v + u * (jnp.sqrt(n) - u @ v) / (u @ u)
    return {"u": u, "v": v}


def catapult_loss(p):
    return 0.5 * (p["u"] @ p["v"]) ** 2 / p["u"].size


def curvature(p):
    return (p["u"] @ p["u"] + p["v"] @ p["v"]) / p["u"].size


def catapult(key, ratio, num_steps):
    params = catapult_start(key)
    rate = ratio / curvature(params)
    system = TrainingMap(catapult_loss, optax.sgd(rate))

    def observe(n, s):
        return s.params["u"] @ s.params["v"] / jnp.sqrt(1024), curvature(s.params)

    f, lam = trajectory(system, system.init(params), num_steps=num_steps, observe=observe).ys
    return np.asarray(f), np.asarray(lam), float(rate)


@pytest.mark.parametrize("ratio", [1.0, 2.5, 3.5])
def test_catapult_follows_its_recursion(x64, key, ratio):
    f, lam, rate = catapult(key, ratio, 60)
    predicted_f = f[:-1] * (1 - rate * lam[:-1] + rate**2 * f[:-1] ** 2 / 1024)
    predicted_lam = lam[:-1] + rate * f[:-1] ** 2 / 1024 * (rate * lam[:-1] - 4)
    np.testing.assert_allclose(f[1:], predicted_f, rtol=1e-12, atol=1e-12 * np.max(np.abs(f)))
    np.testing.assert_allclose(lam[1:], predicted_lam, rtol=1e-12)


@pytest.mark.parametrize("ratio", [1.5, 1.95])
def test_below_two_training_is_lazy(x64, key, ratio):
    f, lam, _ = catapult(key, ratio, 400)
    assert np.all(np.diff(np.abs(f)) <= 1e-14)
    assert abs(f[-1]) < 1e-6
    assert abs(lam[-1] / lam[0] - 1) < 0.05


@pytest.mark.parametrize("ratio", [2.05, 2.5, 3.9])
def test_between_two_and_four_the_loss_rises_and_a_flatter_minimum_is_found(x64, key, ratio):
    f, lam, rate = catapult(key, ratio, 2000)
    assert np.max(np.abs(f)) > 1.3 * abs(f[0])
    assert abs(f[-1]) < 1e-6
    assert rate * lam[-1] < 2 < rate * lam[0]


@pytest.mark.parametrize("ratio", [4.1, 5.0])
def test_above_four_training_diverges(x64, key, ratio):
    f, _, _ = catapult(key, ratio, 30)
    assert not np.all(np.isfinite(f)) or np.max(np.abs(f)) > 1e6


@pytest.mark.parametrize(
    ("build", "error", "sentence"),
    [
        (lambda: TrainingMap("loss", optax.sgd(0.1)), TypeError, "Argument `loss` must be a function"),
        (lambda: TrainingMap(jnp.sum, 0.1), TypeError, "Argument `optimizer` must be an optax gradient transformation"),
        (lambda: TrainingMap(jnp.sum, optax.sgd(0.1), 3), TypeError, "Argument `batches` must be a function"),
        (lambda: TrainingMap(jnp.sum, optax.sgd(0.1)).init(3), ValueError, "Argument `params` must hold at least one"),
        (lambda: TrainingMap(jnp.sin, optax.sgd(0.1)).init(jnp.ones(3)), TypeError, "must return one scalar"),
        (
            lambda: TrainingMap(jnp.sum, optax.sgd(0.1)).init(jnp.ones(3, complex)),
            TypeError,
            "Argument `params` must hold real arrays",
        ),
        (
            lambda: TrainingMap(jnp.dot, optax.sgd(0.1), lambda n: jnp.ones(3)).init(jnp.ones(3)),
            TypeError,
            "Argument `batches` must return a tuple",
        ),
        (
            lambda: TrainingMap(jnp.dot, optax.sgd(0.1), FullBatch(jnp.ones(4))).init(jnp.ones(3)),
            (TypeError, ValueError),
            "Argument `loss` must be callable",
        ),
    ],
)
def test_bad_input_is_told_in_one_sentence(build, error, sentence):
    with pytest.raises(error, match=sentence):
        build()


def test_training_map_is_a_pytree_of_the_arrays_it_holds(x64, key):
    params, data = problem(key)
    system = TrainingMap(loss, optax.sgd(0.1), FullBatch(*data))
    arrays = jax.tree_util.tree_leaves(eqx.filter(system, eqx.is_array))
    assert len(arrays) == 3  # inputs, targets, dt
    assert jnp.isfinite(jax.jit(lambda s, x: s.step(0, x))(system, system.init(params)).params["w"]).all()
