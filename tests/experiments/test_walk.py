"""Walks along solutions, and one network on both sides of the interpolation threshold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynjax import MLP
from dynjax.experiments.sgd_stability import compare_across_threshold, walk_to_boundary


def product(p, x):
    return p["a"] * p["b"] * x


def test_a_walk_on_the_hyperbola_ends_where_the_threshold_is_known(x64):
    """f = a b x, x^2 in {1, 3}: the boundary is (a^2 + b^2) eta = 4/3, and all steps lie on a b = 1."""
    x = jnp.sqrt(jnp.array([1.0, 3.0]))
    start = {"a": jnp.asarray(1.8), "b": jnp.asarray(1 / 1.8)}
    walk = walk_to_boundary(
        product, start, x, x, learning_rate=0.45, batch_size=1, key=jax.random.key(0), exponent_steps=100,
        tolerance=1e-7,
    )  # fmt: skip
    a, b = float(walk.params["a"]), float(walk.params["b"])
    assert walk.reached
    assert a * b == pytest.approx(1, abs=1e-12)
    assert a * a + b * b == pytest.approx(4 / 3 / 0.45, rel=1e-6)
    assert float(walk.exponent[0]) == pytest.approx(
        np.mean(np.log(np.abs(1 - 0.45 * np.array([1, 3]) * (1.8**2 + 1.8**-2)))), rel=1e-9
    )
    assert np.all(np.diff(np.abs(walk.exponent)) < 0)
    assert np.all(np.diff(walk.travelled) <= 0.1 + 1e-12)
    assert np.all(np.asarray(walk.residual_norm) < 1e-10)
    # GD: 2N / k_max with k = (1 + 3)(a^2 + b^2)
    assert float(walk.gd_threshold[-1]) == pytest.approx(1 / (a * a + b * b), rel=1e-9)


def test_a_walk_from_no_solution_is_refused(x64):
    x = jnp.array([1.0, 2.0])
    with pytest.raises(ValueError, match="near a solution"):
        walk_to_boundary(
            product, {"a": jnp.asarray(1.0), "b": jnp.asarray(1.0)}, x, jnp.array([1.0, -1.0]), learning_rate=0.1,
            batch_size=1, key=jax.random.key(0), exponent_steps=100,
        )  # fmt: skip


def test_minima_are_isolated_above_the_interpolation_threshold_and_not_below(x64):
    key = jax.random.key(0)
    teacher = jax.tree_util.tree_map(lambda leaf: 3 * leaf, MLP((2, 2, 1), key=key))
    x = jax.random.normal(jax.random.fold_in(key, 1), (60, 2))
    predict = lambda m, x: jax.vmap(m)(x)[:, 0]
    y = predict(teacher, x) + 0.05 * jax.random.normal(jax.random.fold_in(key, 2), (60,))
    few, many = compare_across_threshold(predict, teacher, x, y, num_samples=(5, 60), learning_rate=0.05)
    assert few.num_params == many.num_params == 9
    assert few.interpolates
    assert not bool(few.stability.isolated)
    assert int(few.stability.rank) == int(few.minimum.rank) == 5
    assert not many.interpolates
    assert bool(many.stability.isolated)
    assert int(many.stability.rank) == 9
    assert bool(many.stability.stable)
    assert "fits" in str(few)
    with pytest.raises(ValueError, match="`num_samples` must hold integers from 1 to 60"):
        compare_across_threshold(predict, teacher, x, y, num_samples=(61,), learning_rate=0.05)
