"""Will a block fit into the memory of the device? Asked of the compiler before anything is computed or stored."""

import os
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ._errors import BlockTooLarge
from ._lanes import Lanes
from ._program import AbstractProgram, final_block, init_block, segment_block
from ._signals import worker_identity

LIMIT_VARIABLE = "DYNJAX_MEMORY_LIMIT"
HEAD_ROOM = 0.3  # of the memory is left to what the compiler does not count
_SMALL = 0.1  # below this part of the memory a segment is not the reason to look at the final records too
_GIB = 2**30


class Shortage(NamedTuple):
    """A block needs more memory than may be used."""

    block: int
    needed: int
    limit: int

    @property
    def allowed(self) -> float:
        """Bytes that may be used."""
        return (1 - HEAD_ROOM) * self.limit

    @property
    def fitting(self) -> int:
        """The largest power of two whose block fits, as memory grows in proportion to the lanes; 0 if there is none."""
        lanes = int(self.block * self.allowed / self.needed)
        return 2 ** (lanes.bit_length() - 1) if lanes else 0

    def __str__(self) -> str:
        return (
            f"Blocks of {self.fitting} lanes: {self.block} need about {_size(self.needed)}, and {_size(self.allowed)} may be "
            "used."
        )

    def error(self) -> BlockTooLarge:
        """What to raise, with a block size that fits."""
        advice = f"choose at most {self.fitting}, in a new store" if self.fitting else "not even one lane fits"
        return BlockTooLarge(
            f"Argument `block` must leave room on the device, but {self.block} lanes need about {_size(self.needed)} of "
            f"{_size(self.limit)}, of which {_size(self.allowed)} may be used; {advice}."
        )


def shortage(program: AbstractProgram, lanes: Lanes) -> Shortage | None:
    """What is missing for a block, or None if it fits or nobody knows. The sweep then finds its program compiled."""
    limit = memory_limit()
    if limit is None:
        return None
    found = Shortage(lanes.block, block_bytes(program, lanes.padded(0), limit), limit)
    return found if found.needed > found.allowed else None


def memory_limit() -> int | None:
    """Bytes that this process may use on its device, or None where nobody knows.

    `DYNJAX_MEMORY_LIMIT` (bytes) comes first. On an accelerator it is what the allocator may still take, on a CPU the
    memory that is available, shared with the other workers of a sweep.
    """
    given = os.environ.get(LIMIT_VARIABLE, "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    stats = jax.local_devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"] - stats.get("bytes_in_use", 0))
    if jax.default_backend() != "cpu":
        return None
    available = _available_on_host()
    return None if available is None else available // (worker_identity() or (0, 1))[1]


def block_bytes(program: AbstractProgram, lanes: dict[str, Array], limit: int) -> int:
    """Bytes that a segment of a block takes while it runs, by the compiler's own account, and the final records if larger."""
    state = _blank_state(program, lanes)
    needed = _bytes_of(segment_block, program, state)
    return max(needed, _bytes_of(final_block, program, state)) if needed > _SMALL * limit else needed


@eqx.filter_jit
def _blank_state(program: AbstractProgram, lanes: dict[str, Array]) -> PyTree:
    """A state of the right shapes, of zeros: what `init` would compute is left out by the compiler."""
    state = init_block(program, lanes)
    return jax.tree_util.tree_map(lambda leaf: jnp.zeros_like(leaf) if eqx.is_array(leaf) else leaf, state)


def _bytes_of(function: Any, program: AbstractProgram, state: PyTree) -> int:
    """Of a jitted function; calls that follow find it compiled."""
    found = function.lower(program, state).compile().compiled.memory_analysis()
    if found is None:
        return 0
    parts = (found.temp_size_in_bytes, found.argument_size_in_bytes, found.output_size_in_bytes)
    return int(sum(parts) - found.alias_size_in_bytes)


def _size(number: float) -> str:
    return f"{number / _GIB:.3g} GiB" if number >= 0.1 * _GIB else f"{number / 2**20:.3g} MiB"


def _available_on_host() -> int | None:
    """What Linux calls available, within the limit of a control group; None elsewhere."""
    found = []
    try:
        with open("/proc/meminfo") as file:
            lines = dict(line.split(":", 1) for line in file)
        found.append(int(lines["MemAvailable"].split()[0]) * 1024)
        with open("/sys/fs/cgroup/memory.max") as maximum, open("/sys/fs/cgroup/memory.current") as current:
            found.append(int(maximum.read()) - int(current.read()))
    except (OSError, KeyError, ValueError):
        pass  # not Linux, or no limit, which is spelled "max"
    return min(found) if found else None
