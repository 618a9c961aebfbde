"""Neural ordinary differential equations."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg

import dynjax as dj
import dynjax.networks as nets
from dynjax import reference

MATRIX = np.array([[-0.3, 1.0, 0.2], [-1.0, -0.1, 0.0], [0.5, 0.0, 0.2]])


def _linear(t, h):
    return jnp.asarray(MATRIX, h.dtype) @ h


def test_a_linear_field_gives_the_matrix_exponential(x64, key):
    model = nets.NeuralODE((2, 3, 2), horizon=1.7, field=_linear, rtol=1e-11, atol=1e-11, key=key)
    x = jnp.array([0.4, -1.1])
    expected = scipy.linalg.expm(1.7 * MATRIX) @ np.asarray(model.lift(x))
    np.testing.assert_allclose(eqx.filter_jit(model)(x), model.readout(jnp.asarray(expected)), rtol=1e-9)


def test_fixed_steps_of_a_linear_field_are_powers_of_a_polynomial(x64, key):
    model = nets.NeuralODE((2, 3, 2), horizon=1.7, field=_linear, num_steps=5, key=key)
    x = jnp.array([0.4, -1.1])
    a = 1.7 / 5 * MATRIX
    step = np.eye(3) + a + a @ a / 2 + a @ a @ a / 6 + a @ a @ a @ a / 24
    expected = np.linalg.matrix_power(step, 5) @ np.asarray(model.lift(x))
    np.testing.assert_allclose(model.solve(x), expected, rtol=1e-13)


def _varied(model, key, factor=1.0):
    """The model with a different set of parameters in every piece of time."""
    weights, biases = model.field.weights, model.field.biases
    draw = lambda leaf, k: factor * jax.random.normal(k, leaf.shape, leaf.dtype)
    keys = jax.random.split(key, 2 * len(weights))
    new = tuple(map(draw, weights, keys[: len(weights)])), tuple(map(draw, biases, keys[len(weights) :]))
    return eqx.tree_at(lambda m: (m.field.weights, m.field.biases), model, new)


def test_fixed_steps_have_order_four_under_jit(x64, key):
    def output(num_steps):
        options = {"lipschitz": 2.0, "time_pieces": 3, "hidden": (4,)}
        model = nets.NeuralODE((2, 3, 2), horizon=2.0, num_steps=num_steps, key=key, **options)
        return eqx.filter_jit(lambda m: m(jnp.array([0.4, -1.1])))(_varied(model, key))

    fine = output(768)
    errors = [float(jnp.max(jnp.abs(output(n) - fine))) for n in (24, 48, 96)]
    orders = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all(orders > 3.8), (errors, orders)
    assert np.all(orders < 4.5), (errors, orders)
    # 50 steps do not end at the corners in time, which three pieces have at 1/6, 1/2 and 5/6 of the horizon.
    assert float(jnp.max(jnp.abs(output(50) - fine))) > 10 * errors[1]


def test_both_solvers_agree(x64, key):
    x = jax.random.normal(jax.random.key(1), (5, 2))
    options = {"lipschitz": 1.5, "norm": "euclidean", "key": key}
    fixed = nets.NeuralODE((2, 3, 1), num_steps=100, **options)
    adaptive = nets.NeuralODE((2, 3, 1), rtol=1e-10, atol=1e-10, **options)
    np.testing.assert_allclose(jax.jit(jax.vmap(adaptive))(x), jax.jit(jax.vmap(fixed))(x), rtol=1e-8)


@pytest.mark.parametrize(
    "adjoint",
    [
        None,
        pytest.param(diffrax.DirectAdjoint(), marks=pytest.mark.slow),  # 6 seconds of compilation each
        pytest.param(diffrax.BacksolveAdjoint(), marks=pytest.mark.slow),
    ],
)
def test_gradients_of_the_adaptive_solver_are_those_of_many_fixed_steps(x64, key, adjoint):
    x = jax.random.normal(jax.random.key(1), (3, 2))
    loss = lambda m: jnp.mean(jax.vmap(m)(x) ** 2)
    fixed = nets.NeuralODE((2, 3, 1), num_steps=100, key=key)
    adaptive = nets.NeuralODE((2, 3, 1), rtol=1e-9, atol=1e-9, adjoint=adjoint, key=key)
    expected, found = (jax.tree_util.tree_leaves(jax.jit(jax.grad(loss))(m)) for m in (fixed, adaptive))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_forward_mode_by_choice_of_the_adjoint(x64, key):
    x, v = jnp.array([0.4, -1.1]), jnp.array([1.0, 0.5])
    model = nets.NeuralODE((2, 3, 1), rtol=1e-10, atol=1e-10, adjoint=diffrax.ForwardMode(), key=key)
    pushed = jax.jit(lambda: jax.jvp(model, (x,), (v,))[1])()
    fixed = eqx.filter_jit(nets.NeuralODE((2, 3, 1), num_steps=100, key=key))
    np.testing.assert_allclose(pushed, (fixed(x + 1e-5 * v) - fixed(x - 1e-5 * v)) / 2e-5, rtol=1e-6)


def test_hessian_of_the_input_output_map_with_fixed_steps(x64, key):
    model = nets.NeuralODE((2, 3, 1), num_steps=10, key=key)
    x = jnp.array([0.4, -1.1])
    scalar = lambda x: model(x)[0]
    forward_over_reverse = jax.jit(jax.hessian(scalar))(x)
    gradient = jax.jit(jax.grad(scalar))
    steps = 1e-5 * jnp.eye(2)
    differences = jnp.stack([(gradient(x + e) - gradient(x - e)) / 2e-5 for e in steps])
    np.testing.assert_allclose(forward_over_reverse, differences, rtol=1e-6, atol=1e-9)


def test_the_curvature_tools_take_a_neural_ode(x64, key):
    x = jax.random.normal(jax.random.key(1), (10, 2))
    loss = lambda m, x: jnp.mean((jax.vmap(m)(x)[:, 0] - x[:, 0] * x[:, 1]) ** 2)
    model = nets.NeuralODE((2, 2, 1), hidden=(4,), num_steps=5, key=key)
    params, unravel = jax.flatten_util.ravel_pytree(model)
    values = jnp.linalg.eigvalsh(jax.jit(jax.hessian(lambda p: loss(unravel(p), x)))(params))
    np.testing.assert_allclose(dj.sharpness(loss, model, x).value, values[-1], rtol=1e-6)


def test_exponents_of_the_flow_of_a_linear_field(x64, key):
    model = nets.NeuralODE((2, 3, 1), field=_linear, key=key)
    found = dj.lyapunov_spectrum(model.flow(0.02), jnp.zeros(3), num_steps=20_000, key=key, progress=False)
    np.testing.assert_allclose(found.exponents, reference.linear_flow_exponents(MATRIX), atol=2e-3)
    np.testing.assert_allclose(found.sum, np.trace(MATRIX), rtol=1e-6)


def test_the_flow_is_the_model_between_its_layers(x64, key):
    model = nets.NeuralODE((2, 3, 1), time_dependent=True, num_steps=20, horizon=2.0, key=key)
    x = jnp.array([0.4, -1.1])
    np.testing.assert_allclose(dj.evolve(model.flow(0.1), model.lift(x), num_steps=20), model.solve(x), rtol=1e-12)


def test_a_batch_with_common_steps_agrees_with_single_samples(x64, key):
    x = jax.random.normal(jax.random.key(1), (7, 2))
    model = nets.NeuralODE((2, 3, 1), rtol=1e-9, atol=1e-9, time_dependent=True, key=key)
    fixed = nets.NeuralODE((2, 3, 1), num_steps=100, time_dependent=True, key=key)
    loss = lambda m: jnp.mean(m.batch(x) ** 2)
    joint, single = (jax.jit(jax.value_and_grad(loss))(m) for m in (model, fixed))
    for a, b in zip(*map(jax.tree_util.tree_leaves, (joint, single)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)
    few = nets.NeuralODE((2, 3, 1), num_steps=5, key=key)
    np.testing.assert_allclose(few.batch(x), jax.vmap(few)(x), rtol=1e-13)
    with pytest.raises(ValueError, match=r"`x` must be samples of shape \(N, 2\)"):
        model.batch(x[0])


def test_a_solver_that_fails_gives_nan_in_its_own_lane_only(x64, key):
    """h' = h^2 reaches infinity at t = 1 / h(0)."""
    eye = nets.Affine(jnp.eye(1))
    model = nets.NeuralODE((1, 1, 1), field=lambda t, h: h**2, lift=eye, readout=eye, max_steps=100, key=key)
    out = jax.jit(jax.vmap(model))(jnp.array([[0.5], [2.0], [-1.0]]))[:, 0]
    np.testing.assert_allclose(out[jnp.array([0, 2])], [1.0, -0.5], rtol=1e-6)
    assert np.isnan(out[1])
    value, slope = jax.jit(jax.value_and_grad(lambda x: model(x)[0]))(jnp.array([2.0]))
    assert np.isnan(value)
    assert np.isnan(slope)


def test_the_horizon_is_not_trained(x64, key):
    model = nets.NeuralODE((2, 3, 1), num_steps=5, lipschitz=1.0, time_pieces=2, key=key)
    gradient = jax.jit(jax.grad(lambda m: jnp.sum(m(jnp.ones(2)) ** 2)))(model)
    assert float(gradient.horizon) == float(gradient.field.lipschitz) == float(gradient.field.horizon) == 0.0
    assert all(np.any(w != 0) for w in (gradient.lift.weight, gradient.readout.weight, *gradient.field.weights))


def test_lanes_of_models_equal_a_loop(x64, key):
    keys = jax.random.split(key, 3)
    x = jax.random.normal(jax.random.key(1), (4, 2))
    make = lambda key: nets.NeuralODE((2, 3, 1), lipschitz=1.0, key=key)
    lanes = eqx.filter_vmap(make)(keys)
    outputs = eqx.filter_jit(eqx.filter_vmap(lambda m: jax.vmap(m)(x)))(lanes)
    single = eqx.filter_jit(lambda m: jax.vmap(m)(x))
    for lane, k in enumerate(keys):
        np.testing.assert_allclose(outputs[lane], single(make(k)), rtol=1e-12)


def test_lanes_of_horizons_share_one_program(x64, key):
    horizons = jnp.array([0.5, 1.0, 2.0])
    make = lambda horizon: nets.NeuralODE((2, 3, 1), horizon=horizon, num_steps=10, key=key)
    outputs = eqx.filter_vmap(lambda h: make(h)(jnp.ones(2)))(horizons)
    for out, horizon in zip(outputs, (0.5, 1.0, 2.0), strict=True):
        np.testing.assert_allclose(out, make(horizon)(jnp.ones(2)), rtol=1e-12)


def test_lanes_learn_in_one_program(x64, key):
    x = jax.random.uniform(jax.random.key(1), (64, 2), minval=-1)
    loss = lambda m: jnp.mean((jax.vmap(m)(x)[:, 0] - x[:, 0] * x[:, 1]) ** 2)
    optim = optax.adam(0.02)

    def train(model):
        def step(carry, _):
            model, state = carry
            value, gradient = jax.value_and_grad(loss)(model)
            updates, state = optim.update(gradient, state)
            return (optax.apply_updates(model, updates), state), value

        return jax.lax.scan(step, (model, optim.init(model)), length=300)[1]

    make = lambda key: nets.NeuralODE((2, 3, 1), num_steps=4, key=key)
    losses = eqx.filter_jit(eqx.filter_vmap(train))(eqx.filter_vmap(make)(jax.random.split(key, 3)))
    assert bool(jnp.all(losses[:, -1] < 0.05 * losses[:, 0])), losses[:, (0, -1)]


def test_parameters_and_output_take_the_wanted_dtype(x64, key):
    model = nets.NeuralODE((2, 3, 1), dtype=jnp.float32, key=key)
    assert {leaf.dtype for leaf in jax.tree_util.tree_leaves(model)} == {jnp.dtype("float32")}
    assert eqx.filter_eval_shape(model, jnp.ones(2, jnp.float32)).dtype == jnp.float32


@pytest.mark.parametrize(
    ("kwargs", "error", "sentence"),
    [
        ({"widths": (2, 3)}, ValueError, "`widths` must be three positive integers"),
        ({"widths": (2, -3, 1)}, ValueError, "`widths` must be three positive integers"),
        ({"widths": 3}, ValueError, "`widths` must be three positive integers"),
        ({"horizon": 0.0}, ValueError, "`horizon` must be positive"),
        ({"horizon": -1.0}, ValueError, "`horizon` must be positive"),
        ({"horizon": np.inf}, ValueError, "`horizon` must be positive and finite"),
        ({"num_steps": 0}, ValueError, "`num_steps` must be an integer of at least 1"),
        ({"max_steps": 0}, ValueError, "`max_steps` must be an integer of at least 1"),
        ({"lipschitz": 0.0}, ValueError, "`lipschitz` must be positive"),
        ({"lipschitz": 1.0, "norm": "l1"}, ValueError, '`norm` must be "sup" or "euclidean"'),
        ({"lipschitz": 1.0, "time_dependent": True}, ValueError, "`time_dependent` must be False"),
        ({"time_pieces": 3}, ValueError, "`time_pieces` must be 1 unless"),
        ({"field": _linear, "lipschitz": 1.0}, ValueError, "`lipschitz` must be None where a `field`"),
        ({"field": _linear, "time_dependent": True}, ValueError, "`time_dependent` must be False where a `field`"),
        ({"field": lambda t, h: h[:2]}, ValueError, "`field` must return a vector of length 3"),
        ({"field": lambda h: h}, ValueError, "`field` must accept the shapes"),
        ({"field": 3}, TypeError, "`field` must be callable"),
        ({"lift": lambda x: x}, ValueError, "`lift` must return a vector of length 3"),
        ({"readout": nets.Affine(np.eye(3))}, ValueError, "`readout` must return a vector of length 1"),
        ({"solver": "tsit5"}, TypeError, "`solver` must be a Diffrax solver"),
        ({"adjoint": "direct"}, TypeError, "`adjoint` must be a Diffrax adjoint"),
    ],
)
def test_bad_input_is_refused(key, kwargs, error, sentence):
    with pytest.raises(error, match=sentence):
        nets.NeuralODE(**({"widths": (2, 3, 1), "key": key} | kwargs))


def test_a_batch_without_vmap_is_refused_with_advice(key):
    with pytest.raises(ValueError, match=r"jax\.vmap"):
        nets.NeuralODE((2, 3, 1), key=key)(jnp.ones((4, 2)))
