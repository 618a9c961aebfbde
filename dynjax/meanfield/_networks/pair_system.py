"""The common form of this room: a drift, couplings on graphs, and noise, as a system of `dynjax.systems`."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, PRNGKeyArray, PyTree

from ..._core import Function, check_count, check_that, found
from ...systems import Flow
from ...systems._system import as_number
from .._graphs.edge_list import EdgeList
from .._graphs.graph_operator import GraphOperator
from .._graphs.sparse import Sparse
from .diffusion import Diffusion
from .pair_stream import pair_average


class SeparableCoupling(eqx.Module):
    """A coupling through averaged signals: h_i = (1/N) sum_j a_ij beta(x_j), felt as receive(x_i, h_i).

    With receive(u, h) = sum_c alpha_c(u) h_c it is g(u, v) = sum_c alpha_c(u) beta_c(v). One product of the graph with
    the columns of beta, so O(N C) where the graph allows it, and beta is evaluated N times.

    Args:
        signal: beta(x_j), an array of any shape; the state itself if not given.
        receive: `receive(x_i, h_i)`, in the shape of x_i; h_i itself if not given.
    """

    signal: Function
    receive: Function

    def __init__(self, signal: Callable[[Any], Any] | None = None, receive: Callable[[Any, Any], Any] | None = None):
        for name, function in (("signal", signal), ("receive", receive)):
            check_that(function is None or callable(function), name, "be a function", found(function), TypeError)
        self.signal = Function(signal or _same)
        self.receive = Function(receive or _average)

    def force(self, states: Inexact[Array, "nodes *dims"], graph: GraphOperator) -> Inexact[Array, "nodes *dims"]:
        """The force on each node."""
        return jax.vmap(self.receive)(states, graph.apply(jax.vmap(self.signal)(states)))


class PairCoupling(eqx.Module):
    """A coupling g(x_i, x_j) of which nothing is known: all pairs, or all edges of an `EdgeList`, one by one.

    Args:
        interaction: g, in the shape of x_i.
        block: rows that are computed together (see `pair_average`).
    """

    interaction: Function
    block: int | None = eqx.field(static=True)

    def __init__(self, interaction: Callable[[Any, Any], Any], *, block: int | None = None):
        check_that(callable(interaction), "interaction", "be a function g(x_i, x_j)", found(interaction), TypeError)
        if block is not None:
            check_count(block, "block")
        self.interaction, self.block = Function(interaction), block

    def force(self, states: Inexact[Array, "nodes *dims"], graph: GraphOperator) -> Inexact[Array, "nodes *dims"]:
        """The force on each node."""
        return pair_average(self.interaction, states, graph, block=self.block)


class CouplingTerm(eqx.Module):
    """One coupling on one graph, with its strength.

    Args:
        graph: a `GraphOperator`, or a function of the time that returns one: the graph then changes with time, or with
            depth.
        coupling: a `SeparableCoupling` or a `PairCoupling`.
        strength: factor, traced.
    """

    graph: Any
    coupling: SeparableCoupling | PairCoupling
    strength: Float[Array, ""]

    def __init__(self, graph: Any, coupling: SeparableCoupling | PairCoupling, *, strength: Any = 1.0):
        good = isinstance(graph, GraphOperator) or callable(graph)
        check_that(good, "graph", "be a GraphOperator or a function of the time", found(graph), TypeError)
        good = isinstance(coupling, SeparableCoupling | PairCoupling)
        check_that(good, "coupling", "be a SeparableCoupling or a PairCoupling", found(coupling), TypeError)
        if isinstance(graph, Sparse) and isinstance(coupling, PairCoupling):
            graph = EdgeList.of(graph)  # here, where the edges are known: inside a compiled step they are traced
        self.graph = graph if isinstance(graph, GraphOperator) else Function(graph)
        self.coupling = coupling
        self.strength = as_number(strength, "strength")

    def force(self, t: Any, states: Inexact[Array, "nodes *dims"]) -> Inexact[Array, "nodes *dims"]:
        """The force on each node at the time `t`."""
        graph = self.graph(t) if isinstance(self.graph, Function) else self.graph
        force = self.coupling.force(states, graph)
        same = force.shape == states.shape
        check_that(same, "coupling", f"return the shape {states.shape[1:]} of a state", f"found {force.shape[1:]}")
        return self.strength.astype(jnp.finfo(force.dtype).dtype) * force


class PairField(eqx.Module):
    """The vector field x_i' = f_i(t, x_i) + sum_l strength_l (1/N) sum_j a^l_ij g_l(x_i, x_j), with Diffrax's arguments."""

    interactions: tuple[CouplingTerm, ...]
    drift: Function | None
    parameters: PyTree

    def __call__(
        self, t: Any, states: Inexact[Array, "nodes *dims"], args: Any = None
    ) -> Inexact[Array, "nodes *dims"]:
        """The velocity of each node."""
        velocity = sum((term.force(t, states) for term in self.interactions), jnp.zeros_like(states))
        if self.drift is None:
            return velocity
        own = (states,) if self.parameters is None else (states, self.parameters)
        return velocity + jax.vmap(lambda *own: self.drift(t, *own))(*own)  # type: ignore[misc]


def pair_system(
    interactions: CouplingTerm | Sequence[CouplingTerm],
    *,
    dt: Any,
    drift: Callable[..., Any] | None = None,
    parameters: PyTree = None,
    noise: Any = None,
    key: PRNGKeyArray | None = None,
    method: str | None = None,
) -> Flow | Diffusion:
    r"""N particles with own dynamics, coupled along the edges of graphs.

        dx_i = [f(t, x_i, p_i) + sum_l K_l (1/N) sum_j a^l_ij g_l(x_i, x_j)] dt + sqrt(2 D) dW_i

    The state is one array (N, ...). Kuramoto networks, continuous Hopfield and recurrent networks, residual networks in
    pre-activation form, two-layer networks in training and self-attention all have this form.

    Args:
        interactions: one `CouplingTerm`, or several (excitatory and inhibitory graphs, for instance).
        dt: time per step, traced.
        drift: f(t, x_i), or f(t, x_i, p_i) where `parameters` are given; none by default.
        parameters: p, a pytree of arrays with a leading axis of N nodes.
        noise: D, traced. Without it the system is a `Flow`, with it a `Diffusion`.
        key: fixes the noise path; needed with `noise`.
        method: of `Flow` ("rk4" by default) or of `Diffusion` ("heun" by default).

    Returns:
        A system.

    Raises:
        TypeError: if an argument is not of the kinds above.
        ValueError: if `noise` comes without `key`, or a step or method is refused by the system.

    Example:
        ```python
        sine = SeparableCoupling(
            lambda v: jnp.stack([jnp.sin(v), jnp.cos(v)]), lambda u, h: h[0] * jnp.cos(u) - h[1] * jnp.sin(u)
        )
        kuramoto = pair_system(CouplingTerm(AllToAll(1000), sine, strength=4.0), dt=0.05,
                               drift=lambda t, u, omega: omega, parameters=frequencies)
        ```

    References:
        The form follows the survey of graph, mean-field and hydrodynamic limits by Ayi and Pouradier Duteil (2022),
        arXiv:2209.08832, and Kuehn and Xu on digraph measures (2021), arXiv:2107.08419.
    """
    terms = (interactions,) if isinstance(interactions, CouplingTerm) else tuple(interactions)
    good = all(isinstance(term, CouplingTerm) for term in terms)
    check_that(good, "interactions", "be a CouplingTerm or several", found(interactions), TypeError)
    check_that(drift is None or callable(drift), "drift", "be a function f(t, x)", found(drift), TypeError)
    check_that(drift is not None or parameters is None, "parameters", "be None without a `drift`", "they are given")
    field = PairField(terms, None if drift is None else Function(drift), parameters)
    return as_system(field, dt, noise, key, method)


def as_system(field: Any, dt: Any, noise: Any, key: PRNGKeyArray | None, method: str | None) -> Flow | Diffusion:
    """A `Flow`, or with noise a `Diffusion`, of a vector field."""
    if noise is None:
        check_that(key is None, "key", "be None without `noise`", "it is given")
        return Flow(field, dt, method=method or "rk4")
    check_that(key is not None, "key", "be given with `noise`", "it is None")
    return Diffusion(field, dt, noise=noise, key=key, method=method or "heun")  # type: ignore[arg-type]


def _same(x: Any) -> Any:
    return x


def _average(x: Any, h: Any) -> Any:
    return h
