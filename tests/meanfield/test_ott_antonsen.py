"""The Ott-Antonsen equation against its closed forms, as a system, and its derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from systems.contract import check_system

from dynjax.meanfield import AllToAll, Dense, Gaussian, Identical, Lorentzian
from dynjax.meanfield._limits.ott_antonsen import ott_antonsen
from dynjax.meanfield._limits.phase_laws import PoissonKernel, VonMises
from dynjax.meanfield._measures.label_grid import LabelGrid
from dynjax.systems import evolve


def ring_operator(radius, num_labels):
    """The kernel 1{d(x, y) <= radius} on the circle, cell averages of the indicator."""
    offset = np.arange(num_labels) / num_labels
    distance = np.minimum(offset, 1 - offset)
    share = np.clip((radius - distance) * num_labels + 0.5, 0, 1)
    rows = (np.arange(num_labels)[:, None] - np.arange(num_labels)) % num_labels
    return Dense(share[rows])


def volterra(num_labels):
    """1{y < x} at the midpoints of cells, half of it on the diagonal."""
    return Dense(np.tril(np.ones((num_labels, num_labels)), -1) + 0.5 * np.eye(num_labels))


@pytest.mark.parametrize(("start", "r"), [(0.1, 0.513331560047), (0.5, 0.700718841633)])
def test_transient_on_the_complete_graph(x64, start, r):
    limit = ott_antonsen(AllToAll(1), Lorentzian(1.0), 4.0)
    solution = limit.solve(limit.init(start), [0.0, 2.0], rtol=1e-11, atol=1e-12)
    assert abs(limit.order_parameter(solution.final) - r) < 1e-11


def test_steady_state_and_its_derivative_through_time(x64):
    """r = sqrt(1/2) and dr/dK = Delta / (K^2 r) at K = 4 by reverse mode through T = 40."""

    def r(coupling):
        limit = ott_antonsen(AllToAll(1), Lorentzian(1.0), coupling, dt=0.05)
        return limit.order_parameter(evolve(limit, limit.init(0.5), num_steps=800))

    value, slope = jax.value_and_grad(r)(4.0)
    assert abs(value / np.sqrt(0.5) - 1) < 1e-10
    assert abs(slope / (1 / (16 * np.sqrt(0.5))) - 1) < 1e-6


def test_twisted_wave_on_the_ring(x64):
    """|z| = sqrt(1 - 2 Delta / (K zeta_2)); the discretised kernel has its own zeta_2, exact by the discrete transform."""
    count, twist, coupling = 64, 2, 20.0
    operator = ring_operator(0.1, count)
    x = np.arange(count) / count
    wave = np.exp(2j * np.pi * twist * x)
    zeta = float(np.real(np.asarray(operator.apply(jnp.asarray(wave)))[0]))
    limit = ott_antonsen(operator, Lorentzian(1.0), coupling, dt=0.02)
    final = evolve(limit, limit.init(0.4 * wave), num_steps=2000)
    z = np.asarray(limit.local_order_parameter(final))
    assert np.max(np.abs(np.abs(z) - np.sqrt(1 - 2 / (coupling * zeta)))) < 1e-10
    assert np.max(np.abs(z / wave - np.abs(z))) < 1e-10


def test_twisted_wave_of_the_continuous_kernel(x64):
    """Row 14: the kernel enters by its Fourier multipliers sin(2 pi q r) / (pi q)."""
    count = 32
    q = np.fft.fftfreq(count, 1 / count)
    multipliers = np.where(q == 0, 0.2, np.sin(2 * np.pi * q * 0.1) / np.where(q == 0, 1, np.pi * q))
    first = np.real(np.fft.ifft(multipliers)) * count
    rows = (np.arange(count)[:, None] - np.arange(count)) % count
    limit = ott_antonsen(Dense(first[rows]), Lorentzian(1.0), 20.0)
    wave = jnp.exp(4j * jnp.pi * jnp.arange(count) / count)
    solution = limit.solve(limit.init(0.58 * wave), [0.0, 25.0], rtol=1e-11, atol=1e-12)
    amplitude = jnp.abs(limit.local_order_parameter(solution.final))
    np.testing.assert_allclose(amplitude, 0.582534805965, rtol=0, atol=1e-10)
    assert limit.order_parameter(solution.final) < 1e-12


def test_rank_one_graph(x64):
    """Row 12: on w(x) w(y), w = (1 - a) x^-a, the field h = int w z is 0.591860535098 at K = 3."""
    a, count = 0.25, 12
    # x = s^4 makes the integrand of w z dx analytic, so that few nodes will do; the first has the weight 80 and wants small
    # steps.
    nodes, weights = np.polynomial.legendre.leggauss(count)
    s, ds = (nodes + 1) / 2, weights / 2
    x, dx = s**4, 4 * s**3 * ds
    w = (1 - a) * x**-a
    grid = LabelGrid(jnp.asarray(x), jnp.asarray(dx), Dense(count * np.outer(w, w * dx)))
    limit = ott_antonsen(grid, Lorentzian(1.0), 3.0, dt=0.005)
    z = limit.local_order_parameter(evolve(limit, limit.init(0.5), num_steps=6000))
    assert abs(jnp.sum(w * dx * jnp.real(z)) - 0.591860535098) < 1e-10


@pytest.mark.parametrize(("start", "end"), [(0.43, 0.833783006304), (0.418, 0.0)])
def test_triads(x64, start, end):
    """Row 16 with K1 = 1, K23 = 8: the unstable 0.424035 divides starts that reach 0.833783 from those that reach 0."""
    limit = ott_antonsen(AllToAll(1), Lorentzian(1.0), 1.0, triads=8.0, dt=0.05)
    final = evolve(limit, limit.init(start), num_steps=2000)
    assert abs(limit.order_parameter(final) - end) < 1e-9


def test_volterra_grows_and_then_decays(x64):
    """Row 17 within 1 % at 400 labels: all spectrum is at -Delta, and yet z(x = 1) grows 7.83 fold by t = 4 at K = 8."""
    limit = ott_antonsen(volterra(400), Lorentzian(1.0), 8.0, dt=0.05)
    start = 1e-6
    z = limit.local_order_parameter(evolve(limit, limit.init(start), num_steps=80))
    assert abs(jnp.abs(z[-1]) / start / 7.831109945342 - 1) < 0.01


def test_volterra_has_no_synchrony_at_strong_coupling(x64):
    limit = ott_antonsen(volterra(400), Lorentzian(1.0), 20.0, dt=0.05)
    z = limit.local_order_parameter(evolve(limit, limit.init(0.9), num_steps=2000))
    assert jnp.max(jnp.abs(z)) < 1e-6


def test_direction_of_edges(x64):
    """A node that nobody drives decays freely; the transposed graph changes the answer."""
    weights = np.array([[0.0, 0.0], [4.0, 0.0]])
    results = []
    for matrix in (weights, weights.T):
        limit = ott_antonsen(Dense(matrix), Lorentzian(1.0), 3.0, dt=0.01)
        results.append(jnp.abs(limit.local_order_parameter(evolve(limit, limit.init(0.5), num_steps=100))))
    assert abs(results[0][0] - 0.5 * np.exp(-1)) < 1e-9
    assert abs(results[1][1] - 0.5 * np.exp(-1)) < 1e-9
    assert results[0][1] > 0.5


def test_two_communities(x64):
    """Against SciPy on the complex equation, with a law off centre, and with one frequency for each label."""
    weights, z0 = np.array([[1.0, 0.4], [0.2, 1.3]]), np.array([0.3 + 0.1j, -0.2 + 0.4j])

    def slope(t, z, center, width):
        h = weights @ z / 2
        return (1j * center - width) * z + 1.5 * (h - np.conj(h) * z**2)

    own = np.array([0.3, -0.5])
    for frequencies, pole in ((Lorentzian(0.3, 0.7), (0.7, 0.3)), (jnp.asarray(own), (own, 0.0))):
        exact = solve_ivp(slope, (0, 5), z0, method="DOP853", rtol=1e-12, atol=1e-13, args=pole).y[:, -1]
        limit = ott_antonsen(Dense(weights), frequencies, 3.0)
        solution = limit.solve(limit.init(z0), [0.0, 5.0], rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(limit.local_order_parameter(solution.final), exact, atol=1e-10)


def test_order_four_under_jit(x64):
    def final(num_steps):
        limit = ott_antonsen(Dense(np.array([[1.0, 0.4], [0.2, 1.3]])), Lorentzian(1.0, 2.0), 5.0, dt=1.0 / num_steps)
        return evolve(limit, limit.init(0.3), num_steps=num_steps)

    runs = [np.asarray(final(n)) for n in (20, 40, 80, 160)]
    gaps = [np.max(np.abs(a - b)) for a, b in zip(runs, runs[1:], strict=False)]
    assert np.log2(gaps[-2] / gaps[-1]) == pytest.approx(4, abs=0.15)


def test_contract(x64):
    limit = ott_antonsen(Dense(np.array([[1.0, 0.4], [0.2, 1.3]])), Lorentzian(0.5, 0.7), 2.0, dt=0.1, triads=1.0)
    check_system(limit, limit.init(jnp.array([0.3 + 0.1j, -0.2 + 0.4j])))


def test_sweep_over_couplings_is_a_loop(x64):
    couplings = jnp.array([1.0, 2.5, 4.0])

    def r(coupling):
        limit = ott_antonsen(ring_operator(0.25, 16), Lorentzian(0.2), coupling, dt=0.05)
        return limit.order_parameter(evolve(limit, limit.init(0.3), num_steps=100))

    np.testing.assert_allclose(jax.jit(jax.vmap(r))(couplings), [r(k) for k in couplings], rtol=1e-12)


def test_single_precision_stays():
    limit = ott_antonsen(AllToAll(3), Lorentzian(1.0), 4.0, dt=0.05)
    state = limit.init(jnp.full(3, 0.5, jnp.float32))
    final = evolve(limit, state, num_steps=800)
    assert final.dtype == jnp.float32
    assert abs(float(limit.order_parameter(final)) - np.sqrt(0.5)) < 1e-6


def test_a_run_with_too_large_steps_reads_nan():
    """Synchrony that was lost to overflow must not look like incoherence."""
    limit = ott_antonsen(AllToAll(2), Lorentzian(1.0), 1000.0, dt=1.0)
    x = limit.init(0.5)
    for n in range(20):
        x = limit.step(n, x)
    assert np.isnan(limit.order_parameter(x))
    with pytest.raises(ValueError, match="radius"):
        limit.law(x)


def test_law_of_a_state(x64):
    limit = ott_antonsen(AllToAll(2), Identical(), 1.0)
    law = PoissonKernel(jnp.array([0.5, 0.0]), jnp.array([1.0, 0.0]))
    state = limit.init(law)
    np.testing.assert_allclose(limit.law(state).radius, law.radius, atol=1e-15)
    np.testing.assert_allclose(limit.law(state).phase, law.phase, atol=1e-15)
    slope = jax.grad(lambda x: jnp.sum(limit.law(x).radius + limit.law(x).phase) + limit.order_parameter(x))(state)
    assert bool(jnp.all(jnp.isfinite(slope)))
    assert bool(jnp.isfinite(jax.grad(limit.order_parameter)(jnp.zeros((2, 2)))).all())


def test_errors():
    with pytest.raises(ValueError, match="no single pole"):
        ott_antonsen(AllToAll(2), Gaussian(1.0), 1.0)
    with pytest.raises(ValueError, match="Argument `frequencies` must"):
        ott_antonsen(AllToAll(2), jnp.zeros(3), 1.0)
    limit = ott_antonsen(AllToAll(2), jnp.zeros(2), 1.0)
    with pytest.raises(ValueError, match="Argument `z` must have moduli"):
        limit.init(1.5)
    with pytest.raises(ValueError, match="2 labels"):
        limit.init(jnp.zeros(3))
    with pytest.raises(TypeError, match="VonMises"):
        limit.init(VonMises(1.0))
