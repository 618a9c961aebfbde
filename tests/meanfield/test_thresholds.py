import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special
from scipy.optimize import brentq

from dynjax import reference
from dynjax.meanfield import (
    AllToAll,
    Dense,
    DigraphMeasure,
    Gaussian,
    Identical,
    Lorentzian,
    MeanFieldWarning,
    Sparse,
    Uniform,
    critical_coupling,
    growth_rate,
    leading_root,
    stationary_order_parameter,
)

# Three oscillators in a directed ring with back-coupling of the other sign: eigenvalues 0.1 and -0.05 +- 1.65 i.
ROTATION = 3 * (np.roll(np.eye(3), 1, axis=1) - 0.9 * np.roll(np.eye(3), -1, axis=1))


def test_sparse_graphs_of_low_degree_warn():
    """A lattice with four neighbours has no mean field; a small dense graph is not meant."""
    nodes = np.arange(200)
    sources = np.concatenate([np.roll(nodes, shift) for shift in (-2, -1, 1, 2)])
    lattice = Sparse.from_edges(sources, np.tile(nodes, 4), num_nodes=200, scale="degree")
    for function in (critical_coupling, lambda *args: stationary_order_parameter(*args, 4.0)):
        with pytest.warns(MeanFieldWarning, match="mean degree 4"):
            function(lattice, Lorentzian(1.0))
        function(Dense(np.ones((4, 4))), Lorentzian(1.0))


def test_complete_graph(x64):
    graph = AllToAll(7)
    values = [
        (Lorentzian(1.0), 0.0, 2.0),
        (Lorentzian(1.0, 5.0), 0.5, 3.0),
        (Gaussian(1.0), 0.0, 1.595769121606),
        (Gaussian(1.0), 0.5, 2.282155540736),
        (Uniform(1.0), 0.0, 4 / np.pi),
        (Uniform(2.0), 0.3, reference.uniform_critical_coupling(2.0, 0.3)),
        (Identical(), 0.5, 1.0),
        (Identical(), 0.0, 0.0),
    ]
    for law, noise, expected in values:
        np.testing.assert_allclose(critical_coupling(graph, law, noise=noise), expected, atol=1e-12)
        assert critical_coupling(graph, law, noise=noise, branch="negative") == -np.inf


def test_measures_of_the_library(x64):
    law = Lorentzian(1.0)
    ring = DigraphMeasure.ring(0.2)
    np.testing.assert_allclose(critical_coupling(ring, law), 5.0, rtol=1e-12)
    negative = critical_coupling(ring, law, branch="negative")
    np.testing.assert_allclose(negative, 2 / reference.ring_smallest_eigenvalue(0.2)[1], rtol=1e-10)
    blocks = DigraphMeasure.stochastic_block(np.array([[0.8, 0.2], [0.2, 0.4]]), np.array([0.5, 0.5]))
    np.testing.assert_allclose(critical_coupling(blocks, law), 4.530818393219, rtol=1e-11)
    np.testing.assert_allclose(critical_coupling(DigraphMeasure.power_law(0.25), law), 16 / 9, rtol=1e-10)
    np.testing.assert_allclose(critical_coupling(DigraphMeasure.small_world(0.2, 0.1), law), 2 / 0.42, rtol=1e-10)
    np.testing.assert_allclose(critical_coupling(DigraphMeasure.star(2.0, 0.5), law), 2.0, rtol=1e-10)
    assert critical_coupling(DigraphMeasure.volterra(), law) == np.inf


def test_design_by_gradient(x64):
    slope = jax.grad(lambda radius: critical_coupling(DigraphMeasure.ring(radius), Gaussian(1.0)))(0.2)
    np.testing.assert_allclose(slope, -np.sqrt(8 / np.pi) / (2 * 0.2**2), rtol=1e-10)


def test_harmonics(x64):
    coefficients = np.array([0.3, 1.0, -1.0])
    graph = AllToAll(3)
    np.testing.assert_allclose(
        critical_coupling(graph, Identical(), noise=0.5, harmonics=coefficients), 2.0, rtol=1e-12
    )
    found = critical_coupling(graph, Identical(), noise=0.5, harmonics=coefficients, branch="negative")
    np.testing.assert_allclose(found, -3.0, rtol=1e-12)
    # Mode m sees the noise m D, as its frequencies and its noise m w and m^2 D scale.
    found = critical_coupling(graph, Gaussian(1.0), noise=0.2, harmonics=coefficients)
    expected = min(reference.gaussian_critical_coupling(1.0, m * 0.2) / a for m, a in ((1, 0.3), (2, 1.0)))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_harmonics_on_a_graph_with_eigenvalues_of_both_signs(x64):
    graph = Dense(2 * np.array([[0.0, 2.0], [1.0, 0.0]]))
    found = critical_coupling(graph, Identical(), noise=1.0, harmonics=[-1.0, 0.1])
    np.testing.assert_allclose(found, np.sqrt(2), rtol=1e-12)


@pytest.mark.parametrize("law", [Lorentzian, Gaussian, Uniform])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_complex_eigenvalues(x64, law, noise):
    matrix = 5 * (ROTATION + 0.8 * np.eye(3))
    found = critical_coupling(Dense(matrix), law(1.0), noise=noise)
    assert abs(growth_rate(Dense(matrix), law(1.0), found, noise)) < 1e-10
    assert growth_rate(Dense(matrix), law(1.0), 0.99 * found, noise) < 0
    assert growth_rate(Dense(matrix), law(1.0), 1.01 * found, noise) > 0
    h = 1e-6
    if noise:
        expected = [critical_coupling(Dense(matrix), law(1.0), noise=noise + step) for step in (h, -h)]
        slope = jax.grad(lambda noise: critical_coupling(Dense(matrix), law(1.0), noise=noise))(noise)
        np.testing.assert_allclose(slope, (expected[0] - expected[1]) / (2 * h), rtol=1e-6)


def test_rotating_threshold_agrees_with_the_integral(x64):
    # One complex pair that matters: K zeta R(D + i y) / 2 = 1, solved by scipy.
    matrix = 5 * (ROTATION + 0.8 * np.eye(3))
    thresholds = []
    resolvent = lambda y: np.sqrt(np.pi / 2) * special.wofz(1j * (0.3 + 1j * y) / np.sqrt(2))
    for zeta in np.linalg.eigvals(matrix / 3):
        if zeta.imag < -1e-9 or zeta.real < 0:
            continue
        y = brentq(lambda y, z=zeta: (z * resolvent(y)).imag, 0, 20) if zeta.imag > 1e-9 else 0.0
        thresholds.append(2 / (zeta * resolvent(y)).real)
    found = critical_coupling(Dense(matrix), Gaussian(1.0), noise=0.3)
    np.testing.assert_allclose(found, min(thresholds), rtol=1e-10)


def test_growth_rates(x64):
    graph = AllToAll(4)
    np.testing.assert_allclose(growth_rate(graph, Gaussian(1.0), 2.0), 0.302630840712, atol=1e-12)
    np.testing.assert_allclose(growth_rate(graph, Gaussian(1.0), 1.0), -0.517912715992, atol=1e-12)
    np.testing.assert_allclose(growth_rate(graph, Lorentzian(1.0), 3.0, 0.2), 0.3, atol=1e-12)
    np.testing.assert_allclose(growth_rate(graph, Identical(), 3.0, 0.2), 1.3, atol=1e-12)
    np.testing.assert_allclose(growth_rate(graph, Uniform(1.0), 1.5), 1 / np.tan(2 / 1.5), atol=1e-12)
    assert growth_rate(graph, Uniform(1.0), 0.6) == -np.inf
    np.testing.assert_allclose(leading_root(graph, Lorentzian(1.0, 0.7), 3.0), 0.5 + 0.7j, atol=1e-12)
    h = 1e-6
    for law in (Gaussian(1.0), Uniform(1.0)):
        slope = jax.grad(lambda k, law=law: growth_rate(graph, law, k))(2.0)
        expected = (growth_rate(graph, law, 2 + h) - growth_rate(graph, law, 2 - h)) / (2 * h)
        np.testing.assert_allclose(slope, expected, rtol=1e-8)


def test_numerical_spectra_small_and_large(x64):
    rng = np.random.default_rng(1)
    matrix = (rng.random((450, 450)) < 0.2).astype(float)
    for size in (300, 450):
        part = matrix[:size, :size]
        expected = np.sqrt(8 / np.pi) / np.max(np.linalg.eigvals(part / size).real)
        np.testing.assert_allclose(critical_coupling(Dense(part), Gaussian(1.0)), expected, rtol=1e-11)
    # The derivative along the matrix itself: Kc is homogeneous of degree -1.
    slope = jax.grad(lambda factor: critical_coupling(Dense(factor * matrix), Gaussian(1.0)))(1.0)
    np.testing.assert_allclose(slope, -expected, rtol=1e-8)


def test_derivative_in_every_weight(x64):
    rng = np.random.default_rng(2)
    matrix, direction, h = rng.random((12, 12)), rng.random((12, 12)), 1e-6
    value = lambda matrix: critical_coupling(Dense(matrix), Gaussian(1.0), noise=0.1)
    slope = np.sum(np.asarray(jax.grad(value)(jnp.asarray(matrix))) * direction)
    expected = (value(matrix + h * direction) - value(matrix - h * direction)) / (2 * h)
    np.testing.assert_allclose(slope, expected, rtol=1e-7)


@pytest.mark.parametrize("size", [40, 450])
def test_graphs_without_cycles_have_no_threshold(x64, size):
    graph = Dense(np.tril(np.ones((size, size)), -1))
    assert critical_coupling(graph, Gaussian(1.0)) == np.inf
    if size == 40:
        np.testing.assert_allclose(growth_rate(graph, Lorentzian(1.0), 30.0), -1, atol=1e-12)


def test_jit_and_vmap(x64):
    noises = jnp.asarray([0.0, 0.2, 1.0])
    graph = Dense(np.random.default_rng(3).random((6, 6)))
    found = jax.jit(jax.vmap(lambda noise: critical_coupling(graph, Uniform(1.0), noise=noise)))(noises)
    expected = [critical_coupling(graph, Uniform(1.0), noise=float(noise)) for noise in noises]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_errors():
    with pytest.raises(ValueError, match="Argument `noise` must be finite and not negative"):
        critical_coupling(AllToAll(3), Gaussian(1.0), noise=-1.0)
    with pytest.raises(TypeError, match="Argument `measure` must be a DigraphMeasure"):
        critical_coupling(np.ones((3, 3)), Gaussian(1.0))
    with pytest.raises(TypeError, match="Argument `frequencies` must be a law"):
        critical_coupling(AllToAll(3), np.ones(3))
    with pytest.raises(ValueError, match="Argument `branch` must be"):
        critical_coupling(AllToAll(3), Gaussian(1.0), branch="both")
    with pytest.raises(ValueError, match="Argument `harmonics` must be a vector"):
        critical_coupling(AllToAll(3), Gaussian(1.0), harmonics=1.0)
