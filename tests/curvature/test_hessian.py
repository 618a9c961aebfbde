import equinox as eqx
import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from dynjax import curvature as dc


def test_linear_regression_is_the_covariance_of_the_inputs(x64, relative):
    # f = W x with W (3, 4): H = I (x) X^T X / n.
    x = jax.random.normal(jax.random.key(0), (17, 4))
    y = jax.random.normal(jax.random.key(1), (17, 3))
    loss = lambda w, x, y: 0.5 * jnp.mean(jnp.sum((x @ w.T - y) ** 2, axis=-1))
    H = dc.hessian(loss, jnp.zeros((3, 4)), x, y, chunk_size=5)
    assert relative(H.as_matrix(), np.kron(np.eye(3), x.T @ x / 17)) < 1e-13


def test_matrix_agrees_with_the_dense_hessian(problem, relative):
    dense = jax.hessian(lambda flat: problem.cross_entropy(problem.unravel(flat), problem.x, problem.labels))(
        problem.flat
    )
    H = dc.hessian(problem.cross_entropy, problem.params, problem.x, problem.labels)
    assert relative(H.as_matrix(), dense) < 1e-13


def test_filter_gives_the_diagonal_block(problem, relative):
    whole = dc.hessian(problem.cross_entropy, problem.params, problem.x, problem.labels).as_matrix()
    marks = ravel_pytree(
        [jax.tree.map(lambda leaf, i=i: jnp.full(leaf.shape, i), p) for i, p in enumerate(problem.params)]
    )
    second = np.flatnonzero(marks[0] == 1)
    block = dc.hessian(problem.cross_entropy, problem.params, problem.x, problem.labels, filter=[False, True])
    assert jax.tree.leaves(block.in_structure()[0]) == []
    assert relative(block.as_matrix(), whole[np.ix_(second, second)]) < 1e-13
    matrices = dc.hessian(
        problem.cross_entropy, problem.params, problem.x, problem.labels, filter=lambda p: p.ndim == 2
    )
    assert matrices.in_size() == sum(layer["weight"].size for layer in problem.params)


def test_equinox_modules_with_frozen_leaves(x64, relative):
    model = eqx.nn.MLP(4, 3, 5, 1, activation=jnp.tanh, key=jax.random.key(0))
    x, y = jax.random.normal(jax.random.key(1), (7, 4)), jax.random.normal(jax.random.key(2), (7, 3))
    loss = lambda m, x, y: jnp.mean((jax.vmap(m)(x) - y) ** 2)
    H = dc.hessian(loss, model, x, y)
    dynamic, static = eqx.partition(model, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(dynamic)
    dense = jax.hessian(lambda p: loss(eqx.combine(unravel(p), static), x, y))(flat)
    assert relative(H.as_matrix(), dense) < 1e-13
    again = jax.jit(lambda op: op.mv(dynamic))(H)
    assert relative(again, H.mv(dynamic)) < 1e-14


def test_integers_numpy_arrays_and_nested_dictionaries(x64, relative):
    rng = np.random.default_rng(0)
    params = {"linear": {"w": rng.normal(size=(4, 3)), "b": rng.normal(size=3)}, "count": jnp.arange(3), "name": "net"}
    x, y = rng.normal(size=(9, 4)), rng.integers(0, 3, size=9)

    def loss(p, x, y, scale):
        logits = scale * (x @ p["linear"]["w"] + p["linear"]["b"] + p["count"])
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(len(y)), y])

    H = dc.hessian(loss, params, x, y, 2.0)
    assert jax.tree.structure(H.in_structure()) == jax.tree.structure(
        {"linear": params["linear"], "count": None, "name": None}
    )
    flat, unravel = ravel_pytree(params["linear"])
    dense = jax.hessian(lambda p: loss({**params, "linear": unravel(p)}, x, y, 2.0))(flat)
    assert relative(H.as_matrix(), dense) < 1e-13


def test_scalar_arguments_belong_to_every_chunk(problem, relative):
    def loss(params, x, y, decay):
        penalty = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
        return problem.squared_error(params, x, y) + decay * penalty

    whole = dc.hessian(loss, problem.params, problem.x, problem.y, jnp.asarray(0.3))
    chunked = dc.hessian(loss, problem.params, problem.x, problem.y, jnp.asarray(0.3), chunk_size=4)
    assert relative(chunked.mv(problem.direction), whole.mv(problem.direction)) < 1e-12


@jax.custom_vjp
def soft_clip(x):
    return jnp.tanh(x)


# The forward rule calls the function itself, so that jvp(grad) meets a custom_vjp and fails.
soft_clip.defvjp(lambda x: (soft_clip(x), x), lambda x, g: (g * (1 - jnp.tanh(x) ** 2),))


def clipped_predict(params, x):
    return soft_clip(x @ params[0]["weight"] + params[0]["bias"]) @ params[1]["weight"] + params[1]["bias"]


def clipped_loss(params, x, y):
    return 0.5 * jnp.mean(jnp.sum((clipped_predict(params, x) - y) ** 2, axis=-1))


@pytest.mark.parametrize(("mode", "chunk_size"), [("recompute", 4), ("linearise", None)])
def test_custom_vjp_falls_back_to_reverse_mode(problem, relative, mode, chunk_size):
    options = {"mode": mode, "chunk_size": chunk_size}
    H = dc.hessian(clipped_loss, problem.params, problem.x, problem.y, **options)
    expected = dc.hessian(problem.squared_error, problem.params, problem.x, problem.y)
    assert H.reverse
    assert not expected.reverse
    found = jax.jit(lambda op, v: lx.linearise(op).mv(v))(H, problem.direction)
    assert relative(found, expected.mv(problem.direction)) < 1e-13
    G = dc.gauss_newton(clipped_predict, "mse", problem.params, problem.x, problem.y, **options)
    expected = dc.gauss_newton(problem.predict, "mse", problem.params, problem.x, problem.y)
    assert G.model.reverse
    assert not expected.model.reverse
    found = jax.jit(lambda op, v: lx.linearise(op).mv(v))(G, problem.direction)
    assert relative(found, expected.mv(problem.direction)) < 1e-13


def test_data_is_no_constant_of_the_program(problem):
    H = dc.hessian(problem.cross_entropy, problem.params, problem.x, problem.labels)
    jaxpr = jax.make_jaxpr(lambda op, v: op.mv(v))(H, problem.direction)
    assert all(np.size(const) <= 1 for const in jaxpr.consts)


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(seed=st.integers(0, 2**31 - 1), scale=st.floats(-3, 3))
def test_products_are_symmetric_and_linear(seed, scale):
    with jax.enable_x64(True):
        H, unravel, dim = small_hessian()
        u, v = jax.random.normal(jax.random.key(seed), (2, dim))
        product = lambda w: ravel_pytree(H.mv(unravel(w)))[0]
        hu, hv = product(u), product(v)
        size = float(jnp.linalg.norm(u) * jnp.linalg.norm(hv) + jnp.linalg.norm(v) * jnp.linalg.norm(hu))
        assert abs(float(u @ hv - v @ hu)) < 1e-14 * size * dim**0.5
        error = jnp.linalg.norm(product(u + scale * v) - hu - scale * hv)
        assert error < 1e-14 * dim**0.5 * (jnp.linalg.norm(hu) + abs(scale) * jnp.linalg.norm(hv))


def small_hessian():
    x = jnp.linspace(-1.0, 1.0, 8)[:, None]
    params = {"w": jnp.linspace(-0.7, 0.9, 6)[None], "v": jnp.linspace(0.4, -0.8, 6)}
    flat, unravel = ravel_pytree(params)
    return dc.hessian(toy_loss, params, x, jnp.sin(3 * x[:, 0])), unravel, flat.size


def toy_loss(params, x, y):
    return 0.5 * jnp.mean((jnp.tanh(x @ params["w"]) @ params["v"] - y) ** 2)
