"""Order parameters: how far phases agree."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from ..._core import check_count, check_that, found
from .._graphs.graph_operator import GraphOperator
from .phases import Phases, as_phases, powers


def modulus(real: Float[Array, "*shape"], imaginary: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The modulus of a complex number, with derivative 0 where it vanishes."""
    square = real**2 + imaginary**2
    zero = square == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, square)))


def mean_phasor(state: Any, mode: int = 1, weights: Any = None) -> Phases:
    """The mean of exp(i mode theta) over the nodes as two real numbers; the arguments are those of `order_parameter`."""
    check_count(mode, "mode", 1)
    u = powers(as_phases(state), mode)[-1]
    if weights is None:
        return Phases(jnp.mean(u.cos, axis=0), jnp.mean(u.sin, axis=0))
    weights = jnp.asarray(weights, u.cos.dtype)
    good = weights.shape == u.cos.shape[:1]
    check_that(good, "weights", f"be a vector of {u.cos.shape[0]} numbers", found(weights))
    return Phases(jnp.tensordot(weights, u.cos, axes=1), jnp.tensordot(weights, u.sin, axes=1))


def complex_order_parameter(state: Any, *, mode: int = 1, weights: Any = None) -> Complex[Array, "*lanes"]:
    """The complex order parameter z_m = mean_j exp(i m theta_j), or sum_j w_j exp(i m theta_j).

    Args:
        state: `Phases`, a real array of angles (nodes, ...) in radians, or a state that holds one of them as `phases`.
        mode: m, static.
        weights: w, (nodes,), not normalised here: the weights of a quadrature, or a left eigenvector of the graph
            (where degrees vary, the mean over nodes is not the quantity that goes critical).

    Returns:
        A complex array of the trailing shape of the phases.

    Raises:
        ValueError: if `mode` is no positive integer or the weights do not fit.
    """
    z = mean_phasor(state, mode, weights)
    return z.cos + 1j * z.sin


def order_parameter(state: Any, *, mode: int = 1, weights: Any = None) -> Float[Array, "*lanes"]:
    """The order parameter r_m = |z_m|, between 0 (incoherence) and 1 (for weights of sum one).

    Its derivative is taken to be 0 where r = 0, instead of NaN. Independent uniform phases give r of about 0.89/sqrt(N),
    not 0. Arguments are those of `complex_order_parameter`.
    """
    z = mean_phasor(state, mode, weights)
    return modulus(z.cos, z.sin)


def local_order_parameter(graph: GraphOperator, state: Any, *, mode: int = 1) -> Float[Array, "nodes *lanes"]:
    """|(1/N) sum_j a_ij exp(i m theta_j)| / (1/N) sum_j a_ij for each node i: coherence among its drivers.

    With a graph of blocks this is the order parameter of each community.

    Args:
        graph: who drives whom; weights should not be negative.
        state: as for `order_parameter`.
        mode: m, static.

    Returns:
        An array like the angles; 0 for nodes that nobody drives.
    """
    check_count(mode, "mode", 1)
    u = powers(as_phases(state), mode)[-1]
    field = graph.apply(jnp.stack([u.cos, u.sin], axis=1))
    mass = graph.mass(u.cos.dtype).reshape((-1,) + (1,) * (u.cos.ndim - 1))
    size = modulus(field[:, 0], field[:, 1])
    return jnp.where(mass == 0, 0, size / jnp.where(mass == 0, 1, mass))
