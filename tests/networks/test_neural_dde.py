"""Neural delay differential equations."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dynjax as dj
import dynjax.networks as nets
from dynjax import reference

ONE = np.ones(1)
COARSE = {"steps_per_delay": 4, "solver": diffrax.Bosh3()}  # compiles in half the time


def _identity(key, field, **kwargs):
    """A scalar equation with y = x in the past and the output y(T)."""
    eye = nets.Affine(jnp.eye(1))
    return nets.NeuralDDE((1, 1, 1), field=field, lift=eye, readout=eye, key=key, **kwargs)


def _feedback(t, y, delayed):
    return -sum(delayed)


@pytest.mark.parametrize(
    ("kwargs", "tolerance"),
    [({}, 1e-8), ({"solver": diffrax.Dopri8()}, 1e-14), ({"engine": "segments", "rtol": 1e-10, "atol": 1e-10}, 1e-10)],
)
def test_delayed_feedback_gives_its_polynomials(x64, key, kwargs, tolerance):
    """y' = -y(t - 1), y = 1 before: y(10) = 10493 / 518400."""
    model = _identity(key, _feedback, horizon=10.0, **kwargs)
    np.testing.assert_allclose(model(ONE)[0], 10493 / 518400, atol=tolerance)


def test_two_delays_with_a_common_divisor_agree_with_the_adaptive_engine(x64, key):
    fixed = _identity(key, _feedback, delay=(1 / 3, 0.5), horizon=1.7, steps_per_delay=30)
    assert fixed.plan.lags == (2.0, 3.0)
    adaptive = _identity(key, _feedback, delay=(1 / 3, 0.5), horizon=1.7, engine="segments", rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(fixed(ONE), adaptive(ONE), rtol=1e-9)


def test_the_derivative_by_a_trainable_delay_is_exact(x64, key):
    """dy(5.5) / dtau at tau = 1 is 0.7799479..., and the delay is stored by its logarithm."""
    model = _identity(key, _feedback, horizon=5.5, trainable_delays=True, rtol=1e-10, atol=1e-10)
    gradient = jax.jit(jax.grad(lambda m: m(ONE)[0]))(model)
    np.testing.assert_allclose(gradient.stored_delays, [0.779947916666666667], rtol=1e-8)


@pytest.mark.slow  # 10 seconds, most of it compilation
def test_gradients_by_two_delays_are_central_differences(x64, key):
    make = lambda delay: nets.NeuralDDE(
        (1, 2, 1), delay=delay, horizon=1.4, hidden=(4,), trainable_delays=True, rtol=1e-10, atol=1e-10, key=key
    )
    output = jax.jit(lambda m: m(ONE)[0])
    gradient = jax.jit(jax.grad(lambda m: m(ONE)[0]))(make((1.0, 0.7)))
    h = 1e-5
    for j, tau in enumerate((1.0, 0.7)):
        shifted = [[1.0, 0.7], [1.0, 0.7]]
        shifted[0][j], shifted[1][j] = tau * np.exp(h), tau * np.exp(-h)
        models = [eqx.tree_at(lambda m: m.stored_delays, make((1.0, 0.7)), jnp.log(jnp.array(s))) for s in shifted]
        difference = (output(models[0]) - output(models[1])) / (2 * h)
        np.testing.assert_allclose(gradient.stored_delays[j], difference, rtol=1e-6)


def test_trainable_delays_stay_positive(x64, key):
    model = nets.NeuralDDE((1, 1, 1), delay=(1.0, 0.3), trainable_delays=True, key=key)
    np.testing.assert_allclose(model.delays, [1.0, 0.3], rtol=1e-15)
    moved = eqx.tree_at(lambda m: m.stored_delays, model, model.stored_delays - 100.0)
    assert bool(jnp.all(moved.delays > 0))


def test_too_short_a_trained_delay_gives_nan_and_no_wrong_number(x64, key):
    model = _identity(key, _feedback, horizon=5.5, trainable_delays=True)
    short = eqx.tree_at(lambda m: m.stored_delays, model, jnp.log(jnp.array([0.4])))
    output = jax.jit(lambda m: m(ONE)[0])
    assert np.isfinite(output(model))
    assert np.isnan(output(short))


@pytest.mark.parametrize("engine", ["stages", pytest.param("segments", marks=pytest.mark.slow)])
def test_a_solution_that_explodes_gives_nan_in_its_own_lane_only(x64, key, engine):
    """y' = y^2 reaches infinity at t = 1 / y(0)."""
    model = _identity(key, lambda t, y, delayed: y**2, engine=engine)
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(lambda x: model(x)[0])))(jnp.array([[0.5], [3.0]]))
    np.testing.assert_allclose([value[0], slope[0, 0]], [1.0, 4.0], rtol=1e-6)
    assert np.isnan(value[1])
    assert np.isnan(slope[1, 0])


def test_fixed_delays_and_the_horizon_are_not_trained(x64, key):
    model = nets.NeuralDDE((2, 2, 1), delay=(1.0, 0.5), horizon=2.0, lipschitz=0.8, **COARSE, key=key)
    gradient = jax.jit(jax.grad(lambda m: jnp.sum(m(jnp.ones(2)) ** 2)))(model)
    assert not np.any(gradient.stored_delays)
    assert float(gradient.horizon) == float(gradient.field.lipschitz) == float(gradient.field.horizon) == 0.0
    assert all(np.any(w != 0) for w in (gradient.lift.weight, gradient.readout.weight, *gradient.field.weights))
    assert not np.any(jax.grad(lambda m: jnp.sum(m.delays))(model).stored_delays)


def _varied(model, key):
    """The model with a different set of parameters in every piece of time."""
    draw = lambda leaf, k: jax.random.normal(k, leaf.shape, leaf.dtype)
    keys = jax.random.split(key, len(model.field.weights))
    return eqx.tree_at(lambda m: m.field.weights, model, tuple(map(draw, model.field.weights, keys)))


def test_fixed_steps_keep_their_order_where_the_field_has_pieces_in_time(x64, key):
    def output(steps):
        model = nets.NeuralDDE(
            (1, 2, 1), horizon=1.5, lipschitz=2.0, time_pieces=6, steps_per_delay=steps, solver=diffrax.Bosh3(),
            hidden=(4,), key=key,
        )  # fmt: skip
        return eqx.filter_jit(lambda m: m(ONE)[0])(_varied(model, key))

    # 8 steps for each delay are 12 in the horizon, twice the number of pieces.
    fine = output(512)
    errors = [abs(float(output(n) - fine)) for n in (32, 64)]
    assert np.log2(errors[0] / errors[1]) > 2.8, errors
    # Steps that do not end at the corners in time lose it.
    assert abs(float(output(67) - fine)) > 5 * errors[1]


@pytest.mark.parametrize(
    ("delay", "horizon", "pieces", "steps"),
    [
        (1.0, 3.0, 1, 8),
        (1.0, 3.0, 6, 8),  # 24 steps, a multiple of 12
        (1.0, 3.0, 4, 8),
        (1.0, 3.0, 5, 10),
        (1.0, 3.24, 6, 100),  # T = 81/25: 324 equal steps
        (4.0, 1.0, 1, 32),
        ((1.0, 0.25), 2.0, 1, 8),
        ((1.0, 0.75), 2.0, 1, 9),
    ],
)
def test_default_steps_resolve_the_shortest_time_and_meet_the_corners(x64, key, delay, horizon, pieces, steps):
    options = {"lipschitz": 1.0, "time_pieces": pieces} if pieces > 1 else {}
    model = nets.NeuralDDE((1, 1, 1), delay=delay, horizon=horizon, key=key, **options)
    assert model.plan.engine == "stages"
    assert model.plan.steps_per_delay == steps


def test_times_may_be_scaled_together_but_not_apart(x64, key):
    model = nets.NeuralDDE((1, 2, 1), horizon=3.0, **COARSE, key=key)
    output = jax.jit(lambda m: m(ONE)[0])
    with_times = lambda delay, horizon: eqx.tree_at(
        lambda m: (m.stored_delays, m.horizon), model, (jnp.array([delay]), jnp.array(horizon))
    )
    built = nets.NeuralDDE((1, 2, 1), delay=0.6, horizon=1.8, **COARSE, key=key)
    np.testing.assert_allclose(output(with_times(0.6, 1.8)), output(built), rtol=1e-13)
    assert np.isnan(output(with_times(0.6, 3.0)))


def test_exponents_of_the_delay_flow_are_the_characteristic_roots(x64, key):
    field = lambda t, y, delayed: 0.2 * y - 1.1 * delayed[0]
    model = _identity(key, field, delay=1.0)
    system = model.delay_flow(0.05)
    found = dj.lyapunov_spectrum(system, system.init(model.lift(ONE)), num_steps=20_000, k=3, key=key, progress=False)
    np.testing.assert_allclose(found.exponents, reference.delay_exponents(0.2, -1.1, 1.0, 3), atol=3e-3)


def test_the_delay_flow_arrives_where_the_model_does(x64, key):
    model = nets.NeuralDDE((1, 2, 1), delay=(1.0, 0.5), horizon=2.0, time_dependent=True, key=key)
    system = model.delay_flow(0.01)
    state = dj.evolve(system, system.init(model.lift(ONE)), num_steps=200)
    np.testing.assert_allclose(state.y, model.solve(ONE), rtol=1e-7)
    traced = eqx.filter_jit(lambda m: m.delay_flow(0.01, num_history=100).delays)(model)
    np.testing.assert_array_equal(traced, (1.0, 0.5))


@pytest.mark.slow  # 20 seconds, all of it compilation
def test_the_curvature_tools_take_a_neural_dde(x64, key):
    x = jax.random.normal(jax.random.key(1), (10, 1))
    loss = lambda m, x: jnp.mean((jax.vmap(m)(x) - x**2) ** 2)
    model = nets.NeuralDDE((1, 1, 1), hidden=(4,), horizon=2.0, **COARSE, key=key)
    params, unravel = jax.flatten_util.ravel_pytree(model)
    values = jnp.linalg.eigvalsh(jax.jit(jax.hessian(lambda p: loss(unravel(p), x)))(params))
    np.testing.assert_allclose(dj.sharpness(loss, model, x).value, values[-1], rtol=1e-6)


def test_inputs_cannot_approach_each_other_faster_than_the_critical_solution(x64, key):
    """With K = 0.45, tau = 1: |y_1(T) - y_2(T)| >= w(T) |c_1 - c_2|, w' = -K w(t - 1), w(3) = 1 - 3K + 2K^2 - K^3 / 6."""
    k = 0.45
    w = 1 - 3 * k + 2 * k**2 - k**3 / 6

    def slopes(key):
        model = nets.NeuralDDE((1, 1, 1), horizon=3.0, lipschitz=k, time_pieces=3, hidden=(4,), **COARSE, key=key)
        model = _varied(model, key)
        return jax.vmap(jax.grad(lambda c: model.solve(c[None])[0]))(jnp.linspace(-2, 2, 9)) / model.lift.weight[0, 0]

    found = eqx.filter_jit(jax.vmap(slopes))(jax.random.split(key, 100))
    assert float(jnp.min(found)) >= w * (1 - 1e-6)
    # Pure delayed feedback attains it.
    critical = _identity(key, lambda t, y, delayed: -k * delayed[0], horizon=3.0)
    np.testing.assert_allclose(critical(ONE), [w], rtol=1e-9)


def test_lanes_of_models_equal_a_loop(x64, key):
    keys = jax.random.split(key, 3)
    x = jax.random.normal(jax.random.key(1), (4, 2))
    options = {"delay": (1.0, 0.5), "lipschitz": 0.7, "time_pieces": 2, **COARSE}
    make = lambda key: nets.NeuralDDE((2, 2, 1), horizon=2.0, key=key, **options)
    lanes = eqx.filter_vmap(make)(keys)
    assert lanes.delays.shape == (3, 2)
    outputs = eqx.filter_jit(eqx.filter_vmap(lambda m: jax.vmap(m)(x)))(lanes)
    single = eqx.filter_jit(lambda m: jax.vmap(m)(x))
    for lane, k in enumerate(keys):
        np.testing.assert_allclose(outputs[lane], single(make(k)), rtol=1e-12)


@pytest.mark.slow  # 10 seconds
def test_lanes_of_constants_learn_in_one_program(x64, key):
    """Above the memory threshold, .5858 for T = 2 tau, the square is learnt; below no network can do better than 9/160."""
    nodes, weights = np.polynomial.legendre.leggauss(24)
    x = jnp.asarray(nodes)[:, None]
    loss = lambda m: jnp.sum(weights / 2 * ((jax.vmap(m)(x) - x**2) ** 2)[:, 0])
    optim = optax.adam(optax.cosine_decay_schedule(0.03, 800))

    def train(k):
        model = nets.NeuralDDE((1, 1, 1), horizon=2.0, lipschitz=k, hidden=(6,), time_pieces=4, **COARSE, key=key)

        def step(carry, _):
            model, state = carry
            value, gradient = jax.value_and_grad(loss)(model)
            updates, state = optim.update(gradient, state)
            return (optax.apply_updates(model, updates), state), value

        return jax.lax.scan(step, (model, optim.init(model)), length=800)[1]

    losses = jax.jit(jax.vmap(train))(jnp.array([0.5, 1.5]))
    assert float(losses[0].min()) >= 9 / 160 * (1 - 1e-3)
    assert float(losses[1, -1]) < 0.02


def test_parameters_and_output_take_the_wanted_dtype(x64, key):
    model = nets.NeuralDDE((2, 2, 1), delay=(0.3, 0.1), horizon=0.9, dtype=jnp.float32, key=key)
    assert {leaf.dtype for leaf in jax.tree_util.tree_leaves(model)} == {jnp.dtype("float32")}
    out = eqx.filter_jit(model)(jnp.ones(2, jnp.float32))
    assert out.dtype == jnp.float32
    assert np.isfinite(out).all()


def test_the_engine_follows_from_the_delays(key):
    plan = lambda **kwargs: nets.NeuralDDE((1, 1, 1), key=key, **kwargs).plan
    assert plan().engine == "stages"
    assert plan(delay=(1.0, 0.3)).engine == "stages"
    assert plan(delay=(1.0, 2**0.5)).engine == "segments"
    assert plan(trainable_delays=True).engine == "segments"
    assert plan(delay=(1.0, 0.5), horizon=1.0, trainable_delays=True).max_segments == 6  # sums of 1/2 and 1/4 below 1
    traced = jax.vmap(lambda d: plan(delay=d, max_segments=5).max_segments * d)(jnp.array([1.0, 2.0]))
    np.testing.assert_array_equal(traced, [5.0, 10.0])


@pytest.mark.parametrize(
    ("kwargs", "error", "sentence"),
    [
        ({"widths": (2, 3)}, ValueError, "`widths` must be three positive integers"),
        ({"widths": (2, 3, 0)}, ValueError, "`widths` must be three positive integers"),
        ({"delay": 0.0}, ValueError, "`delay` must be positive"),
        ({"delay": (1.0, -0.5)}, ValueError, "`delay` must be positive"),
        ({"delay": np.array([1.0, 0.0])}, ValueError, "`delay` must be positive"),
        ({"delay": ()}, ValueError, "`delay` must be one number or a sequence of numbers"),
        ({"delay": np.nan}, ValueError, "`delay` must be positive and finite"),
        ({"horizon": 0.0}, ValueError, "`horizon` must be positive"),
        ({"lipschitz": -0.5}, ValueError, "`lipschitz` must be positive"),
        ({"lipschitz": 0.5, "norm": "l2"}, ValueError, '`norm` must be "sup" or "euclidean"'),
        ({"time_pieces": 2}, ValueError, "`time_pieces` must be 1 unless"),
        ({"engine": "steps"}, ValueError, '`engine` must be "stages" or "segments"'),
        ({"engine": "stages", "trainable_delays": True}, ValueError, "but they are trainable"),
        ({"engine": "stages", "delay": (1.0, 2**0.5)}, ValueError, "fixed multiples of one number"),
        ({"engine": "segments", "steps_per_delay": 4}, ValueError, "`steps_per_delay` must be None"),
        ({"steps_per_delay": 0}, ValueError, "`steps_per_delay` must be an integer of at least 1"),
        ({"max_segments": 0}, ValueError, "`max_segments` must be an integer of at least 1"),
        ({"max_steps": 1}, ValueError, "`max_steps` must be an integer of at least 2"),
        ({"adjoint": "both"}, ValueError, '`adjoint` must be "reverse" or "forward"'),
        ({"field": lambda t, y: y}, ValueError, "`field` must accept the shapes"),
        ({"field": lambda t, y, delayed: y[:1]}, ValueError, "`field` must return a vector of length 3"),
        ({"field": "linear"}, TypeError, "`field` must be callable"),
    ],
)
def test_bad_input_is_refused(key, kwargs, error, sentence):
    with pytest.raises(error, match=sentence):
        nets.NeuralDDE(**({"widths": (2, 3, 1), "key": key} | kwargs))


def test_traced_delays_need_room(key):
    with pytest.raises(ValueError, match="`max_segments` must be given"):
        jax.vmap(lambda d: nets.NeuralDDE((1, 1, 1), delay=d, key=key).delays)(jnp.array([1.0, 2.0]))


def test_a_batch_without_vmap_is_refused_with_advice(key):
    with pytest.raises(ValueError, match=r"jax\.vmap"):
        nets.NeuralDDE((2, 3, 1), key=key)(jnp.ones((4, 2)))
