"""Warnings where a mean-field prediction, a quadrature or a run of particles is likely to mislead."""

import warnings
from typing import Any

import numpy as np

from ..._core import is_concrete

# Below this mean degree thresholds from the limit were seen to be off; a rule of thumb.
LEAST_MEAN_DEGREE = 20.0
# Clipped probabilities may lose this part of the edges before it is said.
_LOST_EDGES = 0.1
# Within this relative distance of the critical coupling finite size smears the transition.
CRITICAL_WINDOW = 0.05


class MeanFieldWarning(UserWarning):
    """The number will come out, but the limit or the quadrature behind it is not to be trusted here."""


def _warn(message: str) -> None:
    warnings.warn(message, MeanFieldWarning, stacklevel=4)


def warn_low_degree(mean_degree: Any, least: float = LEAST_MEAN_DEGREE) -> None:
    """Warn where a graph has so few edges for each node that its limit says little about it.

    Args:
        mean_degree: edges divided by nodes; a traced one passes.
        least: the smallest mean degree that passes, a rule of thumb.
    """
    if is_concrete(mean_degree) and float(mean_degree) < least:
        _warn(
            f"The mean degree {float(mean_degree):.3g} is below {least:g}: critical couplings and order parameters of the "
            "limit may be far off for this graph. Use a denser graph, or several oscillators for each label."
        )


def warn_clipped_edges(mean_degree: Any, wanted: Any) -> None:
    """Warn where a random graph could not hold the edges that were asked for.

    Edges have the probabilities min(1, rho W) and weights 1 / rho. Where rho W > 1 edges are missing, and what is left couples
    less than in the limit: a graph of N nodes holds no more than N drivers for each.

    Args:
        mean_degree: edges over nodes, as drawn.
        wanted: the mean degree asked for.
    """
    if float(mean_degree) < (1 - _LOST_EDGES) * float(wanted):
        _warn(
            f"A mean degree of {float(wanted):.4g} was asked for, but the probabilities of edges end at 1 and the graph has "
            f"{float(mean_degree):.4g}: it couples less than the limit does. Use more nodes or a smaller degree."
        )


def warn_sparse_graph(graph: Any) -> None:
    """`warn_low_degree` for a graph operator that is large and known to be sparse; the few nodes of an example pass.

    Args:
        graph: a `GraphOperator`, or anything else, which passes.
    """
    degree, num_nodes = getattr(graph, "mean_degree", None), getattr(graph, "num_nodes", None)
    if degree is not None and num_nodes is not None and degree < num_nodes and num_nodes >= 5 * LEAST_MEAN_DEGREE:
        warn_low_degree(degree)


def warn_single_particles(particles_per_node: int, atomic: bool = True) -> None:
    """Warn where a measure with atoms is sampled by one oscillator for each node.

    A node that is driven by finitely many others feels the average over *their particles*. With one particle in each there
    is no law of large numbers, however many nodes there are.

    Args:
        particles_per_node: oscillators for each label, a Python integer.
        atomic: whether the measures eta^x have atoms (a graph of bounded degree).
    """
    if atomic and particles_per_node < 2:
        _warn(
            "There is one oscillator for each node of a graph whose degrees stay bounded: such a system has no mean-field "
            "limit. Put several oscillators on each label (`particles_per_label`)."
        )


def warn_heavy_tails(law: Any) -> None:
    """Warn where a law without a variance is represented by midpoint quantiles.

    The last midpoints of a Lorentzian stand for tails that reach infinity; the error of averages falls like 2/M only, and
    not monotonically.

    Args:
        law: a frequency law; only `Lorentzian` warns.
    """
    if type(law).__name__ == "Lorentzian":
        _warn(
            "Midpoint quantiles of a Lorentzian law converge slowly (error about 2 / number of midpoints) because of its "
            "tails. Use the Ott-Antonsen reduction for its limit, or independent draws (`frequency_key`) for particles."
        )


def warn_filamentation(noise: Any, num_modes: int) -> None:
    """Warn where Fourier modes are cut off without noise to damp them.

    Args:
        noise: the intensity D; a traced one passes.
        num_modes: how many modes are kept.
    """
    if is_concrete(noise) and bool(np.any(np.asarray(noise) == 0)):
        _warn(
            f"Without noise a density filaments and leaves every cut-off ({num_modes} modes here) in finite time. Use "
            "quantile tracers or the finite-volume scheme, the Ott-Antonsen reduction for a Lorentzian, or noise > 0."
        )


def warn_near_critical(coupling: Any, critical: Any, num_nodes: int, window: float = CRITICAL_WINDOW) -> None:
    """Warn where a coupling lies so close to the critical one that a finite system does not show the transition.

    Args:
        coupling: K, a number or an array; traced ones pass.
        critical: the critical coupling; traced or infinite ones pass.
        num_nodes: size of the particle system.
        window: relative distance |K/Kc - 1| that warns.
    """
    if not (is_concrete(coupling) and is_concrete(critical)):
        return
    values, critical = np.atleast_1d(np.asarray(coupling, float)), float(critical)
    if np.isfinite(critical) and critical != 0:
        close = values[np.abs(values / critical - 1) < window]
        if close.size:
            _warn(
                f"The coupling {close[0]:.4g} is within {100 * window:g} % of the critical coupling {critical:.4g}: with "
                f"{num_nodes} nodes the transition is smeared there and relaxation is slow. Use more nodes and longer runs, "
                "or couplings further away."
            )
