"""The loop behind every exponent: push a frame along an orbit, orthonormalise, average the growth over bins."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ..systems import AbstractSystem, DelayFlow, Flow
from ._frame import FrameSpace, orthonormal_rows

_TARGET_BINS = 2048
_MAX_BINS = 2**16


class Carry(NamedTuple):
    """Where a run stands: the arrays of the state, the orthonormal frame, the number of the next step."""

    x: PyTree
    frame: Float[Array, "k dim"]
    n: Int[Array, ""]


class Growth(NamedTuple):
    """What has been measured, bin by bin.

    Attributes:
        means: mean logarithmic growth of a block, per bin; -inf where a direction was lost.
        squares: sum of squared deviations of the blocks from the mean of their bin.
        loss: part of the digits lost by letting the frame collapse between factorisations, mean per bin.
    """

    means: Float[Array, "num_bins k"]
    squares: Float[Array, "num_bins k"]
    loss: Float[Array, " num_bins"]


class Plan(NamedTuple):
    """The static sizes: steps in a block (between factorisations), blocks in a bin, bins, bins of burn-in."""

    qr_every: int
    blocks: int
    num_bins: int
    burn_bins: int


def make_plan(num_steps: int, burn_in: int, qr_every: int, blocks: int | None = None) -> Plan:
    """Divide a run into bins, about 2,048; the burn-in is rounded up to whole bins.

    Raises:
        ValueError: if more than 65,536 blocks do not divide into a reasonable number of bins.
    """
    num_blocks = num_steps // qr_every
    blocks = _blocks_in_bin(num_blocks) if blocks is None else blocks
    if blocks is None or num_blocks % blocks:
        step = qr_every * (blocks or 1000)
        good = max(step, num_steps // step * step)
        raise ValueError(
            f"Argument `num_steps` must divide into equal bins of blocks of `qr_every` = {qr_every} steps, but {num_steps} "
            f"does not; {good} does."
        )
    return Plan(qr_every, blocks, num_blocks // blocks, -(-burn_in // (qr_every * blocks)))


def _blocks_in_bin(num_blocks: int) -> int | None:
    if num_blocks <= _TARGET_BINS:
        return 1
    fair = [b for b in range(max(1, num_blocks // 4096), num_blocks // 256 + 1) if num_blocks % b == 0]
    if fair:
        return min(fair, key=lambda b: abs(num_blocks / b - _TARGET_BINS))
    return 1 if num_blocks <= _MAX_BINS else None


def default_cadence(system: AbstractSystem, dtype: Any, num_steps: int) -> int:
    """Steps between factorisations: the largest divisor of `num_steps` that is safe for the kind of system.

    An explicit Runge-Kutta step contracts nothing by more than exp(2.8) or so while it is stable, and a frame may collapse
    by about exp(15) in double, exp(6) in single precision. A delay equation forgets within a delay.
    """
    double = jnp.finfo(dtype).bits >= 64
    if isinstance(system, Flow):
        most = 5 if double else 2
    elif isinstance(system, DelayFlow):
        most = max(1, min(64 if double else 16, system.size // 4))
    else:
        most = 1
    return max(q for q in range(1, most + 1) if num_steps % q == 0)


def run_bins(
    system: AbstractSystem,
    static: PyTree,
    space: FrameSpace,
    carry: Carry,
    growth: Growth,
    plan: Plan,
    begin: Any,
    end: Any,
    *,
    checkpoint: bool = False,
) -> tuple[Carry, Growth]:
    """Advance by the bins begin, ..., end - 1, and write those that are not negative into `growth`.

    With `begin` and `end` Python integers the loop can be differentiated in reverse mode; traced, one program serves
    segments of any length.
    """

    def one_bin(i: Any, pair: tuple[Carry, Growth]) -> tuple[Carry, Growth]:
        carry, growth = pair
        carry, (mean, square, loss) = _bin(system, static, space, carry, plan)
        slot = jnp.maximum(i, 0)  # burn-in is overwritten by bin 0
        write = lambda a, b: a.at[slot].set(b)
        return carry, Growth(write(growth.means, mean), write(growth.squares, square), write(growth.loss, loss))

    return jax.lax.fori_loop(begin, end, jax.checkpoint(one_bin) if checkpoint else one_bin, (carry, growth))


def empty_growth(num_bins: int, k: int, dtype: Any) -> Growth:
    """Room for `num_bins` bins."""
    return Growth(jnp.zeros((num_bins, k), dtype), jnp.zeros((num_bins, k), dtype), jnp.zeros((num_bins,), dtype))


def _bin(
    system: AbstractSystem, static: PyTree, space: FrameSpace, carry: Carry, plan: Plan
) -> tuple[Carry, tuple[Array, Array, Array]]:
    """One bin: mean and squared deviations by Welford's recursion, which stays accurate in single precision."""
    k, dtype = carry.frame.shape[0], carry.frame.dtype
    eps = jnp.finfo(dtype).eps

    def block(i: Array, value: Any) -> Any:
        carry, mean, square, loss, lost = value
        carry, logs = advance_block(system, static, space, carry, plan.qr_every)
        gone = jnp.isneginf(logs)
        live = jnp.where(gone, 0, logs)
        weight = 1 / (i + 1).astype(dtype)
        change = live - mean
        mean = mean + weight * change
        square = square + change * (live - mean)
        spread = jnp.max(jnp.where(gone, -jnp.inf, logs)) - jnp.min(jnp.where(gone, jnp.inf, logs))
        loss = loss + weight * (jnp.minimum(1, eps * jnp.exp(jnp.maximum(spread, 0))) - loss)
        return carry, mean, square, loss, lost | gone

    zero = jnp.zeros((k,), dtype)
    start = (carry, zero, zero, jnp.zeros((), dtype), jnp.zeros((k,), bool))
    carry, mean, square, loss, lost = jax.lax.fori_loop(0, plan.blocks, block, start)
    return carry, (jnp.where(lost, -jnp.inf, mean), square, jax.lax.stop_gradient(loss))


def advance_block(
    system: AbstractSystem, static: PyTree, space: FrameSpace, carry: Carry, num_steps: int
) -> tuple[Carry, Float[Array, " k"]]:
    """`num_steps` steps of state and frame, then one factorisation: the new frame and its logarithmic growth."""
    x, v, n = push_frame(system, static, space, carry, num_steps)
    frame, logs = orthonormal_rows(space.flatten(v))
    return Carry(x, frame, n), logs


def push_frame(
    system: AbstractSystem, static: PyTree, space: FrameSpace, carry: Carry, num_steps: int
) -> tuple[PyTree, PyTree, Array]:
    """State, tangents and clock `num_steps` steps later, not yet factorised."""

    def step(i: Any, pair: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        x, v = system.tangent_step(carry.n + i, eqx.combine(pair[0], static), pair[1])
        return eqx.filter(x, eqx.is_array), v

    pair = (carry.x, space.unflatten(carry.frame))
    x, v = step(0, pair) if num_steps == 1 else jax.lax.fori_loop(0, num_steps, step, pair)
    return x, v, carry.n + num_steps
