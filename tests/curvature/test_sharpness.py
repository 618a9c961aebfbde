import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from dynjax import curvature as dc
from dynjax.linalg import eigsh


def dense_top(loss, flat, *args):
    return jnp.linalg.eigvalsh(jax.hessian(loss)(flat, *args))[-1]


def layer_norm_net(params, x):
    h = x @ params["w1"]
    h = (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-5)
    return jnp.tanh(params["gain"] * h + params["shift"]) @ params["w2"]


def attention_net(params, x):
    q, k, v = x @ params["w1"], x @ params["gain"], x @ params["shift"]
    return jax.nn.softmax(q @ k.T / 2, axis=-1) @ v @ params["w2"]


def tanh_net(params, x):
    return jnp.tanh(x @ params["w1"] + params["shift"]) @ (params["w2"] * params["gain"][:, None])


SHAPES = {
    layer_norm_net: {"w1": (3, 5), "gain": (5,), "shift": (5,), "w2": (5, 2)},
    attention_net: {"w1": (3, 4), "gain": (3, 4), "shift": (3, 4), "w2": (4, 2)},
    tanh_net: {"w1": (3, 5), "gain": (5,), "shift": (5,), "w2": (5, 2)},
}


def case(network, name):
    rng = np.random.default_rng(7)
    params = {k: jnp.asarray(rng.normal(size=shape)) for k, shape in SHAPES[network].items()}
    x = jnp.asarray(rng.normal(size=(9, 3)))
    targets = jnp.asarray(rng.normal(size=(9, 2)) if name == "mse" else rng.integers(0, 2, size=9))
    value = dc.mean_loss(name)
    return (lambda p, x, y: value(network(p, x), y)), params, x, targets


def test_value_agrees_with_the_dense_spectrum(problem):
    flat_loss = lambda flat: problem.cross_entropy(problem.unravel(flat), problem.x, problem.labels)
    expected = dense_top(flat_loss, problem.flat)
    for method in ("auto", "dense", "lanczos"):
        top = dc.sharpness(problem.cross_entropy, problem.params, problem.x, problem.labels, method=method)
        np.testing.assert_allclose(top.value, expected, rtol=1e-10)
        assert top.converged
        assert top.residual < 1e-9 * expected
        H = dc.hessian(problem.cross_entropy, problem.params, problem.x, problem.labels)
        rotated = ravel_pytree(H.mv(top.vector))[0]
        np.testing.assert_allclose(rotated, expected * ravel_pytree(top.vector)[0], atol=1e-8 * expected)
        np.testing.assert_allclose(jnp.linalg.norm(ravel_pytree(top.vector)[0]), 1, rtol=1e-12)
    assert "sharpness" in str(top)


def test_options_reach_the_operator_and_the_solver(problem):
    whole = dc.sharpness(problem.squared_error, problem.params, problem.x, problem.y)
    options = {"chunk_size": 4, "mode": "linearise", "method": "lanczos", "v0": whole.vector}
    warm = dc.sharpness(problem.squared_error, problem.params, problem.x, problem.y, **options)
    np.testing.assert_allclose(warm.value, whole.value, rtol=1e-10)
    last = dc.sharpness(problem.squared_error, problem.params, problem.x, problem.y, filter=[False, True])
    assert jax.tree.leaves(last.vector[0]) == []
    assert last.value < whole.value


@pytest.mark.parametrize(
    ("network", "name"),
    [(layer_norm_net, "softmax_cross_entropy"), (attention_net, "mse"), (tanh_net, "softmax_cross_entropy")],
)
def test_gradient_agrees_with_dense_eigenvalue_and_finite_difference(x64, network, name):
    loss, params, x, targets = case(network, name)
    flat, unravel = ravel_pytree(params)
    dense = jax.jit(jax.value_and_grad(lambda p: dense_top(lambda q: loss(unravel(q), x, targets), p)))
    slope = ravel_pytree(jax.grad(lambda p: dc.sharpness(loss, p, x, targets).value)(params))[0]
    expected = dense(flat)[1]
    np.testing.assert_allclose(slope, expected, atol=1e-10 * np.abs(expected).max(), rtol=0)
    direction = np.random.default_rng(1).normal(size=flat.size)
    h = 1e-4
    at = lambda t: dense(flat + t * direction)[0]
    difference = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    np.testing.assert_allclose(slope @ direction, difference, rtol=1e-6)


def test_gradient_through_lanczos_agrees_with_the_dense_route(problem):
    def slope(method):
        top = lambda p: (
            dc.sharpness(problem.cross_entropy, p, problem.x, problem.labels, method=method, tol=1e-13).value
        )
        return ravel_pytree(jax.grad(top)(problem.params))[0]

    expected = slope("dense")
    np.testing.assert_allclose(slope("lanczos"), expected, atol=1e-10 * np.abs(expected).max(), rtol=0)


def test_gradient_with_respect_to_the_data(problem):
    top = lambda x: dc.sharpness(problem.squared_error, problem.params, x, problem.y).value
    dense = lambda x: dense_top(lambda q: problem.squared_error(problem.unravel(q), x, problem.y), problem.flat)
    expected = jax.jit(jax.grad(dense))(problem.x)
    np.testing.assert_allclose(jax.grad(top)(problem.x), expected, atol=1e-10 * np.abs(expected).max(), rtol=0)


def test_vmap_over_parameters_and_one_trace(make_problem, x64):
    problem = make_problem()
    traces = []

    @jax.jit
    def values(params):
        traces.append(1)
        return jax.vmap(lambda p: dc.sharpness(problem.squared_error, p, problem.x, problem.y, method="lanczos").value)(
            params
        )

    for shift in (0.0, 0.1):
        each = [jax.tree.map(lambda leaf, shift=shift: leaf + shift, make_problem(seed).params) for seed in range(3)]
        found = values(jax.tree.map(lambda *leaves: jnp.stack(leaves), *each))
        for value, params in zip(found, each, strict=True):
            flat_loss = lambda flat: problem.squared_error(problem.unravel(flat), problem.x, problem.y)
            np.testing.assert_allclose(value, dense_top(flat_loss, ravel_pytree(params)[0]), rtol=1e-10)
    assert len(traces) == 1


def test_preconditioned_sharpness_is_the_top_of_the_generalised_problem(problem):
    H = dc.hessian(problem.squared_error, problem.params, problem.x, problem.y)
    D = jax.tree.map(lambda leaf: 1 / (0.1 + leaf**2), problem.params)
    scale = ravel_pytree(D)[0]
    expected = np.linalg.eigvals(scale[:, None] * H.as_matrix()).real.max()
    np.testing.assert_allclose(eigsh(dc.preconditioned(H, D), k=1).values[0], expected, rtol=1e-10)


def test_nan_data_is_reported(problem):
    x = problem.x.at[0, 0].set(jnp.nan)
    top = dc.sharpness(problem.squared_error, problem.params, x, problem.y)
    assert not top.converged
    assert jnp.isnan(top.value)
