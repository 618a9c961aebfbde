import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

import dynjax.propagation as dp
from dynjax.networks import MLP, NeuralDDE, NeuralODE, lipschitz_bound
from dynjax.propagation._obstruction import isotonic
from dynjax.propagation._sampled_lipschitz import sampled_lipschitz
from dynjax.systems import ddesolve


def square(x):
    return x**2


def random_map(key, d, q):
    """A random C^2 map R^d -> R^q: waves, a quadratic form and |x|^2.5."""
    a, b, c, s = jax.random.split(key, 4)
    waves, turns = jax.random.normal(a, (q, 3)), jax.random.normal(b, (3, d))
    forms, size = jax.random.normal(c, (q, d, d)), jax.random.normal(s, (q,))
    return lambda x: waves @ jnp.sin(turns @ x) + jnp.einsum("qij,i,j->q", forms, x, x) + size * jnp.sum(x**2) ** 1.25


@pytest.mark.parametrize(("d", "q"), [(d, q) for d in (1, 2, 3) for q in (1, 2, 3)])
def test_shear_represents_random_maps_exactly(d, q, key, x64):
    for number in range(3 if d == q else 2):  # 21 maps in all
        psi = random_map(jax.random.fold_in(key, number), d, q)
        model = dp.ShearEmbedding(psi, in_size=d, out_size=q, horizon=0.5 + number, state_size=d + q + number)
        points = jax.random.uniform(key, (100, d), minval=-2, maxval=2)
        errors = jax.jit(jax.vmap(lambda x, model=model, psi=psi: model(x) - psi(x)))(points)
        np.testing.assert_allclose(errors, 0.0, atol=1e-9)


def test_shear_has_a_vanishing_derivative_where_narrower_states_cannot(x64):
    psi = lambda x: jnp.stack([jnp.sum(x**2), x[0] ** 3 + x[1] ** 4])
    model = dp.ShearEmbedding(psi, in_size=2, out_size=2)
    jacobian = jax.jacfwd(model)(jnp.zeros(2))
    np.testing.assert_array_equal(jacobian, 0.0)
    assert not dp.embedding_obstruction(2, 4, 2).excludes(jacobian)
    for size in (2, 3):
        assert dp.embedding_obstruction(2, size, 2).excludes(jacobian)


def test_gains_make_the_field_of_the_shear_as_gentle_as_one_likes(key, x64):
    psi = MLP((2, 8, 1), key=key)
    model = dp.ShearEmbedding(psi, in_size=2, out_size=1, horizon=2.0, lift_gain=5.0, readout_gain=100.0)
    points = jax.random.normal(key, (50, 2))
    np.testing.assert_allclose(jax.vmap(model)(points), jax.vmap(psi)(points), atol=1e-12)
    bound = float(lipschitz_bound(model.field, "sup"))
    np.testing.assert_allclose(bound, lipschitz_bound(psi, "sup") / (5.0 * 100.0 * 2.0), rtol=1e-12)
    assert float(sampled_lipschitz(model.field, 3, 0, 2.0, jnp.ones(()), "sup", 500, key)) <= bound


def test_learned_shear_is_wrong_by_the_horizon_times_the_error_of_its_field(key, x64):
    horizon, psi = 3.0, MLP((1, 16, 1), key=key)
    model = dp.ShearEmbedding(psi, in_size=1, out_size=1, horizon=horizon)
    points = jnp.linspace(-1, 1, 101)[:, None]
    error = jnp.max(jnp.abs(jax.vmap(model)(points) - points**2))
    field = jax.vmap(lambda x: model.field(0.0, jnp.concatenate([x, x]))[1:])(points)
    np.testing.assert_allclose(error, horizon * jnp.max(jnp.abs(field - points**2 / horizon)), rtol=1e-12)


def test_shear_is_a_neural_ode_and_trains(key, x64):
    model = dp.ShearEmbedding(MLP((1, 4, 1), key=key), in_size=1, out_size=1)
    assert isinstance(model, NeuralODE)
    loss = lambda model: jnp.sum((jax.vmap(model)(jnp.linspace(-1, 1, 5)[:, None]) - 1.0) ** 2)
    grads = eqx.filter_grad(loss)(model)
    leaves = jax.tree_util.tree_leaves((grads.lift, grads.readout, grads.field.target))
    assert all(bool(jnp.any(leaf != 0)) for leaf in leaves)
    downhill = eqx.apply_updates(model, jax.tree_util.tree_map(lambda g: -1e-3 * g, grads))
    assert float(loss(downhill)) < float(loss(model))


def test_shear_refuses_bad_arguments():
    with pytest.raises(
        ValueError, match="Argument `state_size` must be at least in_size \\+ out_size = 3, but found 2"
    ):
        dp.ShearEmbedding(lambda x: x[:1], in_size=2, out_size=1, state_size=2)
    with pytest.raises(ValueError, match="Argument `psi` must map samples of shape \\(2,\\) to \\(1,\\)"):
        dp.ShearEmbedding(square, in_size=2, out_size=1)
    with pytest.raises(TypeError, match="Argument `psi` must be a function"):
        dp.ShearEmbedding(3.0, in_size=1, out_size=1)
    with pytest.raises(ValueError, match="Argument `lift_gain` must be positive"):
        dp.ShearEmbedding(square, in_size=1, out_size=1, lift_gain=0.0)


@pytest.mark.parametrize(("d", "m", "q"), [(2, 3, 2), (3, 2, 2)])
def test_derivatives_of_random_networks_have_the_rank_that_the_inequality_asks_for(d, m, q, key, x64):
    obstruction = dp.embedding_obstruction(d, m, q)

    def jacobians(key):
        model = NeuralODE((d, m, q), num_steps=10, time_dependent=True, key=key)
        return jax.vmap(jax.jacfwd(model))(jax.random.normal(key, (10, d)))

    values = jax.jit(jax.vmap(jacobians))(jax.random.split(key, 50))  # 100 networks in all
    sigma = jnp.linalg.svd(values, compute_uv=False)
    assert float(jnp.min(sigma[..., obstruction.min_rank - 1])) > 1e-6
    assert not any(obstruction.excludes(matrix) for matrix in values.reshape(-1, q, d)[:20])


def test_obstructions_speak():
    assert "universal" in str(dp.embedding_obstruction(2, 4, 2))
    assert "no critical point" in dp.embedding_obstruction(2, 1, 1).verdict
    assert dp.embedding_obstruction(3, 4, 3).min_rank == 2
    assert dp.embedding_obstruction(2, 3, 1).universal
    with pytest.raises(ValueError, match="Argument `state_size`"):
        dp.embedding_obstruction(1, 0, 1)
    with pytest.raises(ValueError, match="Argument `jacobian` must have shape \\(1, 2\\)"):
        dp.embedding_obstruction(2, 2, 1).excludes(jnp.zeros((2, 2)))


@pytest.mark.parametrize(
    ("psi", "lower", "upper"),
    [(jnp.sinh, -2.0, 2.0), (lambda x: x + 0.45 * jnp.sin(2 * x), -3.0, 1.0), (lambda x: 0.1 * x - 2, 0.0, 5.0)],
)
def test_isotopy_represents_increasing_maps_exactly(psi, lower, upper, x64):
    model = dp.IsotopyEmbedding(psi, lower=lower, upper=upper, horizon=1.7)
    points = jnp.linspace(lower, upper, 41)[:, None]
    both = lambda fn: jax.jit(jax.vmap(jax.value_and_grad(lambda x: fn(x)[0])))(points)
    (values, slopes), (exact, exact_slopes) = both(model), both(psi)
    np.testing.assert_allclose(values, exact, atol=1e-13)
    np.testing.assert_allclose(slopes[1:-1], exact_slopes[1:-1], rtol=1e-10)


def test_the_field_of_the_isotopy_is_right_for_any_solver(x64):
    model = dp.IsotopyEmbedding(jnp.sinh, lower=-2.0, upper=2.0, horizon=1.5)
    adaptive = NeuralODE(
        (1, 1, 1),
        horizon=1.5,
        field=model.field,
        lift=model.lift,
        readout=model.readout,
        rtol=1e-10,
        key=jax.random.key(0),
    )
    points = jnp.linspace(-1.9, 1.9, 9)[:, None]
    np.testing.assert_allclose(jax.vmap(adaptive)(points), jnp.sinh(points), atol=1e-8)
    # The field is the velocity of points that move in straight lines.
    x, t = 0.7, 0.9
    place = (1 - t / 1.5) * x + t / 1.5 * jnp.sinh(x)
    np.testing.assert_allclose(model.field(t, place[None])[0], (jnp.sinh(x) - x) / 1.5, rtol=1e-13)
    np.testing.assert_allclose(model.field.origin(t, place), x, rtol=1e-13)


def test_isotopy_is_differentiable_in_the_map(x64):
    class Cubic(eqx.Module):
        bend: jax.Array

        def __call__(self, x):
            return x + self.bend * x**3

    model = dp.IsotopyEmbedding(Cubic(jnp.array(0.3)))
    grads = eqx.filter_jit(eqx.filter_grad(lambda model: model(jnp.array([0.8]))[0]))(model)
    np.testing.assert_allclose(grads.field.target.psi.bend, 0.8**3, rtol=1e-12)
    # At half time the inverse comes in: y = x + (b/2) x^3, f = b x^3, so df/db = x^3 - 3 b x^2 (x^3/2) / (1 + 3 b x^2 / 2).
    x, b = 0.8, 0.3
    y = x + b / 2 * x**3
    slope = eqx.filter_jit(eqx.filter_grad(lambda field: field(0.5, jnp.array([y]))[0]))(model.field).target.psi.bend
    np.testing.assert_allclose(slope, x**3 - 3 * b * x**2 * (x**3 / 2) / (1 + 1.5 * b * x**2), rtol=1e-12)


def test_isotopy_refuses_maps_that_do_not_increase():
    with pytest.raises(ValueError, match=r"Argument `psi` must increase on \[-1, 1\].* its derivative at -1 is -2"):
        dp.IsotopyEmbedding(square)
    with pytest.raises(ValueError, match="Argument `upper` must be finite and above `lower`"):
        dp.IsotopyEmbedding(jnp.sinh, lower=1.0, upper=0.0)


def test_delay_embedding_of_the_square_is_exact_with_a_certified_field(key, x64):
    strength = 0.5
    model = dp.DelayEmbedding(square, in_size=1, out_size=1, lipschitz=strength, horizon=3.24)
    assert isinstance(model, NeuralDDE)
    assert model.widths == (1, 1, 1)
    points = jnp.linspace(-1, 1, 101)[:, None]
    np.testing.assert_allclose(jax.vmap(model)(points), points**2, rtol=0, atol=1e-8)
    assert float(lipschitz_bound(model.field, "sup")) <= strength * (1 + 1e-9)
    for scale in (0.02, 0.3, 3.0):
        sampled = sampled_lipschitz(model.field, 1, 1, 3.24, jnp.asarray(scale), "sup", 4000, key)
        assert float(sampled) <= strength * (1 + 1e-9)


@pytest.mark.parametrize(
    ("memory", "gain", "digits"),
    [(2, 2, 0), (1, 8, 0), (0.6, 37, 0), (0.5, 111, 0), (0.42, 1.2e3, -2), (0.38, 8.4e5, -4)],
)
def test_gains_for_the_square_agree_with_the_theory(memory, gain, digits, x64):
    horizon = float(dp.first_zero(memory)) + 0.5 + 1e-12
    options = {"in_size": 1, "out_size": 1, "lipschitz": memory, "horizon": horizon}
    model = dp.DelayEmbedding(square, duration=0.5, **options)
    assert round(float(model.gain), digits) == gain
    np.testing.assert_allclose(model.readout.weight, [[model.gain]])
    assert float(dp.DelayEmbedding(square, **options).gain) <= float(model.gain) * (1 + 1e-9)


def test_delay_embedding_close_to_the_threshold_pays_by_its_gain(x64):
    model = dp.DelayEmbedding(square, in_size=1, out_size=1, lipschitz=0.38, horizon=11.6)
    points = jnp.linspace(-1, 1, 21)[:, None]
    assert float(model.gain) > 5e5
    np.testing.assert_allclose(jax.vmap(model)(points), points**2, rtol=0, atol=1e-8)


def test_delay_embedding_merges_where_no_ode_of_its_width_can(x64):
    psi = lambda x: jnp.stack([jnp.sum(x**2), x[0] ** 3 + x[1] ** 4])
    model = dp.DelayEmbedding(
        psi, in_size=2, out_size=2, lipschitz=2.4, delay=0.25, horizon=1.0, lower=-1.0, upper=[1.0, 0.5], norm="euclidean",
        lift_gain=3.0, state_size=3,
    )  # fmt: skip
    points = jax.random.uniform(jax.random.key(0), (50, 2), minval=-1, maxval=jnp.array([1.0, 0.5]))
    np.testing.assert_allclose(jax.vmap(model)(points), jax.vmap(psi)(points), atol=1e-8)
    jacobian = jax.jacfwd(model)(jnp.zeros(2))
    np.testing.assert_allclose(jacobian, 0.0, atol=1e-8)
    assert dp.embedding_obstruction(2, 2, 2).excludes(jacobian)


# A quarter of a minute, nearly all of it to compile.
@pytest.mark.slow
def test_delay_embedding_agrees_with_an_adaptive_solution_phase_by_phase(x64):
    model = dp.DelayEmbedding(square, in_size=1, out_size=1, lipschitz=0.6, horizon=2.9, duration=0.4)
    field, x = model.field, jnp.array([-0.7])
    past = model.lift(x)
    phase = lambda k: lambda t, y, delayed, args: field.slope(k, t, y, delayed)
    options = {"delays": 1.0, "rtol": 1e-11, "atol": 1e-12}
    first = ddesolve(phase(0), 0.0, field.switch, past, history=lambda t: past, **options)
    np.testing.assert_allclose(first.final, 0.0, atol=1e-10)
    second = ddesolve(phase(1), field.switch, field.stop, first.final, history=first.evaluate, **options)
    np.testing.assert_allclose(model.readout(second.final), x**2, atol=1e-7)
    np.testing.assert_allclose(model.solve(x), second.final, atol=1e-10)


def test_delay_embedding_trains_and_scales(key, x64):
    model = dp.DelayEmbedding(
        MLP((1, 4, 1), key=key), in_size=1, out_size=1, lipschitz=0.6, horizon=2.9, steps_per_delay=4
    )
    points = jnp.linspace(-0.9, 0.9, 5)[:, None]
    loss = lambda model: jnp.sum((jax.vmap(model)(points) - points**2) ** 2)
    grads = eqx.filter_jit(eqx.filter_grad(loss))(model)
    leaves = jax.tree_util.tree_leaves((grads.lift.weight, grads.readout, grads.field.target, grads.field.rate))
    assert all(bool(jnp.all(jnp.isfinite(leaf)) & jnp.any(leaf != 0)) for leaf in leaves)
    for frozen in (grads.field.lipschitz, grads.field.switch, grads.horizon, grads.stored_delays):
        np.testing.assert_array_equal(frozen, 0.0)
    stretched = eqx.tree_at(lambda m: m.horizon, model, model.horizon * 1.1)
    assert bool(jnp.all(jnp.isnan(stretched(points[0]))))


def test_delay_embedding_names_the_critical_value_and_bad_arguments(x64):
    embed = lambda psi=square, **options: dp.DelayEmbedding(
        psi, **({"in_size": 1, "out_size": 1, "lipschitz": 0.6, "horizon": 3.0} | options)
    )
    with pytest.raises(
        ValueError, match=r"above the critical value 0.481987071595 at T / tau = 3, but found K tau = 0.48"
    ):
        embed(lipschitz=0.48)
    with pytest.raises(ValueError, match="Argument `duration` must be shorter than the delay"):
        embed(duration=1.0)
    with pytest.raises(ValueError, match="Argument `psi_lipschitz` must bound the derivative"):
        embed(psi_lipschitz=1.5)
    with pytest.raises(ValueError, match="Argument `psi` must have a finite derivative on the box and not be constant"):
        embed(lambda x: 0 * x)
    with pytest.raises(ValueError, match="Argument `state_size` must be at least max"):
        embed(lambda x: jnp.stack([x[0], x[0]]), out_size=2, state_size=1)
    with pytest.raises(ValueError, match="Argument `upper` must be finite and above `lower`"):
        embed(lower=1.0, upper=1.0)


def test_monotone_maps_miss_the_square_by_9_in_160(x64):
    assert abs(float(dp.monotone_error_bound(square)) - 9 / 160) < 1e-12
    assert abs(float(dp.monotone_error_bound(square, norm="sup")) - 0.5) < 1e-8
    assert float(dp.extremum_error_bound(1.0)) == 0.5


def test_monotone_error_bound_of_other_maps(x64):
    assert float(dp.monotone_error_bound(jnp.exp)) == 0
    assert float(dp.monotone_error_bound(lambda x: -(x**3), 0.0, 2.0)) == 0
    # The best increasing fit to |x| on [-1, 2] is the mean c on [-1, c]: (1 + c^2) / 2 = c (1 + c), so c = sqrt 2 - 1.
    c = 2**0.5 - 1
    exact = ((1 - c) ** 3 / 3 + c**3 / 3 + c**3 / 3) / 3
    np.testing.assert_allclose(dp.monotone_error_bound(jnp.abs, -1.0, 2.0), exact, rtol=1e-6)
    # x^3 - x falls best: its largest rise is 2 / (3 sqrt 3).
    bound = dp.monotone_error_bound(lambda x: x**3 - x, norm="sup")
    np.testing.assert_allclose(bound, 1 / (3 * 3**0.5), atol=1e-6)


def test_isotonic_regression_agrees_with_scikit_learn():
    rng = np.random.default_rng(1)
    values, weights = rng.normal(size=200).cumsum() - np.linspace(0, 20, 200), rng.uniform(0.1, 2.0, 200)
    reference = IsotonicRegression().fit_transform(np.arange(200), values, sample_weight=weights)
    np.testing.assert_allclose(isotonic(values, weights), reference, atol=1e-12)


def test_bounds_refuse_bad_arguments():
    with pytest.raises(ValueError, match="Argument `gap` must not be negative"):
        dp.extremum_error_bound(-1.0)
    with pytest.raises(ValueError, match="Argument `norm`"):
        dp.monotone_error_bound(square, norm="max")
    with pytest.raises(ValueError, match="Argument `target` must be finite"):
        dp.monotone_error_bound(lambda x: jnp.log(x))
