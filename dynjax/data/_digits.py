from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from ._standardise import standardise as _standardise
from ._subset import subset


def digits(
    n: int | None = None,
    *,
    seed: int | None = 0,
    balanced: bool = False,
    standardise: bool = True,
    scale: float = 1.0,
    one_hot: bool = False,
    dtype: Any = np.float32,
) -> tuple[Float[np.ndarray, "n 64"], Shaped[np.ndarray, "n ..."]]:
    """Real handwritten digits: the 1,797 images of 8 x 8 pixels that scikit-learn carries along.

    Args:
        n: how many images; all of them by default.
        seed: of the choice of images (see `subset`); `None` takes the first `n`.
        balanced: whether to take equally many of every digit.
        standardise: centre every pixel and divide it by its standard deviation plus 0.01 (pixels run from 0 to 16),
            over the images chosen. Otherwise pixels keep their values.
        scale: factor on the inputs; 1/8 gives standardised images a norm of about one.
        one_hot: targets as rows of zeros and a one instead of labels.
        dtype: floating dtype of inputs and of one-hot targets.

    Returns:
        (x, y): x of shape (n, 64); y int32 labels of shape (n,), or one-hot rows of shape (n, 10).

    Raises:
        ImportError: if scikit-learn is not installed; it comes with `dynjax[all]`.
        ValueError: if `n` is not between 1 and 1,797.

    Example:
        ```python
        x, y = dj.data.digits(500, balanced=True, scale=1 / 8, one_hot=True)
        ```

    References:
        E. Alpaydin, C. Kaynak (1998), Optical recognition of handwritten digits, UCI Machine Learning Repository (its
        test set).
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "The digits come with scikit-learn, which is not installed: pip install 'dynjax[all]'."
        ) from error
    x, y = load_digits(return_X_y=True)
    if n is not None:
        x, y, _ = subset(x, y, n, seed=seed, balanced=balanced)
    x = _standardise(x, scale=scale, floor=1e-2, dtype=dtype) if standardise else (scale * x).astype(dtype)
    return x, np.eye(10, dtype=dtype)[y] if one_hot else y.astype(np.int32)
