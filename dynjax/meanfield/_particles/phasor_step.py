"""One step of phasors: Runge-Kutta in frames that turn with the natural frequencies, fused where all drive all."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._graphs.graph_operator import AllToAll, GraphOperator
from .couplings import AbstractInteraction, averages
from .phases import Phases, powers


class Method(NamedTuple):
    """An explicit Runge-Kutta method whose nodes are 0, 1/2 and 1, in half steps.

    Attributes:
        a: rows of the strictly lower triangular matrix.
        b: weights.
        halves: nodes c_i in half steps.
    """

    a: tuple[tuple[float, ...], ...]
    b: tuple[float, ...]
    halves: tuple[int, ...]


METHODS = {
    "euler": Method(((),), (1.0,), (0,)),
    "heun": Method(((), (1.0,)), (1 / 2, 1 / 2), (0, 2)),
    "rk4": Method(((), (1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), (0, 1, 1, 2)),
}

# From this many numbers on, a step over all-to-all coupling recomputes its stages: XLA would make some thirty passes over the
# arrays, so it makes one for each stage and one more. On a CPU that goes in blocks of about BLOCK numbers, which stay in the
# cache; an accelerator would wait for the kernels of hundreds of blocks, and fuses each pass into one.
BLOCKED_FROM = 16_384
BLOCK = 4_096


def _stage(method: Method, k: int, u: Phases, turns: list[Phases | None], slopes: list[Phases], h: Any) -> Phases:
    """The state of stage `k`, or for `k` = number of stages the new state, from the slopes of the stages before.

    In the frame that turns with the natural frequencies the equation is v' = exp(-i w t) g(exp(i w t) v). Its Runge-Kutta
    stages, turned back, are R(c_k) u + h sum_j a_kj R(c_k - c_j) g_j. Slopes with the same turn are added first.
    """
    last = k == len(method.b)
    weights, node = (method.b, 2) if last else (method.a[k], method.halves[k])
    groups: dict[int, Phases] = {node: u}
    for weight, begin, slope in zip(weights, method.halves, slopes, strict=False):
        if weight:
            old = groups.get(node - begin)
            cos, sin = h * weight * slope.cos, h * weight * slope.sin
            groups[node - begin] = Phases(cos, sin) if old is None else Phases(old.cos + cos, old.sin + sin)
    turned = [group if (turn := turns[halves]) is None else group * turn for halves, group in groups.items()]
    total = turned[0]
    for part in turned[1:]:
        total = Phases(total.cos + part.cos, total.sin + part.sin)
    return total.unit() if last else total


def _slope(interaction: AbstractInteraction, u: Phases, fields: list[Phases]) -> Phases:
    """The part i u s of u' that comes from the coupling."""
    speed = interaction.speed(u, fields)
    return Phases(-u.sin * speed, u.cos * speed)


def _turns(half: Phases | None) -> list[Phases | None]:
    """The rotations by no, half and a whole step."""
    return [None, half, None if half is None else half * half]


def phasor_step(
    graph: GraphOperator,
    interaction: AbstractInteraction,
    method: str,
    u: Phases,
    half: Phases | None,
    dt: Float[Array, ""],
) -> Phases:
    """The phasors one step later.

    Args:
        graph: who drives whom.
        interaction: how.
        method: a key of `METHODS`.
        u: the phasors, (nodes, ...).
        half: the rotation by the natural frequencies (and the noise) in half a step, of a shape that broadcasts to `u`;
            `None` where nothing turns.
        dt: the step.
    """
    tableau, h = METHODS[method], dt.astype(u.cos.dtype)
    if isinstance(graph, AllToAll) and u.cos.size >= BLOCKED_FROM and u.cos.shape[0] > 1:
        numbers = BLOCK if jax.default_backend() == "cpu" else None
        return _recomputed(graph, interaction, tableau, u, half, h, numbers)
    slopes: list[Phases] = []
    for k in range(len(tableau.b)):
        now = _stage(tableau, k, u, _turns(half), slopes, h)
        slopes.append(_slope(interaction, now, averages(graph, now, interaction.num_moments)))
    return _stage(tableau, len(tableau.b), u, _turns(half), slopes, h)


def _block_size(num_nodes: int, most: int) -> int:
    """A divisor of the number of nodes where there is one between most / 2 and `most`, else `most`.

    Blocks that leave a rest cost a copy of everything: a step of a million nodes takes 8 ms with 244 blocks of 4,096, and 7 ms
    with 250 of 4,000.
    """
    return next((size for size in range(most, most // 2, -1) if num_nodes % size == 0), most)


def _recomputed(
    graph: AllToAll,
    interaction: AbstractInteraction,
    method: Method,
    u: Phases,
    half: Phases | None,
    h: Any,
    numbers: int | None,
) -> Phases:
    """The same for all-to-all coupling, in blocks of at most so many numbers, or in one (`None`).

    A stage needs of the others nothing but a few means. So stages are not stored: each pass over the nodes computes the
    stages again from the state and the means known so far, and adds up the next means. The numbers of passes and of bytes
    moved are five and sixty for "rk4" in single precision, instead of about thirty and three hundred.
    """
    num_nodes, lanes = u.cos.shape[0], u.cos.shape[1:]
    most = num_nodes if numbers is None else max(1, min(num_nodes, numbers // max(1, u.cos[0].size)))
    size = _block_size(num_nodes, most)
    count = num_nodes // size
    # The leaves that have an entry for each node; a rotation may be shared by all.
    shared = half is not None and half.cos.shape[0] == 1
    state = (u, None if shared else half)
    blocks = jax.tree.map(lambda x: x[: count * size].reshape(count, size, *x.shape[1:]), state)
    rest = jax.tree.map(lambda x: x[count * size :], state) if count * size < num_nodes else None
    moments, keep = interaction.num_moments, jax.lax.optimization_barrier if numbers else lambda x: x
    weight = graph.weight.astype(u.cos.dtype) / num_nodes

    def stage(k: int, block: Any, fields: list[list[Phases]]) -> Phases:
        now, own = block
        turns = _turns(half if shared else own)
        slopes: list[Phases] = []
        for j in range(k):
            # The two parts of a phasor are two loops on a CPU. Without barriers each repeats all stages before it.
            state = keep(_stage(method, j, now, turns, slopes, h)) if j else now
            speed = keep(interaction.speed(state, fields[j]))
            slopes.append(Phases(-state.sin * speed, state.cos * speed))
        return _stage(method, k, now, turns, slopes, h)

    fields: list[list[Phases]] = []
    for k in range(len(method.b)):

        def add(sums: list[Phases], block: Any, k: int = k) -> tuple[list[Phases], None]:
            return jax.tree.map(jnp.add, sums, powers(stage(k, block, fields), moments)), None

        zero = jnp.zeros((size, *lanes), u.cos.dtype)
        if count == 1:
            sums = powers(stage(k, jax.tree.map(lambda x: x[0], blocks), fields), moments)
        else:
            sums, _ = jax.lax.scan(add, [Phases(zero, zero)] * moments, blocks)
        totals = jax.tree.map(lambda x: jnp.sum(x, axis=0), sums)
        if rest is not None:
            remaining = powers(stage(k, rest, fields), moments)
            totals = jax.tree.map(lambda a, b: a + jnp.sum(b, axis=0), totals, remaining)
        fields.append(jax.tree.map(lambda x: weight * x, totals))

    final = len(method.b)
    if count == 1 and rest is None:
        return stage(final, state, fields)
    _, new = jax.lax.scan(lambda carry, block: (carry, stage(final, block, fields)), None, blocks)
    new = jax.tree.map(lambda x: x.reshape(count * size, *lanes), new)
    if rest is not None:
        # XLA makes a loop with a branch for every element of a concatenation: 16 ms more for a million nodes.
        join = lambda x, a, b: jnp.zeros_like(x).at[: count * size].set(a).at[count * size :].set(b)
        new = jax.tree.map(join, u, new, stage(final, rest, fields))
    return new
