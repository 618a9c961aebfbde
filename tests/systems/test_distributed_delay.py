"""An equation with a distributed delay against its characteristic root."""

import jax.numpy as jnp
import pytest
from systems.delay_problems import characteristic, constant

from dynjax.systems import ddesolve, distributed_delay

pytestmark = pytest.mark.usefixtures("x64")


def test_integral_over_the_last_delay_decays_by_the_characteristic_root():
    # y' = -int_{t-1}^t y has solutions exp(s t) with s^2 = exp(-s) - 1.
    root = -1.25597589374643333 + 1.36963627214953217j
    assert abs(root**2 - (jnp.exp(-root) - 1)) < 1e-14
    p = distributed_delay(
        lambda t, y, integral, args: -integral, 0.0, 1.0, history=characteristic(root), window=(0.0, 1.0)
    )
    solution = ddesolve(p.vector_field, 0.0, 5.0, p.y0, history=p.history, delays=p.delays, rtol=1e-10, atol=1e-10)
    assert abs(solution.final[0] - 0.00158244746726138) < 1e-8
    assert abs(solution.final[1] + (root * jnp.exp(5 * root)).real) < 1e-8  # the integral is -y'


def test_a_window_in_the_past_has_two_delays():
    p = distributed_delay(
        lambda t, y, integral, args: -integral, 0.0, jnp.ones(2), history=constant([1.0, 1.0]), window=(0.5, 1.0)
    )
    assert p.delays == (0.5, 1.0)
    assert jnp.allclose(p.y0[1], 0.5, atol=1e-15)
    solution = ddesolve(p.vector_field, 0.0, 0.5, p.y0, history=p.history, delays=p.delays, rtol=1e-10, atol=1e-10)
    assert jnp.allclose(solution.final[0], 0.75, atol=1e-12)  # the window still lies before 0


def test_a_window_that_is_none_is_named():
    for window in ((1.0, 0.5), (-0.1, 1.0), (1.0, 1.0)):
        with pytest.raises(ValueError, match="Argument `window` must be ages"):
            distributed_delay(lambda t, y, z, args: -z, 0.0, 1.0, history=constant(1.0), window=window)
