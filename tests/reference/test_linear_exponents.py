import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from dynjax import reference


def test_linear_exponents_are_growth_rates(x64):
    matrix = np.random.default_rng(0).normal(size=(5, 5))
    values = np.linalg.eigvals(matrix)
    np.testing.assert_allclose(
        reference.linear_map_exponents(matrix), np.sort(np.log(np.abs(values)))[::-1], atol=1e-12
    )
    np.testing.assert_allclose(reference.linear_flow_exponents(matrix), np.sort(values.real)[::-1], atol=1e-12)
    turn = np.array([[0.0, -2.0], [2.0, 0.0]])
    np.testing.assert_allclose(reference.linear_map_exponents(turn), np.log([2.0, 2.0]), rtol=1e-14)


def test_derivative_of_linear_exponents_is_that_of_a_simple_eigenvalue(x64):
    matrix = jnp.array([[1.0, 0.3], [0.2, 0.5]])
    derivative = jax.grad(lambda a: reference.linear_flow_exponents(a)[0])(matrix)
    np.testing.assert_allclose(np.trace(derivative), 1.0, rtol=1e-12)  # shifting A by c shifts all exponents by c
    for i, j in np.ndindex(2, 2):
        h = np.zeros((2, 2))
        h[i, j] = 1e-6
        difference = reference.linear_flow_exponents(matrix + h)[0] - reference.linear_flow_exponents(matrix - h)[0]
        np.testing.assert_allclose(derivative[i, j], difference / 2e-6, rtol=1e-7)


@pytest.mark.parametrize("mu", [0.7, -0.4])
def test_stuart_landau_exponents_agree_with_the_variational_equation(x64, mu):
    omega, period = 1.5, 2 * np.pi / 1.5

    def field(t, y):
        x, v = y[:2], y[2:].reshape(2, 2)
        spin = np.array([[mu, -omega], [omega, mu]])
        jacobian = spin - (x @ x) * np.eye(2) - 2 * np.outer(x, x)
        return np.concatenate([spin @ x - (x @ x) * x, (jacobian @ v).ravel()])

    start = np.concatenate([[max(mu, 0) ** 0.5, 0.0], np.eye(2).ravel()])
    end = solve_ivp(field, (0, period), start, rtol=1e-11, atol=1e-13).y[2:, -1].reshape(2, 2)
    expected = np.sort(np.log(np.abs(np.linalg.eigvals(end))))[::-1] / period
    np.testing.assert_allclose(reference.stuart_landau_exponents(mu), expected, atol=1e-8)


def test_exponent_sums_are_divergences(x64):
    def lorenz63(y):
        return jnp.stack([10 * (y[1] - y[0]), y[0] * (28 - y[2]) - y[1], y[0] * y[1] - 8 / 3 * y[2]])

    def lorenz96(y):
        return (jnp.roll(y, -1) - jnp.roll(y, 2)) * jnp.roll(y, 1) - y + 8

    def roessler(y):
        return jnp.stack([-y[1] - y[2], y[0] + 0.2 * y[1], 0.2 + y[2] * (y[0] - 5.7)])

    for field, dim, total in [
        (lorenz63, 3, lambda y: reference.lorenz63_exponent_sum()),
        (lorenz96, 6, lambda y: reference.lorenz96_exponent_sum(6)),
        (roessler, 3, lambda y: reference.roessler_exponent_sum(0.2, 5.7, y[0])),
    ]:
        y = jnp.asarray(np.random.default_rng(dim).normal(size=dim))
        np.testing.assert_allclose(jnp.trace(jax.jacfwd(field)(y)), total(y), rtol=1e-14)
    np.testing.assert_allclose(reference.lorenz63_exponent_sum(), -41 / 3, rtol=1e-15)
    assert reference.lorenz96_exponent_sum(40) == -40


def test_gradient_descent_exponents_of_a_quadratic(x64):
    h = jnp.array([0.1, 3.0, 0.0])
    expected = np.sort(np.log(np.abs(np.linalg.eigvals(np.eye(3) - 0.9 * np.diag(h)))))[::-1]
    np.testing.assert_allclose(reference.gradient_descent_exponents(h, 0.9), expected, atol=1e-14)


def test_a_matrix_that_is_not_square_is_refused():
    with pytest.raises(ValueError, match=r"Argument `matrix` must be a square matrix, but its shape is \(2, 3\)"):
        reference.linear_map_exponents(jnp.ones((2, 3)))
