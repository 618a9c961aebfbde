"""Neural delay differential equations."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._core import Status, check_positive, check_that, found
from ..systems import DelayFlow, ddesolve
from ._affine import as_module, as_widths, check_sample, check_shape, layer_or_random
from ._delay_plan import Plan, make_plan
from ._fields import MLPField
from ._lipschitz_field import LipschitzField, folded
from ._neural_ode import check_field_options


class NeuralDDE(eqx.Module):
    r"""A neural delay differential equation between an affine lift and an affine readout.

        y'(t) = field(t, y(t), (y(t - tau_1), ..., y(t - tau_r))) for 0 <= t <= T,    y(t) = lift(x) in R^m for t <= 0,

    with `model(x) = readout(y(T)) in R^q`. All inexact arrays of the module are parameters, except `horizon`, the delays unless
    `trainable_delays` is set, and the constant of a `LipschitzField`: they are arrays so that one may map over them, but pass
    `jax.lax.stop_gradient`, so that their gradient is zero. (Weight decay ignores gradients: mask them.) Trainable delays are
    stored by their logarithms, so that they stay positive.

    The engine "stages" takes fixed steps on a grid that repeats with the delays and interpolates nothing: fast, and
    differentiable in both modes and to any order. It is the default where the delays are fixed and multiples of one number.
    The ratios of the delays and of the horizon are then static; one may still scale all of them, by a traced factor, and the
    output is NaN if the ratios were changed after construction. The engine "segments" is adaptive. See `ddesolve` for both.
    Where the solver fails the output is NaN.

    Args:
        widths: (d, m, q): lengths of input, state and output.
        delay: one positive number, or a sequence of them.
        horizon: T, positive.
        key: seeds the parameters.
        hidden: widths of the hidden layers of the field.
        activation: function applied after every hidden layer of the field.
        time_dependent: whether the time is an input of the field.
        lipschitz: a hard bound K on the Lipschitz constant of the field, which then is a `LipschitzField`.
        norm: of that bound, "sup" or "euclidean".
        time_pieces: sets of parameters of the `LipschitzField`, interpolated in time. Steps are then chosen such that its
            corners in time are ends of steps, where the engine is "stages" and `steps_per_delay` is not given.
        trainable_delays: whether the delays are parameters.
        field: `field(t, y, delayed)`, in place of a random one, `delayed` a tuple of one state for each delay; a module, whose
            arrays are then parameters, or a function.
        lift: a callable R^d -> R^m, in place of a random `Affine`.
        readout: a callable R^m -> R^q, likewise.
        engine: "stages" or "segments".
        steps_per_delay: steps for the smallest delay, for "stages"; at least 8 for the shorter of delay and horizon by default.
        solver: an explicit Runge-Kutta solver of Diffrax for "stages", one with an error estimate for "segments";
            `diffrax.Tsit5()` by default.
        rtol: relative tolerance, for "segments"; a tenth of the square root of the precision by default.
        atol: absolute tolerance, for "segments"; `rtol` by default.
        max_steps: static room for the steps of one segment, for "segments".
        max_segments: static room for the sums of delays below T, for "segments". Derived where the delays are concrete;
            trainable ones may then shrink to one half before the output becomes NaN.
        adjoint: "reverse" or "forward" mode of differentiation, for "segments".
        dtype: floating dtype of the parameters; JAX's default if not given.

    Raises:
        ValueError: if the widths are not three positive integers, a delay, the horizon or K is not positive, the engine does not
            fit to the delays, or a field, lift or readout does not have the shapes of `widths`.
        TypeError: if one of them is not callable.

    Example:
        ```python
        model = dj.NeuralDDE((1, 1, 1), delay=1.0, horizon=3.0, lipschitz=0.6, key=jax.random.key(0))
        jax.vmap(model)(batch)                                       # (N, 1)
        system = model.delay_flow(0.05)
        dj.lyapunov_spectrum(system, system.init(model.lift(x)), num_steps=10_000, k=3, key=key)
        ```

    References:
        Kuehn and Kuntz, The influence of the memory capacity of neural DDEs on the universal approximation property (2025),
        arXiv:2505.07244; Zhu, Guo and Lin, Neural delay differential equations (2021).
    """

    lift: Any
    field: Any
    readout: Any
    horizon: Float[Array, ""]
    stored_delays: Float[Array, "r"]
    widths: tuple[int, int, int] = eqx.field(static=True)
    trainable_delays: bool = eqx.field(static=True)
    plan: Plan = eqx.field(static=True)
    solver: Any = eqx.field(static=True)

    def __init__(
        self,
        widths: Sequence[int],
        *,
        delay: Any = 1.0,
        horizon: Any = 1.0,
        key: PRNGKeyArray,
        hidden: Sequence[int] = (16,),
        activation: Callable[[Any], Any] = jnp.tanh,
        time_dependent: bool = False,
        lipschitz: Any = None,
        norm: str = "sup",
        time_pieces: int = 1,
        trainable_delays: bool = False,
        field: Callable[..., Any] | None = None,
        lift: Callable[[Any], Any] | None = None,
        readout: Callable[[Any], Any] | None = None,
        engine: str | None = None,
        steps_per_delay: int | None = None,
        solver: Any = None,
        rtol: float | None = None,
        atol: float | None = None,
        max_steps: int = 256,
        max_segments: int | None = None,
        adjoint: str = "reverse",
        dtype: Any = None,
    ):
        d, m, q = self.widths = as_widths(widths)
        check_positive(horizon, "horizon")
        dtype = jnp.result_type(float) if dtype is None else jnp.dtype(dtype)
        delays = _as_delays(delay, dtype)
        self.horizon = jnp.asarray(horizon, dtype)
        self.stored_delays = jnp.log(delays) if trainable_delays else delays
        self.trainable_delays = bool(trainable_delays)
        lift_key, field_key, readout_key = jax.random.split(key, 3)
        self.lift = layer_or_random(lift, d, m, "lift", lift_key, dtype)
        self.readout = layer_or_random(readout, m, q, "readout", readout_key, dtype)
        check_field_options(field, lipschitz, time_dependent, time_pieces)
        r = delays.shape[0]
        shape = {"num_delays": r, "hidden": hidden, "activation": activation, "key": field_key, "dtype": dtype}
        if field is not None:
            self.field = as_module(field, "field")
            state = jax.ShapeDtypeStruct((m,), dtype)
            check_shape(self.field, (jax.ShapeDtypeStruct((), dtype), state, (state,) * r), m, "field")
        elif lipschitz is not None:
            self.field = LipschitzField(lipschitz, norm, size=m, time_pieces=time_pieces, horizon=horizon, **shape)
        else:
            self.field = MLPField(m, time_dependent=time_dependent, **shape)
        pieces = self.field.time_pieces if isinstance(self.field, LipschitzField) else 1
        options = (rtol, atol, max_steps, adjoint)
        self.plan = make_plan(
            engine, delay, horizon, self.trainable_delays, steps_per_delay, max_segments, pieces, options
        )
        self.solver = solver

    @property
    def delays(self) -> Float[Array, "r"]:
        """The delays; without a gradient where they are fixed."""
        if self.trainable_delays:
            return jnp.exp(self.stored_delays)
        return jax.lax.stop_gradient(self.stored_delays)

    def __call__(self, x: Float[Array, "d"]) -> Float[Array, "q"]:
        """The output for one sample; `jax.vmap` it over samples."""
        return self.readout(self.solve(x))

    def solve(self, x: Float[Array, "d"]) -> Float[Array, "m"]:
        """The state y(T) for one sample, before the readout."""
        check_sample(x, self.widths[0])
        y0, plan = self.lift(x), self.plan
        unit, lags, end, kept = self._times()
        solution = ddesolve(
            _Scaled(folded(self.field), unit),
            0.0,
            end,
            y0,
            history=_Constant(y0),
            delays=lags,
            solver=self.solver,
            engine=plan.engine,
            **plan.options(),
        )
        # Times y0 as well, so that derivatives are marked too where the solver has cut them off.
        excess = jnp.where(kept & (solution.status == int(Status.OK)), 0.0, jnp.nan)
        return solution.final + excess.astype(y0.dtype) * y0

    def delay_flow(self, dt: Any, *, num_history: int | None = None) -> DelayFlow:
        """The delay equation on a grid of step `dt`, for the tools that take a system.

        Args:
            dt: Time per step, at most the smallest delay; its order is four where the delays are multiples of `dt`.
            num_history: length of the history in steps, needed where the model is traced.

        Returns:
            The system; its state for the sample `x` is `.init(model.lift(x))`.
        """
        delays = self.delays
        field = _Args(folded(self.field))
        return DelayFlow(field, tuple(delays[j] for j in range(delays.shape[0])), dt, num_history=num_history)

    def _times(self) -> tuple[Any, Any, Any, Any]:
        """The unit of time, delays and horizon in that unit, and whether they still have the ratios of the plan.

        With static ratios the solver knows all sizes, and the unit alone is traced.
        """
        delays, horizon = self.delays, jax.lax.stop_gradient(self.horizon)
        if self.plan.lags is None:
            return jnp.ones_like(horizon), delays, horizon, jnp.asarray(True)
        unit = delays[0] / self.plan.lags[0]
        planned = jnp.asarray([*self.plan.lags, self.plan.span], delays.dtype) * unit
        actual = jnp.append(delays, horizon)
        loose = float(jnp.finfo(delays.dtype).eps) ** 0.5
        kept = jnp.all(jnp.abs(actual - planned) <= loose * actual)
        return unit, list(self.plan.lags), self.plan.span, kept


class _Scaled(eqx.Module):
    """A field in units of time other than its own."""

    field: Any
    unit: Float[Array, ""]

    def __call__(self, s: Any, y: Array, delayed: Any, args: Any) -> Array:
        unit = self.unit.astype(y.dtype)
        return unit * self.field(s * unit, y, delayed)


class _Args(eqx.Module):
    """A field with the arguments of `DelayFlow`."""

    field: Any

    def __call__(self, t: Any, y: Array, delayed: Any, args: Any) -> Array:
        return self.field(t, y, delayed)


class _Constant(eqx.Module):
    """The past of a model."""

    value: Array

    def __call__(self, t: Any) -> Array:
        return self.value


def _as_delays(delay: Any, dtype: Any) -> Float[Array, "r"]:
    """The delays as one vector."""
    several = delay if isinstance(delay, Sequence) else [delay]
    for one in several:
        check_positive(one, "delay")
    delays = jnp.atleast_1d(jnp.asarray(delay, dtype))
    check_that(
        delays.ndim == 1 and delays.shape[0] > 0, "delay", "be one number or a sequence of numbers", found(delays)
    )
    return delays
