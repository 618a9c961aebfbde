import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from dynjax.meanfield._graphs.edge_list import EdgeList, GroupSum
from dynjax.meanfield._graphs.graph_operator import AllToAll, Dense, GraphOperator
from dynjax.meanfield._graphs.sparse import Sparse
from dynjax.meanfield._networks.diffusion import Diffusion
from dynjax.meanfield._networks.masked_network import hopfield, masked_network
from dynjax.meanfield._networks.pair_stream import Causal, pair_average
from dynjax.meanfield._networks.pair_system import CouplingTerm, PairCoupling, SeparableCoupling, pair_system
from dynjax.systems import Flow, evolve

SINE = SeparableCoupling(
    lambda v: jnp.stack([jnp.sin(v), jnp.cos(v)]), lambda u, h: h[0] * jnp.cos(u) - h[1] * jnp.sin(u)
)


def swirl(u, v):
    """A coupling of vectors that does not separate and is not symmetric."""
    gap = v - u
    return gap / (1 + gap @ gap) + 0.3 * jnp.sin(u) * v


def direct(x, a):
    out = np.zeros_like(x)
    for i in range(len(x)):
        for j in range(len(x)):
            gap = x[j] - x[i]
            out[i] += a[i, j] * (gap / (1 + gap @ gap) + 0.3 * np.sin(x[i]) * x[j])
    return out / len(x)


def hub_graph(rng, n):
    """A random graph with one hub, isolated nodes and parallel edges."""
    hub = n // 2
    sources = np.concatenate([rng.integers(0, n, 150), rng.integers(0, n, 100), [1, 1]])
    targets = np.concatenate([rng.integers(2, n, 150), np.full(100, hub), [2, 2]])
    weights = rng.normal(size=len(sources))
    a = np.zeros((n, n))
    np.add.at(a, (targets, sources), weights)
    return EdgeList(sources, targets, n, weights), a


class Opaque(GraphOperator):
    """An operator of which only the product is known."""

    inner: Dense
    num_nodes: int

    def _product(self, columns):
        return self.inner.apply(columns)

    def transpose(self):
        return Opaque(self.inner.transpose(), self.num_nodes)


@pytest.mark.parametrize("block", [None, 1, 4, 11, 50])
def test_pair_averages_on_every_kind_of_graph(x64, block):
    rng = np.random.default_rng(0)
    n = 11
    x = rng.normal(size=(n, 3))
    a = rng.normal(size=(n, n))
    for graph, weights in (
        (Dense(a), a),
        (Opaque(Dense(a), n), a),
        (AllToAll(n, 0.7), np.full((n, n), 0.7)),
        (Causal(n), np.tril(np.ones((n, n)))),
        (Causal(n).transpose(), np.triu(np.ones((n, n)))),
    ):
        average = pair_average(swirl, jnp.asarray(x), graph, block=block)
        np.testing.assert_allclose(average, direct(x, weights), atol=1e-14)


def test_edge_list_is_its_matrix_in_all_modes(x64):
    """Product, transpose, pair averages, and every derivative, against the dense matrix."""
    rng = np.random.default_rng(1)
    n = 30
    graph, a = hub_graph(rng, n)
    dense = Dense(a)
    x = jnp.asarray(rng.normal(size=(n, 3)))
    np.testing.assert_allclose(graph.apply(x), a @ x / n, atol=1e-14)
    np.testing.assert_allclose(graph.transpose().apply(x), a.T @ x / n, atol=1e-14)
    np.testing.assert_allclose(pair_average(swirl, x, graph), direct(np.asarray(x), a), atol=1e-14)
    loss = lambda f: lambda y: jnp.sum(jnp.sin(f(y)))
    v = jnp.cos(x)
    hvp = lambda f: jax.jit(lambda y: jax.jvp(jax.grad(loss(f)), (y,), (v,))[1])(x)
    for operator in (lambda g: lambda y: g.apply(jnp.sin(y)), lambda g: lambda y: pair_average(swirl, y, g)):
        one, two = jax.jit(operator(graph)), jax.jit(operator(dense))
        np.testing.assert_allclose(jax.jvp(one, (x,), (v,))[1], jax.jvp(two, (x,), (v,))[1], atol=1e-13)
        np.testing.assert_allclose(jax.grad(loss(one))(x), jax.grad(loss(two))(x), atol=1e-13)
        batch = jnp.stack([x, 2 * x])
        np.testing.assert_allclose(
            jax.jit(jax.vmap(jax.grad(loss(one))))(batch)[1], jax.grad(loss(two))(2 * x), atol=1e-13
        )
        np.testing.assert_allclose(hvp(one), hvp(two), atol=1e-12)


@pytest.mark.parametrize("scale", ["n", "degree", None])
def test_pair_averages_on_a_sparse_operator_visit_its_edges(x64, scale):
    """The same averages as from its matrix, whatever the scale, before and inside a compiled step."""
    rng = np.random.default_rng(4)
    n = 30
    edges, _ = hub_graph(rng, n)
    weights = 0.1 + rng.random(len(edges.sources))
    graph = Sparse.from_edges(edges.sources, edges.targets, weights, num_nodes=n, scale=scale)
    x = jnp.asarray(rng.normal(size=(n, 3)))
    expected = direct(np.asarray(x), n * np.asarray(graph.as_matrix()))
    np.testing.assert_allclose(EdgeList.of(graph).as_matrix(), graph.as_matrix(), atol=1e-14)
    np.testing.assert_allclose(pair_average(swirl, x, graph), expected, atol=1e-13)
    term = CouplingTerm(graph, PairCoupling(swirl))
    assert isinstance(term.graph, EdgeList)
    np.testing.assert_allclose(jax.jit(lambda term, x: term.force(0.0, x))(term, x), expected, atol=1e-13)


def test_edges_are_not_scattered():
    graph, _ = hub_graph(np.random.default_rng(1), 30)
    x = jnp.ones((30, 3), jnp.float32)
    gradient = jax.jit(jax.grad(lambda y: jnp.sum(jnp.sin(pair_average(swirl, y, graph)))))
    assert "scatter" not in gradient.lower(x).as_text()
    plain = jax.jit(jax.grad(lambda y: jnp.sum(jnp.sin(y[graph.sources]))))
    assert "scatter" in plain.lower(x).as_text()


@pytest.mark.parametrize("num", [0, 1, 8, 9, 65, 1000])
def test_group_sums(x64, num):
    rng = np.random.default_rng(num)
    groups = np.minimum(rng.integers(0, 9, num), 5)
    rows = rng.normal(size=(num, 2))
    expected = np.zeros((7, 2))
    np.add.at(expected, groups, rows)
    np.testing.assert_allclose(GroupSum(groups, 7)(jnp.asarray(rows)), expected, atol=1e-13)


def test_streaming_memory_is_flat():
    n = 4096
    x = jax.ShapeDtypeStruct((n, 3), jnp.float32)
    average = lambda y: pair_average(swirl, y, AllToAll(n))
    for function in (average, jax.grad(lambda y: jnp.sum(average(y) ** 2))):
        memory = jax.jit(function).lower(x).compile().memory_analysis()
        assert memory.temp_size_in_bytes < n * n * 4 / 4


def test_separable_and_general_couplings_agree(x64):
    rng = np.random.default_rng(3)
    a, theta, omega = rng.uniform(size=(20, 20)), rng.uniform(0, 6, 20), rng.normal(size=20)
    drift = lambda t, u, w: w
    systems = [
        pair_system(CouplingTerm(Dense(a), coupling, strength=3.0), dt=0.02, drift=drift, parameters=jnp.asarray(omega))
        for coupling in (SINE, PairCoupling(lambda u, v: jnp.sin(v - u)))
    ]
    one, two = (evolve(system, jnp.asarray(theta), num_steps=50) for system in systems)
    np.testing.assert_allclose(one, two, atol=1e-12)
    velocity = lambda t, u: omega + 3 * np.mean(a * np.sin(u[None, :] - u[:, None]), axis=1)
    oracle = solve_ivp(velocity, (0, 1), theta, rtol=1e-11, atol=1e-11).y[:, -1]
    np.testing.assert_allclose(one, oracle, atol=1e-8)
    v = jnp.asarray(rng.normal(size=(2, 20)))
    np.testing.assert_allclose(
        systems[0].tangent_step(0, jnp.asarray(theta), v)[1],
        systems[1].tangent_step(0, jnp.asarray(theta), v)[1],
        atol=1e-13,
    )


def test_several_graphs_add_up_and_may_change_with_time(x64):
    rng = np.random.default_rng(4)
    a, b, x = rng.normal(size=(5, 5)), rng.normal(size=(5, 5)), rng.normal(size=5)
    fading = lambda t: Dense(jnp.exp(-t) * jnp.asarray(b))
    tanh = SeparableCoupling(jnp.tanh)
    system = pair_system([CouplingTerm(Dense(a), tanh), CouplingTerm(fading, tanh, strength=-2.0)], dt=0.01)
    final = evolve(system, jnp.asarray(x), num_steps=100)
    velocity = lambda t, u: (a - 2 * np.exp(-t) * b) @ np.tanh(u) / 5
    np.testing.assert_allclose(final, solve_ivp(velocity, (0, 1), x, rtol=1e-11, atol=1e-11).y[:, -1], atol=1e-9)


def test_hopfield_is_its_equation_and_descends_its_energy(x64):
    rng = np.random.default_rng(5)
    n = 12
    W = rng.normal(size=(n, n)) / np.sqrt(n)
    x, b = rng.normal(size=n), rng.normal(size=n)
    flow = hopfield(Dense(n * W), dt=0.05, gain=1.5, inputs=b)
    np.testing.assert_allclose(flow.vector_field(0.0, jnp.asarray(x), None), -x + b + 1.5 * W @ np.tanh(x), atol=1e-14)
    S = (W + W.T) / 2
    system = hopfield(Dense(n * S), dt=0.02, gain=1.5, inputs=b)

    def energy(y):
        s = np.tanh(y)
        return -0.75 * s @ S @ s + np.sum(s * np.arctanh(s) + np.log1p(-(s**2)) / 2 - b * s)

    y, values = jnp.asarray(x), []
    for _ in range(30):
        values.append(energy(np.asarray(y)))
        y = evolve(system, y, num_steps=10)
    assert np.all(np.diff(values) < 1e-12)
    assert values[0] - values[-1] > 0.1


def test_masked_network_is_its_layers(x64):
    rng = np.random.default_rng(6)
    W, b, mask, x = rng.normal(size=(3, 6, 6)), rng.normal(size=(3, 6)), rng.integers(0, 2, (6, 6)), rng.normal(size=6)
    network = masked_network(W, mask, biases=b, dt=0.5)
    u = x
    for layer in range(3):
        u = u + 0.5 * ((mask * W[layer]) @ np.tanh(u) + b[layer])
    np.testing.assert_allclose(evolve(network, jnp.asarray(x), num_steps=3), u, atol=1e-14)
    one = masked_network(W[0], Dense(mask.astype(float)), biases=b[0], dt=0.5).step(0, jnp.asarray(x))
    np.testing.assert_allclose(one, x + 0.5 * ((mask * W[0]) @ np.tanh(x) + b[0]), atol=1e-14)
    # A module that no edge reaches does not see the rest.
    blocks = np.kron(np.eye(2), np.ones((3, 3)))
    modular = masked_network(W, blocks)
    moved = x + np.asarray([0, 0, 0, 1, 2, 3.0])
    first = [np.asarray(evolve(modular, jnp.asarray(y), num_steps=3))[:3] for y in (x, moved)]
    np.testing.assert_array_equal(*first)


def test_diffusion_orders_and_paths(x64):
    """Heun's variance of an Ornstein-Uhlenbeck process has no bias of first order; a path can be replayed."""
    D, rate, n = 0.5, 1.0, 40_000
    x = jnp.zeros(n)
    for method, dt in (("euler", 0.2), ("heun", 0.2)):
        system = Diffusion(lambda t, x, args: -rate * x, dt, noise=D, key=jax.random.key(1), method=method)
        variance = float(jnp.var(evolve(system, x, num_steps=40)))
        if method == "euler":
            factor, kick = 1 - rate * dt, 1.0
        else:
            factor, kick = 1 - rate * dt + (rate * dt) ** 2 / 2, 1 - rate * dt / 2
        expected = 2 * D * dt * kick**2 / (1 - factor**2) * (1 - factor**80)
        assert abs(variance / expected - 1) < 3 * np.sqrt(2 / n)
        np.testing.assert_array_equal(system.step(7, x), system.step(7, x))
        assert np.any(np.asarray(system.step(7, x)) != np.asarray(system.step(8, x)))
    slope = jax.grad(lambda D: jnp.sum(Diffusion(lambda t, x, a: -x, 0.1, noise=D, key=jax.random.key(0)).step(0, x)))
    assert np.isfinite(slope(0.0))


def test_kinds_of_systems_and_bad_arguments():
    term = CouplingTerm(AllToAll(3), SINE)
    assert isinstance(pair_system(term, dt=0.1), Flow)
    assert isinstance(pair_system(term, dt=0.1, noise=0.1, key=jax.random.key(0)), Diffusion)
    with pytest.raises(ValueError, match="key"):
        pair_system(term, dt=0.1, noise=0.1)
    with pytest.raises(ValueError, match="noise"):
        pair_system(term, dt=0.1, noise=-0.1, key=jax.random.key(0))
    with pytest.raises(TypeError, match="coupling"):
        CouplingTerm(AllToAll(3), lambda u, v: v)
    with pytest.raises(TypeError, match="interactions"):
        pair_system([SINE], dt=0.1)
    with pytest.raises(ValueError, match="coupling"):
        pair_system(CouplingTerm(AllToAll(3), SeparableCoupling(lambda v: jnp.stack([v, v]))), dt=0.1).step(
            0, jnp.ones(3)
        )
    with pytest.raises(ValueError, match="states"):
        pair_average(swirl, jnp.ones((4, 2)), AllToAll(3))
    with pytest.raises(ValueError, match="targets"):
        EdgeList([0, 1], [0, 3], 3)
    with pytest.raises(ValueError, match="weights"):
        EdgeList([0, 1], [0, 2], 3, [1.0, np.nan])
    with pytest.raises(ValueError, match="weights"):
        masked_network(np.ones((2, 3)))
    with pytest.raises(ValueError, match="mask"):
        masked_network(np.ones((2, 2)), np.ones((3, 3)))
