"""Shared fixtures. Set before JAX is imported: CPU only, quick compilation, and a compile cache kept from run to run."""

import gc
import importlib.metadata
import os
import pathlib

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# One thread for each process, as in the workers of a sweep: the last bits depend on how many there are.
_FLAGS = ["--xla_cpu_multi_thread_eigen=false"]
# Most of the time of a test goes into compiling a program that runs once, so the programs are compiled plainly (measured: a
# quarter to a half of the time). DYNJAX_TEST_OPTIMIZED=1 compiles them as users do; the slow tests want that.
if os.environ.get("DYNJAX_TEST_OPTIMIZED", "0") in ("", "0"):
    _FLAGS += ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
    if importlib.metadata.version("jaxlib").startswith("0.10."):  # XLA dies of flags that it does not know
        _FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_FLAGS]).strip()
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

import jax
import pytest

# XLA maps every compiled program of a CPU into memory by itself. Linux grants 65,530 maps to a process and XLA dies with a
# segmentation fault at the next one, which thousands of programs in one test process reach.
_MAPS = pathlib.Path("/proc/self/maps")
_MAX_MAPS = 20_000


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """Drops the compiled programs between two files of tests once there are many."""
    yield
    if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > _MAX_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def x64():
    """Double precision inside the test, whatever the default."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def key():
    """A fixed random key."""
    return jax.random.key(20250705)


@pytest.fixture
def refuse(tmp_path, capsys, monkeypatch):
    """Assert that a command gives exit code 2 for these arguments, says one of these words and writes nothing."""
    from dynjax.cli import main

    def check(command, arguments, *words):
        monkeypatch.chdir(tmp_path)
        try:
            code = main([command, *arguments])
        except SystemExit as stop:
            code = stop.code
        assert code == 2
        printed = capsys.readouterr()
        assert any(word in printed.out + printed.err for word in words)
        assert "Traceback" not in printed.err
        assert list(tmp_path.iterdir()) == []

    return check
