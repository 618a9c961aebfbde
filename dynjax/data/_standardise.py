from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from .._core import check_that


def standardise(
    x: Shaped[np.ndarray, "num_samples ..."], *, scale: float = 1.0, floor: float | None = None, dtype: Any = np.float32
) -> Float[np.ndarray, "num_samples features"]:
    """One row for each sample, and every feature centred and scaled over the samples.

    x -> scale (x - mean(x)) / (std(x) + floor), computed in float64.

    Args:
        x: samples along the first axis; all other axes are flattened.
        scale: factor on the result; 1/sqrt(features) gives rows of norm about one.
        floor: added to the standard deviation of every feature, in the units of `x`, so that (almost) constant features
            stay small; one thousandth of the overall standard deviation by default.
        dtype: floating dtype of the result.

    Returns:
        An array of shape (samples, features).

    Raises:
        ValueError: if `x` has no samples or fewer than two axes, or `floor` is negative.
    """
    x = np.asarray(x)
    check_that(
        x.ndim >= 2 and x.size > 0, "x", "hold samples along its first axis and features", f"its shape is {x.shape}"
    )
    rows = x.reshape(len(x), -1).astype(np.float64)
    if floor is None:
        floor = 1e-3 * float(rows.std())
    check_that(floor >= 0, "floor", "not be negative", f"found {floor}")
    deviation = rows.std(axis=0) + floor
    deviation[deviation == 0] = 1.0
    return (scale * (rows - rows.mean(axis=0)) / deviation).astype(dtype)
