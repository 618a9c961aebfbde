"""The Vlasov solvers on fibres: closed forms, orders, conservation, agreement with each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from scipy.special import ive
from systems.contract import check_system

from dynjax.meanfield import AllToAll, Dense, Gaussian, Identical, Lorentzian, Uniform
from dynjax.meanfield._distances.circle_distance import circle_wasserstein
from dynjax.meanfield._distances.fibre_distance import fibre_distance
from dynjax.meanfield._limits.fibre_frequencies import fibre_frequencies
from dynjax.meanfield._limits.finite_volume import finite_volume_step
from dynjax.meanfield._limits.ott_antonsen import ott_antonsen
from dynjax.meanfield._limits.phase_laws import CosinePhases, PoissonKernel, SampledPhases, UniformPhases, VonMises
from dynjax.meanfield._limits.vlasov import vlasov
from dynjax.meanfield._particles.validity import MeanFieldWarning
from dynjax.systems import evolve, trajectory

# Made at import, in single precision: weights that are exact there.
PAIR = Dense(np.array([[1.0, 0.5], [0.25, 1.25]]))
COMPLETE = AllToAll(1)


def noisy_order_parameter(ratio):
    """r = I1(ratio r) / I0(ratio r)."""
    return brentq(lambda r: ive(1, ratio * r) / ive(0, ratio * r) - r, 0.3, 0.999, xtol=1e-15)


@pytest.mark.parametrize(("modes", "error"), [(8, 3e-8), (12, 1e-12)])
def test_steady_state_with_noise(x64, modes, error):
    """Row 8, r = 0.831462024754 at K/D = 4, whatever the step: the method keeps steady states."""
    exact = noisy_order_parameter(4.0)
    assert abs(exact - 0.831462024754) < 1e-12
    for dt in (0.02, 0.1):
        limit = vlasov(COMPLETE, Identical(), 4.0, noise=1.0, dt=dt, num_modes=modes)
        final = evolve(limit, limit.init(PoissonKernel(0.3)), num_steps=round(20 / dt))
        assert abs(limit.order_parameter(final) - exact) < error


def test_steady_density_with_noise(x64):
    """The density is a von Mises law of concentration K r / D."""
    limit = vlasov(COMPLETE, Identical(), 3.0, noise=1.0, dt=0.05, num_modes=24)
    final = evolve(limit, limit.init(CosinePhases(0.5, 1, 0.7)), num_steps=800)
    angles = jnp.linspace(-3, 3, 50)
    kappa = 3 * noisy_order_parameter(3.0)
    expected = np.exp(kappa * (np.cos(angles - 0.7) - 1)) / (2 * np.pi * ive(0, kappa))
    np.testing.assert_allclose(limit.density(final, angles)[0], expected, atol=1e-11)
    assert limit.truncation_error(final) < 1e-11
    assert circle_wasserstein(*(type(m)(m.masses[0]) for m in _measures(limit, final, VonMises(kappa, 0.7)))) < 1e-11


def _measures(limit, state, law):
    measure = limit.fibre_measure(state, 256)
    return measure, type(measure)(law.cell_masses(256)[None])


def test_hierarchy_against_scipy(x64):
    """The equations, written again with complex numbers and solved by DOP853: directed graph, frequencies, noise."""
    modes, coupling, noise = 10, 2.5, 0.4
    omega, matrix = np.array([0.7, -0.3]), np.array([[1.0, 0.5], [0.25, 1.25]]) / 2
    law = PoissonKernel(jnp.array([0.4, 0.2]), jnp.array([0.5, -1.0]))
    orders = np.arange(1, modes + 1)

    def slope(t, flat):
        z = flat.reshape(2, modes)
        h = matrix @ z[:, 0]
        below = np.hstack([np.ones((2, 1)), z[:, :-1]])
        above = np.hstack([z[:, 1:], np.zeros((2, 1))])
        pull = orders * coupling / 2 * (h[:, None] * below - np.conj(h)[:, None] * above)
        return ((1j * orders * omega[:, None] - orders**2 * noise) * z + pull).ravel()

    start = np.asarray(law.moments(modes)).ravel()
    exact = solve_ivp(slope, (0, 2), start, method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1].reshape(2, modes)
    limit = vlasov(PAIR, jnp.asarray(omega), coupling, noise=noise, dt=0.005, num_modes=modes)
    final = evolve(limit, limit.init(law), num_steps=400)
    np.testing.assert_allclose(limit.local_moments(final, modes), exact, rtol=0, atol=2e-9)


def test_exponential_method_has_order_four(x64):
    """Under jit, with decay rates n^2 D dt from 0.02 to 13: what the linear part does not limit."""

    def final(num_steps):
        limit = vlasov(PAIR, Gaussian(1.0), 3.0, noise=0.5, dt=2 / num_steps, num_modes=16, num_frequencies=6)
        return np.asarray(evolve(limit, limit.init(PoissonKernel(0.3)), num_steps=num_steps))

    runs = [final(n) for n in (40, 80, 160, 320)]
    gaps = [np.max(np.abs(a - b)) for a, b in zip(runs, runs[1:], strict=False)]
    assert np.log2(gaps[-2] / gaps[-1]) == pytest.approx(4, abs=0.2)


def test_lorentz_law_by_its_pole(x64):
    """Without noise the hierarchy keeps the Ott-Antonsen manifold, z_n = z^n, up to its truncation."""
    limit = vlasov(PAIR, Lorentzian(0.5, 0.8), 3.0, dt=0.01, num_modes=64)
    exact = ott_antonsen(PAIR, Lorentzian(0.5, 0.8), 3.0)
    law = PoissonKernel(jnp.array([0.3, 0.5]), jnp.array([0.0, 1.0]))
    z = exact.local_order_parameter(exact.solve(exact.init(law), [0.0, 3.0], rtol=1e-11, atol=1e-12).final)
    final = evolve(limit, limit.init(law), num_steps=300)
    assert limit.truncation_error(final) < 1e-5
    np.testing.assert_allclose(limit.local_moments(final, 3), jnp.stack([z, z**2, z**3], axis=1), atol=1e-8)


def test_noise_decays_the_modes_of_free_oscillators(x64):
    """K = 0: z_n = z_n(0) exp((i n w - n^2 D) t) to rounding, in one step."""
    limit = vlasov(PAIR, jnp.array([0.5, -2.0]), 0.0, noise=0.3, dt=2.0, num_modes=6)
    law = VonMises(2.0, 0.4)
    n = np.arange(1, 7)
    expected = law.moments(6) * np.exp(2 * (1j * n * np.array([[0.5], [-2.0]]) - 0.3 * n**2))
    np.testing.assert_allclose(limit.local_moments(limit.step(0, limit.init(law)), 6), expected, atol=1e-15)


def _finite_volume(cells, start, time):
    dt = finite_volume_step(COMPLETE, Identical(), 4.0, noise=1.0, num_cells=cells)
    limit = vlasov(COMPLETE, Identical(), 4.0, noise=1.0, dt=dt, method="finite_volume", num_cells=cells)
    num_steps = int(np.ceil(time / float(dt)))
    watch = lambda n, x: (jnp.min(x), jnp.sum(x) * limit.width - 1)
    orbit = trajectory(limit, limit.init(start), num_steps=num_steps, observe=watch)
    return limit, orbit


def test_finite_volume_steady_state(x64):
    """Error <= 2e-3 with 128 cells, order >= 1.8, mass to 1e-12 and positive densities at every step."""
    exact, errors = noisy_order_parameter(4.0), []
    for cells in (32, 64, 128):
        limit, orbit = _finite_volume(cells, PoissonKernel(0.7), 6.0)
        errors.append(abs(float(limit.order_parameter(orbit.final)) - exact))
        assert float(jnp.min(orbit.ys[0])) > 0
        assert float(jnp.max(jnp.abs(orbit.ys[1]))) < 1e-12
        assert int(limit.status(orbit.final)) == 1
    assert errors[-1] < 2e-3
    orders = np.log2(np.divide(errors[:-1], errors[1:]))
    assert np.all(orders > 1.8)


def test_finite_volume_of_a_concentrated_start(x64):
    """All mass in one cell, the harshest start: nothing becomes negative and nothing is lost."""
    _, orbit = _finite_volume(64, SampledPhases(jnp.array([0.3])), 0.5)
    assert float(jnp.min(orbit.ys[0])) >= 0
    assert float(jnp.min(orbit.final)) > 0
    assert float(jnp.max(jnp.abs(orbit.ys[1]))) < 1e-12


def test_finite_volume_moments_of_cell_averages(x64):
    """The factor of the averages is taken out: moments of a smooth start are exact."""
    limit = vlasov(PAIR, Identical(), 1.0, dt=1e-3, method="finite_volume", num_cells=64)
    law = VonMises(jnp.array([1.0, 3.0]), jnp.array([0.3, 2.0]))
    np.testing.assert_allclose(limit.local_moments(limit.init(law), 4), law.moments(4), atol=1e-14)


def test_finite_volume_follows_the_hierarchy(x64):
    """A transient on a directed graph with noise and frequencies, 2e-3 with 128 cells."""
    law, nodes = VonMises(jnp.array([1.0, 2.0]), jnp.array([0.3, 2.0])), {"num_frequencies": 4, "noise": 0.5}
    dt = float(finite_volume_step(PAIR, Uniform(1.0), 2.0, num_cells=128, **nodes))
    num_steps = int(1 / dt) + 1
    coarse = vlasov(PAIR, Uniform(1.0), 2.0, dt=1 / num_steps, method="finite_volume", num_cells=128, **nodes)
    fine = vlasov(PAIR, Uniform(1.0), 2.0, dt=0.02, num_modes=24, **nodes)
    x, y = evolve(coarse, coarse.init(law), num_steps=num_steps), evolve(fine, fine.init(law), num_steps=50)
    np.testing.assert_allclose(coarse.local_moments(x, 2), fine.local_moments(y, 2), atol=2e-3)
    assert fibre_distance(coarse.fibre_measure(x), fine.fibre_measure(y)) < 1e-3
    angles = jnp.linspace(-3, 3, 40)
    np.testing.assert_allclose(coarse.density(x, angles), fine.density(y, angles), atol=1e-2)


def test_finite_volume_step_that_is_too_large(x64):
    with pytest.raises(ValueError, match=r"Argument `dt` must be at most .* too large for the finite volume"):
        vlasov(COMPLETE, Identical(), 4.0, noise=1.0, dt=0.01, method="finite_volume", num_cells=128)

    def status(dt):
        limit = vlasov(COMPLETE, Identical(), 4.0, noise=1.0, dt=dt, method="finite_volume", num_cells=32)
        return limit.status(evolve(limit, limit.init(PoissonKernel(0.5)), num_steps=3))

    np.testing.assert_array_equal(jax.jit(jax.vmap(status))(jnp.array([0.005, 0.1])), [1, 2])


def _tracers(count, dt=0.005):
    limit = vlasov(COMPLETE, Identical(), 1.0, dt=dt, method="tracers", num_tracers=count)
    return limit, evolve(limit, limit.init(PoissonKernel(0.5)), num_steps=round(1 / dt))


def test_tracers_are_spectral(x64):
    """Identical oscillators from the Poisson kernel z0 = 0.5, K = 1, t = 1: 2e-3, 5e-6, 4e-11 with 16, 32, 64 tracers."""
    # z' = (K/2) z (1 - z^2): z^2 / (1 - z^2) grows like exp(K t).
    odds = 0.25 / 0.75 * np.e
    exact = np.sqrt(odds / (1 + odds))
    for count, error in ((16, 3e-3), (32, 7e-6), (64, 1e-9)):
        limit, final = _tracers(count)
        assert abs(limit.order_parameter(final) - exact) < error


def test_tracers_stay_at_quantiles(x64):
    """W1 of evolved tracers to the exact fibre is 1 / (4 n) within 2 %, slope -1."""
    exact = ott_antonsen(COMPLETE, Identical(), 1.0)
    fibre = exact.fibre_measure(exact.solve(exact.init(0.5), [0.0, 1.0], rtol=1e-11, atol=1e-12).final, 4096)
    counts = np.array([32, 64, 128])
    runs = [_tracers(count, 0.02) for count in counts]
    distances = np.array([fibre_distance(limit.fibre_measure(final), fibre) for limit, final in runs])
    np.testing.assert_allclose(4 * counts * distances, 1, atol=0.02)
    assert np.polyfit(np.log(counts), np.log(distances), 1)[0] == pytest.approx(-1, abs=0.05)


def test_iid_particles_converge_slowly(x64, key):
    """Random starts instead of quantiles: the error of the order parameter has slope -1/2.

    512 runs of each size; the slope then has a standard error of about 0.015.
    """
    odds = 0.25 / 0.75 * np.e
    exact, errors, sizes = np.sqrt(odds / (1 + odds)), [], [128, 512, 2048]
    for size in sizes:
        limit = vlasov(COMPLETE, Identical(), 1.0, dt=0.05, method="tracers", num_tracers=size)

        def run(key, limit=limit, size=size):
            start = PoissonKernel(0.5).quantile(jax.random.uniform(key, (size,), minval=1e-9))
            return limit.order_parameter(evolve(limit, limit.init(start), num_steps=20))

        r = jax.jit(jax.vmap(run))(jax.random.split(jax.random.fold_in(key, size), 512))
        errors.append(float(jnp.sqrt(jnp.mean((r - exact) ** 2))))
    assert np.polyfit(np.log(sizes), np.log(errors), 1)[0] == pytest.approx(-0.5, abs=0.05)


def test_tracers_with_frequencies_follow_the_hierarchy(x64):
    """Gaussian frequencies, no noise, short time: the same quadrature nodes, two discretisations of the phase."""
    law = PoissonKernel(jnp.array([0.3, 0.5]), jnp.array([0.3, 2.0]))
    tracers = vlasov(PAIR, Gaussian(1.0), 2.0, dt=0.02, method="tracers", num_tracers=128, num_frequencies=8)
    with pytest.warns(MeanFieldWarning, match="filaments"):
        modes = vlasov(PAIR, Gaussian(1.0), 2.0, dt=0.02, num_modes=96, num_frequencies=8)
    x, y = evolve(tracers, tracers.init(law), num_steps=50), evolve(modes, modes.init(law), num_steps=50)
    np.testing.assert_allclose(tracers.local_moments(x, 2), modes.local_moments(y, 2), atol=1e-7)
    # A quarter of a gap of each quantile sample, mixed over the frequencies.
    assert fibre_distance(tracers.fibre_measure(x), modes.fibre_measure(y)) < 1 / (4 * 128)
    angles = jnp.linspace(-2, 2, 9)
    np.testing.assert_allclose(tracers.density(x, angles), modes.density(y, angles), rtol=0.05)


@pytest.mark.parametrize("method", ["fourier", "finite_volume", "tracers"])
def test_contract(x64, method):
    noise = 0.0 if method == "tracers" else 0.2
    options = {"fourier": {"num_modes": 6}, "finite_volume": {"num_cells": 16}, "tracers": {"num_tracers": 9}}[method]
    limit = vlasov(PAIR, Gaussian(0.5), 2.0, dt=0.05, noise=noise, method=method, num_frequencies=3, **options)
    # Minmod slopes have kinks at extrema: a start without any symmetry keeps away from them.
    law = VonMises(jnp.array([0.8, 1.1]), jnp.array([0.31, -1.23]))
    check_system(limit, limit.init(law), h=1e-7 if method == "finite_volume" else 1e-6)


@pytest.mark.parametrize("method", ["fourier", "finite_volume"])
def test_sweep_and_gradient_over_couplings(x64, method):
    def r(coupling, noise):
        limit = vlasov(PAIR, Identical(), coupling, noise=noise, dt=0.01, method=method, num_labels=2)
        return limit.order_parameter(evolve(limit, limit.init(VonMises(1.0, 0.2)), num_steps=45))

    couplings = jnp.array([0.5, 1.0, 2.0])
    sweep = jax.jit(jax.vmap(lambda k: r(k, 0.05)))(couplings)
    np.testing.assert_allclose(sweep, [r(k, 0.05) for k in couplings], rtol=1e-12)
    slopes = jax.grad(r, argnums=(0, 1))(2.0, 0.05)
    for k in range(2):
        ahead, behind = ([2.0, 0.05] for _ in range(2))
        ahead[k] += 1e-6
        behind[k] -= 1e-6
        assert abs(slopes[k] - (r(*ahead) - r(*behind)) / 2e-6) < 1e-6


def test_single_precision_stays():
    for method, noise in (("fourier", 0.5), ("finite_volume", 0.05), ("tracers", 0.0)):
        limit = vlasov(PAIR, Identical(), 2.0, dt=0.01, noise=noise, method=method)
        final = evolve(limit, limit.init(VonMises(1.0)), num_steps=10)
        assert final.dtype == jnp.float32
        assert bool(jnp.isfinite(limit.order_parameter(final)))


def test_initial_laws_are_what_they_say(x64):
    """Moments, distribution, quantiles and cell masses of a law agree with each other."""
    laws = [
        UniformPhases(),
        PoissonKernel(0.6, 1.0),
        VonMises(2.5, -2.0),
        CosinePhases(0.9, 3, 0.2),
        PoissonKernel(jnp.array([0.1, 0.7]), jnp.array([3.0, -1.0])),
        VonMises(jnp.array([0.1, 3.0]), jnp.array([3.0, -1.0])),
    ]
    for law in laws:
        # So many that the thinnest density does not fall into a gap: from there on the sum is spectrally accurate.
        sample, z = law.midpoints(4000), law.moments(3)
        powers = jnp.mean(jnp.exp(1j * jnp.arange(1, 4)[:, None] * sample[..., None, :]), axis=-1)
        np.testing.assert_allclose(powers, z, atol=2e-5)
        histogram = law.cell_masses(8)
        np.testing.assert_allclose(jnp.sum(histogram, axis=-1), 1, atol=1e-13)
        cells = jnp.floor((jnp.mod(sample + jnp.pi, 2 * jnp.pi)) / (2 * jnp.pi) * 8)
        counted = jnp.mean(cells[..., None, :] == jnp.arange(8)[:, None], axis=-1)
        np.testing.assert_allclose(counted, histogram, atol=2.01 / 4000)
    # Bessel ratios of the von Mises law.
    np.testing.assert_allclose(VonMises(3.0).moments(5).real, ive(np.arange(1, 6), 3.0) / ive(0, 3.0), atol=1e-15)
    slope = jax.grad(lambda kappa: VonMises(kappa, 0.3).quantile(jnp.array([0.4]))[0])(2.0)
    ahead, behind = (VonMises(2.0 + h, 0.3).quantile(jnp.array([0.4]))[0] for h in (1e-6, -1e-6))
    assert abs(slope - (ahead - behind) / 2e-6) < 1e-8


def test_frequency_quadrature(x64):
    """Gauss rules integrate cos exactly; the width of the pole is handed on; midpoints of a Lorentz law warn."""
    for law, exact in ((Gaussian(0.5, 1.0), np.cos(1.0) * np.exp(-0.125)), (Uniform(2.0), np.sin(2.0) / 2)):
        nodes = fibre_frequencies(law, 1, 16)
        assert abs(jnp.sum(nodes.weights * jnp.cos(nodes.values[0])) - exact) < 1e-13
    assert fibre_frequencies(Lorentzian(0.3), 5, 16, pole=True).width == 0.3
    with pytest.warns(MeanFieldWarning, match="tails"):
        assert fibre_frequencies(Lorentzian(0.3), 5, 16).num_nodes == 16


def test_warning_and_errors(x64):
    with pytest.warns(MeanFieldWarning, match="filaments"):
        vlasov(PAIR, Identical(), 1.0, dt=0.1)
    with pytest.raises(ValueError, match="Argument `method` must"):
        vlasov(PAIR, Identical(), 1.0, dt=0.1, method="pic")
    with pytest.raises(ValueError, match="noise"):
        vlasov(PAIR, Identical(), 1.0, dt=0.1, noise=-1.0)
    with pytest.raises(ValueError, match="be 0 for tracers"):
        vlasov(PAIR, Identical(), 1.0, dt=0.1, noise=0.1, method="tracers")
    with pytest.raises(ValueError, match="array of 2 fibres"):
        vlasov(PAIR, jnp.zeros(3), 1.0, dt=0.1, noise=0.1)
    limit = vlasov(PAIR, Identical(), 1.0, dt=0.1, noise=0.1, num_modes=4)
    with pytest.raises(ValueError, match="have 2 labels"):
        limit.init(PoissonKernel(jnp.zeros(3)))
    with pytest.raises(ValueError, match="at most the 4"):
        limit.local_moments(limit.init(UniformPhases()), 5)
    with pytest.raises(ValueError, match="below 1"):
        PoissonKernel(1.0)
    with pytest.raises(ValueError, match="at most 1"):
        CosinePhases(1.5)
