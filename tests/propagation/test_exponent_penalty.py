"""The penalty on exponents against closed forms, its derivative against differences, and its contracts."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynjax as dj
from dynjax.propagation import Recurrence, exponent_penalty
from dynjax.systems import LayerMap


class Layer(eqx.Module):
    weight: jax.Array
    activation: object = eqx.field(static=True)

    def __call__(self, h):
        return self.activation(self.weight @ h)


def closed_form(steps, h, target):
    """Two dimensions: lambda_1 = log |D e_1| / L, D the whole derivative, and lambda_1 + lambda_2 = sum_l log |det D_l| / L."""
    whole, volume = jnp.eye(2), 0.0
    for step in steps:
        derivative = jax.jacfwd(step)(h)
        whole, volume, h = derivative @ whole, volume + jnp.log(jnp.abs(jnp.linalg.det(derivative))), step(h)
    first, both = jnp.log(jnp.linalg.norm(whole[:, 0])) / len(steps), volume / len(steps)
    return (first - target[0]) ** 2 + (both - first - target[1]) ** 2


@pytest.mark.parametrize("activation", [jax.nn.identity, jnp.tanh])
def test_two_by_two_layers(x64, key, activation):
    """Value and derivative in every weight, to rounding; layers are not normal, and the determinant changes sign."""
    weights = 0.8 * jax.random.normal(key, (5, 2, 2))
    inputs, target = jnp.array([[0.3, -0.7], [1.1, 0.2], [-0.4, 0.9]]), jnp.array([0.1, -0.3])

    def expected(weights):
        steps = [Layer(weight, activation) for weight in weights]
        return jnp.mean(jnp.stack([closed_form(steps, h, target) for h in inputs]))

    def penalty(weights):
        return exponent_penalty(LayerMap(Layer(weights, activation)), inputs, k=2, target=target)

    (value, slope), (right, right_slope) = (jax.jit(jax.value_and_grad(f))(weights) for f in (penalty, expected))
    np.testing.assert_allclose(value, right, rtol=1e-12)
    np.testing.assert_allclose(slope, right_slope, rtol=1e-10, atol=1e-13)
    assert np.min(np.max(np.abs(slope), (1, 2))) > 1e-3


def test_a_recurrent_cell_along_sequences(x64, key):
    """The same for a cell: derivatives of all time steps add up in its shared weights."""
    params = {"w": 0.7 * jax.random.normal(key, (2, 2)), "u": jnp.array([[0.5, -1.0, 0.2], [0.3, 0.4, -0.6]])}
    sequences, start = jax.random.normal(jax.random.key(1), (2, 8, 3)), jnp.array([0.2, -0.1])

    def expected(params):
        steps = lambda xs: [lambda h, x=x: jnp.tanh(params["w"] @ h + params["u"] @ x) for x in xs]
        return jnp.mean(jnp.stack([closed_form(steps(xs), start, jnp.zeros(2)) for xs in sequences]))

    def penalty(params):
        return exponent_penalty(Recurrence(_Cell(params["w"], params["u"]), start), sequences, k=2)

    (value, slope), (right, right_slope) = (jax.jit(jax.value_and_grad(f))(params) for f in (penalty, expected))
    np.testing.assert_allclose(value, right, rtol=1e-12)
    for name in params:
        np.testing.assert_allclose(slope[name], right_slope[name], rtol=1e-10)


class _Cell(eqx.Module):
    w: jax.Array
    u: jax.Array

    def __call__(self, x, h):
        return jnp.tanh(self.w @ h + self.u @ x)


def test_differences_of_fewer_exponents_than_the_width(x64, key):
    """A gated cell of eight units, three exponents, along a random direction of all its parameters."""
    cell = eqx.nn.GRUCell(2, 8, key=key)
    sequences = jax.random.normal(jax.random.key(1), (2, 12, 2))
    arrays, static = eqx.partition(cell, eqx.is_inexact_array)
    flat, unravel = jax.flatten_util.ravel_pytree(arrays)
    penalty = jax.jit(lambda flat: exponent_penalty(Recurrence(eqx.combine(unravel(flat), static)), sequences, k=3))
    slope = jax.jit(jax.grad(penalty))(flat)
    for direction in jax.random.normal(jax.random.key(2), (2, flat.size)):
        # Extrapolated central differences: error O(h^4).
        wide, narrow = ((penalty(flat + h * direction) - penalty(flat - h * direction)) / (2 * h) for h in (2e-4, 1e-4))
        np.testing.assert_allclose(slope @ direction, (4 * narrow - wide) / 3, rtol=1e-8)


def test_thousands_of_layers_do_no_harm(x64, key):
    """Layers g Q, g = 0.1, 2,000 of them: the product is 1e-2000, the penalty k (log g)^2 and its derivative 2 k log g / g."""
    turn = jnp.linalg.qr(jax.random.normal(key, (4, 4)))[0]

    def penalty(gain, depth=2000):
        return exponent_penalty(
            LayerMap(Layer(gain * jnp.broadcast_to(turn, (depth, 4, 4)), jax.nn.identity)), jnp.ones((1, 4)), k=3
        )

    value, slope = jax.value_and_grad(penalty)(0.1)
    np.testing.assert_allclose(value, 3 * np.log(0.1) ** 2, rtol=1e-11)
    np.testing.assert_allclose(slope, 6 * np.log(0.1) / 0.1, rtol=1e-10)
    lines = [str(jax.make_jaxpr(lambda g, d=d: penalty(g, d))(0.1)).count("\n") for d in (50, 100)]
    assert lines[0] == lines[1]


def test_a_lost_direction_is_left_out(x64):
    """One layer of rank one: the second exponent is -inf, and value and derivative are those of the first alone."""
    weights = jnp.array([[[0.9, 0.4], [-0.2, 1.1]], [[1.0, 2.0], [0.5, 1.0]], [[0.3, -0.8], [0.7, 0.6]]])

    def expected(weights):
        product = weights[2] @ weights[1] @ weights[0]
        return (jnp.log(jnp.linalg.norm(product[:, 0])) / 3) ** 2

    penalty = lambda weights: exponent_penalty(LayerMap(Layer(weights, jax.nn.identity)), jnp.ones((1, 2)), k=2)
    value, slope = jax.value_and_grad(penalty)(weights)
    np.testing.assert_allclose(value, expected(weights), rtol=1e-13)
    np.testing.assert_allclose(slope, jax.grad(expected)(weights), rtol=1e-11, atol=1e-14)


def test_under_vmap_and_in_single_precision(x64, key):
    weights = 0.5 * jax.random.normal(key, (3, 6, 5, 5))
    x = jax.random.normal(jax.random.key(1), (2, 5))

    def penalty(weights, x):
        return exponent_penalty(LayerMap(Layer(weights, jnp.tanh)), x, k=5)

    run = jax.jit(jax.vmap(jax.value_and_grad(penalty), (0, None)))
    (values, slopes), one = run(weights, x), jax.jit(jax.value_and_grad(penalty))
    for i in range(3):
        value, slope = one(weights[i], x)
        np.testing.assert_allclose(values[i], value, rtol=1e-12)
        np.testing.assert_allclose(slopes[i], slope, rtol=1e-9, atol=1e-13)
    with jax.enable_x64(False):
        single, single_slopes = run(jnp.asarray(weights, jnp.float32), jnp.asarray(x, jnp.float32))
        assert single.dtype == single_slopes.dtype == jnp.float32
    np.testing.assert_allclose(single, values, rtol=1e-5)
    np.testing.assert_allclose(single_slopes, slopes, rtol=1e-3, atol=1e-4)


def test_bad_arguments(key):
    model, x = dj.MLP((3, 5, 4, 2), key=key), jnp.ones((2, 3))
    with pytest.raises(TypeError, match="Argument `model` must be an MLP"):
        exponent_penalty(jnp.tanh, x)
    with pytest.raises(ValueError, match="Argument `inputs` must be a batch"):
        exponent_penalty(model, x[0])
    with pytest.raises(ValueError, match="Argument `k` must be at most 3"):
        exponent_penalty(model, x, k=4)
    with pytest.raises(ValueError, match="Argument `num_steps` must be given"):
        exponent_penalty(dj.Map(lambda n, x: x), x)
    with pytest.raises(ValueError, match="Argument `inputs` must be sequences"):
        exponent_penalty(Recurrence(eqx.nn.GRUCell(3, 2, key=key)), x)
