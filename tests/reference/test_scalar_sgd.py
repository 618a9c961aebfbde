import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ensembles import assert_agrees
from scipy.integrate import quad
from scipy.optimize import brentq, minimize_scalar
from scipy.special import dawsn

from dynjax import reference


def test_two_curvatures_have_three_thresholds(x64):
    thresholds = reference.scalar_sgd_thresholds(jnp.array([1.0, 3.0]))
    np.testing.assert_allclose(thresholds.almost_sure, 4 / 3, rtol=1e-15)
    np.testing.assert_allclose(thresholds.gradient_descent, 1, rtol=1e-15)
    np.testing.assert_allclose(thresholds.mean_square, 4 / 5, rtol=1e-15)
    assert str(thresholds) == "thresholds: almost sure 1.33333, gradient descent 1, mean square 0.8"


def test_the_stable_set_need_not_be_an_interval(x64):
    # abs(1 - s) abs(1 - 10 s) = 1: s = (11 -+ sqrt(41)) / 20 between the poles and s = 1.1 beyond.
    thresholds = reference.scalar_sgd_thresholds(jnp.array([10.0, 1.0]))
    expected = [(11 - 41**0.5) / 20, (11 + 41**0.5) / 20, 1.1]
    np.testing.assert_allclose(thresholds.crossings, expected, rtol=1e-14)
    assert thresholds.almost_sure == thresholds.crossings[0]
    # Between (3 - 2 sqrt 2) and (3 + 2 sqrt 2) there is one zero only.
    for ratio, number in ((5.82, 1), (5.83, 3)):
        zeros = reference.scalar_sgd_thresholds(jnp.array([1.0, ratio])).crossings
        assert np.sum(np.isfinite(zeros)) == number


@pytest.mark.parametrize("seed", range(5))
def test_all_zeros_are_found_for_random_lists(x64, seed):
    rng = np.random.default_rng(seed)
    h, p = np.sort(np.exp(2 * rng.normal(size=5)))[::-1], rng.dirichlet(np.full(5, 30.0))
    mean_log = lambda s: p @ np.log(np.abs(1 - s * h))
    expected = []
    for low, high in itertools.pairwise(1 / h):
        margin = 1e-13 * high
        top = minimize_scalar(lambda s: -mean_log(s), bounds=(low, high), method="bounded", options={"xatol": 1e-10}).x
        if mean_log(top) > 0:
            expected += [
                brentq(mean_log, low + margin, top, xtol=1e-15),
                brentq(mean_log, top, high - margin, xtol=1e-15),
            ]
    expected.append(brentq(mean_log, 1 / h[-1] * (1 + 1e-13), 2 / h[-1], xtol=1e-15))
    order = rng.permutation(5)
    thresholds = reference.scalar_sgd_thresholds(jnp.asarray(h[order]), jnp.asarray(p[order]))
    zeros = np.asarray(thresholds.crossings)
    np.testing.assert_allclose(zeros[np.isfinite(zeros)], expected, rtol=1e-10)
    np.testing.assert_allclose(thresholds.almost_sure, expected[0], rtol=1e-11)


def test_one_and_equal_curvatures_reduce_to_gradient_descent(x64):
    for h in (jnp.array([4.0]), jnp.array([4.0, 4.0, 4.0])):
        thresholds = reference.scalar_sgd_thresholds(h)
        for value in (thresholds.almost_sure, thresholds.gradient_descent, thresholds.mean_square):
            np.testing.assert_allclose(value, 0.5, rtol=1e-15)


def test_thresholds_can_be_differentiated_and_mapped(x64):
    # Curvatures scaled by c have thresholds over c.
    crossings = lambda c: reference.scalar_sgd_thresholds(c * jnp.array([1.0, 10.0])).crossings
    np.testing.assert_allclose(jax.jacrev(crossings)(1.0), -crossings(1.0), rtol=1e-12)
    second = jax.jit(jax.jacfwd(jax.jacfwd(crossings)))
    np.testing.assert_allclose(second(1.0), 2 * crossings(1.0), rtol=1e-11)
    np.testing.assert_allclose(jax.vmap(crossings)(jnp.array([1.0, 2.0]))[1], crossings(2.0), rtol=1e-14)
    first = lambda p: reference.scalar_sgd_thresholds(jnp.array([1.0, 3.0]), jnp.stack([p, 1 - p])).almost_sure
    np.testing.assert_allclose(jax.grad(first)(0.6), (first(0.6 + 1e-6) - first(0.6 - 1e-6)) / 2e-6, rtol=1e-8)


def test_exponent_agrees_with_products(x64):
    h, p, eta = np.array([0.5, 2.0, 3.0]), np.array([0.2, 0.5, 0.3]), 0.8
    drawn = np.random.default_rng(1).choice(h, size=(400, 2000), p=p)
    estimates = np.mean(np.log(np.abs(1 - eta * drawn)), axis=1)
    assert_agrees(estimates, reference.scalar_sgd_exponent(eta, h, p), resolution=2e-3)
    assert reference.scalar_sgd_exponent(0.5, h, p) == -np.inf
    np.testing.assert_allclose(reference.scalar_sgd_exponent(1e-12, h, p), -1e-12 * (h @ p), rtol=1e-11)


def test_tail_indices(x64):
    h = jnp.array([1.0, 3.0])
    for eta, printed in ((0.9, 1.2529), (1.1, 0.7086), (1.2, 0.4159)):
        index = reference.scalar_sgd_tail_index(eta, h)
        np.testing.assert_allclose(index, printed, atol=5e-5)
        np.testing.assert_allclose(reference.scalar_sgd_moment_function(index, eta, h), 0, atol=1e-14)
    np.testing.assert_allclose(reference.scalar_sgd_tail_index(0.8, h), 2, rtol=1e-12)  # the mean-square threshold
    single = reference.scalar_sgd_tail_index(jnp.float32(0.9), h.astype(jnp.float32))
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, reference.scalar_sgd_tail_index(0.9, h), rtol=1e-5)
    assert reference.scalar_sgd_tail_index(0.5, h) == np.inf
    assert reference.scalar_sgd_tail_index(1.4, h) == 0
    slope = jax.grad(reference.scalar_sgd_tail_index)(0.9, h)
    difference = reference.scalar_sgd_tail_index(0.9 + 1e-6, h) - reference.scalar_sgd_tail_index(0.9 - 1e-6, h)
    np.testing.assert_allclose(slope, difference / 2e-6, rtol=1e-7)


def test_moment_function_is_convex_with_the_exponent_as_slope(x64):
    h = jnp.array([1.0, 3.0])
    moment = lambda p: reference.scalar_sgd_moment_function(p, 0.9, h)
    np.testing.assert_allclose(moment(0.0), 0, atol=1e-16)
    np.testing.assert_allclose(jax.grad(moment)(0.0), reference.scalar_sgd_exponent(0.9, h), rtol=1e-13)
    np.testing.assert_allclose(moment(2.0), np.log(np.mean((1 - 0.9 * np.array([1.0, 3.0])) ** 2)), rtol=1e-13)
    values = jax.vmap(moment)(jnp.linspace(0, 4, 41))
    assert np.all(np.diff(values, 2) > 0)


@pytest.mark.parametrize("eta", [0.01, 0.5, 1.0, 2.42124952103683604, 10.0])
def test_gaussian_inputs_agree_with_the_closed_form(x64, eta):
    # z 2F2(1, 1; 3/2, 2; -z) = 2 int_0^sqrt(z) dawsn, z = 1 / (2 eta)
    z = 1 / (2 * eta)
    series = 4 * quad(dawsn, 0, np.sqrt(z), epsabs=1e-14, epsrel=1e-13, limit=200)[0]
    expected = np.log(eta) - np.euler_gamma - np.log(2) + series
    np.testing.assert_allclose(reference.gaussian_sgd_exponent(eta), expected, atol=2e-13)


def test_printed_values_for_gaussian_inputs(x64):
    np.testing.assert_allclose(reference.gaussian_sgd_exponent(1.0), -0.416991636869389, rtol=1e-14)
    np.testing.assert_allclose(reference.gaussian_sgd_exponent(0.25, variance=4.0), -0.416991636869389, rtol=1e-14)
    critical = reference.gaussian_sgd_critical_learning_rate()
    np.testing.assert_allclose(critical, 2.42124952103683604, rtol=1e-14)
    x = np.random.default_rng(2).standard_normal((200, 20_000))
    assert_agrees(np.mean(np.log(np.abs(1 - critical * x**2)), axis=1), 0, resolution=1e-3)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="Argument `curvatures` must be positive and finite"):
        reference.scalar_sgd_thresholds(jnp.array([1.0, 0.0]))
    with pytest.raises(
        ValueError, match=r"Argument `weights` must have the shape \(2,\) of `curvatures`, but found \(3,\)"
    ):
        reference.scalar_sgd_exponent(0.1, jnp.ones(2), jnp.ones(3))
    with pytest.raises(ValueError, match="Argument `curvatures` must be one-dimensional and not empty"):
        reference.scalar_sgd_exponent(0.1, jnp.ones(0))
