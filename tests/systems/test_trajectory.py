"""Orbits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynjax._core import Status
from dynjax.systems import Map, RandomMap, WhiteNoise, evolve, trajectory


def _logistic(n, x):
    return 3.7 * x * (1 - x)


def test_an_orbit_holds_both_ends_and_agrees_with_a_loop(x64):
    orbit = trajectory(Map(_logistic), jnp.asarray(0.3), num_steps=20, save_every=5)
    x, expected = 0.3, [0.3]
    for n in range(20):
        x = 3.7 * x * (1 - x)
        if (n + 1) % 5 == 0:
            expected.append(x)
    np.testing.assert_allclose(orbit.ys, expected, rtol=1e-12)
    np.testing.assert_array_equal(orbit.steps, [0, 5, 10, 15, 20])
    assert orbit.final == orbit.ys[-1]
    assert int(orbit.status) == Status.OK
    assert "5 states, steps 0 to 20" in str(orbit)


def test_an_orbit_goes_on_where_it_stopped(key):
    system = RandomMap(lambda x, noise: 0.5 * x + noise, WhiteNoise((), key=key))
    whole = evolve(system, jnp.zeros(()), num_steps=30)
    half = evolve(system, jnp.zeros(()), num_steps=12)
    np.testing.assert_array_equal(evolve(system, half, num_steps=18, start=12), whole)
    orbit = trajectory(system, half, num_steps=18, save_every=6, start=12)
    np.testing.assert_array_equal(orbit.final, whole)
    np.testing.assert_array_equal(orbit.steps, [12, 18, 24, 30])


def test_an_observable_is_saved_in_place_of_the_state():
    orbit = trajectory(Map(_logistic), jnp.asarray(0.3), num_steps=4, observe=lambda n, x: {"n": n, "square": x**2})
    np.testing.assert_array_equal(orbit.ys["n"], jnp.arange(5))
    plain = trajectory(Map(_logistic), jnp.asarray(0.3), num_steps=4)
    np.testing.assert_allclose(orbit.ys["square"], plain.ys**2, rtol=1e-6)


def test_orbits_over_initial_states_and_over_systems_equal_a_loop():
    starts = jnp.asarray([0.1, 0.2, 0.3])
    batch = jax.vmap(lambda x: evolve(Map(_logistic), x, num_steps=5))(starts)
    np.testing.assert_allclose(batch, [evolve(Map(_logistic), x, num_steps=5) for x in starts], rtol=1e-6)

    def family(rate):
        return evolve(Map(lambda n, x: rate * x * (1 - x)), jnp.asarray(0.3), num_steps=5)

    rates = jnp.asarray([2.5, 3.2])
    np.testing.assert_allclose(jax.vmap(family)(rates), [family(r) for r in rates], rtol=1e-6)


def test_a_blown_up_orbit_is_marked():
    orbit = trajectory(Map(lambda n, x: x**2), jnp.asarray(10.0), num_steps=20)
    assert int(orbit.status) == Status.NONFINITE


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"num_steps": 0}, "`num_steps` must be an integer of at least 1"),
        ({"num_steps": 10, "save_every": 3}, "`save_every` must divide `num_steps`, but 3 does not divide 10"),
        ({"num_steps": 2.0}, "`num_steps` must be an integer"),
    ],
)
def test_bad_counts_are_refused(kwargs, sentence):
    with pytest.raises(ValueError, match=sentence):
        trajectory(Map(_logistic), jnp.asarray(0.3), **kwargs)


def test_what_is_no_fixed_point_of_step_is_refused():
    with pytest.raises(ValueError, match="shapes and dtypes"):
        evolve(Map(lambda n, x: jnp.concatenate([x, x])), jnp.ones(2), num_steps=1)
    with pytest.raises(ValueError, match="structure"):
        evolve(Map(lambda n, x: (x, x)), jnp.ones(2), num_steps=1)
    with pytest.raises(TypeError, match="dynjax system"):
        evolve(_logistic, jnp.ones(2), num_steps=1)
    with pytest.raises(TypeError, match="must be a function"):
        Map(3)
