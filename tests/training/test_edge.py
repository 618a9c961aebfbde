"""edge_ratio and SharpnessTracker against dense Hessians."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dynjax.networks import MLP
from dynjax.systems import FullBatch, evolve
from dynjax.training import SharpnessTracker, TrainingMap, edge_ratio, preconditioner, stability_threshold


def loss(params, x, y):
    return jnp.mean((jnp.tanh(x @ params["w"]) @ params["v"] - y) ** 2)


def problem():
    a, b, c, d = jax.random.split(jax.random.key(5), 4)
    params = {"w": jax.random.normal(a, (3, 6)), "v": jax.random.normal(b, (6,)), "count": jnp.asarray(3)}
    return params, (jax.random.normal(c, (20, 3)), jax.random.normal(d, (20,)))


def trained(optimizer, num_steps=10):
    params, data = problem()
    system = TrainingMap(loss, optimizer, FullBatch(*data))
    return evolve(system, system.init(params), num_steps=num_steps), data


def dense(params, data, scale=None):
    """Largest eigenvalue of the (preconditioned) Hessian by dense linear algebra."""
    chosen = {k: params[k] for k in ("v", "w")}
    flat, unravel = jax.flatten_util.ravel_pytree(chosen)
    matrix = jax.hessian(lambda p: loss(unravel(p), *data))(flat)
    if scale is not None:
        root = jnp.sqrt(jax.flatten_util.ravel_pytree({k: scale[k] for k in ("v", "w")})[0])
        matrix = root[:, None] * matrix * root
    return float(jnp.linalg.eigvalsh(matrix)[-1])


OPTIMIZERS = {
    "gradient descent": lambda: optax.sgd(0.05),
    "heavy ball": lambda: optax.sgd(0.02, momentum=0.9),
    "adam": lambda: optax.adam(0.01),
    "rmsprop": lambda: optax.rmsprop(0.01),
}


@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_edge_ratio_agrees_with_dense_linear_algebra(x64, name):
    optimizer = OPTIMIZERS[name]()
    (params, state), data = trained(optimizer)
    result = edge_ratio(loss, optimizer, params, state, *data)
    scale = preconditioner(optimizer, state, params)
    top = dense(params, data, scale)
    threshold = stability_threshold(optimizer, state)
    np.testing.assert_allclose(result.sharpness, top, rtol=1e-10)
    np.testing.assert_allclose(result.threshold, threshold, rtol=1e-12)
    np.testing.assert_allclose(result.edge_ratio, top / threshold, rtol=1e-10)
    assert result.preconditioned_sharpness == result.sharpness
    assert bool(result.converged)
    assert "edge ratio" in str(result)
    if name in ("gradient descent", "heavy ball"):
        np.testing.assert_allclose(top, dense(params, data), rtol=1e-12)


def test_lanes_of_learning_rates_agree_with_single_runs(x64):
    params, data = problem()

    start = {"w": jnp.ones((3, 6)), "v": jnp.ones(6), "count": None}

    def lane(rate):
        optimizer = optax.adam(rate)
        system = TrainingMap(loss, optimizer, FullBatch(*data))
        state = evolve(system, system.init(params), num_steps=5)
        return edge_ratio(loss, optimizer, *state, *data, v0=start, method="lanczos", max_restarts=4), state

    rates = jnp.array([0.003, 0.01, 0.03])
    together, states = jax.jit(jax.vmap(lane))(rates)
    assert bool(jnp.all(together.converged))
    for k, rate in enumerate(rates):
        alone = jax.tree_util.tree_map(lambda leaf, k=k: leaf[k], states)
        optimizer = optax.adam(rate)
        top = dense(alone.params, data, preconditioner(optimizer, alone.opt_state, alone.params))
        expected = top / stability_threshold(optimizer, alone.opt_state)
        np.testing.assert_allclose(together.edge_ratio[k], expected, rtol=1e-9)


def test_block_of_parameters_has_its_own_ratio(x64):
    optimizer = optax.adam(0.01)
    (params, state), data = trained(optimizer)
    chosen = {"w": False, "v": True, "count": False}
    result = edge_ratio(loss, optimizer, params, state, *data, filter=chosen)
    scale = preconditioner(optimizer, state, params)["v"]
    matrix = jax.hessian(lambda v: loss({**params, "v": v}, *data))(params["v"])
    top = np.linalg.eigvalsh(np.sqrt(scale)[:, None] * matrix * np.sqrt(scale))[-1]
    np.testing.assert_allclose(result.sharpness, top, rtol=1e-10)
    assert result.vector["w"] is None


def test_rate_of_zero_is_infinitely_far_from_the_edge(x64):
    optimizer = optax.sgd(0.0)
    (params, state), data = trained(optimizer, 1)
    assert edge_ratio(loss, optimizer, params, state, *data).edge_ratio == 0


def test_optimizer_without_threshold_gives_nan(x64):
    optimizer = optax.lion(0.01)
    (params, state), data = trained(optimizer, 2)
    assert jnp.isnan(edge_ratio(loss, optimizer, params, state, *data).edge_ratio)


# The tracker.


@pytest.mark.parametrize("name", ["gradient descent", "adam"])
def test_tracker_is_exact_at_a_refresh_and_below_the_sharpness_between(x64, name):
    optimizer = OPTIMIZERS[name]()
    params, data = problem()
    system = TrainingMap(loss, optimizer, FullBatch(*data))
    state = evolve(system, system.init(params), num_steps=10)
    tracker = SharpnessTracker(loss, optimizer=optimizer, every=4, tol=1e-9)
    track = tracker.init(params)
    assert jnp.isnan(track.sharpness)
    step = eqx.filter_jit(system.step)
    for n in range(9):
        state = step(jnp.asarray(n), state)
        before = track
        track = tracker.update(track, state.params, state.opt_state, *data)
        top = dense(state.params, data, preconditioner(optimizer, state.opt_state, state.params))
        if n % 4 == 0:
            np.testing.assert_allclose(track.sharpness, top, rtol=1e-8)
            assert bool(track.converged)
        else:
            assert track.num_products == before.num_products + 1
            assert track.sharpness <= top * (1 + 1e-12)
            assert top - track.sharpness <= track.residual
        threshold = stability_threshold(optimizer, state.opt_state)
        np.testing.assert_allclose(track.threshold, threshold, rtol=1e-12)
        np.testing.assert_allclose(track.edge_ratio, track.sharpness / threshold, rtol=1e-12)
        assert track.count == n + 1
    assert "after 9 updates" in str(track)


def test_hundred_tracked_steps_compile_once():
    traces = []

    def counted(model, x, y):
        traces.append(1)
        return jnp.mean((jax.vmap(model)(x) - y) ** 2)

    key = jax.random.key(0)
    x = jax.random.normal(key, (20, 2))
    y = x[:, :1]
    optimizer = optax.adam(0.01)
    model = MLP((2, 5, 1), key=key)
    system = TrainingMap(lambda m, x, y: jnp.mean((jax.vmap(m)(x) - y) ** 2), optimizer, FullBatch(x, y))
    state = system.init(model)
    tracker = SharpnessTracker(counted, optimizer=optimizer, every=10)
    track = tracker.init(model)
    step = eqx.filter_jit(system.step)
    state = step(jnp.asarray(0), state)
    structure = jax.tree_util.tree_map(lambda leaf: (leaf.shape, leaf.dtype), track)
    track = tracker.update(track, state.params, state.opt_state, x, y)
    seen = len(traces)
    assert seen > 0
    for n in range(1, 101):
        state = step(jnp.asarray(n), state)
        track = tracker.update(track, state.params, state.opt_state, x, y)
        assert jax.tree_util.tree_map(lambda leaf: (leaf.shape, leaf.dtype), track) == structure
    assert len(traces) == seen
    assert int(track.count) == 101


def test_tracker_runs_inside_a_scan(x64):
    params, data = problem()
    optimizer = optax.sgd(0.05)
    params = {k: v for k, v in params.items() if k != "count"}
    system = TrainingMap(loss, optimizer, FullBatch(*data))
    tracker = SharpnessTracker(loss, optimizer=optimizer, every=3, tol=1e-9)

    def body(carry, n):
        state, track = carry
        state = system.step(n, state)
        track = tracker.update(track, state.params, state.opt_state, *data)
        return (state, track), track.sharpness

    start = (system.init(params), tracker.init(params))
    (state, track), readings = jax.jit(lambda s: jax.lax.scan(body, s, jnp.arange(10)))(start)
    assert readings.shape == (10,)
    np.testing.assert_allclose(track.sharpness, dense(state.params, data), rtol=1e-8)


def test_tracks_in_lockstep_pay_for_lanczos_at_refreshes_only(x64):
    """Between refreshes a batch of tracks spends one product in all lanes together, and reads what each would alone."""
    _, data = problem()
    a, b = jax.random.split(jax.random.key(6))
    # Too many for a dense matrix.
    params = {"w": jax.random.normal(a, (3, 30)) / 5, "v": jax.random.normal(b, (30,)) / 5}
    rates, calls = jnp.array([0.01, 0.05, 0.1]), []
    tracker = SharpnessTracker(loss, optimizer=optax.sgd(0.05), every=3, tol=1e-9)

    def counted(params, *data):
        jax.debug.callback(lambda _: calls.append(1), params["v"][0])
        return loss(params, *data)

    counting = SharpnessTracker(counted, optimizer=optax.sgd(0.05), every=3, tol=1e-9)

    def readings(tracker, rate):
        system = TrainingMap(loss, optax.sgd(rate), FullBatch(*data))

        def body(carry, n):
            state, track = carry
            state = system.step(n, state)
            track = tracker.update(track, state.params, optax.sgd(0.05).init(state.params), *data)
            return (state, track), (track.sharpness, track.num_products)

        return jax.lax.scan(body, (system.init(params), tracker.init(params)), jnp.arange(6))[1]

    sharpness, products = jax.jit(jax.vmap(lambda rate: readings(counting, rate)))(rates)
    jax.effects_barrier()
    spent = np.diff(np.asarray(products), axis=1, prepend=0)
    assert (spent[:, [1, 2, 4, 5]] == 1).all()
    assert len(calls) == len(rates) * np.max(spent, axis=0).sum()
    for i, rate in enumerate(rates):
        alone, count = jax.jit(lambda rate: readings(tracker, rate))(rate)
        np.testing.assert_allclose(sharpness[i], alone, rtol=1e-10)
        np.testing.assert_array_equal(products[i], count)


def test_half_precision_parameters_are_tracked():
    params = {"w": jnp.ones((2, 3), jnp.bfloat16), "v": jnp.ones(3, jnp.bfloat16)}
    x, y = jnp.ones((4, 2), jnp.bfloat16), jnp.zeros(4, jnp.bfloat16)
    tracker = SharpnessTracker(loss, optimizer=optax.sgd(0.1), every=2)
    track = tracker.init(params)
    for _ in range(2):
        track = tracker.update(track, params, optax.sgd(0.1).init(params), x, y)
        assert track.sharpness.dtype == jnp.float32
        assert jnp.isfinite(track.sharpness)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (
            lambda: SharpnessTracker(loss, optimizer=optax.sgd(0.1), every=0),
            ValueError,
            "Argument `every` must be a pos",
        ),
        (lambda: SharpnessTracker(loss, optimizer=0.1, every=2), TypeError, "Argument `optimizer` must be an optax"),
        (
            lambda: SharpnessTracker(3, optimizer=optax.sgd(0.1), every=2),
            TypeError,
            "Argument `loss` must be a function",
        ),
        (
            lambda: SharpnessTracker(loss, optimizer=optax.sgd(0.1), every=2, tol=-1.0),
            ValueError,
            "Argument `tol` must be positive",
        ),
        (
            lambda: SharpnessTracker(loss, optimizer=optax.sgd(0.1), every=2).update(None, jnp.ones(2), ()),
            ValueError,
            "Argument `track` must come from `init",
        ),
        (
            lambda: edge_ratio(lambda p: p, optax.sgd(0.1), jnp.ones(2), optax.sgd(0.1).init(jnp.ones(2))),
            TypeError,
            "must return one scalar",
        ),
        (
            lambda: edge_ratio(jnp.sum, optax.adam(0.1), jnp.ones(2), optax.sgd(0.1).init(jnp.ones(2))),
            ValueError,
            "Argument `opt_state` must be a state of `optimizer`",
        ),
    ],
)
def test_bad_input_is_told_in_one_sentence(call, error, sentence):
    with pytest.raises(error, match=sentence):
        call()
