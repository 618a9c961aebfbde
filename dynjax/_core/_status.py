"""One small table of result codes for everything that can end in more than one way."""

import enum
from typing import Any

import diffrax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int8


class Status(enum.IntEnum):
    """How a computation ended, as an int8.

    `INACCURATE`: there is a number, but rounding may have spoiled it; the function says how to do better.

    The numbers are part of the store format: a code is never renumbered, new ones are added at the end.
    """

    RUNNING = 0
    OK = 1
    DIVERGED = 2
    NONFINITE = 3
    MAX_STEPS = 4
    NOT_CONVERGED = 5
    OOM = 6
    TIMEOUT = 7
    ERROR = 8
    INACCURATE = 9


def status_of_diffrax(result: Any, finite: Bool[Array, ""] | bool) -> Int8[Array, ""]:
    """Map a Diffrax result and a finiteness test to a `Status`.

    Finiteness is looked at first, since Diffrax reports a NaN vector field as too many steps. It cannot be read off the
    saved values: Diffrax fills the times that it did not reach with infinities, whatever the reason.

    Args:
        result: `solution.result` of `diffrax.diffeqsolve(..., throw=False)`.
        finite: whether the last state that was reached, and the vector field there, are finite.

    Returns:
        `NONFINITE`, `OK`, `MAX_STEPS`, or `ERROR` for every other failure of the solver.
    """
    success = jnp.asarray(
        (result == diffrax.RESULTS.successful) | (result == diffrax.RESULTS.event_occurred),  # type: ignore[operator]
    )
    exhausted = jnp.asarray(result == diffrax.RESULTS.max_steps_reached)
    code = jnp.where(success, int(Status.OK), jnp.where(exhausted, int(Status.MAX_STEPS), int(Status.ERROR)))
    return jnp.where(jnp.asarray(finite), code, int(Status.NONFINITE)).astype(jnp.int8)
