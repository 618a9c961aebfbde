"""Phase oscillators on graphs as systems that step."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from ..._core import check_that, found, is_concrete
from ...systems._flow import check_dt
from ...systems._system import AbstractMap, IntScalarLike, as_number
from ...systems._tableau import TABLEAUX, runge_kutta_step
from .._graphs.graph_operator import GraphOperator
from .._thresholds.frequency_laws import AbstractFrequencyLaw, Identical
from .couplings import AbstractInteraction, Pairwise, averages
from .noise_step import half_increment, phase_noise
from .phases import Phases, as_phases
from .phasor_step import METHODS, phasor_step
from .validity import warn_heavy_tails

State = Phases | Float[Array, "nodes *lanes"]


class Oscillators(AbstractMap):
    """Phase oscillators theta_i' = omega_i + sum_m Im(H_m(i) exp(-i m theta_i)) + sqrt(2 D) xi_i; made by `kuramoto`.

    Attributes:
        graph: who drives whom.
        interaction: how.
        frequencies: omega, (nodes,), radians per unit of time.
        half: the rotation by half a step of the natural frequencies, computed once; `None` for the state "angle". Build
            a new system to change frequencies or `dt`.
        noise: D, or `None` where there is none.
        key: the random key of the noise.
        dt: time per step.
    """

    graph: GraphOperator
    interaction: AbstractInteraction
    frequencies: Float[Array, "nodes"]
    half: Phases | None
    noise: Float[Array, "*lanes"] | None
    key: PRNGKeyArray | None
    dt: Float[Array, ""]
    method: str = eqx.field(static=True)
    state: str = eqx.field(static=True)

    def init(self, angles: Any) -> State:
        """The state with the given angles, (nodes,), in radians.

        Raises:
            ValueError: if there is not one angle for each node.
        """
        angles = jnp.asarray(angles)
        good = angles.ndim > 0 and angles.shape[0] == self.graph.num_nodes
        check_that(good, "angles", f"have a leading axis of {self.graph.num_nodes} nodes", found(angles))
        phases = Phases.of(angles)
        return phases if self.state == "phasor" else angles.astype(phases.cos.dtype)

    def angles(self, state: State) -> Float[Array, "nodes *lanes"]:
        """The angles of a state in radians; of phasors, those in (-pi, pi]."""
        return state.angles if isinstance(state, Phases) else state

    def velocity(self, state: State) -> Float[Array, "nodes *lanes"]:
        """The right-hand side theta' without noise, radians per unit of time."""
        phases = as_phases(state)
        fields = averages(self.graph, phases, self.interaction.num_moments)
        omega = self.frequencies.astype(phases.cos.dtype).reshape((-1,) + (1,) * (phases.cos.ndim - 1))
        return omega + self.interaction.speed(phases, fields)

    def step(self, n: IntScalarLike, x: State) -> State:
        """The state after step `n`."""
        kick = None
        if self.noise is not None and self.key is not None:
            like = x.cos if isinstance(x, Phases) else x
            # One draw for each node, shared by lanes: differences between lanes are then not those of their noise.
            shape = like.shape[:1] + (1,) * (like.ndim - 1)
            kick = half_increment(phase_noise(self.key, n, shape, like.dtype), self.noise, self.dt)
        if isinstance(x, Phases):
            half = self.half
            if half is not None:
                shape = half.cos.shape[:1] + (1,) * (x.cos.ndim - 1)
                half = jax.tree.map(lambda part: part.reshape(shape).astype(x.cos.dtype), half)
            if kick is not None:
                turn = Phases.of(kick)
                half = turn if half is None else half * turn
            return phasor_step(self.graph, self.interaction, self.method, x, half, self.dt)
        h = self.dt.astype(x.dtype)
        shake = 0.0 if kick is None else 2 * kick / h
        return runge_kutta_step(TABLEAUX[self.method], lambda c, y: self.velocity(y) + shake, x, h)


def natural_frequencies(frequencies: Any, num_nodes: int, key: PRNGKeyArray | None = None) -> Float[Array, "nodes"]:
    """One frequency for each node: an array as it is, or a law by its midpoints, or by draws where `key` is given.

    Raises:
        ValueError: if an array has not one entry for each node, or holds something that is not finite.
    """
    if isinstance(frequencies, AbstractFrequencyLaw):
        if key is not None:
            return frequencies.sample(num_nodes, key)
        if not isinstance(frequencies, Identical):
            warn_heavy_tails(frequencies)
        return frequencies.midpoints(num_nodes)
    omega = jnp.asarray(frequencies)
    omega = omega if jnp.issubdtype(omega.dtype, jnp.floating) else omega.astype(jnp.result_type(float))
    check_that(omega.shape == (num_nodes,), "frequencies", f"be a law or hold {num_nodes} values", found(omega))
    if is_concrete(frequencies):
        check_that(bool(np.all(np.isfinite(np.asarray(frequencies)))), "frequencies", "be finite", "some are not")
    return omega


def _at_rest(frequencies: Any) -> bool:
    """Whether frequencies are known to be all zero, so that nothing turns."""
    if isinstance(frequencies, Identical):
        return is_concrete(frequencies.center) and float(frequencies.center) == 0
    return (
        is_concrete(frequencies)
        and not isinstance(frequencies, AbstractFrequencyLaw)
        and not np.any(np.asarray(frequencies))
    )


def oscillators(
    graph: GraphOperator,
    interaction: AbstractInteraction,
    frequencies: Any,
    *,
    dt: Any,
    noise: Any = 0.0,
    key: PRNGKeyArray | None = None,
    frequency_key: PRNGKeyArray | None = None,
    method: str = "rk4",
    state: str = "phasor",
) -> Oscillators:
    """Phase oscillators with any interaction; the arguments are those of `kuramoto`."""
    check_that(isinstance(graph, GraphOperator), "graph", "be a `GraphOperator`", found(graph), TypeError)
    check_that(method in METHODS, "method", f"be one of {', '.join(METHODS)}", f"found {method!r}")
    check_that(state in ("phasor", "angle"), "state", "be 'phasor' or 'angle'", f"found {state!r}")
    dt = as_number(dt, "dt")
    check_dt(dt, positive=True)
    quiet = is_concrete(noise) and not np.any(np.asarray(noise))
    if is_concrete(noise):
        good = bool(np.all(np.isfinite(np.asarray(noise)) & (np.asarray(noise) >= 0)))
        check_that(good, "noise", "be finite and not negative", f"found {noise}")
    check_that(quiet or key is not None, "key", "be a random key where there is noise", "found none")
    omega = natural_frequencies(frequencies, graph.num_nodes, frequency_key)
    turning = state == "phasor" and not _at_rest(frequencies)
    return Oscillators(
        graph=graph,
        interaction=interaction,
        frequencies=omega,
        half=Phases.of(0.5 * dt * omega) if turning else None,
        noise=None if quiet else jnp.asarray(noise, jnp.result_type(noise, float)),
        key=None if quiet else key,
        dt=dt,
        method=method,
        state=state,
    )


def kuramoto(
    graph: GraphOperator,
    frequencies: Any,
    coupling: Any,
    *,
    dt: Any,
    noise: Any = 0.0,
    key: PRNGKeyArray | None = None,
    frequency_key: PRNGKeyArray | None = None,
    harmonics: Any = None,
    lag: Any = 0.0,
    method: str = "rk4",
    state: str = "phasor",
) -> Oscillators:
    """Kuramoto oscillators on a graph, with any number of harmonics, phase lags and noise.

        theta_i' = omega_i + K (1/N) sum_j a_ij sum_m c_m sin(m (theta_j - theta_i) - lag_m) + sqrt(2 D) xi_i.

    The state "phasor" carries u_i = exp(i theta_i) as two real arrays. With H = K h, h = (1/N) sum_j a_ij u_j,
    u' = i u (omega + Im(H conj(u))): no sine or cosine is computed in a step without noise, and none on an edge. The rotation
    by the natural frequencies is exact (a Runge-Kutta method in frames that turn with each oscillator, after Lawson), so
    that the fast oscillators in the tails of a frequency law do no harm; the coupling is of order 4, 2 or 1 in `dt` for
    "rk4", "heun", "euler", and each step ends on the unit circle. Winding numbers are lost: use the state "angle" where they
    are needed.

    Args:
        graph: a_ij, who drives whom (j drives i); a `GraphOperator`.
        frequencies: omega, (nodes,) in radians per unit of time, or a law. A law gives its midpoint quantiles in
            increasing order, or independent draws where `frequency_key` is given. On a graph whose nodes have places,
            increasing frequencies correlate with places: permute them or draw.
        coupling: K, traced; a scalar, or one value for each of the trailing lanes of the state.
        dt: time per step.
        noise: D, traced; increments over a time t have the variance 2 D t.
        key: random key of the noise, needed where there is noise. The increments of step n depend on `key` and n only.
        frequency_key: random key of independent frequencies.
        harmonics: c_1, ..., c_M; one harmonic of amplitude 1 if not given.
        lag: phase lag in radians, a scalar or one for each harmonic.
        method: "rk4", "heun" or "euler". With noise, "euler" is Euler-Maruyama and "heun" stochastic Heun (weak order two);
            "rk4" has no higher order than "heun" then.
        state: "phasor" or "angle".

    Returns:
        A system; `.init(angles)` makes its states, `.angles(state)` reads them, `.velocity(state)` is theta'.

    Raises:
        TypeError: if `graph` is no `GraphOperator`.
        ValueError: for a `dt` that is not positive, negative noise, noise without a key, frequencies of a wrong length, an
            unknown method or kind of state.

    Example:
        ```python
        graph = dj.meanfield.AllToAll(1000)
        system = dj.meanfield.kuramoto(graph, dj.meanfield.Gaussian(1.0), 2.0, dt=0.05)
        orbit = dj.trajectory(system, system.init(angles), num_steps=400,
                              observe=lambda n, x: dj.meanfield.order_parameter(x))
        ```

    References:
        Kuramoto, Chemical Oscillations, Waves, and Turbulence (1984). Lawson, Generalized Runge-Kutta processes for stable
        systems with large Lipschitz constants (1967).
    """
    interaction = Pairwise(coupling, harmonics, lag)
    options: dict[str, Any] = {"noise": noise, "key": key, "frequency_key": frequency_key}
    return oscillators(graph, interaction, frequencies, dt=dt, method=method, state=state, **options)
