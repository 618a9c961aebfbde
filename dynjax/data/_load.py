import os
import pathlib
import re

import numpy as np
from jaxtyping import Float, Shaped

from ._cifar import load_cifar_binary, load_cifar_pickle, looks_like_pickle
from ._idx import load_idx, looks_like_idx
from ._npz import load_npz
from ._trust import read_file, refuse, trusted

MAX_BYTES = 1 << 30


def load(
    path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES
) -> tuple[Float[np.ndarray, "num_samples ..."], Shaped[np.ndarray, "num_samples ..."]]:
    """Read inputs and labels from a file of yours, trusting nothing in it.

    Known formats, told apart by content and name:

    - npz with arrays `x` and `y` (or `x_train`/`y_train`, `images`/`labels`, `inputs`/`targets`, `data`/`target`);
    - IDX, the format of MNIST, plain or `.gz`: the path of the images, whose labels lie beside it under the usual name
      (`train-images-idx3-ubyte`, `train-labels-idx1-ubyte`);
    - CIFAR-10 binary version (rows of 3,073 bytes);
    - CIFAR-10 and -100 pickled batches of protocol 0 to 4, whose opcodes are followed without executing anything;
    - a directory with one of these: MNIST training files, or `data_batch_*` files, which are joined in order.

    Nothing is allocated because a header says so, and compressed files are unpacked only up to `max_bytes`. Values are
    not rescaled: see `standardise`.

    Args:
        path: file or directory.
        max_bytes: bound on the bytes of the file, of what it unpacks to, and of the float32 inputs; 1 GiB by default.

    Returns:
        (x, y): x float32, samples along the first axis, shaped as stored (CIFAR: rows of 3,072); y int32 labels of
        shape (samples,) if the file has integers of that shape, float32 targets otherwise.

    Raises:
        ValueError: naming file and sizes, for anything that is truncated, damaged, too large, inconsistent, empty, not
            finite, or of an unknown format.
        FileNotFoundError: if the file, or the partner of an IDX file, does not exist; other kinds of
            `OSError` if it cannot be read.

    Example:
        ```python
        x, y = dj.data.load("mnist/train-images-idx3-ubyte.gz")
        x = dj.data.standardise(x)            # (60000, 784)
        ```
    """
    path = pathlib.Path(path)
    if path.is_dir():
        return _load_directory(path, max_bytes)
    if path.suffix == ".npz":
        return load_npz(path, max_bytes)
    if path.suffix == ".bin":
        return load_cifar_binary(path, max_bytes)
    content = read_file(path, max_bytes)
    if content[:2] == b"PK":
        return load_npz(path, max_bytes)
    if looks_like_idx(content):
        return load_idx(path, max_bytes)
    if looks_like_pickle(content):
        return load_cifar_pickle(path, max_bytes)
    return refuse(
        path,
        "name an npz file, an IDX file, a CIFAR `.bin` file or a CIFAR pickle",
        f"({len(content)} bytes) starts with {content[:4].hex(' ')}, which is none of these",
    )


def _load_directory(path: pathlib.Path, max_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    names = sorted(entry.name for entry in path.iterdir() if entry.is_file())
    images = [name for name in names if "images" in name and "idx" in name]
    images = [name for name in images if name.startswith("train")] or images
    if images:
        return load(path / images[0], max_bytes=max_bytes)
    batches = [name for name in names if re.fullmatch(r"data_batch_\d+(\.bin)?", name)]
    if not batches:
        found = ", ".join(repr(name[:40]) for name in names[:10]) or "no file"
        return refuse(path, "hold MNIST files or CIFAR `data_batch_*` files if it is a directory", f"holds {found}")
    total = sum((path / name).stat().st_size for name in batches)
    if 4 * total > max_bytes:
        return refuse(path, f"hold batches of at most {max_bytes} bytes as float32 (`max_bytes`)", f"holds {4 * total}")
    parts = [load(path / name, max_bytes=max_bytes) for name in batches]
    return trusted(path, np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts]))
