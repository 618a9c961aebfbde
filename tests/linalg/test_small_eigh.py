import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynjax.linalg._jacobi import small_eigh


@pytest.mark.parametrize("n", [1, 2, 3, 10, 31, 60])
def test_eigenpairs_agree_with_dense(x64, n):
    a = np.random.default_rng(n).normal(size=(n, n))
    a = jnp.asarray(a + a.T)
    values, vectors = jax.jit(small_eigh)(a)
    np.testing.assert_allclose(jnp.sort(values), np.linalg.eigvalsh(a), atol=1e-13 * n)
    np.testing.assert_allclose(vectors @ vectors.T, jnp.eye(n), atol=1e-14)
    np.testing.assert_allclose(vectors @ a, values[:, None] * vectors, atol=1e-13 * n)


def test_float32_is_as_good_as_rounding():
    a = np.random.default_rng(0).normal(size=(8, 40, 40))
    a = (a + a.swapaxes(1, 2)).astype(np.float32)
    values, vectors = jax.jit(jax.vmap(small_eigh))(a)
    exact = np.linalg.eigvalsh(a.astype(np.float64))
    assert np.abs(np.sort(values, axis=1) - exact).max() < 4 * np.finfo(np.float32).eps * np.abs(exact).max()
    assert np.abs(np.einsum("bij,bkj->bik", vectors, vectors) - np.eye(40)).max() < 1e-6


def test_decoupled_rows_stay_decoupled(x64):
    """A live value of exactly zero and an empty row must not mix."""
    live = jnp.array([[1.0, 1.0], [1.0, 1.0]])
    a = jnp.zeros((7, 7)).at[2:4, 2:4].set(live)
    _, vectors = small_eigh(a)
    weight = jnp.sum(vectors[:, 2:4] ** 2, axis=1)
    np.testing.assert_array_equal(jnp.sort(jnp.round(weight, 12)), [0, 0, 0, 0, 0, 1, 1])
    assert int(jnp.sum(weight == 0)) == 5


def test_degenerate_and_non_finite_input_end():
    values, vectors = small_eigh(jnp.zeros((6, 6)))
    assert not values.any()
    np.testing.assert_array_equal(jnp.sort(jnp.abs(vectors), axis=1)[:, -1], 1)
    assert jnp.isnan(small_eigh(jnp.full((6, 6), jnp.nan))[0]).all()
