"""Exponents in depth: exact networks, finite widths, recurrent cells, flows, and fields over the inputs."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynjax as dj
from dynjax import Status, reference
from dynjax.networks import he_normal, lecun_normal, orthogonal
from dynjax.propagation import Recurrence, layer_exponents, mean_field_propagation, separation_field
from dynjax.systems import LayerMap


class _Layer(eqx.Module):
    weight: jax.Array
    bias: jax.Array
    activation: object = eqx.field(static=True)

    def __call__(self, x):
        return self.activation(self.weight @ x + self.bias)


def random_stack(key, width, depth, initializer, activation, bias_scale=0.0):
    """A deep network with its layers stacked from the start, which costs no compile time."""

    def layer(key):
        weight_key, bias_key = jax.random.split(key)
        bias = bias_scale * jax.random.normal(bias_key, (width,))
        return _Layer(initializer(weight_key, (width, width), bias.dtype), bias, activation)

    return LayerMap(eqx.filter_vmap(layer)(jax.random.split(key, depth)))


def over_networks(keys, x, *arguments, k=None):
    """Exponents of several networks, one compiled program."""
    run = eqx.filter_jit(lambda key: layer_exponents(random_stack(key, x.shape[0], *arguments), x[None], k=k).exponents)
    return np.stack([np.asarray(run(key)) for key in keys])


def test_orthogonal_linear_layers_neither_grow_nor_shrink(x64, key):
    """10,000 orthogonal layers: all exponents are 0 to 1e-12, and those of sigma_w times them log sigma_w."""
    layer = lambda key: eqx.nn.Lambda(jnp.matmul) if key is None else _Matrix(orthogonal()(key, (12, 12), jnp.float64))
    stack = LayerMap(eqx.filter_vmap(layer)(jax.random.split(key, 10_000)))
    found = layer_exponents(stack, jax.random.normal(key, (2, 12)))
    np.testing.assert_allclose(found.exponents, 0, atol=1e-12)
    assert found.depth == 10_000
    scaled = dj.MLP((12, *[12] * 30, 1), activation=jax.nn.identity, key=key, initializer=orthogonal(1.3), bias=False)
    np.testing.assert_allclose(layer_exponents(scaled, jnp.ones((1, 12))).exponents, np.log(1.3), atol=1e-14)


class _Matrix(eqx.Module):
    weight: jax.Array

    def __call__(self, x):
        return self.weight @ x


def test_gaussian_linear_layers(x64, key):
    """The whole spectrum, within three standard errors of the ensemble (row 24 with variance 1/N)."""
    networks, width = 40, 4
    keys = jax.random.split(key, networks)
    rates = over_networks(keys, jnp.ones(4), 200, lecun_normal(), jax.nn.identity)
    error = rates.std(0, ddof=1) / np.sqrt(networks)
    expected = reference.deep_linear_exponents(width, 1.0)
    assert np.all(np.abs(rates.mean(0) - expected) < 3 * error + 0.02 / 200)
    assert np.all(error < 0.015)


def test_relu_networks_of_width_fifty_contract(x64, key):
    """He initialisation: -0.0258694 per layer (row 42) within three standard errors, which tell it from 0."""
    networks, depth = 60, 200
    keys = jax.random.split(key, networks)
    rates = over_networks(keys, jnp.ones(50), depth, he_normal(), jax.nn.relu, k=1)[:, 0]
    error = rates.std(ddof=1) / np.sqrt(networks)
    # The first direction is random, not yet the one that grows most: at most the spread over one layer.
    assert abs(rates.mean() - reference.relu_network_exponent(50)) < 3 * error
    assert rates.mean() < -5 * error


@pytest.mark.slow  # half a minute
def test_finite_width_shift_of_tanh_networks(key):
    """Row 43: at width 200 and (3, 0.05) the exponent is below that of infinite width, 0.0948697, as measured: 0.0887(15)."""
    networks, depth = 24, 150
    keys, x = jax.random.split(key, networks), jax.random.normal(key, (200,))
    rates = over_networks(keys, x, depth, lecun_normal(3.0**0.5), jnp.tanh, 0.05**0.5, k=1)[:, 0]
    error = np.hypot(rates.std(ddof=1) / np.sqrt(networks), 0.0015)
    assert abs(rates.mean() - 0.0887) < 3 * error
    assert rates.mean() < float(mean_field_propagation(jnp.tanh, 3.0, 0.05).exponent)


def test_rectangular_layers_give_volumes(x64, key):
    """The sum of all k exponents is the log volume of the product of the layers, from an explicit Jacobian."""
    model = dj.MLP((3, 8, 5, 5, 6, 2), key=key)
    x = jax.random.normal(key, (4, 3))
    found = layer_exponents(model, x)
    assert found.exponents.shape == (3,)
    assert found.depth == 4
    hidden = lambda x: _hidden(model, x)
    values = jnp.linalg.svd(jax.vmap(jax.jacfwd(hidden))(x), compute_uv=False)
    np.testing.assert_allclose(found.per_input.sum(1) * 4, jnp.sum(jnp.log(values), 1), rtol=1e-11)
    np.testing.assert_allclose(found.states, jax.vmap(hidden)(x), rtol=1e-13)
    np.testing.assert_allclose(found.increments.mean(0), found.exponents, rtol=1e-12)
    assert np.all(np.asarray(found.status) == Status.OK)
    whole = layer_exponents(model, x, readout=True)
    assert whole.exponents.shape == (2,)
    assert whole.depth == 5
    np.testing.assert_allclose(whole.states, jax.vmap(model)(x), rtol=1e-13)


def _hidden(model, x):
    for weight, bias in zip(model.weights[:-1], model.biases[:-1], strict=True):
        x = model.activation(weight @ x + bias)
    return x


def test_separation_fields_are_singular_values(x64, key):
    model = dj.MLP((2, 8, 8, 8, 1), key=key)
    points = jax.random.normal(key, (5, 3, 2))
    field = separation_field(model, points, chunk_size=4)
    jacobians = jax.vmap(jax.vmap(jax.jacfwd(lambda x: _hidden(model, x))))(points)
    _, values, right = jnp.linalg.svd(jacobians, full_matrices=False)
    np.testing.assert_allclose(field.exponents, jnp.log(values) / 3, rtol=1e-10)
    np.testing.assert_allclose(jnp.abs(jnp.sum(field.directions * right[..., 0, :], -1)), 1, rtol=1e-12)
    ode = dj.NeuralODE((2, 4, 1), key=key, num_steps=20)
    field = separation_field(ode, points[0], readout=False)
    jacobians = jax.vmap(jax.jacfwd(ode.solve))(points[0])
    values = jnp.linalg.svd(jacobians, compute_uv=False)
    np.testing.assert_allclose(field.exponents, jnp.log(values) / ode.horizon, rtol=1e-9)


def test_deep_networks_neither_overflow_nor_underflow(key):
    """In float32 a product of 400 layers of gain e is far above the largest number."""
    stack = LayerMap([_Matrix(jnp.e * jnp.eye(3))] * 400)
    field = separation_field(stack, 1e-30 * jnp.ones((1, 3)))
    assert int(field.status[0]) != Status.OK  # the state itself has overflowed
    shrinking = LayerMap([_Matrix(jnp.eye(3) / jnp.e)] * 400)
    field = separation_field(shrinking, jnp.ones((1, 3)))
    np.testing.assert_allclose(field.exponents, -1, rtol=1e-5)
    np.testing.assert_allclose(layer_exponents(shrinking, jnp.ones((1, 3))).exponents, -1, rtol=1e-5)


def test_dead_layers_lose_everything(x64):
    """A ReLU layer with every unit off: -inf, not NaN."""
    model = dj.MLP((2, 3, 3, 1), activation=jax.nn.relu, key=jax.random.key(0), bias=False)
    model = eqx.tree_at(lambda m: m.weights[0], model, -jnp.ones((3, 2)))
    found = layer_exponents(model, jnp.ones((1, 2)))
    assert np.all(np.isneginf(found.exponents))
    assert int(found.status[0]) == Status.OK
    assert np.all(np.isneginf(separation_field(model, jnp.ones((1, 2))).exponents))


def test_a_recurrent_network_at_rest(x64, key):
    """Row 45: h' = tanh(W h) at the origin has the exponents log |eig W|; with an orthogonal W they are equal."""
    matrix = 0.8 * orthogonal()(key, (6, 6), jnp.float64)
    cell = lambda x, h: jnp.tanh(matrix @ h + x)
    found = layer_exponents(Recurrence(cell, jnp.zeros(6)), jnp.zeros((2, 50, 6)))
    np.testing.assert_allclose(found.exponents, np.log(0.8), atol=1e-13)
    general = jax.random.normal(key, (3, 3)) * 0.4
    cell = lambda x, h: jnp.tanh(general @ h + x)
    found = layer_exponents(Recurrence(cell, jnp.zeros(3)), jnp.zeros((1, 4000, 3)))
    moduli = np.sort(np.log(np.abs(np.linalg.eigvals(np.asarray(general)))))[::-1]
    np.testing.assert_allclose(found.exponents, moduli, atol=3e-3)


def test_a_gated_cell_driven_by_sequences(key):
    """The derivative of the last state with respect to the first one, by automatic differentiation."""
    cell = eqx.nn.GRUCell(2, 4, key=key)
    sequences = jax.random.normal(key, (3, 7, 2))
    found = layer_exponents(Recurrence(cell), sequences)

    def last(h, xs):
        return jax.lax.scan(lambda h, x: (cell(x, h), None), h, xs)[0]

    jacobians = jax.vmap(jax.jacfwd(last), (None, 0))(jnp.zeros(4), sequences)
    logs = jnp.linalg.slogdet(jacobians)[1]
    np.testing.assert_allclose(jnp.sum(found.per_input, 1) * 7, logs, rtol=2e-4)
    np.testing.assert_allclose(found.states, jax.vmap(Recurrence(cell))(sequences), rtol=1e-5)


def test_residual_networks_and_neural_odes(x64, key):
    """A linear field has the real parts of its eigenvalues per unit of time; residual layers are steps of Euler."""
    matrix = jnp.array([[-0.5, 2.0], [-2.0, -0.5]])
    ode = dj.NeuralODE((2, 2, 1), key=key, horizon=20.0, field=lambda t, h: matrix @ h)
    found = layer_exponents(ode, jnp.ones((1, 2)), num_steps=800)
    np.testing.assert_allclose(found.exponents, -0.5, atol=1e-6)
    assert found.depth == 20
    network = dj.ResNet((2, 4, 1), depth=9, step=0.1, key=key)
    x = jax.random.normal(key, (2, 2))
    found = layer_exponents(network, x)
    jacobian = jax.vmap(jax.jacfwd(lambda h: dj.evolve(network.layer_map(), h, num_steps=9)))(jax.vmap(network.lift)(x))
    np.testing.assert_allclose(found.per_input.sum(1) * 9, jnp.linalg.slogdet(jacobian)[1], rtol=1e-10)
    dense = dj.DenseResNet((2, 3, 1), depth=5, memory=1, key=key)
    assert layer_exponents(dense, x, k=2).exponents.shape == (2,)
    assert layer_exponents(dense, x, readout=True).exponents.shape == (1,)
    flow = dj.Flow(lambda t, y, args: matrix @ y, 0.01)
    np.testing.assert_allclose(layer_exponents(flow, jnp.ones((1, 2)), num_steps=1000).exponents, -0.5, atol=1e-6)


def test_exponents_are_differentiable(x64, key):
    """d/dg of the sum of exponents of a linear network of gain g is k / g."""
    weights = [orthogonal()(k, (4, 4), jnp.float64) for k in jax.random.split(key, 6)]

    def total(gain):
        stack = LayerMap([_Matrix(gain * w) for w in weights])
        return jnp.sum(layer_exponents(stack, jnp.ones((1, 4)), k=2).exponents)

    np.testing.assert_allclose(jax.grad(total)(1.5), 2 / 1.5, rtol=1e-10)


def test_bad_arguments(key):
    model = dj.MLP((3, 5, 4, 2), key=key)
    x = jnp.ones((2, 3))
    with pytest.raises(TypeError, match="Argument `model` must be an MLP"):
        layer_exponents(jnp.tanh, x)
    with pytest.raises(ValueError, match=r"Argument `inputs` must be a batch of shape \(n, d\)"):
        layer_exponents(model, jnp.ones(3))
    with pytest.raises(ValueError, match="Argument `inputs` must have 3 features"):
        layer_exponents(model, jnp.ones((2, 4)))
    with pytest.raises(ValueError, match="Argument `k` must be at most 3"):
        layer_exponents(model, x, k=4)
    with pytest.raises(ValueError, match="Argument `k` must be"):
        layer_exponents(model, x, k=0)
    with pytest.raises(ValueError, match="Argument `num_steps` must be left out"):
        layer_exponents(model, x, num_steps=5)
    with pytest.raises(ValueError, match="Argument `num_steps` must be given for a system"):
        layer_exponents(dj.Map(lambda x: x), x)
    with pytest.raises(ValueError, match=r"Argument `inputs` must be sequences of shape \(n, time, features\)"):
        layer_exponents(Recurrence(eqx.nn.GRUCell(2, 4, key=key)), x)
    with pytest.raises(ValueError, match="Argument `inputs` must fit the model"):
        layer_exponents(Recurrence(eqx.nn.GRUCell(2, 4, key=key)), jnp.ones((1, 5, 3)))
    with pytest.raises(ValueError, match="Argument `initial` must be given"):
        Recurrence(lambda x, h: h)
    with pytest.raises(TypeError, match="Argument `cell` must be a function"):
        Recurrence(1.0)
    with pytest.raises(TypeError, match="Argument `model` must take single points"):
        separation_field(Recurrence(eqx.nn.GRUCell(2, 4, key=key)), x)
    assert "3 inputs" in str(layer_exponents(model, jnp.ones((3, 3)), k=1))
