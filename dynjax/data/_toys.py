from typing import Any

import numpy as np
from jaxtyping import Float

from .._core import check_that


def chebyshev(
    degree: int, num_points: int = 20, *, dtype: Any = np.float32
) -> tuple[Float[np.ndarray, "num_points 1"], Float[np.ndarray, "num_points 1"]]:
    """A Chebyshev polynomial to be fitted: y = T_k(x) on evenly spaced points of [-1, 1], end points included.

    Degrees 3 to 5 on 20 points are the smallest tasks with a clean edge of stability.

    Args:
        degree: k >= 0.
        num_points: at least two.
        dtype: floating dtype of the result.

    Returns:
        (x, y), both of shape (num_points, 1).

    Raises:
        ValueError: if `degree` is negative or there are fewer than two points.

    References:
        J. Cohen, S. Kaur, Y. Li, J. Z. Kolter, A. Talwalkar (2021), Gradient descent on neural networks typically
        occurs at the edge of stability, arXiv:2103.00065, appendix on the one-dimensional toy task.
    """
    check_that(degree >= 0, "degree", "not be negative", f"found {degree}")
    check_that(num_points >= 2, "num_points", "be at least 2", f"found {num_points}")
    x = np.linspace(-1.0, 1.0, num_points)[:, None]
    y = np.polynomial.chebyshev.chebval(x, [0.0] * degree + [1.0])
    return x.astype(dtype), y.astype(dtype)


def deep_linear(
    size: int = 50, *, seed: int = 0, dtype: Any = np.float32
) -> tuple[Float[np.ndarray, "size size"], Float[np.ndarray, "size size"]]:
    """A linear map to be learnt from whitened inputs: X = sqrt(size) Q with Q orthogonal, Y = X A^T, A standard normal.

    The rows of X are samples and X^T X / size = I, so that the squared loss of a linear network is the squared distance
    of its end-to-end matrix to A, up to a factor.

    Args:
        size: number of samples, inputs and outputs.
        seed: of Q (Haar distributed) and A.
        dtype: floating dtype of the result.

    Returns:
        (X, Y), both of shape (size, size).

    Raises:
        ValueError: if `size` is not positive.

    References:
        J. Cohen et al. (2021), as for `chebyshev`: there size 50, and a linear network of 20 layers.
    """
    check_that(size >= 1, "size", "be positive", f"found {size}")
    random = np.random.default_rng(seed)
    q, r = np.linalg.qr(random.standard_normal((size, size)))
    x = np.sqrt(size) * q * np.sign(np.diagonal(r))
    y = x @ random.standard_normal((size, size)).T
    return x.astype(dtype), y.astype(dtype)


def teacher(
    num_samples: int,
    in_size: int,
    out_size: int,
    width: int,
    *,
    seed: int = 0,
    noise: float = 0.0,
    dtype: Any = np.float32,
) -> tuple[Float[np.ndarray, "num_samples in_size"], Float[np.ndarray, "num_samples out_size"]]:
    """Data of a random teacher network with one hidden layer.

    y = W_2 tanh(W_1 x + b_1) + noise e with x, e standard normal, entries of W_1 and b_1 of variance 1/in_size and 1,
    and entries of W_2 of variance 1/width.

    Args:
        num_samples: how many samples.
        in_size: dimension of x.
        out_size: dimension of y.
        width: hidden units of the teacher.
        seed: of everything random. Inputs and teacher do not depend on `noise`.
        noise: standard deviation of the label noise, in the units of y.
        dtype: floating dtype of the result.

    Returns:
        (x, y) of shapes (num_samples, in_size) and (num_samples, out_size).

    Raises:
        ValueError: if a size is not positive or `noise` is negative.
    """
    sizes = {"num_samples": num_samples, "in_size": in_size, "out_size": out_size, "width": width}
    for name, size in sizes.items():
        check_that(size >= 1, name, "be positive", f"found {size}")
    check_that(noise >= 0, "noise", "not be negative", f"found {noise}")
    random = np.random.default_rng(seed)
    first = random.standard_normal((width, in_size)) / np.sqrt(in_size)
    bias = random.standard_normal(width)
    second = random.standard_normal((out_size, width)) / np.sqrt(width)
    x = random.standard_normal((num_samples, in_size))
    y = np.tanh(x @ first.T + bias) @ second.T
    y = y + noise * random.standard_normal(y.shape)
    return x.astype(dtype), y.astype(dtype)
