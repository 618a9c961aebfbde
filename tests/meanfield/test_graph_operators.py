"""Every version of a graph computes the same map as the dense matrix, in both directions, in both modes, in batches."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from dynjax import linalg
from dynjax.meanfield import (
    AllToAll,
    Block,
    Circulant,
    Cumulative,
    Dense,
    GraphOperator,
    LowRank,
    ParentMap,
    RandomBatch,
    Shift,
    Sparse,
    SphereOperator,
    Window,
)
from dynjax.meanfield._graphs.neighbour_lists import NeighbourLists

N = 24
RNG = np.random.default_rng(5)
# A hub of in-degree 40 needs two levels of lists, nodes 20 to 23 have no driver, some edges are parallel. Few different
# degrees otherwise: each one is a loop to compile.
TARGETS = np.concatenate([np.full(40, 7), np.repeat(np.delete(np.arange(N - 4), 7), 3)])
E = len(TARGETS)
SOURCES = RNG.permutation(np.arange(E) % N)
WEIGHTS = RNG.standard_normal(E)
PARENTS = np.array([-1, 0, 0, 1, 1, 2, 2, 2, 7, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 3, 3, 4, 20, 22])
LEFT, RIGHT = RNG.standard_normal((2, N, 3))
KERNEL = RNG.standard_normal(N)
DENSITY = RNG.uniform(size=(3, 3))
DISTANCE = (np.arange(N)[:, None] - np.arange(N)[None, :]) % N
LABELS = (np.arange(N) + 0.5) / N


def edge_matrix(weights):
    matrix = np.zeros((N, N))
    np.add.at(matrix, (TARGETS, SOURCES), weights)
    return matrix


def degree_matrix(weights):
    matrix = edge_matrix(weights)
    mass = matrix.sum(axis=1, keepdims=True)
    return np.divide(matrix, mass, out=np.zeros_like(matrix), where=mass != 0)


def block_matrix(sizes):
    block = np.repeat(np.arange(3), sizes)
    return DENSITY[np.ix_(block, block)]


def window_matrix(reach, loops):
    near = np.minimum(DISTANCE, N - DISTANCE) <= reach
    return 0.7 * (near if loops else near & (DISTANCE > 0))


def shift_matrix():
    matrix = np.zeros((N, N))
    for shift, weight in ((3, 0.5), (-5, 0.25)):
        matrix[np.arange(N), (np.arange(N) + shift) % N] += weight
    for step, part in ((2, 0.6), (3, 0.4)):  # a shift of 2.4 nodes
        matrix[np.arange(N), (np.arange(N) + step) % N] += 0.25 * part
    return N * matrix


def parent_matrix(weights):
    matrix = np.zeros((N, N))
    driven = PARENTS >= 0
    matrix[np.flatnonzero(driven), PARENTS[driven]] = weights[driven]
    return N * matrix


X, Y = LABELS[:, None], LABELS[None, :]
# name -> (how to make it, a_ij by NumPy)
CASES = {
    "all to all": (lambda: AllToAll(N, 0.3), np.full((N, N), 0.3)),
    "low rank": (lambda: LowRank(LEFT, RIGHT), LEFT @ RIGHT.T),
    "low rank, symmetric": (lambda: LowRank(LEFT), LEFT @ LEFT.T),
    "blocks": (lambda: Block(DENSITY, (5, 12, 7)), block_matrix((5, 12, 7))),
    "equal blocks": (lambda: Block(DENSITY, (8, 8, 8)), block_matrix((8, 8, 8))),
    "circulant": (lambda: Circulant(KERNEL), KERNEL[DISTANCE]),
    "window": (lambda: Window(N, 5, 0.7), window_matrix(5, True)),
    "window without loops": (lambda: Circulant.window(N, 6, 0.7, loops=False), window_matrix(6, False)),
    "dense": (lambda: Dense(edge_matrix(WEIGHTS)), edge_matrix(WEIGHTS)),
    "sparse": (lambda: Sparse.from_edges(SOURCES, TARGETS, num_nodes=N), edge_matrix(np.ones(E))),
    "sparse, weights": (lambda: Sparse.from_edges(SOURCES, TARGETS, WEIGHTS, num_nodes=N), edge_matrix(WEIGHTS)),
    "sparse, degree": (
        lambda: Sparse.from_edges(SOURCES, TARGETS, WEIGHTS**2, num_nodes=N, scale="degree"),
        N * degree_matrix(WEIGHTS**2),
    ),
    "sparse, sums": (lambda: Sparse.from_edges(SOURCES, TARGETS, num_nodes=N, scale=None), N * edge_matrix(np.ones(E))),
    "parents": (lambda: ParentMap(PARENTS, WEIGHTS[:N]), parent_matrix(WEIGHTS[:N])),
    "shifts": (lambda: Shift(N, [3 / N, -5 / N, 2.4 / N], [0.5, 0.25, 0.25]), shift_matrix()),
    "volterra": (lambda: Cumulative.volterra(N), 1.0 * (Y < X)),
    "min": (lambda: Cumulative.min_kernel(LABELS), np.minimum(X, Y)),
    "max": (lambda: Cumulative.max_kernel(LABELS), 1 - np.maximum(X, Y)),
    "sum": (
        lambda: AllToAll(N, 0.1) + 0.8 * Window(N, 5, 0.7) - Cumulative.volterra(N),
        0.1 + 0.8 * window_matrix(5, True) - (Y < X),
    ),
}


def columns(dtype=np.float64, count=2):
    return jnp.asarray(np.random.default_rng(1).standard_normal((N, count)), dtype)


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_dense_matrix_forward_and_backward(name, x64):
    make, matrix = CASES[name]
    values, cotangent = columns(), columns(count=3)[:, 1:]

    @jax.jit
    def products(graph, values, cotangent):
        product, pull = jax.vjp(graph.apply, values)
        reverse = graph.transpose()
        _, tangent = jax.jvp(graph.apply, (cotangent,), (values,))
        return product, pull(cotangent)[0], reverse.apply(cotangent), reverse.transpose().apply(values), tangent

    product, pulled, reversed_product, again, tangent = products(make(), values, cotangent)
    scale = np.abs(matrix).sum(axis=1).max() / N
    np.testing.assert_allclose(product, matrix @ values / N, rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(pulled, matrix.T @ cotangent / N, rtol=0, atol=1e-10 * scale)
    np.testing.assert_allclose(reversed_product, matrix.T @ cotangent / N, rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(again, product, rtol=0, atol=1e-12 * scale)
    np.testing.assert_allclose(tangent, product, rtol=0, atol=1e-13 * scale)
    # <A F, G> = <F, A^T G>
    np.testing.assert_allclose(np.vdot(product, cotangent), np.vdot(values, reversed_product), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_single_precision(name):
    make, matrix = CASES[name]
    values = columns(np.float32)
    product = make().apply(values)
    assert product.dtype == jnp.float32
    np.testing.assert_allclose(product, matrix @ values / N, rtol=0, atol=1e-5 * np.abs(matrix).sum(axis=1).max() / N)


@pytest.mark.parametrize("name", CASES)
def test_complex_values_trailing_axes_and_vectors(name, x64):
    make, matrix = CASES[name]
    values = columns(count=4).reshape(N, 2, 2)
    phasors = values[..., 0] + 1j * values[..., 1]
    found = jax.jit(lambda g: (g.apply(phasors), g.apply(values), g.mass(), g.as_matrix()))(make())
    np.testing.assert_allclose(found[0], matrix @ phasors / N, atol=1e-11)
    np.testing.assert_allclose(found[1], np.einsum("ij,jkl->ikl", matrix, values) / N, atol=1e-11)
    np.testing.assert_allclose(found[2], matrix.sum(axis=1) / N, atol=1e-11)
    np.testing.assert_allclose(found[3], matrix / N, atol=1e-11)


@pytest.mark.parametrize("name", CASES)
def test_batches_are_loops_and_linearize_works(name, x64):
    make, matrix = CASES[name]
    batch = jnp.asarray(np.random.default_rng(2).standard_normal((3, N, 2)))

    def energy(graph, values):
        return jnp.sum(jnp.sin(graph.apply(values)) * values)

    def energies(graph, batch):
        together = jax.vmap(jax.value_and_grad(energy, argnums=1), in_axes=(None, 0))(graph, batch)
        return together, jax.linearize(lambda values: energy(graph, values), batch[0])[1](batch[1])

    (energy_of, slope_of), slope = jax.jit(energies)(make(), batch)
    for values, found, gradient in zip(np.asarray(batch), energy_of, slope_of, strict=True):
        field = matrix @ values / N
        np.testing.assert_allclose(found, np.sum(np.sin(field) * values), rtol=1e-11)
        np.testing.assert_allclose(
            gradient, np.sin(field) + matrix.T @ (np.cos(field) * values) / N, rtol=0, atol=1e-11
        )
    np.testing.assert_allclose(slope, np.vdot(slope_of[0], batch[1]), rtol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_symmetry_is_said_only_where_it_holds(name, x64):
    make, matrix = CASES[name]
    said, true = make().is_symmetric, bool(np.allclose(matrix, matrix.T, rtol=1e-14))
    assert said is None or said == true
    assert said is not None or name in ("low rank", "parents", "shifts", "sum")


# Gradients with respect to what the graph is made of.
MAKERS = {
    "all to all": (lambda w: AllToAll(N, w[0]), lambda w: jnp.full((N, N), w[0])),
    "low rank": (lambda w: LowRank(w[:N, None], w[N : 2 * N, None]), lambda w: jnp.outer(w[:N], w[N : 2 * N])),
    "blocks": (
        lambda w: Block(w[:9].reshape(3, 3), (5, 12, 7)),
        lambda w: w[:9].reshape(3, 3)[np.repeat(np.arange(3), (5, 12, 7))][:, np.repeat(np.arange(3), (5, 12, 7))],
    ),
    "circulant": (lambda w: Circulant(w[:N]), lambda w: w[:N][DISTANCE]),
    "window": (lambda w: Window(N, 5, w[0]), lambda w: w[0] * window_matrix(5, True) / 0.7),
    "sparse": (
        lambda w: Sparse.from_edges(SOURCES, TARGETS, w, num_nodes=N),
        lambda w: jnp.zeros((N, N)).at[TARGETS, SOURCES].add(w),
    ),
    "sparse, degree": (
        lambda w: Sparse.from_edges(SOURCES, TARGETS, w**2, num_nodes=N, scale="degree"),
        lambda w: (lambda a: N * a / jnp.where(a.sum(axis=1, keepdims=True) > 0, a.sum(axis=1, keepdims=True), 1))(
            jnp.zeros((N, N)).at[TARGETS, SOURCES].add(w**2)
        ),
    ),
    "parents": (lambda w: ParentMap(PARENTS, w[:N]), lambda w: N * (PARENTS[:, None] == np.arange(N)) * w[:N, None]),
    "shifts": (
        lambda w: Shift(N, [2.3 / N, -4.6 / N], w[:2]),
        lambda w: (
            w[0] * N * (0.7 * (DISTANCE == N - 2) + 0.3 * (DISTANCE == N - 3))
            + w[1] * N * (0.6 * (DISTANCE == 5) + 0.4 * (DISTANCE == 4))
        ),
    ),
}


@pytest.mark.parametrize("name", MAKERS)
def test_gradients_with_respect_to_the_weights(name, x64):
    make, dense = MAKERS[name]
    weights, values = jnp.asarray(WEIGHTS), columns()

    def loss(maker):
        return lambda weights, values: jnp.sum(jnp.sin(maker(weights)(values)) ** 2 * jnp.arange(1.0, 3.0))

    ours = loss(lambda weights: make(weights).apply)
    theirs = loss(lambda weights: lambda values: dense(weights) @ values / N)
    gradients = jax.jit(jax.grad(ours, argnums=(0, 1)))(weights, values)
    for gradient, expected in zip(gradients, jax.grad(theirs, argnums=(0, 1))(weights, values), strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-10, atol=1e-12)
    direction = jnp.asarray(np.random.default_rng(3).standard_normal(E))
    slope = jax.jvp(lambda weights: ours(weights, values), (weights,), (direction,))[1]
    np.testing.assert_allclose(slope, jnp.vdot(gradients[0], direction), rtol=1e-10)


@pytest.mark.parametrize(("weighted", "by"), [(False, (1,)), (True, (1,)), (True, (0, 1))])
def test_second_derivatives_of_a_sparse_graph(weighted, by, x64):
    point = (jnp.asarray(WEIGHTS), columns())
    tangents = tuple(jnp.cos(point[i]) for i in by)
    make, dense = MAKERS["sparse"]

    def ours(weights, values):
        graph = make(weights) if weighted else Sparse.from_edges(SOURCES, TARGETS, num_nodes=N)
        return jnp.sum(jnp.sin(graph.apply(values)) ** 2)

    def theirs(weights, values):
        return jnp.sum(jnp.sin(dense(weights if weighted else jnp.ones(E)) @ values / N) ** 2)

    def curvatures(loss):
        def gradient(*varied):
            arguments = list(point)
            for i, value in zip(by, varied, strict=True):
                arguments[i] = value
            return jax.grad(loss, argnums=by)(*arguments)

        def slope(*varied):
            return sum(jnp.vdot(a, b) for a, b in zip(gradient(*varied), tangents, strict=True))

        varied = tuple(point[i] for i in by)
        return jax.jvp(gradient, varied, tangents)[1], jax.grad(slope, argnums=tuple(range(len(by))))(*varied)

    found, expected = jax.jit(lambda: curvatures(ours))(), jax.jit(lambda: curvatures(theirs))()
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_batches_of_weights(x64):
    make, _ = MAKERS["sparse"]
    weights, values = jnp.asarray(np.stack([WEIGHTS, WEIGHTS**2])), columns()

    def loss(weights, values):
        return jnp.sum(jnp.sin(make(weights).apply(values)) ** 2)

    for axes, arguments in (((0, None), (weights, values)), ((0, 0), (weights, jnp.stack([values, 2 * values])))):
        together = jax.vmap(jax.grad(loss, argnums=(0, 1)), in_axes=axes)(*arguments)
        for lane in range(2):
            apart = jax.grad(loss, argnums=(0, 1))(weights[lane], values if axes[1] is None else arguments[1][lane])
            for found, expected in zip(together, apart, strict=True):
                np.testing.assert_allclose(found[lane], expected, rtol=1e-11, atol=1e-13)


def test_no_scatter_in_either_direction(x64):
    graph = Sparse.from_edges(SOURCES, TARGETS, WEIGHTS, num_nodes=N)
    tree = ParentMap(PARENTS)
    programs = [
        jax.jit(jax.grad(lambda values, graph=graph: jnp.sum(graph.apply(values) ** 2))).lower(columns()).as_text()
        for graph in (graph, tree, Block(DENSITY, (5, 12, 7)), AllToAll(N))
    ]
    gradient = jax.grad(lambda weights: jnp.sum(eqx.tree_at(lambda g: g.weights, graph, weights).apply(columns()) ** 2))
    programs.append(jax.jit(gradient).lower(graph.weights).as_text())
    assert "gather" in programs[0]
    assert "gather" in programs[-1]
    assert not any("scatter" in program for program in programs)
    # the check can fail: JAX's own transpose of a gather is a scatter
    native = jax.jit(jax.grad(lambda values: jnp.sum(graph.lists.native_sum(values) ** 2))).lower(columns()).as_text()
    assert "scatter" in native


def test_one_trace_for_each_shape():
    traces = 0

    @jax.jit
    def step(graph, values):
        nonlocal traces
        traces += 1
        return graph.apply(values)

    for weights in (WEIGHTS, 2 * WEIGHTS):
        graph = Sparse.from_edges(SOURCES, TARGETS, weights, num_nodes=N)
        for factor in (1.0, 2.0):
            step(graph, factor * columns(np.float32))
    assert traces == 1


def test_direction_by_hand():
    # 0 drives 1, 1 drives 2: only node 1 feels what node 0 says
    graph = Sparse.from_edges([0, 1], [1, 2], num_nodes=3, scale=None)
    said = jnp.asarray([1.0, 0.0, 0.0])
    assert graph.apply(said).tolist() == [0, 1, 0]
    assert graph.transpose().apply(said).tolist() == [0, 0, 0]
    assert ParentMap(np.array([-1, 0, 1])).apply(said).tolist() == [0, 1, 0]
    assert Circulant(jnp.asarray([0.0, 3.0, 0.0])).apply(said) == pytest.approx([0, 1, 0], abs=1e-6)
    assert Shift(3, -1 / 3).apply(said).tolist() == [0, 1, 0]
    assert (3 * Cumulative.volterra(3)).apply(said) == pytest.approx([0, 1, 1])


def test_mean_degrees(key):
    assert AllToAll(N).mean_degree == N
    assert Sparse.from_edges(SOURCES, TARGETS, num_nodes=N).mean_degree == E / N
    assert Window(N, 5).mean_degree == 11
    assert Window(N, 5, loops=False).mean_degree == 10
    assert Circulant(jnp.zeros(N).at[jnp.array([1, -1])].set(1.0)).mean_degree == 2
    assert ParentMap(PARENTS).mean_degree == 23 / 24
    assert Shift(N, [3 / N, -5 / N]).mean_degree == 2
    assert Shift(N, [2.4 / N]).mean_degree == 2
    assert RandomBatch(N, 3, key).mean_degree == N
    assert Dense(np.eye(N)).mean_degree == 1


def test_spectra_through_the_linear_operator(x64, key):
    graph = Sparse.from_edges(SOURCES, TARGETS, WEIGHTS, num_nodes=N)
    found = linalg.eigs(graph.as_linear_operator(), k=1, key=key)
    eigenvalues = np.linalg.eigvals(edge_matrix(WEIGHTS) / N)
    assert abs(found.values[0]) == pytest.approx(np.abs(eigenvalues).max(), rel=1e-9)
    both = Sparse.from_edges(np.r_[SOURCES, TARGETS], np.r_[TARGETS, SOURCES], num_nodes=N)
    operator = both.as_linear_operator()
    assert both.is_symmetric
    assert lx.is_symmetric(operator)
    matrix = edge_matrix(np.ones(E))
    top = linalg.eigsh(operator, k=1, key=key).values[0]
    assert top == pytest.approx(np.linalg.eigvalsh((matrix + matrix.T) / N)[-1], rel=1e-9)
    np.testing.assert_allclose(operator.T.mv(jnp.arange(1.0 * N)), both.apply(jnp.arange(1.0 * N)), atol=1e-12)


def test_circulant_eigenvalues_and_running_sums_agree(x64):
    """Ring of radius 0.2 on 1,000 nodes: sin(2 pi q r) / (pi q) up to the cell size, and the exact Dirichlet kernel."""
    size, reach = 1000, 200
    window = Window(size, reach)
    matrix_row = (np.minimum(np.arange(size), size - np.arange(size)) <= reach).astype(float)
    circulant = Circulant(matrix_row)
    values = jnp.asarray(np.random.default_rng(4).standard_normal((size, 2)))
    np.testing.assert_allclose(window.apply(values), circulant.apply(values), atol=1e-13)
    q = np.arange(1, 6)
    dirichlet = np.sin(np.pi * q * (2 * reach + 1) / size) / np.sin(np.pi * q / size) / size
    np.testing.assert_allclose(circulant.eigenvalues()[1:6], dirichlet, atol=1e-14)
    mode = jnp.exp(2j * jnp.pi * 4 * jnp.arange(size) / size)
    np.testing.assert_allclose(window.apply(mode), dirichlet[3] * mode, atol=1e-13)
    assert dirichlet[3] == pytest.approx(-0.075682672864, abs=2e-3)


def test_shift_spectrum(x64):
    q, size, shift = 3, 400, 0.1234  # 49.36 nodes
    mode = jnp.exp(2j * jnp.pi * q * jnp.arange(size) / size)
    graph = Shift(size, [shift, -shift])
    found = graph.apply(mode) / mode
    np.testing.assert_allclose(found, np.cos(2 * np.pi * q * shift), atol=(2 * np.pi * q / size) ** 2 / 8)
    np.testing.assert_allclose(graph.mass(), 1, rtol=1e-14)  # and the mass that leaves each node
    np.testing.assert_allclose(graph.transpose().mass(), 1, rtol=1e-14)
    # the shift as a traced number: the same values, and the slope of the interpolation
    traced = jax.jit(lambda shift: Shift(size, shift).apply(mode.real))
    np.testing.assert_allclose(traced(shift), Shift(size, shift).apply(mode.real), atol=1e-14)
    slope = jax.jacfwd(traced)(jnp.asarray(shift))
    np.testing.assert_allclose(slope, (traced(shift + 1e-5) - traced(shift - 1e-5)) / 2e-5, atol=1e-8)


def test_sphere_spectrum(x64):
    graph = SphereOperator(8)
    points = np.asarray(graph.points)
    assert graph.num_nodes == 128
    assert points.shape == (128, 3)
    assert float(jnp.sum(graph.quadrature)) == pytest.approx(1, abs=1e-14)
    axis = np.array([0.6, -0.48, 0.64])
    height = points @ axis
    expected = [1, 0, -1 / 2, 0, 3 / 8, 0, -5 / 16]
    for degree, eigenvalue in enumerate(expected):
        zonal = np.polynomial.legendre.Legendre.basis(degree)(height)
        np.testing.assert_allclose(graph.apply(zonal), eigenvalue * zonal, atol=1e-13)
    matrix = np.asarray(graph.as_matrix())
    spectrum = np.sort(np.linalg.eigvals(matrix).real)[::-1]
    np.testing.assert_allclose(spectrum[:7], [1, *5 * [3 / 8], *[3 / 8][:1]][:6] + [3 / 8], atol=1e-12)
    assert np.sum(np.abs(spectrum - 3 / 8) < 1e-10) == 9
    assert np.sum(np.abs(spectrum + 1 / 2) < 1e-10) == 5
    assert np.sum(np.abs(spectrum + 5 / 16) < 1e-10) == 13
    # an average over great circles, of a function that is no polynomial: exp(x) along the equator has mean I0(1)
    fine = SphereOperator(24)
    near_pole = np.argmax(fine.points[:, 2])
    pole = np.asarray(fine.points[near_pole])
    found = fine.apply(jnp.exp(fine.points[:, 0]))[near_pole]
    assert float(found) == pytest.approx(np.i0(np.sqrt(1 - pole[0] ** 2)), abs=1e-12)
    np.testing.assert_allclose(
        jax.grad(lambda f: jnp.vdot(graph.apply(f), jnp.asarray(height)))(jnp.zeros(128)), matrix.T @ height, atol=1e-14
    )


def test_random_batches_are_unbiased_and_keyed_by_the_step(x64, key):
    values = jnp.asarray(np.random.default_rng(6).standard_normal((N, 2)))
    partners, steps = 3, 4000
    graph = RandomBatch(N, partners, key, 0.5)
    draws = jax.jit(jax.vmap(lambda n: graph.at_step(n).apply(values)))(jnp.arange(steps))
    exact = 0.5 * np.mean(values, axis=0)
    error = 0.5 * np.std(values, axis=0) / np.sqrt(partners)
    deviation = (draws.mean(axis=0) - exact) / (error / np.sqrt(steps))
    assert np.abs(deviation).max() < 4.0  # 48 standard normals
    assert abs(float(np.mean(np.asarray(deviation) ** 2)) - 1) < 4 * np.sqrt(2 / 48)
    np.testing.assert_allclose(draws.std(axis=0), np.broadcast_to(error, (N, 2)), rtol=0.1)
    assert jnp.array_equal(graph.at_step(7).apply(values), draws[7])
    assert not jnp.array_equal(draws[7], draws[8])
    drawn = graph.at_step(7)
    np.testing.assert_allclose(drawn.transpose().as_matrix(), drawn.as_matrix().T, atol=1e-15)
    assert (2.0 * graph).at_step(7).apply(values) == pytest.approx(2 * draws[7])
    assert AllToAll(N).at_step(7).num_nodes == N


def test_a_version_of_ones_own(x64):
    class Mirror(GraphOperator):
        num_nodes: int = eqx.field(static=True)

        def _product(self, columns):
            assert not jnp.iscomplexobj(columns)
            return columns[::-1]

        def transpose(self):
            return self

    assert Mirror(3).apply(jnp.asarray([1, 2, 3j])).tolist() == [3j, 2, 1]
    assert (Mirror(3) + AllToAll(3, 3.0)).mass().tolist() == [4, 4, 4]


def test_edges_come_in_the_order_of_the_weights(x64):
    graph = Sparse.from_edges(SOURCES, TARGETS, WEIGHTS, num_nodes=N)
    matrix = np.zeros((N, N))
    sources, targets = graph.edges()
    np.add.at(matrix, (targets, sources), graph.weights)
    np.testing.assert_allclose(matrix, edge_matrix(WEIGHTS), atol=1e-14)
    gradient = jax.grad(lambda weights: eqx.tree_at(lambda g: g.weights, graph, weights).apply(columns()[:, 0])[7])
    expected = np.where(np.asarray(targets) == 7, np.asarray(columns())[np.asarray(sources), 0] / N, 0)
    np.testing.assert_allclose(gradient(graph.weights), expected, atol=1e-15)


@pytest.mark.parametrize("width", [1, 2, 3, 16])
def test_lists_in_rows_of_any_length(width, x64):
    if width == 1:  # a row of one entry could never be summed by further levels
        with pytest.raises(ValueError, match="`width` must be an integer of at least 2"):
            NeighbourLists.build(TARGETS, SOURCES, N, width=1)
        return
    lists, edges = NeighbourLists.build(TARGETS, SOURCES, N, width=width)
    assert len(lists.rows) == {2: 6, 3: 4, 16: 2}[width]
    assert lists.num_edges == E
    values, weights = columns(), jnp.asarray(WEIGHTS)[edges]
    found, products = jax.jit(lambda: (lists.sum(values, weights), lists.pair_products(values, values)))()
    np.testing.assert_allclose(found, edge_matrix(WEIGHTS) @ values, atol=1e-13)
    pairs = np.einsum("ec,ec->e", np.asarray(values)[TARGETS], np.asarray(values)[SOURCES])
    np.testing.assert_allclose(products, pairs[edges], atol=1e-14)


def test_empty_graph_and_whole_numbers():
    graph = Sparse.from_edges([], [], num_nodes=4)
    assert graph.apply(jnp.ones((4, 2))).tolist() == [[0, 0]] * 4
    assert jax.grad(lambda x: graph.apply(x).sum())(jnp.ones(4)).tolist() == [0] * 4
    empty = Sparse.from_edges([], [], jnp.zeros(0), num_nodes=4)
    assert empty.transpose().apply(jnp.ones(4)).tolist() == [0] * 4
    counted = AllToAll(4).apply(jnp.arange(4))
    assert counted.dtype == jnp.float32
    assert counted.tolist() == [1.5] * 4


BAD = {
    "square matrix": lambda: Dense(np.ones((2, 3))),
    "`weights` must be finite": lambda: Dense(np.array([[1.0, np.nan], [0, 0]])),
    "`weights` must be real": lambda: Dense(np.eye(2) * 1j),
    "`num_nodes` must be an integer of at least 1, but found 0": lambda: AllToAll(0),
    "found -3": lambda: Sparse.from_edges([0], [0], num_nodes=-3),
    "`weight` must be finite": lambda: AllToAll(3, np.inf),
    "`sources` must lie between 0 and 2": lambda: Sparse.from_edges([0, 3], [0, 1], num_nodes=3),
    "`targets` must lie between 0 and 2": lambda: Sparse.from_edges([0, 1], [0, -1], num_nodes=3),
    "`targets` must have as many": lambda: Sparse.from_edges([0, 1], [0], num_nodes=3),
    "`sources` must be integers": lambda: Sparse.from_edges([0.5], [0], num_nodes=3),
    "`weights` must have shape": lambda: Sparse.from_edges([0, 1], [0, 1], [1.0], num_nodes=3),
    "1 of its 2 entries are NaN": lambda: Sparse.from_edges([0, 1], [0, 1], [1.0, np.nan], num_nodes=3),
    "`scale` must be": lambda: Sparse.from_edges([0], [1], num_nodes=3, scale="N"),
    "`sources` must be known before tracing": lambda: jax.jit(lambda s: Sparse.from_edges(s, [1], num_nodes=3).mass())(
        jnp.zeros(1, int)
    ),
    "`right` must have shape": lambda: LowRank(np.ones((3, 2)), np.ones((3, 1))),
    "`sizes` must have one entry": lambda: Block(np.ones((2, 2)), (3,)),
    "`sizes` must be an integer": lambda: Block(np.ones((2, 2)), (3, -1)),
    "`weights` must be a vector": lambda: Circulant(np.ones((3, 3))),
    "`reach` must be at most": lambda: Window(6, 3),
    "`parents` must lie between -1 and 2": lambda: ParentMap([0, 3, 1]),
    "`parents` must be integers": lambda: ParentMap([0.0, 1.0]),
    "`shifts` must be finite": lambda: Shift(4, [np.nan]),
    "`labels` must increase": lambda: Cumulative.min_kernel([0.1, 0.1]),
    "`key` must be a random key": lambda: RandomBatch(4, 2, 0),
    "`parts` must have one number of nodes": lambda: AllToAll(3) + AllToAll(4),
    "`values` must have a leading axis of 3 nodes": lambda: AllToAll(3).apply(np.ones(4)),
    "`num_heights` must be": lambda: SphereOperator(1),
}


@pytest.mark.parametrize("sentence", BAD)
def test_bad_input_gets_one_sentence(sentence):
    with pytest.raises((ValueError, TypeError)) as caught:
        BAD[sentence]()
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("Argument `")
