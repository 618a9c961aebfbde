import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.special import gamma

from dynjax.meanfield._networks.mckean import critical_noise, magnetisation, mckean_mean, mckean_vlasov
from dynjax.meanfield._networks.two_layer import TwoLayerRisk, two_layer_flow, two_layer_output, two_layer_sgd
from dynjax.meanfield._networks.wasserstein_flow import wasserstein_flow
from dynjax.systems import MiniBatches, evolve


def square(theta, x):
    return (theta @ x) ** 2


def gaussian_cubature(d):
    """Nodes and weights of three points in each direction: exact to degree five in each coordinate."""
    nodes = np.asarray(list(itertools.product([-np.sqrt(3), 0, np.sqrt(3)], repeat=d)))
    weights = np.prod(np.where(nodes == 0, 2 / 3, 1 / 6), axis=1)
    return nodes, weights


def riccati(M, M_star, time):
    """M' = -2 (G M + M G), G = 4 (M - M*) + 2 tr(M - M*) I."""
    d = len(M)

    def slope(t, flat):
        M = flat.reshape(d, d)
        gap = M - M_star
        G = 4 * gap + 2 * np.trace(gap) * np.eye(d)
        return (-2 * (G @ M + M @ G)).ravel()

    return solve_ivp(slope, (0, time), M.ravel(), rtol=1e-12, atol=1e-13, method="DOP853").y[:, -1].reshape(d, d)


def second_moment(theta):
    return np.asarray(theta).T @ np.asarray(theta) / len(theta)


@pytest.mark.parametrize("num", [1, 3, 50])
def test_scalar_quadratic_network(x64, num):
    """m(t) = m*/(1 + (m*/m0 - 1) e^{-24 m* t}) = 0.733744722244 for every number of neurons."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    weights = weights / weights.sum()
    theta = np.random.default_rng(num).normal(size=(num, 1)) + 0.1
    theta *= np.sqrt(0.2 / np.mean(theta**2))
    flow = two_layer_flow(square, nodes[:, None], nodes**2, weights=weights, dt=1e-3)
    final = evolve(flow, jnp.asarray(theta), num_steps=100)
    assert float(jnp.mean(final**2)) == pytest.approx(0.733744722244, abs=1e-8)


@pytest.mark.parametrize("num", [5, 64])
def test_quadratic_network_in_five_dimensions(x64, num):
    """The same second moments at the start give the Riccati flow at every finite N, by data and by the closed risk."""
    d, time = 5, 0.1
    rng = np.random.default_rng(0)
    root, root_star = rng.normal(size=(2, d, d)) / 4
    M, M_star = root @ root.T + 0.05 * np.eye(d), root_star @ root_star.T
    theta = np.random.default_rng(num).normal(size=(num, d))
    theta = theta @ np.linalg.inv(np.linalg.cholesky(second_moment(theta))).T @ np.linalg.cholesky(M).T
    np.testing.assert_allclose(second_moment(theta), M, atol=1e-13)
    expected = riccati(M, M_star, time)
    nodes, weights = gaussian_cubature(d)
    targets = np.einsum("ki,ij,kj->k", nodes, M_star, nodes)
    data = two_layer_flow(square, nodes, targets, weights=weights, dt=1e-3, block=27)
    np.testing.assert_allclose(second_moment(evolve(data, jnp.asarray(theta), num_steps=100)), expected, atol=1e-8)

    def risk(th):
        gap = th.T @ th / len(th) - M_star
        return 2 * jnp.sum(gap**2) + jnp.trace(gap) ** 2

    closed = wasserstein_flow(risk, dt=1e-3)
    np.testing.assert_allclose(second_moment(evolve(closed, jnp.asarray(theta), num_steps=100)), expected, atol=1e-8)
    assert np.max(np.abs(expected - M)) > 0.05


def test_error_of_the_initial_sample(x64):
    """All error at finite N comes from the sample of the start: the slope of its size in N is -1/2."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    flow = two_layer_flow(square, nodes[:, None], nodes**2, weights=weights / weights.sum(), dt=2.5e-3)
    sizes = [64, 256, 1024, 4096]
    limit = 1 / (1 + (1 / 0.2 - 1) * np.exp(-24 * 0.05))
    errors = []
    for num in sizes:
        keys = jax.random.split(jax.random.key(num), 400)
        starts = jnp.sqrt(0.2) * jax.vmap(lambda key, num=num: jax.random.normal(key, (num, 1)))(keys)
        final = jax.lax.map(lambda x: jnp.mean(evolve(flow, x, num_steps=20) ** 2), starts)
        errors.append(np.sqrt(np.mean((np.asarray(final) - limit) ** 2)))
    # 400 runs know a root mean square to 1/sqrt(800) = 3.5 %, the slope over a factor 64 to 0.011.
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert abs(slope + 0.5) < 0.05


def test_velocities_are_minus_n_times_the_gradient(x64):
    """And -2 grad Psi, with V and U written out in pairs of neurons."""
    rng = np.random.default_rng(2)
    neuron = lambda th, x: th["a"] * jnp.tanh(th["w"] @ x + th["b"])
    theta = {"a": rng.normal(size=7), "w": rng.normal(size=(7, 3)), "b": rng.normal(size=7)}
    theta = jax.tree_util.tree_map(jnp.asarray, theta)
    x, y, p = rng.normal(size=(12, 3)), rng.normal(size=12), rng.uniform(size=12)
    risk = TwoLayerRisk(neuron, x, y, p / p.sum())
    expected = jax.tree_util.tree_map(lambda g: -7 * g, jax.grad(risk.value)(theta))

    def psi(th, all_theta):
        s = jax.vmap(lambda k: neuron(th, k))(x)
        others = jax.vmap(lambda other: jnp.sum(p / p.sum() * s * jax.vmap(lambda k: neuron(other, k))(x)))(all_theta)
        return -jnp.sum(p / p.sum() * y * s) + jnp.mean(others)

    by_potential = jax.vmap(jax.grad(psi), (0, None))(theta, theta)
    for block in (None, 4):
        velocity = TwoLayerRisk(neuron, x, y, p / p.sum(), block)(0.0, theta)
        for name in theta:
            np.testing.assert_allclose(velocity[name], expected[name], atol=1e-13)
            np.testing.assert_allclose(velocity[name], -2 * by_potential[name], atol=1e-13)
    assert float(risk.value(theta)) == pytest.approx(
        float(np.sum(p / p.sum() * (y - np.asarray(two_layer_output(neuron, theta, x))) ** 2)), rel=1e-14
    )


@pytest.mark.parametrize(("activation", "dt", "steps"), [(jax.nn.relu, 1e-5, 3000), (lambda z: z, 5e-4, 1000)])
def test_balancedness(x64, activation, dt, steps):
    """a_i^2 - |w_i|^2 is a constant of the gradient flow for homogeneous neurons.

    A Runge-Kutta step over a kink of ReLU loses a multiple of dt^2, hence the small steps there; a neuron that slides along
    its kink would lose that in every step, hence the short time, in which two neurons pass one.
    """
    rng = np.random.default_rng(3)
    x = rng.normal(size=(10, 3))
    y = np.sin(x[:, 0])
    theta = {"a": jnp.asarray(rng.normal(size=20)), "w": jnp.asarray(rng.normal(size=(20, 3)))}
    neuron = lambda th, k: th["a"] * activation(th["w"] @ k)
    flow = two_layer_flow(neuron, x, y, dt=dt)
    final = evolve(flow, theta, num_steps=steps)
    balance = lambda th: np.asarray(th["a"] ** 2 - jnp.sum(th["w"] ** 2, axis=1))
    risk = TwoLayerRisk(neuron, x, y)
    assert np.max(np.abs(balance(final) - balance(theta))) <= 1e-9
    assert float(risk.value(final)) < float(risk.value(theta))
    assert float(jnp.max(jnp.abs(final["w"] - theta["w"]))) > 0.005
    active = lambda th: np.asarray(th["w"]) @ x.T > 0
    assert np.any(active(final) != active(theta))


def test_variance_at_initialisation(x64):
    """N Var f_N(x) = Var s(x; th) for independent neurons."""
    neuron = lambda th, x: jnp.tanh(th @ x)
    x, runs = jnp.asarray([[1.0, 0.5]]), 4000
    density = lambda z: np.tanh(np.sqrt(1.25) * z) ** 2 * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    expected = quad(density, -10, 10)[0]
    for num in (4, 32):
        draw = lambda key, num=num: two_layer_output(neuron, jax.random.normal(key, (num, 2)), x)[0]
        outputs = np.asarray(jax.vmap(draw)(jax.random.split(jax.random.key(num), runs)))
        spread = np.sqrt((np.mean(outputs**4) - np.mean(outputs**2) ** 2) / runs) * num
        assert abs(num * np.mean(outputs**2) - expected) < 3 * spread


def test_sgd_follows_the_flow(x64):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(16, 2))
    y = x[:, 0] * x[:, 1]
    neuron = lambda th, k: th[0] * jnp.tanh(th[1:] @ k)
    theta = jnp.asarray(rng.normal(size=(10, 3)))
    target = evolve(two_layer_flow(neuron, x, y, dt=0.01), theta, num_steps=100)
    gaps = []
    for step in (0.02, 0.005):
        full = two_layer_sgd(neuron, lambda n: (x, y), step_size=step)
        gaps.append(float(jnp.max(jnp.abs(evolve(full, theta, num_steps=round(1 / step)) - target))))
    assert 3.4 < gaps[0] / gaps[1] < 4.6
    one = two_layer_sgd(neuron, MiniBatches((jnp.asarray(x), jnp.asarray(y)), 1, key=jax.random.key(0)), step_size=0.1)
    chosen = MiniBatches((jnp.asarray(x), jnp.asarray(y)), 1, key=jax.random.key(0)).indices(5)[0]
    residual = y[chosen] - float(two_layer_output(neuron, theta, x)[chosen])
    slopes = jax.vmap(jax.grad(lambda th: neuron(th, x[chosen])))(theta)
    np.testing.assert_allclose(one.step(5, theta), theta + 0.2 * residual * slopes, atol=1e-14)
    noisy = two_layer_sgd(neuron, lambda n: (x, y), step_size=0.1, temperature=0.5, key=jax.random.key(1))
    kick = np.asarray(noisy.step(0, theta) - two_layer_sgd(neuron, lambda n: (x, y), step_size=0.1).step(0, theta))
    assert kick.std() == pytest.approx(np.sqrt(4 * 0.5 * 0.1), rel=0.4)


def test_noisy_training_rests_at_the_gibbs_law(x64):
    """A ridge alone gives a Gaussian; where Psi = 0 the particles diffuse with sqrt(4 tau) dW."""
    tau, num = 0.3, 4000
    functional = lambda th: jnp.mean(jnp.sum(th**2, axis=1))
    system = wasserstein_flow(functional, dt=0.05, temperature=2 * tau, key=jax.random.key(2))
    final = np.asarray(evolve(system, jnp.zeros((num, 2)), num_steps=100))
    # dF/drho = |th|^2 and T = 2 tau: rho prop. to exp(-|th|^2/(2 tau)), of variance tau in each direction.
    assert abs(final.var() / tau - 1) < 3 * np.sqrt(2 / final.size) + 0.05**2
    slope = two_layer_flow(square, np.zeros((1, 2)), np.zeros(1), dt=0.05, temperature=tau, key=jax.random.key(2))
    free = np.asarray(evolve(slope, jnp.zeros((num, 2)), num_steps=10))
    assert abs(free.var() / (4 * tau * 0.5) - 1) < 3 * np.sqrt(2 / free.size)


@pytest.mark.parametrize(("num", "expected"), [(10, 0.2), (100, 0.17)])
def test_mean_field_ornstein_uhlenbeck(x64, num, expected):
    """Var = D/(a N) + (1 - 1/N) D/(a + k), whose distance to the limit D/(a + k) is exactly proportional to 1/N."""
    a, k, D, dt = 1.0, 2.0, 0.5, 0.05
    exact = D / (a * num) + (1 - 1 / num) * D / (a + k)
    assert exact == pytest.approx(expected, rel=1e-15)
    assert (exact - D / (a + k)) * num == pytest.approx(D * k / (a * (a + k)), rel=1e-12)

    def heun(rate):
        factor, kick = 1 - rate * dt + (rate * dt) ** 2 / 2, 1 - rate * dt / 2
        return 2 * D * dt * kick**2 / (1 - factor**2)

    runs = 20_000 // num

    def run(key):
        system = mckean_vlasov(lambda x: a * x**2 / 2, attraction=k, num_particles=num, noise=D, dt=dt, key=key)
        return evolve(system, jnp.zeros(num), num_steps=200)

    squares = np.mean(np.asarray(jax.vmap(run)(jax.random.split(jax.random.key(num), runs))) ** 2, axis=1)
    error = squares.std() / np.sqrt(runs)
    discrete = heun(a) / num + (1 - 1 / num) * heun(a + k)
    assert abs(discrete / exact - 1) < 0.02
    assert abs(squares.mean() - discrete) < 3 * error
    assert abs(squares.mean() - exact) < 3 * error + abs(discrete - exact)


DOUBLE_WELL = lambda x: x**4 / 4 - x**2 / 2


def test_critical_noise_of_the_double_well(x64):
    exact = (2 * gamma(3 / 4) / gamma(1 / 4)) ** 2
    assert exact == pytest.approx(0.456946581044, abs=1e-12)
    assert float(critical_noise(DOUBLE_WELL, attraction=1.0)) == pytest.approx(exact, rel=1e-11)
    h = 1e-4
    slope = float(jax.grad(lambda k: critical_noise(DOUBLE_WELL, attraction=k))(1.0))
    ends = [float(critical_noise(DOUBLE_WELL, attraction=1 + s * h)) for s in (1, -1)]
    assert slope == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-6)
    # A convex potential has one state only.
    assert np.isnan(critical_noise(lambda x: x**4 / 4, attraction=1.0))


def test_magnetisation_is_self_consistent(x64):
    critical = (2 * gamma(3 / 4) / gamma(1 / 4)) ** 2
    for noise in (0.1, 0.3, 0.44):
        m = float(magnetisation(DOUBLE_WELL, attraction=1.0, noise=noise))
        x = np.linspace(-6, 6, 4001)
        weight = np.exp(-(x**4 / 4 - m * x) / noise)
        mean = np.sum(x * weight) / np.sum(weight)
        assert m == pytest.approx(mean, abs=1e-9)
        assert float(mckean_mean(DOUBLE_WELL, attraction=1.0, noise=noise, mean=m)) == pytest.approx(m, abs=1e-10)
    assert float(magnetisation(DOUBLE_WELL, attraction=1.0, noise=1.001 * critical)) == 0
    # A square root below the critical noise.
    small = [float(magnetisation(DOUBLE_WELL, attraction=1.0, noise=critical * (1 - e))) for e in (1e-2, 1e-4)]
    assert small[0] / small[1] == pytest.approx(10, rel=0.02)


def test_particles_order_below_the_critical_noise(x64):
    """The mean of N particles in equilibrium has the variance (Var/N)/(1 - k Var/D), as in Curie and Weiss' model."""
    num, grid = 2000, np.linspace(-6, 6, 2001)
    for factor, ordered in ((0.6, True), (1.5, False)):
        noise = factor * 0.456946581044
        system = mckean_vlasov(
            DOUBLE_WELL, attraction=1.0, num_particles=num, noise=noise, dt=0.05, key=jax.random.key(5)
        )
        mean = float(jnp.mean(evolve(system, jnp.ones(num), num_steps=600)))
        m = float(magnetisation(DOUBLE_WELL, attraction=1.0, noise=noise))
        weight = np.exp(-(grid**4 / 4 - m * grid) / noise)
        variance = np.sum(weight * (grid - m) ** 2) / np.sum(weight)
        error = np.sqrt(variance / num / (1 - variance / noise))
        # 0.01: the bias of a step of 0.05, of second order.
        assert abs(mean - m) < 3 * error + 0.01
        assert (m > 20 * error) == ordered


def test_a_pair_potential_is_the_attraction(x64):
    key = jax.random.key(0)
    spring = mckean_vlasov(DOUBLE_WELL, attraction=0.7, num_particles=20, noise=0.1, dt=0.1, key=key)
    pairs = mckean_vlasov(
        DOUBLE_WELL, pair_potential=lambda r: 0.35 * r**2, num_particles=20, noise=0.1, dt=0.1, key=key
    )
    x = jax.random.normal(key, (20,))
    np.testing.assert_allclose(spring.step(0, x), pairs.step(0, x), atol=1e-14)


def test_bad_arguments():
    with pytest.raises(ValueError, match="targets"):
        two_layer_flow(square, np.ones((3, 2)), np.ones(4), dt=0.1)
    with pytest.raises(ValueError, match="block"):
        two_layer_flow(square, np.ones((3, 2)), np.ones(3), dt=0.1, block=2)
    with pytest.raises(ValueError, match="key"):
        two_layer_flow(square, np.ones((3, 2)), np.ones(3), dt=0.1, temperature=1.0)
    with pytest.raises(ValueError, match="neuron"):
        two_layer_flow(lambda th, x: th, np.ones((3, 2)), np.ones(3), dt=0.1).step(0, jnp.ones((4, 2)))
    with pytest.raises(ValueError, match="particles"):
        two_layer_flow(square, np.ones((3, 2)), np.ones(3), dt=0.1).step(0, (jnp.ones((4, 2)), jnp.ones(3)))
    with pytest.raises(ValueError, match="graph"):
        mckean_vlasov(DOUBLE_WELL, noise=0.1, dt=0.1, key=jax.random.key(0))
    with pytest.raises(ValueError, match="noise"):
        magnetisation(DOUBLE_WELL, attraction=1.0, noise=-1.0)
