"""What an experiment hands to the sweep, and its three functions compiled once for a block of lanes."""

import abc
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Int8, PyTree

from .._core import Status, check_that


class AbstractProgram(eqx.Module):
    """The computation of one lane, cut into segments of equal shape.

    The methods see one lane; the sweep maps them over a block. Arrays held by the program (data, initial weights) are
    arguments of the compiled function and are shared by the lanes of a block.

    A lane keeps its own status in its state: after a non-finite value it freezes its state and returns NaN records, so
    that its neighbours never notice. Nothing in here may raise for one lane alone.
    """

    num_segments: eqx.AbstractVar[int]

    @abc.abstractmethod
    def init(self, lane: dict[str, Array]) -> PyTree:
        """The state of a lane before its first segment.

        Args:
            lane: the numeric coordinates of the lane, scalars.
        """

    @abc.abstractmethod
    def segment(self, state: PyTree) -> tuple[PyTree, dict[str, Array], Int8[Array, ""]]:
        """One segment of one lane.

        Args:
            state: as returned by `init` or by the previous segment; structure, shapes and dtypes never change.

        Returns:
            (state, records, status). A record whose leading axis is a slice of its first dimension is stored slice by
            slice; one that has the full shape of its dimensions (a scalar always has) is overwritten at each segment.
            `status` is a `Status` as int8; a lane still `RUNNING` after the last segment is stored as `OK`.
        """

    def final(self, state: PyTree) -> dict[str, Array]:
        """Records computed once, after the last segment; none unless overridden."""
        return {}

    def watched(self) -> tuple[str, ...] | None:
        """The records whose medians over the lanes progress shows; all of them unless overridden."""
        return None

    @abc.abstractmethod
    def dims(self) -> dict[str, tuple[str, ...]]:
        """The dimensions of every record after "lane", e.g. `{"loss": ("step",), "stop_step": ()}`."""

    @abc.abstractmethod
    def coords(self) -> dict[str, np.ndarray]:
        """The coordinate of every dimension named by `dims`.

        If the last slice reaches past the end of its coordinate, the surplus is not stored; such a program freezes its
        own state at the end.
        """


def _strong(tree: PyTree) -> PyTree:
    """Drop weak types: the state that comes out must be traced like the one that went in."""

    def strong(x: Any) -> Any:
        if not eqx.is_array(x) or jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return x
        return jax.lax.convert_element_type(x, x.dtype)

    return jax.tree_util.tree_map(strong, tree)


@eqx.filter_jit
def init_block(program: AbstractProgram, lanes: dict[str, Array]) -> PyTree:
    """`program.init` over a block."""
    init = eqx.filter_vmap(lambda program, lane: program.init(lane), in_axes=(None, eqx.if_array(0)))
    return _strong(init(program, lanes))


@eqx.filter_jit
def segment_block(program: AbstractProgram, state: PyTree) -> tuple[PyTree, dict[str, Array], Array]:
    """`program.segment` over a block; the one compilation that costs."""
    segment = eqx.filter_vmap(lambda program, state: program.segment(state), in_axes=(None, eqx.if_array(0)))
    return _strong(segment(program, state))


@eqx.filter_jit
def final_block(program: AbstractProgram, state: PyTree) -> dict[str, Array]:
    """`program.final` over a block."""
    final = eqx.filter_vmap(lambda program, state: program.final(state), in_axes=(None, eqx.if_array(0)))
    return _strong(final(program, state))


class Shapes(eqx.Module):
    """Shapes and dtypes of a block: of its state, the records of a segment, and the final records."""

    state: PyTree
    records: dict[str, jax.ShapeDtypeStruct]
    final: dict[str, jax.ShapeDtypeStruct]

    @property
    def state_bytes(self) -> int:
        """Bytes of the state of one block."""
        leaves = jax.tree_util.tree_leaves(self.state)
        return sum(leaf.size * leaf.dtype.itemsize for leaf in leaves if hasattr(leaf, "dtype"))


def shapes_of(program: AbstractProgram, lanes: dict[str, Array]) -> Shapes:
    """Follow the shapes through the program without computing anything.

    Raises:
        TypeError: if a segment changes the structure, a shape or a dtype of the state, or returns no int8 status.
    """
    check_that(
        isinstance(program, AbstractProgram),
        "program",
        "be an AbstractProgram",
        f"found a {type(program).__name__}",
        TypeError,
    )
    num_segments = program.num_segments
    check_that(
        isinstance(num_segments, int) and num_segments > 0,
        "num_segments",
        "be a positive int",
        f"found {num_segments!r}",
    )
    state = eqx.filter_eval_shape(init_block, program, lanes)
    after, records, status = eqx.filter_eval_shape(segment_block, program, state)
    _check_same(state, after)
    is_status = status.dtype == np.int8 and status.ndim == 1
    check_that(
        is_status,
        "program",
        "return an int8 scalar as status of a segment",
        f"found {status.dtype}{status.shape[1:]}",
        TypeError,
    )
    final = eqx.filter_eval_shape(final_block, program, state)
    return Shapes(state, records, final)


def _check_same(before: PyTree, after: PyTree) -> None:
    old_structure: Any = jax.tree_util.tree_structure(before)
    if old_structure != jax.tree_util.tree_structure(after):
        raise TypeError(
            "Argument `program` must return a state of the structure it was given, but `segment` changes it."
        )
    paths = jax.tree_util.tree_flatten_with_path(before)[0]
    for (path, old), new in zip(paths, jax.tree_util.tree_leaves(after), strict=True):
        same = not hasattr(old, "dtype") or (old.shape == new.shape and old.dtype == new.dtype)
        if not same:
            raise TypeError(
                f"Argument `program` must keep shapes and dtypes of the state, but `segment` turns "
                f"state{jax.tree_util.keystr(path)} from {old.dtype}{old.shape[1:]} into {new.dtype}{new.shape[1:]}."
            )


def alive(status: np.ndarray) -> np.ndarray:
    """Which lanes still compute or have finished well."""
    return (status == Status.RUNNING) | (status == Status.OK)
