"""The same answers on one device, on eight, and in two processes over loopback; and after the death of one of them."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynjax as dj

CHILD = pathlib.Path(__file__).with_name("child.py")
TIMEOUT = 240
CHILDREN = []


@pytest.fixture(scope="module", autouse=True)
def _nobody_stays():
    """Children of a test that failed do not go on."""
    yield
    for process in CHILDREN:
        if process.poll() is None:
            process.kill()
        process.communicate()


def start(*arguments):
    """A child process."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(CHILD.parents[2])}
    command = [sys.executable, str(CHILD), *map(str, arguments)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    CHILDREN.append(process)
    return process


def answer(process):
    out, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors[-2000:]
    return json.loads(out.strip().splitlines()[-1])


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def pair(*arguments):
    port = free_port()
    return [start("processes", port, 2, number, *arguments) for number in (0, 1)]


@pytest.fixture(scope="module")
def answers():
    """What one device, eight devices and two processes say."""
    one, eight, two = start("devices", 1), start("devices", 8), pair()
    return {"one": answer(one), "eight": answer(eight), "two": answer(two[0]), "other": answer(two[1])}


def test_eight_devices_and_two_processes_are_there(answers):
    assert [answers[name]["devices"] for name in ("one", "eight", "two", "other")] == [1, 8, 2, 2]


@pytest.mark.parametrize("name", ["hessian", "chunks", "gauss_newton", "density", "kernel", "r", "sweep"])
def test_every_partition_gives_the_same_numbers(answers, name):
    expected = answers["one"][name]
    for where in ("eight", "two", "other"):
        np.testing.assert_allclose(answers[where][name], expected, rtol=1e-10, atol=1e-12, err_msg=where)


def test_chunks_of_spread_samples_are_summed_and_never_sent(answers):
    """Every device holds its share of every chunk: sums over the devices are all that a product needs."""
    assert answers["eight"]["collectives"] == {key: ["all-reduce"] for key in ("hessian", "gauss_newton", "kernel")}


def test_a_kernel_of_two_thousand_rows_agrees_with_the_dense_one(answers):
    np.testing.assert_allclose(answers["eight"]["kernel"], answers["one"]["dense"], rtol=1e-10)


def test_a_run_goes_on_after_one_of_its_processes_was_killed(tmp_path):
    """The other one ends by itself; two new processes go on, and so does a single one, with the same result."""
    whole = start("devices", 1, tmp_path / "whole.npz")
    port, path = free_port(), tmp_path / "run.npz"
    survivor = start("processes", port, 2, 0, path)
    victim = start("processes", port, 2, 1, path, 2)
    assert victim.wait(timeout=TIMEOUT) == -signal.SIGKILL
    _, errors = survivor.communicate(timeout=60)  # within the heartbeat of 5 seconds, and not for ever
    assert survivor.returncode not in (0, None), errors[-500:]
    assert errors.strip(), "it must say why"
    first, second = (answer(process) for process in pair(path))
    expected = answer(whole)
    assert expected["first"] == 1
    assert first["first"] in (3, 4)  # the two or three segments that were kept are not done again
    for found in (first, second):
        np.testing.assert_allclose(found["trained"], expected["trained"], rtol=1e-10)
    again = answer(start("devices", 1, path))
    assert again["first"] is None
    np.testing.assert_allclose(again["trained"], expected["trained"], rtol=1e-10)


def test_a_damaged_state_falls_back_and_two_of_them_are_said(tmp_path):
    calls = []

    def segment(state):
        calls.append(1)
        return {**state, "x": 2 * state["x"], "key": jax.random.fold_in(state["key"], 1)}

    begin = {"x": jnp.ones(3), "key": jax.random.key(0)}
    path = tmp_path / "run.npz"
    whole = dj.distributed.run_segments(segment, begin, 4, path)
    np.testing.assert_array_equal(whole["x"], 16)
    assert len(calls) == 4
    path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(UserWarning, match="Going on from the state before it"):
        again = dj.distributed.run_segments(segment, begin, 4, path)
    assert len(calls) == 5
    np.testing.assert_array_equal(again["x"], 16)
    np.testing.assert_array_equal(jax.random.key_data(again["key"]), jax.random.key_data(whole["key"]))
    for file in (path, tmp_path / "run.prev.npz"):
        file.write_bytes(b"nothing")
    with pytest.raises(dj.sweep.StoreDamaged, match="cannot be used"):
        dj.distributed.run_segments(segment, begin, 4, path)


def test_bad_arguments_are_one_sentence(tmp_path):
    mesh = dj.distributed.data_mesh()
    with pytest.raises(ValueError, match="`data` must hold arrays with samples"):
        dj.distributed.shard_samples(jnp.asarray(1.0), mesh)
    with pytest.raises(ValueError, match="`devices` must name at least one"):
        dj.distributed.data_mesh([])
    with pytest.raises(ValueError, match="`coordinator` must be given together"):
        dj.distributed.initialize("localhost:1")
    with pytest.raises(ValueError, match="form host:port"):
        dj.distributed.initialize("localhost", 2, 0)
    with pytest.raises(ValueError, match=r"lie in \[0, 2\)"):
        dj.distributed.initialize("localhost:1", 2, 2)
    with pytest.raises(ValueError, match=r"`path` must end in \.npz"):
        dj.distributed.run_segments(lambda x: x, jnp.ones(2), 1, tmp_path / "state")
    with pytest.raises(TypeError, match="segment"):
        dj.distributed.run_segments(3, jnp.ones(2), 1, tmp_path / "state.npz")


def test_one_device_is_a_mesh_too():
    mesh = dj.distributed.data_mesh()
    tree = dj.distributed.replicate({"a": np.arange(3.0), "name": "x"}, mesh)
    assert tree["name"] == "x"
    assert isinstance(tree["a"], jax.Array)
    keys = dj.distributed.shard_samples(jax.random.split(jax.random.key(0), 2 * mesh.devices.size), mesh)
    np.testing.assert_array_equal(
        jax.random.key_data(keys), jax.random.key_data(jax.random.split(jax.random.key(0), 2 * mesh.devices.size))
    )
