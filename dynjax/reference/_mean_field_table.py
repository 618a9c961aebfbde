"""The table of reference values for mean-field limits, each computed by a function of this room."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from . import _attention as attention, _kuramoto as kuramoto, _kuramoto_graphs as graphs, _mean_field as mean_field
from ._gaussian_products import gaussian_product_exponents
from ._mixture_transport import LineMixture, monotone_transport, variance_preserving_transport
from ._wide_networks import critical_weight_variance, wide_network_variance


class ReferenceValue(NamedTuple):
    """One number that a simulation can be held against.

    Attributes:
        row: number of the row; rows with several numbers occur several times.
        quantity: what it is.
        value: the number, in JAX's default precision.
        standard_error: of the value; 0 for all that are computed, not 0 for the one Monte Carlo estimate.
    """

    row: int
    quantity: str
    value: Float[Array, ""]
    standard_error: float = 0.0


def mean_field_table() -> tuple[ReferenceValue, ...]:
    """Reference values for oscillators, attention, wide networks and flows, 31 rows.

    Rows: 1-9 the Kuramoto model on the complete graph; 10-17 on other graphs and with triads; 18-19 adaptive and two
    oscillators; 20-21 attention;
    22-24 generative flows; 25-27 interacting particles and wide networks; 28-29 depth; 30 Wasserstein distance of samples;
    31 geometry and noise of attention. Unless the row says otherwise D = 0, Delta = 1, s = 1.

    Example:
        ```python
        for entry in mean_field_table():
            print(entry.row, entry.quantity, float(entry.value))
        ```
    """
    return tuple(ReferenceValue(*row) for row in (*_complete_graph(), *_graphs(), *_networks_and_flows()))


def _complete_graph() -> list[tuple]:
    def transient(initial: float) -> Array:
        return kuramoto.ott_antonsen_transient(2.0, initial, 4.0, 1.0)

    r = kuramoto.lorentzian_order_parameter(4.0, 1.0)
    gaussian = [
        (5, f"normal frequencies: r at K = {k:g}", kuramoto.gaussian_order_parameter(k, 1.0)) for k in (1.7, 2.0, 3.0)
    ]
    noisy = [
        (8, f"noisy identical oscillators: r at K / D = {k:g}", kuramoto.noisy_order_parameter(k, 1.0))
        for k in (2.5, 3.0, 4.0, 8.0)
    ]
    critical = kuramoto.uniform_critical_coupling(1.0)
    return [
        (1, "Lorentzian frequencies: r at K = 4", r),
        (2, "Lorentzian frequencies: dr/dK at K = 4", 1 / (16 * r)),
        (3, "Lorentzian frequencies, K = 4, r(0) = 0.1: r(2)", transient(0.1)),
        (4, "Lorentzian frequencies, K = 4, r(0) = 0.5: r(2)", transient(0.5)),
        (5, "normal frequencies: critical coupling", kuramoto.gaussian_critical_coupling(1.0)),
        *gaussian,
        (6, "normal frequencies: growth rate at K = 2", kuramoto.gaussian_growth_rate(2.0, 1.0)),
        (6, "normal frequencies: leading real Landau pole at K = 1", kuramoto.gaussian_growth_rate(1.0, 1.0)),
        (7, "uniform frequencies on [-1, 1]: critical coupling", critical),
        (
            7,
            "uniform frequencies on [-1, 1]: r at the critical coupling",
            kuramoto.uniform_order_parameter(critical, 1.0),
        ),
        (7, "uniform frequencies on [-1, 1]: r at K = 1.5", kuramoto.uniform_order_parameter(1.5, 1.0)),
        *noisy,
        (9, "normal frequencies, D = 0.5: critical coupling", kuramoto.gaussian_critical_coupling(1.0, 0.5)),
    ]


def _graphs() -> list[tuple]:
    rings = [(radius, *graphs.ring_smallest_eigenvalue(radius)) for radius in (0.1, 0.2, 0.25)]
    blocks = graphs.two_block_eigenvalue(0.8, 0.2, 0.4)
    power = graphs.power_law_eigenvalue(0.25)
    twist = graphs.ring_eigenvalue(2, 0.1)
    stable, unstable = graphs.triad_order_parameters(1.0, 8.0)
    frequency, weight = graphs.adaptive_in_phase_state(0.3, -0.6 * jnp.pi)
    return [
        *((10, f"ring of radius {r:g}: smallest eigenvalue (mode {mode})", value) for r, mode, value in rings),
        (11, "small world, radius 0.2, rewiring 0.1: largest eigenvalue", graphs.small_world_eigenvalue(0.2, 0.1)),
        (11, "blocks [[0.8, 0.2], [0.2, 0.4]]: largest eigenvalue", blocks),
        (11, "blocks: critical coupling", kuramoto.lorentzian_critical_coupling(1.0, eigenvalue=blocks)),
        (12, "power law, exponent 1/4: eigenvalue", power),
        (12, "power law: critical coupling", kuramoto.lorentzian_critical_coupling(1.0, eigenvalue=power)),
        (12, "power law: field h at K = 3", graphs.power_law_field(3.0, 1.0, 0.25)),
        (13, "kernel 1 - max(x, y): largest eigenvalue", graphs.max_kernel_eigenvalue(1)),
        (14, "ring of radius 0.1: eigenvalue of the twist q = 2", twist),
        (
            14,
            "ring of radius 0.1: critical coupling of the twist",
            kuramoto.lorentzian_critical_coupling(1.0, 0.0, twist),
        ),
        (14, "ring of radius 0.1: amplitude of the twist at K = 20", graphs.twisted_amplitude(20.0, 1.0, twist)),
        (
            15,
            "identical ring: coupled fraction where the twist q = 1 loses stability",
            graphs.twisted_critical_fraction(),
        ),
        (16, "triads, K1 = 1, K23 = 8: stable r", stable),
        (16, "triads, K1 = 1, K23 = 8: unstable r", unstable),
        (17, "Volterra kernel, x = 1, K = 8: growth at t = 4", graphs.volterra_growth(4.0, 1.0, 8.0, 1.0)),
        (18, "adaptive weights, a = 0.3, b = -0.6 pi: frequency", frequency),
        (18, "adaptive weights, a = 0.3, b = -0.6 pi: weight", weight),
        (19, "two oscillators, detuning 1, K = 1.5: phase", kuramoto.phase_locked_difference(1.0, 1.5)),
        (19, "two oscillators, detuning 1, K = 0.8: beat frequency", kuramoto.beat_frequency(1.0, 0.8)),
    ]


def _networks_and_flows() -> list[tuple]:
    overlap = attention.equiangular_overlap
    modes = [
        (21, f"attention: metastable clusters at beta = {b:g}", attention.attention_cluster_number(b))
        for b in (1.0, 2.0, 3.0, 5.0, 7.0, 9.0, 16.0, 25.0, 50.0)
    ]
    normal = LineMixture(*(jnp.asarray([value]) for value in (1.0, 0.0, 1.0)))
    pair = LineMixture(*(jnp.asarray(values) for values in ([0.5, 0.5], [-2.0, 2.0], [0.5, 0.5])))
    particles = [
        (25, f"mean-field OU, a = 1, k = 2, D = 0.5: variance at N = {n or 'inf'}", variance)
        for n in (10, 100, None)
        for variance in [mean_field.mean_field_ou_variance(1.0, 2.0, 0.5, n)]
    ]
    products = [
        (28, f"products of normal layers of width {n}: exponent", gaussian_product_exponents(n, 1 / n)[0])
        for n in (1, 2, 10, 100)
    ]
    critical = critical_weight_variance(0.05)
    return [
        (20, "softmax attention, n = 8, beta = 1: overlap at t = 1", overlap(1.0, 1.0, 8)),
        (20, "softmax attention, n = 8, beta = 4: overlap at t = 5", overlap(5.0, 4.0, 8)),
        (20, "unnormalised attention, n = 8, beta = 1: overlap at t = 1", overlap(1.0, 1.0, 8, kind="usa")),
        (20, "attention, n = 8, beta = 0: overlap at t = 1", overlap(1.0, 0.0, 8)),
        *modes,
        (21, "unnormalised attention: growth rate of mode 3 at beta = 5", attention.attention_mode_growth(3, 5.0)),
        (22, "flow matching to (N(-2, 1/4) + N(2, 1/4)) / 2: from 0.5", monotone_transport(0.5, normal, pair)),
        (22, "flow matching to (N(-2, 1/4) + N(2, 1/4)) / 2: from 1.0", monotone_transport(1.0, normal, pair)),
        (23, "probability flow to the same, T = 8: from 0.5", variance_preserving_transport(0.5, 8.0, pair)),
        (24, "flow matching: smallest loss to N(m, 1/4)", mean_field.flow_matching_floor(0.5)),
        (24, "flow matching: smallest loss to N(m, 1)", mean_field.flow_matching_floor(1.0)),
        *particles,
        (26, "double well: critical noise", mean_field.double_well_critical_noise()),
        (27, "quadratic network, m0 = 0.2, m* = 1: m(0.1)", mean_field.quadratic_network_overlap(0.1, 0.2, 1.0)),
        *products,
        (29, "tanh network, bias variance 0.05: critical weight variance", critical),
        (29, "tanh network at the edge of chaos: variance", wide_network_variance(critical, 0.05)),
        (30, "sqrt(N) E W1 of N uniform points, line", mean_field.uniform_sample_wasserstein()),
        (30, "sqrt(N) E W1 of N uniform points, circle of length 1", jnp.asarray(0.227), 0.002),
        (31, "6 points in dimension 3: share a hemisphere", attention.hemisphere_probability(6, 3)),
        (31, "unnormalised attention, beta = 5: noise threshold", attention.attention_noise_threshold(5.0)),
    ]
