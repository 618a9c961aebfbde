"""Fields with a hard Lipschitz bound."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dynjax.networks as nets

K = 0.7


def _scaled(field, factor, key):
    """The field with parameters far from their start, different for every piece of time."""
    leaves, treedef = jax.tree_util.tree_flatten((field.weights, field.biases))
    keys = jax.random.split(key, len(leaves))
    drawn = [factor * jax.random.normal(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
    weights, biases = jax.tree_util.tree_unflatten(treedef, drawn)
    return eqx.tree_at(lambda f: (f.weights, f.biases), field, (weights, biases))


def _size(x, norm):
    return jnp.max(jnp.abs(x), -1) if norm == "sup" else jnp.sqrt(jnp.sum(x**2, -1))


@eqx.filter_jit
def _largest_slope(field, key, pairs=4000, spread=1.0):
    """The largest quotient |F - F'| / max(|y - y'|, |v - v'|, ...) over random pairs, at random times."""
    m, blocks = field.size, 1 + field.num_delays
    keys = jax.random.split(key, 3)
    x = jax.random.normal(keys[0], (pairs, blocks, m))
    step = spread * jax.random.normal(keys[1], (pairs, blocks, m)) * 10.0 ** -jnp.linspace(0, 5, pairs)[:, None, None]
    t = jax.random.uniform(keys[2], (pairs,), minval=-0.1, maxval=1.1) * field.horizon
    slope = jax.vmap(lambda t, x: field(t, x[0], tuple(x[1:])))
    rise = _size(slope(t, x + step) - slope(t, x), field.norm)
    return jnp.max(rise / jnp.max(_size(step, field.norm), axis=1))


@pytest.mark.parametrize("norm", ["sup", "euclidean"])
@pytest.mark.parametrize(("num_delays", "pieces", "hidden"), [(0, 1, (16,)), (1, 3, (8, 8)), (2, 1, (8,)), (1, 1, ())])
@pytest.mark.parametrize("factor", [0.1, 1.0, 1000.0])
def test_no_pair_of_states_exceeds_the_bound(x64, key, norm, num_delays, pieces, hidden, factor):
    field = nets.LipschitzField(
        K, norm, size=3, num_delays=num_delays, hidden=hidden, time_pieces=pieces, horizon=2.0, key=key
    )
    field = _scaled(field, factor, jax.random.key(1))
    # Differences of nearly equal numbers: the quotient is known up to 1e-16 / 1e-5.
    assert _largest_slope(field, jax.random.key(2)) <= K * (1 + 1e-9)


@pytest.mark.parametrize("activation", [jax.nn.relu, jnp.sin, jax.nn.sigmoid, jax.nn.softplus, jax.nn.gelu])
def test_other_activations_are_divided_by_their_constant(x64, key, activation):
    field = nets.LipschitzField(K, size=2, num_delays=1, activation=activation, key=key)
    for factor in (1.0, 100.0):
        assert _largest_slope(_scaled(field, factor, key), jax.random.key(2)) <= K * (1 + 1e-9)


@pytest.mark.parametrize("norm", ["sup", "euclidean"])
def test_gradient_steps_of_huge_size_cannot_break_the_bound(x64, key, norm):
    field = nets.LipschitzField(K, norm, size=2, num_delays=1, time_pieces=2, key=key)
    u, v = jax.random.normal(jax.random.key(1), (2, 64, 2))

    @eqx.filter_jit
    def step(field, state):
        def gain(field):
            rise = jax.vmap(lambda a, b: field(0.3, a, (b,)) - field(0.3, b, (a,)))(u, v)
            return -jnp.mean(rise**2)

        updates, state = optim.update(eqx.filter_grad(gain)(field), state)
        return eqx.apply_updates(field, updates), state

    optim = optax.sgd(1e4)
    state = optim.init(eqx.filter(field, eqx.is_inexact_array))
    for _ in range(20):
        field, state = step(field, state)
    assert float(jnp.max(jnp.abs(field.weights[0]))) > 100
    assert _largest_slope(field, jax.random.key(2)) <= K * (1 + 1e-9)
    assert float(field.lipschitz) == K
    assert float(field.horizon) == 1.0


@pytest.mark.parametrize("norm", ["sup", "euclidean"])
def test_pure_delayed_feedback_at_full_strength_is_in_the_class(x64, key, norm):
    field = nets.LipschitzField(K, norm, size=2, num_delays=1, hidden=(4,), key=key)
    last = jnp.concatenate([jnp.zeros((2, 4)), jnp.zeros((2, 2)), -jnp.eye(2)], axis=1)[None]
    field = eqx.tree_at(lambda f: (f.weights[-1], f.biases[-1]), field, (last, jnp.zeros((1, 2))))
    u, v = jax.random.normal(jax.random.key(1), (2, 2))
    np.testing.assert_allclose(field(0.0, u, (v,)), -K * v, rtol=1e-15)
    assert float(nets.lipschitz_bound(field, norm)) == pytest.approx(K, rel=1e-15)


@pytest.mark.parametrize("norm", ["sup", "euclidean"])
def test_training_comes_within_two_percent_of_full_strength(x64, key, norm):
    field = nets.LipschitzField(K, norm, size=1, num_delays=1, hidden=(8,), key=key)
    u, v = jax.random.uniform(jax.random.key(1), (2, 128, 1), minval=-1)
    optim = optax.adam(optax.cosine_decay_schedule(0.03, 10_000))

    def step(carry, _):
        field, state = carry
        loss = lambda field: jnp.mean((jax.vmap(lambda a, b: field(0.0, a, (b,)))(u, v) + K * v) ** 2)
        updates, state = optim.update(eqx.filter_grad(loss)(field), state)
        return (eqx.apply_updates(field, updates), state), None

    state = optim.init(eqx.filter(field, eqx.is_inexact_array))
    field, _ = jax.jit(lambda carry: jax.lax.scan(step, carry, length=10_000)[0])((field, state))
    slopes = jax.vmap(jax.grad(lambda a, b: field(0.0, a[None], (b[None],))[0], argnums=1))(u[:, 0], v[:, 0])
    assert float(jnp.max(slopes)) < -0.98 * K
    assert float(jnp.min(slopes)) >= -K * (1 + 1e-12)


def test_each_set_of_parameters_holds_in_the_middle_of_its_piece(x64, key):
    field = _scaled(nets.LipschitzField(K, size=2, time_pieces=4, horizon=2.0, key=key), 1.0, key)
    y = jnp.array([0.3, -0.5])
    constant = nets.LipschitzField(K, size=2, key=key)
    for piece in range(4):
        take = lambda leaf, piece=piece: leaf[piece : piece + 1]
        parts = jax.tree_util.tree_map(take, (field.weights, field.biases))
        frozen = eqx.tree_at(lambda f: (f.weights, f.biases), constant, parts)
        np.testing.assert_allclose(field((piece + 0.5) * 0.5, y), frozen(0.0, y), rtol=1e-13)
    np.testing.assert_allclose(field(0.0, y), field(0.25, y), rtol=1e-13)
    np.testing.assert_allclose(field(2.0, y), field(1.75, y), rtol=1e-13)
    # Continuous in time: no jump anywhere on a fine grid.
    values = jax.vmap(lambda t: field(t, y))(jnp.linspace(0, 2, 4001))
    assert float(jnp.max(jnp.abs(jnp.diff(values, axis=0)))) < 0.01


def test_folding_changes_nothing(x64, key):
    field = _scaled(nets.LipschitzField(K, "euclidean", size=3, num_delays=2, time_pieces=3, key=key), 2.0, key)
    y, u, v = jax.random.normal(jax.random.key(1), (3, 3))
    np.testing.assert_array_equal(*jax.jit(lambda: (field.fold()(0.4, y, (u, v)), field(0.4, y, (u, v))))())


def test_fields_can_be_mapped_over_their_constant(x64, key):
    constants = jnp.array([0.3, 0.9, 2.0])
    fields = eqx.filter_vmap(lambda k: nets.LipschitzField(k, size=2, num_delays=1, key=key))(constants)
    y = jnp.array([0.3, -0.5])
    slopes = eqx.filter_vmap(lambda field: field(0.0, y, (2 * y,)))(fields)
    np.testing.assert_allclose(slopes / constants[:, None], jnp.tile(slopes[0] / 0.3, (3, 1)), rtol=1e-13)


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"lipschitz": 0.0}, "`lipschitz` must be positive"),
        ({"lipschitz": -1.0}, "`lipschitz` must be positive"),
        ({"norm": "max"}, '`norm` must be "sup" or "euclidean"'),
        ({"norm": 2}, '`norm` must be "sup" or "euclidean"'),
        ({"horizon": 0.0}, "`horizon` must be positive"),
        ({"size": 0}, "`size` must be an integer of at least 1"),
        ({"num_delays": -1}, "`num_delays` must be an integer of at least 0"),
        ({"time_pieces": 0}, "`time_pieces` must be an integer of at least 1"),
        ({"hidden": (4, 0)}, "`hidden` must be a sequence of positive integers"),
        ({"activation": lambda x: x**2}, "`activation_lipschitz` must be given"),
    ],
)
def test_bad_input_is_refused(key, kwargs, sentence):
    with pytest.raises(ValueError, match=sentence):
        nets.LipschitzField(**({"lipschitz": K, "size": 2, "key": key} | kwargs))


def test_a_missing_delayed_state_is_refused(key):
    field = nets.LipschitzField(K, size=2, num_delays=1, key=key)
    with pytest.raises(ValueError, match="`delayed` must hold 1 states"):
        field(0.0, jnp.zeros(2))
