"""preconditioner: D read from optax states, against the formulas and the steps of the optimisers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg

from dynjax.training import preconditioner, stability_threshold

LR, B1, B2, EPS = 0.01, 0.9, 0.999, 1e-8
PARAMS = {"a": (2, 3), "b": (4,), "c": ()}


def gradient(t):
    keys = jax.random.split(jax.random.key(t), len(PARAMS))
    return {
        name: (0.1 + t) * jax.random.normal(k, shape) for k, (name, shape) in zip(keys, PARAMS.items(), strict=True)
    }


def after(optimizer, num_steps):
    """(last update, state) of a run on random gradients of different sizes."""
    params = jax.tree_util.tree_map(jnp.ones_like, gradient(0))
    state = optimizer.init(params)
    for t in range(num_steps):
        updates, state = optimizer.update(gradient(t), state, params)
    return updates, state


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree_util.tree_leaves(tree)])


def debias(moment, decay, t):
    return flat(moment) / (1 - decay**t)


WRAPPERS = {
    "adam": (lambda: optax.adam(LR), lambda s: s[0]),
    "nadam": (lambda: optax.nadam(LR), lambda s: s[0]),
    "adamw": (lambda: optax.adamw(LR, weight_decay=0.0), lambda s: s[0]),
    "clipped": (lambda: optax.chain(optax.clip_by_global_norm(1e3), optax.adam(LR)), lambda s: s[1][0]),
    "scheduled": (lambda: optax.adam(optax.constant_schedule(LR)), lambda s: s[0]),
    "injected": (lambda: optax.inject_hyperparams(optax.adam)(LR), lambda s: s.inner_state[0]),
}


@pytest.mark.parametrize("num_steps", [1, 4])
@pytest.mark.parametrize("name", list(WRAPPERS))
def test_adam_steps_by_rate_times_momentum_times_scale(x64, name, num_steps):
    build, inner = WRAPPERS[name]
    updates, state = after(build(), num_steps)
    moments = inner(state)
    scale = flat(preconditioner(build(), state))
    second = np.sqrt(debias(moments.nu, B2, num_steps)) + EPS
    np.testing.assert_allclose(scale, (1 + EPS) / second, rtol=1e-12)
    first = debias(moments.mu, B1, num_steps)
    if name == "nadam":
        ahead = debias(moments.mu, B1, num_steps + 1)
        first = B1 * ahead + (1 - B1) * flat(gradient(num_steps - 1)) / (1 - B1**num_steps)
    np.testing.assert_allclose(flat(updates), -LR * first * scale / (1 + EPS), rtol=1e-12)


SECOND_MOMENTS = {
    "rmsprop": (lambda: optax.rmsprop(LR), lambda s, t: np.sqrt(flat(s[0].nu) + EPS), np.sqrt(1 + EPS)),
    "rmsprop with momentum": (
        lambda: optax.rmsprop(LR, momentum=0.9),
        lambda s, t: np.sqrt(flat(s[0].nu) + EPS),
        np.sqrt(1 + EPS),
    ),
    "centred rmsprop": (
        lambda: optax.rmsprop(LR, centered=True),
        lambda s, t: np.sqrt(flat(s[0].nu) - flat(s[0].mu) ** 2 + EPS),
        np.sqrt(1 + EPS),
    ),
    "bias-corrected rmsprop": (
        lambda: optax.rmsprop(LR, decay=B2, eps_in_sqrt=False, bias_correction=True),
        lambda s, t: np.sqrt(debias(s[0].nu, B2, t)) + EPS,
        1 + EPS,
    ),
    "adagrad": (
        lambda: optax.adagrad(LR),
        lambda s, t: np.sqrt(flat(s[0].sum_of_squares) + 1e-7),
        np.sqrt(1 + 1e-7),
    ),
    "amsgrad": (lambda: optax.amsgrad(LR), lambda s, t: np.sqrt(flat(s[0].nu_max)) + EPS, 1 + EPS),
    "adabelief": (lambda: optax.adabelief(LR), lambda s, t: np.sqrt(debias(s[0].nu, B2, t)) + 1e-16, 1.0),
    "adamax": (lambda: optax.adamax(LR), lambda s, t: flat(s[0].nu), 1.0),
}


@pytest.mark.parametrize("name", list(SECOND_MOMENTS))
def test_scale_agrees_with_the_formula_of_the_optimizer(x64, name):
    build, second, reference = SECOND_MOMENTS[name]
    _, state = after(build(), 3)
    np.testing.assert_allclose(flat(preconditioner(build(), state)), reference / second(state, 3), rtol=1e-12)


@pytest.mark.parametrize("name", ["rmsprop", "adagrad", "bias-corrected rmsprop"])
def test_step_without_momentum_is_rate_times_scale_times_gradient(x64, name):
    build, _, reference = SECOND_MOMENTS[name]
    updates, state = after(build(), 3)
    scale = flat(preconditioner(build(), state))
    np.testing.assert_allclose(flat(updates), -LR * scale / reference * flat(gradient(2)), rtol=1e-12)


def test_gradient_descent_has_scale_one(x64):
    for optimizer in (optax.sgd(LR), optax.sgd(LR, momentum=0.9), optax.sgd(0.0)):
        _, state = after(optimizer, 2)
        scale = preconditioner(optimizer, state, gradient(0))
        assert jax.tree_util.tree_structure(scale) == jax.tree_util.tree_structure(gradient(0))
        np.testing.assert_array_equal(flat(scale), 1.0)
    assert preconditioner(optax.sgd(LR), optax.sgd(LR).init(gradient(0))) == 1


def test_preconditioned_operator_agrees_with_the_generalised_eigenproblem(x64):
    _, state = after(optax.adam(LR), 3)
    second = np.sqrt(debias(state[0].nu, B2, 3)) + EPS
    rng = np.random.default_rng(0)
    hessian = rng.standard_normal((second.size, second.size))
    hessian = hessian @ hessian.T
    scale = jnp.asarray(flat(preconditioner(optax.adam(LR), state)))
    matrix = np.sqrt(scale)[:, None] * hessian * np.sqrt(scale)
    expected = scipy.linalg.eigh(hessian, np.diag(second / (1 + EPS)), eigvals_only=True)
    np.testing.assert_allclose(np.linalg.eigvalsh(matrix), expected, rtol=1e-10, atol=1e-10)


def test_edge_does_not_depend_on_the_reference(x64):
    # A gradient scaled by c scales nu by c^2, D by 1/c: the ratio to the threshold follows, whatever is called 1.
    optimizer = optax.rmsprop(LR, eps=0.0)
    _, state = after(optimizer, 3)
    scaled = (state[0]._replace(nu=jax.tree_util.tree_map(lambda v: 4 * v, state[0].nu)), *state[1:])
    a, b = (flat(preconditioner(optimizer, s)) / stability_threshold(optimizer, s) for s in (state, scaled))
    np.testing.assert_allclose(a, 2 * b, rtol=1e-12)


def test_parameters_without_gradient_have_a_finite_scale(x64):
    optimizer = optax.adam(LR)
    state = optimizer.init(jnp.ones(3))
    for _ in range(3):
        _, state = optimizer.update(jnp.array([1.0, 0.0, -2.0]), state)
    scale = preconditioner(optimizer, state)
    np.testing.assert_allclose(scale, [1.0, 1 / EPS, 0.5], rtol=1e-6)


def test_second_moments_that_forget_at_once_give_nan(x64):
    optimizer = optax.adam(LR, b2=0.0)
    _, state = after(optimizer, 2)
    assert np.all(np.isnan(flat(preconditioner(optimizer, state))))


def test_scale_batches_over_learning_rates(x64):
    def scale(rate):
        optimizer = optax.adam(rate)
        state = optimizer.init(jnp.ones(3))
        for t in range(3):
            _, state = optimizer.update(jnp.arange(1.0, 4.0) + t, state)
        return preconditioner(optimizer, state), state[0].nu

    together, moments = jax.jit(jax.vmap(scale))(jnp.array([0.1, 0.01]))
    np.testing.assert_allclose(together, (1 + EPS) / (np.sqrt(moments / (1 - B2**3)) + EPS), rtol=1e-12)


def test_single_precision_keeps_its_dtype():
    optimizer = optax.adam(LR)
    state = optimizer.init(jnp.ones(3))
    _, state = optimizer.update(jnp.arange(1.0, 4.0), state)
    scale = preconditioner(optimizer, state, jnp.ones(3))
    assert scale.dtype == jnp.float32
    np.testing.assert_allclose(scale, 1 / np.arange(1.0, 4.0), rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        (lambda s: preconditioner(None, s), TypeError, "Argument `optimizer` must be an optax gradient transformation"),
        (lambda s: preconditioner(optax.sgd(LR), s), ValueError, "Argument `opt_state` must be a state of `optimizer`"),
        (
            lambda s: preconditioner(optax.adam(LR), s, {"a": jnp.ones(2)}),
            ValueError,
            "Argument `opt_state` must hold one number per parameter",
        ),
    ],
)
def test_bad_input_is_told_in_one_sentence(x64, call, error, sentence):
    _, state = after(optax.adam(LR), 1)
    with pytest.raises(error, match=sentence):
        call(state)
