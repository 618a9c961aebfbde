"""Real processes, real signals. The clean-up kills only children that a test started."""

import contextlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest
import toy

from dynjax import sweep

SCRIPT = str(pathlib.Path(toy.__file__))
RECORDS = ("status", "loss", "reading_value", "stop_step", "density", "steps_done")


def command(path, *options):
    return [sys.executable, SCRIPT, str(path), *options]


@contextlib.contextmanager
def child(path, *options, call=None):
    process = subprocess.Popen(
        command(path, *options) if call is None else call,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_line(process, text, number=1):
    """Read the output until a line was seen `number` times."""
    for line in process.stdout:
        number -= line.strip() == text
        if number == 0:
            return
    raise AssertionError("the child ended early")


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Computed by one worker, single-threaded like every child here."""
    path = tmp_path_factory.mktemp("reference") / "r.zarr"
    assert subprocess.run(command(path), capture_output=True, check=False, timeout=120).returncode == 0
    return sweep.open(path)


def assert_same(path, reference):
    data = sweep.open(path)
    for name in RECORDS:
        assert data[name].values.tobytes() == reference[name].values.tobytes(), name
    assert sweep.verify(path).ok


def kill_and_resume(path, kills, seed):
    """Kill at a random moment after the first segment of each run; at the end, run to completion."""
    moments = random.Random(seed)
    for _ in range(kills):
        with child(path, "--pause", "0.01") as process:
            with contextlib.suppress(AssertionError):
                wait_for_line(process, "plan" if moments.random() < 0.3 else "segment")
            time.sleep(moments.uniform(0, 0.06))
            process.kill()
    finished = subprocess.run(command(path), capture_output=True, check=False, timeout=120, text=True)
    assert finished.returncode == 0, finished.stderr


def test_three_kills_lose_nothing(reference, tmp_path):
    kill_and_resume(tmp_path / "s.zarr", 3, 1)
    assert_same(tmp_path / "s.zarr", reference)


@pytest.mark.slow
def test_twenty_kills_lose_nothing(reference, tmp_path):
    """Two hundred at night."""
    nightly = os.environ.get("DYNJAX_NIGHTLY", "0") not in ("", "0")
    kill_and_resume(tmp_path / "s.zarr", 200 if nightly else 20, 2)
    assert_same(tmp_path / "s.zarr", reference)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_the_segment_and_the_run_resumes(tmp_path, number):
    path = tmp_path / "s.zarr"
    with child(path, "--pause", "0.1") as process:
        wait_for_line(process, "segment", 2)
        process.send_signal(number)
        out = process.communicate(timeout=60)[0]
    assert process.returncode == 75
    assert f"({signal.Signals(number).name}); run the same command to resume" in out
    assert "stopped at block" in out
    done = int(sweep.open(path).steps_done.sum())
    assert 2 <= done < 20
    assert toy.run(path).status == "done"
    assert sweep.verify(path).ok


def test_a_hang_is_reported_and_ends_the_process_and_another_one_goes_on(reference, tmp_path):
    path = tmp_path / "s.zarr"
    with child(path, "--stuck", "--hang-timeout", "6") as process:
        out = process.communicate(timeout=90)[0]
    assert process.returncode == 75
    assert "nothing was heard for 6 s from segment 2 of block 0" in out
    assert "most recent call first" in out
    assert int(sweep.open(path).steps_done[0]) == 2
    assert subprocess.run(command(path), capture_output=True, check=False, timeout=120).returncode == 0
    assert_same(path, reference)


def test_a_watchdog_that_hears_something_is_quiet(tmp_path):
    assert toy.run(tmp_path / "s.zarr", hang_timeout=60.0).status == "done"
    with pytest.raises(ValueError, match="hang_timeout"):
        toy.run(tmp_path / "s.zarr", hang_timeout=-1.0)


def test_two_writers_on_one_store_lose_nothing_and_both_succeed(reference, tmp_path):
    path = tmp_path / "s.zarr"
    with child(path, "--pause", "0.01") as one, child(path, "--pause", "0.01") as two:
        outs = [process.communicate(timeout=120)[0] for process in (one, two)]
        assert [one.returncode, two.returncode] == [0, 0], outs
    assert_same(path, reference)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["s.zarr", "s.zarr.state"]


def test_two_workers_finish_a_sweep_and_report_its_progress(reference, tmp_path):
    events = []
    path = tmp_path / "s.zarr"
    assert sweep.run_workers(command(path, "--wait"), num_workers=2, progress=events.append) == 0
    assert_same(path, reference)
    assert "multi_thread_eigen=false" in sweep.open(path).attrs["xla_flags"]
    segments = sorted((event["block"], event["segment"]) for event in events if event["event"] == "segment")
    assert segments == [(block, segment + 1) for block in range(5) for segment in range(4)]


def test_the_worst_exit_code_of_the_workers_counts(capfd):
    script = "import os, sys, signal; k = os.environ['DYNJAX_WORKER'][0]; print('hello', k, flush=True); {}"
    cases = {
        "sys.exit(75 if k == '0' else 0)": (75, ""),
        "sys.exit(65 if k == '0' else 70)": (65, ""),
        "sys.exit(1 if k == '0' else 0)": (70, "Worker 0 failed with exit code 1"),
        "os.kill(os.getpid(), signal.SIGKILL) if k == '1' else None": (70, "Worker 1 was killed by SIGKILL"),
    }
    for code, (expected, text) in cases.items():
        assert sweep.run_workers([sys.executable, "-c", script.format(code)], num_workers=2) == expected
        out, err = capfd.readouterr()
        assert sorted(out.split()) == ["0", "1", "hello", "hello"]
        assert text in err


def test_workers_run_on_one_core_each(capfd):
    script = "import os; print(sorted(os.sched_getaffinity(0)), os.environ['OMP_NUM_THREADS'])"
    if not hasattr(os, "sched_getaffinity"):
        pytest.skip("no affinity on this system")
    # Pinning follows the start of the process, so give it a moment.
    assert sweep.run_workers([sys.executable, "-c", "import time; time.sleep(0.3); " + script], num_workers=2) == 0
    cores = sweep.usable_cores()
    expected = sorted(f"[{cores[k % len(cores)]}] 1" for k in range(2))
    assert sorted(capfd.readouterr().out.split("\n")[:2]) == expected


PARENT = (
    "import sys; from dynjax.sweep import run_workers as r; sys.exit(r(sys.argv[1:], num_workers=2, progress=print))"
)


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.05)


def test_a_signal_to_the_parent_stops_the_workers(tmp_path):
    path = tmp_path / "s.zarr"
    with child(path, call=[sys.executable, "-u", "-c", PARENT, *command(path, "--pause", "0.2", "--wait")]) as parent:
        for line in parent.stdout:
            if "'event': 'segment'" in line:
                break
        parent.send_signal(signal.SIGINT)
        parent.communicate(timeout=60)
    assert parent.returncode == 75
    assert 0 < int(sweep.open(path).steps_done.sum()) < 20
    assert toy.run(path).status == "done"
    assert sweep.verify(path).ok


def test_workers_stop_when_the_parent_is_killed(tmp_path):
    path = tmp_path / "s.zarr"
    store = f"{path}.state"
    with child(path, call=[sys.executable, "-u", "-c", PARENT, *command(path, "--pause", "0.5", "--wait")]) as parent:
        for line in parent.stdout:
            if "'event': 'segment'" in line:
                break
        parent.kill()
        parent.wait()
        # Both workers hold a lock while they live.
        locks = [pathlib.Path(store) / f"{block}.lock" for block in range(5)]

        def all_free():
            with contextlib.ExitStack() as stack:
                return all(stack.enter_context(sweep._lock.block_lock(lock)) for lock in locks)

        wait_until(all_free)
    done = int(sweep.open(path).steps_done.sum())
    assert 0 < done < 20
    time.sleep(1.0)
    assert int(sweep.open(path).steps_done.sum()) == done
    assert sweep.verify(path).ok
