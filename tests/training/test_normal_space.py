import itertools
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sgd_problems import at_zero, product, random_jacobian, tanh_network

from dynjax import curvature
from dynjax.systems import ReshuffledBatches
from dynjax.training import _normal_space
from dynjax.training._batch_indices import independent_batches, reshuffled_batches
from dynjax.training._normal_space import normal_space


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_factor_gives_the_tangent_kernel(x64, outputs):
    predict, params, x = tanh_network((3, 12, outputs), num_samples=7)
    space = normal_space(predict, params, x)
    kernel = curvature.tangent_kernel(predict, params, x).as_matrix()
    np.testing.assert_allclose(space.kernel, kernel, atol=1e-13 * np.max(kernel))
    assert (space.rank, space.num_outputs, space.full_rank) == (7 * outputs, outputs, True)
    np.testing.assert_allclose(space.eigenvalues, np.linalg.eigvalsh(kernel)[::-1], atol=1e-13 * np.max(kernel))
    gram = np.asarray(space.rows.T @ space.rows)
    np.testing.assert_allclose(gram, np.diag(space.eigenvalues), atol=1e-12 * np.max(gram))
    own = np.asarray(kernel).reshape(7, outputs, 7, outputs)
    np.testing.assert_allclose(space.own_kernels, [own[i, :, i] for i in range(7)], atol=1e-13 * np.max(kernel))


def test_kernel_and_jacobian_give_the_same_space(x64, monkeypatch):
    predict, params, x = tanh_network(num_samples=9)
    expected = normal_space(predict, params, x)
    monkeypatch.setattr(_normal_space, "_MAX_ENTRIES", 10)
    found = normal_space(predict, params, x)
    np.testing.assert_allclose(found.eigenvalues, expected.eigenvalues, rtol=1e-9)
    np.testing.assert_allclose(found.kernel, expected.kernel, atol=1e-12)
    assert found.rank == expected.rank


def test_dependent_gradients_are_no_error(x64):
    space = normal_space(product, {"a": jnp.array(2.0), "b": jnp.array(0.5)}, jnp.array([1.0, 3.0, -2.0]))
    assert (space.rank, space.full_rank) == (1, False)
    np.testing.assert_allclose(space.eigenvalues, [(4 + 0.25) * 14], rtol=1e-14)


def test_single_precision_resolves_what_the_kernel_would_lose():
    left, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 6)))
    sigma = np.array([100.0, 30, 3, 1, 0.1, 0.01])  # kernel eigenvalues 1e4 to 1e-4: below eps of single precision
    space = normal_space(*at_zero(left * sigma, jnp.float32))
    assert space.rank == 6
    np.testing.assert_allclose(space.eigenvalues, sigma**2, rtol=2e-2)


def test_components_of_the_graph_are_found(x64):
    jacobian = np.zeros((5, 8))
    jacobian[[0, 2], :3] = random_jacobian(2, 3)
    jacobian[[1, 3], 3:6] = random_jacobian(2, 3, seed=1)
    jacobian[4, 7] = 1
    space = normal_space(*at_zero(jacobian))
    assert space.blocks == (0, 1, 0, 1, 2)
    part = space.component(1)
    assert part.rank == 2
    np.testing.assert_allclose(
        part.kernel,
        np.where([[i in (1, 3) and j in (1, 3) for j in range(5)] for i in range(5)], space.kernel, 0),
        atol=1e-14,
    )


def test_resonance_is_seen_at_the_exact_rate(x64):
    space = normal_space(*at_zero(np.diag([1.0, 2.0])))
    np.testing.assert_array_equal(space.resonant(jnp.array([0.5, 0.25, 0.3]), 1), [False, True, False])
    np.testing.assert_array_equal(space.resonant(jnp.array([0.5, 0.25, 0.3]), 2), [True, False, False])


def test_what_has_no_normal_space_is_refused(x64):
    predict, params, x = tanh_network(num_samples=4)
    with pytest.raises(ValueError, match="Argument `params` must be finite, but it holds NaN or infinity"):
        normal_space(predict, [params[0].at[0, 0].set(jnp.nan), params[1]], x)
    with pytest.raises(ValueError, match="Argument `predict` must depend on `params`, but its Jacobian vanishes"):
        normal_space(lambda p, x: 0 * p * x, jnp.array(1.0), jnp.ones(3))
    with pytest.raises(ValueError, match="Argument `predict` must have a finite Jacobian"):
        normal_space(lambda p, x: jnp.sqrt(p) * x, jnp.array(0.0), jnp.ones(3))
    with pytest.raises(TypeError, match="outside of `jit`"):
        jax.jit(lambda p: normal_space(predict, p, x).eigenvalues)(params)


@pytest.mark.parametrize(("num_samples", "batch_size"), [(5, 1), (5, 2), (6, 3), (5, 4), (18, 17)])
def test_independent_batches_are_uniform(num_samples, batch_size):
    draws = np.asarray(independent_batches(jax.random.key(3), 40_000, num_samples, batch_size))
    counts = Counter(tuple(sorted(batch)) for batch in draws.tolist())
    subsets = list(itertools.combinations(range(num_samples), batch_size))
    assert set(counts) == set(subsets)
    expected = len(draws) / len(subsets)
    chi_square = sum((counts[s] - expected) ** 2 / expected for s in subsets)
    freedom = len(subsets) - 1
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)


def test_reshuffled_batches_are_those_of_the_path():
    key = jax.random.key(5)
    path = ReshuffledBatches(jnp.arange(10), 3, key=key)
    expected = [path.indices(n) for n in range(6, 12)]
    np.testing.assert_array_equal(reshuffled_batches(key, jnp.asarray(2), 2, 10, 3), expected)
