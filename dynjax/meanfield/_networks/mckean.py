"""McKean-Vlasov diffusions on the line: particles that attract each other in a potential, and their phase transition."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from ..._core import Function, check_positive, check_that, found
from ...reference._arrays import floats
from ...reference._root import find_root
from .._graphs.graph_operator import AllToAll, GraphOperator
from .diffusion import Diffusion
from .pair_system import CouplingTerm, PairCoupling, SeparableCoupling, pair_system

_Potential = Callable[[Any], Any]
# Nodes of the trapezoidal rule in u, x = sinh(u): the step 1/64 is below the width of every smooth weight used here.
_NODES, _REACH = 769, 6.0
_OCTAVES = 40


def mckean_vlasov(
    potential: _Potential,
    *,
    attraction: Any = 0.0,
    pair_potential: _Potential | None = None,
    num_particles: int | None = None,
    graph: GraphOperator | None = None,
    noise: Any,
    dt: Any,
    key: PRNGKeyArray,
    method: str = "heun",
) -> Diffusion:
    r"""N particles on the line in a potential, attracting each other, with noise.

        dX_i = [-V'(X_i) + (1/N) sum_j a_ij k (X_j - X_i) - (1/N) sum_j a_ij W'(X_i - X_j)] dt + sqrt(2 D) dW_i

    The quadratic attraction k costs O(N); a general pair potential W all pairs, in blocks. As N -> inf the law of a
    particle tends to the McKean-Vlasov equation d_t rho = d_x(rho V' + rho (W' * rho)) + D d_x^2 rho.

    Args:
        potential: V(x), a function of a number.
        attraction: k, traced.
        pair_potential: W(x), even; none by default.
        num_particles: N, of the complete graph.
        graph: in its place, any graph.
        noise: D, traced.
        dt: time per step.
        key: fixes the noise path.
        method: of `Diffusion`.

    Returns:
        A `Diffusion` with states (N,).

    Raises:
        ValueError: unless exactly one of `num_particles` and `graph` is given.
    """
    check_that((num_particles is None) != (graph is None), "graph", "be given, or else `num_particles`", "it is not so")
    check_that(callable(potential), "potential", "be a function", found(potential), TypeError)
    graph = AllToAll(num_particles) if graph is None else graph  # type: ignore[arg-type]
    spring = SeparableCoupling(_value_and_one, _spring)
    terms = [CouplingTerm(graph, spring, strength=attraction)]
    if pair_potential is not None:
        check_that(callable(pair_potential), "pair_potential", "be a function", found(pair_potential), TypeError)
        terms.append(CouplingTerm(graph, PairCoupling(_PairForce(Function(pair_potential)))))
    drift = _Downhill(Function(potential))
    return pair_system(terms, dt=dt, drift=drift, noise=noise, key=key, method=method)  # type: ignore[return-value]


def mckean_mean(potential: _Potential, *, attraction: Any, noise: Any, mean: Any) -> Float[Array, ""]:
    r"""The mean of the stationary law that particles would have if their mean were m: the self-consistency map.

        m -> int x rho_m(x) dx,   rho_m prop. to exp(-(V(x) + k (x - m)^2/2)/D)

    Its fixed points are the stationary states of the limit with quadratic attraction. The integrals are trapezoidal sums in u,
    x = sinh(u), which converge exponentially for smooth confining V whose mass lies within |x| < 200.

    Args:
        potential: V.
        attraction: k.
        noise: D.
        mean: m.
    """
    k, D, m = _parameters(attraction, noise, mean)
    return _moment(potential, k, D, m, lambda x: x)


def magnetisation(potential: _Potential, *, attraction: Any, noise: Any) -> Float[Array, ""]:
    """The largest stationary mean m >= 0 of the limit with quadratic attraction, for an even potential.

    Zero above the critical noise. The branch is found by bisection between the outermost and the symmetric state, so that
    double wells whose transition is continuous are meant.

    Args:
        potential: V, even.
        attraction: k, positive; differentiable.
        noise: D, positive; differentiable.
    """
    check_positive(noise, "noise")
    check_positive(attraction, "attraction")
    k, D = _parameters(attraction, noise)

    def excess(m: Array, k: Array, D: Array) -> Array:
        """(m - F(m))/m: negative at m -> 0 where the symmetric state is unstable, positive far out."""
        small = jnp.where(m == 0, 1, m)
        ratio = _moment(potential, k, D, small, lambda x: x) / small
        return 1 - jnp.where(m == 0, k / D * _moment(potential, k, D, jnp.zeros_like(m), jnp.square), ratio)

    fixed = lax.stop_gradient((k, D))
    far = 2.0 ** jnp.arange(-4, _OCTAVES - 4).astype(k.dtype)
    far = jnp.where(far < 128, far, 128)
    positive = jax.vmap(lambda m: excess(m, *fixed) > 0)(far)
    high = far[jnp.argmax(positive)]
    low = jnp.asarray(jnp.finfo(k.dtype).eps ** 0.25, k.dtype)
    ordered = excess(jnp.zeros_like(k), *fixed) < 0
    root = find_root(excess, low, high, k, D)
    return jnp.where(ordered, root, 0)


def critical_noise(potential: _Potential, *, attraction: Any) -> Float[Array, ""]:
    r"""The noise at which the symmetric state of an even potential with quadratic attraction loses its stability.

        D_c = k Var(x),   x distributed as exp(-(V(x) + k x^2/2)/D_c)

    Below it the particles order: their mean stays away from zero. For V = x^4/4 - x^2/2 and k = 1 it is
    (2 Gamma(3/4)/Gamma(1/4))^2.

    Args:
        potential: V, even, growing faster than x^2.
        attraction: k, positive; differentiable.

    Returns:
        The critical noise; NaN where there is none below 10^6.

    Example:
        ```python
        critical_noise(lambda x: x**4 / 4 - x**2 / 2, attraction=1.0)   # 0.456946581044
        ```

    References:
        Dawson, Critical dynamics and fluctuations for a mean-field model of cooperative behavior (1983).
    """
    check_positive(attraction, "attraction")
    (k,) = _parameters(attraction)

    def excess(D: Array, k: Array) -> Array:
        return 1 - k * _moment(potential, k, D, jnp.zeros_like(k), jnp.square) / D

    fixed = lax.stop_gradient(k)
    ends = 2.0 ** jnp.arange(-10, 21).astype(k.dtype)
    positive = jax.vmap(lambda D: excess(D, fixed) > 0)(ends)
    # The last change of sign: above it the symmetric state stays stable.
    last = jnp.max(jnp.where(positive, 0, jnp.arange(len(ends)) + 1))
    bracketed = (last > 0) & (last < len(ends))
    low, high = ends[jnp.clip(last - 1, 0)], ends[jnp.clip(last, 0, len(ends) - 1)]
    root = find_root(excess, low, high, k)
    return jnp.where(bracketed, root, jnp.nan)


def _parameters(*values: Any) -> tuple[Array, ...]:
    return floats(*values)


def _moment(potential: _Potential, k: Array, D: Array, m: Array, function: Callable[[Any], Any]) -> Float[Array, ""]:
    """The mean of a function under exp(-(V + k (x - m)^2/2)/D)."""
    u = jnp.linspace(-_REACH, _REACH, _NODES, dtype=k.dtype)
    x = jnp.sinh(u)
    exponent = -(jax.vmap(potential)(x) + k * (x - m) ** 2 / 2) / D
    weights = jnp.exp(exponent - lax.stop_gradient(jnp.max(exponent))) * jnp.cosh(u)
    return jnp.sum(weights * function(x)) / jnp.sum(weights)


class _Downhill(eqx.Module):
    potential: Function

    def __call__(self, t: Any, x: Array) -> Array:
        return -jax.grad(self.potential)(x)


class _PairForce(eqx.Module):
    potential: Function

    def __call__(self, u: Array, v: Array) -> Array:
        return -jax.grad(self.potential)(u - v)


def _value_and_one(v: Array) -> Array:
    return jnp.stack([v, jnp.ones_like(v)])


def _spring(u: Array, h: Array) -> Array:
    return h[0] - h[1] * u
