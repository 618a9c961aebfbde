"""One advisory lock per block, freed by the kernel when its holder dies, so that none is ever stale."""

import contextlib
import errno
import os
import pathlib
import warnings
from collections.abc import Iterator

from ._errors import storing

_UNSUPPORTED = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


@contextlib.contextmanager
def block_lock(path: pathlib.Path) -> Iterator[bool]:
    """Hold the lock at `path`; yields False if another live process has it.

    Lock files are never removed: removing one that somebody just opened would let two processes in. Where the file
    system has no locks, the shard rule alone keeps processes apart, and a warning says so.
    """
    with storing(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        yield _try_lock(handle, path)
    finally:
        os.close(handle)


def _try_lock(handle: int, path: pathlib.Path) -> bool:
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        warnings.warn(f"{path.parent} has no file locks; run each block in one process only.", stacklevel=3)
    return True
