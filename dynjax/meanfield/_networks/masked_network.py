"""Recurrent and residual networks on graphs, in the common form of this room."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from ..._core import Function, check_that, found, is_concrete
from ...systems import Flow, Map
from .._graphs.graph_operator import GraphOperator
from .diffusion import Diffusion
from .pair_system import CouplingTerm, SeparableCoupling, pair_system


def hopfield(
    graph: Any,
    activation: Callable[[Any], Any] = jnp.tanh,
    *,
    dt: Any,
    gain: Any = 1.0,
    inputs: Any = 0.0,
    leak: Any = 1.0,
    noise: Any = None,
    key: PRNGKeyArray | None = None,
    method: str | None = None,
) -> Flow | Diffusion:
    r"""A continuous Hopfield or recurrent network, x_i' = -leak x_i + b_i + gain (1/N) sum_j a_ij s(x_j).

    Random weights of variance sigma^2 per synapse need a_ij of order sqrt(N): give N W as the weights of a `Dense` graph
    for a network with the matrix W. For symmetric weights and increasing s the sum
    E = -(gain/2) sum_ij W_ij s_i s_j + sum_i (leak int^{s_i} s^{-1} - b_i s_i) does not increase.

    Args:
        graph: a `GraphOperator` or a function of the time that returns one.
        activation: s.
        dt: time per step.
        gain: factor of the coupling, traced.
        inputs: b, a number or one for each node.
        leak: traced.
        noise: D of sqrt(2 D) dW; none by default.
        key: fixes the noise path.
        method: see `pair_system`.

    Returns:
        A system with states (N,).

    References:
        Hopfield, Neurons with graded response have collective computational properties like those of two-state neurons
        (1984).
    """
    check_that(callable(activation), "activation", "be a function", found(activation), TypeError)
    term = CouplingTerm(graph, SeparableCoupling(activation), strength=gain)
    own = _LeakyInput(jnp.asarray(leak, jnp.result_type(float)))
    inputs = jnp.asarray(inputs)
    if inputs.ndim == 0 and isinstance(graph, GraphOperator):
        inputs = jnp.broadcast_to(inputs, (graph.num_nodes,))
    check_that(inputs.ndim > 0, "inputs", "have one entry for each node where the graph changes", found(inputs))
    return pair_system(term, dt=dt, drift=own, parameters=inputs, noise=noise, key=key, method=method)


def masked_network(
    weights: Any,
    mask: Any = None,
    activation: Callable[[Any], Any] = jnp.tanh,
    *,
    biases: Any = 0.0,
    dt: Any = 1.0,
) -> Map:
    r"""A residual network in pre-activation form with a mask, u' = u + dt (a * W_n) s(u) + dt b_n, layer by layer.

    Depth is time: layer n is step n, so exponents of the system are exponents of the network. With one matrix for all
    layers it is Euler's method for a recurrent network; modular and heterogeneous networks are those with a block mask.
    The limit of large width is that of a digraph measure if a_ij W_ij = (1/N) times a kernel.

    Args:
        weights: W, (N, N), or (L, N, N) for one matrix in each layer; layers past the last repeat it.
        mask: a_ij, (N, N), or a `GraphOperator`, whose matrix is N times its product; all ones if not given.
        activation: s.
        biases: b, a number, (N,) or (L, N).
        dt: step, traced.

    Returns:
        A `Map` with states (N,).

    Raises:
        ValueError: if the shapes do not fit, or a weight is not finite.
    """
    weights = jnp.asarray(weights)
    square = weights.ndim in (2, 3) and weights.shape[-1] == weights.shape[-2]
    check_that(square, "weights", "be a matrix (N, N) or one for each layer (L, N, N)", found(weights))
    if is_concrete(weights):
        check_that(bool(np.all(np.isfinite(np.asarray(weights)))), "weights", "be finite", "some are not")
    check_that(callable(activation), "activation", "be a function", found(activation), TypeError)
    num_nodes = weights.shape[-1]
    if isinstance(mask, GraphOperator):
        mask = num_nodes * mask.as_matrix(weights.dtype)
    if mask is not None:
        mask = jnp.asarray(mask)
        check_that(mask.shape == weights.shape[-2:], "mask", f"have shape {weights.shape[-2:]}", found(mask))
        weights = weights * mask.astype(weights.dtype)
    weights = weights if weights.ndim == 3 else weights[None]
    biases = jnp.asarray(biases, weights.dtype)
    good = biases.shape in ((), (num_nodes,), (weights.shape[0], num_nodes))
    check_that(good, "biases", f"be a number, ({num_nodes},) or ({weights.shape[0]}, {num_nodes})", found(biases))
    biases = jnp.broadcast_to(biases, (weights.shape[0], num_nodes))
    return Map(_ResidualLayer(weights, biases, Function(activation), jnp.asarray(dt, weights.dtype)), dt=dt)


class _LeakyInput(eqx.Module):
    leak: Float[Array, ""]

    def __call__(self, t: Any, x: Array, b: Array) -> Array:
        return -self.leak.astype(x.dtype) * x + b.astype(x.dtype)


class _ResidualLayer(eqx.Module):
    weights: Float[Array, "layers nodes nodes"]
    biases: Float[Array, "layers nodes"]
    activation: Function
    dt: Float[Array, ""]

    def __call__(self, n: Any, u: Float[Array, "nodes"]) -> Float[Array, "nodes"]:
        layer = jnp.clip(jnp.asarray(n), 0, self.weights.shape[0] - 1)
        weights, biases = (
            lax.dynamic_index_in_dim(leaf, layer, keepdims=False) for leaf in (self.weights, self.biases)
        )
        push = jnp.matmul(weights, jax.vmap(self.activation)(u).astype(weights.dtype), precision=lax.Precision.HIGHEST)
        return u + (self.dt * (push + biases)).astype(u.dtype)
