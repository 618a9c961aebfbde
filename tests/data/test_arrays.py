import hashlib
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from dynjax import data


def test_digits_are_those_of_scikit_learn():
    x, y = data.digits(standardise=False)
    expected, labels = load_digits(return_X_y=True)
    assert x.dtype == np.float32
    assert y.dtype == np.int32
    np.testing.assert_array_equal(x, expected)
    np.testing.assert_array_equal(y, labels)


def test_digits_are_standardised_over_the_images_chosen():
    raw = load_digits(return_X_y=True)[0][:500]
    x, y = data.digits(500, seed=None, scale=1 / 8, one_hot=True)
    expected = (raw - raw.mean(0)) / (raw.std(0) + 1e-2) / 8
    np.testing.assert_allclose(x, expected, rtol=4 * np.finfo(np.float32).eps, atol=1e-9)
    assert y.shape == (500, 10)
    np.testing.assert_array_equal(np.argmax(y, 1), load_digits(return_X_y=True)[1][:500])


def test_scaled_digits_have_norm_about_one():
    x, _ = data.digits(scale=1 / 8)
    # 61 of 64 pixels vary; a pixel whose standard deviation is s keeps s / (s + 0.01) of it.
    assert 0.9 < np.mean(np.sum(x**2, axis=1)) <= 61 / 64


def test_balanced_digits_have_equal_counts():
    _, y = data.digits(500, balanced=True)
    np.testing.assert_array_equal(np.bincount(y), np.full(10, 50))


@pytest.mark.parametrize("n", [0, 1798, -3])
def test_digits_refuse_an_impossible_number(n):
    with pytest.raises(ValueError, match="between 1 and the number of samples, 1797"):
        data.digits(n)


@pytest.mark.parametrize("degree", [0, 1, 3, 4, 5, 12])
def test_chebyshev_is_the_cosine_of_multiples(degree):
    x, y = data.chebyshev(degree, 33, dtype=np.float64)
    assert x.shape == y.shape == (33, 1)
    np.testing.assert_allclose(np.diff(x[:, 0]), 2 / 32, rtol=1e-13)
    np.testing.assert_allclose(y, np.cos(degree * np.arccos(x)), atol=1e-13)


def test_chebyshev_has_twenty_points_in_float32_by_default():
    x, y = data.chebyshev(4)
    assert x.shape == (20, 1)
    assert x.dtype == y.dtype == np.float32
    assert y[0, 0] == y[-1, 0] == 1


def test_deep_linear_inputs_are_white_and_targets_linear():
    x, y = data.deep_linear(50, seed=3, dtype=np.float64)
    np.testing.assert_allclose(x.T @ x / 50, np.eye(50), atol=1e-13)
    matrix = (x.T @ y / 50).T  # A, since X^T X / n = I
    np.testing.assert_allclose(x @ matrix.T, y, atol=1e-11)
    # 2,500 entries of variance 1: the variance estimate has standard error sqrt(2 / 2500) = 0.028.
    assert abs(matrix.var() - 1) < 4 * 0.028


def test_teacher_noise_has_the_size_asked_for_and_changes_nothing_else():
    x, clean = data.teacher(4000, 5, 2, 16, seed=1, dtype=np.float64)
    same, noisy = data.teacher(4000, 5, 2, 16, seed=1, noise=0.3, dtype=np.float64)
    np.testing.assert_array_equal(x, same)
    # 8,000 draws: relative standard error of a standard deviation is 1 / sqrt(16000) = 0.008.
    assert abs((noisy - clean).std() / 0.3 - 1) < 4 * 0.008
    assert clean.shape == (4000, 2)


def test_teacher_of_one_unit_is_affine_inside_its_tanh():
    x, y = data.teacher(500, 3, 1, 1, seed=0, dtype=np.float64)
    random = np.random.default_rng(0)
    random.standard_normal(3)  # first layer
    random.standard_normal(1)  # bias
    inside = np.arctanh(y / random.standard_normal((1, 1)))
    affine = np.column_stack([x, np.ones(500)])
    _, residual, _, _ = np.linalg.lstsq(affine, inside, rcond=None)
    assert residual[0] < 1e-20 * np.sum(inside**2)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: data.chebyshev(-1), "`degree` must not be negative"),
        (lambda: data.chebyshev(3, 1), "`num_points` must be at least 2"),
        (lambda: data.deep_linear(0), "`size` must be positive"),
        (lambda: data.teacher(10, 0, 1, 4), "`in_size` must be positive"),
        (lambda: data.teacher(10, 1, 1, 4, noise=-1.0), "`noise` must not be negative"),
        (lambda: data.standardise(np.zeros(3)), "`x` must hold samples"),
        (lambda: data.standardise(np.zeros((3, 2)), floor=-1.0), "`floor` must not be negative"),
        (lambda: data.subset(np.zeros((4, 1)), np.zeros(3), 2), "`y` must have one entry for each of the 4"),
        (lambda: data.subset(np.zeros((4, 1)), np.zeros(4), 2, balanced=True), "`y` must hold integer labels"),
        (lambda: data.subset(np.zeros((4, 1)), np.array([0, 0, 0, 1]), 4, balanced=True), "`n` must be at most 3"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_standardise_gives_zero_mean_and_unit_deviation():
    x = data.standardise(np.random.default_rng(0).normal(3.0, 2.0, (200, 4, 5)), floor=0.0, dtype=np.float64)
    assert x.shape == (200, 20)
    np.testing.assert_allclose(x.mean(0), 0, atol=1e-14)
    np.testing.assert_allclose(x.std(0), 1, rtol=1e-14)


def test_standardise_keeps_constant_features_at_zero():
    x = np.column_stack([np.arange(10.0), np.full(10, 7.0)])
    for floor in (None, 0.0):
        np.testing.assert_array_equal(data.standardise(x, floor=floor)[:, 1], 0)


def test_subset_returns_the_samples_of_its_indices():
    x, y = data.digits(standardise=False)
    part = data.subset(x, y, 100, seed=7)
    assert len(np.unique(part.indices)) == 100
    np.testing.assert_array_equal(part.x, x[part.indices])
    np.testing.assert_array_equal(part.y, y[part.indices])


def test_subset_without_seed_takes_the_first():
    x = np.arange(10)[:, None]
    np.testing.assert_array_equal(data.subset(x, x, 4, seed=None).indices, np.arange(4))


@pytest.mark.parametrize("balanced", [False, True])
def test_smaller_subsets_are_nested_in_larger_ones(balanced):
    x, y = data.digits(standardise=False)
    small, large = (data.subset(x, y, n, seed=2, balanced=balanced).indices for n in (60, 203))
    assert set(small) <= set(large)
    counts = np.bincount(y[large])
    assert (counts.max() - counts.min() <= 1) == balanced


def test_balanced_subset_accepts_one_hot_rows():
    _, y = data.digits(standardise=False)
    from_labels = data.subset(y, y, 50, balanced=True).indices
    np.testing.assert_array_equal(data.subset(y, np.eye(10)[y], 50, balanced=True).indices, from_labels)


def test_balanced_subset_can_use_up_the_smallest_class():
    y = np.array([0, 1, 1, 1, 2, 2, 2])
    assert data.subset(y, y, 5, balanced=True, seed=1).y.tolist() == [0, 1, 1, 2, 2]


def test_subset_is_fixed_for_all_time():
    # Recorded choice: it may never change, because stores name their data by seed.
    indices = data.subset(np.zeros((1797, 1)), np.zeros(1797), 6, seed=0).indices
    expected = np.sort(np.argsort(np.random.PCG64(0).random_raw(1797), kind="stable")[:6])
    np.testing.assert_array_equal(indices, expected)
    assert indices.tolist() == [11, 269, 855, 921, 1185, 1271]


def test_digest_is_sha256_of_dtype_shape_and_bytes():
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = hashlib.sha256(b"<f4(2, 3)" + x.tobytes()).hexdigest()
    assert data.sha256(x) == data.sha256(jnp.asarray(x)) == data.sha256(np.asfortranarray(x)) == expected
    assert data.sha256(x.astype(">f4")) == expected


def test_digest_sees_values_shapes_dtypes_and_order():
    x, y = np.zeros((2, 3), np.float32), np.zeros(6, np.float32)
    digests = {data.sha256(*a) for a in [(x, y), (y, x), (x,), (x.T, y), (x + 1, y), (x.astype(int), y)]}
    assert len(digests) == 6
    with pytest.raises(TypeError, match="must hold numbers"):
        data.sha256(np.array([None]))


def test_import_loads_no_scikit_learn():
    code = "import sys, dynjax.data; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
