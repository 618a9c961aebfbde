import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ensembles import assert_agrees

from dynjax import reference


def orbit_average(step, slope, x, *, steps=2000, burn_in=200):
    """Mean log abs slope along orbits, one for each entry of x."""
    total = 0
    for n in range(burn_in + steps):
        if n >= burn_in:
            total = total + np.log(np.abs(slope(x)))
        x = step(x)
    return total / steps


@pytest.mark.parametrize("r", [0.7, 1.8, 2.9, 3.2, 3.4])
def test_logistic_exponent_of_stable_orbits_agrees_with_iteration(x64, r):
    found = orbit_average(
        lambda x: r * x * (1 - x), lambda x: r * (1 - 2 * x), np.array([0.3]), steps=4000, burn_in=4000
    )
    np.testing.assert_allclose(reference.logistic_exponent(r), found[0], atol=1e-12)


def test_logistic_exponent_at_special_parameters(x64):
    np.testing.assert_allclose(reference.logistic_exponent(3.2), -0.91629073187415506518, rtol=1e-14)
    assert reference.logistic_exponent(3.0) == 0
    np.testing.assert_allclose(reference.logistic_exponent(4.0), np.log(2), rtol=1e-15)
    assert reference.logistic_exponent(1 + 5**0.5) < -15  # -inf up to rounding of the parameter
    assert np.all(np.isnan(jax.vmap(reference.logistic_exponent)(jnp.array([-1.0, 3.7, 4.5]))))


def test_chaotic_maps_agree_with_orbit_averages(x64):
    rng = np.random.default_rng(0)
    x = rng.uniform(0.05, 0.95, 400)
    logistic = orbit_average(lambda x: 4 * x * (1 - x), lambda x: 4 - 8 * x, x)
    assert_agrees(logistic, reference.logistic_exponent(4.0), resolution=1e-3)
    gauss = orbit_average(lambda x: 1 / x % 1, lambda x: x**-2, x)
    assert_agrees(gauss, reference.gauss_map_exponent(), resolution=5e-3)
    cubic = orbit_average(lambda x: 4 * x**3 - 3 * x, lambda x: 12 * x**2 - 3, x)
    assert_agrees(cubic, reference.chebyshev_exponent(3), resolution=1e-3)
    # Steps of slope 1.7: no power of two, so that orbits do not collapse in binary.
    beta = orbit_average(lambda x: 1.7 * x % 1, lambda x: np.full_like(x, 1.7), x)
    np.testing.assert_allclose(beta, reference.beta_map_exponent(1.7), rtol=1e-12)
    np.testing.assert_allclose(reference.tent_exponent(2.0), np.log(2), rtol=1e-15)


def test_constants_have_all_digits(x64):
    np.testing.assert_allclose(reference.gauss_map_exponent(), 2.3731382208312509, rtol=1e-15)
    np.testing.assert_allclose(reference.cat_map_exponents(), [0.962423650119206895, -0.962423650119206895], rtol=1e-15)
    np.testing.assert_allclose(reference.henon_exponent_sum(0.3), -1.2039728043259360, rtol=1e-15)
    np.testing.assert_allclose(
        reference.cat_map_exponents(), reference.linear_map_exponents(jnp.array([[2.0, 1.0], [1.0, 1.0]])), rtol=1e-14
    )


def test_baker_exponents_agree_with_symbol_frequencies(x64):
    p, a, b = 0.3, 0.25, 0.6
    lower = np.random.default_rng(1).random((400, 4000)) < p  # the symbols of a typical orbit are independent
    estimates = np.stack(
        [np.mean(np.where(lower, -np.log(p), -np.log(1 - p)), 1), np.mean(np.where(lower, np.log(a), np.log(b)), 1)], 1
    )
    assert_agrees(estimates, reference.baker_exponents(p, (a, b)), resolution=1e-3)
    first, second = reference.baker_exponents(0.5, (1 / 3, 1 / 3))
    np.testing.assert_allclose(1 - first / second, 1.6309297535714574, rtol=1e-14)  # Kaplan-Yorke dimension


@pytest.mark.parametrize("sites", [1, 2, 3, 7, 8])
def test_coupled_doubling_exponents_are_those_of_the_matrix(x64, sites):
    shift = np.roll(np.eye(sites), 1, axis=0)
    matrix = 2 * (0.7 * np.eye(sites) + 0.15 * (shift + shift.T))
    expected = np.sort(np.log(np.abs(np.linalg.eigvalsh(matrix))))[::-1]
    np.testing.assert_allclose(reference.coupled_doubling_exponents(sites, 0.3), expected, atol=1e-13)


def test_coupled_doubling_exponents_of_eight_sites(x64):
    printed = [0.693147, 0.601177, 0.601177, 0.336472, 0.336472, -0.024563, -0.024563, -0.223144]
    found = reference.coupled_doubling_exponents(8, 0.3)
    np.testing.assert_allclose(found, printed, atol=5e-7)
    assert found[1] == found[2]
    assert reference.coupled_doubling_exponents(2, 0.5)[1] == -jnp.inf


def test_gradient_descent_at_learning_rate_two_has_exponents_log_three_and_zero(x64):
    # w -> w - 2 grad (ab - 1)^2 / 2 with its own Jacobian, started on the diagonal.
    def step(w):
        return w - 2 * jax.grad(lambda v: (v[0] * v[1] - 1) ** 2 / 2)(w)

    def advance(carry, _):
        w, frame = carry
        frame, triangle = jnp.linalg.qr(jax.jacfwd(step)(w) @ frame)
        return (step(w), frame), jnp.log(jnp.abs(jnp.diagonal(triangle)))

    def run(a):
        start = (jnp.stack([a, a]), jnp.eye(2))
        return jnp.mean(jax.lax.scan(advance, start, length=4000)[1][100:], axis=0)

    estimates = jax.jit(jax.vmap(run))(jnp.asarray(np.random.default_rng(2).uniform(0.1, 1.3, 300)))
    assert_agrees(np.asarray(estimates), reference.cubic_training_exponents(), resolution=2e-3)


def test_bad_map_arguments_are_named(x64):
    with pytest.raises(ValueError, match="Argument `degree` must be an integer, at least 1, but found 0"):
        reference.chebyshev_exponent(0)
    with pytest.raises(ValueError, match="Argument `weight` must lie between 0 and 1"):
        reference.baker_exponents(1.5, (0.3, 0.3))
    with pytest.raises(ValueError, match="Argument `contractions` must be two numbers"):
        reference.baker_exponents(0.5, (0.3, 0.3, 0.3))
    with pytest.raises(ValueError, match="`slope` must be positive"):
        reference.tent_exponent(-2.0)
