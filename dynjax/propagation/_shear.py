"""Every map as a neural ODE with a state wide enough for input and output: the shear."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import check_positive, check_that
from ..networks import Affine, NeuralODE
from ._target import Target, as_dtype


class ShearField(eqx.Module):
    """The field f(t, (u, v, r)) = (0, psi(u / a) / (g T), 0): the input u rests and drives the output v.

    Attributes:
        target: the map psi.
        input_scale: 1 / a.
        output_scale: 1 / (g T), per unit of time.
    """

    target: Target
    input_scale: Float[Array, ""]
    output_scale: Float[Array, ""]

    def __call__(self, t: Any, h: Float[Array, "m"]) -> Float[Array, "m"]:
        """The slope, the same at all times."""
        del t
        d, q = self.target.in_size, self.target.out_size
        slope = self.output_scale * self.target(self.input_scale * h[:d])
        return jnp.concatenate([jnp.zeros_like(h[:d]), slope, jnp.zeros_like(h[d + q :])])

    def lipschitz_bound(self, norm: str = "sup") -> Float[Array, ""]:
        """Lip(psi) / (a g T), where a bound for psi is known."""
        return jnp.abs(self.input_scale * self.output_scale) * self.target.lipschitz_bound(norm)


class ShearEmbedding(NeuralODE):
    r"""The neural ODE that represents a given map psi: R^d -> R^q exactly, with a state of d + q components or more.

    With the state (u, v, r), lift u(0) = a x, v(0) = 0, r(0) = 0 and readout g v,

    $$u' = 0, \quad v' = \frac{\psi(u / a)}{g T}, \quad r' = 0 \quad\Longrightarrow\quad g\, v(T) = \psi(x).$$

    It holds for every continuous psi; one Runge-Kutta step of any size is exact, since u rests. The field has the Lipschitz
    constant Lip(psi) / (a g T), which the gains make as small as one likes. For d <= m < d + q no such construction exists
    for all maps: see `embedding_obstruction`.

    With a network for psi all arrays can be trained, and the output is then wrong by T sup |f_v - psi / T| at most, with no
    exponential factor; with a known psi it is a starting point for training. It is a `NeuralODE`.

    Args:
        psi: the map, a function or module of one sample `(d,)` with values `(q,)`, or a number for q = 1.
        in_size: d.
        out_size: q.
        horizon: T, positive.
        state_size: m >= d + q; d + q by default.
        lift_gain: a, positive.
        readout_gain: g, positive.
        num_steps: Runge-Kutta steps; one is exact.
        dtype: floating dtype of the parameters; JAX's default if not given.

    Raises:
        ValueError: if `state_size` is below d + q, a gain or the horizon is not positive, or psi has other shapes.
        TypeError: if `psi` is not callable.

    Example:
        ```python
        model = dj.ShearEmbedding(lambda x: x[:1] * x[1:], in_size=2, out_size=1)
        model(jnp.array([2.0, 3.0]))                     # [6.0]
        ```

    References:
        Kuehn and Kuntz, arXiv:2308.01213 (2023), universal embedding; arXiv:2507.05164 (2025), theorem 2.6. Zhang, Gao,
        Unterman and Arodz, Approximation capabilities of neural ODEs and invertible residual networks (2020).
    """

    def __init__(
        self,
        psi: Callable[[Any], Any],
        *,
        in_size: int,
        out_size: int,
        horizon: Any = 1.0,
        state_size: int | None = None,
        lift_gain: Any = 1.0,
        readout_gain: Any = 1.0,
        num_steps: int = 1,
        dtype: Any = None,
    ):
        dtype = as_dtype(dtype)
        target = Target(psi, in_size, out_size, dtype)
        least = in_size + out_size
        size = least if state_size is None else state_size
        good = isinstance(size, int) and size >= least
        check_that(good, "state_size", f"be at least in_size + out_size = {least}", f"found {size!r}")
        check_positive(horizon, "horizon")
        check_gain(lift_gain, "lift_gain")
        check_gain(readout_gain, "readout_gain")
        a, g, end = (jnp.asarray(value, dtype) for value in (lift_gain, readout_gain, horizon))
        super().__init__(
            (in_size, size, out_size),
            horizon=horizon,
            key=jax.random.key(0),
            field=ShearField(target, 1 / a, 1 / (g * end)),
            lift=Affine(a * jnp.eye(size, in_size, dtype=dtype)),
            readout=Affine(g * jnp.eye(out_size, size, k=in_size, dtype=dtype)),
            num_steps=num_steps,
            dtype=dtype,
        )


def check_gain(gain: Any, argument: str) -> None:
    """Raise unless the gain is finite and positive; a traced one passes."""
    check_positive(gain, argument)
