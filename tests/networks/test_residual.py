"""Residual networks and their layers as maps."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dynjax as dj
import dynjax.networks as nets


def _resnet(key, **kwargs):
    return nets.ResNet((2, 3, 1), **({"depth": 6, "step": 0.5, "key": key} | kwargs))


def _layer(layers, l):
    return jax.tree_util.tree_map(lambda leaf: leaf[l], layers)


def test_a_residual_network_is_the_loop_over_its_layers(x64, key):
    model = _resnet(key, hidden=(5, 4))
    x = jax.random.normal(jax.random.key(1), (2,))
    h = model.lift(x)
    for l in range(6):
        h = h + 0.5 * _layer(model.layers, l)(h)
    np.testing.assert_allclose(model(x), model.readout(h), rtol=1e-13)
    np.testing.assert_allclose(eqx.filter_jit(model)(x), model(x), rtol=1e-13)


def test_a_dense_network_sees_the_layers_before(x64, key):
    model = nets.DenseResNet((2, 3, 1), depth=6, memory=2, step=0.5, key=key)
    x = jax.random.normal(jax.random.key(1), (2,))
    states = [model.lift(x)] * 3
    for l in range(6):
        seen = jnp.concatenate([states[-1], states[-2], states[-3]])
        states.append(states[-1] + 0.5 * _layer(model.layers, l)(seen))
    np.testing.assert_allclose(model(x), model.readout(states[-1]), rtol=1e-13)


def test_without_memory_a_dense_network_is_a_residual_network(x64, key):
    x = jax.random.normal(jax.random.key(1), (2,))
    dense = nets.DenseResNet((2, 3, 1), depth=6, memory=0, step=0.5, key=key)
    np.testing.assert_allclose(dense(x), _resnet(key)(x), rtol=1e-13)


def test_layers_with_the_same_parameters_are_eulers_method_for_the_delay_equation(x64, key):
    """y' = -y(t - 1) with a constant past, where Euler's error at T = 1 vanishes and at T = 2 is step / 2."""
    for memory in (10, 20):
        step = 1 / memory
        model = nets.DenseResNet(
            (1, 1, 1), depth=2 * memory, memory=memory, step=step, hidden=(), key=key,
            lift=nets.Affine(jnp.eye(1)), readout=nets.Affine(jnp.eye(1)),
        )  # fmt: skip
        delayed = jnp.zeros((2 * memory, 1, 1 + memory)).at[:, 0, -1].set(-1.0)
        model = eqx.tree_at(lambda m: m.layers, model, _with(model.layers, delayed))
        half = dj.evolve(model.layer_map(), model.init(jnp.ones(1)), num_steps=memory)[0]
        np.testing.assert_allclose(half, 0.0, atol=1e-14)
        np.testing.assert_allclose(model(jnp.ones(1)), -0.5 - step / 2, rtol=1e-13)


def _with(layers, weight):
    """Affine layers with these weights and no bias."""
    return eqx.tree_at(lambda l: (l.weights, l.biases), layers, ((weight,), (jnp.zeros(weight.shape[:2]),)))


def test_layers_in_a_layer_map_are_the_network(x64, key):
    model = _resnet(key)
    x = jax.random.normal(jax.random.key(1), (2,))
    state = dj.evolve(model.layer_map(), model.lift(x), num_steps=6)
    np.testing.assert_allclose(model.readout(state), model(x), rtol=1e-13)


def test_exponents_of_linear_layers_are_the_logarithms_of_singular_values(x64, key):
    model = _resnet(key, hidden=())
    weight = jax.random.normal(jax.random.key(1), (6, 3, 3))
    model = eqx.tree_at(lambda m: m.layers, model, _with(model.layers, weight))
    product = np.eye(3)
    for l in range(6):
        product = (np.eye(3) + 0.5 * np.asarray(weight[l])) @ product
    found = dj.finite_time_exponents(model.layer_map(), jnp.ones(3), num_steps=6)
    expected = np.log(np.linalg.svd(product, compute_uv=False)) / 6
    np.testing.assert_allclose(found.exponents, expected, rtol=1e-11)


def test_exponents_of_linear_dense_layers_are_those_of_the_companion_matrix(x64, key):
    model = nets.DenseResNet((2, 2, 1), depth=8, memory=1, step=0.5, hidden=(), key=key)
    weight = jax.random.normal(jax.random.key(1), (8, 2, 4))
    model = eqx.tree_at(lambda m: m.layers, model, _with(model.layers, weight))
    product = np.eye(4)
    for l in range(8):
        w = 0.5 * np.asarray(weight[l])
        product = np.block([[np.eye(2) + w[:, :2], w[:, 2:]], [np.eye(2), np.zeros((2, 2))]]) @ product
    found = dj.finite_time_exponents(model.layer_map(), model.init(jnp.ones(2)), num_steps=8)
    expected = np.log(np.linalg.svd(product, compute_uv=False)) / 8
    np.testing.assert_allclose(found.exponents, expected, rtol=1e-9)


def test_the_curvature_tools_take_a_residual_network(x64, key):
    model = nets.DenseResNet((2, 2, 1), depth=3, memory=1, key=key)
    x = jax.random.normal(jax.random.key(1), (10, 2))
    loss = lambda m, x: jnp.mean((jax.vmap(m)(x)[:, 0] - x[:, 0] * x[:, 1]) ** 2)
    params, unravel = jax.flatten_util.ravel_pytree(model)
    dense = jnp.linalg.eigvalsh(jax.jit(jax.hessian(lambda p: loss(unravel(p), x)))(params))
    np.testing.assert_allclose(dj.sharpness(loss, model, x).value, dense[-1], rtol=1e-6)


def test_the_step_is_not_trained(x64, key):
    model = _resnet(key)
    gradient = jax.grad(lambda m: jnp.sum(m(jnp.ones(2)) ** 2))(model)
    assert float(gradient.step) == 0.0
    assert float(jnp.abs(gradient.layers.weights[0]).min()) > 0


def test_a_residual_network_learns_the_product_of_its_inputs(x64, key):
    x = jax.random.uniform(jax.random.key(1), (64, 2), minval=-1)
    loss = lambda m: jnp.mean((jax.vmap(m)(x)[:, 0] - x[:, 0] * x[:, 1]) ** 2)
    model, optim = _resnet(key), optax.adam(0.02)

    def step(carry, _):
        model, state = carry
        value, gradient = jax.value_and_grad(loss)(model)
        updates, state = optim.update(gradient, state)
        return (optax.apply_updates(model, updates), state), value

    _, losses = jax.jit(lambda m: jax.lax.scan(step, (m, optim.init(m)), length=300))(model)
    assert float(losses[-1]) < 0.02 * float(losses[0])


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"widths": (2, 3)}, "`widths` must be three positive integers"),
        ({"widths": (2, 0, 1)}, "`widths` must be three positive integers"),
        ({"widths": (2, 3.0, 1)}, "`widths` must be three positive integers"),
        ({"depth": 0}, "`depth` must be an integer of at least 1"),
        ({"memory": -1}, "`memory` must be an integer of at least 0"),
        ({"step": 0.0}, "`step` must be positive"),
        ({"hidden": (0,)}, "`hidden` must be a sequence of positive integers"),
        ({"lift": nets.Affine(np.eye(2))}, "`lift` must return a vector of length 3"),
    ],
)
def test_bad_input_is_refused(key, kwargs, sentence):
    arguments = {"widths": (2, 3, 1), "depth": 3, "memory": 1, "key": key} | kwargs
    with pytest.raises(ValueError, match=sentence):
        nets.DenseResNet(**arguments)
    if "memory" not in kwargs:
        del arguments["memory"]
        with pytest.raises(ValueError, match=sentence):
            nets.ResNet(**arguments)


def test_a_batch_without_vmap_is_refused_with_advice(key):
    with pytest.raises(ValueError, match=r"jax\.vmap"):
        _resnet(key)(jnp.ones((4, 2)))


def test_affine_layers_check_their_shapes():
    with pytest.raises(ValueError, match="`weight` must be a matrix"):
        nets.Affine(jnp.ones(3))
    with pytest.raises(ValueError, match=r"`bias` must have the shape \(2,\)"):
        nets.Affine(jnp.ones((2, 3)), jnp.ones(3))
