"""Few samples: the eigenpairs of a Gauss-Newton operator come from its small Gram matrix."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynjax import curvature, linalg
from dynjax.networks import MLP


def _operator(samples=6):
    model = MLP((4, 20, 3), key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (samples, 4))
    y = jnp.arange(samples) % 3
    predict = lambda model, x: jax.vmap(model)(x)
    return curvature.gauss_newton(predict, "softmax_cross_entropy", model, x, y)


@pytest.mark.parametrize("k", [1, 5, 12, 16])
def test_the_gram_route_agrees_with_the_dense_matrix(x64, k):
    """6 samples and 3 classes: 18 rows of rank 12; beyond the rank the eigenvalues are zero and the vectors still good."""
    operator = _operator()
    found = eqx.filter_jit(lambda op: linalg.eigsh(op, k))(operator)
    exact = np.linalg.eigvalsh(operator.as_matrix())[::-1][:k]
    np.testing.assert_allclose(found.values, exact, atol=1e-13)
    assert np.all(found.converged)
    assert np.all(found.residuals < 1e-12)
    assert int(found.num_products) == 18 + k
    flat = np.stack([np.concatenate([np.ravel(leaf[i]) for leaf in jax.tree.leaves(found.vectors)]) for i in range(k)])
    np.testing.assert_allclose(flat @ flat.T, np.eye(k), atol=1e-10)


def test_more_than_the_rows_or_the_other_end_go_to_lanczos(x64):
    operator = _operator()
    low = linalg.eigsh(operator, 2, which="smallest")
    np.testing.assert_allclose(low.values, 0, atol=1e-10)
    assert int(low.num_products) != 18 + 2


def test_the_gram_route_can_be_differentiated(x64):
    model = MLP((4, 30, 1), key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (5, 4))
    predict = lambda model, x: jax.vmap(model)(x)[:, 0]

    def top(scale, method):
        scaled = jax.tree.map(lambda p: scale * p, model)
        operator = curvature.gauss_newton(predict, "mse", scaled, x, jnp.zeros(5))
        return linalg.eigsh(operator, 1, method=method, tol=1e-12).values[0]

    by_gram, by_lanczos = (jax.grad(top)(1.0, method) for method in ("auto", "lanczos"))
    np.testing.assert_allclose(by_gram, by_lanczos, rtol=1e-8)
