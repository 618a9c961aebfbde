"""Sums of digraph measures with factors: a density and point masses side by side."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from ..._core import check_that
from .._graphs.combination import Combination
from .._graphs.graph_operator import GraphOperator
from .convolutions import Convolution, among_low_modes
from .label_grid import LabelGrid
from .measure_part import Kind, MeasurePart, leading

# Pairs of modes looked at for the leading eigenvalues of a sum with a density.
_PAIRS = 2048


class Sum(MeasurePart):
    """sum_k factor_k eta_k on one label space."""

    parts: tuple[MeasurePart, ...]
    factors: Float[Array, "parts"]

    def __init__(self, parts: tuple[MeasurePart, ...], factors: Float[Array, "parts"]):
        spaces = sorted({part.kind.space for part in parts})
        check_that(len(spaces) == 1, "other", "live on the same labels", f"the label spaces are {' and '.join(spaces)}")
        self.parts, self.factors = parts, factors
        symmetric, atomic = (
            all(part.kind.symmetric for part in parts),
            any(part.kind.atomic for part in parts),
        )
        self.kind = Kind(spaces[0], symmetric=symmetric, atomic=atomic, drawn=False)

    def grid(self, num_labels: int) -> LabelGrid:
        """Convolutions stay exact on trigonometric polynomials; other sums are taken on cells, of second order."""
        exact = len(self.parts) == 1 or self._convolutions() is not None
        return self._together([part.grid(num_labels) if exact else part.cells(num_labels) for part in self.parts])

    def _convolutions(self) -> list[Convolution] | None:
        found = [part for part in self.parts if isinstance(part, Convolution)]
        return found if len(found) == len(self.parts) else None

    def cells(self, num_cells: int) -> LabelGrid:
        """The sum of the parts on cells."""
        return self._together([part.cells(num_cells) for part in self.parts])

    def _together(self, grids: list[LabelGrid]) -> LabelGrid:
        operator = Combination([grid.operator for grid in grids], list(self.factors))
        return LabelGrid(grids[0].labels, grids[0].weights, operator)

    def nodes(self, num_nodes: int) -> GraphOperator:
        """The sum of the deterministic graphs."""
        return Combination([part.nodes(num_nodes) for part in self.parts], list(self.factors))

    def eigenvalues(self, k: int, smallest: bool) -> Inexact[Array, "k"] | None:
        """Known for one part and for convolutions, whose multipliers add up."""
        if len(self.parts) == 1:
            part, factor = self.parts[0], self.factors[0]
            highest, lowest = (part.eigenvalues(k, end) for end in (False, True))
            if highest is None or lowest is None:
                return None
            return jnp.where(
                factor < 0, factor * (highest if smallest else lowest), factor * (lowest if smallest else highest)
            )
        if self._convolutions() is None:
            return None
        if all(part.kind.atomic for part in self.parts):
            return among_low_modes(self._multipliers, k, smallest)
        modes = np.arange(1, 2 * max(_PAIRS, k)) // 2
        return leading(self._multipliers(jnp.asarray(modes * (-1) ** np.arange(modes.size), float)), k, smallest)

    def _multipliers(self, modes: Float[Array, "modes"]) -> Inexact[Array, "modes"]:
        values = [part.multipliers(modes) for part in self._convolutions() or ()]
        return jnp.tensordot(self.factors, jnp.stack(values), axes=1)

    def mean_density(self) -> Float[Array, ""]:
        """The sum of the parts'."""
        return self.factors @ jnp.stack([part.mean_density() for part in self.parts])
