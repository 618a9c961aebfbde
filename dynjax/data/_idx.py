"""IDX, the format of MNIST: 0, 0, type, number of axes, big-endian lengths, values."""

import gzip
import io
import math
import pathlib
import struct
import zlib

import numpy as np

from ._trust import check_promise, damage_refused, read_bounded, read_file, refuse, trusted

_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_AXES = 8
_GZIP = b"\x1f\x8b"


def looks_like_idx(content: bytes) -> bool:
    """Whether the first bytes could open an IDX file, plain or compressed."""
    plain = len(content) >= 4 and content[:2] == b"\0\0" and content[2] in _TYPES and 1 <= content[3] <= _MAX_AXES
    return plain or content[:2] == _GZIP


def load_idx(path: pathlib.Path, max_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels, given the path of either."""
    images, labels = idx_pair(path)
    x, y = read_idx(images, max_bytes), read_idx(labels, max_bytes)
    if x.ndim < 2 or y.ndim != 1:
        refuse(
            images, "hold samples of at least one axis, and its labels file one axis", f"has {x.ndim}, labels {y.ndim}"
        )
    return trusted(images, x, y)


def idx_pair(path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The files of images and of labels side by side: `*images*idx3*` and `*labels*idx1*`, each maybe `.gz`."""
    name = path.name.removesuffix(".gz")
    if "images" in name:
        return path, _beside(path, name.replace("images", "labels").replace("idx3", "idx1"))
    if "labels" in name:
        return _beside(path, name.replace("labels", "images").replace("idx1", "idx3")), path
    return refuse(
        path,
        "have `images` or `labels` in its name if it is an IDX file, so that its partner can be found",
        "has neither",
    )


def _beside(path: pathlib.Path, partner: str) -> pathlib.Path:
    for candidate in (path.with_name(partner), path.with_name(partner + ".gz")):
        if candidate.exists():
            return candidate
    raise FileNotFoundError(
        f"Argument `path` must name an IDX file whose partner lies beside it, but {str(path.with_name(partner))!r} "
        "does not exist, nor with `.gz`."
    )


def read_idx(path: pathlib.Path, max_bytes: int) -> np.ndarray:
    """One array from one IDX file."""
    content = read_file(path, max_bytes)
    if content[:2] == _GZIP:
        with (
            damage_refused(path, "gzip", gzip.BadGzipFile, EOFError, zlib.error),
            gzip.GzipFile(fileobj=io.BytesIO(content)) as stream,
        ):
            head = _header(path, stream.read(4 + 4 * _MAX_AXES), max_bytes)
            stream.seek(0)
            content = read_bounded(stream, path, head[2] + math.prod(head[0]) * np.dtype(head[1]).itemsize)
    shape, dtype, start = _header(path, content, max_bytes)
    promised = math.prod(shape) * np.dtype(dtype).itemsize
    if len(content) - start != promised:
        refuse(
            path,
            f"hold the {promised} bytes that its header promises",
            f"holds {len(content) - start} after the header",
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape)


def _header(path: pathlib.Path, content: bytes, max_bytes: int) -> tuple[tuple[int, ...], str, int]:
    """(shape, dtype, where the values start) from the first bytes."""
    if not looks_like_idx(content[:4]) or content[:2] == _GZIP:
        refuse(path, "start with the IDX magic number 00 00 TYPE AXES", f"starts with {content[:4].hex(' ')}")
    dtype, axes = _TYPES[content[2]], content[3]
    start = 4 + 4 * axes
    if len(content) < start:
        refuse(path, f"hold an IDX header of {start} bytes", f"ends after {len(content)} bytes")
    shape = struct.unpack(f">{axes}I", content[4:start])
    check_promise(path, math.prod(shape), np.dtype(dtype).itemsize, max_bytes)
    return shape, dtype, start
