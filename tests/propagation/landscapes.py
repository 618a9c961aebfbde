"""Scalar maps with known critical points. Their coefficients are arrays, so that one family compiles once."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array


class Polynomial(eqx.Module):
    """Sum of coefficients[i, j] x^i y^j in two variables, up to the fourth power of each."""

    coefficients: Array

    @classmethod
    def of(cls, **terms):
        """From names such as x3y1=2.0."""
        table = np.zeros((5, 5))
        for name, value in terms.items():
            table[int(name[1]), int(name[3])] = value
        return cls(jnp.asarray(table))

    def __call__(self, point):
        x, y = point[0], point[1]
        column = sum(self.coefficients[:, j] * y**j for j in range(5))
        return sum(column[i] * x**i for i in range(5))


HIMMELBLAU = Polynomial.of(x4y0=1, x2y1=2, x2y0=-21, x0y4=1, x1y2=2, x0y2=-13, x1y0=-14, x0y1=-22, x0y0=170)


class Line(eqx.Module):
    """A polynomial in one variable."""

    coefficients: Array

    def __call__(self, point):
        return sum(self.coefficients[i] * point[0] ** i for i in range(5))


class Waves(eqx.Module):
    """Sum of cos(frequency x) over the coordinates plus a quadratic form."""

    frequencies: Array
    matrix: Array

    def __call__(self, point):
        return jnp.sum(jnp.cos(self.frequencies * point)) + point @ self.matrix @ point
