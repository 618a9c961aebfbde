"""One clear sentence for each thing that does not fit."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from dynjax import curvature as dc

X = np.ones((6, 4), np.float32)
Y = np.ones((6, 3), np.float32)
W = np.ones((4, 3), np.float32)


def predict(w, x):
    return x @ w


def loss(w, x, y):
    return jnp.mean((x @ w - y) ** 2)


CASES = {
    "not callable": (lambda: dc.hessian(3.0, W, X, Y), TypeError, "`loss` must be a function"),
    "vector loss": (lambda: dc.hessian(lambda w, x, y: (x @ w - y) ** 2, W, X, Y), TypeError, "one scalar"),
    "tuple loss": (lambda: dc.hessian(lambda w, x, y: (loss(w, x, y), w), W, X, Y), TypeError, "tuple of length 2"),
    "integer loss": (lambda: dc.hessian(lambda w: jnp.sum(w > 0), W), TypeError, "real floating-point"),
    "shapes": (lambda: dc.hessian(loss, W, X[:, :2], Y), TypeError, "`loss` must be callable as"),
    "missing argument": (lambda: dc.hessian(loss, W, X), TypeError, "`loss` must be callable as"),
    "no float leaf": (lambda: dc.hessian(lambda p: 1.0 * p.sum(), np.arange(3)), ValueError, "`params` must hold"),
    "complex leaf": (
        lambda: dc.hessian(lambda p: jnp.sum(jnp.abs(p) ** 2), np.ones(2, np.complex64)),
        TypeError,
        "real arrays",
    ),
    "empty filter": (lambda: dc.hessian(loss, W, X, Y, filter=lambda leaf: False), ValueError, "`filter` must select"),
    "filter of another shape": (lambda: dc.hessian(loss, W, X, Y, filter=[True, True]), ValueError, "`filter` must be"),
    "chunk of nothing": (
        lambda: dc.hessian(loss, W, X, Y, chunk_size=0),
        ValueError,
        "`chunk_size` must be at least 1",
    ),
    "chunk of a half": (
        lambda: dc.hessian(loss, W, X, Y, chunk_size=0.5),
        TypeError,
        "`chunk_size` must be an integer",
    ),
    "chunks of unlike data": (
        lambda: dc.hessian(lambda w, x, y: loss(w, x[:5], y), W, X, Y[:5], chunk_size=2),
        ValueError,
        "equally many samples",
    ),
    "chunks without data": (lambda: dc.hessian(lambda w: jnp.sum(w**2), W, chunk_size=2), ValueError, "no array"),
    "mode": (lambda: dc.hessian(loss, W, X, Y, mode="store"), ValueError, "`mode` must be"),
    "predict": (lambda: dc.gauss_newton(None, "mse", W, X, Y), TypeError, "`predict` must be a function"),
    "outputs of rank 3": (
        lambda: dc.gauss_newton(lambda w, x: (x @ w)[..., None], "mse", W, X, Y),
        ValueError,
        "outputs of shape (N, C) or (N,)",
    ),
    "two outputs": (
        lambda: dc.gauss_newton(lambda w, x: (x @ w, x), "mse", W, X, Y),
        TypeError,
        "one array of outputs",
    ),
    "rows": (lambda: dc.gauss_newton(lambda w, x: (x @ w)[:3], "mse", W, X, Y), ValueError, "one row for each"),
    "integer outputs": (
        lambda: dc.tangent_kernel(lambda w, x: jnp.ones(6, int), W, X),
        TypeError,
        "real floating-point",
    ),
    "predict fails": (lambda: dc.tangent_kernel(predict, W, X[:, :2]), TypeError, "`predict` must be callable as"),
    "loss name": (lambda: dc.gauss_newton(predict, "l1", W, X, Y), ValueError, "`loss` must be one of"),
    "loss type": (lambda: dc.gauss_newton(predict, 3, W, X, Y), TypeError, "`loss` must be one of"),
    "target shape": (
        lambda: dc.gauss_newton(predict, "mse", W, X, Y[:, :2]),
        ValueError,
        "`targets` must have the shape",
    ),
    "target rows": (lambda: dc.gauss_newton(predict, "mse", W, X, Y[:5]), ValueError, "`targets` must"),
    "float labels": (
        lambda: dc.gauss_newton(predict, "softmax_cross_entropy", W, X, Y[:, 0]),
        TypeError,
        "`targets` must be integer labels",
    ),
    "softmax of scalars": (
        lambda: dc.gauss_newton(lambda w, x: (x @ w)[:, 0], "softmax_cross_entropy", W, X, Y[:, 0]),
        ValueError,
        "shape (N, C)",
    ),
    "vector output loss": (
        lambda: dc.gauss_newton(predict, lambda f, y: (f - y) ** 2, W, X, Y),
        TypeError,
        "one real scalar",
    ),
    "list of inputs": (lambda: dc.tangent_kernel(predict, W, [1.0, 2.0]), TypeError, "`inputs` must hold arrays"),
    "scalar inputs": (lambda: dc.tangent_kernel(predict, W, np.float32(1)), ValueError, "`inputs` must hold arrays"),
    "no samples": (lambda: dc.tangent_kernel(predict, W, X[:0]), ValueError, "`inputs` must hold at least one"),
    "fisher kind": (lambda: dc.fisher(predict, "mse", W, X, kind="mc"), ValueError, "`kind` must be"),
    "fisher without targets": (
        lambda: dc.fisher(predict, "mse", W, X, kind="empirical"),
        ValueError,
        "`targets` must be",
    ),
    "fisher of a function": (
        lambda: dc.fisher(predict, lambda f, y: jnp.mean(f), W, X, Y),
        ValueError,
        "name of a likelihood",
    ),
    "covariance of unlike data": (
        lambda: dc.gradient_covariance(loss, W, X, Y[:5]),
        ValueError,
        "equally many samples",
    ),
    "scale shape": (
        lambda: dc.preconditioned(dc.hessian(loss, W, X, Y), np.ones((3, 4))),
        ValueError,
        "`scale` must be one number or",
    ),
    "scale sign": (
        lambda: dc.preconditioned(dc.hessian(loss, W, X, Y), 0.0 * W),
        ValueError,
        "`scale` must be positive",
    ),
    "not an operator": (lambda: dc.preconditioned(np.eye(3), np.ones(3)), TypeError, "lineax operator"),
    "not symmetric": (
        lambda: dc.preconditioned(lx.MatrixLinearOperator(jnp.eye(3)), np.ones(3)),
        ValueError,
        "`operator` must be symmetric",
    ),
    "batch too large": (
        lambda: dc.batch_sharpness(loss, W, X, Y, batch_size=7),
        ValueError,
        "`batch_size` must be between",
    ),
    "batch of a half": (lambda: dc.batch_sharpness(loss, W, X, Y, batch_size=0.5), TypeError, "`batch_size` must be"),
    "one batch": (
        lambda: dc.batch_sharpness(loss, W, X, Y, batch_size=2, num_batches=1, key=jax.random.key(0)),
        ValueError,
        "`num_batches` must be at least 2",
    ),
    "no key": (
        lambda: dc.batch_sharpness(loss, W, X, Y, batch_size=2, num_batches=9),
        ValueError,
        "`key` must be given",
    ),
    "too many batches": (
        lambda: dc.batch_sharpness(loss, W, np.ones((64, 4)), np.ones((64, 3)), batch_size=32),
        ValueError,
        "`num_batches` must be given",
    ),
    "indices outside": (
        lambda: dc.batch_quotients(loss, W, X, Y, np.array([[0, 6]])),
        ValueError,
        "`indices` must lie in 0 to 5",
    ),
    "float indices": (
        lambda: dc.batch_quotients(loss, W, X, Y, np.ones((2, 2))),
        ValueError,
        "`indices` must be a matrix",
    ),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_bad_input_is_named(name):
    call, error, message = CASES[name]
    with pytest.raises(error) as caught:
        call()
    assert message in str(caught.value)
    assert "Argument `" in str(caught.value)
