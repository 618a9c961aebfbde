"""Standard systems: exponents in closed form or from the literature, parameters that can be swept, starts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from systems.exponents import exponents

from dynjax import systems
from dynjax.systems import evolve, initial_state, trajectory

CAT = np.log((3 + np.sqrt(5)) / 2)
LATTICE = np.sort(np.log(np.abs(2 * (0.7 + 0.3 * np.cos(2 * np.pi * np.arange(8) / 8)))))[::-1]
TURN = ((0.9, -0.4, 0.0), (0.3, 0.7, 0.1), (0.0, 0.0, 0.3))


def spectrum(name, *args, k, blocks, every=1, burn_in=100, **kwargs):
    maker = getattr(systems, name)
    system = maker(*args, **kwargs)
    return exponents(system, initial_state(maker, *args, **kwargs), k, blocks=blocks, every=every, burn_in=burn_in)


# (name, arguments, blocks, expected, tolerance). Where the tangent is constant the tolerance is that of rounding or of the
# turning frame, else five standard errors of the mean, measured from blocks.
CLOSED_FORMS = [
    ("logistic", (4.0,), 50_000, [np.log(2)], 2e-3),
    ("logistic", (3.2,), 10_000, [np.log(0.16) / 2], 1e-6),
    ("tent", (1.9,), 1_000, [np.log(1.9)], 1e-12),
    ("chebyshev", (2,), 50_000, [np.log(2)], 2e-3),
    ("chebyshev", (5,), 50_000, [np.log(5)], 2e-3),
    ("arnold_cat", (), 2_000, [CAT, -CAT], 1e-9),
    ("baker", (), 100_000, [-0.4 * np.log(0.4) - 0.6 * np.log(0.6), -np.log(3)], 3e-3),
    ("coupled_lattice", (), 3_000, LATTICE, 1e-6),
    ("linear_map", (TURN,), 20_000, np.sort(np.log(np.abs(np.linalg.eigvals(TURN))))[::-1], 1e-3),
]


@pytest.mark.parametrize(("name", "args", "blocks", "expected", "tolerance"), CLOSED_FORMS)
def test_exponents_of_maps_agree_with_closed_forms(x64, name, args, blocks, expected, tolerance):
    found = spectrum(name, *args, k=len(expected), blocks=blocks)
    np.testing.assert_allclose(found, expected, atol=tolerance)


def test_exponents_of_henon_and_of_the_standard_map_obey_their_sum_rules(x64):
    found = spectrum("henon", k=2, blocks=100_000)
    np.testing.assert_allclose(found.sum(), np.log(0.3), rtol=1e-10)
    np.testing.assert_allclose(found[0], 0.4192, atol=4e-3)
    found = spectrum("standard_map", 10.0, k=2, blocks=100_000)
    np.testing.assert_allclose(found.sum(), 0.0, atol=1e-10)
    np.testing.assert_allclose(found[0], 1.6197, atol=1.5e-2)


def test_exponents_of_the_folded_towel_map_agree_with_the_literature(x64):
    found = spectrum("folded_towel", k=3, blocks=100_000)
    np.testing.assert_allclose(found, [0.4317, 0.3762, -3.3012], atol=1e-2)


def test_exponents_of_linear_and_of_periodic_flows_agree_with_closed_forms(x64):
    a = np.asarray(((-0.2, -1.0, 0.3), (1.0, -0.2, 0.0), (0.0, 0.0, 0.1)))
    expected = np.sort(np.linalg.eigvals(a).real)[::-1]
    found = spectrum("linear_flow", a, 0.05, k=3, blocks=5_000, every=10)
    np.testing.assert_allclose(found, expected, atol=1e-3)
    found = spectrum("stuart_landau", 0.02, mu=0.8, omega=1.5, k=2, blocks=5_000, every=10)
    np.testing.assert_allclose(found, [0.0, -1.6], atol=1e-5)


@pytest.mark.parametrize(("method", "tolerance"), [("rk4", 2e-4), ("dopri5", 1e-6), ("tsit5", 1e-6)])
def test_exponents_of_lorenz_63_sum_to_the_divergence(x64, method, tolerance):
    found = spectrum("lorenz63", method=method, k=3, blocks=10_000, every=10)
    np.testing.assert_allclose(found.sum(), -41 / 3, atol=tolerance)
    # The variance of the first is 0.035 / T, here T = 1,000.
    assert abs(found[0] - 0.9056) < 4 * np.sqrt(0.035 / 1000)
    assert abs(found[1]) < 1e-2


def test_exponents_of_rossler_and_lorenz_96_obey_their_sum_rules(x64):
    system, start = systems.rossler(), initial_state(systems.rossler)
    found = exponents(system, start, 3, blocks=5_000, every=10, burn_in=500)
    orbit = trajectory(system, start, num_steps=55_000, save_every=10)
    np.testing.assert_allclose(found.sum(), 0.2 - 5.7 + orbit.ys[500:, 0].mean(), atol=1e-2)
    found = spectrum("lorenz96", 10, k=10, blocks=2_000, every=5)
    np.testing.assert_allclose(found.sum(), -10, atol=1e-2)


def test_the_exponent_of_geometric_brownian_motion_is_per_unit_of_time(x64, key):
    a, s, dt, blocks = 0.3, 0.5, 0.25, 40_000
    found = spectrum("geometric_brownian_motion", key, a=a, s=s, dt=dt, k=1, blocks=blocks, burn_in=0)
    assert abs(found[0] - (a - s**2 / 2)) < 4 * s / np.sqrt(blocks * dt)


def test_parameters_can_be_swept_and_differentiated(x64):
    x = jnp.asarray(0.3)
    rates = jnp.asarray([2.5, 3.2, 3.5])
    swept = jax.vmap(lambda r: evolve(systems.logistic(r), x, num_steps=7))(rates)
    np.testing.assert_allclose(swept, [evolve(systems.logistic(r), x, num_steps=7) for r in rates], rtol=1e-12)
    np.testing.assert_allclose(jax.grad(lambda r: systems.logistic(r).step(0, x))(2.5), 0.21, rtol=1e-12)
    y = jnp.asarray([1.0, 2.0, 20.0])
    slope = jax.jacfwd(lambda rho: evolve(systems.lorenz63(rho=rho), y, num_steps=10))(28.0)
    ahead, behind = (evolve(systems.lorenz63(rho=28.0 + h), y, num_steps=10) for h in (1e-5, -1e-5))
    np.testing.assert_allclose(slope, (ahead - behind) / 2e-5, rtol=1e-7)
    powers = jax.vmap(lambda p: systems.mackey_glass(power=p).step(0, systems.mackey_glass().init(1.2)).y)
    single = systems.mackey_glass().step(0, systems.mackey_glass().init(1.2)).y
    np.testing.assert_allclose(powers(jnp.asarray([10.0, 8.0]))[0], single, rtol=1e-12)


def test_one_program_serves_all_parameters():
    traces = []

    @jax.jit
    def step(system, x):
        traces.append(1)
        return system.step(0, x)

    for rho in (20.0, 28.0):
        step(systems.lorenz63(rho=rho), jnp.ones(3))
    for r in (3.0, 4.0):
        step(systems.logistic(r), jnp.asarray(0.2))
    assert len(traces) == 2


def test_states_keep_their_precision_whatever_that_of_the_parameters(x64):
    for maker, shape in ((systems.henon, (2,)), (systems.lorenz63, (3,)), (systems.lorenz96, (40,))):
        assert evolve(maker(), jnp.ones(shape, jnp.float32), num_steps=2).dtype == jnp.float32


def test_starts_lie_on_bounded_orbits():
    for name in ("henon", "folded_towel", "lorenz63", "rossler", "lorenz96", "mackey_glass", "standard_map"):
        maker = getattr(systems, name)
        orbit = trajectory(maker(), initial_state(maker), num_steps=2000, save_every=2000)
        assert orbit.status == 1


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: systems.chebyshev(1), "`degree` must be an integer of at least 2, but found 1"),
        (lambda: systems.lorenz96(3), "`size` must be an integer of at least 4, but found 3"),
        (lambda: systems.coupled_lattice(2), "`size` must be an integer of at least 3, but found 2"),
        (lambda: systems.linear_map(jnp.ones((2, 3))), "`a` must be a square matrix"),
        (lambda: systems.linear_flow(jnp.ones(3)), "`a` must be a square matrix"),
        (lambda: systems.logistic(1j), "`r` must be real"),
        (lambda: systems.geometric_brownian_motion(jax.random.key(0), dt=0.0), "`dt` must be positive"),
        (lambda: initial_state(max), "a function of the catalogue"),
    ],
)
def test_bad_parameters_are_refused(build, sentence):
    with pytest.raises(ValueError, match=sentence):
        build()
