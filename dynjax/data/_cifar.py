"""CIFAR-10 in its two distributions: rows of bytes, and pickled batches read without unpickling."""

import pathlib
import struct
import warnings
from typing import Any

import numpy as np

from ._inert_pickle import ADVICE, InertPickle, as_bytes, is_call
from ._trust import damage_refused, read_file, refuse, trusted

_PIXELS = 3072
_ROW = 1 + _PIXELS


def load_cifar_binary(path: pathlib.Path, max_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """The binary version: rows of one label byte and 3,072 pixel bytes."""
    content = read_file(path, max_bytes // 4)
    if len(content) % _ROW:
        refuse(path, f"consist of rows of {_ROW} bytes (CIFAR-10 binary version)", f"has {len(content)} bytes")
    rows = np.frombuffer(content, np.uint8).reshape(-1, _ROW)
    if rows[:, 0].max() > 9:
        refuse(path, "hold CIFAR-10 labels from 0 to 9", f"has a label {rows[:, 0].max()}")
    return trusted(path, rows[:, 1:], rows[:, 0])


def looks_like_pickle(content: bytes) -> bool:
    """Whether the first bytes could open a pickled dictionary of any protocol, and the last one closes it."""
    framed = len(content) > 2 and content[0] == 0x80 and content[1] <= 5
    return framed or (content[:1] in (b"(", b"}") and content[-1:] == b".")


def load_cifar_pickle(path: pathlib.Path, max_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """A pickled batch: a dictionary with `data`, uint8 of shape (N, 3072), and `labels`, a list of N integers."""
    content = read_file(path, max_bytes // 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a string with a wrong escape is a damaged file, not a remark
        with damage_refused(
            path, "CIFAR pickle", struct.error, IndexError, KeyError, OverflowError, MemoryError, Warning, UnicodeError
        ):
            batch = InertPickle(path).read(content)
    batch = {_text(key): value for key, value in batch.items()} if isinstance(batch, dict) else {}
    labels = batch.get("labels", batch.get("fine_labels"))
    if "data" not in batch or not isinstance(labels, list):
        found = ", ".join(sorted(str(key)[:40] for key in batch)[:10]) or "no dictionary"
        refuse(path, "hold a dictionary with `data` and `labels`", f"holds {found}")
    if not all(type(label) is int and 0 <= label < 100 for label in labels):
        refuse(path, "hold labels that are integers from 0 to 99", "has others")
    return trusted(path, _pixels(path, batch["data"]), np.asarray(labels, np.int32))


def _text(key: str | bytes) -> str:
    return key if isinstance(key, str) else key.decode("latin-1")


def _pixels(path: pathlib.Path, value: Any) -> np.ndarray:
    """The array that `numpy.ndarray.__reduce__` describes: state = (version, shape, dtype, Fortran order, bytes)."""
    state = value.state if is_call(value, "_reconstruct") else None
    if not isinstance(state, tuple) or len(state) != 5:
        refuse(path, "hold `data` as a NumPy array pickled by protocol 0 to 4", f"does not. {ADVICE}")
    _, shape, dtype, fortran_order, content = state
    name = dtype.args[0] if is_call(dtype, "dtype") and isinstance(dtype.args, tuple) and dtype.args else None
    if is_call(name, "encode"):
        name = as_bytes(path, name).decode("latin-1")
    if name not in ("u1", b"u1", "|u1"):
        refuse(path, "hold `data` as unsigned bytes (u1)", "has another dtype")
    if not (isinstance(shape, tuple) and len(shape) == 2 and all(type(size) is int for size in shape)):
        refuse(path, f"hold `data` of shape (N, {_PIXELS})", "has another number of axes")
    pixels = as_bytes(path, content)
    if shape[1] != _PIXELS or shape[0] < 1 or shape[0] * _PIXELS != len(pixels):
        refuse(path, f"hold `data` of shape (N, {_PIXELS})", f"promises {shape} and holds {len(pixels)} bytes")
    return np.frombuffer(pixels, np.uint8).reshape(shape, order="F" if fortran_order is True else "C")
