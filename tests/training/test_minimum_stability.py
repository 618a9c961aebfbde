import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dynjax as dj
from dynjax._core import Status
from dynjax.training import find_interpolation, minimum_stability

DATA = np.array([1.0, 3.0**0.5])


def two_layers(params, x):
    a, b = params
    return jnp.mean((a * b * x - x) ** 2) / 2


def mean_square(params, x, y):
    return jnp.mean((x @ params - y) ** 2) / 2


def network(params, x):
    return jax.vmap(params)(x)[:, 0]


def network_loss(params, x, y):
    return jnp.mean((network(params, x) - y) ** 2) / 2


def regression(num_samples, dim, seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(num_samples, dim)), rng.normal(size=num_samples)
    return x, y, jnp.asarray(np.linalg.lstsq(x, y, rcond=None)[0])


def heavy_ball_multipliers(rate, beta, curvature):
    return np.roots([1, -(1 + beta - rate * curvature), beta])


def test_two_layers_lie_on_a_hyperbola_with_their_closed_forms(x64):
    a, b, rate = 2.0, 0.5, 0.2
    result = minimum_stability(two_layers, (jnp.asarray(a), jnp.asarray(b)), DATA, learning_rate=rate)
    curvature = 2 * (a**2 + b**2)  # the mean of x^2 is 2
    assert not bool(result.isolated)
    assert int(result.rank) == 1
    np.testing.assert_allclose(result.exponent, np.log(abs(1 - rate * curvature)), rtol=1e-12)
    np.testing.assert_allclose(result.threshold, 2 / curvature, rtol=1e-14)
    np.testing.assert_allclose(result.multipliers[:, 0], [1 - rate * curvature, 1], rtol=1e-14)
    np.testing.assert_allclose(result.margin, 1 - abs(1 - rate * curvature), rtol=1e-12)
    assert bool(result.stable)
    assert int(result.status) == Status.OK
    # The normal space is spanned by (b, a).
    part = result.normal_part((jnp.asarray(1.0), jnp.asarray(0.0)))
    np.testing.assert_allclose(part, np.array([b, a]) * b / (a**2 + b**2), atol=1e-14)


@pytest.mark.parametrize(("factor", "stable"), [(0.999, True), (1.0, False), (1.001, False)])
def test_gradient_descent_turns_unstable_at_two_over_the_sharpness(x64, factor, stable):
    x, y, w = regression(20, 4)
    threshold = 2 / np.linalg.eigvalsh(x.T @ x / 20)[-1]
    result = minimum_stability(mean_square, w, x, y, learning_rate=factor * threshold)
    np.testing.assert_allclose(result.threshold, threshold, rtol=1e-12)
    assert bool(result.stable) == stable


def test_overdetermined_regression_has_an_isolated_minimum(x64):
    x, y, w = regression(20, 4)
    values = np.linalg.eigvalsh(x.T @ x / 20)
    result = minimum_stability(mean_square, w, x, y, learning_rate=0.1)
    assert bool(result.isolated)
    assert int(result.rank) == 4
    np.testing.assert_allclose(result.exponent, np.max(np.log(np.abs(1 - 0.1 * values))), rtol=1e-11)
    assert float(result.gradient_norm) < 1e-14


def test_underdetermined_regression_has_a_plane_of_minima(x64):
    x, y, w = regression(5, 12)
    values = np.linalg.svd(x, compute_uv=False) ** 2 / 5
    result = minimum_stability(mean_square, w, x, y, learning_rate=0.1)
    assert not bool(result.isolated)
    assert int(result.rank) == 5
    np.testing.assert_allclose(np.asarray(result.eigenvalues)[:5], values, rtol=1e-11)
    np.testing.assert_array_equal(np.asarray(result.multipliers)[5:], 1)
    np.testing.assert_allclose(result.exponent, np.max(np.log(np.abs(1 - 0.1 * values))), rtol=1e-10)


def test_a_network_above_the_interpolation_threshold_lies_on_a_manifold(x64):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(6, 2)), rng.normal(size=6)
    solution = find_interpolation(network, dj.MLP((2, 8, 1), key=jax.random.key(0)), x, y)
    result = minimum_stability(network_loss, solution.params, x, y, learning_rate=0.1)
    assert int(result.rank) == int(solution.rank) == 6
    assert not bool(result.isolated)
    np.testing.assert_allclose(result.threshold, 2 * 6 / solution.singular_values[0] ** 2, rtol=1e-10)
    expected = np.max(np.log(np.abs(1 - 0.1 * np.asarray(solution.singular_values) ** 2 / 6)))
    np.testing.assert_allclose(result.exponent, expected, rtol=1e-6)


def test_a_network_below_the_interpolation_threshold_has_an_isolated_minimum(x64):
    x = np.linspace(-2, 2, 40)[:, None]
    y = np.tanh(2 * x[:, 0] - 0.5) - 0.5 * np.tanh(x[:, 0] + 1) + 0.1 * np.cos(5 * x[:, 0])
    solution = find_interpolation(network, dj.MLP((1, 2, 1), key=jax.random.key(0)), x, y)
    point = newton_polished(network_loss, solution.params, x, y)
    result = minimum_stability(network_loss, point, x, y, learning_rate=0.05)
    assert not bool(solution.converged)
    assert int(result.status) == Status.OK
    assert bool(result.isolated)
    assert int(result.rank) == result.dim == 7
    h = np.linalg.eigvalsh(dj.hessian(network_loss, point, x, y).as_matrix())
    assert h[0] > 0
    np.testing.assert_allclose(result.threshold, 2 / h[-1], rtol=1e-9)
    np.testing.assert_allclose(result.exponent, np.max(np.log(np.abs(1 - 0.05 * h))), rtol=1e-6)


def newton_polished(loss, params, *args):
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    value = lambda p: loss(unravel(p), *args)
    for _ in range(10):
        flat = flat - jnp.linalg.solve(jax.hessian(value)(flat), jax.grad(value)(flat))
    return unravel(flat)


@pytest.mark.parametrize("beta", [0.5, 0.9])
def test_heavy_ball_has_its_threshold_and_its_multipliers(x64, beta):
    x, y, w = regression(20, 3)
    values = np.linalg.eigvalsh(x.T @ x / 20)[::-1]
    rate = 0.3
    result = minimum_stability(
        mean_square, w, x, y, learning_rate=rate, optimizer=lambda r: optax.sgd(r, momentum=beta)
    )
    np.testing.assert_allclose(result.threshold, 2 * (1 + beta) / values[0], rtol=1e-10)
    for i, h in enumerate(values):
        np.testing.assert_allclose(
            np.sort_complex(result.multipliers[i]), np.sort_complex(heavy_ball_multipliers(rate, beta, h)), atol=1e-10
        )
    radius = max(np.max(np.abs(heavy_ball_multipliers(rate, beta, h))) for h in values)
    np.testing.assert_allclose(result.exponent, np.log(radius), rtol=1e-8)
    assert bool(result.stable)


def test_heavy_ball_on_a_manifold_ignores_the_tangent_space(x64):
    x, y, w = regression(2, 5)
    top = np.linalg.svd(x, compute_uv=False)[0] ** 2 / 2
    build = lambda r: optax.sgd(r, momentum=0.9)
    below = minimum_stability(mean_square, w, x, y, learning_rate=0.99 * 3.8 / top, optimizer=build)
    above = minimum_stability(mean_square, w, x, y, learning_rate=1.01 * 3.8 / top, optimizer=build)
    assert bool(below.stable)
    assert not bool(above.stable)
    np.testing.assert_allclose(np.sort(np.real(below.multipliers[-1])), [0.9, 1], rtol=1e-12)
    np.testing.assert_allclose(below.threshold, above.threshold, rtol=1e-10)


def test_nesterov_has_its_threshold(x64):
    x, y, w = regression(20, 3)
    top = np.linalg.eigvalsh(x.T @ x / 20)[-1]
    build = lambda r: optax.sgd(r, momentum=0.8, nesterov=True)
    result = minimum_stability(mean_square, w, x, y, learning_rate=0.1, optimizer=build)
    np.testing.assert_allclose(result.threshold, 3.6 / (2.6 * top), rtol=1e-10)


def test_multipliers_are_those_of_the_training_map(x64):
    x, y, w = regression(20, 3)
    optimizer = optax.chain(optax.trace(0.7), optax.scale(-0.2))
    result = minimum_stability(mean_square, w, x, y, optimizer=optimizer)
    system = dj.TrainingMap(lambda p: mean_square(p, x, y), optimizer)
    flat, unravel = jax.flatten_util.ravel_pytree(system.init(w))
    step = lambda z: jax.flatten_util.ravel_pytree(system.step(0, unravel(z)))[0]
    expected = np.linalg.eigvals(jax.jacobian(step)(flat))
    np.testing.assert_allclose(
        np.sort_complex(np.round(result.multipliers, 12).ravel()), np.sort_complex(np.round(expected, 12)), atol=1e-9
    )
    assert np.isnan(result.threshold)
    top = np.linalg.eigvalsh(x.T @ x / 20)[-1]
    np.testing.assert_allclose(result.critical_curvature, 2 * 1.7 / 0.2, rtol=1e-10)
    assert bool(result.stable) == (top < 2 * 1.7 / 0.2)


def test_the_linear_rate_is_that_of_real_gradient_descent(x64):
    params, rate = (jnp.asarray(1.2), jnp.asarray(1 / 1.2)), 0.5
    result = minimum_stability(two_layers, params, DATA, learning_rate=rate)
    system = dj.TrainingMap(lambda p: two_layers(p, DATA), optax.sgd(rate))
    start = system.init((params[0] + 1e-6, params[1]))
    orbit = dj.trajectory(system, start, num_steps=11)
    a, b = orbit.ys.params
    residual = jnp.abs(a * b - 1)
    growth = jnp.log(residual[11] / residual[1]) / 10
    np.testing.assert_allclose(growth, result.exponent, rtol=1e-4)


def test_a_saddle_is_stable_for_no_learning_rate(x64):
    saddle = lambda w: w[0] ** 2 - 0.5 * w[1] ** 2
    for optimizer in (None, lambda r: optax.sgd(r, momentum=0.9)):
        result = minimum_stability(saddle, jnp.zeros(3), learning_rate=0.1, optimizer=optimizer)
        assert not bool(result.stable)
        assert int(result.rank) == 2
        assert float(result.threshold) == 0
        assert float(result.exponent) > 0
        assert int(result.status) == Status.OK


def test_the_matrix_free_route_finds_the_same_normal_space(x64):
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(6, 4)), rng.normal(size=6)
    solution = find_interpolation(network, dj.MLP((4, 16, 1), key=jax.random.key(0)), x, y)
    run = lambda **options: minimum_stability(network_loss, solution.params, x, y, learning_rate=0.1, **options)
    whole, part = run(), run(dense=False, num_directions=20)
    assert int(part.status) == Status.OK
    assert int(part.rank) == int(whole.rank) == 6
    for name in ("exponent", "threshold", "margin"):
        np.testing.assert_allclose(getattr(part, name), getattr(whole, name), rtol=1e-9)
    v = jax.tree_util.tree_map(jnp.ones_like, solution.params)
    for p, q in zip(
        jax.tree_util.tree_leaves(part.normal_part(v)), jax.tree_util.tree_leaves(whole.normal_part(v)), strict=True
    ):
        np.testing.assert_allclose(p, q, atol=1e-10)


@pytest.mark.slow
def test_large_networks_take_the_matrix_free_route(x64):
    x, y = dj.data.digits(40, scale=1 / 8, dtype=np.float64)
    y = np.where(y % 2 == 0, 1.0, -1.0)
    solution = find_interpolation(network, dj.MLP((64, 32, 1), key=jax.random.key(0)), x, y)
    result = minimum_stability(network_loss, solution.params, x, y, learning_rate=0.1)
    assert result.vectors.shape == (256, 2113)
    assert int(result.status) == Status.OK
    assert int(result.rank) == int(solution.rank) == 40
    kernel = np.asarray(solution.singular_values) ** 2 / 40
    np.testing.assert_allclose(np.asarray(result.eigenvalues)[:40], kernel, rtol=1e-9)
    np.testing.assert_allclose(result.threshold, 2 / kernel[0], rtol=1e-10)
    np.testing.assert_allclose(result.exponent, np.max(np.log(np.abs(1 - 0.1 * kernel))), rtol=1e-8)


def test_a_rank_beyond_reach_is_unknown_and_the_threshold_is_not(x64):
    x, y, w = regression(40, 20)
    values = np.linalg.eigvalsh(x.T @ x / 40)
    run = lambda rate: minimum_stability(mean_square, w, x, y, learning_rate=rate, dense=False, num_directions=5)
    below, above = run(1.9 / values[-1]), run(2.1 / values[-1])
    for result in (below, above):
        assert int(result.rank) == -1
        assert int(result.status) == Status.NOT_CONVERGED
        assert not bool(result.isolated)
        np.testing.assert_allclose(result.threshold, 2 / values[-1], rtol=1e-9)
    assert bool(below.stable)
    assert np.isnan(below.exponent)
    assert not bool(above.stable)
    np.testing.assert_allclose(above.exponent, np.log(1.1), rtol=1e-8)


def test_a_point_that_is_no_minimum_gets_no_verdict(x64):
    x, y, w = regression(20, 4)
    result = minimum_stability(mean_square, w + 1e-3, x, y, learning_rate=0.1)
    assert int(result.status) == Status.NOT_CONVERGED
    assert not bool(result.stable)
    np.testing.assert_allclose(result.distance, 2e-3, rtol=1e-8)
    np.testing.assert_allclose(result.gradient_norm, np.linalg.norm(x.T @ x / 20 @ np.full(4, 1e-3)), rtol=1e-8)


def test_weight_decay_moves_the_fixed_point_away_from_the_minimum(x64):
    x, y, w = regression(20, 4)
    build = lambda r: optax.chain(optax.add_decayed_weights(0.1), optax.sgd(r))
    result = minimum_stability(mean_square, w, x, y, learning_rate=0.1, optimizer=build)
    assert int(result.status) == Status.NOT_CONVERGED
    np.testing.assert_allclose(result.displacement, 0.01 * np.linalg.norm(w), rtol=1e-10)


def test_a_flat_loss_has_no_verdict(x64):
    result = minimum_stability(lambda w: jnp.sum(w**4), jnp.zeros(2), learning_rate=0.1)
    assert int(result.rank) == 0
    assert not bool(result.stable)
    assert not bool(result.isolated)
    assert float(result.threshold) == np.inf


def test_losses_that_are_not_finite_end_with_that_status(x64):
    result = minimum_stability(lambda w: jnp.sum(jnp.sqrt(w)), jnp.zeros(2), learning_rate=0.1)
    assert int(result.status) == Status.NONFINITE
    assert not bool(result.stable)
    assert np.isnan(result.exponent)
    assert int(result.rank) == -1


def test_it_maps_over_learning_rates(x64):
    x, y, w = regression(20, 4)
    rates = jnp.asarray([0.1, 0.5, 5.0])
    results = jax.vmap(lambda r: minimum_stability(mean_square, w, x, y, learning_rate=r))(rates)
    alone = [float(minimum_stability(mean_square, w, x, y, learning_rate=float(r)).exponent) for r in rates]
    np.testing.assert_allclose(results.exponent, alone, rtol=1e-12)


def test_single_precision_reaches_the_same_verdict():
    x, y, w = regression(20, 4)
    result = minimum_stability(mean_square, jnp.float32(w), jnp.float32(x), jnp.float32(y), learning_rate=0.1)
    assert result.exponent.dtype == jnp.float32
    assert bool(result.isolated)
    assert bool(result.stable)


def test_bad_input_is_refused(x64):
    x, y, w = regression(20, 4)
    run = lambda **options: minimum_stability(mean_square, w, x, y, **options)
    with pytest.raises(ValueError, match="`learning_rate` must be given"):
        run()
    with pytest.raises(ValueError, match="`learning_rate` must be positive"):
        run(learning_rate=-0.1)
    with pytest.raises(ValueError, match="be left out"):
        run(learning_rate=0.1, optimizer=optax.sgd(0.1))
    with pytest.raises(ValueError, match="second moments"):
        run(optimizer=optax.adam(0.1))
    with pytest.raises(ValueError, match="second moments"):
        run(optimizer=optax.rmsprop, learning_rate=0.1)
    with pytest.raises(TypeError, match="`optimizer`"):
        run(optimizer=3, learning_rate=0.1)
    with pytest.raises(ValueError, match="`rank_tolerance`"):
        run(learning_rate=0.1, rank_tolerance=0.0)
    with pytest.raises(ValueError, match="`num_directions`"):
        run(learning_rate=0.1, num_directions=1)
    with pytest.raises(TypeError, match="`loss`"):
        minimum_stability(None, w, learning_rate=0.1)
