import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sgd_problems import at_zero, random_jacobian

from dynjax.training._normal_space import normal_space
from dynjax.training._sgd_cocycle import CocyclePlan, advance, chunk_batches, orthonormalise, run_cocycle


@pytest.mark.parametrize("triangular", [False, True])
@pytest.mark.parametrize("steps", [16, 128])
@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("outputs", [None, 2])
def test_block_elimination_equals_step_by_step(x64, outputs, batch_size, steps, triangular):
    rng = np.random.default_rng(0)
    space = normal_space(*at_zero(random_jacobian(12, 30, num_outputs=outputs, scale=2)))
    scales = np.array([0.05, 0.3]) / batch_size
    rows = np.asarray(space.rows)
    size = batch_size * space.num_outputs
    batches = np.stack([rng.permutation(12)[:batch_size] for _ in range(steps)])
    taken = (batches[..., None] * space.num_outputs + np.arange(space.num_outputs)).reshape(steps, size)
    frame = rng.standard_normal((space.rank, 2, 3))
    expected = frame
    for numbers in taken:
        residuals = np.einsum("br,rlk->blk", rows[numbers], expected)
        expected = expected - np.einsum("br,l,blk->rlk", rows[numbers], scales, residuals)
    found = advance(space.rows, space.kernel, jnp.asarray(scales), jnp.asarray(frame), taken, triangular=triangular)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.max(np.abs(expected)))


def plan_of(block_length, *, scheme="iid", batch_size=1, k=1, steps=60, triangular=False):
    blocks = -(-steps // block_length)
    return CocyclePlan(batch_size, scheme, k, block_length, blocks, steps, 1, 5, triangular, k == 1 and batch_size == 1)


@pytest.mark.parametrize(
    ("scheme", "batch_size", "k"), [("iid", 1, 1), ("iid", 2, 3), ("reshuffle", 1, 2), ("reshuffle", 3, 1)]
)
def test_the_growth_does_not_depend_on_the_block_length(x64, scheme, batch_size, k):
    space = normal_space(*at_zero(random_jacobian(10, 15, scale=2)))
    rates = jnp.array([0.1, 0.4])
    frame = orthonormalise(jax.random.normal(jax.random.key(1), (10, 2, k)))[0]
    runs = [
        run_cocycle(
            space, rates, frame, jax.random.key(2), plan_of(m, scheme=scheme, batch_size=batch_size, k=k, triangular=t)
        )
        for m, t in ((1, False), (7, False), (20, True))
    ]
    for run in runs[1:]:
        np.testing.assert_allclose(run.logs, runs[0].logs, rtol=0, atol=1e-10)
        np.testing.assert_allclose(jnp.abs(run.frame), jnp.abs(runs[0].frame), atol=1e-9)


def test_padding_belongs_to_no_sample(x64):
    batches = chunk_batches(jax.random.key(0), jnp.asarray(0), 10, plan_of(7, scheme="reshuffle"))
    flat = np.asarray(batches).ravel()
    assert np.all(flat[60:] == 10)
    np.testing.assert_array_equal(np.sort(flat[:60].reshape(6, 10), axis=1), np.tile(np.arange(10), (6, 1)))


@pytest.mark.parametrize("outputs", [None, 3])
def test_the_average_over_the_next_sample_is_that_over_all_samples(x64, outputs):
    space = normal_space(*at_zero(random_jacobian(9, 40, num_outputs=outputs, scale=2)))
    rates = jnp.array([0.2, 0.9])
    frame = orthonormalise(jax.random.normal(jax.random.key(1), (space.rank, 2, 1)))[0]
    plan = CocyclePlan(1, "iid", 1, 1, 1, 1, 0, 1, False, True)
    found = run_cocycle(space, rates, frame, jax.random.key(0), plan).averages[0]
    for lane, eta in enumerate(np.asarray(rates)):
        v = np.asarray(frame)[:, lane, 0]
        growths = [np.log(np.linalg.norm(v - eta * g.T @ (g @ v))) for g in np.asarray(space.factor)]
        np.testing.assert_allclose(found[lane], np.mean(growths), rtol=1e-12)


def test_lost_directions_are_minus_infinity_and_nothing_is_nan(x64):
    frame, logs = orthonormalise(jnp.zeros((3, 2, 1)).at[:, 1].set(2.0))
    np.testing.assert_allclose(logs[:, 0], [-np.inf, np.log(2 * np.sqrt(3))])
    np.testing.assert_allclose(jnp.linalg.norm(frame[:, :, 0], axis=0), 1)
    dependent = jnp.array([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0]])[:, None, :]
    frame, logs = orthonormalise(dependent)
    np.testing.assert_allclose(logs[0], [np.log(2) / 2, -np.inf], atol=1e-15)
    assert jnp.all(jnp.isfinite(frame))


def test_tiny_and_huge_vectors_are_measured_in_single_precision():
    frame = jnp.ones((4, 2, 1), jnp.float32) * jnp.array([1e-30, 1e30], jnp.float32)[None, :, None]
    _, logs = orthonormalise(frame)
    np.testing.assert_allclose(logs[:, 0], np.log([2e-30, 2e30]), rtol=1e-6)
