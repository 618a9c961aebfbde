"""Neural ordinary differential equations."""

from collections.abc import Callable, Sequence
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._core import check_count, check_positive, check_that, found
from ..systems import Flow
from ._affine import as_module, as_widths, check_sample, check_shape, layer_or_random
from ._fields import MLPField
from ._lipschitz_field import LipschitzField, folded


class NeuralODE(eqx.Module):
    r"""A neural ordinary differential equation between an affine lift and an affine readout.

        h(0) = lift(x) in R^m,    h'(t) = field(t, h(t)) for 0 <= t <= T,    model(x) = readout(h(T)) in R^q.

    It is augmented where the state is wider than the input, m > d. All inexact arrays of the module are parameters, except
    `horizon` (and the constant of a `LipschitzField`): they are arrays so that one may map over them, but pass
    `jax.lax.stop_gradient`, so that their gradient is zero. (Weight decay ignores gradients: mask them.)

    By default the equation is solved by an adaptive Diffrax solver, in reverse mode by checkpoints, for every sample with
    its own steps under `jax.vmap`. With `num_steps` it is solved by that many classical Runge-Kutta steps of equal size,
    which can be differentiated in forward and reverse mode and to any order (Hessians of a loss or of the input-output map).
    Where the solver fails the output is NaN.

    `batch` solves for many samples with one sequence of steps, which is the fast way to train on a CPU (3 to 4 times faster
    than `jax.vmap(model)` for 256 samples of 8 numbers).

    Args:
        widths: (d, m, q): lengths of input, state and output.
        horizon: T, positive; may be traced.
        key: seeds the parameters.
        hidden: widths of the hidden layers of the field.
        activation: function applied after every hidden layer of the field.
        time_dependent: whether the time is an input of the field.
        lipschitz: a hard bound on the Lipschitz constant of the field, which then is a `LipschitzField`.
        norm: of that bound, "sup" or "euclidean".
        time_pieces: sets of parameters of the `LipschitzField`, interpolated in time.
        field: `field(t, h)`, in place of a random one; a module, whose arrays are then parameters, or a function.
        lift: a callable R^d -> R^m, in place of a random `Affine`.
        readout: a callable R^m -> R^q, likewise.
        solver: a Diffrax solver; `diffrax.Tsit5()` by default.
        rtol: relative tolerance; a tenth of the square root of the precision by default.
        atol: absolute tolerance; `rtol` by default.
        num_steps: fixed steps in place of the adaptive solver.
        adjoint: a Diffrax adjoint; `diffrax.RecursiveCheckpointAdjoint()` by default. `diffrax.ForwardMode()` allows
            `jax.jvp`, `diffrax.DirectAdjoint()` both modes, `diffrax.BacksolveAdjoint()` the adjoint equation.
        max_steps: the most steps that the adaptive solver may try.
        dtype: floating dtype of the parameters; JAX's default if not given.

    Raises:
        ValueError: if the widths are not three positive integers, the horizon or K is not positive, `num_steps` is below 1, or
            a field, lift or readout does not have the shapes of `widths`.
        TypeError: if one of them is not callable, or the solver or adjoint is none of Diffrax.

    Example:
        ```python
        model = dj.NeuralODE((2, 3, 1), key=jax.random.key(0))
        jax.vmap(model)(batch)                                       # (N, 1)
        dj.lyapunov_spectrum(model.flow(0.01), model.lift(x), num_steps=10_000, key=key)
        ```

    References:
        Chen, Rubanova, Bettencourt and Duvenaud, Neural ordinary differential equations (2018); Dupont, Doucet and Teh,
        Augmented neural ODEs (2019); Kidger, On neural differential equations (2022), chapter 5.
    """

    lift: Any
    field: Any
    readout: Any
    horizon: Float[Array, ""]
    widths: tuple[int, int, int] = eqx.field(static=True)
    solver: Any = eqx.field(static=True)
    adjoint: Any = eqx.field(static=True)
    rtol: float | None = eqx.field(static=True)
    atol: float | None = eqx.field(static=True)
    num_steps: int | None = eqx.field(static=True)
    max_steps: int = eqx.field(static=True)

    def __init__(
        self,
        widths: Sequence[int],
        *,
        horizon: Any = 1.0,
        key: PRNGKeyArray,
        hidden: Sequence[int] = (16,),
        activation: Callable[[Any], Any] = jnp.tanh,
        time_dependent: bool = False,
        lipschitz: Any = None,
        norm: str = "sup",
        time_pieces: int = 1,
        field: Callable[[Any, Any], Any] | None = None,
        lift: Callable[[Any], Any] | None = None,
        readout: Callable[[Any], Any] | None = None,
        solver: Any = None,
        rtol: float | None = None,
        atol: float | None = None,
        num_steps: int | None = None,
        adjoint: Any = None,
        max_steps: int = 4096,
        dtype: Any = None,
    ):
        self.widths = as_widths(widths)
        d, m, q = self.widths
        check_positive(horizon, "horizon")
        check_count(max_steps, "max_steps")
        if num_steps is not None:
            check_count(num_steps, "num_steps")
        dtype = jnp.result_type(float) if dtype is None else jnp.dtype(dtype)
        self.horizon = jnp.asarray(horizon, dtype)
        lift_key, field_key, readout_key = jax.random.split(key, 3)
        self.lift = layer_or_random(lift, d, m, "lift", lift_key, dtype)
        self.readout = layer_or_random(readout, m, q, "readout", readout_key, dtype)
        shape = {"hidden": hidden, "activation": activation, "key": field_key, "dtype": dtype}
        check_field_options(field, lipschitz, time_dependent, time_pieces)
        if field is not None:
            self.field = as_module(field, "field")
            state = jax.ShapeDtypeStruct((m,), dtype)
            check_shape(self.field, (jax.ShapeDtypeStruct((), dtype), state), m, "field")
        elif lipschitz is not None:
            self.field = LipschitzField(lipschitz, norm, size=m, time_pieces=time_pieces, horizon=horizon, **shape)
        else:
            self.field = MLPField(m, time_dependent=time_dependent, **shape)
        self.solver = diffrax.Tsit5() if solver is None else solver
        self.adjoint = diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint
        _check_diffrax(self.solver, self.adjoint)
        self.rtol, self.atol = rtol, atol
        self.num_steps, self.max_steps = num_steps, max_steps

    def __call__(self, x: Float[Array, "d"]) -> Float[Array, "q"]:
        """The output for one sample; `jax.vmap` it over samples."""
        return self.readout(self.solve(x))

    def solve(self, x: Float[Array, "d"]) -> Float[Array, "m"]:
        """The state h(T) for one sample, before the readout."""
        check_sample(x, self.widths[0])
        h = self.lift(x)
        field = folded(self.field)
        return self._adaptive(h, field) if self.num_steps is None else self._fixed(h, field, self.num_steps)

    def batch(self, x: Float[Array, "samples d"]) -> Float[Array, "samples q"]:
        """The outputs for many samples, solved as one system.

        They share their steps, which the root mean square of the errors of all samples decides: that of a single sample can
        be larger than the tolerance. With `num_steps` it is `jax.vmap(model)(x)`.
        """
        good = jnp.ndim(x) == 2 and jnp.shape(x)[1] == self.widths[0]
        check_that(good, "x", f"be samples of shape (N, {self.widths[0]})", f"found {jnp.shape(x)}")
        if self.num_steps is not None:
            return jax.vmap(self)(x)
        field = _Batched(folded(self.field))
        return jax.vmap(self.readout)(self._adaptive(jax.vmap(self.lift)(x), field))

    def flow(self, dt: Any, *, method: str = "rk4") -> Flow:
        """The flow of the field, with a fixed step `dt`, for the tools that take a system; its states are those in R^m."""
        return Flow(_Term(folded(self.field)), dt, method=method)

    def _fixed(self, h: Float[Array, "m"], field: Any, num_steps: int) -> Float[Array, "m"]:
        flow = Flow(_Term(field), jax.lax.stop_gradient(self.horizon) / num_steps)
        return jax.lax.scan(lambda y, n: (flow.step(n, y), None), h, jnp.arange(num_steps))[0]

    def _adaptive(self, h: Float[Array, "*samples m"], field: Any) -> Float[Array, "*samples m"]:
        rtol = float(jnp.finfo(h.dtype).eps) ** 0.5 / 10 if self.rtol is None else self.rtol
        horizon = jax.lax.stop_gradient(self.horizon).astype(h.dtype)
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(_Term(field)),
            self.solver,
            jnp.zeros_like(horizon),
            horizon,
            dt0=None,
            y0=h,
            saveat=diffrax.SaveAt(t1=True),
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol if self.atol is None else self.atol),
            adjoint=self.adjoint,
            max_steps=self.max_steps,
            throw=False,
        )
        # A factor, so that derivatives are marked too.
        good = jnp.where(solution.result == diffrax.RESULTS.successful, 1.0, jnp.nan)
        return solution.ys[-1] * good.astype(h.dtype)


class _Term(eqx.Module):
    """A field with the arguments of Diffrax."""

    field: Any

    def __call__(self, t: Any, y: Array, args: Any) -> Array:
        return self.field(t, y)


class _Batched(eqx.Module):
    """A field on many states at once."""

    field: Any

    def __call__(self, t: Any, y: Float[Array, "samples m"]) -> Float[Array, "samples m"]:
        return jax.vmap(lambda h: self.field(t, h))(y)


def check_field_options(field: Any, lipschitz: Any, time_dependent: bool, time_pieces: int) -> None:
    """Raise where two options contradict each other."""
    given = field is not None
    check_that(not (given and lipschitz is not None), "lipschitz", "be None where a `field` is given", "it is not")
    check_that(not (given and time_dependent), "time_dependent", "be False where a `field` is given", "it is True")
    check_count(time_pieces, "time_pieces")
    check_that(
        time_pieces == 1 or lipschitz is not None,
        "time_pieces",
        "be 1 unless `lipschitz` is given",
        f"found {time_pieces}; `time_dependent=True` makes the field depend on time",
    )
    check_that(
        not (lipschitz is not None and time_dependent),
        "time_dependent",
        "be False where `lipschitz` is given",
        "it is True; take `time_pieces`",
    )


def _check_diffrax(solver: Any, adjoint: Any) -> None:
    check_that(isinstance(solver, diffrax.AbstractSolver), "solver", "be a Diffrax solver", found(solver), TypeError)
    check_that(
        isinstance(adjoint, diffrax.AbstractAdjoint), "adjoint", "be a Diffrax adjoint", found(adjoint), TypeError
    )
