import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

from dynjax import reference
from dynjax._core import Status
from dynjax.meanfield import (
    AllToAll,
    Dense,
    DigraphMeasure,
    Gaussian,
    Identical,
    Lorentzian,
    Uniform,
    stationary_order_parameter,
    stationary_state,
)
from dynjax.meanfield._thresholds.response import response

COMPLETE = AllToAll(3)


def test_reference_rows(x64):
    r = stationary_order_parameter
    np.testing.assert_allclose(r(COMPLETE, Lorentzian(1.0), 4.0), np.sqrt(0.5), atol=1e-12)
    slope = jax.grad(lambda k: r(COMPLETE, Lorentzian(1.0), k))(4.0)
    np.testing.assert_allclose(slope, 0.088388347648, rtol=1e-10)
    for k, printed in ((1.7, 0.425362108941), (2.0, 0.715173956683), (3.0, 0.925181686139)):
        np.testing.assert_allclose(r(COMPLETE, Gaussian(1.0), k), printed, atol=1e-12)
    np.testing.assert_allclose(r(COMPLETE, Uniform(1.0), 1.5), 0.898609989949, atol=1e-12)
    for k, printed in ((2.5, 0.589707987783), (3, 0.724158717626), (4, 0.831462024754), (8, 0.930152496240)):
        np.testing.assert_allclose(r(COMPLETE, Identical(), float(k), noise=1.0), printed, atol=1e-12)
    assert r(COMPLETE, Identical(), 0.5) == 1
    assert r(COMPLETE, Identical(), -0.5) == r(COMPLETE, Lorentzian(1.0), 1.9) == 0


def test_uniform_frequencies_jump(x64):
    critical = 4 / np.pi
    assert stationary_order_parameter(COMPLETE, Uniform(1.0), critical * (1 - 1e-9)) == 0
    np.testing.assert_allclose(
        stationary_order_parameter(COMPLETE, Uniform(1.0), critical * (1 + 1e-12)), np.pi / 4, atol=1e-6
    )


def test_power_law(x64):
    state = stationary_state(DigraphMeasure.power_law(0.25), Lorentzian(1.0), 3.0)
    assert state.status == Status.OK
    w = 0.75 * np.asarray(state.labels) ** -0.25
    np.testing.assert_allclose(np.asarray(state.field) / w, 0.591860535098, atol=1e-8)
    below = stationary_state(DigraphMeasure.power_law(0.25), Lorentzian(1.0), 1.75)
    assert below.order_parameter == 0
    assert below.status == Status.OK


def test_blocks_are_the_end_of_the_ott_antonsen_equation(x64):
    density = np.array([[1.2, 0.3], [0.5, 0.1]])
    graph = Dense(density)
    answer = jax.jit(lambda h, noise: response(Gaussian(1.0), 6.0 * h, noise, noisy=True))
    for noise in (0.0, 0.2):
        state = stationary_state(graph, Gaussian(1.0), 6.0, noise=noise)
        h = density.sum(1) / 2
        for _ in range(400):
            h = density @ np.asarray(answer(h, noise)) / 2
        np.testing.assert_allclose(state.field, h, rtol=1e-9)
    end = solve_ivp(
        lambda _, z: -z + 3 * (density @ z / 2) * (1 - z**2),
        (0, 200),
        [0.5, 0.5],
        method="DOP853",
        rtol=1e-11,
        atol=1e-13,
    )
    found = stationary_state(graph, Lorentzian(1.0), 6.0)
    np.testing.assert_allclose(found.local_order_parameter, end.y[:, -1], atol=1e-8)
    np.testing.assert_allclose(found.order_parameter, end.y[:, -1].mean(), atol=1e-8)


def first_moment(w, kappa, noise, modes=200):
    """z_1 of the stationary density, from the tridiagonal system of its moments."""
    n = np.arange(1, modes + 1)
    matrix = np.diag(n * noise - 1j * w) + kappa / 2 * (np.eye(modes, k=1) - np.eye(modes, k=-1))
    right = np.zeros(modes, complex)
    right[0] = kappa / 2
    return np.linalg.solve(matrix, right)[0]


@pytest.mark.parametrize(("kappa", "noise"), [(1.0, 0.2), (3.0, 0.5), (0.4, 2.0)])
def test_noisy_responses_are_averages_over_frequencies(x64, kappa, noise):
    averages = {
        Gaussian: lambda f: quad(lambda w: np.exp(-(w**2) / 2) / np.sqrt(2 * np.pi) * f(w), 0, 10, epsabs=1e-11)[0],
        Uniform: lambda f: quad(f, 0, 1, epsabs=1e-12)[0] / 2,
        # w = tan(u): the tail is smooth in u.
        Lorentzian: lambda f: quad(lambda u: f(np.tan(u)) / np.pi, 0, np.pi / 2 - 1e-9, epsabs=1e-9)[0],
    }
    for law, average in averages.items():
        expected = 2 * average(lambda w: first_moment(w, kappa, noise, 60).real)
        found = response(law(1.0), jnp.asarray([kappa]), jnp.asarray(noise), noisy=True)[0]
        np.testing.assert_allclose(found, expected, atol=1e-8 if law is Lorentzian else 1e-10)


def test_responses_without_noise_are_limits(x64):
    field = jnp.asarray([0.0, 0.01, 0.7, 1.0, 1.3, 10.0])
    for law in (Lorentzian(1.0), Gaussian(1.0), Uniform(1.0)):
        locked = response(law, field, jnp.asarray(0.0), noisy=False)
        np.testing.assert_allclose(response(law, field, jnp.asarray(0.0), noisy=True), locked, atol=1e-12)
        # The bifurcation is where half of the slope at 0 times K is 1.
        slope = jax.grad(lambda k, law=law: response(law, k[None], jnp.asarray(0.3), noisy=True)[0])(jnp.asarray(0.0))
        np.testing.assert_allclose(slope, 1 / (2 * law.inverse_resolvent(jnp.asarray(0.3))), rtol=1e-11)


def test_derivatives(x64):
    graph, h = Dense(np.array([[1.2, 0.3], [0.5, 0.4]])), 1e-5
    for law in (Lorentzian, Gaussian, Uniform):
        value = lambda k, d, s, law=law: stationary_order_parameter(graph, law(s), k, noise=d)
        slopes = jax.grad(value, (0, 1, 2))(5.0, 0.3, 1.0)
        for i, slope in enumerate(slopes):
            ends = [value(*(np.array([5.0, 0.3, 1.0]) + step * np.eye(3)[i])) for step in (h, -h)]
            np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * h), rtol=1e-6)
    weights = jnp.asarray(graph.weights)
    slope = jax.grad(lambda a: stationary_order_parameter(Dense(a * weights), Gaussian(1.0), 4.0))(1.0)
    expected = 4 * jax.grad(lambda k: stationary_order_parameter(graph, Gaussian(1.0), k))(4.0)
    np.testing.assert_allclose(slope, expected, rtol=1e-8)
    assert jax.grad(lambda k: stationary_order_parameter(graph, Gaussian(1.0), k))(0.5) == 0


def test_near_the_threshold(x64):
    for distance in (-1e-4, 1e-8, 1e-4, 1e-2):
        state = stationary_state(COMPLETE, Lorentzian(1.0), 2 * (1 + distance))
        expected = reference.lorentzian_order_parameter(2 * (1 + distance), 1.0)
        assert state.status == Status.OK
        np.testing.assert_allclose(state.order_parameter, expected, atol=1e-8)


def test_sweep_is_one_program(x64):
    couplings = jnp.linspace(0.5, 6.0, 12)
    graph = DigraphMeasure.small_world(0.2, 0.1)
    sweep = jax.jit(jax.vmap(lambda k: stationary_order_parameter(graph, Gaussian(1.0), k)))(couplings)
    single = [stationary_order_parameter(graph, Gaussian(1.0), k) for k in couplings]
    np.testing.assert_allclose(sweep, single, atol=1e-12)
    expected = [reference.gaussian_order_parameter(0.42 * k, 1.0) for k in couplings]
    np.testing.assert_allclose(sweep, expected, atol=1e-10)


def test_large_graphs_without_a_matrix(x64):
    rng = np.random.default_rng(0)
    weights = (rng.random((610, 610)) < 0.3).astype(float)
    state = stationary_state(Dense(weights), Lorentzian(1.0), 10.0)
    assert state.status == Status.OK
    h = weights.mean(1)
    for _ in range(300):
        h = weights @ (10 * h / (1 + np.sqrt(1 + 100 * h**2))) / 610
    np.testing.assert_allclose(state.field, h, rtol=1e-11)


def test_single_precision():
    state = stationary_state(COMPLETE, Gaussian(1.0), 2.0)
    assert state.order_parameter.dtype == jnp.float32
    assert state.status == Status.OK
    np.testing.assert_allclose(state.order_parameter, 0.715173956683, rtol=3e-6)


def test_errors():
    with pytest.raises(ValueError, match="Argument `noise` must be finite and not negative"):
        stationary_state(COMPLETE, Gaussian(1.0), 2.0, noise=-1.0)
    with pytest.raises(ValueError, match="Argument `coupling` must be a real scalar"):
        stationary_state(COMPLETE, Gaussian(1.0), jnp.ones(3))
    with pytest.raises(TypeError, match="Argument `graph` must be a DigraphMeasure"):
        stationary_state(np.ones((3, 3)), Gaussian(1.0), 2.0)
