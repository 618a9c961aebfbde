from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped

from .._core import check_that


class Subset(NamedTuple):
    """Some samples of a data set, and where they came from: `x == full_x[indices]`, `y == full_y[indices]`."""

    x: Shaped[np.ndarray, "n ..."]
    y: Shaped[np.ndarray, "n ..."]
    indices: Int[np.ndarray, "n"]


def subset(x: Any, y: Any, n: int, *, seed: int | None = 0, balanced: bool = False) -> Subset:
    """Choose `n` samples without replacement.

    The same seed gives the same samples on every machine and NumPy version (only the raw stream of PCG64 is used, which
    NumPy keeps fixed), and the samples for a smaller `n` are among those for a larger one.

    Args:
        x: inputs, samples along the first axis.
        y: labels or targets, as many as `x`.
        n: how many to choose.
        seed: of the choice; `None` takes the first `n` (of every class, if `balanced`).
        balanced: take equally many of every class, up to one where `n` does not divide evenly. Needs integer labels of
            shape (samples,) or one-hot rows.

    Returns:
        `Subset(x, y, indices)`, in the order of the original; it unpacks like a tuple.

    Raises:
        ValueError: if lengths do not match, `n` is not in 1..samples, or a class has too few samples.

    Example:
        ```python
        x, y, indices = dj.data.subset(x, y, 500, seed=0, balanced=True)
        ```
    """
    x, y = np.asarray(x), np.asarray(y)
    check_that(x.ndim > 0 and y.ndim > 0, "x", "have samples along its first axis", "a scalar was found")
    check_that(len(x) == len(y), "y", f"have one entry for each of the {len(x)} samples", f"found {len(y)}")
    check_that(1 <= n <= len(x), "n", f"lie between 1 and the number of samples, {len(x)}", f"found {n}")
    order = np.arange(len(x)) if seed is None else np.argsort(np.random.PCG64(seed).random_raw(len(x)), kind="stable")
    if balanced:
        order = _round_robin(order, _labels(y))
        check_that(
            n <= len(order), "n", f"be at most {len(order)} with balanced classes", f"found {n}; a class runs out"
        )
    indices = np.sort(order[:n])
    return Subset(x[indices], y[indices], indices)


def _labels(y: np.ndarray) -> np.ndarray:
    if y.ndim == 1 and y.dtype.kind in "biu":
        return y
    one_hot = y.ndim == 2 and bool(np.all((y == 0) | (y == 1)) and np.all(y.sum(axis=1) == 1))
    check_that(one_hot, "y", "hold integer labels or one-hot rows for a balanced subset", f"found {y.dtype} {y.shape}")
    return np.argmax(y, axis=1)


def _round_robin(order: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Reorder so that every prefix is balanced: the first of every class, then the second of every class, ...

    Cut off where the smallest class is used up but for one more of each of the others.
    """
    labels = labels[order]
    rank = np.empty(len(order), int)
    smallest = len(order)
    for label in np.unique(labels):
        where = np.flatnonzero(labels == label)
        rank[where] = np.arange(len(where))
        smallest = min(smallest, len(where))
    turn = np.lexsort((labels, rank))
    return order[turn[rank[turn] <= smallest]] if smallest < len(order) else order
