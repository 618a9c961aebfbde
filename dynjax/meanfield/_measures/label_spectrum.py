"""Spectra and transient growth of a digraph measure on quadrature labels."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Float, Inexact

from ..._core import check_count, check_that, is_concrete
from ...linalg import eigs
from .label_grid import LabelGrid, as_grid
from .measure_part import leading

# Up to here the whole spectrum of a directed measure is computed, with derivatives; Arnoldi iterations beyond.
_DENSE = 400


def label_spectrum(grid: LabelGrid, k: int, *, symmetric: bool, smallest: bool = False) -> Inexact[Array, "k"]:
    """The first k eigenvalues of the operator of a grid, largest real part first.

    Args:
        grid: labels, weights, operator.
        k: how many.
        symmetric: whether the operator is self-adjoint in L^2 of the weights; then `eigvalsh` of sqrt(q) A / sqrt(q),
            real and differentiable. Otherwise complex: up to 400 labels from all eigenvalues, which LAPACK finds on a
            CPU and which are differentiable where simple; beyond by `dynjax.linalg.eigs`, without derivative.
        smallest: smallest real part first instead.

    Returns:
        (k,), filled up with zeros if there are fewer labels. Costs num_labels^3 (or k products a step with `eigs`).
    """
    check_count(k, "k")
    size = min(k, grid.num_labels)
    if symmetric:
        return leading(jnp.linalg.eigvalsh(_normal(grid, symmetrised=True)), k, smallest)
    if grid.num_labels <= _DENSE:
        return leading(jnp.linalg.eigvals(grid.operator.as_matrix()), k, smallest)
    sign = -1 if smallest else 1
    dtype = jnp.result_type(float)
    shape = jax.ShapeDtypeStruct((grid.num_labels,), dtype)
    operator = lx.FunctionLinearOperator(lambda v: sign * grid.operator.apply(v), shape)
    return leading(sign * eigs(operator, size, which="LR").values, k, smallest)


def _normal(grid: LabelGrid, *, symmetrised: bool) -> Float[Array, "labels labels"]:
    """The operator between functions scaled by the roots of the weights, in which L^2 is Euclidean."""
    root = jnp.sqrt(grid.weights)
    matrix = root[:, None] * grid.operator.as_matrix(grid.weights.dtype) / root
    return (matrix + matrix.T) / 2 if symmetrised else matrix


class TransientGrowth(eqx.Module):
    """How far exp(t A) amplifies before its spectrum decides.

    Attributes:
        times: t, (times,).
        norms: the L^2 norm of exp(t A), (times,).
        numerical_abscissa: the largest eigenvalue of (A + A*) / 2, the growth rate at t = 0.
        spectral_abscissa: the largest real part of an eigenvalue of A on the labels, the growth rate at t = infinity.
    """

    times: Float[Array, "times"]
    norms: Float[Array, "times"]
    numerical_abscissa: Float[Array, ""]
    spectral_abscissa: Float[Array, ""]

    def __str__(self) -> str:
        """One line."""
        return (
            f"TransientGrowth: rate {self.numerical_abscissa:.4g} at first, {self.spectral_abscissa:.4g} in the end; "
            f"|exp(tA)| up to {jnp.max(self.norms):.4g} at {self.times.shape[0]} times up to {jnp.max(self.times):.4g}"
        )


def transient_growth(graph: Any, times: Any, num_labels: int | None = None) -> TransientGrowth:
    r"""The L^2 norm of exp(t A), A f(x) = int f d eta^x.

    The incoherent state of phase oscillators with Lorentzian frequencies of width Delta linearises to
    z' = (K / 2) A z - Delta z: its perturbations grow by at most exp(-Delta s) |exp(t A)| up to time s, t = K s / 2. For a
    normal operator that is the growth of an eigenfunction; for a feed-forward graph it may be large though all
    eigenvalues are zero.

    Args:
        graph: a `DigraphMeasure`, `LabelGrid` or `GraphOperator`. A label of weight zero counts as one of equal weight.
        times: t >= 0, in units of one over the weight of the graph.
        num_labels: how many labels for a `DigraphMeasure`.

    Returns:
        A `TransientGrowth`. Costs a matrix exponential of the labels and its singular values for each time.
    """
    times = jnp.atleast_1d(jnp.asarray(times, jnp.result_type(float)))
    check_that(times.ndim == 1, "times", "be one row of numbers", f"found shape {times.shape}")
    if is_concrete(times):
        good = bool(np.all(np.isfinite(np.asarray(times)) & (np.asarray(times) >= 0)))
        check_that(good, "times", "be finite and not negative", f"found {times}")
    grid = as_grid(graph, num_labels)
    weights = jnp.where(grid.weights > 0, grid.weights, 1 / grid.num_labels)
    matrix = _normal(LabelGrid(grid.labels, weights, grid.operator), symmetrised=False)
    norms = jax.lax.map(lambda t: jnp.linalg.norm(jax.scipy.linalg.expm(t * matrix, max_squarings=32), 2), times)
    numerical = jnp.linalg.eigvalsh((matrix + matrix.T) / 2)[-1]
    spectral = jnp.max(label_spectrum(grid, 1, symmetric=False).real)
    return TransientGrowth(times, norms, numerical, spectral)
