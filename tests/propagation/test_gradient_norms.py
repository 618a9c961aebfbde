"""Norms of gradients layer by layer, verdicts, and the penalty on exponents."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dynjax as dj
from dynjax import Status, reference
from dynjax.networks import he_normal, lecun_normal
from dynjax.propagation import Recurrence, exponent_penalty, gradient_norms, gradient_report, layer_exponents
from dynjax.systems import LayerMap


class Layer(eqx.Module):
    weight: jax.Array
    activation: object = eqx.field(static=True)

    def __call__(self, x):
        return self.activation(self.weight @ x)


def stack(key, width, depth, initializer, activation):
    make = lambda key: Layer(initializer(key, (width, width), jnp.result_type(float)), activation)
    return LayerMap(eqx.filter_vmap(make)(jax.random.split(key, depth)))


def test_gradients_are_those_of_automatic_differentiation(x64, key):
    """For layers of different widths, with the readout and a loss, at every hidden state."""
    model = dj.MLP((3, 4, 4, 4, 5, 2), key=key)
    x = jax.random.normal(key, (2, 3))
    loss = lambda y: jnp.sum(y**2)
    found = gradient_norms(model, x, loss, readout=True)
    assert found.log_norms.shape == (2, 6)

    def from_layer(h, layer):
        for i in range(layer, 5):
            h = model.weights[i] @ h + model.biases[i]
            h = model.activation(h) if i < 4 else h
        return loss(h)

    h = x[0]
    for layer in range(5):
        expected = jnp.log(jnp.linalg.norm(jax.grad(from_layer)(h, layer)))
        np.testing.assert_allclose(found.log_norms[0, layer], expected, rtol=1e-11)
        h = model.activation(model.weights[layer] @ h + model.biases[layer])
    np.testing.assert_allclose(found.rates, (found.log_norms[:, 0] - found.log_norms[:, -1]) / 5)
    assert np.all(np.asarray(found.status) == Status.OK)
    assert "2 inputs" in str(found)


@pytest.mark.parametrize("kind", ["perceptron", "residual", "dense", "stack"])
def test_gradients_of_the_parameters_layer_by_layer(x64, key, kind):
    """Those of automatic differentiation of the model, weights and biases of a layer together."""
    x = jax.random.normal(key, (2, 3))
    top = lambda y: jnp.sum(jnp.sin(y))
    if kind == "perceptron":
        model = dj.MLP((3, 4, 4, 4, 5, 2), key=key)
        layers = lambda slope: [(slope.weights[i], slope.biases[i]) for i in range(5)]
    elif kind == "stack":
        model = stack(key, 3, 6, lecun_normal(), jnp.tanh)
        layers = lambda slope: [slope.arrays.weight[i] for i in range(6)]
    else:
        options = {} if kind == "residual" else {"memory": 2}
        make = dj.ResNet if kind == "residual" else dj.DenseResNet
        model = make((3, 4, 2), depth=6, step=0.5, key=key, **options)
        layers = lambda slope: [
            *(jax.tree_util.tree_map(lambda a, i=i: a[i], slope.layers) for i in range(6)),
            slope.readout,
        ]
    whole = (lambda m, x: dj.evolve(m, x, num_steps=6)) if kind == "stack" else (lambda m, x: m(x))
    readout = kind != "stack"
    found = gradient_norms(model, x, top, readout=readout, parameters=True)
    plain = gradient_norms(model, x, top, readout=readout)
    assert plain.parameter_log_norms is None
    np.testing.assert_allclose(found.log_norms, plain.log_norms, rtol=1e-12)
    for row, one in zip(found.parameter_log_norms, x, strict=True):
        slope = eqx.filter_grad(lambda m, one=one: top(whole(m, one)))(model)
        expected = [jnp.log(jnp.linalg.norm(jax.flatten_util.ravel_pytree(layer)[0])) for layer in layers(slope)]
        np.testing.assert_allclose(row, expected, rtol=1e-10)
    if readout:
        hidden = gradient_norms(model, x, lambda h: jnp.sum(h), parameters=True)
        assert hidden.parameter_log_norms.shape == (2, hidden.log_norms.shape[1] - 1)


def test_the_error_of_the_mean_rate(x64, key):
    model = dj.MLP((3, 4, 4, 4, 2), key=key)
    found = gradient_norms(model, jax.random.normal(key, (5, 3)), key=key)
    np.testing.assert_allclose(found.standard_error, np.std(found.rates, ddof=1) / np.sqrt(5), rtol=1e-12)
    assert np.isnan(gradient_norms(model, jnp.ones((1, 3)), key=key).standard_error)


def test_norms_fall_at_the_finite_width_exponent(x64, key):
    """ReLU width 50 over 100 layers, mean over 64 networks: -0.0258694 per layer within three standard errors, and not 0."""
    networks, depth = 64, 100
    run = eqx.filter_jit(
        lambda key: gradient_norms(stack(key, 50, depth, he_normal(), jax.nn.relu), jnp.ones((1, 50)), key=key).rate
    )
    rates = np.array([run(k) for k in jax.random.split(key, networks)])
    error = rates.std(ddof=1) / np.sqrt(networks)
    assert abs(rates.mean() - reference.relu_network_exponent(50)) < 3 * error
    assert rates.mean() < -3 * error


@pytest.mark.parametrize("kind", ["recurrent", "ode", "residual"])
def test_other_models(x64, key, kind):
    """The gradient at the first state, through everything."""
    top = lambda h: jnp.sum(jnp.sin(h))
    if kind == "recurrent":
        cell = eqx.nn.GRUCell(2, 4, key=key)
        x = jax.random.normal(key, (1, 6, 2))
        whole = lambda h: top(jax.lax.scan(lambda h, u: (cell(u, h), None), h, x[0])[0])
        model, start, layers = Recurrence(cell), jnp.zeros(4), 6
    else:
        x = jax.random.normal(key, (1, 2))
        if kind == "ode":
            model, layers = dj.NeuralODE((2, 3, 1), key=key, num_steps=10), 10
            whole = lambda h: top(dj.evolve(model.flow(0.1), h, num_steps=10))
        else:
            model, layers = dj.ResNet((2, 3, 1), depth=7, key=key), 7
            whole = lambda h: top(dj.evolve(model.layer_map(), h, num_steps=7))
        start = model.lift(x[0])
    found = gradient_norms(model, x, top)
    assert found.log_norms.shape == (1, layers + 1)
    np.testing.assert_allclose(found.log_norms[0, 0], jnp.log(jnp.linalg.norm(jax.grad(whole)(start))), rtol=1e-10)


def test_verdicts(x64, key):
    x = jax.random.normal(key, (4, 60))
    make = lambda gain, activation, depth=60: dj.MLP(
        (60, *[60] * depth, 1), activation=activation, key=key, initializer=lecun_normal(gain), bias=False
    )
    vanishing = gradient_report(make(0.8, jax.nn.relu), x)
    assert vanishing.verdict == "vanish"
    np.testing.assert_allclose(vanishing.finite_width, reference.relu_network_exponent(60, vanishing.weight_variance))
    np.testing.assert_allclose(vanishing.weight_variance, 0.64, rtol=0.02)
    assert abs(vanishing.rate - vanishing.finite_width) < 4 * vanishing.standard_error
    assert str(vanishing).startswith("Gradients vanish: they change at the rate -0.")
    assert "below the edge of chaos" in str(vanishing)
    exploding = gradient_report(make(1.3, jax.nn.identity), x)
    assert exploding.verdict == "explode"
    assert "above the edge" in str(exploding)
    assert abs(exploding.rate - exploding.finite_width) < 4 * exploding.standard_error
    balanced = gradient_report(make(1.0, jnp.tanh, depth=6), x)
    assert balanced.verdict == "balanced"
    assert np.isnan(gradient_report(dj.ResNet((60, 3, 1), depth=5, key=key), x).mean_field)


def test_the_penalty_of_linear_layers(x64, key):
    """Layers g Q have all exponents log g: the penalty is k (log g - target)^2, its derivative 2 k (log g - target) / g."""
    turn = jnp.linalg.qr(jax.random.normal(key, (4, 4)))[0]

    def penalty(gain, target=0.0):
        return exponent_penalty(
            LayerMap([Layer(gain * turn, jax.nn.identity)] * 20), jnp.ones((3, 4)), k=2, target=target
        )

    np.testing.assert_allclose(penalty(0.7), 2 * np.log(0.7) ** 2, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(penalty)(0.7), 4 * np.log(0.7) / 0.7, rtol=1e-11)
    np.testing.assert_allclose(penalty(0.7, jnp.log(0.7)), 0, atol=1e-25)


def test_the_penalty_is_differentiable_through_a_network(x64, key):
    model = dj.MLP((3, 5, 5, 5, 2), key=key)
    x = jax.random.normal(key, (4, 3))
    slope = eqx.filter_grad(lambda m: exponent_penalty(m, x, k=3))(model).weights[1]
    assert np.all(np.isfinite(slope))
    step = 1e-6
    for index in ((0, 0), (3, 2)):
        moved = [
            exponent_penalty(eqx.tree_at(lambda m: m.weights[1], model, model.weights[1].at[index].add(e)), x, k=3)
            for e in (step, -step)
        ]
        np.testing.assert_allclose(slope[index], (moved[0] - moved[1]) / (2 * step), rtol=1e-6)


def test_dead_layers_have_no_derivative_and_no_nan(x64):
    model = dj.MLP((2, 3, 3, 1), activation=jax.nn.relu, key=jax.random.key(0), bias=False)
    model = eqx.tree_at(lambda m: m.weights[0], model, -jnp.ones((3, 2)))
    value, slope = eqx.filter_value_and_grad(lambda m: exponent_penalty(m, jnp.ones((1, 2))))(model)
    assert value == 0
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree_util.tree_leaves(eqx.filter(slope, eqx.is_array)))


def task(key, width, depth, gain):
    """Two spirals, which no line divides, and a deep plain tanh network, which starts in the ordered phase.

    One spiral is the other turned by half a turn: without biases the network is odd, and so is the task.
    """
    data_key, first_key, layer_key, last_key = jax.random.split(key, 4)
    labels = jnp.where(jnp.arange(256) % 2 == 0, 1.0, -1.0)
    radius = jnp.linspace(0.3, 1.8, 256)
    angle = 1.5 * jnp.pi * radius / 1.8
    points = labels[:, None] * radius[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], 1)
    points = points + 0.04 * jax.random.normal(data_key, (256, 2))
    first = jax.random.normal(first_key, (width, 2))
    last = jax.random.normal(last_key, (width,)) / width**0.5
    return points, labels, (first, stack(layer_key, width, depth, lecun_normal(gain), jnp.tanh), last)


def train(key, *, floss, width, depth, gain, num_steps, learning_rate, num_floss=200):
    """The accuracy and the loss after training, with or without flossing before it."""
    points, labels, params = task(key, width, depth, gain)
    hidden = lambda params, x: jnp.tanh(params[0] @ x)

    def loss(params):
        def output(x):
            return params[2] @ dj.evolve(params[1], hidden(params, x), num_steps=depth)

        return jnp.mean(jax.nn.softplus(-labels * jax.vmap(output)(points)))

    def penalty(params):
        return exponent_penalty(params[1], jax.vmap(lambda x: hidden(params, x))(points[::32]), k=width // 2)

    def minimise(objective, params, steps, rate):
        optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
        arrays, static = eqx.partition(params, eqx.is_inexact_array)

        def step(carry, _):
            arrays, state = carry
            slope = jax.grad(lambda a: objective(eqx.combine(a, static)))(arrays)
            updates, state = optimizer.update(slope, state)
            return (optax.apply_updates(arrays, updates), state), None

        (arrays, _), _ = jax.lax.scan(step, (arrays, optimizer.init(arrays)), None, length=steps)
        return eqx.combine(arrays, static)

    if floss:
        params = minimise(penalty, params, num_floss, 3e-3)
    params = minimise(loss, params, num_steps, learning_rate)
    outputs = jax.vmap(lambda x: params[2] @ dj.evolve(params[1], hidden(params, x), num_steps=depth))(points)
    return jnp.mean(jnp.sign(outputs) == labels), loss(params)


@pytest.mark.slow  # two minutes
def test_flossing_lets_a_hundred_layers_train():
    """Five seeds, two learning rates: all above 95 per cent with the penalty before training, none leaves log 2 without."""
    for rate in (1e-4, 3e-4):
        ends = {}
        for floss in (False, True):

            def run(seed, floss=floss, rate=rate):
                options = {"width": 32, "depth": 100, "gain": 0.7, "num_steps": 400, "learning_rate": rate}
                return train(jax.random.key(seed), floss=floss, **options)

            ends[floss] = eqx.filter_jit(jax.vmap(run))(jnp.arange(5))
        accuracy, _ = ends[True]
        assert np.all(accuracy > 0.95), accuracy
        _, loss = ends[False]
        np.testing.assert_allclose(loss, np.log(2), atol=1e-3)


def test_flossing_brings_exponents_to_zero(key):
    """A few steps on 20 layers in the ordered phase: the leading exponents rise to about 0."""
    model = stack(key, 8, 20, lecun_normal(0.6), jnp.tanh)
    x = 0.5 * jax.random.normal(key, (4, 8))
    arrays, static = eqx.partition(model, eqx.is_inexact_array)
    optimizer = optax.adam(1e-2)
    slope = eqx.filter_jit(jax.grad(lambda a: exponent_penalty(eqx.combine(a, static), x, k=2)))
    state = optimizer.init(arrays)
    for _ in range(40):
        updates, state = optimizer.update(slope(arrays), state)
        arrays = optax.apply_updates(arrays, updates)
    before, after = (layer_exponents(m, x, k=2).exponents for m in (model, eqx.combine(arrays, static)))
    assert np.all(before < -0.35)
    assert np.all(np.abs(after) < 0.1)


def test_what_overflows_is_not_at_the_target(x64):
    """A cell that blows up has no finite exponents: NaN, not a penalty of zero."""
    cell = Recurrence(lambda u, h: 10 * h**3 + u, jnp.ones(3))
    assert np.isnan(exponent_penalty(cell, jnp.ones((2, 60, 3))))


def test_bad_arguments(key):
    model = dj.MLP((3, 5, 4, 2), key=key)
    x = jnp.ones((2, 3))
    for target in (jnp.zeros(3), jnp.zeros((2, 1))):
        with pytest.raises(ValueError, match="Argument `target` must be a number, or 2 of them"):
            exponent_penalty(model, x, k=2, target=target)
    with pytest.raises(ValueError, match="Argument `parameters` must be left out"):
        gradient_norms(Recurrence(eqx.nn.GRUCell(3, 2, key=key)), jnp.ones((1, 4, 3)), key=key, parameters=True)
    with pytest.raises(ValueError, match="Argument `key` must be given where there is no loss"):
        gradient_norms(model, x)
    with pytest.raises(TypeError, match="Argument `loss` must be a function"):
        gradient_norms(model, x, 1.0)
    with pytest.raises(TypeError, match="Argument `model` must be an MLP"):
        gradient_norms(jnp.tanh, x, key=key)
    with pytest.raises(ValueError, match="Argument `inputs` must have 3 features"):
        gradient_report(model, jnp.ones((2, 2)))
    with pytest.raises(ValueError, match="Argument `k` must be at most 3"):
        exponent_penalty(model, x, k=9)
