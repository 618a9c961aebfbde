"""Every map as a neural delay equation without augmentation, above the memory threshold."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import check_count, check_positive, check_that, is_concrete
from ..networks import Affine, NeuralDDE
from ._critical_solution import critical_solution, first_zero, memory_threshold, polynomial, window_polynomials
from ._delay_march import Mesh, march, plan_mesh
from ._shear import check_gain
from ._target import Target, as_box, as_dtype, box_points, steepest

_CHOICES = 4097
_STEPS = 16


class DelayField(eqx.Module):
    """The field of `DelayEmbedding`; it looks at the delayed state alone.

    Attributes:
        target: the map psi.
        lipschitz: K, its Lipschitz constant as constructed; not trained.
        delay: tau; not trained.
        switch: T*, where it stops to forget; not trained.
        stop: where it comes to rest; not trained.
        rate: c, per unit of time.
        input_scale: 1 / a.
        lower: corner of the box that psi is continued from.
        upper: the opposite corner.
        norm: of the Lipschitz constant.
        num_windows: delays up to `stop`, less one.
    """

    target: Target
    lipschitz: Float[Array, ""]
    delay: Float[Array, ""]
    switch: Float[Array, ""]
    stop: Float[Array, ""]
    rate: Float[Array, ""]
    input_scale: Float[Array, ""]
    lower: Float[Array, "d"]
    upper: Float[Array, "d"]
    norm: str = eqx.field(static=True)
    num_windows: int = eqx.field(static=True)

    def __call__(self, t: Any, y: Float[Array, "m"], delayed: tuple[Float[Array, "m"], ...]) -> Float[Array, "m"]:
        """The slope at time `t`. It jumps at `switch` and `stop`: solvers have to step there (`DelayEmbedding.solve` does)."""
        switch, stop = jax.lax.stop_gradient((self.switch, self.stop))
        return self.slope(jnp.where(t < switch, 0, jnp.where(t < stop, 1, 2)), t, y, delayed)

    def slope(self, phase: Any, t: Any, y: Float[Array, "m"], delayed: tuple[Float[Array, "m"], ...]) -> Array:
        """The slope in one of the three phases: forget, drive, rest."""
        (v,) = delayed
        d, q = self.target.in_size, self.target.out_size
        x = jnp.clip(
            v[:d] * self.input_scale / self._decay(t), *(jax.lax.stop_gradient(end) for end in (self.lower, self.upper))
        )
        drive = jnp.zeros_like(y).at[:q].set(self.rate * self.target(x))
        forget = -jax.lax.stop_gradient(self.lipschitz) * v
        return jnp.where(phase == 0, forget, jnp.where(phase == 1, drive, jnp.zeros_like(y)))

    def lipschitz_bound(self, norm: str = "sup") -> Float[Array, ""]:
        """K, as long as psi and `rate` are those of the construction."""
        check_that(
            norm == self.norm, "norm", f'be "{self.norm}", the norm of the construction', f"found {norm!r}", TypeError
        )
        return self.lipschitz

    def _decay(self, t: Any) -> Array:
        """w(t - tau), which the data of the past have been multiplied by; positive, since it stays at its value at `stop`."""
        memory, delay, stop = jax.lax.stop_gradient((self.lipschitz * self.delay, self.delay, self.stop))
        rows = window_polynomials(memory, self.num_windows)
        place = jnp.clip((jnp.minimum(t, stop) - delay) / delay, 0, self.num_windows).astype(memory.dtype)
        window = jnp.clip(jnp.floor(place).astype(int), 0, self.num_windows - 1)
        return polynomial(rows[window], place - window)


class DelayEmbedding(NeuralDDE):
    r"""The neural delay equation that represents a given map psi on a box exactly, without augmentation: m = max(d, q).

    K tau has to be above the `memory_threshold`. The initial value is a x, constant on [-tau, 0]. With w the `critical_solution`
    and T* its first zero,

    $$y'(t) = \begin{cases} -K\, y(t - \tau) & t < T^* \\
    c\, \psi\big(y(t - \tau) / (a\, w(t - \tau))\big) & T^* \le t < T^* + s \\
    0 & \text{later} \end{cases} \qquad c = \frac{a K w(T^* + s - \tau)}{\mathrm{Lip}\,\psi}.$$

    At T* the state is zero for every input, but the past still holds w(t - tau) a x: the flow has passed through a point that all
    inputs share, which no ordinary differential equation can. The readout multiplies by the gain 1 / (c s). The field
    has the Lipschitz constant K in the delayed state and does not look at the present one. The construction is derived, for
    psi continued constantly from the box.

    The price is the gain, Lip(psi) / (a K s w(T* + s - tau)): for x^2 with s = tau/2 it is 2 at K tau = 2, 8 at 1, 111 at .5 and
    8.4e5 at .38, close to 1/e. It is a `NeuralDDE` whose own `solve` takes Runge-Kutta steps of order eight with ends at T* and
    T* + s, without interpolation. The field jumps there, so `delay_flow`, whose grid need not hold these times, is less accurate.
    Layers, psi and c can be trained; K, tau and the times of the phases are held fixed.

    Args:
        psi: the map, a function or module of one sample `(d,)` with values `(q,)`, or a number for q = 1.
        in_size: d.
        out_size: q.
        lipschitz: K, per unit of time.
        delay: tau.
        horizon: T; it has to be later than T*.
        lower: corner of the box of inputs, a number or `(d,)`.
        upper: the opposite corner.
        psi_lipschitz: Lip(psi) on the box, in `norm`. By default the largest norm of its derivative on a grid of the box with its
            corners (d <= 4; above it corners and 4,096 random points), which can be too small.
        norm: "sup" or "euclidean".
        duration: s, less than tau and at most T - T*; by default the one with the smallest gain.
        state_size: m >= max(d, q); max(d, q) by default.
        lift_gain: a.
        steps_per_delay: Runge-Kutta steps for one delay, at least.
        dtype: floating dtype of the parameters; JAX's default if not given.

    Raises:
        ValueError: if K tau is not above the threshold for this T / tau (the message says which it is), a size, gain or duration
            does not fit, psi is constant, its derivative exceeds `psi_lipschitz`, or psi has other shapes.
        TypeError: if `psi` is not callable.

    Example:
        ```python
        model = dj.propagation.DelayEmbedding(lambda x: x**2, in_size=1, out_size=1, lipschitz=0.5, horizon=3.24)
        model(jnp.array([-0.5])), model.gain             # [0.25], 108.1
        ```

    References:
        Kuehn and Kuntz, arXiv:2505.07244 (2025), on universal approximation with large memory capacity; the exact
        construction is derived here.
    """

    mesh: Mesh = eqx.field(static=True)
    gain: Float[Array, ""]

    def __init__(
        self,
        psi: Callable[[Any], Any],
        *,
        in_size: int,
        out_size: int,
        lipschitz: Any,
        delay: Any = 1.0,
        horizon: Any,
        lower: Any = -1.0,
        upper: Any = 1.0,
        psi_lipschitz: Any = None,
        norm: str = "sup",
        duration: Any = None,
        state_size: int | None = None,
        lift_gain: Any = 1.0,
        steps_per_delay: int = _STEPS,
        dtype: Any = None,
    ):
        dtype = as_dtype(dtype)
        target = Target(psi, in_size, out_size, dtype)
        check_that(norm in ("sup", "euclidean"), "norm", 'be "sup" or "euclidean"', f"found {norm!r}")
        check_gain(lift_gain, "lift_gain")
        check_count(steps_per_delay, "steps_per_delay")
        size = _state_size(state_size, in_size, out_size)
        box = as_box(lower, upper, in_size, dtype)
        slope = _target_lipschitz(target, box, norm, psi_lipschitz)
        phases = plan_phases(lipschitz, delay, horizon, duration)
        number = lambda value: jnp.asarray(value, dtype)
        strength, tau, a = number(lipschitz), number(delay), number(lift_gain)
        rate = a * strength * phases.decay / slope
        self.gain = 1 / (rate * phases.length * tau)
        super().__init__(
            (in_size, size, out_size),
            delay=float(delay),
            horizon=float(horizon),
            key=jax.random.key(0),
            field=DelayField(
                target, strength, tau, phases.switch * tau, (phases.switch + phases.length) * tau, rate, 1 / a, *box, norm,
                max(1, math.ceil(phases.switch + phases.length) - 1),
            ),
            lift=Affine(a * jnp.eye(size, in_size, dtype=dtype)),
            readout=Affine(self.gain * jnp.eye(out_size, size, dtype=dtype)),
            engine="stages",
            dtype=dtype,
        )  # fmt: skip
        self.mesh = plan_mesh(phases.switch, phases.switch + phases.length, phases.span, steps_per_delay)

    def solve(self, x: Float[Array, "d"]) -> Float[Array, "m"]:
        """The state y(T) for one sample, before the readout."""
        shape = (self.widths[0],)
        check_that(jnp.shape(x) == shape, "x", f"be one sample of shape {shape}", f"found {jnp.shape(x)}")
        kept = self._times()[3]
        y = march(self.field.slope, self.lift(x), self.delays[0], self.mesh)
        return y * jnp.where(kept, 1.0, jnp.nan).astype(y.dtype)


class Phases(NamedTuple):
    """When the field of a `DelayEmbedding` changes, in units of the delay.

    Attributes:
        switch: T*.
        length: s.
        span: T.
        decay: w(T* + s - tau).
    """

    switch: float
    length: float
    span: float
    decay: float


def plan_phases(lipschitz: Any, delay: Any, horizon: Any, duration: Any = None) -> Phases:
    """The phases with the smallest gain, or with the duration that is asked for.

    Raises:
        ValueError: if K tau is not above the threshold, or the duration does not fit.
    """
    for value, name in ((lipschitz, "lipschitz"), (delay, "delay"), (horizon, "horizon")):
        check_that(is_concrete(value), name, "be known at construction", "it is traced")
        check_positive(value, name)
    tau = float(delay)
    memory, span = float(lipschitz) * tau, float(horizon) / tau
    switch = float(first_zero(memory))
    critical = float(memory_threshold(span))
    check_that(
        switch < span,
        "lipschitz",
        f"give K tau above the critical value {critical:.12g} at T / tau = {span:.6g}",
        f"found K tau = {memory:.12g}",
    )
    longest = min(span - switch, 1.0)
    if duration is None:
        lengths = np.linspace(0, longest, _CHOICES)[1:]
        lengths = lengths[lengths < 1]
        decays = critical_solution(memory, jnp.asarray(switch + lengths - 1))
        length = float(lengths[np.argmax(lengths * np.asarray(decays))])
    else:
        check_positive(duration, "duration")
        length = float(duration) / tau
        slack = 8 * float(jnp.finfo(jnp.result_type(float)).eps) * max(1.0, span / longest)
        must = f"be shorter than the delay and at most T - T* = {tau * (span - switch):.12g}"
        check_that(length < 1 and length <= longest * (1 + slack), "duration", must, f"found {duration}")
        length = min(length, longest)
    return Phases(switch, length, span, float(critical_solution(memory, switch + length - 1)))


def _state_size(state_size: int | None, in_size: int, out_size: int) -> int:
    least = max(in_size, out_size)
    size = least if state_size is None else state_size
    good = isinstance(size, int) and size >= least
    check_that(good, "state_size", f"be at least max(in_size, out_size) = {least}", f"found {size!r}")
    return size


def _target_lipschitz(target: Target, box: tuple[Array, Array], norm: str, given: Any) -> Array:
    """Lip(psi) on the box, given and checked or looked up."""
    sampled = steepest(target, box_points(*box), norm)
    good = bool(jnp.isfinite(sampled) & (sampled > 0))
    check_that(good, "psi", "have a finite derivative on the box and not be constant", f"its norm is {sampled}")
    if given is None:
        return sampled
    check_positive(given, "psi_lipschitz")
    slack = float(jnp.finfo(sampled.dtype).eps) ** 0.5
    enough = float(sampled) <= float(given) * (1 + slack)
    check_that(enough, "psi_lipschitz", "bound the derivative of psi on the box", f"found {given} below {sampled}")
    return jnp.asarray(given, sampled.dtype)
