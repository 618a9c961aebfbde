"""Characteristic polynomials and the Routh test against eigenvalues."""

import jax
import numpy as np
import pytest

from dynjax.training._polynomial import characteristic_line, inside_unit_circle, shifted


@pytest.mark.parametrize("dim", range(1, 8))
def test_stability_agrees_with_eigenvalues(x64, dim):
    rng = np.random.default_rng(dim)
    matrices = rng.standard_normal((200, dim, dim)) * rng.uniform(0.2, 1.5, (200, 1, 1)) / np.sqrt(dim)
    columns = rng.standard_normal((200, dim))
    decide = jax.jit(jax.vmap(lambda a, r: inside_unit_circle(characteristic_line(a, r)[0])))
    radius = np.max(np.abs(np.linalg.eigvals(matrices)), axis=1)
    assert 20 < np.sum(radius < 1) < 195
    assert np.array_equal(decide(matrices - np.eye(dim), columns), radius < 1)


@pytest.mark.parametrize("dim", [1, 3, 6])
def test_line_of_polynomials_agrees_with_numpy(x64, dim):
    rng = np.random.default_rng(dim)
    a, r = rng.standard_normal((dim, dim)), rng.standard_normal(dim)
    p, q = characteristic_line(a, r)
    for s in (0.0, 0.7, -2.0):
        moved = a.copy()
        moved[:, 0] += s * r
        np.testing.assert_allclose(p + s * q, np.poly(moved)[::-1], rtol=1e-11, atol=1e-11)


def test_shift_moves_the_argument(x64):
    a = np.array([2.0, -1.0, 0.5, 3.0])
    y = np.linspace(-1, 1, 7)
    moved = np.polyval(np.asarray(shifted(a, 0.3))[::-1], y)
    np.testing.assert_allclose(moved, np.polyval(a[::-1], y + 0.3), rtol=1e-13)
