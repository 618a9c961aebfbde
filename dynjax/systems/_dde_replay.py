"""Steps that were chosen before, taken again."""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class Replay(diffrax.AbstractAdaptiveStepSizeController):
    """A step size controller that steps from knot to knot and judges nothing.

    A solution and its derivative must belong to the same steps. Where a segment is solved once more, its error estimates
    may be rounded differently, and a step that was accepted before may be rejected. Solved like this, no step is tried in
    vain, and fixed-point iterations see one and the same map.

    Args:
        knots: ends of the steps, the first of them t0 and the last finite one t1; filled up with infinity.
        rtol: relative tolerance of the root finder of implicit methods.
        atol: absolute tolerance, likewise.
        norm: for both.
    """

    knots: Float[Array, " max_steps_1"]
    rtol: Any
    atol: Any
    norm: Callable[[Any], Any]

    def wrap(self, direction: Any) -> "Replay":
        """Nothing to add: time runs forwards."""
        del direction
        return self

    def init(
        self, terms: Any, t0: Any, t1: Any, y0: Any, dt0: Any, args: Any, func: Any, error_order: Any
    ) -> tuple[Any, Any]:
        """The end of the first step."""
        del terms, t0, t1, y0, dt0, args, func, error_order
        return self.knots[1], jnp.asarray(1, jnp.int32)

    def adapt_step_size(
        self,
        t0: Any,
        t1: Any,
        y0: Any,
        y1_candidate: Any,
        args: Any,
        y_error: Any,
        error_order: Any,
        controller_state: Any,
    ) -> tuple[Any, Any, Any, Any, Any, Any]:
        """The end of the next step."""
        del t0, y0, y1_candidate, args, y_error, error_order
        after = jnp.minimum(controller_state + 1, self.knots.shape[0] - 1)
        following = jnp.where(jnp.isfinite(self.knots[after]), self.knots[after], t1 + 1)
        return True, t1, following, False, after, diffrax.RESULTS.successful


def trimmed_knots(knots: Float[Array, " max_steps_1"], end: Array) -> Float[Array, " max_steps_1"]:
    """The knots of a solution that is cut off at the time `end`, where time then runs from 0 to 1.

    The last step becomes shorter. If it becomes less than half of the one before, the two are made equal: a later segment
    may look a little beyond `end`, and the interpolation of a sliver says nothing there.
    """
    size = knots.shape[0]
    place = jnp.arange(size)
    last = jnp.clip(jnp.sum(knots < end), 1, size - 1)  # the first knot at or after the end
    scaled = jnp.where(place < last, knots / jnp.where(end > 0, end, 1), jnp.where(place == last, 1.0, jnp.inf))
    before, earlier = scaled[last - 1], scaled[jnp.maximum(last - 2, 0)]
    uneven = (last > 1) & (1 - before < 0.5 * (before - earlier))
    scaled = jnp.where(uneven & (place == last - 1), 0.5 * (1 + earlier), scaled)
    return jax.lax.stop_gradient(scaled.astype(knots.dtype))
