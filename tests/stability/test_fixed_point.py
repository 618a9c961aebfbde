import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import dynjax as dj
from dynjax._core import Status
from dynjax.stability import fixed_point
from dynjax.systems import (
    Flow,
    LayerMap,
    Map,
    RandomMap,
    WhiteNoise,
    henon,
    linear_flow,
    logistic,
    mackey_glass,
    stuart_landau,
)


def rk4_stability_function(z):
    return 1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24


def test_the_fixed_point_of_the_logistic_map_is_a_flip_source(x64):
    point = fixed_point(logistic(3.2), jnp.asarray(0.6))
    np.testing.assert_allclose(point.x, 1 - 1 / 3.2, rtol=1e-15)
    np.testing.assert_allclose(point.multipliers, [2 - 3.2], rtol=1e-14)
    np.testing.assert_allclose(point.exponents, np.log(1.2), rtol=1e-13)
    assert not bool(point.stable)
    assert (point.kind, point.crossing) == ("source", "flip")
    assert int(point.least_period) == 1


def test_the_two_cycle_of_the_logistic_map_has_its_closed_form(x64):
    r = 3.2
    point = fixed_point(logistic(r), jnp.asarray(0.5), period=2)
    root = np.sqrt((r + 1) * (r - 3))
    assert np.min(np.abs(float(point.x) - np.array([r + 1 - root, r + 1 + root]) / (2 * r))) < 1e-15
    np.testing.assert_allclose(point.multipliers, [4 + 2 * r - r**2], rtol=1e-13)
    np.testing.assert_allclose(point.exponents, dj.reference.logistic_exponent(r), rtol=1e-12)
    assert bool(point.stable)
    assert (point.kind, int(point.least_period)) == ("sink", 2)
    np.testing.assert_allclose(point.margin, 1 - 0.16, rtol=1e-13)


def test_a_fixed_point_found_as_a_cycle_says_so(x64):
    point = fixed_point(logistic(3.2), jnp.asarray(1 - 1 / 3.2 + 1e-6), period=6)
    assert int(point.least_period) == 1
    np.testing.assert_allclose(point.multipliers, [1.2**6], rtol=1e-10)


@pytest.mark.parametrize("sign", [1, -1])
def test_both_fixed_points_of_the_henon_map_are_saddles(x64, sign):
    a, b = 1.4, 0.3
    x = (b - 1 + sign * np.sqrt((1 - b) ** 2 + 4 * a)) / (2 * a)
    point = fixed_point(henon(), jnp.asarray([x + 0.05, b * x - 0.02]))
    np.testing.assert_allclose(point.x, [x, b * x], rtol=1e-14)
    expected = np.linalg.eigvals(np.array([[-2 * a * x, 1], [b, 0]]))
    np.testing.assert_allclose(np.sort(np.real(point.multipliers)), np.sort(expected), rtol=1e-12)
    assert point.kind == "saddle"


def test_the_equilibrium_of_stuart_landau_has_the_multipliers_of_the_method(x64):
    dt, mu, omega = 0.05, -0.3, 2.0
    point = fixed_point(stuart_landau(dt, mu=mu, omega=omega), jnp.asarray([0.1, -0.2]))
    np.testing.assert_allclose(point.x, 0, atol=1e-14)
    expected = rk4_stability_function(dt * (mu + 1j * omega))
    np.testing.assert_allclose(point.multipliers, [expected, np.conj(expected)], rtol=1e-12)
    np.testing.assert_allclose(point.exponents, mu, atol=1e-4)
    assert (point.kind, point.crossing) == ("sink", "Neimark-Sacker")


def test_exponents_of_a_linear_flow_are_real_parts_of_eigenvalues(x64):
    a = np.random.default_rng(0).normal(size=(5, 5)) - np.eye(5)
    point = fixed_point(linear_flow(jnp.asarray(a), 1e-3), jnp.ones(5))
    np.testing.assert_allclose(point.exponents, np.sort(np.linalg.eigvals(a).real)[::-1], atol=1e-9)


def test_the_equilibria_of_lorenz_are_those_of_its_vector_field(x64):
    point = fixed_point(dj.systems.lorenz63(0.01), jnp.asarray([8.0, 8.0, 26.0]))
    c = np.sqrt(8 / 3 * 27)
    np.testing.assert_allclose(point.x, [c, c, 27], rtol=1e-12)
    assert point.kind == "saddle"


def test_gradient_descent_on_a_quadratic_flips_at_two_over_the_curvature(x64):
    h = jnp.asarray([4.0, 1.0])
    loss = lambda w: jnp.sum(h * w["w"] ** 2) / 2
    for factor, stable in [(0.99, True), (1.0, False), (1.01, False)]:
        system = dj.TrainingMap(loss, optax.sgd(factor * 2 / 4.0))
        point = fixed_point(system, system.init({"w": jnp.asarray([0.3, -0.5])}))
        np.testing.assert_allclose(point.multipliers[0], 1 - 2 * factor, atol=1e-15)
        assert bool(point.stable) == stable
        assert point.crossing == "flip"
    assert fixed_point(dj.TrainingMap(loss, optax.sgd(0.5)), system.init({"w": h})).kind == "neutral"


def test_heavy_ball_has_the_multipliers_of_its_characteristic_polynomial(x64):
    lr, beta, h = 0.1, 0.9, 3.0
    system = dj.TrainingMap(lambda w: h * w**2 / 2, optax.sgd(lr, momentum=beta))
    point = fixed_point(system, system.init(jnp.asarray(1.0)))
    expected = np.roots([1, -(1 + beta - lr * h), beta])
    np.testing.assert_allclose(point.multipliers, sorted(expected, key=lambda z: -z.imag), rtol=1e-12)


def test_integer_leaves_stay_as_they_are(x64):
    schedule = lambda count: 0.1 / (1 + count)
    system = dj.TrainingMap(lambda w: jnp.sum((w - 1) ** 4 + (w - 1) ** 2), optax.sgd(schedule))
    start = dj.evolve(system, system.init(jnp.zeros(2)), num_steps=3)
    point = fixed_point(system, start)
    np.testing.assert_allclose(point.x.params, 1, rtol=1e-12)
    assert int(point.x.opt_state[1].count) == 3
    np.testing.assert_allclose(point.multipliers, 1 - 2 * 0.1 / 4, rtol=1e-6)


def test_a_point_of_a_curve_of_fixed_points_has_a_multiplier_one(x64):
    system = dj.TrainingMap(lambda w: (w[0] * w[1] - 1) ** 2 / 2, optax.sgd(0.1))
    point = fixed_point(system, system.init(jnp.asarray([1.5, 0.9])))
    a, b = np.asarray(point.x.params)
    np.testing.assert_allclose(a * b, 1, rtol=1e-14)
    np.testing.assert_allclose(point.multipliers, [1, 1 - 0.1 * (a**2 + b**2)], rtol=1e-12)
    assert point.kind == "neutral"


def test_a_forced_map_closes_after_the_period_of_its_force(x64):
    system = Map(lambda n, x: 0.5 * x + (-1.0) ** n)
    for n, x in [(0, -2 / 3), (1, 2 / 3)]:
        point = fixed_point(system, jnp.asarray(0.0), period=2, n=n)
        np.testing.assert_allclose(point.x, x, rtol=1e-14)
        np.testing.assert_allclose(point.multipliers, [0.25], rtol=1e-14)
        assert int(point.least_period) == 2


@pytest.mark.parametrize("dim", [64, 65])
def test_the_matrix_free_route_agrees_with_the_dense_one(x64, dim):
    rng = np.random.default_rng(dim)
    a, b = jnp.asarray(rng.normal(size=(dim, dim)) / np.sqrt(dim)), jnp.asarray(rng.normal(size=dim))
    point = fixed_point(Map(lambda n, x: a @ jnp.tanh(x) + b), b, num_multipliers=3)
    assert bool(point.converged)
    x = np.asarray(point.x)
    np.testing.assert_allclose(a @ np.tanh(x) + b, x, atol=1e-13)
    values = np.linalg.eigvals(np.asarray(a) / np.cosh(x) ** 2)
    np.testing.assert_allclose(np.abs(point.multipliers), np.sort(np.abs(values))[::-1][:3], rtol=1e-9)
    assert not point.complete


def test_training_that_interpolates_rests_on_a_manifold(x64):
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(6, 4)), rng.normal(size=6)
    loss = lambda p: jnp.mean((jax.vmap(p)(x)[:, 0] - y) ** 2) / 2
    system = dj.TrainingMap(loss, optax.sgd(0.1))
    start = dj.evolve(system, system.init(dj.MLP((4, 16, 1), key=jax.random.key(0))), num_steps=200)
    point = fixed_point(system, start)
    assert bool(point.converged)
    assert float(loss(point.x.params)) < 1e-18 < float(loss(start.params))
    assert point.kind == "neutral"
    assert not bool(point.stable)


def test_layers_with_a_common_fixed_point_are_a_map(x64):
    layer = eqx.nn.Linear(3, 3, use_bias=False, key=jax.random.key(0))
    point = fixed_point(LayerMap([layer, layer]), jnp.ones(3), period=2)
    np.testing.assert_allclose(point.x, 0, atol=1e-14)
    expected = np.linalg.eigvals(np.linalg.matrix_power(np.asarray(layer.weight, float), 2))
    np.testing.assert_allclose(np.abs(point.multipliers), np.sort(np.abs(expected))[::-1], rtol=1e-6)


def test_it_maps_over_parameters(x64):
    rates = jnp.asarray([2.5, 3.2, 3.8])
    points = jax.vmap(lambda r: fixed_point(logistic(r), jnp.asarray(0.65)))(rates)
    np.testing.assert_allclose(points.multipliers[:, 0], 2 - rates, rtol=1e-12)
    assert list(np.asarray(points.stable)) == [True, False, False]


def test_a_search_without_a_goal_ends_with_a_status(x64):
    point = fixed_point(Map(lambda n, x: x + 1.0), jnp.asarray(0.0))
    assert int(point.status) == Status.NOT_CONVERGED
    assert np.isnan(point.spectral_radius)
    assert not bool(point.stable)
    assert (point.kind, point.crossing) == ("unknown", "unknown")
    # x^2 + x + 1 = x has no real solution: Newton's method wanders.
    wandering = fixed_point(Map(lambda n, x: x**2 + x + 1), jnp.asarray(3.0))
    assert int(wandering.status) in (Status.NOT_CONVERGED, Status.MAX_STEPS)
    assert "status" in str(wandering)


def test_points_that_are_not_finite_end_with_that_status(x64):
    point = fixed_point(Map(lambda n, x: 1 / x), jnp.asarray(0.0))
    assert int(point.status) == Status.NONFINITE
    assert np.all(np.isnan(point.multipliers))


def test_too_few_steps_end_with_that_status(x64):
    point = fixed_point(dj.systems.lorenz63(0.01), jnp.asarray([3.0, 1.0, 20.0]), max_steps=1)
    assert int(point.status) == Status.MAX_STEPS


def test_single_precision_converges_to_its_own_rounding():
    point = fixed_point(logistic(jnp.float32(3.2)), jnp.float32(0.5), period=2)
    assert point.x.dtype == jnp.float32
    assert bool(point.converged)
    np.testing.assert_allclose(point.multipliers.real, [0.16], atol=1e-5)


def test_bad_input_is_refused(x64):
    start = jnp.asarray(0.5)
    delayed = mackey_glass()
    with pytest.raises(TypeError, match="come back to itself"):
        fixed_point(delayed, delayed.init(jnp.asarray(1.0)))
    with pytest.raises(TypeError, match="be a dynjax system"):
        fixed_point(lambda x: x, start)
    with pytest.raises(TypeError, match="be real"):
        fixed_point(Map(lambda n, x: x), start + 0j)
    with pytest.raises(ValueError, match="noise of this `RandomMap` varies"):
        fixed_point(RandomMap(lambda x, w: x + w, WhiteNoise((), key=jax.random.key(0))), start)
    with pytest.raises(ValueError, match="shapes and dtypes"):
        fixed_point(Map(lambda n, x: jnp.stack([x, x])), start)
    with pytest.raises(ValueError, match="at least one floating-point"):
        fixed_point(Map(lambda n, x: x), jnp.asarray(1))
    for options, match in [
        ({"period": 0}, "`period`"),
        ({"max_steps": 0}, "`max_steps`"),
        ({"tol": 0.0}, "`tol`"),
        ({"num_multipliers": 2}, "from 1 to the dimension 1"),
    ]:
        with pytest.raises(ValueError, match=match):
            fixed_point(logistic(), start, **options)


def test_a_random_map_with_constant_noise_is_a_map(x64):
    point = fixed_point(RandomMap(lambda x, w: x / 2 + w, lambda n: jnp.asarray(1.0)), jnp.asarray(0.0))
    np.testing.assert_allclose(point.x, 2, rtol=1e-14)


def test_equilibria_of_pytree_flows(x64):
    field = lambda t, y, args: {"x": y["v"], "v": -jnp.sin(y["x"]) - 0.1 * y["v"], "label": None}
    point = fixed_point(Flow(field, 0.01), {"x": jnp.asarray(3.0), "v": jnp.asarray(0.0), "label": 3})
    np.testing.assert_allclose(point.x["x"], np.pi, rtol=1e-12)
    assert point.x["label"] == 3
    roots = np.roots([1, 0.1, -1])
    np.testing.assert_allclose(point.exponents, np.sort(roots)[::-1], atol=1e-9)
