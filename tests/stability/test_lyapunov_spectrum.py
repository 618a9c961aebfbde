"""The engine against closed forms, sum rules and itself; acceptance tests of the exponents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynjax as dj
from dynjax import Status, reference, systems
from dynjax.stability import lyapunov_spectrum


def gaussian_product(dim, scale=1.0, seed=0):
    return dj.RandomMap(lambda x, a: a @ x, dj.WhiteNoise((dim, dim), key=jax.random.key(seed), scale=scale))


def assert_within(result, exact, num_errors=4.0):
    """Within some reported standard errors, which must be errors that mean something."""
    exact = np.asarray(exact)[: len(result.exponents)]
    assert int(result.status) == Status.OK
    assert np.all(np.abs(result.exponents - exact) <= num_errors * np.asarray(result.standard_error) + 1e-13), str(
        result
    )


# ---- maps


def test_cat_map_is_exact(x64):
    result = lyapunov_spectrum(systems.arnold_cat(), jnp.array([0.1, 0.2]), num_steps=1000)
    np.testing.assert_allclose(result.exponents, reference.cat_map_exponents(), rtol=1e-14)
    np.testing.assert_allclose(result.kaplan_yorke_dimension, 2)
    np.testing.assert_allclose(result.kolmogorov_sinai_entropy, result.exponents[0])


def test_coupled_doubling_lattice_with_its_equal_pairs(x64):
    lattice = systems.coupled_lattice(8, 0.3)
    x0 = systems.initial_state(systems.coupled_lattice, 8)
    result = lyapunov_spectrum(lattice, x0, num_steps=20_000, burn_in=2_000)
    np.testing.assert_allclose(result.exponents, reference.coupled_doubling_exponents(8, 0.3), atol=1e-6)


def test_baker_map_dimension(x64):
    result = lyapunov_spectrum(systems.baker(), systems.initial_state(systems.baker), num_steps=20_000)
    exact = reference.baker_exponents(0.4, (1 / 3, 1 / 3))
    assert_within(result, exact)
    np.testing.assert_allclose(result.kaplan_yorke_dimension, 1 + exact[0] / -exact[1], atol=0.01)


def test_henon_sum_is_exact(x64):
    result = lyapunov_spectrum(systems.henon(), jnp.zeros(2), num_steps=50_000)
    np.testing.assert_allclose(result.sum, np.log(0.3), rtol=1e-12)
    assert abs(float(result.exponents[0]) - 0.41918) < 4 * float(result.standard_error[0]) + 3e-5


def test_standard_map_exponents_come_in_pairs(x64):
    result = lyapunov_spectrum(systems.standard_map(10.0), jnp.array([1.0, 0.5]), num_steps=20_000)
    np.testing.assert_allclose(result.exponents[0], -result.exponents[1], rtol=1e-8)
    assert abs(float(result.exponents[0]) - 1.6197) < 4 * float(result.standard_error[0]) + 1e-3


def test_linear_maps_with_complex_pairs_and_a_jordan_block(x64):
    a = np.zeros((5, 5))
    a[:2, :2] = 0.9 * np.array([[np.cos(1.0), -np.sin(1.0)], [np.sin(1.0), np.cos(1.0)]])
    a[2:4, 2:4] = [[0.6, 1.0], [0.0, 0.6]]
    a[4, 4] = 0.3
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((5, 5)))[0]
    matrix = turn @ a @ turn.T
    result = lyapunov_spectrum(systems.linear_map(matrix), jnp.ones(5), num_steps=4_000, burn_in=20_000)
    np.testing.assert_allclose(result.exponents, np.log([0.9, 0.9, 0.6, 0.6, 0.3]), atol=1e-3)


def test_gradient_descent_chaos_of_a_two_layer_linear_net(x64):
    """GD on (ab - 1)^2 / 2 at lr 2 from a = b is conjugate to a Chebyshev map: exponents (ln 3, 0)."""
    import optax

    training = dj.TrainingMap(lambda p: 0.5 * (p[0] * p[1] - 1) ** 2, optax.sgd(2.0))
    # Exactly on the diagonal, where rounding keeps it.
    result = lyapunov_spectrum(training, training.init(jnp.array([0.3, 0.3])), num_steps=100_000)
    np.testing.assert_allclose(result.exponents, [np.log(3), 0], atol=2e-3)


# ---- products of random matrices


def test_newman_spectrum_with_the_right_standard_errors(x64):
    n = 100_000
    result = lyapunov_spectrum(gaussian_product(3), jnp.zeros(3), num_steps=n)
    assert_within(result, reference.gaussian_product_exponents(3))
    exact = np.sqrt(np.asarray(reference.gaussian_product_variances(3)) / n)
    np.testing.assert_allclose(exact, [1.53e-3, 2.03e-3, 3.51e-3], rtol=5e-3)
    # 20 degrees of freedom: a standard error is known to one part in sqrt(40).
    assert np.all(np.abs(result.standard_error / exact - 1) < 3 / np.sqrt(40))
    np.testing.assert_allclose(result.autocorrelation_time, 1, atol=0.9)


def test_complex_matrices_give_each_exponent_twice(x64):
    def fn(x, a):
        return (a[0] + 1j * a[1]) @ x / np.sqrt(2)

    system = dj.RandomMap(fn, dj.WhiteNoise((2, 2, 2), key=jax.random.key(4)))
    result = lyapunov_spectrum(system, jnp.zeros(2, jnp.complex128), num_steps=20_000)
    exact = np.repeat(np.asarray(reference.ginibre_product_exponents(2)), 2)
    pairs = np.asarray(result.exponents).reshape(2, 2).mean(axis=1)
    error = np.asarray(result.standard_error).reshape(2, 2).mean(axis=1)
    assert np.all(np.abs(pairs - exact[::2]) < 4 * error)


def test_isotropic_sgd_spectrum(x64):
    system = dj.RandomMap(lambda w, x: w - 0.3 * x * (x @ w), dj.WhiteNoise((4,), key=jax.random.key(1)))
    result = lyapunov_spectrum(system, jnp.ones(4), num_steps=50_000)
    assert_within(result, reference.isotropic_sgd_exponents(4, 0.3))


def test_kaczmarz_spectrum_ends_in_minus_infinity_without_nan(x64):
    def fn(w, x):
        x = x / jnp.linalg.norm(x)
        return w - x * (x @ w)

    system = dj.RandomMap(fn, dj.WhiteNoise((5,), key=jax.random.key(2)))
    result = lyapunov_spectrum(system, jnp.ones(5), num_steps=50_000)
    assert int(result.status) == Status.OK
    gap = np.abs(result.exponents - reference.kaczmarz_exponents(5))[:4]
    assert np.all(gap < 4 * result.standard_error[:4])
    assert result.exponents[4] == -jnp.inf
    assert result.sum == -jnp.inf
    assert np.all(np.isfinite(result.standard_error))


def test_lloyd_model(x64):
    def fn(x, u):
        v = jnp.tan(jnp.pi * (u - 0.5))  # Cauchy
        return jnp.stack([-v * x[0] - x[1], x[0]])

    path = lambda n: jax.random.uniform(jax.random.fold_in(jax.random.key(3), n), ())
    result = lyapunov_spectrum(dj.RandomMap(fn, path), jnp.zeros(2), num_steps=100_000, k=1)
    assert_within(result, reference.lloyd_exponent(0.0, 1.0)[None])


# ---- networks at initialisation


def test_relu_network_of_width_fifty(x64):
    width = 50
    path = dj.WhiteNoise((width, width), key=jax.random.key(5), scale=np.sqrt(2 / width))
    layer = dj.RandomMap(lambda x, w: jax.nn.relu(w @ x), path)
    result = lyapunov_spectrum(layer, jnp.ones(width), num_steps=20_000, k=1, burn_in=100)
    np.testing.assert_allclose(reference.relu_network_exponent(width), -0.02587, atol=5e-6)
    assert_within(result, reference.relu_network_exponent(width)[None], 3)


def test_deep_orthogonal_network_has_exponents_zero(x64):
    layer = dj.RandomMap(lambda x, a: jnp.linalg.qr(a)[0] @ x, dj.WhiteNoise((8, 8), key=jax.random.key(6)))
    result = lyapunov_spectrum(layer, jnp.ones(8), num_steps=10_000)
    np.testing.assert_allclose(result.exponents, 0, atol=1e-12)


# ---- flows and delays


def test_lorenz_sum_is_the_divergence_at_order_five(x64):
    lorenz = systems.lorenz63(0.01, method="dopri5")
    result = lyapunov_spectrum(lorenz, jnp.ones(3), num_steps=50_000, qr_every=10)
    np.testing.assert_allclose(result.sum, reference.lorenz63_exponent_sum(), atol=1e-6)
    assert abs(float(result.exponents[0]) - 0.9056) < 4 * float(result.standard_error[0])
    assert abs(float(result.exponents[1])) < 4 * float(result.standard_error[1])
    assert abs(float(result.kaplan_yorke_dimension) - 2.0621) < 2e-3


def test_stuart_landau_and_linear_flows_are_exact(x64):
    cycle = systems.stuart_landau(0.02, mu=0.5, method="dopri5")
    result = lyapunov_spectrum(cycle, systems.initial_state(systems.stuart_landau), num_steps=20_000, burn_in=5_000)
    np.testing.assert_allclose(result.exponents, reference.stuart_landau_exponents(0.5), atol=1e-6)
    a = jnp.asarray(np.random.default_rng(1).standard_normal((4, 4)))
    flow = systems.linear_flow(a, 0.01, method="dopri5")
    result = lyapunov_spectrum(flow, jnp.ones(4), num_steps=20_000, burn_in=20_000)
    np.testing.assert_allclose(result.exponents, reference.linear_flow_exponents(a), atol=2e-3)


def test_backward_flow_has_the_opposite_exponents(x64):
    a = jnp.asarray([[1.0, 3.0], [0.0, -2.0]])
    result = lyapunov_spectrum(systems.linear_flow(a, -0.01, method="dopri5"), jnp.ones(2), num_steps=5_000)
    np.testing.assert_allclose(result.exponents, [2.0, -1.0], atol=1e-6)


def test_linear_delay_equation_has_the_real_parts_of_its_roots(x64):
    system = systems.linear_delay(0.02, tau=1.0, a=0.0, b=-1.0)
    x0 = system.init(lambda t: jnp.ones(()) + t)
    # The two directions of a complex pair take turns: their bias is of the order 1 / time.
    result = lyapunov_spectrum(system, x0, num_steps=200_000, burn_in=5_000, k=6)
    np.testing.assert_allclose(result.exponents, reference.delay_exponents(0.0, -1.0, 1.0, 6), atol=1e-4)


def test_stochastic_equation_with_frozen_noise(x64):
    system = systems.geometric_brownian_motion(jax.random.key(7), a=0.05, s=0.4, dt=0.1)
    result = lyapunov_spectrum(system, jnp.ones(()), num_steps=50_000)
    assert_within(result, reference.geometric_brownian_exponent(0.05, 0.4)[None])
    np.testing.assert_allclose(result.standard_error, 0.4 / np.sqrt(5_000), rtol=0.4)


# ---- the engine itself


@pytest.mark.parametrize("k", [1, 2])
def test_leading_exponents_are_those_of_the_whole_spectrum(x64, k):
    henon = systems.henon()
    whole = lyapunov_spectrum(henon, jnp.zeros(2), num_steps=2_000)
    some = lyapunov_spectrum(henon, jnp.zeros(2), num_steps=2_000, k=k)
    np.testing.assert_allclose(some.exponents, whole.exponents[:k], atol=1e-12)


def test_many_vectors_use_householder_and_agree_with_few(x64):
    system = gaussian_product(7, scale=0.5)
    whole = lyapunov_spectrum(system, jnp.ones(7), num_steps=3_000, key=jax.random.key(0))
    few = lyapunov_spectrum(system, jnp.ones(7), num_steps=3_000, k=3, key=jax.random.key(0))
    np.testing.assert_allclose(few.exponents, whole.exponents[:3], atol=1e-10)


def test_a_resumed_run_is_the_run_in_one_piece(x64):
    lorenz = systems.lorenz63(0.01)
    whole = lyapunov_spectrum(lorenz, jnp.ones(3), num_steps=9_000, burn_in=500, qr_every=5)
    first = lyapunov_spectrum(lorenz, jnp.ones(3), num_steps=3_000, burn_in=500, qr_every=5)
    # Bins differ in size, which the average cannot see.
    second = lyapunov_spectrum(lorenz, None, num_steps=6_000, state=first.state)
    np.testing.assert_array_equal(second.state.x, whole.state.x)
    np.testing.assert_array_equal(second.state.frame, whole.state.frame)
    np.testing.assert_allclose(second.exponents, whole.exponents, atol=1e-11)
    np.testing.assert_allclose(second.total_time, 90)
    assert np.all(np.abs(np.log(second.standard_error / whole.standard_error)) < 0.7)


@pytest.mark.slow
def test_bins_are_merged_when_runs_are_resumed_again_and_again(x64, monkeypatch):
    from dynjax.stability import _spectrum

    monkeypatch.setattr(_spectrum, "_MERGE_ABOVE", 4_000)
    system = gaussian_product(2)
    result = lyapunov_spectrum(system, jnp.zeros(2), num_steps=15_000, burn_in=0)
    blocks = result.state.blocks
    for _ in range(3):
        result = lyapunov_spectrum(system, None, num_steps=15_000, state=result.state)
    whole = lyapunov_spectrum(system, jnp.zeros(2), num_steps=60_000, burn_in=0)
    assert result.state.blocks > blocks
    np.testing.assert_allclose(result.exponents, whole.exponents, atol=1e-12)
    np.testing.assert_allclose(result.autocorrelation_time, whole.autocorrelation_time, rtol=0.8)


def test_it_runs_inside_jit_and_vmap(x64):
    starts = jnp.stack([jnp.zeros(2), jnp.array([0.1, 0.1])])
    fn = lambda x: lyapunov_spectrum(systems.henon(), x, num_steps=500).exponents
    loop = jnp.stack([fn(x) for x in starts])
    np.testing.assert_allclose(jax.vmap(fn)(starts), loop, atol=1e-9)
    np.testing.assert_allclose(jax.jit(jax.vmap(fn))(starts), loop, atol=1e-9)
    sweep = jax.jit(
        jax.vmap(lambda r: lyapunov_spectrum(systems.logistic(r), jnp.asarray(0.4), num_steps=2_000).exponents[0])
    )
    exact = [float(reference.logistic_exponent(r)) for r in (2.5, 3.2, 4.0)]
    np.testing.assert_allclose(sweep(jnp.array([2.5, 3.2, 4.0])), exact, atol=0.02)
    captured = jax.jit(lambda: lyapunov_spectrum(systems.henon(), jnp.zeros(2), num_steps=500).exponents)()
    np.testing.assert_allclose(captured, loop[0], atol=1e-9)


def test_one_compilation_serves_all_lengths(x64):
    traces = []

    def fn(n, x):
        traces.append(1)
        return jnp.stack([1 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]])

    system = dj.Map(fn)
    lyapunov_spectrum(system, jnp.zeros(2), num_steps=100)
    before = len(traces)
    lyapunov_spectrum(system, jnp.ones(2) * 0.1, num_steps=100)
    assert len(traces) - before <= 2  # the shape check, and the look for captured parameters


def test_single_precision_is_honest_about_itself():
    result = lyapunov_spectrum(systems.lorenz63(0.01), jnp.ones(3), num_steps=50_000)
    assert result.exponents.dtype == jnp.float32
    assert abs(float(result.exponents[0]) - 0.9056) < 4 * float(result.standard_error[0])
    np.testing.assert_allclose(result.sum, -41 / 3, atol=3e-4)


def test_a_frame_that_collapses_is_reported(x64):
    result = lyapunov_spectrum(systems.lorenz63(0.01), jnp.ones(3), num_steps=20_000, qr_every=400)
    assert int(result.status) == Status.INACCURATE
    good = lyapunov_spectrum(systems.lorenz63(0.01), jnp.ones(3), num_steps=20_000, qr_every=50)
    assert int(good.status) == Status.OK


def test_an_orbit_that_leaves_the_numbers_is_reported(x64):
    result = lyapunov_spectrum(systems.henon(), jnp.array([10.0, 0.0]), num_steps=100)
    assert int(result.status) == Status.NONFINITE
    assert not np.any(np.isfinite(result.exponents))


def test_a_state_that_is_no_number_gives_none_even_to_a_linear_map(x64):
    """Its tangents never look at the state, so that they would give a number."""
    result = lyapunov_spectrum(dj.Map(lambda n, x: 2 * x), jnp.asarray([jnp.nan]), num_steps=10)
    assert int(result.status) == Status.NONFINITE
    assert np.isnan(result.exponents[0])
    assert np.isnan(result.sum)
    assert np.isnan(result.kaplan_yorke_dimension)


def test_products_of_matrices_keep_their_exponents_while_the_state_overflows(x64):
    gauss = gaussian_product(3, seed=5)
    result = lyapunov_spectrum(gauss, jnp.ones(3), num_steps=5_000)
    assert not np.all(np.isfinite(result.state.x))
    assert_within(result, reference.gaussian_product_exponents(3))
    other = lyapunov_spectrum(gauss, jnp.zeros(3), num_steps=5_000)
    np.testing.assert_allclose(result.exponents, other.exponents, rtol=1e-12)


def test_history_averages_to_the_exponents(x64):
    result = lyapunov_spectrum(systems.henon(), jnp.zeros(2), num_steps=4_000, history=True)
    np.testing.assert_allclose(result.history.mean(axis=0), result.exponents, atol=1e-12)
    np.testing.assert_allclose(result.history.shape[0] * result.bin_time, result.total_time)
    assert lyapunov_spectrum(systems.henon(), jnp.zeros(2), num_steps=4_000).history is None


def test_required_time_and_printing(x64):
    result = lyapunov_spectrum(systems.henon(), jnp.zeros(2), num_steps=4_000)
    np.testing.assert_allclose(result.required_time(float(result.standard_error[0]) / 2)[0], 4 * 4_000)
    assert "dimension 1.2" in str(result)
    assert "OK" in str(result)
    lower, upper = result.interval()
    assert np.all((lower < result.exponents) & (result.exponents < upper))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_steps": 0}, "Argument `num_steps` must be an integer of at least 1, but found 0"),
        ({"num_steps": 10, "k": 3}, "Argument `k` must be at most the dimension of the tangent space, 2, but found 3"),
        ({"num_steps": 10, "k": 0}, "Argument `k` must be an integer of at least 1"),
        ({"num_steps": 10, "qr_every": 3}, "Argument `qr_every` must divide `num_steps`, but 3 does not divide 10"),
        ({"num_steps": 10, "burn_in": -1}, "Argument `burn_in` must be an integer of at least 0"),
        ({"num_steps": 1_000_003}, "Argument `num_steps` must divide into equal bins .* 1000000 does"),
    ],
)
def test_counts_that_do_not_fit_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        lyapunov_spectrum(systems.henon(), jnp.zeros(2), **kwargs)


def test_the_whole_spectrum_is_refused_above_64_dimensions():
    with pytest.raises(
        ValueError, match="Argument `k` must be given above 64 dimensions, but the tangent space has 65"
    ):
        lyapunov_spectrum(systems.linear_map(jnp.eye(65)), jnp.ones(65), num_steps=10)


def test_what_is_no_system_or_no_state_is_refused():
    with pytest.raises(TypeError, match="Argument `system` must be a dynjax system"):
        lyapunov_spectrum(lambda n, x: x, jnp.ones(2), num_steps=10)
    with pytest.raises(ValueError, match="Argument `x0` must have the shapes"):
        lyapunov_spectrum(systems.henon(), jnp.ones(3), num_steps=10)
    with pytest.raises(TypeError, match=r"Argument `state` must be `\.state` of a result"):
        lyapunov_spectrum(systems.henon(), jnp.ones(2), num_steps=10, state=3)
    with pytest.raises(ValueError, match="hold floating-point arrays"):
        lyapunov_spectrum(dj.Map(lambda n, x: x), jnp.asarray(1), num_steps=10)
    first = lyapunov_spectrum(systems.henon(), jnp.zeros(2), num_steps=10, k=1)
    with pytest.raises(ValueError, match="Argument `k` must be that of the run which goes on, 1"):
        lyapunov_spectrum(systems.henon(), None, num_steps=10, k=2, state=first.state)


def test_progress_is_shown_for_long_runs_only(x64, capsys, monkeypatch):
    from dynjax.stability import _progress, _spectrum

    lyapunov_spectrum(systems.henon(), jnp.zeros(2), num_steps=1_000)
    assert capsys.readouterr().err == ""

    class Impatient(_progress.Progress):
        def __init__(self, label, total, *, show=True):
            super().__init__(label, total, show=show, patience=0.0)

    monkeypatch.setattr(_spectrum, "Progress", Impatient)
    lyapunov_spectrum(systems.henon(), jnp.zeros(2), num_steps=1_000)
    shown = capsys.readouterr().err
    assert "lyapunov_spectrum: " in shown
    assert "% of 1,100 steps" in shown
    lyapunov_spectrum(systems.henon(), jnp.zeros(2), num_steps=1_000, progress=False)
    assert capsys.readouterr().err == ""
