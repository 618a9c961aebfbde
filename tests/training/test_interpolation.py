import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynjax as dj
from dynjax._core import Status
from dynjax.training import find_interpolation


def linear(params, inputs):
    return inputs @ params["w"]


def network(params, inputs):
    return jax.vmap(params)(inputs)[:, 0]


def task(num_samples, dim=5, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(num_samples, dim)), rng.normal(size=num_samples)


def dense_jacobian(predict, params, inputs):
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    return np.asarray(jax.jacobian(lambda p: jnp.ravel(predict(unravel(p), inputs)))(flat))


@pytest.mark.parametrize("gd_steps", [0, 100])
def test_underdetermined_regression_gives_the_shortest_solution(x64, gd_steps):
    x, y = task(6, 20)
    solution = find_interpolation(linear, {"w": jnp.zeros(20)}, x, y, gd_steps=gd_steps)
    assert bool(solution.converged)
    assert int(solution.rank) == 6
    np.testing.assert_allclose(solution.params["w"], np.linalg.lstsq(x, y, rcond=None)[0], atol=1e-12)


def test_overdetermined_regression_ends_at_least_squares_unconverged(x64):
    x, y = task(30, 4)
    solution = find_interpolation(linear, {"w": jnp.ones(4)}, x, y)
    expected, square, *_ = np.linalg.lstsq(x, y, rcond=None)
    assert not bool(solution.converged)
    assert int(solution.status) == Status.NOT_CONVERGED
    np.testing.assert_allclose(solution.params["w"], expected, rtol=1e-7)
    np.testing.assert_allclose(solution.residual_norm, np.sqrt(square[0]), rtol=1e-12)
    assert int(solution.rank) == 4


def test_a_network_on_digits_is_interpolated_to_rounding(x64):
    x, y = dj.data.digits(100, scale=1 / 8, dtype=np.float64)
    y = np.where(y % 2 == 0, 1.0, -1.0)
    model = dj.MLP((64, 64, 64, 1), key=jax.random.key(0))
    solution = find_interpolation(network, model, x, y)
    assert bool(solution.converged)
    assert int(solution.status) == Status.OK
    np.testing.assert_allclose(network(solution.params, x), y, atol=1e-10)
    assert float(solution.residual_norm) <= 1e-10
    assert int(solution.rank) == 100
    jacobian = dense_jacobian(network, solution.params, x)
    np.testing.assert_allclose(solution.singular_values, np.linalg.svd(jacobian, compute_uv=False), rtol=1e-9)


def test_several_outputs_and_pytree_inputs_are_interpolated(x64):
    rng = np.random.default_rng(1)
    inputs = {"a": rng.normal(size=(8, 2)), "b": rng.normal(size=8)}
    targets = rng.normal(size=(8, 3))
    predict = lambda p, z: jax.vmap(p)(jnp.concatenate([z["a"], z["b"][:, None]], axis=1))
    model = dj.MLP((3, 20, 3), key=jax.random.key(1))
    solution = find_interpolation(predict, model, inputs, targets)
    np.testing.assert_allclose(predict(solution.params, inputs), targets, atol=1e-12)
    assert int(solution.rank) == np.linalg.matrix_rank(dense_jacobian(predict, solution.params, inputs)) == 24


def test_regularity_is_that_of_the_normal_space(x64):
    x, y = task(6, 20)
    solution = find_interpolation(linear, {"w": jnp.zeros(20)}, x, y)
    np.testing.assert_allclose(solution.sample_curvatures[:, 0], np.sum(x**2, axis=1), rtol=1e-12)
    assert bool(solution.regular)
    assert int(solution.num_blocks) == 1
    rate = 2 / float(solution.sample_curvatures[3, 0])
    assert bool(solution.resonant(rate, 2))
    assert not bool(solution.resonant(rate * (1 + 1e-9), 2))
    assert not bool(solution.resonant(rate))


def test_samples_that_do_not_interact_are_told_apart(x64):
    """Three groups of inputs in subspaces of their own: 0 - 2 - 4 is a chain, 1 and 5 are a pair, 3 is alone."""
    x = np.zeros((6, 6))
    x[0, 0] = x[2, 0] = x[2, 1] = x[4, 1] = x[2, 5] = 1.0
    x[1, 2] = x[1, 3] = x[5, 3] = 2.0
    x[3, 4] = 1.0
    solution = find_interpolation(linear, {"w": jnp.zeros(6)}, x, np.ones(6))
    np.testing.assert_array_equal(solution.blocks, [0, 1, 0, 3, 0, 1])
    assert int(solution.num_blocks) == 3
    assert (int(solution.rank), bool(solution.regular)) == (6, False)
    assert "3 blocks" in str(solution)
    space = dj.training.normal_space(linear, solution.params, jnp.asarray(x))
    np.testing.assert_array_equal(
        np.asarray(space.blocks)[:, None] == space.blocks, solution.blocks[:, None] == solution.blocks
    )


def test_a_rank_deficient_jacobian_is_no_obstacle(x64):
    x = jnp.asarray([1.0, np.sqrt(3.0)])
    predict = lambda p, x: p["a"] * p["b"] * x
    solution = find_interpolation(predict, {"a": jnp.asarray(0.3), "b": jnp.asarray(1.5)}, x, x)
    np.testing.assert_allclose(solution.params["a"] * solution.params["b"], 1, rtol=1e-14)
    assert int(solution.rank) == 1
    assert bool(solution.converged)
    assert not bool(solution.regular)


def test_more_parameters_than_outputs_may_not_interpolate_either(x64):
    # The same input with two targets.
    predict = lambda p, x: x @ p
    x = jnp.asarray([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    solution = find_interpolation(predict, jnp.zeros(3), x, jnp.asarray([1.0, -1.0]))
    assert not bool(solution.converged)
    np.testing.assert_allclose(solution.residual_norm, np.sqrt(2), rtol=1e-10)
    assert int(solution.rank) == 1


def test_other_leaves_of_the_parameters_stay(x64):
    x, y = task(3, 6)
    params = {"w": jnp.zeros(6), "count": jnp.asarray(7), "name": "linear"}
    solution = find_interpolation(linear, params, x, y)
    assert int(solution.params["count"]) == 7
    assert solution.params["name"] == "linear"


def test_a_given_learning_rate_is_used_and_too_large_ones_do_no_harm(x64):
    x, y = task(6, 20)
    top = np.linalg.eigvalsh(x @ x.T / 6)[-1]
    run = lambda rate: find_interpolation(linear, {"w": jnp.zeros(20)}, x, y, gd_steps=50, learning_rate=rate)
    w = np.zeros(20)
    for _ in range(50):
        w = w - 0.5 / top * x.T @ (x @ w - y) / 6
    np.testing.assert_allclose(run(0.5 / top).gd_loss, np.mean((x @ w - y) ** 2) / 2, rtol=1e-9)
    wild = run(100 / top)
    assert float(wild.gd_loss) <= np.mean(y**2) / 2 * (1 + 1e-12)
    assert bool(wild.converged)


def test_single_precision_reaches_its_tolerance():
    x, y = task(6, 20)
    solution = find_interpolation(linear, {"w": jnp.zeros(20, jnp.float32)}, np.float32(x), np.float32(y))
    assert bool(solution.converged)
    assert solution.params["w"].dtype == jnp.float32


def test_an_exhausted_budget_is_a_status(x64):
    x, y = dj.data.digits(50, scale=1 / 8, dtype=np.float64)
    model = dj.MLP((64, 16, 1), key=jax.random.key(0))
    solution = find_interpolation(network, model, x, np.where(y < 5, 1.0, -1.0), gd_steps=0, max_steps=2)
    assert int(solution.status) == Status.MAX_STEPS
    assert not bool(solution.converged)
    assert "MAX_STEPS" in str(solution)


def test_predictions_that_are_not_finite_end_with_that_status(x64):
    solution = find_interpolation(lambda p, x: jnp.log(p) * x, jnp.asarray(-1.0), jnp.ones(2), jnp.ones(2))
    assert int(solution.status) == Status.NONFINITE
    assert not bool(solution.converged)


def test_bad_input_is_refused(x64):
    x, y = task(6, 3)
    params = {"w": jnp.zeros(3)}
    with pytest.raises(ValueError, match="have the shape"):
        find_interpolation(linear, params, x, y[:, None])
    with pytest.raises(ValueError, match="`inputs` must be finite"):
        find_interpolation(linear, params, np.where(x > 1, np.nan, x), y)
    with pytest.raises(ValueError, match="`targets` must be finite"):
        find_interpolation(linear, params, x, np.full(6, np.inf))
    with pytest.raises(ValueError, match="`params` must be finite"):
        find_interpolation(linear, {"w": jnp.full(3, jnp.nan)}, x, y)
    with pytest.raises(TypeError, match="`predict`"):
        find_interpolation(None, params, x, y)
    for options, match in [
        ({"gd_steps": 30}, "multiple of 50"),
        ({"gd_steps": -50}, "`gd_steps`"),
        ({"max_steps": 0}, "`max_steps`"),
        ({"tol": 0.0}, "`tol`"),
        ({"learning_rate": -1.0}, "`learning_rate`"),
    ]:
        with pytest.raises(ValueError, match=match):
            find_interpolation(linear, params, x, y, **options)
