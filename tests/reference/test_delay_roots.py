import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import lambertw

from dynjax import reference


def characteristic(roots, a, b, tau):
    return roots - a - b * np.exp(-roots * tau)


def test_roots_agree_with_scipy_on_all_branches(x64):
    rng = np.random.default_rng(0)
    a, tau = 3 * rng.normal(size=500), 10 ** rng.uniform(-2, 1, 500)
    b = rng.choice([-1, 1], 500) * 10 ** rng.uniform(-4, 2, 500)
    z = b * tau * np.exp(-a * tau)
    away = np.abs(z * np.e + 1) > 1e-2  # SciPy fails to converge near the branch point
    a, b, tau, z = a[away], b[away], tau[away], z[away]
    exact = a[:, None] + lambertw(z[:, None], np.arange(-6, 7), tol=1e-15) / tau[:, None]
    exact = np.take_along_axis(exact, np.argsort(-exact.real, axis=1, kind="stable"), 1)[:, :7]
    found = jax.jit(jax.vmap(lambda a, b, tau: reference.delay_roots(a, b, tau, 7)))(a, b, tau)
    np.testing.assert_allclose(found.real, exact.real, rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(np.abs(found.imag), np.abs(exact.imag), rtol=1e-11, atol=1e-11)


def test_roots_solve_the_characteristic_equation_near_the_double_root(x64):
    # b tau exp(1 - a tau) = -1 at the double root -1/tau + a.
    for relative in (-1e-2, -1e-6, -1e-12, 0.0, 1e-12, 1e-6, 1e-2):
        b = -np.exp(-1) * (1 + relative)
        roots = np.asarray(reference.delay_roots(0.0, b, 1.0, 4))
        np.testing.assert_allclose(characteristic(roots, 0.0, b, 1.0), 0, atol=2e-15 * np.abs(roots).max())
        split = np.sqrt(2 * abs(relative))
        np.testing.assert_allclose(abs(roots[0] - roots[1]), 2 * split, rtol=0.02, atol=1e-7)
        assert (roots[0].imag > 0) == (relative > 0)


@pytest.mark.parametrize(("a", "b", "tau"), [(0.0, -0.5, 1.0), (0.3, 1.2, 2.0), (-1.0, -0.05, 0.7), (0.5, -9.0, 0.4)])
def test_no_root_is_missing_by_the_argument_principle(x64, a, b, tau):
    roots = np.asarray(reference.delay_roots(a, b, tau, 12))
    line = (roots.real[8] + roots.real[9]) / 2
    if abs(roots.real[8] - roots.real[9]) < 1e-9:  # between pairs
        line = (roots.real[9] + roots.real[10]) / 2
    height, right = 400.0, 50.0
    corners = [line - 1j * height, right - 1j * height, right + 1j * height, line + 1j * height, line - 1j * height]
    contour = np.concatenate([np.linspace(p, q, 200_001) for p, q in zip(corners[:-1], corners[1:], strict=True)])
    winding = np.unwrap(np.angle(characteristic(contour, a, b, tau)))
    assert round((winding[-1] - winding[0]) / (2 * np.pi)) == np.sum(roots.real > line)


def test_printed_exponents(x64):
    expected = np.repeat([-0.794023632344689, -2.772069015153082, -3.353351598811111], 2)
    np.testing.assert_allclose(reference.delay_exponents(0.0, -0.5, 1.0, 6), expected, rtol=1e-14)
    np.testing.assert_allclose(reference.delay_exponents(0.0, -1.0, 1.0, 1), [-0.318131505204764], rtol=1e-14)
    np.testing.assert_allclose(reference.delay_exponents(0.0, -np.pi / 4, 2.0, 2), 0, atol=1e-15)


def test_real_roots_come_alone_and_pairs_together(x64):
    positive = np.asarray(reference.delay_roots(0.1, 0.8, 1.0, 5))
    assert positive[0].imag == 0
    assert np.all(positive[1::2] == positive[2::2].conj())
    assert np.all(positive[1::2].imag > 0)
    two_real = np.asarray(reference.delay_roots(0.0, -0.3, 1.0, 4))
    assert np.all(two_real[:2].imag == 0)
    assert two_real[2] == two_real[3].conj()


def test_extreme_arguments(x64):
    np.testing.assert_allclose(reference.delay_roots(1.0, 0.0, 1.0, 2), [1.0, -np.inf])
    # exp(-a tau) is not a number of double precision here
    for a, b in ((-1000.0, 1.0), (-1000.0, -1.0)):
        roots = np.asarray(reference.delay_roots(a, b, 1.0, 5))
        np.testing.assert_allclose(
            np.log(-a + roots) + roots,
            np.log(b + 0j) + [0, 2j * np.pi, -2j * np.pi, 4j * np.pi, -4j * np.pi]
            if b > 0
            else np.log(abs(b)) + np.pi * np.array([1j, -1j, 3j, -3j, 5j]),
            atol=1e-11,
        )
    np.testing.assert_allclose(reference.delay_roots(1000.0, -1.0, 1.0, 1), [1000.0])
    np.testing.assert_allclose(reference.delay_roots(1000.0, 1.0, 1.0, 1), [1000.0])
    np.testing.assert_allclose(reference.delay_exponents(0.0, -1e-12, 1.0, 1), [-1e-12], rtol=1e-11)


def test_derivatives_are_implicit(x64):
    point = (0.2, -0.5, 0.9)

    def exponents(a, b, tau):
        return reference.delay_exponents(a, b, tau, 4)

    found = jax.jit(jax.jacrev(exponents, (0, 1, 2)))(*point)
    second = jax.jit(jax.jacfwd(jax.jacfwd(exponents, 2), 2))(*point)
    for i in range(3):
        h = np.eye(3)[i] * 1e-5
        difference = (exponents(*(point + h)) - exponents(*(point - h))) / 2e-5
        np.testing.assert_allclose(found[i], difference, rtol=1e-8, atol=1e-8)
    h = np.array([0, 0, 1e-4])
    bend = (exponents(*(point + h)) - 2 * exponents(*point) + exponents(*(point - h))) / 1e-8
    np.testing.assert_allclose(second, bend, rtol=1e-5, atol=1e-5)


def test_single_precision_follows_the_arguments():
    a, b, tau = (jnp.asarray(x, jnp.float32) for x in (0.0, -0.5, 1.0))
    roots = reference.delay_roots(a, b, tau, 4)
    assert roots.dtype == jnp.complex64
    np.testing.assert_allclose(roots.real, np.repeat([-0.79402363, -2.772069], 2), rtol=1e-6)


def test_bad_delays_are_refused():
    with pytest.raises(ValueError, match="Argument `delay` must be positive and finite"):
        reference.delay_roots(0.0, 1.0, 0.0, 3)
    with pytest.raises(ValueError, match="Argument `num_roots` must be an integer"):
        reference.delay_roots(0.0, 1.0, 1.0, 2.5)
