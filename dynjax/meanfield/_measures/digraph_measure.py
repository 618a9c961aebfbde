"""Digraph measures: the limits of large directed graphs, as measures eta^x that say who drives x."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact, PRNGKeyArray

from ..._core import check_count, check_positive, check_that, found, is_concrete
from .._graphs.graph_operator import GraphOperator
from .._graphs.sparse import Sparse
from .._particles.validity import MeanFieldWarning, warn_clipped_edges
from .block_kernel import Blocks
from .convolutions import Band, NearestNeighbours, Shifts
from .in_cells import InCells
from .interval_kernels import Constant, Density, GreenKernel, PowerLaw, Volterra
from .label_grid import LabelGrid as LabelGrid, as_grid as as_grid
from .label_spectrum import label_spectrum
from .measure_part import MeasurePart, check_interval
from .measure_sum import Sum
from .point_masses import Atoms, Star, Tree
from .sphere_measure import Sphere

# Labels unless asked for: smooth fibres on a circle or on Gauss nodes need no more, and dense operators stay small.
_NUM_LABELS = 256
_End = Literal["largest", "smallest"]


class DigraphMeasure(eqx.Module):
    r"""A digraph measure: for each label x a finite measure eta^x on the labels that says who drives x, and how strongly.

    It is the limit of graphs of N nodes with eta^{x_i} = (1/N) sum_j a_ij delta_{x_j}, a_ij the weight of the edge j -> i. A
    graphon W is eta^x(dy) = W(x, y) dy; point masses describe sparser graphs. From the one definition follow finite graphs
    (`sample`, `sample_in_cells`), quadrature labels for all limits (`grid`), and the spectrum of

    $$(A f)(x) = \int f(y)\, \eta^x(dy).$$

    Measures on the same labels add up and take factors: `0.9 * DigraphMeasure.ring(0.1) + 0.1 * DigraphMeasure.shift_ring(0.25)`.
    Numbers such as `radius` may be traced: spectra, grids and thresholds are differentiable in them.

    Attributes:
        part: the density or the point masses.

    Example:
        ```python
        ring = dj.DigraphMeasure.ring(radius=0.2)
        ring.spectrum(3)                          # 0.4, 0.3027, 0.3027
        graph = ring.sample(1000, key)            # graph.apply(F)
        ```

    References:
        Kuehn and Xu 2022, Vlasov equations on digraph measures (arXiv:2107.08419).
    """

    part: MeasurePart

    def __init__(self, part: MeasurePart):
        check_that(isinstance(part, MeasurePart), "part", "be made by a class method", found(part), TypeError)
        self.part = part

    # The library.

    @classmethod
    def complete(cls) -> "DigraphMeasure":
        """The complete graph: eta^x is Lebesgue measure on [0, 1]. Spectrum {1, 0}."""
        return cls(Constant(1.0, drawn=False))

    @classmethod
    def erdos_renyi(cls, p: Any) -> "DigraphMeasure":
        """Erdos-Renyi graphs of edge probability p: eta^x = p dy. Spectrum {p, 0}.

        The leading eigenvalue of a sample exceeds p by (1 - 2 p) / N on average: -p for the missing loops, 1 - p from the noise.
        """
        check_interval(p, "p")
        return cls(Constant(p, drawn=True))

    @classmethod
    def stochastic_block(cls, density: Any, sizes: Any, *, directed: bool | None = None) -> "DigraphMeasure":
        """Stochastic block graphs.

        Args:
            density: density[b, c] of edges from block c into block b.
            sizes: of the blocks, in any unit.
            directed: whether the density is asymmetric; it is looked at unless traced.
        """
        return cls(Blocks(density, sizes, directed))

    @classmethod
    def ring(cls, radius: Any) -> "DigraphMeasure":
        r"""Nearest neighbours on the circle of length 1: 1{d(x, y) <= radius} dy. Eigenvalues sin(2 pi q r) / (pi q), and 2 r."""
        return cls(Band(radius, 1.0, 0.0, drawn=False))

    @classmethod
    def small_world(cls, radius: Any, rewiring: Any) -> "DigraphMeasure":
        """Small worlds: density 1 - p up to the radius and p beyond. The leading eigenvalue is 2 r + p - 4 r p if p < 1/2."""
        check_interval(rewiring, "rewiring")
        rewiring = jnp.asarray(rewiring, jnp.result_type(float))
        return cls(Band(radius, 1 - rewiring, rewiring, drawn=True))

    @classmethod
    def power_law(cls, exponent: Any) -> "DigraphMeasure":
        r"""Power-law degrees: w(x) w(y) dy, w = (1 - a) x^-a, 0 <= a < 1/2. Eigenvalue (1 - a)^2 / (1 - 2 a).

        w w exceeds one at small labels, so random graphs are sparse: edge probabilities rho w w and weights 1 / rho, with
        rho = 1 / w(1 / (2 N))^2 and a mean degree of about N^(1 - 2 a) unless `mean_degree` is given. A larger one clips the
        probabilities at one, which loses weight between the hubs and lowers the leading eigenvalue.
        """
        return cls(PowerLaw(exponent))

    @classmethod
    def min_kernel(cls) -> "DigraphMeasure":
        """min(x, y) dy. Eigenvalues 4 / ((2 k - 1)^2 pi^2)."""
        return cls(GreenKernel(reverse=False))

    @classmethod
    def max_kernel(cls) -> "DigraphMeasure":
        """(1 - max(x, y)) dy. Eigenvalues 4 / ((2 k - 1)^2 pi^2)."""
        return cls(GreenKernel(reverse=True))

    @classmethod
    def shift_ring(cls, shift: Any) -> "DigraphMeasure":
        """Two drivers at a fixed distance s on the circle, (delta_{x + s} + delta_{x - s}) / 2: no graphon.

        The eigenvalues are cos(2 pi k s), infinitely many near each of them.
        """
        shift = jnp.asarray(shift, jnp.result_type(float))
        check_that(shift.ndim == 0, "shift", "be one number", found(shift))
        return cls(Shifts(jnp.stack([shift, -shift]), [0.5, 0.5], symmetric=True))

    @classmethod
    def nearest_neighbour_cycle(cls) -> "DigraphMeasure":
        """The cycle with weights N / 2: the limit delta_x makes every fibre an all-to-all population. The identity."""
        return cls(NearestNeighbours())

    @classmethod
    def sphere(cls) -> "DigraphMeasure":
        """The unit sphere, x and y adjacent if orthogonal: neither dense nor sparse. Eigenvalues P_l(0), 2 l + 1 times."""
        return cls(Sphere())

    @classmethod
    def star(cls, a: Any = 1.0, b: Any = 1.0) -> "DigraphMeasure":
        """A hub that feels b times the mean of the leaves, leaves that feel a times the hub. Eigenvalues +-sqrt(a b), 0."""
        return cls(Star(a, b))

    @classmethod
    def tree(cls, parents: Any, weight: Any = 1.0) -> "DigraphMeasure":
        """A rooted tree: node i is driven by parents[i] alone, -1 for none.

        Feed-forward: all eigenvalues are zero, but for those of roots that drive themselves.
        """
        return cls(Tree(parents, weight))

    @classmethod
    def volterra(cls) -> "DigraphMeasure":
        """1{y < x} dy: directed, dense, and feed-forward. Spectrum {0}: no critical coupling, but transient growth."""
        return cls(Volterra())

    @classmethod
    def from_kernel(
        cls,
        kernel: Callable,
        *,
        directed: bool = True,
        space: Literal["interval", "circle"] = "interval",
        smooth: bool = True,
        bound: float = 1.0,
    ) -> "DigraphMeasure":
        """Any density W(x, y), the weight of edges from y into x.

        Args:
            kernel: W, on arrays of labels that broadcast; an Equinox module may hold traced parameters.
            directed: whether W(x, y) and W(y, x) may differ.
            space: labels on [0, 1] or on the circle of length 1.
            smooth: whether Gauss-Legendre labels pay; otherwise midpoints.
            bound: an upper bound of W where random graphs are drawn.
        """
        return cls(Density(kernel, space=space, symmetric=not directed, smooth=smooth, bound=bound))

    @classmethod
    def from_graphon(cls, kernel: Callable, *, smooth: bool = True) -> "DigraphMeasure":
        """A symmetric density W(x, y) = W(y, x) with values in [0, 1] on the labels [0, 1]."""
        return cls.from_kernel(kernel, directed=False, smooth=smooth)

    @classmethod
    def atomic(
        cls, maps: Sequence[Callable], weights: Any, *, space: Literal["interval", "circle"] = "interval"
    ) -> "DigraphMeasure":
        """Point masses: eta^x = sum_k weights[k] delta_{maps[k](x)}."""
        return cls(Atoms(maps, weights, space=space))

    def __add__(self, other: Any) -> "DigraphMeasure":
        """The sum of two measures on the same labels."""
        if not isinstance(other, DigraphMeasure):
            return NotImplemented
        ours, theirs = (
            (one.parts, one.factors) if isinstance(one, Sum) else ((one,), jnp.ones(1))
            for one in (self.part, other.part)
        )
        return DigraphMeasure(Sum(ours[0] + theirs[0], jnp.concatenate([ours[1], theirs[1]])))

    def __mul__(self, factor: Any) -> "DigraphMeasure":
        """A multiple; the factor may be negative and traced."""
        factor = jnp.asarray(factor, jnp.result_type(float))
        check_that(factor.ndim == 0, "factor", "be one number", found(factor))
        parts, factors = (
            (self.part.parts, self.part.factors) if isinstance(self.part, Sum) else ((self.part,), jnp.ones(1))
        )
        return DigraphMeasure(Sum(parts, factor * factors))

    __rmul__ = __mul__

    # What follows from the definition.

    @property
    def is_symmetric(self) -> bool:
        """Whether the operator is self-adjoint with respect to the reference probability."""
        return self.part.kind.symmetric

    @property
    def is_atomic(self) -> bool:
        """Whether some eta^x has point masses: then only populations on every label have a mean-field limit."""
        return self.part.kind.atomic

    def grid(self, num_labels: int | None = None) -> LabelGrid:
        """Quadrature labels, as accurate as is known.

        Circle: equispaced, exact on trigonometric polynomials (the weights of a band or of shifts off the labels then have
        either sign). [0, 1]: Gauss-Legendre, and Gauss-Jacobi for the power law. Blocks and trees have as many labels as blocks
        and nodes; the sphere has 2 L^2, about `num_labels`.

        Args:
            num_labels: how many labels; 256 by default.
        """
        if num_labels is None:
            num_labels = _NUM_LABELS
        check_count(num_labels, "num_labels")
        return self.part.grid(num_labels)

    def cells(self, num_cells: int) -> LabelGrid:
        """Cells of equal weight with averages of the measure: never negative for a positive measure.

        Of second order in their width, of first order where a kernel of one's own jumps.
        """
        check_count(num_cells, "num_cells")
        return self.part.cells(num_cells)

    def apply(self, values: Inexact[Array, "labels *columns"]) -> Inexact[Array, "labels *columns"]:
        """Int f(y) eta^x(dy) for a function given at the labels of the grid of that many labels."""
        values = jnp.asarray(values)
        check_that(values.ndim > 0 and values.shape[0] > 0, "values", "have a leading axis of labels", found(values))
        return self.grid(values.shape[0]).operator.apply(values)

    def spectrum(
        self, k: int, *, which: _End = "largest", numerical: bool = False, num_labels: int | None = None
    ) -> Inexact[Array, "k"]:
        """The first k eigenvalues with their multiplicity, by real part.

        By formula where one is known, otherwise of the operator on quadrature labels. Real for all of the library but for
        directed blocks and for trees with cycles; complex for directed kernels and maps. Shifts have infinitely many eigenvalues
        near each other: those of the k lowest Fourier modes are shown, the end of the spectrum among them.

        Args:
            k: how many.
            which: `"largest"` or `"smallest"` real part first.
            numerical: discretise even where there is a formula.
            num_labels: labels for that.

        Returns:
            (k,); differentiable in the parameters, where eigenvalues are simple and, for directed measures without formula,
            up to 400 labels.
        """
        check_count(k, "k")
        check_that(which in ("largest", "smallest"), "which", 'be "largest" or "smallest"', f"found {which!r}")
        known = None if numerical else self.part.eigenvalues(k, which == "smallest")
        if known is not None:
            return known
        return label_spectrum(self.grid(num_labels), k, symmetric=self.is_symmetric, smallest=which == "smallest")

    def spectral_abscissa(self) -> Float[Array, ""]:
        """The largest real part of an eigenvalue."""
        return self.spectrum(1)[0].real

    def sample(
        self,
        num_nodes: int,
        key: PRNGKeyArray | None = None,
        *,
        weighted: bool | None = None,
        mean_degree: float | None = None,
        directed: bool | None = None,
    ) -> GraphOperator:
        """A graph of N nodes at the labels (i + 1/2) / N (sphere: a Fibonacci lattice), without loops.

        Erdos-Renyi, block, small-world, power-law graphs and those of `from_kernel` have independent random edges. All others are
        deterministic. Random edges are drawn on the host, in time proportional to their number (`from_kernel`: to
        rho bound N^2). The loops of `weighted` graphs, of weight W(x, x) / N, do not matter to sine couplings.

        Args:
            num_nodes: N.
            key: random key; not needed for deterministic graphs.
            weighted: take the densities themselves as weights, without randomness (differentiable in the parameters);
                False draws edges for any density.
            mean_degree: sparser random graphs of that expected mean in-degree: probabilities min(1, rho W) and
                weights 1 / rho, rho = mean_degree / (N int int W), so that the limit is the same as long as rho W <= 1.
            directed: draw the edges i -> j and j -> i apart; by default if the measure is not symmetric.

        Warns:
            MeanFieldWarning: for a measure with point masses, where one oscillator for each node has no mean-field limit; use
                `sample_in_cells`; where more than a tenth of the edges that `mean_degree` asks for do not fit.

        Raises:
            ValueError: for a missing key, probabilities outside [0, 1] without `mean_degree`, traced parameters where edges
                are drawn, or undirected graphs of a directed measure.
        """
        check_count(num_nodes, "num_nodes")
        if mean_degree is not None:
            check_positive(mean_degree, "mean_degree")
            check_that(not weighted, "weighted", "be False where `mean_degree` is given", f"found {weighted}")
            weighted = False
        if self.is_atomic:
            warnings.warn(
                "Nodes of this graph are driven by single nodes: one oscillator for each node has no mean-field limit. "
                "Use `sample_in_cells` with many particles in each cell.",
                MeanFieldWarning,
                stacklevel=2,
            )
        if weighted or (weighted is None and not self.part.kind.drawn):
            return self.part.nodes(num_nodes)
        directed = not self.is_symmetric if directed is None else directed
        check_that(directed or self.is_symmetric, "directed", "be True for a directed measure", f"found {directed}")
        check_that(
            is_concrete(self),
            "self",
            "have known parameters where edges are drawn, outside of jit",
            "some are traced",
            TypeError,
        )
        generator = _generator(key)
        scaling = self.part.edge_scaling(num_nodes)
        if mean_degree is not None:
            scaling = float(mean_degree) / (num_nodes * float(self.part.mean_density()))
        sources, targets = self.part.edges(num_nodes, generator, scaling, directed, mean_degree is not None)
        if mean_degree is not None:
            warn_clipped_edges(len(sources) / num_nodes, mean_degree)
        graph = Sparse.from_edges(sources, targets, num_nodes=num_nodes, scale="n")
        # One factor, not a weight for each edge.
        return graph if scaling == 1 else (1 / scaling) * graph

    def sample_in_cells(self, num_cells: int, particles_per_cell: int) -> InCells:
        """A graph of num_cells * particles_per_cell nodes in which every cell feels cell averages: the in-cell-particle scheme.

        Has a mean-field limit for point masses too, as `particles_per_cell` grows. The cells are those of `cells`, and
        `.averages(F)` of the result are the cell averages.

        References:
            Kuehn and Xu 2022 (arXiv:2107.08419). Here the measures on cells take the place of their atoms.
        """
        check_count(particles_per_cell, "particles_per_cell")
        return InCells(self.cells(num_cells).operator, particles_per_cell)

    def critical_coupling(self, frequencies: Any, noise: Any = 0.0, **options: Any) -> Float[Array, ""]:
        """`dynjax.critical_coupling(self, ...)`."""
        from .._thresholds.thresholds import critical_coupling

        return critical_coupling(self, frequencies, noise=noise, **options)

    def ott_antonsen(self, frequencies: Any, coupling: Any, **options: Any) -> Any:
        """`dynjax.meanfield.ott_antonsen(self, ...)`: one complex number for each label."""
        from .._limits.ott_antonsen import ott_antonsen

        return ott_antonsen(self, frequencies, coupling, **options)

    def vlasov(self, frequencies: Any, coupling: Any, **options: Any) -> Any:
        """`dynjax.meanfield.vlasov(self, ...)`: a density of phases for each label."""
        from .._limits.vlasov import vlasov

        return vlasov(self, frequencies, coupling, **options)


def _generator(key: Any) -> np.random.Generator:
    check_that(key is not None, "key", "be given where edges are drawn", "found None")
    check_that(is_concrete(key), "key", "be known before tracing where edges are drawn", "it is traced")
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
