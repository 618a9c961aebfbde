"""Closed forms for generative flows against quadrature, differential equations and densities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from dynjax.reference import (
    LineMixture,
    flow_matching_floor,
    gaussian_flow_exponents,
    gaussian_flow_slope_range,
    mixture_flow_matching_floor,
    two_mode_speciation_ratio,
)

MIXTURES = {
    "three": LineMixture(np.array([0.5, 0.2, 0.3]), np.array([-1.5, 0.3, 2.0]), np.array([0.5, 0.3, 0.8])),
    "narrow in wide": LineMixture(np.array([0.6, 0.4]), np.array([0.0, 0.2]), np.array([1.0, 0.01])),
    "far apart": LineMixture(np.array([0.5, 0.5]), np.array([-30.0, 30.0]), np.array([0.1, 2.0])),
}


def test_the_floor_of_two_modes(x64):
    """The value of the table of reference values."""
    found = mixture_flow_matching_floor(LineMixture([0.5, 0.5], [-2.0, 2.0], [0.5, 0.5]))
    np.testing.assert_allclose(found, 2.770464670777736, rtol=1e-14)


@pytest.mark.parametrize("name", MIXTURES)
def test_the_floor_by_another_quadrature(x64, name):
    """E Var(x_1 - x_0 | x_t) from conditional second moments, by adaptive rules with the interesting points given."""
    weights, means, scales = MIXTURES[name]

    def variance(x, t):
        spread = (1 - t) ** 2 + t**2 * scales**2
        density = weights * np.exp(-((x - t * means) ** 2) / (2 * spread)) / np.sqrt(2 * np.pi * spread)
        slope = (t * scales**2 - (1 - t)) / spread
        centre = means + slope * (x - t * means)
        within = scales**2 / spread  # Var(x_1 - x_0 | x_t, k)
        total = density.sum()
        mean = density @ centre / total if total > 0 else 0.0
        return density @ (within + (centre - mean) ** 2)

    def over_x(t):
        spread = np.sqrt((1 - t) ** 2 + t**2 * scales**2)
        edges = np.unique(t * means[:, None] + spread[:, None] * np.array([-10, -4, -1, 0, 1, 4, 10]))
        parts = zip(edges[:-1], edges[1:], strict=True)
        return sum(scipy.integrate.quad(variance, a, b, (t,), epsabs=1e-12, epsrel=1e-11)[0] for a, b in parts)

    edges = np.concatenate([[0, 0.3, 0.6, 0.8], 1 - np.array([0.1, 0.03, 0.01, 0.003, 0.0])])
    parts = zip(edges[:-1], edges[1:], strict=True)
    value = sum(scipy.integrate.quad(over_x, a, b, epsabs=1e-9, epsrel=1e-9)[0] for a, b in parts)
    np.testing.assert_allclose(mixture_flow_matching_floor(MIXTURES[name]), value, rtol=1e-8)


def test_what_the_floor_does_not_depend_on(x64):
    """One component, a component in two halves, the order, a shift and a reflection."""
    for scale in (0.5, 1.0, 3.0):
        one = mixture_flow_matching_floor(LineMixture([1.0], [0.7], [scale]))
        np.testing.assert_allclose(one, np.pi * scale / 2, rtol=1e-14)
        np.testing.assert_allclose(one, flow_matching_floor(scale), rtol=1e-14)
    weights, means, scales = MIXTURES["three"]
    value = mixture_flow_matching_floor(MIXTURES["three"])
    halves = LineMixture(
        np.append(weights, weights[0]) * [0.5, 1, 1, 0.5], np.append(means, means[0]), scales[[0, 1, 2, 0]]
    )
    for same in (
        halves,
        LineMixture(weights[::-1], means[::-1], scales[::-1]),
        LineMixture(weights, means + 3.0, scales),
        LineMixture(weights, -means, scales),
    ):
        np.testing.assert_allclose(mixture_flow_matching_floor(same), value, rtol=1e-12)
    # More than the components alone, less than the loss of the best constant velocity.
    variance = weights @ (scales**2 + means**2) - (weights @ means) ** 2
    assert np.pi / 2 * (weights @ scales) < value < 1 + variance


def test_the_floor_has_derivatives(x64):
    floor = lambda mean, scale: mixture_flow_matching_floor(
        LineMixture(jnp.array([0.3, 0.7]), jnp.stack([-1.0, mean]), jnp.stack([0.5, scale]))
    )
    found, step = jax.grad(floor, (0, 1))(2.0, 0.8), 1e-4
    expected = [
        (floor(2.0 + step, 0.8) - floor(2.0 - step, 0.8)) / (2 * step),
        (floor(2.0, 0.8 + step) - floor(2.0, 0.8 - step)) / (2 * step),
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_the_floor_in_single_precision():
    found = mixture_flow_matching_floor(LineMixture([0.5, 0.5], [-2.0, 2.0], [0.5, 0.5]))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, 2.7704647, rtol=1e-6)


def test_exponents_solve_the_variational_equation(x64):
    """d/dt (t Lambda_i) is the slope of the field, (t s^2 - (1 - t)) / ((1 - t)^2 + t^2 s^2), from 0 on."""
    scales = np.array([0.5, 3.0, 0.01])
    ordered = np.sort(scales)[::-1]
    times = jnp.array([0.0, 1e-7, 1e-3, 0.3, 0.7, 0.99, 1.0])
    growth = jax.vmap(jax.jacfwd(lambda t: t * gaussian_flow_exponents(scales, t)))(times)
    slopes = (times[:, None] * ordered**2 - (1 - times[:, None])) / (
        (1 - times[:, None]) ** 2 + times[:, None] ** 2 * ordered**2
    )
    np.testing.assert_allclose(growth, slopes, rtol=1e-10, atol=1e-12)
    np.testing.assert_array_equal(gaussian_flow_exponents(scales, 0.0), -1)
    np.testing.assert_allclose(gaussian_flow_exponents(scales, 1.0), np.log(ordered), rtol=1e-13)
    # -1 + (s^2 - 1) t / 2 + ...
    slope = jax.jacfwd(lambda t: gaussian_flow_exponents(scales, t))(0.0)
    np.testing.assert_allclose(slope, (ordered**2 - 1) / 2, rtol=1e-13)
    # On both sides of the change from the series to the logarithm.
    early = np.array([1e-6, 1e-4, 4.9e-4, 5.1e-4, 2e-3])
    direct = np.log1p(early[:, None] * (early[:, None] * (1 + ordered**2) - 2)) / (2 * early[:, None])
    found = jax.vmap(lambda t: gaussian_flow_exponents(scales, t))(jnp.asarray(early))
    np.testing.assert_allclose(found, direct, rtol=1e-13)


def test_the_centre_of_two_modes_turns_at_the_ratio(x64):
    """There the largest eigenvalue of the Hessian of log p at the centre is 0, negative with more noise, positive with less."""
    half, scale = np.array([1.2, 0.9]), 0.6
    ratio = two_mode_speciation_ratio(np.linalg.norm(half), scale)

    def top(noise, signal=0.37):
        variance = signal**2 * (scale**2 + noise**2)

        def log_density(x):
            squares = jnp.stack([jnp.sum((x - sign * signal * half) ** 2) for sign in (-1, 1)])
            return jax.nn.logsumexp(-squares / (2 * variance))

        return jnp.linalg.eigvalsh(jax.hessian(log_density)(jnp.zeros(2)))[-1]

    np.testing.assert_allclose(top(ratio), 0, atol=1e-12)
    assert top(1.01 * ratio) < -1e-3
    assert top(0.99 * ratio) > 1e-3
    table = two_mode_speciation_ratio(jnp.array([2.0, 0.5, 0.3]), 0.5)
    np.testing.assert_allclose(table[:2], [np.sqrt(3.75), 0], rtol=1e-14)
    assert np.isnan(table[2])
    slope = jax.grad(two_mode_speciation_ratio)(2.0, 0.5)
    np.testing.assert_allclose(slope, 2 / np.sqrt(3.75), rtol=1e-14)


def test_slope_ranges_on_a_grid_of_times(x64):
    times = np.linspace(0, 1, 200_001)
    scales = np.array([0.01, 0.3, 1.0, 2.0, 50.0])
    low, high = gaussian_flow_slope_range(scales)
    for i, scale in enumerate(scales):
        slopes = (times * scale**2 - (1 - times)) / ((1 - times) ** 2 + times**2 * scale**2)
        np.testing.assert_allclose([slopes.min(), slopes.max()], [low[i], high[i]], rtol=1e-6)
        assert slopes.min() >= low[i] - 1e-12
        assert slopes.max() <= high[i] + 1e-12


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"Argument `target\.scales` must be positive"):
        mixture_flow_matching_floor(LineMixture([1.0], [0.0], [-1.0]))
    with pytest.raises(ValueError, match=r"Argument `target\.weights` must have the sum one"):
        mixture_flow_matching_floor(LineMixture([0.5], [0.0], [1.0]))
    with pytest.raises(ValueError, match="Argument `target` must have as many weights as means and scales"):
        mixture_flow_matching_floor(LineMixture([1.0], [0.0, 1.0], [1.0]))
    with pytest.raises(ValueError, match=r"Argument `t` must lie in \[0, 1\]"):
        gaussian_flow_exponents(np.ones(2), 1.5)
    with pytest.raises(ValueError, match="Argument `t` must be a scalar"):
        gaussian_flow_exponents(np.ones(2), np.ones(2))
    with pytest.raises(ValueError, match="Argument `scales` must be positive"):
        gaussian_flow_exponents([1.0, 0.0], 0.5)
    with pytest.raises(ValueError, match="Argument `scales` must be one-dimensional"):
        gaussian_flow_exponents(1.0, 0.5)
    with pytest.raises(ValueError, match="Argument `scale` must be positive"):
        gaussian_flow_slope_range(0.0)
    with pytest.raises(ValueError, match="Argument `half_distance` must be positive"):
        two_mode_speciation_ratio(0.0, 1.0)
    with pytest.raises(ValueError, match="Argument `scale` must be positive"):
        two_mode_speciation_ratio(1.0, np.nan)
