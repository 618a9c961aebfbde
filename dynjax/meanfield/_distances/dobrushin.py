"""The Dobrushin bound: how fast two solutions of the Vlasov equation on fibres can part."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..._core import check_that, found, is_concrete


def dobrushin_bound(
    coupling: Any,
    mass: Any,
    time: Any,
    initial: Any = 1.0,
    *,
    graph_distance: Any = 0.0,
    lipschitz: Any = 0.0,
) -> Float[Array, "*times"]:
    r"""The bound of the fibre distance sup_x W1 of two solutions, on the circle of length 1.

        sup_x W1(t) <= exp(2 K m t) sup_x W1(0) + K (1/(2 pi) + L) d (exp(2 K m t) - 1) / (2 K m).

    The velocity K Im(h(x) exp(-i theta)) has Lipschitz constant K m in theta, and changes by at most K m sup_x W1 (in radians as
    are the phases) with the fibres; both are homogeneous in the unit of length. If the second solution lives on another graph,
    its forcing is K int b d(eta^x - eta'^x) with |b| <= 1 and Lip(b) <= 2 pi L, in radians, hence the second term, d being
    sup_x of the bounded-Lipschitz distance of the graphs in the convention "sum". (Derived here.)

    Frequencies may differ from fibre to fibre and within one, if both solutions have the same and their starts do not depend on
    them. The same noise for both changes nothing.

    Args:
        coupling: K; its modulus counts.
        mass: m = sup_x |eta^x|(X), of the first graph.
        time: t, any shape.
        initial: sup_x W1 at time 0; 1 gives the growth factor.
        graph_distance: d.
        lipschitz: L, the Lipschitz constant of y -> nu^y in W1, turns for each unit of label distance, of the second solution
            at all times.
    """
    time = jnp.asarray(time, jnp.result_type(float, *(v for v in (coupling, mass, time) if hasattr(v, "dtype"))))
    size = jnp.abs(jnp.asarray(coupling, time.dtype))
    rate = 2 * size * jnp.asarray(mass, time.dtype)
    forcing = size * (1 / (2 * jnp.pi) + jnp.asarray(lipschitz, time.dtype)) * graph_distance
    exponent = rate * time
    still = exponent == 0
    average = jnp.where(still, 1, jnp.expm1(exponent) / jnp.where(still, 1, exponent))
    return jnp.exp(exponent) * jnp.asarray(initial, time.dtype) + forcing * time * average


class DobrushinCertificate(eqx.Module):
    """Measured fibre distances beside their bound.

    Attributes:
        times: since the first saved state, (times,).
        measured: sup_x W1 at these times.
        bound: what it may not exceed.
        holds: whether it nowhere does, to rounding.
    """

    times: Float[Array, "times"]
    measured: Float[Array, "times"]
    bound: Float[Array, "times"]
    holds: Bool[Array, ""]

    def __str__(self) -> str:
        verdict = "holds" if bool(self.holds) else "is violated"
        tightest = float(jnp.max(self.measured / jnp.where(self.bound > 0, self.bound, jnp.inf)))
        return f"DobrushinCertificate({verdict} at {self.times.shape[0]} times, measured/bound at most {tightest:.3g})"


def dobrushin_certificate(
    times: Any,
    measured: Any,
    coupling: Any,
    mass: Any,
    *,
    graph_distance: Any = 0.0,
    lipschitz: Any = 0.0,
) -> DobrushinCertificate:
    """Hold measured fibre distances against `dobrushin_bound`, starting from the first of them.

    A violation means that the two solutions do not solve the equation they are said to solve: wrong coupling, wrong graph, too
    large steps, or distances of too few samples.

    Args:
        times: (times,), increasing.
        measured: sup_x W1 at these times, in turns.
        coupling: K.
        mass: sup_x |eta^x|(X).
        graph_distance: as in `dobrushin_bound`.
        lipschitz: as in `dobrushin_bound`.

    Raises:
        ValueError: if `times` and `measured` are not two vectors of one length, or times do not increase.
    """
    measured = jnp.asarray(measured)
    times = jnp.asarray(times, jnp.result_type(float, measured.dtype))
    good = times.ndim == 1 and times.shape == measured.shape and times.shape[0] > 0
    check_that(good, "measured", "be a vector as long as `times`", f"{found(measured)} and {found(times)}")
    if is_concrete(times):
        check_that(bool(np.all(np.diff(np.asarray(times)) > 0)), "times", "increase", "they do not")
    since = times - times[0]
    bound = dobrushin_bound(coupling, mass, since, measured[0], graph_distance=graph_distance, lipschitz=lipschitz)
    # W1 is a sum of terms of size one at most, so its rounding is absolute.
    slack = 64 * jnp.finfo(times.dtype).eps * (1 + bound)
    return DobrushinCertificate(since, measured, bound, jnp.all(measured <= bound + slack))
