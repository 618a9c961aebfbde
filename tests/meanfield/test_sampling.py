"""Finite graphs drawn from digraph measures: degrees, spectra, direction, determinism, warnings."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg

from dynjax.meanfield import AllToAll, Combination, DigraphMeasure, InCells, Sparse, Window
from dynjax.meanfield._measures.random_edges import convolution_edges, draw_positions, thinned_edges
from dynjax.meanfield._particles.validity import MeanFieldWarning

BLOCKS = np.array([[0.8, 0.2], [0.2, 0.4]])


def matrix_of(graph):
    """a_ij as a scipy matrix from the lists of edges, without a product with the operator."""
    factor = 1.0
    if isinstance(graph, Combination):
        factor, graph = float(graph.coefficients[0]), graph.parts[0]
    sources, targets = (np.asarray(part) for part in graph.edges())
    shape = (graph.num_nodes, graph.num_nodes)
    return scipy.sparse.csr_array((np.full(len(sources), factor), (targets, sources)), shape=shape)


def top(matrix):
    """The leading eigenvalue of a / N."""
    start = np.ones(matrix.shape[0])
    which = "LR"
    return float(scipy.sparse.linalg.eigs(matrix / matrix.shape[0], 1, which=which, v0=start)[0][0].real)


def test_positions_are_independent_trials():
    generator = np.random.default_rng(0)
    for size, chance in ((5000, 0.3), (200_000, 0.001), (10, 1.0), (10, 0.0), (0, 0.5)):
        places = draw_positions(generator, size, chance)
        assert np.all(np.diff(places) > 0)
        assert len(places) == 0 or (places[0] >= 0 and places[-1] < size)
        assert abs(len(places) - size * chance) <= 4 * np.sqrt(size * chance * (1 - chance)) + 1e-9
    # Every position is hit equally often: 400 draws of 20 positions, 4 standard errors.
    hits = np.bincount(np.concatenate([draw_positions(generator, 20, 0.3) for _ in range(400)]), minlength=20)
    assert np.all(np.abs(hits - 120) < 4 * np.sqrt(400 * 0.3 * 0.7))


@pytest.mark.parametrize("num_nodes", [2, 3, 8, 9])
@pytest.mark.parametrize("directed", [False, True])
def test_all_pairs_are_listed_once(num_nodes, directed):
    """With probability one every ordered pair appears exactly once, in both ways to draw."""
    generator = np.random.default_rng(0)
    by_distance = convolution_edges(generator, num_nodes, [(1, 1, 1.0), (2, num_nodes // 2, 1.0)], directed)
    breaks = np.unique([0, num_nodes // 2, num_nodes])
    by_ranges = thinned_edges(generator, breaks, lambda r, s: 1.0, lambda i, j: np.ones(i.shape), directed)
    for source, target in (by_distance, by_ranges):
        pairs = np.zeros((num_nodes, num_nodes), int)
        np.add.at(pairs, (target, source), 1)
        np.testing.assert_array_equal(pairs, 1 - np.eye(num_nodes, dtype=int))


CASES = {
    "erdos_renyi": (DigraphMeasure.erdos_renyi, (0.1,), lambda x, y: 0.1 + 0 * x * y),
    "small_world": (
        DigraphMeasure.small_world,
        (0.2, 0.1),
        lambda x, y: np.where(np.abs(x - y - np.round(x - y)) < 0.2 + 1e-9, 0.9, 0.1),
    ),
    "blocks": (
        DigraphMeasure.stochastic_block,
        (BLOCKS, [1, 1]),
        lambda x, y: BLOCKS[(x >= 0.5) * 1, (y >= 0.5) * 1],
    ),
    "directed_blocks": (
        DigraphMeasure.stochastic_block,
        ([[0.1, 0.4], [0.0, 0.3]], [1, 1]),
        lambda x, y: np.array([[0.1, 0.4], [0.0, 0.3]])[(x >= 0.5) * 1, (y >= 0.5) * 1],
    ),
    "graphon": (DigraphMeasure.from_graphon, (lambda x, y: (x + y) / 2,), lambda x, y: (x + y) / 2),
    "kernel": (DigraphMeasure.from_kernel, (lambda x, y: x * (1 - y),), lambda x, y: x * (1 - y)),
}


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("mean_degree", [None, 20.0])
def test_edges_are_independent_with_the_given_probabilities(name, mean_degree, key):
    """Edges in an 8 x 8 table of ranges of nodes: each within 4.5 standard errors, the whole within 4."""
    make, arguments, kernel = CASES[name]
    size = 480
    measure = make(*arguments)
    graph = measure.sample(size, key, mean_degree=mean_degree)
    edges = (matrix_of(graph) != 0).toarray()
    assert not np.any(np.diag(edges))
    assert np.array_equal(edges, edges.T) == measure.is_symmetric
    x = (np.arange(size) + 0.5) / size
    chance = kernel(x[:, None], x)
    if mean_degree is not None:
        rho = mean_degree / (size * float(measure.part.mean_density()))
        chance = np.minimum(rho * chance, 1)
        np.testing.assert_allclose(matrix_of(graph).data, 1 / rho, rtol=1e-6)
    chance = chance * (1 - np.eye(size))

    def table(values):
        return values.reshape(8, size // 8, 8, size // 8).sum(axis=(1, 3))

    # Undirected: two entries a pair, so twice the variance on the diagonal of the table.
    doubled = 2 if measure.is_symmetric else 1
    variance = table(chance * (1 - chance)) * np.where(np.eye(8) > 0, doubled, 1)
    assert np.all(np.abs(table(edges * 1.0) - table(chance)) <= 4.5 * np.sqrt(variance) + 1e-9)
    total = doubled * np.sum(chance * (1 - chance))
    assert abs(edges.sum() - chance.sum()) < 4 * np.sqrt(total)


def test_power_law_degrees_without_clipping(key):
    """In ranges of nodes of like weight the arriving weight is w within 4 standard errors, hubs and leaves alike."""
    size = 4000
    graph = DigraphMeasure.power_law(0.25).sample(size, key)
    factor = 0.75 * ((np.arange(size) + 0.5) / size) ** -0.25
    rho = 1 / factor[0] ** 2
    weights = matrix_of(graph)
    np.testing.assert_allclose(weights.data, 1 / rho, rtol=1e-5)
    arriving = np.asarray(weights.sum(axis=1)) / size
    expected = factor * (factor.sum() - factor) / size
    for start, end in ((0, 1), (1, 4), (4, 32), (32, 256), (256, 1024), (1024, 4000)):
        # A sum of Bernoulli variables times 1 / (rho N); edges inside the range count twice.
        spread = np.sqrt(2 * expected[start:end].sum() / (rho * size))
        assert abs(arriving[start:end].sum() - expected[start:end].sum()) < 4 * spread
    np.testing.assert_allclose(graph.mean_degree, rho * size, rtol=0.05)


def test_leading_eigenvalue_of_erdos_renyi_samples():
    """Mean of lambda - p is (1 - 2 p) / N (loops -p, noise 1 - p); the spread of one is sqrt(2 p (1 - p)) / N."""
    size, p, draws = 400, 0.1, 40
    measure = DigraphMeasure.erdos_renyi(p)
    values = []
    for seed in range(draws):
        sources, targets = measure.part.edges(size, np.random.default_rng(seed), 1.0, False, False)
        values.append(top(scipy.sparse.csr_array((np.ones(len(sources)), (targets, sources)), shape=(size, size))))
    error = np.sqrt(2 * p * (1 - p)) / size / np.sqrt(draws)
    # Terms of order N^-2 / p are left out of the shift: allow them.
    assert abs(np.mean(values) - p - (1 - 2 * p) / size) < 3 * error + 2 / (size**2 * p)
    assert abs(np.std(values) * size / np.sqrt(2 * p * (1 - p)) - 1) < 0.35


@pytest.mark.parametrize(
    ("make", "bias"),
    [
        # The diagonal and noise terms are of order 1 / N (dense) or 1 / mean degree (sparse); midpoints cost the power law 1 %.
        (lambda: DigraphMeasure.small_world(0.2, 0.1), 2e-3),
        (lambda: DigraphMeasure.stochastic_block(BLOCKS, [1, 1]), 2e-3),
        (lambda: DigraphMeasure.power_law(0.25), 0.03),
        (lambda: DigraphMeasure.ring(0.1), 1e-12),
        (lambda: DigraphMeasure.min_kernel(), 1e-6),
        (lambda: DigraphMeasure.max_kernel(), 1e-6),
    ],
)
def test_samples_converge_in_the_leading_eigenvalue(x64, make, bias, key):
    measure = make()
    size = 2000
    graph = measure.sample(size, key)
    if measure.part.kind.drawn:
        found = top(matrix_of(graph))
    else:
        product = jax.jit(lambda v: graph.apply(v))
        operator = scipy.sparse.linalg.LinearOperator(
            (size, size), lambda v: np.asarray(product(v.ravel())), dtype=float
        )
        found = float(scipy.sparse.linalg.eigsh(operator, 1, which="LA", v0=np.ones(size))[0][0])
    expected = float(measure.spectrum(1)[0])
    assert abs(found - expected) < bias * max(1, expected) + 1e-12


def test_a_degree_that_does_not_fit_is_said(key):
    with pytest.warns(MeanFieldWarning, match=r"400 was asked for, .* has 9"):
        DigraphMeasure.erdos_renyi(0.5).sample(100, key, mean_degree=400.0)


def test_mean_degree_keeps_the_limit(key):
    """Ten times sparser, ten times heavier: the weight that arrives is the same within 4 standard errors."""
    size, degree = 20_000, 50.0
    graph = DigraphMeasure.erdos_renyi(0.5).sample(size, key, mean_degree=degree)
    count = graph.mean_degree * size
    expected = degree * (size - 1)
    assert abs(count - expected) < 4 * np.sqrt(2 * expected)
    np.testing.assert_allclose(np.mean(graph.mass()), 0.5 * count / (degree * size), rtol=1e-4)


def test_ring_samples_have_round_numbers_of_neighbours():
    graph = DigraphMeasure.ring(0.1).sample(30)
    assert isinstance(graph, Window)
    expected = np.zeros((30, 30))
    for offset in (1, 2, 3):
        expected += np.roll(np.eye(30), offset, axis=1) + np.roll(np.eye(30), -offset, axis=1)
    np.testing.assert_allclose(30 * graph.as_matrix(), expected, atol=1e-5)
    # Half of the circle is everyone else, the opposite node once.
    np.testing.assert_allclose(6 * DigraphMeasure.ring(0.5).sample(6).as_matrix(), 1 - np.eye(6), atol=1e-6)


def test_weighted_graphs_are_differentiable(x64):
    f = jnp.cos(jnp.arange(40.0))

    def response(p):
        return jnp.sum(DigraphMeasure.erdos_renyi(p).sample(40, weighted=True).apply(f))

    np.testing.assert_allclose(jax.jit(jax.grad(response))(0.3), jnp.sum(f), rtol=1e-12)
    small = jax.grad(lambda p: DigraphMeasure.small_world(0.2, p).sample(40, weighted=True).mass()[3])(0.1)
    # 16 neighbours lose, 23 others gain.
    np.testing.assert_allclose(small, (23 - 16) / 40, rtol=1e-12)


def test_volterra_is_driven_from_below():
    graph = DigraphMeasure.volterra().sample(5)
    np.testing.assert_allclose(5 * graph.as_matrix(), np.tril(np.ones((5, 5)), -1), atol=1e-6)
    drawn = matrix_of(DigraphMeasure.volterra().sample(60, jax.random.key(0), weighted=False, mean_degree=10.0))
    targets, sources = drawn.nonzero()
    assert np.all(targets > sources)
    np.testing.assert_allclose(len(targets) / 60, 10, rtol=0.3)


def test_directed_samples_of_symmetric_measures(key):
    graph = matrix_of(DigraphMeasure.erdos_renyi(0.2).sample(300, key, directed=True)).toarray()
    # Both directions appear together with probability p^2: 1794 +- 41 pairs.
    together = np.sum(graph * graph.T) / 2
    assert abs(together - 0.04 * 300 * 299 / 2) < 4 * np.sqrt(0.04 * 0.96 * 300 * 299 / 2)


def test_the_key_decides():
    measure = DigraphMeasure.small_world(0.1, 0.2)
    first, again, other = (matrix_of(measure.sample(200, jax.random.key(seed))) for seed in (1, 1, 2))
    assert (first != again).nnz == 0
    assert (first != other).nnz > 1000


def test_kinds_of_graphs(key):
    assert isinstance(DigraphMeasure.complete().sample(7), AllToAll)
    graph = DigraphMeasure.erdos_renyi(0.5).sample(7, key)
    assert isinstance(graph, Sparse)
    assert graph.weights is None
    np.testing.assert_allclose(DigraphMeasure.complete().sample(7).mass(), 1, rtol=1e-6)


def test_sphere_samples(key):
    """Averages over nearly orthogonal lattice points: l = 2 and l = 4 harmonics of the height."""
    size = 3000
    graph = DigraphMeasure.sphere().sample(size)
    height = 1 - (2 * np.arange(size) + 1) / size
    np.testing.assert_allclose(graph.mass(), 1, rtol=1e-5)
    for function, value in ((1.5 * height**2 - 0.5, -0.5), ((35 * height**4 - 30 * height**2 + 3) / 8, 0.375)):
        np.testing.assert_allclose(graph.apply(function), value * function, atol=0.03)
    assert 100 < graph.mean_degree < 400


@pytest.mark.parametrize(
    "make",
    [
        lambda: DigraphMeasure.shift_ring(0.13),
        DigraphMeasure.nearest_neighbour_cycle,
        DigraphMeasure.star,
        lambda: DigraphMeasure.tree([-1, 0, 0, 1, 1, 2, 2, 3]),
        lambda: DigraphMeasure.atomic([lambda x: x**2], [1.0]),
    ],
)
def test_single_particles_on_point_masses_warn(make):
    measure = make()
    with pytest.warns(MeanFieldWarning, match="sample_in_cells"):
        measure.sample(8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        measure.sample_in_cells(8, 50)


def test_nearest_neighbour_cycle():
    """The graph of N nodes is the two neighbours; its limit is the identity."""
    with pytest.warns(MeanFieldWarning):
        graph = DigraphMeasure.nearest_neighbour_cycle().sample(10)
    expected = (np.roll(np.eye(10), 1, axis=1) + np.roll(np.eye(10), -1, axis=1)) / 2
    np.testing.assert_allclose(graph.as_matrix(), expected, atol=1e-6)
    cells = DigraphMeasure.nearest_neighbour_cycle().sample_in_cells(3, 4)
    np.testing.assert_allclose(cells.as_matrix(), np.kron(np.eye(3), np.full((4, 4), 1 / 4)), atol=1e-6)


def test_in_cells(x64, key):
    """(A F) = spread(A_cells averages(F)), also transposed, complex and under jvp."""
    measure = DigraphMeasure.volterra()
    graph = measure.sample_in_cells(6, 5)
    assert isinstance(graph, InCells)
    expected = np.kron(np.asarray(measure.cells(6).operator.as_matrix()), np.full((5, 5), 1 / 5))
    np.testing.assert_allclose(graph.as_matrix(), expected, atol=1e-15)
    np.testing.assert_allclose(graph.transpose().as_matrix(), expected.T, atol=1e-15)
    f = jax.random.normal(key, (30, 2)) * (1 + 2j)
    np.testing.assert_allclose(graph.apply(f), expected @ f, atol=1e-14)
    np.testing.assert_allclose(graph.averages(f), np.asarray(f).reshape(6, 5, 2).mean(axis=1), atol=1e-14)
    out, tangent = jax.jvp(graph.apply, (f.real,), (f.imag,))
    np.testing.assert_allclose(tangent, graph.apply(f.imag), atol=1e-14)
    weight = jax.random.normal(key, out.shape)
    gradient = jax.grad(lambda f: jnp.sum(weight * graph.apply(f)))(f.real)
    np.testing.assert_allclose(gradient, expected.T @ weight, atol=1e-14)


def test_cells_average_law_of_large_numbers(x64):
    """Cell averages of n independent phases miss the fibre means by n^(-1/2): slope from 16 to 4096 particles."""
    measure = DigraphMeasure.shift_ring(0.13)
    counts, errors = [16, 256, 4096], []
    for count in counts:
        graph = measure.sample_in_cells(20, count)
        phases = jax.random.uniform(jax.random.key(count), (graph.num_nodes,), minval=0, maxval=2 * jnp.pi)
        errors.append(np.sqrt(np.mean(np.abs(graph.apply(jnp.exp(1j * phases))) ** 2)))
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    # 20 cells: each error is known to about 16 %, hence the slope to 0.04.
    assert abs(slope + 0.5) < 0.12


@pytest.mark.slow
def test_large_graphs_are_drawn_without_matrices():
    """1e5 nodes with 1e6 edges, three ways, 1e7 edges on 1e4 nodes: about 20 s, most of it sorting the lists."""
    key = jax.random.key(0)
    for measure in (
        DigraphMeasure.erdos_renyi(0.3),
        DigraphMeasure.small_world(0.1, 0.2),
        DigraphMeasure.power_law(0.25),
    ):
        graph = measure.sample(100_000, key, mean_degree=10.0)
        assert abs(graph.mean_degree - 10) < 0.1
    dense = DigraphMeasure.erdos_renyi(0.1).sample(10_000, key)
    assert abs(dense.mean_degree - 1000) < 2


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda key: DigraphMeasure.erdos_renyi(0.1).sample(10), "key"),
        (lambda key: DigraphMeasure.erdos_renyi(0.1).sample(0, key), "num_nodes"),
        (lambda key: DigraphMeasure.erdos_renyi(0.1).sample(-5, key), "num_nodes"),
        (lambda key: DigraphMeasure.erdos_renyi(0.1).sample(10.0, key), "num_nodes"),
        (lambda key: DigraphMeasure.erdos_renyi(0.1).sample(10, key, mean_degree=-1.0), "mean_degree"),
        (lambda key: DigraphMeasure.erdos_renyi(0.1).sample(10, key, mean_degree=float("nan")), "mean_degree"),
        (lambda key: DigraphMeasure.erdos_renyi(0.1).sample(10, key, mean_degree=3.0, weighted=True), "weighted"),
        (lambda key: DigraphMeasure.volterra().sample(10, key, weighted=False, directed=False), "directed"),
        (lambda key: DigraphMeasure.stochastic_block([[1.5]], [1]).sample(10, key), "density"),
        (lambda key: DigraphMeasure.stochastic_block([[-0.5]], [1]).sample(10, key, mean_degree=2.0), "density"),
        (lambda key: DigraphMeasure.from_graphon(lambda x, y: 3 * (x + y)).sample(10, key), "kernel"),
        (lambda key: DigraphMeasure.from_graphon(lambda x, y: x + y - 1).sample(10, key), "kernel"),
        (lambda key: DigraphMeasure.sphere().sample(10, key, weighted=False), "weighted"),
        (lambda key: DigraphMeasure.ring(0.1).sample_in_cells(10, 0), "particles_per_cell"),
        (lambda key: DigraphMeasure.tree([-1, 0]).sample_in_cells(3, 10), "num_cells"),
    ],
)
def test_bad_input(call, argument, key):
    with pytest.raises((ValueError, TypeError), match=rf"Argument `{argument}` must"):
        call(key)


def test_edges_cannot_be_drawn_with_traced_parameters(key):
    with pytest.raises(TypeError, match="known parameters"):
        jax.jit(lambda p: DigraphMeasure.erdos_renyi(p).sample(10, key).mass())(0.1)
    measure = DigraphMeasure.erdos_renyi(0.1)
    with pytest.raises(ValueError, match="before tracing"):
        jax.jit(lambda key: measure.sample(10, key).mass())(key)
