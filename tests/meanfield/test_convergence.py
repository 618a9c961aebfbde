"""Particles against their limits: rates, the Dobrushin bound, fits with known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynjax.meanfield import AllToAll, Dense, Lorentzian, kuramoto, order_parameter
from dynjax.meanfield._distances.convergence import convergence_report, convergence_study
from dynjax.meanfield._distances.dobrushin import dobrushin_bound, dobrushin_certificate
from dynjax.meanfield._distances.fibre_distance import fibre_distance, fibre_distances
from dynjax.meanfield._limits.ott_antonsen import ott_antonsen
from dynjax.meanfield._limits.phase_laws import PoissonKernel
from dynjax.meanfield._limits.vlasov import vlasov
from dynjax.systems import Flow, evolve, trajectory


def shift_ring(num_cells, shift):
    """(delta_{x+s} + delta_{x-s}) / 2 on the labels of `num_cells` cells."""
    forward = np.roll(np.eye(num_cells), shift, axis=1)
    return Dense(num_cells * (forward + forward.T) / 2)


def cell_particles(operator, frequencies, coupling, dt):
    """Oscillators (cells, points) that feel the averages of the cells that drive their own."""

    def slope(t, theta, args):
        pair = jnp.stack([jnp.mean(jnp.cos(theta), axis=1), jnp.mean(jnp.sin(theta), axis=1)], axis=1)
        h = coupling * operator.apply(pair)
        return frequencies + h[:, 1:] * jnp.cos(theta) - h[:, :1] * jnp.sin(theta)

    return Flow(slope, dt)


def test_power_law_is_recovered_exactly(x64):
    sizes = np.array([10.0, 100.0, 1000.0])
    report = convergence_report(sizes, 3 * sizes**-0.5)
    assert abs(report.slope + 0.5) < 1e-13
    assert abs(report.constant - 3) < 1e-12
    assert report.slope_error < 1e-13
    assert int(report.status) == 1


def test_interval_covers_as_often_as_it_says(x64, key):
    """Log-normal errors about 2 N^-0.7: the 90 % interval holds the slope in 90 % of 2000 reports, standard error 0.7 %."""
    sizes = jnp.array([50.0, 100.0, 200.0, 400.0])
    scatter = 0.4 * jax.random.normal(key, (2000, 4, 3))
    errors = 2 * sizes[:, None] ** -0.7 * jnp.exp(scatter)
    report = jax.vmap(lambda e: convergence_report(sizes, e, confidence=0.9))(errors)
    covered = (report.slope_interval[:, 0] < -0.7) & (report.slope_interval[:, 1] > -0.7)
    assert abs(float(jnp.mean(covered)) - 0.9) < 4 * 0.0067


def test_constant_is_that_of_the_root_mean_square(x64, key):
    """The root mean square of log-normal errors is exp(0.4^2) times their median; 0.25 % is the standard error at 4 x 9000."""
    sizes = np.array([50.0, 100.0, 200.0, 400.0])
    errors = 2 * sizes[:, None] ** -0.7 * np.exp(0.4 * np.random.default_rng(1).standard_normal((4, 9000)))
    report = convergence_report(sizes, errors)
    level = np.exp(np.mean(np.log(sizes)))
    expected = 2 * level**-0.7 * np.exp(0.16)
    assert abs(float(report.constant * level**report.slope) / expected - 1) < 4 * 0.0025


def test_slope_against_numpy(x64):
    rng = np.random.default_rng(0)
    sizes, errors = np.array([8, 32, 100]), rng.random((3, 5)) + 0.1
    report = convergence_report(sizes, errors)
    x, y = np.repeat(np.log(sizes), 5), np.log(errors).ravel()
    (slope, _), covariance = np.polyfit(x, y, 1, cov="unscaled")
    residual = y - np.polyval(np.polyfit(x, y, 1), x)
    assert abs(report.slope - slope) < 1e-12
    assert abs(report.slope_error - np.sqrt(covariance[0, 0] * np.sum(residual**2) / 13)) < 1e-12


def test_report_reads_well_and_marks_bad_errors(x64):
    text = str(convergence_report([10, 100, 1000], [0.3, 0.1, 0.03]))
    assert "slope -0.5" in text
    assert "95 %" in text
    assert len(text.splitlines()) == 6
    zero = convergence_report([10, 100, 1000], [0.3, 0.0, 0.03])
    broken = convergence_report([10, 100, 1000], [0.3, np.nan, 0.03])
    assert (int(zero.status), int(broken.status)) == (9, 3)
    assert bool(jnp.isnan(zero.slope) & jnp.isnan(broken.slope))


def test_report_errors():
    with pytest.raises(ValueError, match="two different"):
        convergence_report([10, 10, 10], [1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="three at least"):
        convergence_report([10, 20], [1.0, 1.0])
    with pytest.raises(ValueError, match="Argument `errors` must have the shape"):
        convergence_report([10, 20], [1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="between 0 and 1"):
        convergence_report([10, 20, 30], [1.0, 1.0, 1.0], confidence=95)


def test_order_parameter_of_particles(x64, key):
    """Lorentzian transient from r = 0.5, K = 4, t = 2: slope -1/2, constant about 0.65 (row 4 is the limit)."""
    limit = ott_antonsen(AllToAll(1), Lorentzian(1.0), 4.0)
    exact = limit.order_parameter(limit.solve(limit.init(0.5), [0.0, 2.0], rtol=1e-11, atol=1e-12).final)

    def particles(size, key):
        phases, speeds = jax.random.split(key)
        start = PoissonKernel(0.5).quantile(jax.random.uniform(phases, (size,), minval=1e-9))
        run = kuramoto(AllToAll(size), Lorentzian(1.0).sample(size, speeds), 4.0, dt=0.05)
        return order_parameter(evolve(run, run.init(start), num_steps=40))

    # The logarithm of a half-normal error scatters by 1.11, which makes the standard error of the slope 0.038.
    sizes = [100, 800, 6400]
    report = convergence_study(particles, exact, sizes, num_replicates=100, key=key)
    assert report.slope_interval[0] < -0.5 < report.slope_interval[1]
    assert report.slope_error < 0.045
    np.testing.assert_allclose(np.asarray(report.errors) * np.sqrt(sizes), 0.65, rtol=0.3)


def test_fibres_of_the_shift_ring(x64, key):
    """Not a graphon: with 8 cells of n iid particles W1 of each fibre to its Ott-Antonsen solution falls like n^(-1/2)."""
    cells, coupling, time = 8, 3.0, 1.0
    operator = shift_ring(cells, 2)
    # Starts that differ from cell to cell.
    x = jnp.arange(cells) / cells
    law = PoissonKernel(0.5 + 0.2 * jnp.cos(2 * jnp.pi * x), jnp.sin(2 * jnp.pi * x))
    limit = ott_antonsen(operator, Lorentzian(0.5), coupling)
    final = limit.solve(limit.init(law), [0.0, time], rtol=1e-10, atol=1e-11).final
    fibres = limit.fibre_measure(final, 512)

    def particles(size, key):
        phases, speeds = jax.random.split(key)
        levels = jax.random.uniform(phases, (cells, size), minval=1e-9)
        start = jax.vmap(lambda r, a, u: PoissonKernel(r, a).quantile(u))(law.radius, law.phase, levels)
        speed = jnp.clip(0.5 * jnp.tan(jnp.pi * (jax.random.uniform(speeds, (cells, size)) - 0.5)), -60, 60)
        return evolve(cell_particles(operator, speed, coupling, 0.02), start, num_steps=50)

    mean = lambda run, fibres: fibre_distance(run, fibres, kind="mean")
    for distance in (mean, fibre_distance):
        report = convergence_study(particles, fibres, [32, 128, 512], num_replicates=8, key=key, distance=distance)
        assert float(report.slope) == pytest.approx(-0.5, abs=0.05)
        assert float(report.slope_error) < 0.05
    # Of the order of what as many independent uniform phases have, 0.227 / sqrt(n).
    assert 0.1 < float(report.errors[-1]) * np.sqrt(512) < 0.6


def test_dobrushin_bound_holds_along_the_flow(x64):
    """Two starts on one directed graph: the bound holds at every saved time."""
    operator = Dense(np.array([[1.0, 0.4, 0.0], [0.2, 1.3, 0.5], [0.0, 0.0, 2.0]]))
    coupling = 1.5
    limit = vlasov(operator, jnp.array([0.2, -0.4, 0.0]), coupling, dt=0.02, method="tracers", num_tracers=256)
    starts = [limit.init(PoissonKernel(jnp.array([0.3, 0.5, 0.1]), angle)) for angle in (0.0, 0.4)]
    orbits = [trajectory(limit, start, num_steps=100, save_every=10) for start in starts]
    measured = jnp.stack([fibre_distance(a[:, 0], b[:, 0]) for a, b in zip(orbits[0].ys, orbits[1].ys, strict=True)])
    certificate = dobrushin_certificate(orbits[0].ts, measured, coupling, jnp.max(operator.mass()))
    assert bool(certificate.holds)
    assert "holds at 11 times" in str(certificate)
    # The bound has teeth: twice its rate is found out.
    rate = 2 * coupling * float(jnp.max(operator.mass()))
    assert not bool(dobrushin_certificate([0.0, 0.1], [0.01, 0.01 * np.exp(0.2 * rate)], coupling, rate / 3).holds)


def test_dobrushin_bound_with_two_graphs(x64):
    """The forcing of another graph: complete graphs of weights 1 and 1 + d are at the distance d, fibres are all alike."""
    coupling, d = 1.0, 0.1
    runs = []
    for weight in (1.0, 1.0 + d):
        limit = vlasov(AllToAll(1, weight), jnp.zeros(1), coupling, dt=0.02, method="tracers", num_tracers=128)
        runs.append(trajectory(limit, limit.init(PoissonKernel(0.5)), num_steps=100, save_every=10))
    measured = jnp.stack([fibre_distance(a[:, 0], b[:, 0]) for a, b in zip(runs[0].ys, runs[1].ys, strict=True)])
    certificate = dobrushin_certificate(runs[0].ts, measured, coupling, 1.0, graph_distance=d)
    assert bool(certificate.holds)
    assert measured[-1] > 0
    assert not bool(dobrushin_certificate(runs[0].ts, measured, coupling, 1.0).holds)


def test_dobrushin_formula(x64):
    """By hand, and without NaN where there is no coupling."""
    assert abs(dobrushin_bound(1.5, 2.0, 0.5) - np.exp(3)) < 1e-13
    np.testing.assert_allclose(dobrushin_bound(0.0, 1.0, jnp.array([0.0, 3.0]), 0.2), 0.2)
    forced = dobrushin_bound(2.0, 1.0, 0.3, 0.0, graph_distance=0.1, lipschitz=0.5)
    assert abs(forced - 2 * (1 / (2 * np.pi) + 0.5) * 0.1 * np.expm1(1.2) / 4) < 1e-15
    slope = jax.grad(lambda k: dobrushin_bound(k, 1.0, 0.3, 0.0, graph_distance=0.1))(0.0)
    assert abs(slope - 0.03 / (2 * np.pi)) < 1e-15


def test_certificate_errors():
    with pytest.raises(ValueError, match="as long as `times`"):
        dobrushin_certificate([0.0, 1.0], [0.1], 1.0, 1.0)
    with pytest.raises(ValueError, match="increase"):
        dobrushin_certificate([0.0, 0.0], [0.1, 0.1], 1.0, 1.0)


def test_distances_of_equal_families_vanish(x64):
    angles = jnp.linspace(-3, 3, 12).reshape(3, 4)
    np.testing.assert_allclose(fibre_distances(angles, angles), 0, atol=1e-16)
