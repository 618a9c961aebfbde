"""Co-evolving weights and triads against exact states, SciPy, and the Ott-Antonsen limit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from systems.contract import check_system

from dynjax.meanfield import (
    AdaptiveState,
    Lorentzian,
    adaptive_kuramoto,
    in_phase_state,
    order_parameter,
    triads,
    triads_limit,
    triads_stationary,
)
from dynjax.systems import evolve

ALPHA, BETA = 0.3, -0.6 * np.pi


def system(drivers, num=None, **options):
    num = drivers if num is None else num
    settings = {"rate": 0.2, "phase_lag": ALPHA, "adaptation_lag": BETA, "dt": 0.02} | options
    return adaptive_kuramoto(drivers, np.zeros(num), **settings)


def test_in_phase_state_is_row_18(x64):
    speed, weight = in_phase_state(ALPHA, BETA)
    np.testing.assert_allclose([speed, weight], [-0.281056418242, 0.951056516295], atol=1e-12)
    adaptive = system(20)
    x = evolve(adaptive, adaptive.init(np.zeros(20), weight), num_steps=500)
    np.testing.assert_allclose(x.phases, speed * 10, atol=1e-12)
    np.testing.assert_allclose(x.weights, weight, atol=1e-12)


def test_weights_settle_to_it(x64):
    """In phase, kappa goes to -sin(beta) at the rate epsilon whatever its start."""
    adaptive = system(5)
    x = evolve(adaptive, adaptive.init(np.zeros(5), 0.0), num_steps=1000)
    _, weight = in_phase_state(ALPHA, BETA)
    np.testing.assert_allclose(x.weights, weight * (1 - np.exp(-0.2 * 20)), rtol=1e-9)


def test_all_and_lists_agree_with_scipy(x64):
    rng = np.random.default_rng(0)
    num = 7
    omega, theta, kappa = rng.normal(size=num), rng.uniform(0, 6, num), rng.normal(size=(num, num))

    def field(t, y):
        theta, kappa = y[:num], y[num:].reshape(num, num)
        difference = theta[:, None] - theta[None, :]
        dtheta = omega - np.sum(kappa * np.sin(difference + ALPHA), axis=1) / num
        return np.concatenate([dtheta, (-0.2 * (kappa + np.sin(difference + BETA))).ravel()])

    exact = solve_ivp(field, (0, 2), np.concatenate([theta, kappa.ravel()]), rtol=1e-11, atol=1e-12).y[:, -1]
    settings = {"rate": 0.2, "phase_lag": ALPHA, "adaptation_lag": BETA, "dt": 0.01}
    order = np.stack([rng.permutation(num) for _ in range(num)])
    every = adaptive_kuramoto(num, omega, **settings)
    lists = adaptive_kuramoto(order, omega, **settings)
    a = evolve(every, every.init(theta, kappa), num_steps=200)
    b = evolve(lists, lists.init(theta, np.take_along_axis(kappa, order, axis=1)), num_steps=200)
    np.testing.assert_allclose(a.phases, exact[:num], atol=1e-7)
    np.testing.assert_allclose(a.weights, exact[num:].reshape(num, num), atol=1e-7)
    np.testing.assert_allclose(b.phases, a.phases, atol=1e-12)
    np.testing.assert_allclose(b.weights, np.take_along_axis(np.asarray(a.weights), order, axis=1), atol=1e-12)


def test_padding_has_no_effect(x64):
    theta = np.random.default_rng(1).uniform(0, 6, 4)
    drivers = np.array([[1], [2], [3], [0]])
    padded = np.array([[1, 0], [2, 2], [3, 1], [0, 3]])
    plain = system(drivers, 4)
    masked = system(padded, 4, mask=[[1, 0]] * 4)
    a = evolve(plain, plain.init(theta, 0.5), num_steps=100)
    b = evolve(masked, masked.init(theta, 0.5), num_steps=100)
    np.testing.assert_allclose(a.phases, b.phases, atol=1e-13)
    assert bool(jnp.all(b.weights[:, 1] == 0))


def test_contract_of_adaptive_oscillators(x64):
    rng = np.random.default_rng(2)
    adaptive = adaptive_kuramoto(4, rng.normal(size=4), rate=0.3, phase_lag=0.1, adaptation_lag=0.5, dt=0.1)
    check_system(adaptive, adaptive.init(rng.uniform(0, 6, 4), rng.normal(size=(4, 4))))
    drivers = rng.integers(0, 4, (4, 2))
    sparse = adaptive_kuramoto(drivers, rng.normal(size=4), rate=0.3, phase_lag=0.1, adaptation_lag=0.5, dt=0.1)
    check_system(sparse, sparse.init(rng.uniform(0, 6, 4), 0.5))


def test_bad_arguments_of_adaptive_oscillators():
    with pytest.raises(ValueError, match="Argument `rate` must not be negative"):
        system(3, rate=-1.0)
    with pytest.raises(ValueError, match="Argument `drivers` must hold node numbers"):
        system(np.array([[3], [0], [1]]), 3)
    with pytest.raises(ValueError, match="Argument `weights` must be a scalar or have the shape"):
        system(3).init(np.zeros(3), np.zeros((2, 2)))
    with pytest.raises(ValueError, match="Argument `mask`"):
        system(np.array([[1], [2], [0]]), 3, mask=np.ones((3, 2)))
    assert isinstance(system(3).init(np.zeros(3), 0.0), AdaptiveState)


def test_triads_stationary_is_row_16(x64):
    unstable, stable = triads_stationary(1.0, 1.0, 8.0)
    np.testing.assert_allclose([stable, unstable], [0.833783006304, 0.424035256080], atol=1e-12)
    limit = triads_limit(1.0, 1.0, 8.0, dt=0.01)
    for start, end in ((0.45, float(stable)), (0.40, 0.0)):
        np.testing.assert_allclose(evolve(limit, jnp.asarray(start), num_steps=6000), end, atol=1e-8)
    assert bool(jnp.all(jnp.isnan(triads_stationary(1.0, 0.5, 1.0))))


def test_triads_against_sums(x64):
    rng = np.random.default_rng(3)
    num, couplings = 5, (0.7, 1.3, -0.4)
    omega, theta = rng.normal(size=num), rng.uniform(0, 6, num)
    expected = omega.copy()
    for i in range(num):
        for j in range(num):
            expected[i] += couplings[0] * np.sin(theta[j] - theta[i]) / num
            for k in range(num):
                expected[i] += couplings[1] * np.sin(2 * theta[j] - theta[k] - theta[i]) / num**2
                for l in range(num):
                    expected[i] += couplings[2] * np.sin(theta[j] + theta[k] - theta[l] - theta[i]) / num**3
    network = triads(num, omega, *couplings, dt=0.1)
    np.testing.assert_allclose(network.velocity(network.init(theta)), expected, atol=1e-13)
    check_system(network, network.init(theta))


@pytest.mark.parametrize("split", [(8.0, 0.0), (0.0, 8.0), (3.0, 5.0)])
def test_particles_follow_the_limit_of_triads(x64, split):
    """Both sides of the unstable state, from Poisson-kernel starts that are independent of the frequencies.

    Standard error of r for independent particles: at most 0.65/sqrt(N) as long as the limit does not amplify it; within
    t = 2 the unstable direction grows by less than a factor 4.
    """
    num = 20_000
    law, key = Lorentzian(1.0), jax.random.key(4)
    draws = jax.random.uniform(jax.random.fold_in(key, 1), (num,))
    for start in (0.7, 0.25):
        # The Poisson kernel of mean `start`, by its quantile function.
        angles = 2 * jnp.arctan((1 - start) / (1 + start) * jnp.tan(jnp.pi * (draws - 0.5)))
        network = triads(num, law, 1.0, *split, dt=0.05, frequency_key=jax.random.fold_in(key, 2))
        r = order_parameter(evolve(network, network.init(angles), num_steps=40))
        limit = evolve(triads_limit(1.0, 1.0, 8.0, dt=0.05), jnp.asarray(start), num_steps=40)
        assert abs(float(r - limit)) < 4 * 4 * 0.65 / np.sqrt(num)
        assert abs(float(limit) - start) > 0.1  # so that standing still would fail
