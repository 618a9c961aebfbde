"""The Ott-Antonsen equation on the fibres of a digraph measure: one complex number for each label."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, PyTree

from ..._core import check_that, found, is_concrete
from ...systems import AbstractSystem, Flow, FlowSolution
from ...systems._system import IntScalarLike, as_number
from .._distances.circle_distance import CellMasses
from .._measures.label_grid import LabelGrid, as_grid
from .._thresholds.frequency_laws import AbstractFrequencyLaw, Gaussian, Identical, Lorentzian, Uniform
from .phase_laws import AbstractPhaseLaw, PoissonKernel


class OttAntonsen(AbstractSystem):
    """The Ott-Antonsen equation as a system; made by `ott_antonsen`.

    A state holds the real and imaginary parts of z, (labels, 2), so that tangent tools see real numbers.

    Attributes:
        grid: labels, weights and graph operator.
        field: the vector field.
        dt: time per step.
        method: the Runge-Kutta method of `step`.
    """

    grid: LabelGrid
    field: "_Field"
    dt: Float[Array, ""]
    method: str = eqx.field(static=True)

    def __init__(self, field: "_Field", dt: Any, method: str):
        flow = Flow(field, dt, method=method)
        self.grid, self.field, self.dt, self.method = field.grid, field, flow.dt, method

    @property
    def flow(self) -> Flow:
        """The equation as a flow."""
        return Flow(self.field, self.dt, method=self.method)

    def step(self, n: IntScalarLike, x: PyTree) -> PyTree:
        """One Runge-Kutta step."""
        return self.flow.step(n, x)

    def tangent_step(self, n: IntScalarLike, x: PyTree, v: PyTree) -> tuple[PyTree, PyTree]:
        """One Runge-Kutta step of the state and of stacked tangents."""
        return self.flow.tangent_step(n, x, v)

    def solve(self, x0: Float[Array, "labels 2"], ts: Any, **options: Any) -> FlowSolution:
        """The adaptive solution at the times `ts`: `Flow.solve` with the same options."""
        return self.flow.solve(x0, ts, **options)

    def init(self, z: Any) -> Float[Array, "labels 2"]:
        """The state of local order parameters z, or of a law on the Ott-Antonsen manifold.

        Args:
            z: a real or complex number, an array (labels,), or a `PoissonKernel`.

        Raises:
            ValueError: if the shape does not fit, or a modulus is above 1.
        """
        if isinstance(z, AbstractPhaseLaw):
            good = isinstance(z, PoissonKernel)
            check_that(good, "z", "be numbers or a `PoissonKernel`", f"found a {type(z).__name__}", TypeError)
            z = z.moments(1)[..., 0]
        z = jnp.asarray(z)
        count = self.grid.num_labels
        check_that(z.shape in ((), (count,)), "z", f"be a number or an array of {count} labels", found(z))
        if is_concrete(z):
            largest = float(jnp.max(jnp.abs(z)))
            check_that(largest <= 1, "z", "have moduli of at most 1", f"found {largest:.6g}")
        state = jnp.broadcast_to(jnp.stack([jnp.real(z), jnp.imag(z)], axis=-1), (count, 2))
        return state if jnp.issubdtype(state.dtype, jnp.floating) else state.astype(jnp.result_type(float))

    def local_order_parameter(self, x: Float[Array, "labels 2"]) -> Complex[Array, "labels"]:
        """z(x), the first moment of each fibre."""
        return _complex(x)

    def complex_order_parameter(self, x: Float[Array, "labels 2"]) -> Complex[Array, ""]:
        """The mean of z over the labels."""
        return _complex(self.grid.mean(x))

    def order_parameter(self, x: Float[Array, "labels 2"]) -> Float[Array, ""]:
        """r, the modulus of the mean of z over the labels; its derivative at r = 0 is taken as 0."""
        return modulus(self.grid.mean(x))

    def fibre_measure(self, x: Float[Array, "labels 2"], num_cells: int = 1024) -> CellMasses:
        """The phase law of each fibre as exact masses of cells, for distances."""
        return CellMasses(self.law(x).cell_masses(num_cells))

    def law(self, x: Float[Array, "labels 2"]) -> PoissonKernel:
        """The phase law of each fibre: densities, moments and quantiles of the limit."""
        # The phase of z = 0 is arbitrary: a finite derivative there is one of many.
        empty = jnp.sum(x**2, axis=-1) == 0
        real, imag = jnp.where(empty, 1, x[..., 0]), x[..., 1]
        return PoissonKernel(modulus(x), jnp.arctan2(imag, real))


class _Field(eqx.Module):
    """z' = (i w0 - Delta) z + (K/2)(H - conj(H) z^2) over (real, imaginary) columns."""

    grid: LabelGrid
    center: Float[Array, "*labels"]
    width: Float[Array, "*labels"]
    coupling: Float[Array, ""]
    triads: Float[Array, ""] | None

    def __call__(self, t: Any, y: Float[Array, "labels 2"], args: Any) -> Float[Array, "labels 2"]:
        dtype = y.dtype
        a, b = y[:, 0], y[:, 1]
        h = self.grid.operator.apply(y)
        forcing = self.coupling.astype(dtype) * h
        if self.triads is not None:
            forcing = forcing + self.triads.astype(dtype) * jnp.sum(h**2, axis=1, keepdims=True) * h
        p, q = forcing[:, 0] / 2, forcing[:, 1] / 2
        center, width = self.center.astype(dtype), self.width.astype(dtype)
        square, twice = a * a - b * b, 2 * a * b
        real = -width * a - center * b + p - (p * square + q * twice)
        imag = -width * b + center * a + q - (p * twice - q * square)
        return jnp.stack([real, imag], axis=1)


def ott_antonsen(
    graph: Any,
    frequencies: Any,
    coupling: Any,
    *,
    num_labels: int | None = None,
    dt: Any = 0.01,
    method: str = "rk4",
    triads: Any = None,
) -> OttAntonsen:
    r"""The Ott-Antonsen equation of Kuramoto oscillators on a digraph measure.

        dz(x)/dt = (i w0 - Delta) z + (K/2) (h - conj(h) z^2),    h(x) = int z(y) eta^x(dy).

    It is the exact evolution of the first moment z(x) of every fibre if there is no noise, frequencies follow a Lorentz law
    and every fibre starts as a Poisson kernel, the same for all frequencies. It is exact too for one frequency in each
    fibre, as a statement on that invariant family. One number for each label then is the whole state: no quadrature
    over frequencies and no truncation of modes.

    A step costs four products with the graph operator, with two columns each.

    `step` is explicit: with Runge-Kutta of order four it is stable while dt |K| max |int eta^x| < 2.8. The labels of
    heavy-tailed kernels reach far up (a power law of exponent 1/4 on its own 400 labels: row masses up to
    33,000), so take `solve` there, a smaller dt, or the cells of the measure, `measure.cells(64)`.

    Args:
        graph: a `DigraphMeasure`, a `LabelGrid` or a `GraphOperator`, whose nodes then are fibres of equal weight.
        frequencies: a `Lorentzian` or `Identical` law, or one frequency for each label, (labels,).
        coupling: K, traced.
        num_labels: labels of the discretised measure.
        dt: step of `step`, traced; `solve` is adaptive and does not use it.
        method: the Runge-Kutta method of `step`.
        triads: strength K23 of higher-order interactions, traced: the forcing K h becomes K h + K23 |h|^2 h. On the
            complete graph r' = -Delta r + (r/2)(1 - r^2)(K + K23 r^2).

    Raises:
        ValueError: if `frequencies` is another law: the Ott-Antonsen reduction then does not close.

    Example:
        ```python
        ring = dj.DigraphMeasure.ring(radius=0.2)
        limit = dj.meanfield.ott_antonsen(ring, dj.meanfield.Lorentzian(1.0), 8.0, num_labels=200)
        solution = limit.solve(limit.init(0.1), jnp.linspace(0.0, 10.0, 50))
        jax.vmap(limit.order_parameter)(solution.ys)
        ```

    References:
        Ott and Antonsen 2008, Low dimensional behavior of large systems of globally coupled oscillators (arXiv:0806.0004);
        Kuehn and Xu 2022, Vlasov equations on digraph measures (arXiv:2107.08419). The fibred form is derived here.
    """
    grid = as_grid(graph, num_labels)
    center, width = _pole(frequencies, grid.num_labels)
    coupling = as_number(coupling, "coupling")
    third = None if triads is None else as_number(triads, "triads")
    return OttAntonsen(_Field(grid, center, width, coupling, third), dt, method)


def _pole(frequencies: Any, num_labels: int) -> tuple[Array, Array]:
    """The centre and the width of the frequency law."""
    if isinstance(frequencies, Lorentzian):
        return frequencies.center, frequencies.width
    if isinstance(frequencies, Identical):
        return frequencies.center, jnp.zeros_like(frequencies.center)
    if isinstance(frequencies, AbstractFrequencyLaw):
        known = isinstance(frequencies, Gaussian | Uniform)
        name = type(frequencies).__name__
        but = f"a {name} law {'has no single pole' if known else 'is not known to have one pole'}; take `vlasov`"
        check_that(False, "frequencies", "be `Lorentzian`, `Identical` or one number for each label", but)
    values = jnp.asarray(frequencies)
    values = values if jnp.issubdtype(values.dtype, jnp.floating) else values.astype(jnp.result_type(float))
    good = values.shape in ((), (num_labels,))
    check_that(good, "frequencies", f"be a law, a number or an array of {num_labels} labels", found(values))
    return values, jnp.zeros_like(values)


def _complex(pair: Float[Array, "*labels 2"]) -> Complex[Array, "*labels"]:
    return pair[..., 0] + 1j * pair[..., 1]


def modulus(pair: Float[Array, "*labels 2"]) -> Float[Array, "*labels"]:
    """The modulus of (real, imaginary) pairs, with derivative 0 at 0; NaN stays NaN."""
    square = jnp.sum(pair**2, axis=-1)
    return jnp.where(square == 0, 0, jnp.sqrt(jnp.where(square == 0, 1, square)))
