import contextlib
import threading
import types

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy
import xarray as xr

from dynjax import sweep
from dynjax._core import Status
from dynjax.sweep import _run

RECORDS = ("status", "loss", "reading_value", "stop_step", "density", "steps_done")


def assert_bit_equal(one, other, names=RECORDS, lanes=slice(None)):
    for name in names:
        a, b = (data[name].values if name == "steps_done" else data[name].values[lanes] for data in (one, other))
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes(), name


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "r.zarr"
    assert toy.run(path).status == "done"
    return sweep.open(path)


def loop_reference(rate, seed):
    """The toy program as a plain loop over float64 NumPy, with the same noise."""
    key = jax.random.key(seed)
    curvature = np.linspace(0.5, 2.0, 6)
    x = np.asarray(jax.random.normal(jax.random.fold_in(key, 7), (6,)), np.float64)
    losses = []
    for n in range(20):
        x = x - rate * (curvature * x + 0.01 * np.asarray(jax.random.normal(jax.random.fold_in(key, n), (6,))))
        losses.append(0.5 * np.sum(curvature * x**2))
    return np.asarray(losses), np.cumsum(x)


def test_stored_lanes_agree_with_a_plain_loop(reference):
    for lane in (0, 4, 9):
        losses, density = loop_reference(toy.LEARNING_RATES[lane], lane % 3)
        np.testing.assert_allclose(reference.loss[lane], losses, rtol=2e-4, atol=1e-7)
        np.testing.assert_allclose(reference.density[lane], density, rtol=2e-4, atol=1e-5)


def test_plain_xarray_reads_the_same(reference, tmp_path):
    toy.run(tmp_path / "s.zarr")
    plain = xr.open_zarr(tmp_path / "s.zarr", consolidated=False)
    assert set(plain.coords) == set(reference.coords)
    assert plain.optimizer.values.tolist() == ["gd"] * 10
    assert_bit_equal(reference, plain)
    np.testing.assert_array_equal(plain.learning_rate, toy.LEARNING_RATES)


@pytest.mark.parametrize("shards", [2, 4])
def test_shards_are_bit_equal_to_one_process(reference, tmp_path, shards):
    for k in reversed(range(shards)):
        result = toy.run(tmp_path / "s.zarr", shard=(k, shards))
        assert result.status == "done"
        assert result.num_blocks == len(range(k, 5, shards))
    assert_bit_equal(reference, sweep.open(tmp_path / "s.zarr"))


def test_a_block_alone_is_bit_equal(reference, tmp_path):
    result = toy.run(tmp_path / "s.zarr", shard=(3, 5))
    assert (result.status, result.num_blocks) == ("done", 1)
    alone = sweep.open(tmp_path / "s.zarr")
    assert_bit_equal(reference, alone, RECORDS[:-1], slice(6, 8))
    assert alone.steps_done.values.tolist() == [0, 0, 0, 4, 0]


def test_unfinished_cells_are_filled(tmp_path):
    toy.run(tmp_path / "s.zarr", shard=(3, 5))
    for data in (sweep.open(tmp_path / "s.zarr"), xr.open_zarr(tmp_path / "s.zarr", consolidated=False)):
        others = [0, 1, 2, 3, 4, 5, 8, 9]
        assert np.isnan(data.loss.values[others]).all()
        assert np.isnan(data.density.values[others]).all()
        assert (data.status.values[others] == Status.RUNNING).all()
        assert (data.stop_step.values[others] == -1).all()
        assert np.isfinite(data.loss.values[6:8]).all()


def test_padding_is_computed_but_not_stored(tmp_path):
    rates = toy.LEARNING_RATES[:5]
    result = toy.run(tmp_path / "s.zarr", rates=rates, block=3)
    assert (result.num_blocks, result.lane_status) == (2, {"OK": 5})
    data = sweep.open(tmp_path / "s.zarr")
    assert data.sizes["lane"] == 5
    np.testing.assert_allclose(data.loss[4], loop_reference(rates[4], 1)[0], rtol=2e-4)


def test_one_trace_whatever_the_lanes_and_learning_rates(tmp_path):
    jax.clear_caches()
    toy.TRACES.clear()
    program = toy.Descent(num_segments=3, slice_steps=7)
    toy.run(tmp_path / "a.zarr", program=program)
    toy.run(tmp_path / "b.zarr", program=program, rates=np.linspace(0.1, 0.2, 5))
    other_data = eqx.tree_at(lambda p: p.curvature, program, program.curvature * 2)
    toy.run(tmp_path / "c.zarr", program=other_data)
    assert toy.TRACES == ["segment"]


def test_a_diverging_lane_is_marked_and_its_neighbours_never_notice(reference, tmp_path):
    rates = toy.LEARNING_RATES.copy()
    rates[4] = 1e3
    result = toy.run(tmp_path / "s.zarr", rates=rates)
    assert (result.status, result.exit_code) == ("done", 0)
    assert result.lane_status == {"NONFINITE": 1, "OK": 9}
    data = sweep.open(tmp_path / "s.zarr")
    stop = int(data.stop_step[4])
    assert data.status[4] == Status.NONFINITE
    assert 0 < stop < 20
    assert np.isfinite(data.loss[4, :stop]).all()
    assert np.isnan(data.loss[4, stop:]).all()
    assert_bit_equal(reference, data, RECORDS[:-1], [0, 1, 2, 3, 5, 6, 7, 8, 9])


def test_a_time_budget_stops_between_segments_and_the_next_run_resumes(reference, tmp_path, monkeypatch):
    clock = iter(np.arange(0.0, 1000.0, 1.0))
    monkeypatch.setattr(_run, "time", types.SimpleNamespace(monotonic=lambda: next(clock)))
    result = toy.run(tmp_path / "s.zarr", time_budget=12.5)
    monkeypatch.undo()
    assert (result.status, result.exit_code) == ("stopped", 75)
    assert "run the same command to resume" in str(result)
    done = sweep.open(tmp_path / "s.zarr").steps_done.values
    assert 0 < done.sum() < 20
    with pytest.raises(sweep.Stopped, match="time budget"):
        result.check()
    assert toy.run(tmp_path / "s.zarr").check().status == "done"
    assert_bit_equal(reference, sweep.open(tmp_path / "s.zarr"))


def test_a_stop_request_after_every_segment_changes_nothing(reference, tmp_path):
    for _ in range(20):
        stop = sweep.StopRequest()

        def progress(event, stop=stop):
            if event["event"] == "segment":
                stop.request("test")

        result = toy.run(tmp_path / "s.zarr", stop=stop, progress=progress)
        if result.status == "done":
            break
        assert result.exit_code == 75
    assert result.status == "done"
    assert_bit_equal(reference, sweep.open(tmp_path / "s.zarr"))


def test_a_finished_store_is_left_alone(tmp_path):
    toy.run(tmp_path / "s.zarr")
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}
    assert toy.run(tmp_path / "s.zarr").status == "done"
    assert before == {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}


def test_a_locked_block_is_skipped_and_the_result_says_so(tmp_path):
    store = toy.run(tmp_path / "s.zarr", shard=(4, 5)).path
    with sweep._lock.block_lock(sweep.Store(store).lock_file(1)) as mine:
        assert mine
        result = toy.run(store)
        assert (result.status, result.exit_code, result.blocks_done) == ("busy", 0, 4)
    assert toy.run(store).blocks_done == 5


def test_a_waiting_run_takes_over_a_block_when_its_holder_is_gone(reference, tmp_path):
    path = tmp_path / "s.zarr"
    toy.run(path, shard=(4, 5))
    holder = contextlib.ExitStack()
    holder.enter_context(sweep._lock.block_lock(sweep.Store(path).lock_file(1)))
    segments = []

    def progress(event):
        segments.extend([event["block"]] if event["event"] == "segment" else [])
        if len(segments) == 12:  # the other three blocks
            threading.Timer(0.5, holder.close).start()

    assert toy.run(path, wait_for_locks=True, progress=progress).status == "done"
    assert segments == [0] * 4 + [2] * 4 + [3] * 4 + [1] * 4
    assert_bit_equal(reference, sweep.open(path))


@pytest.mark.parametrize(
    ("message", "status"), [("RESOURCE_EXHAUSTED: out of memory", Status.OOM), ("INTERNAL: broken", Status.ERROR)]
)
def test_a_block_that_cannot_be_computed_is_marked_and_the_others_go_on(
    reference, tmp_path, monkeypatch, message, status
):
    calls = []
    compute = _run.segment_block

    def failing(program, state):
        calls.append(1)
        if len(calls) == 6:  # the second segment of the second block; shapes were followed elsewhere
            raise jax.errors.JaxRuntimeError(message)
        return compute(program, state)

    monkeypatch.setattr(_run, "segment_block", failing)
    result = toy.run(tmp_path / "s.zarr")
    assert (result.status, result.exit_code) == ("failed", 70)
    assert list(result.failed) == [1]
    assert message in result.failed[1]
    data = sweep.open(tmp_path / "s.zarr")
    assert (data.status[2:4] == status).all()
    assert_bit_equal(reference, data, RECORDS[:-1], [0, 1, 4, 5, 6, 7, 8, 9])
    with pytest.raises(sweep.LaneError):
        result.check()
    monkeypatch.undo()
    assert toy.run(tmp_path / "s.zarr").status == "done"
    assert_bit_equal(reference, sweep.open(tmp_path / "s.zarr"))


def test_a_last_slice_may_reach_past_the_end(tmp_path):
    class Counting(sweep.AbstractProgram):
        num_segments: int = eqx.field(static=True, default=3)

        def init(self, lane):
            return {"n": jnp.zeros((), jnp.int32), "a": lane["a"]}

        def segment(self, state):
            values = state["a"] + state["n"] + jnp.arange(4)
            return {"n": state["n"] + 4, "a": state["a"]}, {"count": values}, jnp.zeros((), jnp.int8)

        def dims(self):
            return {"count": ("step",)}

        def coords(self):
            return {"step": np.arange(10)}

    sweep.run(Counting(), {"a": np.asarray([0, 100, 200])}, None, tmp_path / "s.zarr", block=2)
    data = sweep.open(tmp_path / "s.zarr")
    np.testing.assert_array_equal(data["count"], np.asarray([0, 100, 200])[:, None] + np.arange(10))


def test_progress_events_count_every_segment_once(tmp_path):
    events = []
    toy.run(tmp_path / "s.zarr", progress=events.append)
    assert events[0]["event"] == "plan"
    segments = [(event["block"], event["segment"]) for event in events[1:]]
    assert segments == [(block, segment + 1) for block in range(5) for segment in range(4)]
    assert all(event["alive"] == 2 and np.isfinite(event["summary"]["loss"]) for event in events[1:])


def test_x64_is_part_of_the_configuration(tmp_path, x64):
    toy.run(tmp_path / "s.zarr")
    data = sweep.open(tmp_path / "s.zarr")
    assert data.loss.dtype == np.float64
    np.testing.assert_allclose(data.loss[4], loop_reference(toy.LEARNING_RATES[4], 1)[0], rtol=1e-12)
    with jax.enable_x64(False), pytest.raises(sweep.StoreMismatch, match="x64: 1 in the store, 0 asked for"):
        toy.run(tmp_path / "s.zarr")


class Bad(toy.Descent):
    what: str = eqx.field(static=True)

    def __init__(self, what):
        super().__init__()
        self.what = what

    def segment(self, state):
        state, records, status = super().segment(state)
        if self.what == "state":
            state = {**state, "x": state["x"].astype(jnp.float16)}
        if self.what == "structure":
            state = {name: leaf for name, leaf in state.items() if name != "key"}
        if self.what == "status":
            status = status.astype(jnp.int32)
        if self.what == "record":
            records = {**records, "more": status}
        if self.what == "slice":
            records = {**records, "loss": records["loss"][:3]}
        if self.what == "dtype":
            records = {**records, "loss": records["loss"].astype(jnp.bfloat16)}
        return state, records, status


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("state", "x'\\] from float32\\(6,\\) into float16"),
        ("structure", "structure"),
        ("status", "int8"),
        ("record", "more"),
        ("slice", "4 slices"),
        ("dtype", "convert"),
    ],
)
def test_a_program_that_does_not_fit_is_refused_before_anything_is_written(tmp_path, what, message):
    with pytest.raises((TypeError, ValueError), match=message):
        toy.run(tmp_path / "s.zarr", program=Bad(what))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block": 0}, "`block` must be a positive int"),
        ({"shard": (2, 2)}, "`shard`"),
        ({"rates": []}, "at least one lane"),
        ({"rates": ["a", "b"]}, "numbers"),
        ({"coords": {"seed": [1] * 10}}, "not repeat"),
        ({"coords": {"optimizer": ["gd"] * 3}}, "10 entries"),
        ({"config": {"f": len}}, "config.f"),
    ],
)
def test_bad_arguments_are_one_sentence(tmp_path, changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        toy.run(tmp_path / "s.zarr", **changes)


def test_a_seed_too_large_for_the_device_is_refused(tmp_path):
    with pytest.raises(ValueError, match="fit into int32"):
        sweep.run(toy.Descent(), {"learning_rate": [0.1], "seed": [2**40]}, None, tmp_path / "s.zarr")
