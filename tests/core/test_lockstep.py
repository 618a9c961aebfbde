"""Lanes in lock-step: what is skipped, and that nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynjax._core import any_lane, cond_any_lane, tree_where


def test_a_loop_runs_until_the_last_lane_has_ended(x64):
    def count(limit):
        def turn(state):
            active = state[0] < limit
            return jnp.where(active, state[0] + 1, state[0]), state[1] + 1

        return jax.lax.while_loop(lambda state: any_lane(state[0] < limit), turn, (jnp.asarray(0), jnp.asarray(0)))

    assert [int(x) for x in count(3)] == [3, 3]
    own, turns = jax.jit(jax.vmap(count))(jnp.array([2, 5, 0]))
    assert own.tolist() == [2, 5, 0]
    assert turns.tolist() == [5, 5, 5]
    own, turns = jax.vmap(jax.vmap(count))(jnp.array([[2, 5], [7, 1]]))
    assert own.tolist() == [[2, 5], [7, 1]]
    assert set(turns.ravel().tolist()) == {7}


@pytest.mark.parametrize("conditions", [[True, False, True], [False] * 3, [True] * 3])
def test_branches_agree_with_cond_and_are_left_out(x64, conditions):
    calls = []

    def costly(x):
        jax.debug.callback(lambda _: calls.append(1), x)
        return jnp.sin(x)

    x, taken = jnp.array([0.3, 0.5, 0.7]), jnp.array(conditions)
    choose = lambda x, taken: cond_any_lane(taken, costly, jnp.cos, x)
    found = jax.jit(jax.vmap(choose))(x, taken)
    jax.effects_barrier()
    np.testing.assert_array_equal(found, jax.vmap(lambda x, c: jax.lax.cond(c, jnp.sin, jnp.cos, x))(x, taken))
    assert bool(calls) == any(conditions)


def test_derivatives_pass_in_both_modes(x64):
    def function(x, n):
        body = lambda c, i: (cond_any_lane(i < n, lambda c: jnp.sin(c) * x, lambda c: c, c), None)
        return jax.lax.scan(body, x, jnp.arange(4))[0]

    x, n = jnp.array([0.5, 0.6, 0.7]), jnp.array([2, 4, 0])
    one_by_one = [float(jax.grad(function)(a, b)) for a, b in zip(x, n, strict=True)]
    together = lambda x: jax.vmap(function)(x, n)
    np.testing.assert_allclose(jnp.diag(jax.jacrev(together)(x)), one_by_one, rtol=1e-14)
    np.testing.assert_allclose(jnp.diag(jax.jacfwd(together)(x)), one_by_one, rtol=1e-14)


def test_tree_where_keeps_what_is_no_array():
    new, old = {"a": jnp.ones(2), "f": jnp.sin}, {"a": jnp.zeros(2), "f": jnp.cos}
    chosen = tree_where(jnp.array([True, False]), new, old)
    assert chosen["a"].tolist() == [1, 0]
    assert chosen["f"] is jnp.cos
