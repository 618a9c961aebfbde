"""Graphs from and to scipy and networkx: direction, node order, and what each scale divides by."""

import sys

import jax.numpy as jnp
import networkx as nx
import numpy as np
import pytest
import scipy.sparse as sp

from dynjax.meanfield import AllToAll, Cumulative, GraphOperator, Sparse


def random_matrix(weighted=True):
    rng = np.random.default_rng(11)
    matrix = sp.random_array((12, 12), density=0.2, rng=rng, format="csr")
    return matrix if weighted else (matrix != 0).astype(float)


@pytest.mark.parametrize("scale", ["n", "degree", None])
@pytest.mark.parametrize("weighted", [False, True])
def test_scales(scale, weighted, x64):
    matrix = random_matrix(weighted)
    graph = GraphOperator.from_scipy(matrix, scale=scale)
    assert isinstance(graph, Sparse)
    assert (graph.weights is None) == (not weighted)
    mass = matrix.sum(axis=1)
    divisor = {"n": np.full(12, 12.0), "degree": np.where(mass == 0, 1, mass), None: np.ones(12)}[scale]
    values = np.random.default_rng(0).standard_normal((12, 2))
    np.testing.assert_allclose(graph.apply(values), matrix @ values / divisor[:, None], atol=1e-14)
    np.testing.assert_allclose(graph.transpose().as_matrix(), (matrix.toarray() / divisor[:, None]).T, atol=1e-15)


def test_isolated_nodes_get_zero_and_scale_changes_the_critical_coupling(x64):
    # A star of five nodes and one node alone: the hub's mean field is the sum of its leaves / 6, their average, or the sum.
    star = nx.star_graph(4)
    star.add_node(5)
    ones = jnp.ones(6)
    hub = {scale: GraphOperator.from_networkx(star, scale=scale).apply(ones) for scale in ("n", "degree", None)}
    assert hub["n"].tolist() == pytest.approx([4 / 6, *4 * [1 / 6], 0])
    assert hub["degree"].tolist() == [1, 1, 1, 1, 1, 0]
    assert hub[None].tolist() == [4, 1, 1, 1, 1, 0]


@pytest.mark.parametrize("scale", ["n", None])
def test_round_trip_through_scipy(scale, x64):
    matrix = random_matrix()
    back = GraphOperator.from_scipy(matrix, scale=scale).to_scipy(scale)
    assert back.format == "csr"
    np.testing.assert_array_equal(back.toarray(), matrix.toarray())


def test_every_scale_describes_the_same_operator(x64):
    degree = GraphOperator.from_scipy(random_matrix(), scale="degree")
    for graph in (degree, degree.transpose()):
        for scale in ("n", None):
            again = GraphOperator.from_scipy(graph.to_scipy(scale), scale=scale)
            np.testing.assert_allclose(again.as_matrix(), graph.as_matrix(), atol=1e-15)
    again = GraphOperator.from_scipy(degree.to_scipy("degree"), scale="degree")
    np.testing.assert_allclose(again.as_matrix(), degree.as_matrix(), atol=1e-15)
    with pytest.raises(ValueError, match="sum one or zero"):
        degree.transpose().to_scipy("degree")


def test_directed_edges_drive_and_nodes_keep_their_order(x64):
    graph = nx.DiGraph()
    graph.add_nodes_from(["c", "a", "b"])
    graph.add_edge("a", "b", weight=2.0)
    graph.add_edge("b", "c")
    operator = GraphOperator.from_networkx(graph, scale=None)
    said = jnp.asarray([0.0, 1.0, 0.0])  # node a speaks
    assert operator.apply(said).tolist() == [0, 0, 2]
    assert operator.transpose().apply(said).tolist() == [0, 0, 0]
    assert operator.apply(jnp.asarray([0.0, 0.0, 1.0])).tolist() == [1, 0, 0]
    assert not operator.is_symmetric
    assert GraphOperator.from_networkx(graph, weight=None).weights is None
    adjacency = nx.to_numpy_array(graph)  # networkx: row u, column v for u -> v
    np.testing.assert_array_equal(operator.as_matrix(), adjacency.T)


def test_undirected_and_multigraphs(x64):
    ring = nx.cycle_graph(7)
    operator = GraphOperator.from_networkx(ring)
    assert operator.num_edges == 14
    assert operator.mean_degree == 2
    assert operator.is_symmetric
    multi = nx.MultiDiGraph([(0, 1), (0, 1)])
    assert GraphOperator.from_networkx(multi, scale=None).mass().tolist() == [0, 2]


def test_round_trip_through_networkx(x64):
    graph = nx.gnp_random_graph(25, 0.2, seed=3, directed=True)
    for _, _, data in graph.edges(data=True):
        data["weight"] = 0.5
    back = GraphOperator.from_networkx(graph).to_networkx()
    assert isinstance(back, nx.DiGraph)
    assert nx.utils.graphs_equal(back, graph)


def test_other_operators_convert_too(x64):
    chain = Cumulative.volterra(5).to_networkx()
    assert chain.has_edge(0, 4)
    assert not chain.has_edge(4, 0)
    assert chain.number_of_edges() == 10
    np.testing.assert_allclose(AllToAll(4, 0.5).to_scipy().toarray(), np.full((4, 4), 0.5))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: GraphOperator.from_scipy(sp.csr_array((2, 3))), "`matrix` must be square"),
        (lambda: GraphOperator.from_scipy(np.zeros((0, 0))), "`matrix` must have a row for each node"),
        (lambda: GraphOperator.from_scipy(np.ones(3)), "`matrix` must have two axes"),
        (lambda: GraphOperator.from_scipy(np.array([[0, np.nan], [1, 0]])), "`weights` must be finite"),
        (lambda: GraphOperator.from_networkx(nx.Graph()), "`graph` must have nodes"),
        (lambda: GraphOperator.from_networkx([(0, 1)]), "`graph` must be a networkx graph"),
        (lambda: GraphOperator.from_networkx(nx.path_graph(3), scale="mean"), "`scale` must be"),
        (lambda: AllToAll(3).to_scipy("mean"), "`scale` must be"),
    ],
)
def test_bad_input_gets_one_sentence(make, sentence):
    with pytest.raises((ValueError, TypeError), match=sentence):
        make()


def test_missing_networkx_is_said(monkeypatch):
    graph = nx.path_graph(3)
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(ImportError, match="pip install networkx"):
        GraphOperator.from_networkx(graph)
