"""Several processes as one machine."""

import jax

from .._core import check_that

_HEARTBEAT = 10


def initialize(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    heartbeat: int = _HEARTBEAT,
) -> None:
    """Join the processes of one problem; call it before anything else of JAX.

    Every process runs the same program. If one dies the others end within about `heartbeat` seconds, with JAX's message and a
    non-zero exit code, and do not wait for ever: start them again, any number of them, and `run_segments` goes on.

    Args:
        coordinator: "host:port" of process 0. Under Slurm and Open MPI nothing need be given.
        num_processes: how many there are.
        process_id: which one this is, from 0.
        heartbeat: seconds of silence after which a process counts as dead; JAX's own default is 100.

    Raises:
        ValueError: if some but not all of the three are given, or they make no sense.
        RuntimeError: if JAX was used before, or the coordinator cannot be reached.
    """
    given = [value is not None for value in (coordinator, num_processes, process_id)]
    must = "be given together with `num_processes` and `process_id`, or none of the three"
    check_that(all(given) or not any(given), "coordinator", must, f"found {coordinator!r}")
    if coordinator is not None and num_processes is not None and process_id is not None:
        host, colon, port = coordinator.rpartition(":")
        good = bool(host and colon) and port.isdigit()
        check_that(good, "coordinator", "have the form host:port", f"found {coordinator!r}")
        check_that(num_processes > 0, "num_processes", "be positive", f"found {num_processes}")
        good = 0 <= process_id < num_processes
        check_that(good, "process_id", f"lie in [0, {num_processes})", f"found {process_id}")
    check_that(heartbeat > 0, "heartbeat", "be positive", f"found {heartbeat}")
    jax.distributed.initialize(coordinator, num_processes, process_id, heartbeat_timeout_seconds=heartbeat)
