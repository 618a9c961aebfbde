"""Long runs in segments, whose state is kept on disc, so that the death of a process costs one segment."""

import os
import pathlib
import warnings
from collections.abc import Callable

import jax
from jaxtyping import PyTree

from .._core import check_count, check_that, found
from ..sweep import StoreDamaged, load_newest, save_state
from ._mesh import on_host, placed_like


def run_segments(
    segment: Callable[[PyTree], PyTree],
    state: PyTree,
    num_segments: int,
    path: str | os.PathLike[str],
    *,
    on_segment: Callable[[int, PyTree], None] | None = None,
) -> PyTree:
    """Apply `segment` again and again, keeping the state after each on disc, and go on from there if it was interrupted.

    The file holds the values alone, whatever devices they were on: a run of two processes can be gone on with by one, or by
    four. It is written by process 0, as a whole or not at all, and the last two are kept; all processes must see it.

    Args:
        segment: `segment(state) -> state`, of the same structure, shapes and dtypes; usually a call of a jitted function. Data
            that are spread over several processes must be arguments of that function: JAX refuses them as constants.
        state: the state before the first segment, a pytree of arrays. On resuming it gives structure and places.
        num_segments: how many there are in all.
        path: of the file.
        on_segment: called in every process with the number of segments done and the state.

    Returns:
        The state after the last segment.

    Warns:
        UserWarning: if the newest state is damaged and the one before it is taken.

    Raises:
        TypeError: if `segment` is not callable.
        ValueError: if `num_segments` is not positive, or `path` does not end in .npz.
        StoreDamaged: if neither file can be read, or they hold another state.

    Example:
        ```python
        steps = jax.jit(hundred_steps)
        final = dj.distributed.run_segments(lambda s: steps(s, x, y), (params, optimizer_state), 50, "run.npz")
        ```
    """
    check_that(callable(segment), "segment", "be a function `segment(state)`", found(segment), TypeError)
    check_count(num_segments, "num_segments")
    path = pathlib.Path(path)
    check_that(path.suffix == ".npz", "path", "end in .npz", f"found {path}")
    done, state = _restored(path, state)
    for n in range(done, num_segments):
        state = jax.block_until_ready(segment(state))
        values = jax.tree_util.tree_map(on_host, state)
        if jax.process_index() == 0:
            save_state(path, values, {"segments_done": n + 1})
        _together(f"dynjax segment {n}")
        if on_segment is not None:
            on_segment(n + 1, state)
    return state


def _restored(path: pathlib.Path, state: PyTree) -> tuple[int, PyTree]:
    """The newest state that can be read, in the places of `state`; `state` itself where there is none."""
    values, meta, complaints = load_newest(path, state, {})
    if meta is not None:
        if complaints:
            warnings.warn(f"{complaints[0]} Going on from the state before it.", stacklevel=3)
        return int(meta["segments_done"]), jax.tree_util.tree_map(placed_like, values, state)
    if complaints:
        raise StoreDamaged(complaints[0])
    return 0, state


def _together(name: str) -> None:
    """Nobody goes on before the file is there."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)
