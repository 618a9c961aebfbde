import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import dynjax as dj
from dynjax._core import Status
from dynjax.stability import floquet_multipliers
from dynjax.systems import Flow, lorenz63, stuart_landau

VAN_DER_POL_PERIOD = 6.6632868593231301896996820305  # mu = 1


def van_der_pol(method="tsit5", mu=1.0):
    return Flow(lambda t, y, args: jnp.stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]]), 0.01, method=method)


def mathieu(method="tsit5"):
    field = lambda t, y, args: jnp.stack([y[1], -(args[0] - 2 * args[1] * jnp.cos(2 * t)) * y[0]])
    return lambda a, q: Flow(field, 0.01, method=method, args=(jnp.asarray(a), jnp.asarray(q)))


def test_the_limit_cycle_of_stuart_landau_has_its_closed_form(x64):
    mu, omega = 0.5, 2.0
    orbit = floquet_multipliers(
        stuart_landau(mu=mu, omega=omega, method="tsit5"), jnp.asarray([0.6, 0.1]), num_steps=400
    )
    np.testing.assert_allclose(orbit.period, 2 * np.pi / omega, rtol=1e-12)
    np.testing.assert_allclose(jnp.linalg.norm(orbit.orbit, axis=1), np.sqrt(mu), rtol=1e-12)
    np.testing.assert_allclose(orbit.multipliers, [1, np.exp(-4 * np.pi * mu / omega)], rtol=1e-11)
    np.testing.assert_allclose(orbit.exponents, [0, -2 * mu], atol=1e-11)
    assert int(orbit.trivial) == 0
    assert bool(orbit.stable)


def test_the_period_of_van_der_pol_is_the_known_one(x64):
    orbit = floquet_multipliers(van_der_pol(), jnp.asarray([2.0, 0.0]), num_steps=1000)
    np.testing.assert_allclose(orbit.period, VAN_DER_POL_PERIOD, rtol=1e-12)
    assert orbit.orbit.shape == (1001, 2)
    np.testing.assert_allclose(orbit.orbit[0], orbit.orbit[-1], atol=1e-13)
    assert "stable" in str(orbit)


@pytest.mark.parametrize(("method", "order"), [("rk4", 4), ("dopri5", 5)])
def test_periods_converge_with_the_order_of_the_method(x64, method, order):
    counts = np.array([100, 200, 400])
    errors = [
        abs(
            float(floquet_multipliers(van_der_pol(method), jnp.asarray([2.0, 0.0]), num_steps=int(n)).period)
            - VAN_DER_POL_PERIOD
        )
        for n in counts
    ]
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert order - 0.3 < slope < order + 1.3


@pytest.mark.parametrize("num_steps", [100, 1000])
def test_the_trivial_multiplier_is_one_on_coarse_grids_too(x64, num_steps):
    orbit = floquet_multipliers(van_der_pol("rk4"), jnp.asarray([2.0, 0.0]), num_steps=num_steps)
    np.testing.assert_allclose(orbit.multipliers[int(orbit.trivial)], 1, atol=1e-12)


def test_the_product_of_multipliers_is_the_mean_divergence(x64):
    orbit = floquet_multipliers(van_der_pol(), jnp.asarray([2.0, 0.0]), num_steps=1000)
    # The trapezoidal rule is exact to rounding for smooth periodic functions.
    divergence = np.mean(1 - np.asarray(orbit.orbit[:-1, 0]) ** 2)
    np.testing.assert_allclose(jnp.sum(orbit.exponents), divergence, rtol=1e-10)


def test_an_unstable_cycle_of_lorenz_closes_with_the_constant_divergence(x64):
    # The orbit LR of Viswanath, The fractal property of the Lorenz attractor (2004).
    start = jnp.asarray([-13.76, -19.58, 27.0])
    orbit = floquet_multipliers(lorenz63(method="tsit5"), start, num_steps=2000, period_guess=1.56)
    np.testing.assert_allclose(orbit.period, 1.5586522107162, rtol=1e-10)
    np.testing.assert_allclose(jnp.sum(orbit.exponents[:2]), 0.9946, atol=1e-2)
    np.testing.assert_allclose(jnp.sum(orbit.exponents), -41 / 3, rtol=1e-5)
    assert int(orbit.trivial) == 1
    assert not bool(orbit.stable)


def test_a_repelling_cycle_is_found_and_unstable(x64):
    orbit = floquet_multipliers(van_der_pol(mu=-1.0), jnp.asarray([2.0, 0.0]), num_steps=1000, period_guess=6.6)
    forward = floquet_multipliers(van_der_pol(), jnp.asarray([2.0, 0.0]), num_steps=1000)
    np.testing.assert_allclose(orbit.period, VAN_DER_POL_PERIOD, rtol=1e-11)
    np.testing.assert_allclose(orbit.multipliers[0] * forward.multipliers[1], 1, rtol=1e-8)
    assert not bool(orbit.stable)
    assert float(orbit.margin) < -1000


@pytest.mark.parametrize(("order", "kind", "sign"), [(0, "a", 1), (1, "b", -1), (1, "a", -1), (2, "b", 1), (2, "a", 1)])
def test_mathieu_changes_stability_at_the_characteristic_values(x64, order, kind, sign):
    q = 1.3
    value = getattr(scipy.special, f"mathieu_{kind}")(order, q)
    at = lambda a: floquet_multipliers(mathieu()(a, q), jnp.zeros(2), period=np.pi, num_steps=400)
    np.testing.assert_allclose(jnp.sum(at(value).multipliers), 2 * sign, atol=1e-9)
    # Stable between a_m and b_(m+1), where the multipliers lie on the circle; a little damping puts them inside.
    sizes = [float(jnp.max(jnp.abs(at(value + step).multipliers))) for step in (-0.05, 0.05)]
    inner, outer = (sizes[1], sizes[0]) if kind == "a" else (sizes[0], sizes[1])
    np.testing.assert_allclose(inner, 1, atol=1e-10)
    assert outer > 1.01


def test_mathieu_conserves_areas(x64):
    orbit = floquet_multipliers(mathieu()(0.7, 2.0), jnp.zeros(2), period=np.pi, num_steps=400)
    np.testing.assert_allclose(jnp.prod(orbit.multipliers), 1, atol=1e-11)
    np.testing.assert_allclose(orbit.exponents[0], -orbit.exponents[1], atol=1e-11)
    assert int(orbit.trivial) == -1


def test_frozen_eigenvalues_do_not_decide(x64):
    # Markus and Yamabe (1960): all eigenvalues of A(t) have real part -1/4, and solutions grow like exp(t / 2).
    def field(t, y, args):
        c, s = jnp.cos(t), jnp.sin(t)
        a = jnp.asarray([[-1 + 1.5 * c**2, 1 - 1.5 * s * c], [-1 - 1.5 * s * c, -1 + 1.5 * s**2]])
        return a @ y

    orbit = floquet_multipliers(
        Flow(field, 0.01, method="dopri5"), jnp.asarray([0.1, 0.2]), period=np.pi, num_steps=500
    )
    np.testing.assert_allclose(orbit.x, 0, atol=1e-13)
    np.testing.assert_allclose(orbit.multipliers, [-np.exp(np.pi / 2), -np.exp(-np.pi)], rtol=1e-10)
    np.testing.assert_allclose(orbit.exponents, [0.5, -1], rtol=1e-10)
    assert not bool(orbit.stable)


def test_a_forced_linear_equation_has_its_periodic_response(x64):
    flow = Flow(lambda t, y, args: -y + jnp.cos(t), 0.01, method="tsit5", t0=0.3)
    orbit = floquet_multipliers(flow, jnp.asarray(2.0), period=2 * np.pi, num_steps=300)
    np.testing.assert_allclose(orbit.x, (np.cos(0.3) + np.sin(0.3)) / 2, atol=1e-10)
    np.testing.assert_allclose(orbit.multipliers, np.exp(-2 * np.pi), rtol=1e-8)
    assert bool(orbit.stable)


def test_it_maps_over_parameters(x64):
    run = lambda mu: floquet_multipliers(
        stuart_landau(mu=mu), jnp.sqrt(mu) * jnp.asarray([1.0, 0.0]), num_steps=200, period_guess=6.0
    )
    mu = jnp.asarray([0.1, 0.4])
    orbits = jax.vmap(run)(mu)
    np.testing.assert_allclose(orbits.exponents[:, 1], -2 * mu, rtol=1e-6)


def test_an_equilibrium_is_not_taken_for_a_cycle(x64):
    orbit = floquet_multipliers(stuart_landau(mu=-0.5), jnp.asarray([0.1, 0.0]), num_steps=200, period_guess=6.0)
    assert int(orbit.status) != Status.OK
    assert not bool(orbit.stable)
    assert np.all(np.isnan(orbit.multipliers))
    assert "status" in str(orbit)


def test_an_orbit_that_does_not_come_back_ends_with_a_status(x64):
    flow = Flow(lambda t, y, args: y**2 + 1, 0.01)
    orbit = floquet_multipliers(flow, jnp.asarray([0.0]), num_steps=50)
    assert int(orbit.status) == Status.NONFINITE


def test_bad_input_is_refused(x64):
    flow, start = van_der_pol(), jnp.asarray([2.0, 0.0])
    with pytest.raises(TypeError, match="be a `Flow`"):
        floquet_multipliers(dj.Map(lambda n, x: x), start, num_steps=10)
    for options, match in [
        ({"num_steps": 0}, "`num_steps`"),
        ({"num_steps": 10, "period": -1.0}, "`period`"),
        ({"num_steps": 10, "period_guess": 0.0}, "`period_guess`"),
        ({"num_steps": 10, "period": 1.0, "period_guess": 1.0}, "be left out"),
        ({"num_steps": 10, "max_steps": 0}, "`max_steps`"),
    ]:
        with pytest.raises(ValueError, match=match):
            floquet_multipliers(flow, start, **options)
