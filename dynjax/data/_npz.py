"""NumPy archives, unpacked within bounds and parsed here, because `numpy.load` allocates what headers promise."""

import io
import math
import pathlib
import struct
import tokenize
import warnings
import zipfile
import zlib

import numpy as np

from ._trust import check_promise, damage_refused, read_bounded, read_file, refuse, trusted

_KEYS = (
    ("x", "y"),
    ("X", "y"),
    ("X", "Y"),
    ("x_train", "y_train"),
    ("X_train", "y_train"),
    ("train_images", "train_labels"),
    ("images", "labels"),
    ("inputs", "targets"),
    ("data", "target"),
    ("data", "labels"),
)
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    struct.error,
    NotImplementedError,
    RuntimeError,
    OverflowError,
    LookupError,
    TypeError,
    SyntaxError,
    tokenize.TokenError,
    MemoryError,
)

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def load_npz(path: pathlib.Path, max_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and targets from the members x and y (or another known pair of names)."""
    content = read_file(path, max_bytes)
    with damage_refused(path, "npz", *_DAMAGE), zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        pair = next((pair for pair in _KEYS if members.keys() >= set(pair)), None)
        if pair is None:
            found = ", ".join(repr(name[:40]) for name in sorted(members)[:10]) or "nothing"
            refuse(path, "hold arrays named x and y (or x_train and y_train)", f"holds {found}")
        x, y = (_array(path, archive, members[name], max_bytes) for name in pair)
    return trusted(path, x, y)


def _array(path: pathlib.Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo, max_bytes: int) -> np.ndarray:
    # bzip2 and LZMA members, which NumPy never writes, unpack without a bound on each piece.
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & 1:
        refuse(path, "be written by numpy.savez or savez_compressed", f"compresses {info.filename!r} in another way")
    if info.file_size > max_bytes:
        refuse(path, f"hold arrays of at most {max_bytes} bytes (`max_bytes`)", f"promises {info.file_size}")
    with archive.open(info) as stream:
        return _npy(path, read_bounded(stream, path, max_bytes), info.filename, max_bytes)


def _npy(path: pathlib.Path, content: bytes, name: str, max_bytes: int) -> np.ndarray:
    stream = io.BytesIO(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy remarks on headers from Python 2 and on retired dtype names
        try:
            version = np.lib.format.read_magic(stream)
            if version not in _HEADERS:
                raise ValueError(f"npy version {version} is not supported")
            shape, fortran_order, dtype = _HEADERS[version](stream)
        except ValueError as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"Argument `path` must hold sound arrays, but {name!r} in {str(path)!r}: {reason}"
            ) from error
    if dtype.kind not in "biuf":
        what = "Python objects, which only an unsafe unpickling could read" if dtype.hasobject else f"dtype {dtype}"
        refuse(path, "hold real numbers", f"has {what} in {name!r}")
    if any(size < 0 for size in shape):
        refuse(path, "hold arrays of a possible shape", f"has a header that says {shape} in {name!r}")
    items, left = math.prod(shape), len(content) - stream.tell()
    check_promise(path, items, dtype.itemsize, max_bytes)
    if items * dtype.itemsize != left:
        refuse(path, f"hold the {items * dtype.itemsize} bytes that the header of {name!r} promises", f"holds {left}")
    if items == 0:
        return np.zeros(0, dtype)
    return np.frombuffer(content, dtype, offset=stream.tell()).reshape(shape, order="F" if fortran_order else "C")
