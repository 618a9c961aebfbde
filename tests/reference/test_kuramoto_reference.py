import jax
import numpy as np
import pytest
from scipy import special
from scipy.integrate import quad, solve_ivp
from scipy.optimize import brentq

from dynjax import reference


@pytest.mark.parametrize("coupling", [1.6, 1.7, 2.5, 10.0])
def test_gaussian_order_parameter_solves_the_locking_integral(x64, coupling):
    def excess(r):
        density = lambda s: np.cos(s) ** 2 * np.exp(-((coupling * r * np.sin(s)) ** 2) / 2) / np.sqrt(2 * np.pi)
        return coupling * quad(density, -np.pi / 2, np.pi / 2, epsabs=1e-14)[0] - 1

    np.testing.assert_allclose(reference.gaussian_order_parameter(coupling, 1.0), brentq(excess, 1e-6, 1), atol=1e-10)


@pytest.mark.parametrize("coupling", [1.3, 1.5, 4.0])
def test_uniform_order_parameter_solves_the_locking_integral(x64, coupling):
    r = float(reference.uniform_order_parameter(coupling, 1.0))
    s = min(1 / (coupling * r), 1)
    locked = coupling * r * quad(lambda w: np.sqrt(1 - w**2), -s, s, epsabs=1e-13)[0] / 2
    np.testing.assert_allclose(locked, r, atol=1e-9)
    assert reference.uniform_order_parameter(1.27, 1.0) == 0
    np.testing.assert_allclose(reference.uniform_order_parameter(4 / np.pi, 1.0), np.pi / 4, rtol=1e-12)


@pytest.mark.parametrize("strength", [2.01, 3.0, 50.0])
def test_noisy_order_parameter_is_that_of_the_stationary_density(x64, strength):
    r = float(reference.noisy_order_parameter(strength, 1.0))
    theta = 2 * np.pi * np.arange(1024) / 1024
    density = np.exp(strength * r * (np.cos(theta) - 1))
    np.testing.assert_allclose(np.sum(density * np.cos(theta)) / np.sum(density), r, rtol=1e-11)


def test_nothing_is_synchronised_below_the_critical_coupling():
    for value in (
        reference.lorentzian_order_parameter(1.9, 1.0),
        reference.gaussian_order_parameter(1.5, 1.0),
        reference.uniform_order_parameter(1.2, 1.0),
        reference.noisy_order_parameter(1.9, 1.0),
    ):
        assert value == 0


@pytest.mark.parametrize(
    "order_parameter",
    [
        lambda k: reference.lorentzian_order_parameter(k, 1.0),
        lambda k: reference.gaussian_order_parameter(k, 1.0),
        lambda k: reference.uniform_order_parameter(k, 1.0),
        lambda k: reference.noisy_order_parameter(k, 1.0),
        lambda k: reference.gaussian_growth_rate(k, 1.0, 0.1),
        lambda k: reference.ott_antonsen_transient(1.0, 0.3, k, 1.0),
        lambda k: reference.power_law_field(k, 1.0, 0.2),
        lambda k: reference.volterra_growth(1.0, 0.5, k, 1.0),
    ],
)
def test_derivatives_agree_with_differences(x64, order_parameter):
    h = 1e-5
    expected = (order_parameter(3 + h) - order_parameter(3 - h)) / (2 * h)
    np.testing.assert_allclose(jax.grad(order_parameter)(3.0), expected, rtol=1e-8, atol=1e-9)
    assert np.isfinite(jax.grad(order_parameter)(0.5))


@pytest.mark.parametrize(("coupling", "width"), [(4.0, 1.0), (2.0, 1.0), (1.0, 1.5), (-1.0, 0.2)])
def test_transient_solves_its_equation(x64, coupling, width):
    solution = solve_ivp(
        lambda _, r: -width * r + coupling / 2 * r * (1 - r**2), (0, 3), [0.4], method="DOP853", rtol=1e-12, atol=1e-14
    )
    np.testing.assert_allclose(
        reference.ott_antonsen_transient(3.0, 0.4, coupling, width), solution.y[0, -1], atol=1e-11
    )


def test_gaussian_growth_rate_solves_the_dispersion_relation(x64):
    for coupling, noise in ((2.0, 0.0), (1.0, 0.0), (3.0, 0.4), (0.3, 0.1)):
        rate = float(reference.gaussian_growth_rate(coupling, 1.0, noise))
        value = coupling / 2 * np.sqrt(np.pi / 2) * special.erfcx((rate + noise) / np.sqrt(2))
        np.testing.assert_allclose(value, 1, rtol=1e-11)
    threshold = reference.gaussian_critical_coupling(1.3, 0.4)
    np.testing.assert_allclose(reference.gaussian_growth_rate(threshold, 1.3, 0.4), 0, atol=1e-12)


def test_critical_couplings_agree_with_the_integral(x64):
    d = 0.3
    normal = quad(
        lambda w: d * np.exp(-(w**2) / 2) / np.sqrt(2 * np.pi) / (d**2 + w**2), -12, 12, points=[0], epsabs=1e-13
    )
    np.testing.assert_allclose(reference.gaussian_critical_coupling(1.0, d), 2 / normal[0], rtol=1e-10)
    flat = quad(lambda w: d / 2 / (d**2 + w**2), -1, 1, epsabs=1e-13)
    np.testing.assert_allclose(reference.uniform_critical_coupling(1.0, d), 2 / flat[0], rtol=1e-12)


def test_twist_is_unstable_beyond_the_critical_fraction(x64):
    p = float(reference.twisted_critical_fraction())
    rates = lambda radius: [float(reference.twisted_growth_rate(k, 1, radius)) for k in range(1, 30)]
    assert max(rates(p / 2 - 1e-3)) < 0
    assert max(rates(p / 2 + 1e-3)) > 0


def test_ring_smallest_eigenvalue_is_the_smallest(x64):
    for radius in (0.03, 0.1, 0.37, 0.49):
        mode, value = reference.ring_smallest_eigenvalue(radius)
        q = np.arange(1, 3000)
        expected = np.sin(2 * np.pi * q * radius) / (np.pi * q)
        assert mode == q[np.argmin(expected)]
        np.testing.assert_allclose(value, expected.min(), rtol=1e-12)


def test_power_law_field_solves_its_equation(x64):
    a, k = 0.25, 3.0
    h = float(reference.power_law_field(k, 1.0, a))

    def integrand(x):
        w = (1 - a) * x**-a
        return w * k * w * h / (1 + np.sqrt(1 + (k * w * h) ** 2))

    np.testing.assert_allclose(quad(integrand, 0, 1, epsabs=1e-12, limit=500)[0], h, atol=1e-9)
    assert reference.power_law_field(1.7, 1.0, a) == 0


def test_triads_are_born_in_pairs(x64):
    k23 = 8.0
    edge = np.sqrt(8 * k23) - k23
    assert np.all(np.isfinite(reference.triad_order_parameters(edge + 1e-6, k23)))
    assert np.all(np.isnan(reference.triad_order_parameters(edge - 1e-6, k23)))


def test_volterra_growth_solves_the_linear_equation(x64):
    # z_t = -z + (K / 2) int_0^x z dy by its power series in time and label.
    t, x, k = 2.0, 0.8, 5.0
    series = sum((k * x * t / 2) ** m / special.factorial(m) ** 2 for m in range(60))
    np.testing.assert_allclose(reference.volterra_growth(t, x, k, 1.0), np.exp(-t) * series, rtol=1e-13)


def test_errors():
    with pytest.raises(ValueError, match="Argument `width` must be positive"):
        reference.lorentzian_order_parameter(2.0, 0.0)
    with pytest.raises(ValueError, match="Argument `noise` must be finite and not negative"):
        reference.gaussian_critical_coupling(1.0, -0.1)
    with pytest.raises(ValueError, match="Argument `radius` must lie in"):
        reference.ring_eigenvalue(1, 0.7)
