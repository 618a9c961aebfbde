"""Faults in any order: a state machine over a store, a real full disc, and a soak of kills.

`DYNJAX_NIGHTLY=1` with `-m slow` runs more of everything: 200 kills and a soak of ten minutes.
"""

import contextlib
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import hypothesis
import pytest
import toy
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dynjax import sweep

NIGHTLY = os.environ.get("DYNJAX_NIGHTLY", "0") not in ("", "0")
BLOCKS = 5


class _Death(BaseException):
    """Nothing catches it, as nothing catches SIGKILL."""


class _StopAfter:
    """A stop request that comes after some looks at it."""

    def __init__(self, looks):
        self.looks = looks

    @property
    def requested(self):
        self.looks -= 1
        return self.looks < 0


@contextlib.contextmanager
def dying_at_write(number):
    """The n-th rename of a file of the store ends the process, as far as it can tell."""
    replace, writes = os.replace, []

    def dying(source, target, **options):
        if ".npz" in str(target) or "/c/" in str(target):
            writes.append(target)
            if len(writes) == number:
                raise _Death
        return replace(source, target, **options)

    os.replace = dying
    try:
        yield
    finally:
        os.replace = replace


class Faults(RuleBasedStateMachine):
    """Whatever happens to a store, no number in it is ever wrong, and running it again completes it bit by bit."""

    reference = None

    @initialize()
    def begin(self):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        self.path = self.folder / "s.zarr"
        self.damaged = False

    @classmethod
    def truth(cls):
        if cls.reference is None:
            path = pathlib.Path(tempfile.mkdtemp()) / "r.zarr"
            toy.run(path)
            cls.reference = sweep.open(path).load()
            shutil.rmtree(path.parent)
        return cls.reference

    @precondition(lambda self: not self.damaged)
    @rule(looks=st.integers(0, 12), k=st.integers(0, 1))
    def run_until_asked_to_stop(self, looks, k):
        result = toy.run(self.path, shard=(k, 2), stop=_StopAfter(looks))
        assert result.status in ("stopped", "done")

    @precondition(lambda self: not self.damaged)
    @rule(number=st.integers(1, 60))
    def die_in_a_write(self, number):
        with contextlib.suppress(_Death), dying_at_write(number):
            toy.run(self.path)

    @precondition(lambda self: self.path.exists() and not self.damaged)
    @rule(block=st.integers(0, BLOCKS - 1), what=st.sampled_from(["cut", "flip", "remove"]), both=st.booleans())
    def damage_a_state(self, block, what, both):
        for name in [f"{block}.npz", *([f"{block}.prev.npz"] if both else [])]:
            file = pathlib.Path(f"{self.path}.state") / name
            if not file.exists():
                continue
            if what == "remove":
                file.unlink()
            else:
                content = bytearray(file.read_bytes())
                if what == "flip":
                    content[len(content) // 2] ^= 16
                file.write_bytes(content[: len(content) // 2] if what == "cut" else content)

    @precondition(lambda self: self.path.exists() and not self.damaged)
    @rule(data=st.data())
    def flip_a_bit_of_a_chunk(self, data):
        chunks = sorted(file for file in (self.path / "loss" / "c").rglob("*") if file.is_file())
        if not chunks:
            return
        file = data.draw(st.sampled_from(chunks))
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        report = sweep.verify(self.path)
        # A chunk beyond the counter was never promised, and is written again.
        self.damaged = not report.ok
        if self.damaged:
            with pytest.raises(sweep.StoreDamaged):
                sweep.open(self.path)

    @precondition(lambda self: self.damaged)
    @rule()
    def repair(self):
        sweep.reset_blocks(self.path, sweep.verify(self.path).blocks)
        self.damaged = False

    @invariant()
    def what_is_finished_is_right(self):
        if not hasattr(self, "path") or not self.path.exists() or self.damaged:
            return
        truth, steps = self.truth(), None
        with contextlib.suppress(sweep.StoreDamaged):  # a chunk that was flipped before it was promised
            steps = sweep.open(self.path)
        if steps is not None:
            for block, segments in enumerate(steps.steps_done.values):
                lanes = slice(2 * block, 2 * block + 2)
                found, expected = steps.loss.values[lanes, : 5 * segments], truth.loss.values[lanes, : 5 * segments]
                assert found.tobytes() == expected.tobytes()

    def teardown(self):
        if not hasattr(self, "path"):
            return
        if self.damaged:
            self.repair()
        assert toy.run(self.path).status == "done"
        report = sweep.verify(self.path)
        if not report.ok:
            sweep.reset_blocks(self.path, report.blocks)
            toy.run(self.path)
        data, truth = sweep.open(self.path), self.truth()
        for name in truth.data_vars:
            assert data[name].values.tobytes() == truth[name].values.tobytes(), name
        shutil.rmtree(self.folder)


TestFaults = Faults.TestCase
TestFaults.settings = hypothesis.settings(
    max_examples=200 if NIGHTLY else 12,
    stateful_step_count=12 if NIGHTLY else 7,
    deadline=None,
    derandomize=not NIGHTLY,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting needs root")
def test_a_disc_that_is_really_full(tmp_path):
    """A file system of two mebibytes: the run ends with code 74, and goes on once there is room."""
    mount = tmp_path / "small"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(mount)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("this machine does not let us mount")
    try:
        ballast = mount / "ballast"
        path = mount / "s.zarr"
        toy.run(path, time_budget=1e-9)
        with contextlib.suppress(OSError), ballast.open("wb") as file:
            while True:
                file.write(bytes(1024))
                file.flush()
        with pytest.raises(sweep.StorageFailed) as caught:
            toy.run(path)
        assert caught.value.exit_code == 74
        assert str(path) in str(caught.value)
        ballast.unlink()
        assert toy.run(path).status == "done"
        assert sweep.verify(path).ok
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False)


@pytest.mark.slow  # twenty seconds; ten minutes with DYNJAX_NIGHTLY=1
def test_a_soak_of_kills_loses_nothing(tmp_path):
    """Stores are begun, killed at random moments, finished and compared, again and again."""
    script, moments = str(pathlib.Path(toy.__file__)), random.Random(5)
    truth_path = tmp_path / "r.zarr"
    subprocess.run([sys.executable, script, str(truth_path)], check=True, capture_output=True)
    truth = sweep.open(truth_path).load()
    command = lambda path: [sys.executable, script, str(path), "--pause", "0.05"]
    begin = time.monotonic()
    subprocess.run(command(tmp_path / "whole.zarr"), check=True, capture_output=True)
    whole = time.monotonic() - begin  # a kill within this time meets a new run as it starts or as it computes
    end, stores, kills = time.monotonic() + (600 if NIGHTLY else 20), 0, 0
    while time.monotonic() < end or not stores:
        path = tmp_path / f"{stores}.zarr"
        for _ in range(moments.randint(1, 4)):
            process = subprocess.Popen(command(path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(moments.uniform(0.3, 0.9) * whole)
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                kills += 1
            process.wait()
        done = subprocess.run([sys.executable, script, str(path)], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        data = sweep.open(path)
        for name in truth.data_vars:
            assert data[name].values.tobytes() == truth[name].values.tobytes(), name
        assert sweep.verify(path).ok
        shutil.rmtree(path)
        shutil.rmtree(f"{path}.state", ignore_errors=True)
        stores += 1
    assert kills >= stores or stores == 1
