"""The graphs of the experiment: digraph measures of the library with finite graphs of any size, and files of users."""

import pathlib
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import check_that
from ...meanfield import DigraphMeasure, GraphOperator, LabelGrid, MeanFieldWarning, Sparse, as_grid
from ._config import IN_CELLS, Config, is_file


class Population(NamedTuple):
    """Oscillators on a graph.

    Attributes:
        graph: who drives whom.
        weights: of the oscillators in the order parameter, of sum one; None for equal ones.
        order: the oscillators by label; None for the order they are in.
    """

    graph: GraphOperator
    weights: Float[np.ndarray, "nodes"] | None
    order: np.ndarray | None


def measure(config: Config) -> DigraphMeasure | GraphOperator:
    """What limits are computed from: a digraph measure, or the graph of a file, of which each node is a population then."""
    if is_file(config.graph):
        return read_graph(config)
    return {
        "complete": lambda: DigraphMeasure.complete(),
        "erdos-renyi": lambda: DigraphMeasure.erdos_renyi(config.probability),
        "stochastic-block": lambda: DigraphMeasure.stochastic_block(_square(config.density), config.block_sizes),
        "ring": lambda: DigraphMeasure.ring(config.radius),
        "small-world": lambda: DigraphMeasure.small_world(config.radius, config.rewiring),
        "power-law": lambda: DigraphMeasure.power_law(config.exponent),
        "min": lambda: DigraphMeasure.min_kernel(),
        "max": lambda: DigraphMeasure.max_kernel(),
        "shift-ring": lambda: DigraphMeasure.shift_ring(config.shift),
        "sphere": lambda: DigraphMeasure.sphere(),
        "star": lambda: DigraphMeasure.star(1.0, 1.0),
        "volterra": lambda: DigraphMeasure.volterra(),
        "tree": lambda: DigraphMeasure.tree(np.array([-1, *((i - 1) // 2 for i in range(1, config.cells))])),
    }[config.graph]()


def sizes(config: Config) -> tuple[int, ...]:
    """The numbers of oscillators in increasing order; that of the file if there is one."""
    return (read_graph(config).num_nodes,) if is_file(config.graph) else tuple(sorted(config.sizes))


def population(config: Config, size: int) -> Population:
    """The oscillators of one size. The graph depends on the size and on the seed of the configuration only.

    Warnings of the room are not shown here: the report repeats them with everything else that limits its validity.
    """
    limit = measure(config)
    if isinstance(limit, GraphOperator):
        return Population(limit, None, np.argsort(np.asarray(limit.mass()), kind="stable"))
    if config.graph in IN_CELLS:
        cells, particles = limit.cells(config.cells), size // config.cells
        weights = np.repeat(np.asarray(cells.weights, float) / particles, particles)
        return Population(limit.sample_in_cells(config.cells, particles), weights / weights.sum(), None)
    key = jax.random.fold_in(jax.random.key(config.seed), size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MeanFieldWarning)
        if config.weighted:
            return Population(limit.sample(size, weighted=True), None, None)
        degree = config.mean_degree if config.drawn and config.mean_degree > 0 else None
        return Population(limit.sample(size, key, mean_degree=degree), None, None)


def profile_grid(config: Config, num_labels: int) -> LabelGrid:
    """Cells of equal weight in the order of the labels, on which the profile of the limit is computed."""
    limit = measure(config)
    if isinstance(limit, GraphOperator):
        return as_grid(limit)
    return limit.cells(config.cells if config.graph in IN_CELLS else num_labels)


def _square(density: tuple[float, ...]) -> Float[Array, "blocks blocks"]:
    count = round(len(density) ** 0.5)
    return jnp.asarray(density).reshape(count, count)


def read_graph(config: Config) -> Sparse:
    """The graph of a file; nothing in it is executed.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read as a graph.
    """
    path = pathlib.Path(config.graph)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path} to read a graph from.")
    scale: Any = None if config.scale == "none" else config.scale
    if path.suffix == ".npz":
        return GraphOperator.from_scipy(_matrix(path), scale=scale)
    source, target, weight = _edges(path)
    if config.undirected:
        loop = source == target
        source, target = np.concatenate([source, target[~loop]]), np.concatenate([target, source[~loop]])
        weight = None if weight is None else np.concatenate([weight, weight[~loop]])
    count = int(max(source.max(), target.max())) + 1
    return Sparse.from_edges(source, target, weight, num_nodes=count, scale=scale)


def _matrix(path: pathlib.Path) -> Any:
    import scipy.sparse

    try:
        # scipy opens the file with allow_pickle=False.
        return scipy.sparse.load_npz(path)
    except Exception as error:
        raise ValueError(f"{path} is no matrix written by scipy.sparse.save_npz: {error}") from None


def _edges(path: pathlib.Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Sources, targets and weights, if any, of a list of edges; a first line of names is skipped."""
    delimiter = {".csv": ",", ".tsv": "\t", ".txt": None}[path.suffix]
    try:
        lines = [line for line in path.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
        rows = lines[1:] if lines and not _is_number(lines[0].split(delimiter)[0]) else lines
        table = np.array([[float(part) for part in row.split(delimiter)] for row in rows])
    except ValueError as error:
        raise ValueError(f"{path} is no list of edges: {error}") from None
    good = table.ndim == 2 and table.shape[1] in (2, 3) and len(table) > 0
    check_that(good, "graph", "be a file with two or three columns, source target [weight]", f"{path} is not")
    ends = table[:, :2]
    whole = bool(np.all((ends >= 0) & (ends == np.round(ends)) & (ends < 2**31)))
    check_that(whole, "graph", "name its nodes by whole numbers from 0", f"{path} does not")
    weight = table[:, 2] if table.shape[1] == 3 else None
    finite = weight is None or bool(np.all(np.isfinite(weight)))
    check_that(finite, "graph", "have finite weights", f"{path} does not")
    return ends[:, 0].astype(np.int64), ends[:, 1].astype(np.int64), weight


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
