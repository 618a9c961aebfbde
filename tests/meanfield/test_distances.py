"""Distances on the circle against linear programmes, closed forms and invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

from dynjax.meanfield._distances.bounded_lipschitz import bounded_lipschitz
from dynjax.meanfield._distances.circle_distance import CellMasses, Points, circle_wasserstein
from dynjax.meanfield._distances.fibre_distance import fibre_distance, fibre_distances, group_by_cells
from dynjax.meanfield._limits.phase_laws import CosinePhases, PoissonKernel, UniformPhases, VonMises

TURN = 2 * np.pi


def circle_gaps(a, b):
    gap = np.abs(a[:, None] - b[None]) / TURN % 1
    return np.minimum(gap, 1 - gap)


def transport_programme(a, wa, b, wb):
    """W1 by the Kantorovich programme."""
    n, m = len(a), len(b)
    rows = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    sums = np.concatenate([wa, wb])
    return linprog(circle_gaps(a, b).ravel(), A_eq=rows[:-1], b_eq=sums[:-1]).fun


def flat_programme(a, wa, b, wb):
    """sup of int f over |f| <= 1 and |f_i - f_j| <= d_ij, every pair."""
    x, sigma = np.concatenate([a, b]), np.concatenate([wa, -wb])
    n = len(x)
    i, j = (index.ravel() for index in np.meshgrid(np.arange(n), np.arange(n)))
    rows = np.eye(n)[i] - np.eye(n)[j]
    return -linprog(-sigma, A_ub=rows, b_ub=circle_gaps(x, x)[i, j], bounds=[(-1, 1)] * n).fun


def random_atoms(seed):
    """Always 8 and 6 atoms, for one compilation, but up to all but one of them without a weight."""
    rng = np.random.default_rng(seed)
    wa, wb = (rng.random(n) * (np.arange(n) < rng.integers(1, n + 1)) for n in (8, 6))
    return rng.uniform(-4, 9, 8), wa, rng.uniform(-4, 9, 6), wb


def test_wasserstein_is_the_transport_programme(x64):
    for seed in range(25):
        a, wa, b, wb = random_atoms(seed)
        wb = wb * wa.sum() / wb.sum()
        distance = circle_wasserstein(Points(a, wa), Points(b, wb))
        assert abs(distance - transport_programme(a, wa, b, wb)) < 1e-13


def test_bounded_lipschitz_is_its_programme_for_unequal_masses(x64):
    for seed in range(25):
        a, wa, b, wb = random_atoms(seed)
        if seed % 5 == 0:
            wb = 0.02 * wb  # a small mass against a large one
        distance = bounded_lipschitz(Points(a, wa), Points(b, wb))
        assert abs(distance - flat_programme(a, wa, b, wb)) < 1e-13


def test_bounded_lipschitz_equals_wasserstein_for_equal_masses(x64):
    """The general algorithm, forced by tracing, finds the median."""
    for seed in range(5):
        a, wa, b, wb = random_atoms(seed)
        first, second = Points(a, wa), Points(b, wb * wa.sum() / wb.sum())
        general = jax.jit(bounded_lipschitz)(first, second)
        assert abs(general - circle_wasserstein(first, second)) < 1e-12


def test_conventions_on_two_atoms(x64):
    """Two at 0 against one at 0.3: 1.3; unit atoms at the distance d: d, or 2 d / (2 + d)."""
    at = lambda turns: Points(TURN * jnp.array([turns]))
    assert abs(bounded_lipschitz(Points(jnp.zeros(1), 2.0), at(0.3)) - 1.3) < 1e-14
    assert abs(bounded_lipschitz(at(0.3), Points(jnp.zeros(1), 2.0)) - 1.3) < 1e-14
    for d in (0.01, 0.3, 0.5):
        assert abs(bounded_lipschitz(at(0.1), at(0.1 + d)) - d) < 1e-14
        assert abs(bounded_lipschitz(at(0.1), at(0.1 + d), convention="sum") - 2 * d / (2 + d)) < 1e-12
    # Removing a mass costs one, whatever the Lipschitz constant.
    assert abs(bounded_lipschitz(Points(jnp.zeros(1), 0.7), Points(jnp.zeros(1), 0.2), convention="sum") - 0.5) < 1e-12


def test_conventions_are_equivalent(x64):
    """With |f| <= 1 and Lip <= 1 the sum is at most 2: sum <= max <= 2 sum."""
    for seed in range(5):
        a, wa, b, wb = random_atoms(seed)
        high = bounded_lipschitz(Points(a, wa), Points(b, wb))
        low = bounded_lipschitz(Points(a, wa), Points(b, wb), convention="sum")
        assert low <= high + 1e-12
        assert high <= 2 * low + 1e-12


@pytest.mark.parametrize("count", [1, 4, 16, 1000])
def test_midpoints_are_a_quarter_of_a_gap_away(x64, count):
    distance = circle_wasserstein(UniformPhases().midpoints(count), CellMasses(jnp.ones(1)))
    assert abs(4 * count * distance - 1) < 1e-11


def test_quantiles_of_a_smooth_fibre(x64):
    """W1 of n quantile midpoints is 1 / (4 n) within 2 %, slope -1, whatever the density."""
    law = PoissonKernel(0.5, 0.7)
    cells = CellMasses(law.cell_masses(4096))
    counts = np.array([16, 32, 64, 128])
    distances = np.array([circle_wasserstein(law.midpoints(n), cells) for n in counts])
    np.testing.assert_allclose(4 * counts * distances, 1, atol=0.02)
    assert np.polyfit(np.log(counts), np.log(distances), 1)[0] == pytest.approx(-1, abs=0.05)


def test_iid_samples_against_the_uniform_law(x64, key):
    """Row 30: sqrt(N) E W1 = 0.227 +- 0.002 on the circle; 2000 draws have a standard error of about 0.0018."""
    angles = jax.random.uniform(key, (2000, 200), maxval=TURN)
    distances = np.sqrt(200) * np.asarray(fibre_distances(angles, CellMasses(jnp.ones(1))))
    error = distances.std() / np.sqrt(2000)
    assert error < 0.003
    assert abs(distances.mean() - 0.227) < 4 * error + 0.002


def test_densities_against_many_atoms(x64):
    """Piecewise constant densities, replaced by 400 atoms in every cell, are off by 1 / (4 * 400 * cells) at most."""
    rng = np.random.default_rng(3)
    a, b = rng.random(7), rng.random(5)
    a, b = a / a.sum(), b / b.sum()

    def atoms(masses, fine=400):
        cells = len(masses)
        x = TURN * ((np.arange(cells * fine) + 0.5) / (cells * fine)) - np.pi
        return Points(x, np.repeat(masses / fine, fine))

    exact = circle_wasserstein(CellMasses(a), CellMasses(b))
    bound = (1 / 7 + 1 / 5) / (4 * 400)
    assert abs(exact - circle_wasserstein(atoms(a), atoms(b))) < bound
    assert abs(circle_wasserstein(CellMasses(a), atoms(b)) - exact) < bound


def test_rotation_of_a_density(x64):
    """A rotation by phi moves the cosine law by W1 = amplitude |2 sin(phi / 2)| * 2 / (2 pi)^2 (F differs by a sine)."""
    amplitude, phi = 0.4, 0.9
    first, second = (CellMasses(CosinePhases(amplitude, 1, shift).cell_masses(2048)) for shift in (0.0, phi))
    # F = amplitude / (2 pi) * (a sine of amplitude 2 sin(phi / 2)) + const; the mean of |sin| is 2 / pi.
    expected = amplitude / TURN * 2 * np.sin(phi / 2) * 2 / np.pi
    assert abs(circle_wasserstein(first, second) - expected) < 1e-6


def test_invariance(x64):
    a, wa, b, wb = random_atoms(11)
    wb = wb * wa.sum() / wb.sum()
    distance = circle_wasserstein(Points(a, wa), Points(b, wb))
    for shift in (0.1, 1.0, 3.0, np.pi, 100.0, -a[0], -b[0]):
        assert abs(circle_wasserstein(Points(a + shift, wa), Points(b + shift, wb)) - distance) < 1e-13
        assert (
            abs(
                bounded_lipschitz(Points(a + shift, wa), Points(b + shift, 0.5 * wb))
                - bounded_lipschitz(Points(a, wa), Points(b, 0.5 * wb))
            )
            < 1e-13
        )
    assert abs(circle_wasserstein(Points(b, wb), Points(a, wa)) - distance) < 1e-14
    assert abs(circle_wasserstein(Points(-a, wa), Points(-b, wb)) - distance) < 1e-13
    assert circle_wasserstein(Points(a, wa), Points(a, wa)) < 1e-15


def test_a_pair_near_the_cut():
    """Neighbours on either side of the cut are near, in single precision too."""
    for base in (0.0, np.pi, -np.pi):
        distance = circle_wasserstein(jnp.array([base - 0.01]), jnp.array([base + 0.01]))
        assert float(distance) == pytest.approx(0.02 / TURN, abs=1e-6)


def test_gradient_is_a_finite_difference(x64, key):
    a, b = jax.random.uniform(key, (2, 6), minval=-3, maxval=3)
    for function in (circle_wasserstein, lambda x, y: bounded_lipschitz(Points(x, 0.3), Points(y))):
        slope = jax.grad(function)(a, b)
        for k in range(6):
            move = jnp.zeros(6).at[k].set(1e-6)
            difference = (function(a + move, b) - function(a - move, b)) / 2e-6
            assert abs(slope[k] - difference) < 1e-8


def test_gradient_in_the_weights(x64, key):
    a, b = jax.random.uniform(key, (2, 5), minval=-3, maxval=3)
    weights = jnp.array([0.1, 0.3, 0.2, 0.25, 0.4])
    function = lambda w: bounded_lipschitz(Points(a, w), Points(b, 0.1))
    slope = jax.jit(jax.grad(function))(weights)
    for k in range(5):
        move = jnp.zeros(5).at[k].set(1e-6)
        assert abs(slope[k] - (function(weights + move) - function(weights - move)) / 2e-6) < 1e-8


def test_coincident_points_have_finite_derivatives(x64):
    a = jnp.array([0.1, 0.1, 0.5, -2.0])
    for function in (lambda x: circle_wasserstein(x, a), lambda x: bounded_lipschitz(Points(x, 0.5), Points(a))):
        slope = jax.grad(function)(a)
        assert bool(jnp.all(jnp.isfinite(slope)))
        # No single phase is moved faster than its own weight, in turns.
        assert float(jnp.max(jnp.abs(slope))) <= 0.5 / TURN + 1e-12


def test_fibres(x64, key):
    a = jax.random.uniform(key, (3, 8), maxval=TURN)
    law = VonMises(jnp.array([0.5, 1.0, 2.0]), jnp.array([0.0, 1.0, 2.0]))
    cells = CellMasses(law.cell_masses(64))
    single = [circle_wasserstein(a[i], CellMasses(cells.masses[i])) for i in range(3)]
    np.testing.assert_allclose(fibre_distances(a, cells), single, rtol=1e-12)
    assert abs(fibre_distance(a, cells) - max(single)) < 1e-14
    weights = jnp.array([1.0, 2.0, 5.0])
    mean = fibre_distance(a, cells, kind="mean", weights=weights)
    assert abs(mean - np.dot(weights, single) / 8) < 1e-14
    flat = fibre_distance(Points(a, 0.2), Points(a[:, :5], 0.2), metric="bounded_lipschitz", kind="mean")
    assert abs(flat - 0.6) < 1e-12  # the other three atoms are removed, the rest stays
    np.testing.assert_array_equal(group_by_cells(jnp.arange(6), 3), [[0, 1], [2, 3], [4, 5]])


def test_errors(x64):
    two = jnp.zeros((2, 3))
    with pytest.raises(ValueError, match=r"mass of `first` in every fibre.*bounded_lipschitz"):
        circle_wasserstein(Points(jnp.zeros(2), 1.0), jnp.zeros(2))
    with pytest.raises(ValueError, match="in fibre 1"):
        fibre_distance(Points(two, jnp.array([[1.0], [2.0]])), Points(two, 1.0))
    with pytest.raises(ValueError, match="fibre axis"):
        circle_wasserstein(two, two)
    with pytest.raises(ValueError, match="as many fibres"):
        fibre_distance(two, jnp.zeros((3, 3)))
    with pytest.raises(ValueError, match="'sup' or 'mean'"):
        fibre_distance(two, two, kind="max")
    with pytest.raises(ValueError, match="finite and at least 0"):
        Points(jnp.zeros(2), jnp.array([1.0, -1.0]))
    with pytest.raises(ValueError, match="must be real"):
        Points(jnp.zeros(2, complex))
    with pytest.raises(TypeError, match="density"):
        bounded_lipschitz(CellMasses(jnp.ones(4)), CellMasses(jnp.ones(3)))
    with pytest.raises(ValueError, match="'max' or 'sum'"):
        bounded_lipschitz(jnp.zeros(2), jnp.zeros(2), convention="both")
    with pytest.raises(ValueError, match="divide the number"):
        group_by_cells(jnp.arange(7), 2)
