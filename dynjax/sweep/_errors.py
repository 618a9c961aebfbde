"""What can go wrong in a sweep, each with the exit code that the command line returns for it."""

import contextlib
from collections.abc import Iterator
from os import PathLike

DONE, BAD_ARGUMENTS, BAD_STORE, LANE_FAILED, STORAGE_FAILED, STOPPED = 0, 2, 65, 70, 74, 75


class SweepError(Exception):
    """Base of the errors below; `exit_code` is what the command line returns."""

    exit_code = LANE_FAILED


class StoreError(SweepError, ValueError):
    """The store cannot be used as it is."""

    exit_code = BAD_STORE


class StoreMismatch(StoreError):
    """The path holds a store of another configuration, of a newer schema, or no store of ours at all."""


class StoreDamaged(StoreError):
    """A file of the store is missing or not what was written."""


class LaneError(SweepError, RuntimeError):
    """At least one lane could not be computed."""

    exit_code = LANE_FAILED


class BlockTooLarge(SweepError, ValueError):
    """A block of this size does not fit into the memory of the device. Nothing was computed."""

    exit_code = BAD_ARGUMENTS


class StorageFailed(SweepError, OSError):
    """The file system refused: full, read-only or gone. What was finished before is intact."""

    exit_code = STORAGE_FAILED


class Stopped(SweepError):
    """The run was asked to stop; the same command resumes it."""

    exit_code = STOPPED


@contextlib.contextmanager
def storing(path: "str | PathLike[str]", num_bytes: int = 0) -> Iterator[None]:
    """Turn an `OSError` of the block into one line that names the path and the bytes needed."""
    try:
        yield
    except StorageFailed:
        raise
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        need = f" ({num_bytes} bytes needed)" if num_bytes else ""
        raise StorageFailed(
            f"Could not write {path}{need}: {reason}. Finished segments are intact; run the same command to resume."
        ) from error
