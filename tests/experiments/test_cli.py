"""The command line as a user meets it: exit codes, one clear sentence for each mistake, nothing half-written."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import dynjax as dj
from dynjax.cli import main

TINY = ["--task", "chebyshev", "--widths", "8", "--num-steps", "40", "--density-probes", "1", "--density-order", "6"]
RATES = ["--learning-rates", "0.05", "0.1", "0.2", "0.3", "0.4", "0.5"]


def run(*arguments):
    """`main`, with tyro's SystemExit as its exit code."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code


def edge(out, *more, rates=RATES):
    return run("edge", *TINY, *rates, "--out", out, "--workers", 0, "--block", 2, *more)


def arrays(path):
    dataset = dj.sweep.open(path)
    return {name: np.asarray(dataset[name].values) for name in dataset.variables}


def assert_equal_stores(first, second):
    left, right = arrays(first), arrays(second)
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One undisturbed run of six lanes in three blocks."""
    path = tmp_path_factory.mktemp("whole") / "run.zarr"
    assert edge(path) == 0
    return path


def test_the_store_holds_what_is_promised(whole):
    dataset = dj.sweep.open(whole)
    assert dataset.loss.dims == ("lane", "step")
    assert dataset.sharpness.dims == dataset.edge_ratio.dims == ("lane", "reading")
    assert dataset.status.dims == dataset.threshold.dims == ("lane",)
    assert {"learning_rate", "seed", "optimizer"} <= set(dataset.coords)
    np.testing.assert_allclose(dataset.threshold, 2 / dataset.learning_rate, rtol=1e-5)
    np.testing.assert_allclose(dataset.edge_ratio, dataset.sharpness / dataset.threshold, rtol=1e-5)
    assert set(dataset.status.values.tolist()) == {int(dj.Status.OK)}
    assert np.all(np.isfinite(dataset.density_nodes))


def test_shards_give_the_bits_of_the_whole(whole, tmp_path):
    out = tmp_path / "run.zarr"
    assert edge(out, "--shard", "0/2") == 0
    assert np.isnan(dj.sweep.open(out).loss.values).any()
    assert edge(out, "--shard", "1/2") == 0
    assert_equal_stores(whole, out)


def test_a_run_that_ran_out_of_time_resumes_to_the_same_bits(whole, tmp_path):
    out = tmp_path / "run.zarr"
    assert edge(out, "--time-budget", 1e-6) == 75
    assert edge(out) == 0
    assert_equal_stores(whole, out)


def test_a_diverging_lane_is_reported_and_leaves_its_neighbours_alone(whole, tmp_path, capsys):
    out = tmp_path / "run.zarr"
    rates = ["--learning-rates", "0.05", "1000", "0.2", "0.3", "0.4", "0.5"]
    assert edge(out, rates=rates) == 0
    assert "diverged at step" in capsys.readouterr().out
    left, right = arrays(whole), arrays(out)
    for lane in (0, 2, 3, 4, 5):
        for name in ("loss", "sharpness", "edge_ratio", "density_nodes"):
            np.testing.assert_array_equal(left[name][lane], right[name][lane])
    assert right["status"][1] in (int(dj.Status.DIVERGED), int(dj.Status.NONFINITE))
    stop = right["stop_step"][1]
    assert np.all(np.isnan(right["loss"][1, stop:]))
    assert np.all(np.isfinite(right["loss"][1, :stop]))


def test_another_configuration_is_refused_with_the_difference(whole, capsys):
    before = sorted(str(p) for p in whole.rglob("*"))
    assert edge(whole, "--activation", "relu") == 65
    message = capsys.readouterr().err
    assert "activation" in message
    assert "tanh" in message
    assert "relu" in message
    assert sorted(str(p) for p in whole.rglob("*")) == before


def test_a_flipped_bit_is_found_and_repaired(whole, tmp_path, capsys):
    out = tmp_path / "run.zarr"
    assert edge(out) == 0
    chunk = max((out / "loss" / "c").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    damaged = bytearray(chunk.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    chunk.write_bytes(damaged)
    assert run("verify", out) == 65
    assert "loss" in capsys.readouterr().out
    assert run("report", out) == 65
    assert run("verify", out, "--repair") == 0
    assert_equal_stores(whole, out)


def test_the_report_is_one_file_without_links(whole, tmp_path):
    page = tmp_path / "page.html"
    assert run("report", whole, "--out", page) == 0
    text = page.read_text()
    assert "Edge of stability" in text
    assert 'src="http' not in text
    assert 'href="http' not in text


def test_a_configuration_file_gives_the_same_run(whole, tmp_path, capsys):
    assert edge(tmp_path / "none.zarr", "--print-config") == 0
    text = capsys.readouterr().out
    config = tmp_path / "run.toml"
    config.write_text(text)
    out = tmp_path / "run.zarr"
    assert run("edge", "--config", config, "--out", out, "--workers", 0, "--block", 2) == 0
    assert_equal_stores(whole, out)
    assert not (tmp_path / "none.zarr").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "usage"),
        (["edgee"], "Perhaps you meant `edge`"),
        (["edge", "--learning-rate", "0.1"], "learning-rates"),
        (["edge", "--learning-rates", "fast"], "learning-rates"),
        (["edge", "--learning-rates", "-1"], "positive"),
        (["edge", "--optimizer", "lbfgs"], "optimizer"),
        (["edge", "--task", "no_such_file.npz"], "no file"),
        (["edge", "--task", "chebyshev", "--loss", "cross-entropy"], "regression"),
        (["edge", "--batch-size", "100000"], "number of samples 500"),
        (["edge", "--shard", "2/2"], "0 <= k < n"),
        (["edge", "--shard", "half"], "k/n"),
        (["edge", "--workers", "-1"], "workers"),
        (["edge", "--require", "tpu"], "asks for a tpu, but JAX found"),
        (["edge", "--require", "abacus"], "abacus"),
        (["edge", "--hang-timeout", "0"], "hang_timeout"),
        (["edge", "--config", "missing.toml"], "missing.toml"),
        (["report"], "store"),
    ],
)
def test_wrong_arguments_give_exit_code_2_and_write_nothing(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    printed = capsys.readouterr()
    assert words in printed.out + printed.err
    assert "Traceback" not in printed.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["report", "verify"])
def test_what_is_no_store_is_refused(command, tmp_path, capsys):
    assert run(command, tmp_path / "nothing.zarr") == 65
    assert "nothing.zarr" in capsys.readouterr().err


def test_bad_data_files_are_named(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    good = tmp_path / "good.npz"
    np.savez(good, x=np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32), y=np.arange(30) % 3)
    truncated = tmp_path / "cut.npz"
    truncated.write_bytes(good.read_bytes()[:200])
    missing = tmp_path / "nan.npz"
    np.savez(missing, x=np.full((30, 4), np.nan, np.float32), y=np.arange(30) % 3)
    for path in (truncated, missing):
        assert run("edge", "--task", path, "--out", tmp_path / "out.zarr", "--workers", 0) == 2
        assert path.name in capsys.readouterr().err
        assert not (tmp_path / "out.zarr").exists()
    out = tmp_path / "good.zarr"
    small = ["--num-steps", "4", "--learning-rates", "0.1", "--density-probes", "0", "--widths", "5"]
    assert run("edge", "--task", good, *small, "--batch-size", 10, "--out", out, "--workers", 0) == 0
    dataset = dj.sweep.open(out)
    assert np.all(np.isfinite(dataset.batch_sharpness))
    assert dataset.attrs["data_hash"]
    # other data under the same name are another configuration
    np.savez(good, x=np.ones((30, 4), np.float32), y=np.arange(30) % 3)
    assert run("edge", "--task", good, *small, "--batch-size", 10, "--out", out, "--workers", 0) == 65


def test_a_block_that_does_not_fit_is_refused_before_a_store_is_made(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("DYNJAX_MEMORY_LIMIT", str(2**16))
    assert run("edge", *TINY, *RATES, "--block", 2, "--out", tmp_path / "run.zarr", "--workers", 0) == 2
    printed = capsys.readouterr()
    assert "`block` must leave room on the device" in printed.err
    assert "Traceback" not in printed.err
    assert list(tmp_path.iterdir()) == []


def test_doctor_checks_a_product(capsys):
    assert run("doctor") == 0
    text = capsys.readouterr().out
    for word in ("memory", "matrix products", "a sweep", "compile cache"):
        assert word in text
    assert "Hessian product" in text
    assert "good" in text


def test_worker_processes_give_the_bits_of_one_process(tmp_path):
    """Workers run single-threaded; so does the process they are compared with, by the flags of all tests."""
    environment = dict(os.environ)
    command = [sys.executable, "-m", "dynjax.cli", "edge", *TINY, *RATES, "--block", "2"]
    for name, workers in (("one", "0"), ("two", "2")):
        done = subprocess.run(
            [*command, "--out", str(tmp_path / f"{name}.zarr"), "--workers", workers],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
        )
        assert done.returncode == 0, done.stderr
    assert_equal_stores(tmp_path / "one.zarr", tmp_path / "two.zarr")


def test_one_compilation_per_sweep_whatever_the_learning_rates(tmp_path, monkeypatch):
    from dynjax.experiments.edge_of_stability import EdgeProgram

    traces = []
    original = EdgeProgram.segment

    def counted(self, state):
        traces.append(1)
        return original(self, state)

    monkeypatch.setattr(EdgeProgram, "segment", counted)
    assert edge(tmp_path / "run.zarr", "--seeds", "5", "6") == 0
    # six blocks of two lanes: one trace for shapes, one for the program
    assert len(traces) <= 2


@pytest.mark.slow
def test_twenty_kills_of_the_real_command_lose_nothing(tmp_path):
    """SIGKILL the whole process group at random moments; the store ends bit-equal. About three minutes."""
    import signal
    import time

    rng = np.random.default_rng(7)
    longer = ["--task", "chebyshev", "--num-steps", "4000", "--sharpness-every", "40", "--density-probes", "1"]
    command = [sys.executable, "-m", "dynjax.cli", "edge", *longer, *RATES, "--block", "2", "--out"]
    undisturbed = tmp_path / "undisturbed.zarr"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    start = time.monotonic()
    assert subprocess.run([*command, str(undisturbed)], **quiet, check=False).returncode == 0
    duration = time.monotonic() - start
    kills = finished = 0
    while kills < 20 or not finished:
        store = tmp_path / f"disturbed{finished}.zarr"
        process = subprocess.Popen([*command, str(store)], start_new_session=True, **quiet)
        try:
            longest = duration if kills < 20 else 10 * duration
            assert process.wait(timeout=rng.uniform(0.3, 1.0) * longest) == 0
            assert_equal_stores(undisturbed, store)
            finished += 1
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1


def test_interrupting_the_command_saves_and_resumes(tmp_path):
    import signal
    import time

    longer = ["--task", "chebyshev", "--num-steps", "20000", "--density-probes", "0", "--learning-rates", "0.1", "0.2"]
    out = tmp_path / "run.zarr"
    command = [sys.executable, "-m", "dynjax.cli", "edge", *longer, "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    counter = pathlib.Path(f"{out}.state") / "0.npz"
    deadline = time.monotonic() + 90
    while not counter.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 75, errors
    assert "same command" in errors
    done = int(dj.sweep.open(out).steps_done[0])
    assert 0 < done < json.loads(dj.sweep.open(out).attrs["identity"])["num_segments"]


def test_a_reader_that_goes_away_is_no_error():
    command = [sys.executable, "-m", "dynjax.cli", "memory", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait() == 141
    assert errors == b""


@pytest.mark.parametrize(
    "command", ["edge", "sgd", "bias", "memory", "delay-fit", "morse", "embed", "meanfield", "attention"]
)
def test_every_experiment_has_help_and_names_a_wrong_flag(command, capsys):
    assert run(command, "--help") == 0
    assert "type: ignore" not in capsys.readouterr().out
    assert run(command, "--no-such-flag", "1") == 2
