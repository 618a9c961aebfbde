"""Blocks that do not fit into memory are refused before anything is computed or stored."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from dynjax import sweep
from dynjax.sweep import _memory

MIB = 2**20


class Hungry(toy.Descent):
    """A lane that needs a mebibyte of temporary memory: every step sorts as many numbers, of which all are asked for."""

    def segment(self, state):
        state, records, status = super().segment(state)
        numbers = jnp.sort(jnp.sin(state["lr"] * jnp.arange(MIB // 4, dtype=jnp.float32)))
        return state, {**records, "stop_step": records["stop_step"] + (jnp.dot(numbers, numbers[::-1]) > 1e30)}, status


def test_the_compiler_counts_what_a_block_needs():
    program = Hungry()
    bytes_of = lambda n: _memory._bytes_of(
        _memory.segment_block,
        program,
        _memory._blank_state(program, {k: jnp.asarray(v[:n]) for k, v in toy.lanes().items()}),
    )
    one, four = bytes_of(1), bytes_of(4)
    assert MIB <= one < 6 * MIB
    # In proportion to the lanes.
    assert four == pytest.approx(4 * one, rel=0.35)


def test_a_blank_state_has_the_shapes_of_a_real_one():
    program, lanes = toy.Descent(), {k: jnp.asarray(v[:2]) for k, v in toy.lanes().items()}
    blank, real = _memory._blank_state(program, lanes), sweep._program.init_block(program, lanes)
    shapes = lambda tree: jax.tree_util.tree_map(
        lambda leaf: (leaf.shape, leaf.dtype, getattr(leaf, "weak_type", None)), tree
    )
    assert shapes(blank) == shapes(real)


def test_a_block_that_is_too_large_is_refused_with_advice(tmp_path, monkeypatch):
    monkeypatch.setenv(_memory.LIMIT_VARIABLE, str(12 * MIB))
    path = tmp_path / "s.zarr"
    with pytest.raises(
        sweep.BlockTooLarge, match=r"`block` .* 8 lanes need about .* choose at most [24], in a new store"
    ) as e:
        toy.run(path, program=Hungry(), block=8)
    assert e.value.exit_code == 2
    assert not path.exists()
    # With the block that was advised the same memory is enough.
    advised = int(str(e.value).split("at most ")[1].split(",")[0])
    assert toy.run(path, program=Hungry(), block=advised).status == "done"


def test_blocks_that_nobody_chose_fit(tmp_path, monkeypatch):
    plenty = toy.run(tmp_path / "a.zarr", program=Hungry(), block=None)
    monkeypatch.setenv(_memory.LIMIT_VARIABLE, str(9 * MIB))
    scarce = toy.run(tmp_path / "b.zarr", program=Hungry(), block=None)
    assert plenty.notes == ()
    assert "Blocks of 2 lanes" in scarce.notes[0]
    first, second = sweep.open(tmp_path / "a.zarr"), sweep.open(tmp_path / "b.zarr")
    assert (first.attrs["block"], second.attrs["block"]) == (4, 2)
    np.testing.assert_allclose(first.loss, second.loss, rtol=1e-5)


def test_a_store_of_larger_blocks_is_left_alone(tmp_path, monkeypatch):
    path = tmp_path / "s.zarr"
    toy.run(path, program=Hungry(), block=5, time_budget=1e-9)
    monkeypatch.setenv(_memory.LIMIT_VARIABLE, str(4 * MIB))
    with pytest.raises(sweep.BlockTooLarge, match=r"in a new store|not even one lane"):
        toy.run(path, program=Hungry(), block=None)
    assert int(sweep.open(path).status.max()) == 0
    monkeypatch.delenv(_memory.LIMIT_VARIABLE)
    assert toy.run(path, program=Hungry(), block=None).status == "done"


def test_the_memory_of_the_machine_is_known():
    limit = _memory.memory_limit()
    assert limit is None or limit > 2**26
