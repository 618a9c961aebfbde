"""The degree of vector fields for which it is known."""

import numpy as np
import pytest

from dynjax.propagation._degree import boundary_degree

SQUARE = (np.array([-1.1, -0.9]), np.array([1.2, 1.3]))
CUBE = (np.array([-1.0, -1.1, -0.9]), np.array([1.2, 1.0, 1.1]))


@pytest.mark.parametrize("power", [1, 2, 3, 7, 25])
@pytest.mark.parametrize("conjugate", [False, True])
def test_powers_of_a_complex_number_wind_as_often(power, conjugate):
    def field(x):
        z = (x[:, 0] + 1j * x[:, 1]) ** power
        z = z.conj() if conjugate else z
        return np.stack([z.real, z.imag], axis=1)

    assert boundary_degree(field, *SQUARE) == (-power if conjugate else power)


def test_a_zero_close_to_the_boundary_is_resolved():
    for offset in (1e-3, 1e-6, 1e-9):
        inside = np.array([1.2 - offset, 0.1])
        assert boundary_degree(lambda x, z=inside: x - z, *SQUARE) == 1
        outside = np.array([1.2 + offset, 0.1])
        assert boundary_degree(lambda x, z=outside: x - z, *SQUARE) == 0


def test_a_zero_on_the_boundary_leaves_no_degree():
    corner = SQUARE[0]
    assert boundary_degree(lambda x: x - corner, *SQUARE) is None


@pytest.mark.parametrize(
    ("matrix", "degree"), [((1, 1, 1), 1), ((1, -1, 1), -1), ((-1, -1, -1), -1), ((-3, 1, -0.2), 1)]
)
def test_linear_fields_in_space_have_the_sign_of_the_determinant(matrix, degree):
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    form = rotation @ np.diag(matrix) @ rotation.T
    assert boundary_degree(lambda x: x @ form, *CUBE) == degree


def test_the_degree_in_space_multiplies():
    """(z^n, w) has the degree n."""

    def field(x):
        z = (x[:, 0] + 1j * x[:, 1]) ** 3
        return np.stack([z.real, z.imag, x[:, 2]], axis=1)

    assert boundary_degree(field, *CUBE) == 3


def test_no_zero_means_degree_nought():
    assert boundary_degree(lambda x: x + 5, *CUBE) == 0
    assert boundary_degree(lambda x: x + 5, *SQUARE) == 0


def test_four_dimensions_have_none():
    assert boundary_degree(lambda x: x, -np.ones(4), np.ones(4)) is None
