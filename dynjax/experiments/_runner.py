"""Run any experiment of the registry into a store: in this process, or spread over worker processes on a CPU."""

import contextlib
import dataclasses
import json
import os
import pathlib
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from .. import sweep
from .._core import check_that
from ._registry import Experiment, find_experiment


@contextlib.contextmanager
def precision(config: Any) -> Iterator[None]:
    """The precision that a configuration asks for, inside the block only.

    Products of matrices then have it too: accelerators would round their factors to ten bits. Whoever has set JAX's
    `jax_default_matmul_precision` keeps it.
    """
    products = jax.config.jax_default_matmul_precision or "highest"  # type: ignore[attr-defined]
    with jax.enable_x64(config.precision == "float64"), jax.default_matmul_precision(products):
        yield


def run_experiment(
    experiment: Experiment,
    config: Any,
    store: str | os.PathLike[str],
    *,
    shard: tuple[int, int] = (0, 1),
    workers: int | None = None,
    block: int | None = None,
    time_budget: float | None = None,
    hang_timeout: float | None = None,
    argv: Sequence[str] | None = None,
    progress: Any = None,
) -> int:
    """Compute the unfinished lanes of an experiment into a store.

    On a CPU the blocks are spread over worker processes, one for each core and single-threaded: that uses the whole
    machine, and makes the numbers independent of how many cores there are. The store is made, and everything that can be
    refused is refused, before the first worker starts.

    Args:
        experiment: an entry of the registry.
        config: its configuration.
        store: path of the store; the same call resumes it.
        shard: (k, n): only the blocks with `block % n == k`.
        workers: worker processes; one for each core by default, 0 to compute in this process (the default elsewhere
            than on a CPU).
        block: lanes computed together; that of the store, 4 on a CPU or 32 elsewhere by default.
        time_budget: seconds after which to stop between segments.
        hang_timeout: seconds after which a segment counts as hanging; the process then says where it stands and ends with 75.
        argv: the command line, stored with the results.
        progress: None, True, or a callable that takes the events of the sweep.

    Returns:
        The exit code: 0, 70 if a lane could not be computed, 75 if stopped.

    Raises:
        ValueError: if the configuration cannot be run.
        SweepError: if the store cannot be used or written.
    """
    check_that(workers is None or workers >= 0, "workers", "be 0 or more", f"found {workers}")
    check_that(block is None or block > 0, "block", "be positive", f"found {block}")
    check_that(time_budget is None or time_budget > 0, "time_budget", "be positive", f"found {time_budget}")
    check_that(hang_timeout is None or hang_timeout > 0, "hang_timeout", "be positive", f"found {hang_timeout}")
    limits: dict[str, Any] = {"time_budget": time_budget, "hang_timeout": hang_timeout}
    with precision(config):
        arguments = _arguments(experiment, config, store, block, argv)
        if workers is None:
            spread = jax.default_backend() == "cpu" and threading.current_thread() is threading.main_thread()
            workers = len(sweep.usable_cores()) if spread else 0
        pending = _pending(sweep.prepare(**arguments), shard) if workers else 0
        if not pending:
            return _run_here(arguments, shard, limits, progress)
        flags = _worker_flags(shard, limits)
        command = [sys.executable, "-m", "dynjax.cli", "_worker", os.fspath(store), *flags]
        code = sweep.run_workers(command, num_workers=min(workers, pending), progress=progress)
    if code == sweep.Stopped.exit_code:
        print(f"dynjax: {store}: stopped between two segments; run the same command to resume.", file=sys.stderr)
    return code


def run_and_open(name: str, config: Any, store: str | os.PathLike[str], **options: Any) -> Any:
    """Run an experiment with the workers and the block of the registry, unless asked otherwise, and open its store.

    Args:
        name: of the experiment.
        config: its configuration.
        store: path of the store.
        **options: as for `run_experiment`.

    Returns:
        What `dynjax.sweep.open` returns.

    Raises:
        ValueError: if the configuration cannot be run.
        LaneError: if a lane could not be computed.
        Stopped: if the run was stopped before its end.
        SweepError: if the store cannot be used or written.
    """
    experiment = find_experiment(name)
    defaults = {"workers": experiment.workers, "block": experiment.block}
    code = run_experiment(experiment, config, store, **(defaults | options))
    if code == sweep.Stopped.exit_code:
        raise sweep.Stopped(f"The sweep in {store} was stopped; run it again to resume.")
    if code:
        raise sweep.LaneError(f"At least one lane of {store} could not be computed (exit code {code}).")
    return sweep.open(store)


def _arguments(
    experiment: Experiment, config: Any, store: Any, block: int | None, argv: Sequence[str] | None
) -> dict[str, Any]:
    """What `sweep.prepare` and `sweep.run` share."""
    program = experiment.program(config)
    return {
        "program": program,
        "lanes": experiment.lanes(config),
        "config": config,
        "store": store,
        "experiment": experiment.name,
        "block": block,
        "coords": experiment.labels(config),
        "data_hash": experiment.fingerprint(program),
        "argv": argv,
    }


def _pending(prepared: sweep.Sweep, shard: tuple[int, int]) -> int:
    """Blocks of the shard that are not finished."""
    done = prepared.store.all_steps_done()
    return sum(int(done[block]) < prepared.store.num_segments for block in range(shard[0], len(done), shard[1]))


def _run_here(arguments: dict[str, Any], shard: tuple[int, int], limits: dict[str, Any], progress: Any) -> int:
    with contextlib.ExitStack() as stack:
        stop = None
        if threading.current_thread() is threading.main_thread():
            stop = stack.enter_context(sweep.stop_on_signals())
        result = sweep.run(
            **arguments,
            shard=shard,
            **limits,
            stop=stop,
            progress=progress,
            wait_for_locks=sweep.worker_identity() is not None,
        )
    if result.status != "done" and sweep.worker_identity() is None:
        print(f"dynjax: {result}", file=sys.stderr)
    return result.exit_code


def _worker_flags(shard: tuple[int, int], limits: dict[str, Any]) -> list[str]:
    return [f"{shard[0]}/{shard[1]}", json.dumps(limits)]


def work(store: pathlib.Path, flags: Sequence[str]) -> int:
    """What a worker process does: open the store, find its experiment, and compute blocks that nobody else holds.

    Args:
        store: the store, made by the parent process.
        flags: the shard as "k/n", then the limits of time as JSON.

    Returns:
        The exit code.
    """
    k, n = (int(part) for part in flags[0].split("/"))
    return resume_experiment(store, shard=(k, n), workers=0, progress=True, **json.loads(flags[1]))


def resume_experiment(store: str | os.PathLike[str], **options: Any) -> int:
    """Run what is unfinished in a store, with the experiment and the configuration that the store names.

    Args:
        store: an existing store.
        **options: as for `run_experiment`.

    Returns:
        The exit code.

    Raises:
        SweepError: if the store cannot be used, or names an experiment that this version does not have.
    """
    experiment, config, argv = stored_experiment(store)
    return run_experiment(experiment, config, store, argv=argv, **options)


def stored_experiment(store: str | os.PathLike[str]) -> tuple[Experiment, Any, list[str]]:
    """The experiment, configuration and command line that a store was made with.

    Args:
        store: an existing store.

    Returns:
        (experiment, config, argv).

    Raises:
        SweepError: if the store cannot be used, or names an experiment or a field that this version does not have.
    """
    attributes = sweep.Store(store).attributes
    experiment = find_experiment(attributes["experiment"])
    values = json.loads(attributes["config"])
    known = {field.name for field in dataclasses.fields(experiment.config)}
    if set(values) - known:
        raise sweep.StoreMismatch(
            f"{store} has settings that this version does not know: {sorted(set(values) - known)}."
        )
    config = experiment.config(**{name: _tuple(value) for name, value in values.items()})
    return experiment, config, json.loads(attributes["argv"])


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
