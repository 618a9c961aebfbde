"""Pytree algebra against NumPy on the raveled vectors."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynjax._core import (
    Raveler,
    split_inexact,
    tree_add_scaled,
    tree_all_finite,
    tree_dot,
    tree_norm,
    tree_random,
    tree_scale,
    tree_structure,
)


def _trees(key):
    keys = jax.random.split(key, 4)
    x = {
        "a": jax.random.normal(keys[0], (3, 2)),
        "b": [jax.random.normal(keys[1], ()), jax.random.normal(keys[2], (4,))],
    }
    return x, tree_random(keys[3], tree_structure(x))


def test_algebra_agrees_with_flat_vectors(x64, key):
    x, y = _trees(key)
    raveler = Raveler(x)
    fx, fy = np.asarray(raveler.ravel(x)), np.asarray(raveler.ravel(y))
    np.testing.assert_allclose(tree_dot(x, y), fx @ fy, rtol=1e-14)
    np.testing.assert_allclose(tree_norm(x), np.linalg.norm(fx), rtol=1e-14)
    np.testing.assert_array_equal(raveler.ravel(tree_scale(2.0, x)), 2 * fx)
    np.testing.assert_allclose(raveler.ravel(tree_add_scaled(x, 0.5, y)), fx + 0.5 * fy, rtol=1e-15)


def test_ravel_and_unravel_are_inverse_and_restore_mixed_dtypes(x64):
    tree = {"h": jnp.arange(3, dtype=jnp.float32), "d": jnp.arange(4, dtype=jnp.float64).reshape(2, 2)}
    raveler = Raveler(tree)
    assert raveler.dtype == jnp.float64
    assert raveler.size == 7
    back = raveler.unravel(raveler.ravel(tree))
    assert jax.tree_util.tree_map(lambda a: a.dtype, back) == jax.tree_util.tree_map(lambda a: a.dtype, tree)
    assert all(jax.tree_util.tree_leaves(jax.tree_util.tree_map(lambda a, b: bool((a == b).all()), back, tree)))


def test_mixed_precision_dot_is_taken_in_the_wider_dtype(x64):
    tree = {"h": jnp.ones(2, jnp.float32), "d": jnp.full(2, 1e-9)}
    assert tree_dot(tree, tree).dtype == jnp.float64
    np.testing.assert_allclose(tree_dot(tree, tree), 2 + 2e-18, rtol=1e-15)


def test_split_keeps_integers_keys_and_functions_frozen(key):
    tree = {"w": jnp.ones(2), "count": jnp.zeros((), int), "key": key, "fn": jnp.tanh, "n": 3}
    moving, frozen = split_inexact(tree)
    assert jax.tree_util.tree_leaves(moving) == [tree["w"]] or len(jax.tree_util.tree_leaves(moving)) == 1
    joined = eqx.combine(moving, frozen)
    assert joined["fn"] is jnp.tanh
    assert joined["n"] == 3


def test_split_by_predicate_and_by_prefix_agree():
    tree = {"a": jnp.ones(2), "b": jnp.ones(3)}
    by_prefix = split_inexact(tree, {"a": True, "b": False})
    by_predicate = split_inexact(tree, lambda leaf: leaf.shape == (2,))
    assert by_prefix[0]["b"] is None
    assert by_predicate[0]["b"] is None
    assert by_prefix[1]["a"] is None
    assert by_prefix[1]["b"].shape == (3,)


def test_finiteness_looks_at_every_leaf():
    assert bool(tree_all_finite({"a": jnp.ones(2), "n": jnp.zeros((), int)}))
    assert not bool(tree_all_finite({"a": jnp.ones(2), "b": jnp.asarray([0.0, jnp.nan])}))


def test_a_tree_without_floats_is_refused_with_a_sentence():
    with pytest.raises(ValueError, match="must hold at least one floating-point array"):
        Raveler({"n": None})
    with pytest.raises(TypeError, match="real floating-point"):
        Raveler({"n": jnp.ones(2, complex)})
