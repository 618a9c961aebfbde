"""What every loader does with a file before and after it looks inside: bounded reads, refusals, checked arrays."""

import gzip
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, NoReturn

import numpy as np

CHUNK = 1 << 20


def refuse(path: pathlib.Path, must: str, but: str) -> NoReturn:
    """Raise the ValueError of an untrusted file: "Argument `path` must ..., but FILE ..."."""
    raise ValueError(f"Argument `path` must {must}, but {str(path)!r} {but}.")


def read_file(path: pathlib.Path, max_bytes: int) -> bytes:
    """The bytes of a regular file, or a ValueError if there are none or more than `max_bytes`."""
    if not path.exists():
        raise FileNotFoundError(f"Argument `path` must name a file or directory, but {str(path)!r} does not exist.")
    if not path.is_file():
        refuse(path, "name a regular file or a directory", "is neither")
    size = path.stat().st_size
    if size == 0:
        refuse(path, "name a data file", "is empty (0 bytes)")
    if size > max_bytes:
        refuse(path, f"hold at most {max_bytes} bytes (`max_bytes`)", f"holds {size}")
    with path.open("rb") as stream:
        return read_bounded(stream, path, max_bytes)


def read_bounded(stream: IO[bytes] | gzip.GzipFile, path: pathlib.Path, max_bytes: int) -> bytes:
    """Read a stream to its end in small pieces, whatever it promised, and refuse it past `max_bytes`."""
    content = bytearray()
    while chunk := stream.read(CHUNK):
        content += chunk
        if len(content) > max_bytes:
            refuse(
                path, f"unpack to at most {max_bytes} bytes (`max_bytes`, or what its header says)", "unpacks to more"
            )
    return bytes(content)


@contextmanager
def damage_refused(path: pathlib.Path, what: str, *errors: type[BaseException]) -> Iterator[None]:
    """Turn the errors that a parser raises on damaged input into a refusal of the file."""
    try:
        yield
    except errors as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"Argument `path` must name a sound {what} file, but {str(path)!r} is damaged: {reason}."
        ) from error


def check_promise(path: pathlib.Path, items: int, itemsize: int, max_bytes: int) -> None:
    """Refuse a header whose array would need more than `max_bytes`, as stored or as float32."""
    size = items * max(itemsize, 4)
    if size > max_bytes:
        refuse(path, f"hold arrays of at most {max_bytes} bytes (`max_bytes`)", f"has a header that promises {size}")


def trusted(path: pathlib.Path, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(float32 inputs, int32 labels or float32 targets), or a refusal: no samples, other lengths, not finite."""
    if x.ndim < 1 or y.ndim < 1 or x.size == 0 or y.size == 0:
        refuse(path, "hold at least one sample", f"has inputs of shape {x.shape} and targets of shape {y.shape}")
    if len(x) != len(y):
        refuse(path, "hold as many targets as inputs", f"has {len(x)} inputs and {len(y)} targets")
    if x.ndim == 1:
        x = x[:, None]
    if y.ndim == 2 and y.shape[1] == 1 and y.dtype.kind in "biu":
        y = y[:, 0]
    labels = y.ndim == 1 and y.dtype.kind in "biu"
    return _finite(path, x, "inputs"), _integers(path, y) if labels else _finite(path, y, "targets")


def _finite(path: pathlib.Path, array: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        array = array.astype(np.float32)
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if bad:
        refuse(path, "hold finite numbers (in float32)", f"has {bad} of {array.size} {name} that are not")
    return array


def _integers(path: pathlib.Path, labels: np.ndarray) -> np.ndarray:
    bounds = np.iinfo(np.int32)
    if labels.dtype.kind != "b" and (int(labels.max()) > bounds.max or int(labels.min()) < bounds.min):
        refuse(path, "hold labels that fit in 32 bits", f"has labels from {labels.min()} to {labels.max()}")
    return labels.astype(np.int32)
