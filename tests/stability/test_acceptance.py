"""Long runs against published values and repeated runs against nominal coverage; several minutes in all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynjax as dj
from dynjax import Status, reference, systems
from dynjax.stability import lyapunov_spectrum

pytestmark = pytest.mark.slow


def coverage(run, keys, exact):
    """Fraction of runs whose 95 % interval holds the exact value, exponent by exponent."""

    def inside(key):
        result = run(key)
        lower, upper = result.interval(0.95)
        return (lower < exact) & (exact < upper)

    return np.asarray(jnp.mean(jax.jit(lambda keys: jax.lax.map(inside, keys, batch_size=50))(keys), axis=0))


def test_error_bars_cover_for_gaussian_products(x64):
    def run(key):
        system = dj.RandomMap(lambda x, a: a @ x, dj.WhiteNoise((3, 3), key=key))
        return lyapunov_spectrum(system, jnp.zeros(3), num_steps=5_000, burn_in=200)

    cover = coverage(run, jax.random.split(jax.random.key(0), 200), reference.gaussian_product_exponents(3))
    assert np.all((cover >= 0.90) & (cover <= 0.98)), cover


def test_error_bars_cover_for_the_lloyd_model(x64):
    def run(key):
        def fn(x, u):
            return jnp.stack([-jnp.tan(jnp.pi * (u - 0.5)) * x[0] - x[1], x[0]])

        path = lambda n: jax.random.uniform(jax.random.fold_in(key, n), ())
        return lyapunov_spectrum(dj.RandomMap(fn, path), jnp.zeros(2), num_steps=10_000, k=1, burn_in=200)

    cover = coverage(run, jax.random.split(jax.random.key(1), 200), reference.lloyd_exponent(0.0, 1.0))
    assert np.all((cover >= 0.90) & (cover <= 0.98)), cover


def test_error_bars_cover_for_correlated_growth_on_the_lorenz_attractor(x64):
    lorenz = systems.lorenz63(0.01)

    def run(key):
        x0 = jnp.array([1.0, 1.0, 25.0]) + jax.random.normal(key, (3,))
        return lyapunov_spectrum(lorenz, x0, num_steps=50_000, qr_every=10, k=1, burn_in=3_000)

    cover = coverage(run, jax.random.split(jax.random.key(2), 200), 0.9056)
    assert np.all((cover >= 0.90) & (cover <= 0.98)), cover


def test_newman_variance_at_a_million_steps(x64):
    n = 1_000_000
    system = dj.RandomMap(lambda x, a: a @ x, dj.WhiteNoise((3, 3), key=jax.random.key(3)))
    result = lyapunov_spectrum(system, jnp.zeros(3), num_steps=n, history=True)
    exact = np.asarray(reference.gaussian_product_variances(3))
    assert np.all(np.abs(result.exponents - reference.gaussian_product_exponents(3)) < 4 * result.standard_error)
    # Steps are independent, so that the variance of 2,000 bins gives that of a step.
    bins = np.var(np.asarray(result.history), axis=0, ddof=1) * float(result.bin_time)
    np.testing.assert_allclose(bins, exact, rtol=0.1)


def test_lorenz96_with_forty_variables(x64):
    system = systems.lorenz96(40, 0.02)
    x0 = systems.initial_state(systems.lorenz96, 40)
    result = lyapunov_spectrum(system, x0, num_steps=75_000, burn_in=5_000)
    np.testing.assert_allclose(result.sum, reference.lorenz96_exponent_sum(40), atol=1e-2)
    assert abs(float(result.exponents[0]) - 1.68) < 4 * float(result.standard_error[0]) + 0.02
    error = np.asarray(result.standard_error)
    assert np.all(result.exponents[:13] > 0)
    assert np.all(result.exponents[:12] > 3 * error[:12])
    assert abs(float(result.exponents[13])) < 3 * error[13]
    assert abs(float(result.kaplan_yorke_dimension) - 27.0) < 0.3
    assert abs(float(result.kolmogorov_sinai_entropy) - 10.2) < 0.3


def test_mackey_glass_at_delay_seventeen(x64):
    system = systems.mackey_glass(0.1, tau=17.0)
    result = lyapunov_spectrum(system, system.init(jnp.asarray(1.2)), num_steps=1_000_000, k=2, burn_in=50_000)
    assert 0.0050 < float(result.exponents[0]) < 0.0053
    assert abs(float(result.exponents[1])) < 3 * float(result.standard_error[1]) + 1e-5
    assert int(result.status) == Status.OK


def test_tanh_networks_approach_the_mean_field_exponent_with_their_width(x64):
    """The shift is 1.2 / width, which two widths extrapolate away."""

    def run(width):
        def layer(x, z):
            return jnp.tanh(np.sqrt(3.0 / width) * z[:, :width] @ x + np.sqrt(0.05) * z[:, width])

        path = dj.WhiteNoise((width, width + 1), key=jax.random.key(4))
        result = lyapunov_spectrum(dj.RandomMap(layer, path), jnp.ones(width), num_steps=16_000, k=1, burn_in=100)
        return float(result.exponents[0]), float(result.standard_error[0])

    (narrow, narrow_error), (wide, wide_error) = run(50), run(100)
    exact = float(reference.wide_network_exponent(3.0, 0.05))
    np.testing.assert_allclose(exact, 0.0948697, atol=6e-8)
    assert exact - narrow > 5 * narrow_error
    assert exact - wide > 3 * wide_error
    assert abs(2 * wide - narrow - exact) < 3 * np.hypot(2 * wide_error, narrow_error)


def kuramoto_sivashinsky(length=22.0, modes=64, dt=0.25):
    """u_t = -u u_x - u_xx - u_xxxx on a circle with mean zero, as a map by exponential time differencing of order four.

    Source: Kassam and Trefethen, Fourth-order time-stepping for stiff PDEs (2005), equations (25)-(29).
    """
    wave = 2 * np.pi / length * np.arange(1, modes // 2)
    linear = wave**2 - wave**4
    e, half = np.exp(dt * linear), np.exp(dt * linear / 2)
    points = dt * linear[:, None] + np.exp(1j * np.pi * (np.arange(1, 33) - 0.5) / 32)
    mean = lambda f: dt * np.real(np.mean(f, axis=1))
    q = mean((np.exp(points / 2) - 1) / points)
    f1 = mean((-4 - points + np.exp(points) * (4 - 3 * points + points**2)) / points**3)
    f2 = mean((2 + points + np.exp(points) * (-2 + points)) / points**3)
    f3 = mean((-4 - 3 * points - points**2 + np.exp(points) * (4 - points)) / points**3)
    cut = modes // 3  # two-thirds rule

    def nonlinear(v):
        u = jnp.fft.irfft(jnp.concatenate([jnp.zeros(1, v.dtype), v, jnp.zeros(1, v.dtype)]), modes)
        square = jnp.fft.rfft(u * u)[1 : modes // 2]
        return jnp.where(np.arange(1, modes // 2) <= cut, -0.5j * wave * square, 0)

    def step(n, v):
        nv = nonlinear(v)
        a = half * v + q * nv
        na = nonlinear(a)
        b = half * v + q * na
        nb = nonlinear(b)
        c = half * a + q * (2 * nb - nv)
        nc = nonlinear(c)
        return e * v + f1 * nv + 2 * f2 * (na + nb) + f3 * nc

    return dj.Map(step, dt=dt), jnp.asarray(np.where(wave < 2, 1.0 + 1.0j * np.sin(3 * wave), 0), jnp.complex128)


def test_kuramoto_sivashinsky_has_two_zeros_and_the_known_spectrum(x64):
    system, x0 = kuramoto_sivashinsky()
    result = lyapunov_spectrum(system, x0, num_steps=80_000, k=10, burn_in=8_000, qr_every=2)
    exponents, error = np.asarray(result.exponents), np.asarray(result.standard_error)
    assert int(result.status) == Status.OK
    assert np.all(np.abs(exponents[1:3]) < np.maximum(3 * error[1:3], 1e-5)), str(result)
    assert np.all(np.abs(exponents[1:3]) < 2e-3)
    # Cvitanovic, Davidchack and Siminos, On the state space geometry of the Kuramoto-Sivashinsky flow (2010), printed to
    # three digits after the point.
    known = np.array([0.048, 0, 0, -0.003, -0.189, -0.256, -0.290, -0.310, -1.963, -1.967])
    assert np.all(np.abs(exponents - known) < 4 * error + 2e-3), str(result)
