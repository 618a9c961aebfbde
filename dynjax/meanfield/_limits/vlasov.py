"""One front end to the solvers of the Vlasov and Vlasov-Fokker-Planck equations on the fibres of a digraph measure."""

from collections.abc import Callable
from typing import Any

from ..._core import check_that
from .fibres import AbstractFibres
from .finite_volume import finite_volume_fibres
from .fourier_hierarchy import fourier_fibres
from .tracers import tracer_fibres

_METHODS: dict[str, Callable[..., AbstractFibres]] = {
    "fourier": fourier_fibres,
    "finite_volume": finite_volume_fibres,
    "tracers": tracer_fibres,
}


def vlasov(
    graph: Any,
    frequencies: Any,
    coupling: Any,
    *,
    dt: Any,
    noise: Any = 0.0,
    method: str = "fourier",
    **options: Any,
) -> AbstractFibres:
    r"""The mean-field limit of noisy Kuramoto oscillators on a digraph measure, as a system.

    Every label x has a density rho(t, x, theta), the fibre, and is driven by the fibres of its neighbours:

        d_t rho + d_theta(rho V) = D d_theta^2 rho,    V = omega + K Im(h(x) exp(-i theta)),    h(x) = int z(y) eta^x(dy),

    z(y) the mean of exp(i theta) over the fibre of y. It is the limit of theta_i' = omega_i + K (1/N) sum_j a_ij
    sin(theta_j - theta_i) + sqrt(2 D) xi_i as N grows. Three discretisations, each a system with `step` and `tangent_step`:

    - "fourier": moments up to `num_modes`, exponential Runge-Kutta, order 4. The choice with noise; 12 modes give the steady
      order parameter to 3e-13 at K/D = 4. A Lorentz law enters by its pole, exactly, with or without noise.
    - "finite_volume": averages over `num_cells` cells, order 2, with positive densities and conserved mass. The choice for
      rough densities; `finite_volume_step` finds a step.
    - "tracers": `num_tracers` characteristics for each fibre and frequency, without noise. Spectrally accurate for
      smooth fibres; the choice for identical oscillators.

    Common to all: `init(law)` for a phase law (`UniformPhases`, `PoissonKernel`, `VonMises`, `CosinePhases`, `SampledPhases`)
    or an array of phases; `order_parameter(state)`, `complex_order_parameter`, `local_order_parameter`, `local_moments`;
    `density(state, angles)`; `fibre_measure(state)` for `fibre_distance`. To sweep couplings, `jax.vmap` over a function that
    builds the system and evolves it.

    Frequencies of a normal law are Gauss-Hermite nodes, of a uniform one Gauss-Legendre nodes. Nodes that drift recur: with
    32 of them expect 1e-3 for t above about 10 without noise.

    Args:
        graph: a `DigraphMeasure`, a `LabelGrid` or a `GraphOperator`, whose nodes then are fibres of equal weight.
        frequencies: a frequency law, one number, or one number for each label.
        coupling: K, traced.
        dt: time per step, traced.
        noise: D, traced; 0 for "tracers".
        method: "fourier", "finite_volume" or "tracers".
        **options: `num_labels` (of a discretised measure), `num_frequencies` (32), and of the methods `num_modes` (32),
            `num_cells` (128), `num_tracers` (64).

    Raises:
        ValueError: if the method is unknown, noise is negative (or not 0 for "tracers"), or the step is too large for the
            finite volume.

    Warns:
        MeanFieldWarning: for a Fourier hierarchy that nothing damps, and for the quantiles of a Lorentz law.

    Example:
        ```python
        limit = dj.meanfield.vlasov(dj.DigraphMeasure.ring(0.2), dj.meanfield.Identical(), 4.0, noise=0.5, dt=0.02,
                                    num_labels=64, num_modes=16)
        orbit = dj.trajectory(limit, limit.init(dj.meanfield.VonMises(1.0)), num_steps=500, observe=lambda n, x:
                              limit.order_parameter(x))
        ```

    References:
        Kuehn and Xu 2022, Vlasov equations on digraph measures (arXiv:2107.08419); Cox and Matthews 2002, Exponential time
        differencing for stiff systems.
    """
    check_that(method in _METHODS, "method", f"be one of {', '.join(_METHODS)}", f"found {method!r}")
    return _METHODS[method](graph, frequencies, coupling, dt=dt, noise=noise, **options)
