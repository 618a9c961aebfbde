"""Graphs from and to scipy.sparse and networkx. Both are imported only when asked for."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ..._core import check_that, found, is_concrete
from .graph_operator import GraphOperator, Scale
from .sparse import Sparse, check_scale

if TYPE_CHECKING:
    import networkx
    import scipy.sparse


def from_scipy(matrix: Any, scale: Scale) -> Sparse:
    """See `GraphOperator.from_scipy`."""
    sparse = _scipy_sparse()
    check_scale(scale)
    if not sparse.issparse(matrix):
        matrix = np.asarray(matrix)
        check_that(matrix.ndim == 2, "matrix", "have two axes", found(matrix))
    check_that(matrix.shape[0] == matrix.shape[1], "matrix", "be square", f"found shape {tuple(matrix.shape)}")
    check_that(matrix.shape[0] > 0, "matrix", "have a row for each node", "it is empty")
    coo = sparse.coo_array(matrix)
    coo.sum_duplicates()
    weights = None if np.all(coo.data == 1) else coo.data
    if weights is not None and not np.issubdtype(weights.dtype, np.inexact):
        weights = weights.astype(np.float64)
    return Sparse.from_edges(coo.col, coo.row, weights, num_nodes=coo.shape[0], scale=scale)


def from_networkx(graph: Any, weight: str | None, scale: Scale) -> Sparse:
    """See `GraphOperator.from_networkx`."""
    networkx = _networkx()
    known = isinstance(graph, networkx.Graph)  # directed graphs and multigraphs are subclasses
    check_that(known, "graph", "be a networkx graph", found(graph), TypeError)
    check_that(len(graph) > 0, "graph", "have nodes", "it is empty")
    # networkx has u -> v in row u; a row here is what arrives at a node.
    matrix = networkx.to_scipy_sparse_array(graph, nodelist=list(graph.nodes), weight=weight, dtype=float, format="coo")
    return from_scipy(matrix.T, scale)


def to_scipy(graph: GraphOperator, scale: Scale) -> "scipy.sparse.csr_array":
    """See `GraphOperator.to_scipy`."""
    sparse = _scipy_sparse()
    check_scale(scale)
    check_that(is_concrete(graph), "graph", "be known to be converted", "it is traced")
    if isinstance(graph, Sparse):
        matrix = _matrix_of_edges(graph, scale)
    else:
        factor = graph.num_nodes if scale == "n" else 1
        matrix = sparse.csr_array(np.asarray(graph.as_matrix()) * factor)
    if scale == "degree":
        mass = np.asarray(matrix.sum(axis=1))
        rounding = 10 * np.sqrt(graph.num_nodes) * np.finfo(matrix.dtype).eps
        good = bool(np.all(np.minimum(np.abs(mass), np.abs(mass - 1)) <= rounding))
        but = f"they have sums from {mass.min():.6g} to {mass.max():.6g}; pass `scale=None` for the matrix as it is"
        check_that(good, "scale", 'be "degree" only if the weights into each node have sum one or zero', but)
    return matrix


def _matrix_of_edges(graph: Sparse, scale: Scale) -> "scipy.sparse.csr_array":
    sparse = _scipy_sparse()
    sources, targets = (np.asarray(x) for x in graph.edges())
    plain = np.ones(len(sources)) if graph.weights is None else np.asarray(graph.weights)
    for factor, ends in ((graph.target_factor, targets), (graph.source_factor, sources)):
        if factor is not None:
            plain = plain * np.asarray(factor)[ends]
    wanted = graph.num_nodes if scale == "n" else 1
    if wanted != graph.divisor:
        plain = plain * (wanted / graph.divisor)
    size = graph.num_nodes
    return sparse.csr_array(sparse.coo_array((plain, (targets, sources)), shape=(size, size)))


def to_networkx(graph: GraphOperator, scale: Scale, weight: str) -> "networkx.DiGraph":
    """See `GraphOperator.to_networkx`."""
    networkx = _networkx()
    matrix = to_scipy(graph, scale)
    return networkx.from_scipy_sparse_array(matrix.T.tocsr(), create_using=networkx.DiGraph, edge_attribute=weight)


def _scipy_sparse() -> Any:
    try:
        import scipy.sparse
    except ImportError as error:  # pragma: no cover
        raise ImportError("Conversion of graphs needs scipy: `pip install scipy`.") from error
    return scipy.sparse


def _networkx() -> Any:
    try:
        import networkx
    except ImportError as error:
        raise ImportError("Conversion from and to networkx needs networkx: `pip install networkx`.") from error
    return networkx
