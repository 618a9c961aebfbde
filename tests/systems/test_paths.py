"""Noise paths: same key same bits, right marginals, and clear refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynjax.systems import FullBatch, MiniBatches, ReshuffledBatches, WhiteNoise


def _data(n=10):
    return jnp.arange(n), 10.0 * jnp.arange(n)


@pytest.mark.parametrize("kind", [MiniBatches, ReshuffledBatches])
def test_batches_are_reproducible_distinct_and_aligned(kind, key):
    path = kind(_data(), 4, key=key)
    for n in range(6):
        x, y = eqx.filter_jit(path)(n)
        again, _ = path(n)
        np.testing.assert_array_equal(x, again)
        assert len(set(x.tolist())) == 4
        np.testing.assert_array_equal(10.0 * x, y)


def test_an_epoch_passes_through_every_sample_once(key):
    path = ReshuffledBatches(_data(12), 3, key=key)
    first = jnp.concatenate([path.indices(n) for n in range(4)])
    second = jnp.concatenate([path.indices(n) for n in range(4, 8)])
    assert sorted(first.tolist()) == list(range(12))
    assert sorted(second.tolist()) == list(range(12))
    assert first.tolist() != second.tolist()


def test_every_sample_is_drawn_equally_often(key):
    for batch_size in (1, 3):
        path = MiniBatches(_data(), batch_size, key=key)
        draws = jax.vmap(path.indices)(jnp.arange(20_000))
        counts = np.bincount(np.asarray(draws).ravel(), minlength=10)
        expected = 20_000 * batch_size / 10
        # 5 standard errors of a binomial count
        assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected))


def test_full_batch_returns_its_data_as_a_tuple():
    x, y = FullBatch(*_data())(3)
    np.testing.assert_array_equal(10.0 * x, y)


def test_white_noise_has_the_stated_scale(x64, key):
    path = WhiteNoise((2,), key=key, scale=0.5)
    draws = jax.vmap(path)(jnp.arange(50_000))
    # the variance of the sample variance is 2 sigma^4 / n
    assert abs(float(draws.var()) - 0.25) < 5 * 0.25 * np.sqrt(2 / draws.size)
    assert abs(float(draws.mean())) < 5 * 0.5 / np.sqrt(draws.size)


@pytest.mark.parametrize("kind", [MiniBatches, ReshuffledBatches])
@pytest.mark.parametrize(
    ("data", "batch_size", "sentence"),
    [
        (_data(), 11, "from 1 to the number of samples 10"),
        (_data(), 0, "from 1 to the number of samples 10"),
        ((jnp.ones(3), jnp.ones(4)), 1, "common number of samples"),
        ((jnp.ones(()),), 1, "leading sample axis"),
    ],
)
def test_bad_batches_are_refused(kind, data, batch_size, sentence, key):
    with pytest.raises(ValueError, match=sentence):
        kind(data, batch_size, key=key)
