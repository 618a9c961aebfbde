"""Digraph measures: the table of spectra, quadrature labels, sums, gradients, transient growth."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import scipy.sparse.linalg
import scipy.special

from dynjax.meanfield import AllToAll, Dense, DigraphMeasure, LabelGrid, as_grid, label_spectrum, transient_growth
from dynjax.meanfield._measures.label_quadrature import gauss_jacobi, legendre

TREE = np.array([0, 0, 0, 1, 1, 2])


def library():
    """Every row of the table with its leading and its smallest eigenvalues, from independent formulas."""
    harmonics = np.repeat([scipy.special.eval_legendre(degree, 0.0) for degree in range(30)], 2 * np.arange(30) + 1)
    modes = np.arange(-3000, 3001)

    def band(radius):
        return 2 * radius * np.sinc(2 * modes * radius)

    blocks = np.array([[0.8, 0.2], [0.2, 0.4]])
    return {
        "complete": (DigraphMeasure.complete(), [1, 0, 0, 0]),
        "erdos_renyi": (DigraphMeasure.erdos_renyi(0.3), [0.3, 0, 0, 0]),
        "blocks": (
            DigraphMeasure.stochastic_block(blocks, [1, 3]),
            np.append(np.linalg.eigvals(blocks * [0.25, 0.75]), 0),
        ),
        "ring": (DigraphMeasure.ring(0.1), band(0.1)),
        "small_world": (DigraphMeasure.small_world(0.2, 0.1), 0.8 * band(0.2) + 0.1 * (modes == 0)),
        "power_law": (DigraphMeasure.power_law(0.25), [9 / 8, 0, 0]),
        "min_kernel": (DigraphMeasure.min_kernel(), 4 / ((2 * np.arange(1, 5) - 1) ** 2 * np.pi**2)),
        "max_kernel": (DigraphMeasure.max_kernel(), 4 / ((2 * np.arange(1, 5) - 1) ** 2 * np.pi**2)),
        "shift_ring": (DigraphMeasure.shift_ring(0.13), np.cos(2 * np.pi * np.array([0, 1, -1]) * 0.13)),
        "cycle": (DigraphMeasure.nearest_neighbour_cycle(), [1, 1, 1]),
        "sphere": (DigraphMeasure.sphere(), harmonics),
        "star": (DigraphMeasure.star(2.0, 3.0), [np.sqrt(6), -np.sqrt(6), 0, 0, 0]),
        "tree": (DigraphMeasure.tree(TREE, 0.7), [0.7, 0, 0, 0, 0, 0]),
        "volterra": (DigraphMeasure.volterra(), [0, 0, 0]),
    }


NAMES = list(library())


@pytest.mark.parametrize("name", NAMES)
def test_spectrum_by_formula(x64, name):
    measure, expected = library()[name]
    expected = np.sort(np.asarray(expected))[::-1]
    np.testing.assert_allclose(measure.spectrum(3), expected[:3], atol=1e-14)
    np.testing.assert_allclose(measure.spectral_abscissa(), expected[0], atol=1e-14)


@pytest.mark.parametrize("name", ["ring", "small_world", "sphere", "star"])
def test_smallest_eigenvalues_by_formula(x64, name):
    measure, expected = library()[name]
    np.testing.assert_allclose(measure.spectrum(2, which="smallest")[0], np.min(expected), atol=1e-14)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "shift_ring"])
def test_labels_reproduce_the_leading_eigenvalues(x64, name):
    """1e-12 on 128 labels: smooth, discontinuous (exact multipliers) and singular (Gauss-Jacobi) alike."""
    measure = library()[name][0]
    found = measure.spectrum(2, numerical=True, num_labels=128)
    np.testing.assert_allclose(found, measure.spectrum(2), atol=1e-12)


def test_labels_reproduce_all_cosines_of_the_shift(x64):
    """Shifts off the grid are exact on trigonometric polynomials."""
    found = DigraphMeasure.shift_ring(0.13).spectrum(32, numerical=True, num_labels=32)
    # The real mode at half the number of labels sees the real part of its multiplier.
    expected = np.sort(np.cos(2 * np.pi * np.arange(-15, 17) * 0.13))[::-1]
    np.testing.assert_allclose(found, expected, atol=1e-13)


def test_cells_reproduce_a_discontinuous_kernel_to_a_thousandth_on_2000_labels(x64):
    for measure in (DigraphMeasure.ring(0.1), DigraphMeasure.small_world(0.2, 0.1)):
        weights = np.asarray(measure.cells(2000).operator.as_matrix()[0])
        assert np.all(weights > -1e-15)
        found = np.sort(np.fft.rfft(weights).real)[::-1]
        np.testing.assert_allclose(found[0], measure.spectrum(1)[0], atol=1e-14)
        np.testing.assert_allclose(found[1], measure.spectrum(2)[1], atol=1e-6)
        np.testing.assert_allclose(found[-1], measure.spectrum(1, which="smallest")[0], atol=1e-5)


def test_a_kernel_with_a_jump_from_its_values(x64):
    """The general density: 1e-3 at 2000 midpoints."""
    ring = DigraphMeasure.from_kernel(
        lambda x, y: (jnp.abs(x - y - jnp.round(x - y)) <= 0.2) * 1.0, directed=False, space="circle", smooth=False
    )
    matrix = np.asarray(ring.cells(2000).operator.weights) / 2000
    value = scipy.sparse.linalg.eigsh(matrix, 2, which="LA", return_eigenvectors=False)
    np.testing.assert_allclose(value[::-1], DigraphMeasure.ring(0.2).spectrum(2), atol=1e-3)


def test_reference_rows(x64):
    """Rows 10 to 14 of the table of reference values."""
    for radius, value in ((0.1, -0.043247241637), (0.2, -0.075682672864), (0.25, -1 / (3 * np.pi))):
        found = DigraphMeasure.ring(radius).spectrum(1, which="smallest")[0]
        np.testing.assert_allclose(found, value, atol=1e-12)
    np.testing.assert_allclose(DigraphMeasure.small_world(0.2, 0.1).spectrum(1)[0], 0.42, atol=1e-15)
    block = DigraphMeasure.stochastic_block([[0.8, 0.2], [0.2, 0.4]], [1, 1])
    np.testing.assert_allclose(block.spectrum(1)[0], 0.441421356237, atol=1e-12)
    np.testing.assert_allclose(DigraphMeasure.max_kernel().spectrum(1)[0], 0.405284734569, atol=1e-12)
    np.testing.assert_allclose(DigraphMeasure.ring(0.1).spectrum(5)[4], 0.151365345728, atol=1e-12)


def test_power_law_field_on_graded_labels(x64):
    """Row 12: the stationary field of a rank-one graph, h = int w z with z(w), is exponentially accurate in the labels."""
    grid = DigraphMeasure.power_law(0.25).grid(24)
    weight = np.asarray(grid.operator.left[:, 0])
    coupling, h = 3.0, 0.5

    def update(h):
        force = coupling * weight * h
        return float(grid.mean(jnp.asarray(weight * (np.sqrt(1 + force**2) - 1) / force)))

    for _ in range(400):
        h = update(h)
    np.testing.assert_allclose(h, 0.591860535098, atol=1e-12)


@pytest.mark.parametrize("exponent", [0.0, 9e-4, 1e-3, 0.03, 0.3, 0.45, 0.49])
def test_power_law_labels_integrate_the_weight(x64, exponent):
    grid = DigraphMeasure.power_law(exponent).grid(40)
    weight = (1 - exponent) * grid.labels**-exponent
    np.testing.assert_allclose(grid.mean(jnp.ones(40)), 1, rtol=1e-13)
    exact = exponent == 0 or exponent > 1 / 1024
    np.testing.assert_allclose(grid.mean(weight), 1, rtol=1e-11 if exact else 1e-6)
    square = (1 - exponent) ** 2 / (1 - 2 * exponent)
    np.testing.assert_allclose(grid.mean(weight**2), square, rtol=1e-11 if exact else 1e-6)


def test_midpoints_fall_short_on_the_power_law(x64):
    """The trap: 1.1174 for 1.125 with 2000 midpoints."""
    factor = 0.75 * ((np.arange(2000) + 0.5) / 2000) ** -0.25
    np.testing.assert_allclose(np.mean(factor**2), 1.1174, atol=5e-5)
    np.testing.assert_allclose(
        DigraphMeasure.power_law(0.25).spectrum(1, numerical=True, num_labels=8)[0], 1.125, rtol=1e-13
    )


def test_gauss_jacobi_against_scipy(x64):
    for exponent in (-0.5, 0.3, 7.0, 97.0):
        nodes, weights = gauss_jacobi(30, jnp.asarray(exponent))
        expected, masses = scipy.special.roots_jacobi(30, 0, exponent)
        np.testing.assert_allclose(nodes, (expected + 1) / 2, atol=2e-15)
        np.testing.assert_allclose(weights, masses / 2 ** (exponent + 1), rtol=1e-11)


def test_kernels_with_a_kink_are_integrated_exactly(x64):
    """min(x, y) and 1 - max(x, y) applied to a cosine, against the closed form of the integral."""
    x = legendre(20).nodes
    low = DigraphMeasure.min_kernel().apply(jnp.cos(jnp.asarray(x)))
    np.testing.assert_allclose(low, np.cos(x) - 1 + x * np.sin(1), atol=1e-13)
    high = DigraphMeasure.max_kernel().apply(jnp.cos(jnp.asarray(x)))
    np.testing.assert_allclose(high, np.cos(x) - np.cos(1), atol=1e-13)


def test_smooth_kernel_against_quadrature(x64):
    measure = DigraphMeasure.from_kernel(lambda x, y: jnp.exp(-x * y) * (1 + x))
    grid = measure.grid(24)
    found = grid.operator.apply(jnp.sin(grid.labels))
    expected = [
        scipy.integrate.quad(lambda y, x=x: np.exp(-x * y) * (1 + x) * np.sin(y), 0, 1, epsabs=1e-13)[0]
        for x in np.asarray(grid.labels)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-13)


def test_directed_kernels_keep_their_direction(x64):
    """W(x, y) = x is driven at large x: the mass that arrives is x, not 1/2."""
    grid = DigraphMeasure.from_kernel(lambda x, y: x + 0 * y).grid(8)
    np.testing.assert_allclose(grid.operator.mass(), grid.labels, atol=1e-15)
    np.testing.assert_allclose(grid.operator.transpose().mass(), 8 * grid.weights / 2, atol=1e-15)


@pytest.mark.parametrize("name", NAMES)
def test_mass_arrives_whole(x64, name):
    """The total weight at each label, on quadrature labels and on cells."""
    measure = library()[name][0]
    for grid in (measure.grid(60), measure.cells(6 if name == "tree" else 60)):
        np.testing.assert_allclose(jnp.sum(grid.weights), 1, rtol=1e-13)
        x = grid.labels
        expected = {
            "erdos_renyi": 0.3,
            "blocks": 0.35,
            "ring": 0.2,
            "small_world": 0.42,
            "power_law": grid.operator.left[:, 0] if name == "power_law" else None,
            "min_kernel": x - x**2 / 2,
            "max_kernel": (1 - x**2) / 2,
            "star": jnp.where(x == 0, 3.0, 2.0),
            "tree": 0.7,
            "volterra": jnp.where(x == x[0], 0.0, x),
        }.get(name, 1.0)
        tolerance = 1e-4 if name in ("min_kernel", "max_kernel") else 1e-12
        np.testing.assert_allclose(grid.operator.mass(), jnp.broadcast_to(expected, x.shape[:1]), atol=tolerance)


def test_volterra_labels_are_nilpotent_and_of_second_order(x64):
    errors = []
    for count in (100, 200):
        grid = DigraphMeasure.volterra().grid(count)
        matrix = np.asarray(grid.operator.as_matrix())
        assert np.all(np.triu(matrix) == 0)
        found = grid.operator.apply(jnp.cos(grid.labels))
        errors.append(np.abs(found - np.sin(grid.labels))[1:].max())
    assert 3.8 < errors[0] / errors[1] < 4.2


def test_sums_add_their_multipliers(x64):
    mixed = 0.75 * DigraphMeasure.ring(0.1) + 0.25 * DigraphMeasure.shift_ring(0.3)
    q = np.arange(-3000, 3001)
    expected = 0.75 * 0.2 * np.sinc(0.2 * q) + 0.25 * np.cos(2 * np.pi * q * 0.3)
    np.testing.assert_allclose(mixed.spectrum(3), np.sort(expected)[::-1][:3], atol=1e-13)
    assert mixed.is_atomic
    assert mixed.is_symmetric
    inhibiting = -2.0 * DigraphMeasure.ring(0.1)
    np.testing.assert_allclose(inhibiting.spectrum(1)[0], 2 * 0.043247241637, atol=1e-11)
    np.testing.assert_allclose(inhibiting.spectrum(1, which="smallest")[0], -0.4, atol=1e-14)
    # No formula: p + min(x, y), largest root of the eigenvalue problem on a fine Gauss rule with the kink resolved.
    found = (DigraphMeasure.erdos_renyi(0.2) + DigraphMeasure.min_kernel()).spectrum(1, num_labels=400)[0]
    x = np.asarray((np.arange(3000) + 0.5) / 3000)
    matrix = (0.2 + np.minimum(x[:, None], x)) / 3000
    vector = np.ones(3000)
    for _ in range(60):
        vector = matrix @ vector
        value = np.linalg.norm(vector)
        vector /= value
    np.testing.assert_allclose(found, value, atol=2e-6)


def test_general_maps(x64):
    """A rotation by a quarter turn has the fourth roots of unity; a contraction its fixed point only."""
    turn = DigraphMeasure.atomic([lambda x: x + 0.25], [1.0], space="circle").grid(8)
    np.testing.assert_allclose(turn.operator.apply(turn.labels[:, None])[:, 0], np.roll(turn.labels, -2), atol=1e-14)
    halves = DigraphMeasure.atomic([lambda x: x / 2, lambda x: (1 + x) / 2], [0.5, 0.5]).grid(64)
    x = halves.labels
    # Interpolation is exact on linear functions away from the first and the last half cell.
    np.testing.assert_allclose(halves.operator.apply(x)[2:-2], (x / 2 + 0.25)[2:-2], atol=1e-14)


def test_trees_and_cycles_of_parents(x64):
    np.testing.assert_array_equal(DigraphMeasure.tree([-1, 0, 1, 1]).spectrum(3), 0)
    cycle = DigraphMeasure.tree([1, 2, 0, 0], 0.5)
    expected = np.linalg.eigvals(np.asarray(cycle.grid().operator.as_matrix()))
    found = cycle.spectrum(4)
    np.testing.assert_allclose(np.sort_complex(found), np.sort_complex(expected), atol=1e-12)


def test_gradients_of_the_leading_eigenvalue(x64):
    r, p, a = 0.2, 0.1, 0.25

    def top(measure):
        return measure.spectrum(1)[0]

    grads = jax.jit(jax.grad(lambda r, p: top(DigraphMeasure.small_world(r, p)), argnums=(0, 1)))(r, p)
    np.testing.assert_allclose(grads, (2 - 4 * p, 1 - 4 * r), atol=1e-13)
    exact = 2 * (1 - a) ** 2 / (1 - 2 * a) ** 2 - 2 * (1 - a) / (1 - 2 * a)
    np.testing.assert_allclose(jax.grad(lambda a: top(DigraphMeasure.power_law(a)))(a), exact, rtol=1e-13)

    def numerical(a):
        return DigraphMeasure.power_law(a).spectrum(1, numerical=True, num_labels=12)[0]

    np.testing.assert_allclose(jax.grad(numerical)(a), exact, rtol=1e-9)
    shift = jax.grad(lambda s: DigraphMeasure.shift_ring(s).spectrum(2)[1])(0.1)
    np.testing.assert_allclose(shift, -2 * np.pi * np.sin(0.2 * np.pi), rtol=1e-13)
    radius = jax.grad(lambda r: DigraphMeasure.ring(r).spectrum(1, which="smallest")[0])(0.1)
    np.testing.assert_allclose(radius, 2 * np.cos(2 * np.pi * 7 * 0.1), rtol=1e-12)
    block = jax.grad(lambda b: top(DigraphMeasure.stochastic_block(b, [1, 1], directed=False)))(
        jnp.asarray([[0.8, 0.2], [0.2, 0.4]])
    )
    _, vectors = np.linalg.eigh(np.array([[0.4, 0.1], [0.1, 0.2]]))
    np.testing.assert_allclose(block, np.outer(vectors[:, 1], vectors[:, 1]) / 2, atol=1e-13)
    jvp = jax.jvp(lambda p: top(DigraphMeasure.erdos_renyi(p)), (0.3,), (1.0,))[1]
    np.testing.assert_allclose(jvp, 1)


def test_grids_and_spectra_map_over_parameters(x64):
    radii = jnp.asarray([0.05, 0.1, 0.2])
    values = jax.vmap(lambda r: DigraphMeasure.ring(r).spectrum(4))(radii)
    np.testing.assert_allclose(values, [DigraphMeasure.ring(r).spectrum(4) for r in np.asarray(radii)], atol=1e-15)
    f = jnp.cos(2 * jnp.pi * (jnp.arange(32) + 0.5) / 32)
    applied = jax.jit(jax.vmap(lambda r: DigraphMeasure.ring(r).grid(32).operator.apply(f)))(radii)
    np.testing.assert_allclose(applied, np.sin(2 * np.pi * radii)[:, None] / np.pi * f, atol=1e-14)
    slope = jax.grad(lambda a: DigraphMeasure.power_law(a).grid(16).operator.mass().sum())(0.2)
    step = 1e-5
    ends = [DigraphMeasure.power_law(a).grid(16).operator.mass().sum() for a in (0.2 - step, 0.2 + step)]
    np.testing.assert_allclose(slope, (ends[1] - ends[0]) / (2 * step), rtol=1e-6)


def test_measures_pass_through_jit_as_arguments(x64):
    kernel = eqx.filter_jit(lambda measure: measure.spectrum(2))
    for measure, _ in library().values():
        np.testing.assert_allclose(kernel(measure), measure.spectrum(2), atol=1e-14)


def test_transient_growth_of_volterra(x64):
    """|exp(t V)| against scipy; rate 1/pi... of the symmetric part at first, and zero in the end."""
    times = [0.0, 2.0, 10.0]
    result = transient_growth(DigraphMeasure.volterra(), times, 120)
    matrix = np.tril(np.ones((120, 120)), -1) / 120 + np.eye(120, k=-1) / 240
    expected = [np.linalg.norm(scipy.linalg.expm(t * matrix), 2) for t in times]
    np.testing.assert_allclose(result.norms, expected, rtol=1e-10)
    assert float(result.norms[2]) > 30
    assert float(result.spectral_abscissa) == 0
    # (V + V*) / 2 is half the average: 1/2.
    np.testing.assert_allclose(result.numerical_abscissa, 0.5, atol=5e-3)
    assert "|exp(tA)|" in str(result)


def test_transient_growth_of_a_normal_measure_is_that_of_its_leading_eigenvalue(x64):
    result = transient_growth(DigraphMeasure.ring(0.2), [3.0], 32)
    np.testing.assert_allclose(result.norms, np.exp(3 * 0.4), rtol=1e-12)
    np.testing.assert_allclose(result.numerical_abscissa, result.spectral_abscissa, rtol=1e-12)


def test_as_grid(x64):
    graph = AllToAll(5)
    grid = as_grid(graph)
    np.testing.assert_allclose(grid.labels, (np.arange(5) + 0.5) / 5)
    np.testing.assert_allclose(grid.mean(jnp.arange(5) * 1j), 2j)
    assert as_grid(grid, 5) is grid
    assert as_grid(DigraphMeasure.ring(0.1), 12).num_labels == 12
    assert grid.mean(jnp.ones((5, 2, 3), jnp.float32)).dtype == jnp.float32
    with pytest.raises(ValueError, match="num_labels"):
        as_grid(graph, 6)
    with pytest.raises(TypeError, match="graph"):
        as_grid(np.eye(3))
    with pytest.raises(ValueError, match="labels"):
        LabelGrid(jnp.zeros(3), jnp.zeros(4), graph)
    with pytest.raises(ValueError, match="leading axis of 5"):
        grid.mean(jnp.ones(4))


def test_the_spectrum_of_a_large_directed_grid_by_arnoldi(x64, key):
    """Beyond 400 labels; a random rank-three graph against its small matrix."""
    left, right = np.asarray(jax.random.normal(key, (2, 500, 3)))
    grid = as_grid(Dense(left @ right.T))
    found = label_spectrum(grid, 2, symmetric=False)
    expected = np.linalg.eigvals(right.T @ left / 500)
    expected = expected[np.lexsort((-expected.imag, -expected.real))]
    np.testing.assert_allclose(found, expected[:2], atol=1e-9)


def test_single_precision():
    for name in ("blocks", "ring", "power_law", "min_kernel", "sphere"):
        measure, expected = library()[name]
        values = measure.spectrum(2)
        assert values.dtype == jnp.float32
        grid = measure.grid(32)
        assert grid.weights.dtype == jnp.float32
        assert grid.operator.mass().dtype == jnp.float32
        np.testing.assert_allclose(values[0], np.max(np.real(expected)), atol=2e-6)
        np.testing.assert_allclose(measure.spectrum(1, numerical=True, num_labels=32)[0], values[0], atol=1e-5)


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: DigraphMeasure.erdos_renyi(1.2), "p"),
        (lambda: DigraphMeasure.erdos_renyi(float("nan")), "p"),
        (lambda: DigraphMeasure.ring(0.0), "radius"),
        (lambda: DigraphMeasure.ring(0.6), "radius"),
        (lambda: DigraphMeasure.ring(float("nan")), "radius"),
        (lambda: DigraphMeasure.small_world(0.2, -0.1), "rewiring"),
        (lambda: DigraphMeasure.power_law(0.5), "exponent"),
        (lambda: DigraphMeasure.power_law(-0.1), "exponent"),
        (lambda: DigraphMeasure.stochastic_block([[0.1, 0.2]], [1]), "density"),
        (lambda: DigraphMeasure.stochastic_block([[np.nan]], [1]), "density"),
        (lambda: DigraphMeasure.stochastic_block([[0.1]], [-1]), "sizes"),
        (lambda: DigraphMeasure.stochastic_block([[0.1]], [1, 2]), "sizes"),
        (lambda: DigraphMeasure.star(np.inf, 1.0), "a"),
        (lambda: DigraphMeasure.tree([0, 7]), "parents"),
        (lambda: DigraphMeasure.tree([0.5]), "parents"),
        (lambda: DigraphMeasure.shift_ring(np.inf), "shifts"),
        (lambda: DigraphMeasure.shift_ring([0.1, 0.2]), "shift"),
        (lambda: DigraphMeasure.from_graphon(lambda x, y: x + 0 * y), "kernel"),
        (lambda: DigraphMeasure.from_kernel(lambda x, y: jnp.log(x - 1) + y), "kernel"),
        (lambda: DigraphMeasure.from_kernel(lambda x, y: jnp.ones(3)), "kernel"),
        (lambda: DigraphMeasure.atomic([], []), "maps"),
        (lambda: DigraphMeasure.atomic([lambda x: x], [1.0, 2.0]), "weights"),
        (lambda: DigraphMeasure.ring(0.1) + DigraphMeasure.complete(), "other"),
        (lambda: DigraphMeasure.ring(0.1).grid(0), "num_labels"),
        (lambda: DigraphMeasure.ring(0.1).spectrum(0), "k"),
        (lambda: DigraphMeasure.ring(0.1).spectrum(1, which="top"), "which"),
        (lambda: DigraphMeasure.star().grid(1), "num_labels"),
        (lambda: transient_growth(DigraphMeasure.volterra(), [-1.0]), "times"),
    ],
)
def test_bad_input(make, argument):
    with pytest.raises((ValueError, TypeError), match=rf"Argument `{argument}` must"):
        make()


def test_a_traced_block_density_needs_its_direction():
    with pytest.raises(ValueError, match="directed"):
        jax.jit(lambda b: DigraphMeasure.stochastic_block(b, [1, 1]).spectrum(1))(jnp.eye(2))
