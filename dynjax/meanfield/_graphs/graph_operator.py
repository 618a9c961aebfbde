"""The one thing that particles, fibres, spectra and gradients share: an average over the nodes that drive a node."""

import abc
from typing import TYPE_CHECKING, Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float, Inexact, Int

from ..._core import check_count, check_that, found, is_concrete

if TYPE_CHECKING:
    from .combination import Combination
    from .sparse import Sparse

Scale = Literal["n", "degree"] | None


def check_weights(weights: Any, argument: str, shape: tuple[int | None, ...] | None = None) -> Array:
    """Weights of a graph as a real floating-point array; raises unless they are finite and of the shape asked for.

    A `None` in `shape` stands for any length. Whole numbers and booleans become floating-point numbers.
    """
    array = jnp.asarray(weights)
    check_that(not jnp.iscomplexobj(array), argument, "be real", found(array), TypeError)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        array = array.astype(jnp.result_type(float))
    if shape is not None:
        good = array.ndim == len(shape) and all(
            want is None or want == size for want, size in zip(shape, array.shape, strict=True)
        )
        wanted = ",".join("any" if want is None else str(want) for want in shape)
        check_that(good, argument, f"have shape [{wanted}]", found(array))
    if is_concrete(weights):
        finite = np.isfinite(np.asarray(weights))
        bad = int(finite.size - finite.sum())
        check_that(bad == 0, argument, "be finite", f"{bad} of its {finite.size} entries are NaN or infinite")
    return array


class GraphOperator(eqx.Module):
    """A weighted directed graph as a linear map on functions of its nodes: (A F)_i = (1/N) sum_j a_ij F_j.

    The weight a_ij belongs to the edge from j to i: node j drives node i. Every version computes the same map, each in
    the way its structure allows; `apply` is exact to rounding, is linear in `F`, and has the product with the transposed
    graph for its derivative in reverse mode. Operators add up and take factors: `0.8 * excitation - inhibition`.

    A version of one's own implements `num_nodes`, `transpose` and `_product`, which is given real columns only.
    """

    num_nodes: eqx.AbstractVar[int]

    @abc.abstractmethod
    def _product(self, columns: Float[Array, "nodes columns"]) -> Float[Array, "nodes columns"]:
        """(1/N) sum_j a_ij F_j for checked real columns."""

    @abc.abstractmethod
    def transpose(self) -> "GraphOperator":
        """The graph with every edge reversed, a_ij -> a_ji."""

    def apply(self, values: Inexact[Array, "nodes *columns"]) -> Inexact[Array, "nodes *columns"]:
        """The averages (1/N) sum_j a_ij F_j.

        Args:
            values: F, one row for each node, with any trailing axes; real or complex. A batch of couplings or of
                replicas belongs into the trailing axes: then each weight and index is read once for all of them.

        Returns:
            An array of the shape and dtype of `values` (whole numbers become floating-point numbers).

        Raises:
            ValueError: if the leading axis is not `num_nodes`.
        """
        values = jnp.asarray(values)
        good = values.ndim > 0 and values.shape[0] == self.num_nodes
        check_that(good, "values", f"have a leading axis of {self.num_nodes} nodes", found(values))
        if not jnp.issubdtype(values.dtype, jnp.inexact):
            values = values.astype(jnp.result_type(float))
        return _apply(self, values)

    def at_step(self, step: Int[Array, ""] | int) -> "GraphOperator":
        """The graph during step number `step`: itself, except where the graph is drawn anew in every step."""
        return self

    def mass(self, dtype: Any = None) -> Float[Array, "nodes"]:
        """The total weight (1/N) sum_j a_ij that arrives at each node."""
        return self.apply(jnp.asarray(np.ones(self.num_nodes, dtype or jnp.result_type(float))))

    def as_matrix(self, dtype: Any = None) -> Float[Array, "nodes nodes"]:
        """The matrix a_ij / N, dense: for tests and small graphs."""
        return self.apply(jnp.asarray(np.eye(self.num_nodes, dtype=dtype or jnp.result_type(float))))

    def as_linear_operator(self, dtype: Any = None) -> lx.AbstractLinearOperator:
        """The map as a lineax operator on vectors (nodes,), for `dynjax.eigsh`, `dynjax.linalg.eigs` and lineax itself.

        It carries lineax's symmetric tag where `is_symmetric` is true.
        """
        shape = jax.ShapeDtypeStruct((self.num_nodes,), dtype or jnp.result_type(float))
        tags = lx.symmetric_tag if self.is_symmetric else ()
        return lx.FunctionLinearOperator(self.apply, shape, tags)

    @property
    def is_symmetric(self) -> bool | None:
        """Whether a_ij = a_ji; None where that is not known without forming the matrix."""
        return None

    @property
    def mean_degree(self) -> float:
        """The mean number of distinct nodes that drive a node; N unless the graph is known to be sparser."""
        return float(self.num_nodes)

    def to_scipy(self, scale: Scale = "n") -> Any:
        """The graph as a scipy CSR array W, W[i, j] for the edge j -> i.

        Args:
            scale: the convention that W follows, so that `from_scipy(W, scale=scale)` is this operator again.
                `"n"`: W = a; `None`: W = a / N; `"degree"`: W = a / N too, whose rows must have sum one or zero.

        Raises:
            ImportError: if scipy is missing.
            ValueError: if `scale` is unknown, or is `"degree"` and some node's weights do not have sum one or zero.
        """
        from .convert import to_scipy

        return to_scipy(self, scale)

    def to_networkx(self, scale: Scale = "n", *, weight: str = "weight") -> Any:
        """The graph as a networkx `DiGraph` on the nodes 0..N-1, an edge j -> i for each weight that is not zero.

        Args:
            scale: as in `to_scipy`.
            weight: name of the edge attribute that holds the weight.

        Raises:
            ImportError: if networkx or scipy is missing.
            ValueError: as in `to_scipy`.
        """
        from .convert import to_networkx

        return to_networkx(self, scale, weight)

    @staticmethod
    def from_scipy(matrix: Any, *, scale: Scale = "n") -> "Sparse":
        """A sparse graph from a scipy sparse matrix or array, or a dense one: see `Sparse.from_edges` for `scale`.

        `matrix[i, j]` is the weight of the edge j -> i. An undirected graph has a symmetric matrix. If all stored weights
        are one, none are kept. Entries stored twice add up.

        Raises:
            ImportError: if scipy is missing.
            ValueError: if the matrix is not square, is empty, or holds NaN or infinite weights.
        """
        from .convert import from_scipy

        return from_scipy(matrix, scale)

    @staticmethod
    def from_networkx(graph: Any, *, weight: str | None = "weight", scale: Scale = "n") -> "Sparse":
        """A sparse graph from a networkx graph: an edge u -> v means that u drives v; undirected edges go both ways.

        Nodes are numbered in the order of `list(graph.nodes)`.

        Args:
            graph: a networkx `Graph`, `DiGraph` or multigraph (parallel edges add up).
            weight: edge attribute that holds the weights; edges without it count as one. None: every edge counts as one.
            scale: see `Sparse.from_edges`.

        Raises:
            ImportError: if networkx or scipy is missing.
            TypeError: if `graph` is no networkx graph.
            ValueError: if the graph has no nodes, or a weight is NaN or infinite.
        """
        from .convert import from_networkx

        return from_networkx(graph, weight, scale)

    def __add__(self, other: "GraphOperator") -> "Combination":
        from .combination import Combination

        return NotImplemented if not isinstance(other, GraphOperator) else Combination((self, other), (1.0, 1.0))

    def __sub__(self, other: "GraphOperator") -> "Combination":
        from .combination import Combination

        return NotImplemented if not isinstance(other, GraphOperator) else Combination((self, other), (1.0, -1.0))

    def __mul__(self, factor: Any) -> "Combination":
        from .combination import Combination

        return NotImplemented if isinstance(factor, GraphOperator) else Combination((self,), (factor,))

    __rmul__ = __mul__


@eqx.filter_jit  # one program outside of `jit` too, where a product of a dozen operations would compile a dozen
def _apply(graph: GraphOperator, values: Inexact[Array, "nodes *columns"]) -> Inexact[Array, "nodes *columns"]:
    if jnp.iscomplexobj(values):  # the weights are real: two real columns cost half of a complex one
        parts = flat_product(graph, jnp.stack([values.real, values.imag], axis=-1))
        return jax.lax.complex(parts[..., 0], parts[..., 1])
    return flat_product(graph, values)


def flat_product(graph: GraphOperator, values: Float[Array, "nodes *columns"]) -> Float[Array, "nodes *columns"]:
    """The product with real values of any trailing axes, in their dtype."""
    columns = values.reshape(graph.num_nodes, -1)
    return graph._product(columns).reshape(values.shape).astype(values.dtype)


class AllToAll(GraphOperator):
    """The complete graph with loops and one weight: (A F)_i = weight * mean(F). Costs N additions.

    Args:
        num_nodes: N.
        weight: a_ij, traced.

    Raises:
        ValueError: if `num_nodes` is not a positive integer, or the weight is not one finite number.
    """

    weight: Float[Array, ""]
    num_nodes: int = eqx.field(static=True)

    def __init__(self, num_nodes: int, weight: Any = 1.0):
        check_count(num_nodes, "num_nodes")
        self.num_nodes = int(num_nodes)
        self.weight = check_weights(weight, "weight", ())

    def _product(self, columns: Float[Array, "nodes columns"]) -> Float[Array, "nodes columns"]:
        average = self.weight.astype(columns.dtype) * jnp.mean(columns, axis=0)
        return jnp.broadcast_to(average, columns.shape)

    def transpose(self) -> "AllToAll":
        """Itself."""
        return self

    @property
    def is_symmetric(self) -> bool:
        """Always."""
        return True


class Dense(GraphOperator):
    """Any graph by its matrix of weights: one matrix product, N^2 multiplications a column.

    Args:
        weights: a_ij, (N, N), row i for the edges that arrive at node i.

    Raises:
        TypeError: if the weights are complex.
        ValueError: if the matrix is not square or is empty, or has NaN or infinite entries.
    """

    weights: Float[Array, "nodes nodes"]
    num_nodes: int = eqx.field(static=True)

    def __init__(self, weights: Any):
        shape = np.shape(weights)
        square = len(shape) == 2 and shape[0] == shape[1] and shape[0] > 0
        check_that(square, "weights", "be a square matrix with a row for each node", f"found shape {shape}")
        self.weights = check_weights(weights, "weights")
        self.num_nodes = int(shape[0])

    def _product(self, columns: Float[Array, "nodes columns"]) -> Float[Array, "nodes columns"]:
        product = jnp.matmul(self.weights.astype(columns.dtype), columns, precision=jax.lax.Precision.HIGHEST)
        return product / self.num_nodes

    def transpose(self) -> "Dense":
        """The transposed matrix."""
        return Dense(self.weights.T)

    @property
    def is_symmetric(self) -> bool | None:
        """Compared entry by entry, None while traced."""
        return None if not is_concrete(self.weights) else bool(jnp.all(self.weights == self.weights.T))

    @property
    def mean_degree(self) -> float:
        """The mean number of weights in a row that are not zero, N while traced."""
        if not is_concrete(self.weights):
            return float(self.num_nodes)
        return float(np.count_nonzero(np.asarray(self.weights)) / self.num_nodes)
