import contextlib
import errno
import json
import os
import pathlib
import shutil
import types

import numpy as np
import pytest
import toy

from dynjax import sweep
from dynjax.sweep import _create, _store


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "r.zarr"
    toy.run(path)
    return path


@pytest.fixture
def store(finished, tmp_path):
    """A copy of a finished store, to be damaged."""
    path = tmp_path / "s.zarr"
    shutil.copytree(finished, path)
    shutil.copytree(f"{finished}.state", f"{path}.state")
    return path


def same(path, other):
    one, two = sweep.open(path), sweep.open(other)
    return all(one[name].values.tobytes() == two[name].values.tobytes() for name in one.data_vars)


def flip(file: pathlib.Path, bit: int = 77):
    content = bytearray(file.read_bytes())
    bit %= 8 * len(content)
    content[bit // 8] ^= 1 << (bit % 8)
    file.write_bytes(content)


def snapshot(directory):
    return {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in directory.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"config": {"depth": 4, "name": "toy", "widths": [1, 2]}}, "config.depth: 3 in the store, 4 asked for"),
        ({"config": {"depth": 3, "name": "toy", "widths": [1, 5]}}, "config.widths[1]: 2 in the store, 5 asked for"),
        ({"rates": toy.LEARNING_RATES * 2}, "lanes.learning_rate.first[0]: 0.05 in the store, 0.1 asked for"),
        ({"block": 5}, "block: 2 in the store, 5 asked for"),
        ({"experiment": "other"}, 'experiment: "toy" in the store, "other" asked for'),
        ({"data_hash": "abc"}, 'data_hash: "" in the store, "abc" asked for'),
        ({"program": toy.Descent(num_segments=5)}, "num_segments: 4 in the store, 5 asked for"),
    ],
)
def test_another_configuration_is_refused_with_the_difference(store, tmp_path, changes, difference):
    before = snapshot(tmp_path)
    with pytest.raises(sweep.StoreMismatch) as caught:
        toy.run(store, **changes)
    assert difference in str(caught.value)
    assert caught.value.exit_code == 65
    assert isinstance(caught.value, ValueError)
    assert snapshot(tmp_path) == before


def test_the_block_of_a_store_is_kept_when_none_is_given(store):
    assert toy.run(store, block=None).status == "done"


@pytest.mark.parametrize("content", [b"{ not json", b"[1]", b"{}", b'{"attributes": {}}'])
def test_broken_metadata_is_refused(store, content):
    (store / "zarr.json").write_bytes(content)
    for action in (sweep.open, toy.run):
        with pytest.raises(sweep.StoreError, match=r"zarr\.json") as caught:
            action(store)
        assert caught.value.exit_code == 65


def test_a_newer_schema_is_refused(store):
    file = store / "zarr.json"
    metadata = json.loads(file.read_text())
    metadata["attributes"]["schema"] = 2
    file.write_text(json.dumps(metadata))
    for action in (sweep.open, sweep.verify, toy.run):
        with pytest.raises(sweep.StoreMismatch, match="schema 2"):
            action(store)


def test_edited_configuration_and_chunk_sizes_are_noticed(store):
    file = store / "loss" / "zarr.json"
    original = file.read_text()
    metadata = json.loads(original)
    metadata["chunk_grid"]["configuration"]["chunk_shape"][0] = 4  # a chunk shared by two blocks
    file.write_text(json.dumps(metadata))
    with pytest.raises(sweep.StoreDamaged, match="layout"):
        toy.run(store)
    assert not sweep.verify(store).ok
    file.write_text(original)
    file = store / "zarr.json"
    file.write_text(file.read_text().replace('\\"depth\\":3', '\\"depth\\":4'))
    with pytest.raises(sweep.StoreDamaged, match="hash"):
        sweep.open(store)


def test_a_path_without_a_store_is_refused(tmp_path):
    with pytest.raises(sweep.StoreMismatch, match="no store"):
        sweep.open(tmp_path / "nothing.zarr")
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "thesis.tex").write_text("x")
    with pytest.raises(sweep.StoreMismatch, match="not a sweep store"):
        toy.run(tmp_path / "results")
    assert (tmp_path / "results" / "thesis.tex").read_text() == "x"


@pytest.mark.parametrize(
    ("name", "chunk", "where", "damage"),
    [
        ("loss", "2/1", "lanes 4-5", "flip"),
        ("loss", "2/1", "lanes 4-5", "cut"),
        ("loss", "0/3", "lanes 0-1", "empty"),
        ("loss", "4/0", "lanes 8-9", "missing"),
        ("status", "0", "lanes 0-1", "flip"),
        ("density", "4/0", "lanes 8-9", "missing"),
        ("reading_value", "1/3/0", "lanes 2-3", "cut"),
    ],
)
def test_a_damaged_chunk_is_named_found_and_recomputed(store, finished, name, chunk, where, damage):
    file = store / name / "c" / chunk
    if damage == "flip":
        flip(file)
    elif damage == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: 0 if damage == "empty" else -3])
    with pytest.raises(sweep.StoreDamaged) as caught:
        sweep.open(store)
    assert all(text in str(caught.value) for text in (f"`{name}`", where, str(file)))
    report = sweep.verify(store)
    assert (report.ok, report.exit_code, report.blocks) == (False, 65, (int(chunk.split("/")[0]),))
    assert str(file) in str(report)
    sweep.reset_blocks(store, report.blocks)
    assert sweep.verify(store).ok
    assert toy.run(store).status == "done"
    assert same(store, finished)


def test_every_flipped_bit_of_a_chunk_is_detected(store):
    file = store / "loss" / "c" / "3" / "0"
    original = file.read_bytes()
    values = sweep.open(store).loss.values
    silent = 0
    for bit in range(0, 8 * len(original), 23):
        flip(file, bit)
        with contextlib.suppress(sweep.StoreDamaged):
            silent += sweep.open(store).loss.values.tobytes() != values.tobytes()
        file.write_bytes(original)
    assert silent == 0


@pytest.mark.parametrize("name", ["learning_rate", "optimizer", "step"])
def test_a_damaged_coordinate_is_found(store, name):
    (store / name / "c" / "0").unlink()
    report = sweep.verify(store)
    assert (report.ok, report.blocks) == (False, ())
    with pytest.raises(sweep.StoreDamaged, match=name):
        sweep.open(store)


def test_a_damaged_counter_is_repaired(store, finished):
    flip(store / "steps_done" / "c" / "3")
    assert sweep.verify(store).blocks == (3,)
    sweep.reset_blocks(store, [3])
    toy.run(store)
    assert same(store, finished)


def test_an_intact_store_verifies(finished):
    report = sweep.verify(finished)
    assert report.ok
    assert str(report).endswith("5 of 5 blocks finished, intact")


def test_reset_refuses_blocks_in_use_and_blocks_that_do_not_exist(store):
    with sweep._lock.block_lock(sweep.Store(store).lock_file(2)), pytest.raises(sweep.StoreError, match="Block 2"):
        sweep.reset_blocks(store, [2])
    with pytest.raises(ValueError, match=r"0\.\.4"):
        sweep.reset_blocks(store, [5])


def stop_after(number):
    stop, count = sweep.StopRequest(), []

    def progress(event):
        count.extend([1] if event["event"] == "segment" else [])
        if len(count) == number:
            stop.request("test")

    return {"stop": stop, "progress": progress}


@pytest.mark.parametrize("damage", ["flip", "cut", "missing"])
def test_a_damaged_state_falls_back_to_the_one_before(finished, tmp_path, damage):
    path = tmp_path / "s.zarr"
    toy.run(path, **stop_after(3))
    newest = sweep.Store(path).state_file(0)
    if damage == "flip":
        flip(newest, 8 * newest.stat().st_size // 3)
    elif damage == "cut":
        newest.write_bytes(newest.read_bytes()[:-100])
    else:
        newest.unlink()
    events = []
    result = toy.run(path, progress=events.append)
    assert len(result.notes) == 1
    assert "Going on from the state before it" in result.notes[0]
    assert str(newest) in result.notes[0]
    assert {"event": "note", "text": result.notes[0]} in events
    assert [event["segment"] for event in events if event.get("block") == 0] == [3, 4]
    assert same(path, finished)


def test_two_damaged_states_restart_the_block(finished, tmp_path):
    path = tmp_path / "s.zarr"
    toy.run(path, **stop_after(3))
    for file in (sweep.Store(path).state_directory).glob("0*.npz"):
        file.write_bytes(b"PK")
    result = toy.run(path)
    assert "The block starts again" in result.notes[0]
    assert same(path, finished)


def test_a_state_of_another_store_is_not_used(finished, tmp_path):
    path = tmp_path / "s.zarr"
    toy.run(path, **stop_after(1))
    shutil.rmtree(path)  # but not its states
    assert toy.run(path).status == "done"
    assert same(path, finished)


@pytest.mark.parametrize("point", range(1, 9))
def test_a_death_between_any_two_writes_is_harmless(finished, tmp_path, monkeypatch, point):
    """Raises a `BaseException`, which nothing catches, instead of the n-th write of the second segment."""

    class Death(BaseException):
        pass

    path, writes, replace = tmp_path / "s.zarr", [], os.replace

    def dying(source, target, **options):
        if ".npz" in str(target) or "/c/" in str(target):
            writes.append(str(target))
            if len(writes) == 7 + 6 + point:  # 7 coordinates; 4 records, state and counter of the first segment
                raise Death
        return replace(source, target, **options)

    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(Death):
        toy.run(path)
    monkeypatch.undo()
    assert sweep.verify(path).ok
    assert np.isnan(sweep.open(path).loss.values[2:]).all()
    assert toy.run(path).status == "done"
    assert same(path, finished)


@pytest.mark.parametrize("target", ["/loss/c/", "0.npz", "/steps_done/c/"])
def test_a_full_disc_is_one_line_and_finished_chunks_stay(finished, tmp_path, monkeypatch, target):
    path, hits, replace = tmp_path / "s.zarr", [], os.replace

    def full(source, destination, **options):
        if target in str(destination):
            hits.append(1)
            if len(hits) > 2:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(source, destination, **options)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(sweep.StorageFailed) as caught:
        toy.run(path)
    monkeypatch.undo()
    text = str(caught.value)
    assert caught.value.exit_code == 74
    assert isinstance(caught.value, OSError)
    assert "No space left on device" in text
    assert "bytes needed" in text
    assert str(tmp_path) in text
    assert "\n" not in text
    assert np.isfinite(sweep.open(path).loss.values[:2, :10]).all()
    assert not list(tmp_path.rglob("*.tmp"))
    assert toy.run(path).status == "done"
    assert same(path, finished)


def test_too_little_space_is_refused_before_anything_is_created(tmp_path, monkeypatch):
    monkeypatch.setattr(_create.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1000))
    with pytest.raises(sweep.StorageFailed, match=r"needs up to \d+ more bytes, but only 1000 are free"):
        toy.run(tmp_path / "s.zarr")
    assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(sweep.StorageFailed, match=r"s\.zarr"):
        toy.run(tmp_path / "file" / "s.zarr")


def test_the_first_creator_wins(finished, tmp_path, monkeypatch):
    """The second sees its rename fail, and goes on with the store of the first."""
    path, rename = tmp_path / "s.zarr", os.rename

    def late(source, target):
        shutil.copytree(finished, target)
        return rename(source, target)

    monkeypatch.setattr(_create.os, "rename", late)
    result = toy.run(path)
    assert result.status == "done"
    assert sweep.Store(path).attributes["store_id"] == sweep.Store(finished).attributes["store_id"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["s.zarr", "s.zarr.state"]


def test_another_version_is_noted(store, monkeypatch):
    metadata = json.loads((store / "zarr.json").read_text())
    versions = json.loads(metadata["attributes"]["versions"])
    metadata["attributes"]["versions"] = json.dumps({**versions, "jaxlib": "0.0.1"})
    (store / "zarr.json").write_text(json.dumps(metadata))
    result = toy.run(store)
    assert "jaxlib was 0.0.1" in result.notes[0]


def test_attributes_say_where_the_numbers_come_from(finished):
    attributes = sweep.open(finished).attrs
    assert json.loads(attributes["config"]) == {"depth": 3, "name": "toy", "widths": [1, 2]}
    assert {"jax", "jaxlib", "dynjax", "zarr"} <= set(json.loads(attributes["versions"]))
    assert (attributes["schema"], attributes["experiment"], attributes["block"]) == (1, "toy", 2)
    assert {"config_hash", "device_kind", "x64", "num_segments", "argv", "git_commit"} <= set(attributes)
    assert _store.Store(finished).num_lanes == 10
