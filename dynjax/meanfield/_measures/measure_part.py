"""What a piece of a digraph measure must tell: its labels, its spectrum where known, its finite graphs."""

import abc
import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from ..._core import check_that, is_concrete
from .._graphs.graph_operator import GraphOperator
from .label_grid import LabelGrid
from .label_quadrature import midpoints


class Kind(NamedTuple):
    """What is known of a measure whatever its parameters.

    Attributes:
        space: name of the label space; pieces add up only on the same one.
        symmetric: whether the operator is self-adjoint with respect to the reference probability.
        atomic: whether a node is driven by single labels, so that one oscillator for each node has no mean-field limit.
        drawn: whether `DigraphMeasure.sample` draws edges at random unless told otherwise.
    """

    space: str
    symmetric: bool
    atomic: bool
    drawn: bool


class MeasurePart(eqx.Module):
    """One piece of a digraph measure x -> eta^x: a density, or point masses moved by maps."""

    kind: Kind = eqx.field(static=True)

    @abc.abstractmethod
    def grid(self, num_labels: int) -> LabelGrid:
        """The most accurate discretisation."""

    @abc.abstractmethod
    def cells(self, num_cells: int) -> LabelGrid:
        """A discretisation on cells of equal weight, which keeps the sign and, up to the end cells, the mass."""

    def nodes(self, num_nodes: int) -> GraphOperator:
        """The deterministic graph of `num_nodes` nodes with one label each, without loops."""
        return self.cells(num_nodes).operator

    def eigenvalues(self, k: int, smallest: bool) -> Inexact[Array, "k"] | None:
        """The first k of the spectrum where a formula is known."""
        return None

    def mean_density(self) -> Float[Array, ""]:
        """The integral of the density over both labels."""
        raise NotImplementedError

    def edge_scaling(self, num_nodes: int) -> float:
        """The factor rho of edge probabilities rho W, edges weighing 1 / rho, unless a mean degree is asked for."""
        return 1.0

    def edges(
        self, num_nodes: int, generator: np.random.Generator, scaling: float, directed: bool, clip: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Sources and targets of a random graph without loops: independent edges of probability scaling * density."""
        raise ValueError(
            "Argument `weighted` must not be False for a measure with point masses, but there is no density to draw from."
        )


def midpoint_grid(operator: GraphOperator) -> LabelGrid:
    """Equal weights at the labels (i + 1/2) / N."""
    count = operator.num_nodes
    return LabelGrid(jnp.asarray(midpoints(count)), jnp.asarray(np.full(count, 1 / count)), operator)


@functools.partial(jax.jit, static_argnums=(1, 2))
def leading(values: Inexact[Array, "many"], k: int, smallest: bool) -> Inexact[Array, "k"]:
    """The first k by real part, then by positive imaginary part, filled up with zeros of the essential rest."""
    values = jnp.concatenate([values, jnp.zeros(max(k - values.shape[0], 0), values.dtype)])
    sign = 1 if smallest else -1
    if jnp.iscomplexobj(values):
        order = jnp.lexsort((-values.imag, sign * values.real))
        return values[order][:k]
    return sign * jnp.sort(sign * values)[:k]


def check_interval(
    value: Any, name: str, *, low: float = 0.0, high: float = 1.0, open_low: bool = False, open_high: bool = False
) -> None:
    """Raise unless every entry of a concrete `value` lies between `low` and `high`; a traced value passes."""
    if is_concrete(value):
        array = np.asarray(value, float)
        above = array > low if open_low else array >= low
        below = array < high if open_high else array <= high
        interval = f"{'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
        check_that(bool(np.all(above & below)), name, f"lie in {interval}", f"found {value}")


def check_finite(value: Any, name: str) -> None:
    """Raise unless every entry of a concrete `value` is finite; a traced value passes."""
    if is_concrete(value):
        check_that(bool(np.all(np.isfinite(np.asarray(value)))), name, "be finite", f"found {value}")
