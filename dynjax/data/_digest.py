import hashlib
from typing import Any

import numpy as np


def sha256(*arrays: Any) -> str:
    """SHA-256 of the shapes, dtypes and values of arrays, as 64 hexadecimal digits.

    Two calls agree exactly when the arrays agree bit for bit; memory order and byte order do not count.

    Args:
        *arrays: NumPy or JAX arrays, e.g. `sha256(x, y)`.

    Returns:
        The digest, to be stored beside results so that the data they were made from can be recognised.

    Raises:
        TypeError: if an array holds Python objects.

    Example:
        ```python
        x, y = dj.data.digits(500)
        dj.data.sha256(x, y)[:12]
        ```
    """
    digest = hashlib.sha256()
    for position, array in enumerate(arrays):
        array = np.asarray(array)
        if array.dtype.hasobject:
            raise TypeError(f"Argument `arrays[{position}]` must hold numbers, but its dtype is {array.dtype}.")
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(array.shape)
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
