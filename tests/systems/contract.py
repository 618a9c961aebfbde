"""What every system must do, as one function: `check_system(system, x0)`.

Used by the tests of each room that defines a system: `from systems.contract import check_system`.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dynjax.systems import AbstractSystem, evolve, tangent_space


def check_system(system, x0, *, start=3, num_tangents=3, key=None, rtol=1e-9, h=1e-6):
    """Run the whole contract; call it in double precision.

    Args:
        system: the system.
        x0: a state at step `start` at which the step is smooth.
        start: a step number.
        num_tangents: size of the tangent block.
        key: random key of the tangents.
        rtol: relative tolerance where two programs compute the same numbers.
        h: step of the central difference, small against the distance over which the derivative changes.
    """
    assert isinstance(system, AbstractSystem)
    key = jax.random.key(7) if key is None else key
    check_fixed_point(system, x0, start)
    check_steps_compose(system, x0, start, rtol)
    check_same_bits(system, x0, start)
    check_jit_equals_eager(system, x0, start, rtol)
    tangents = random_tangents(key, x0, num_tangents)
    check_tangent_primal(system, x0, start, tangents, rtol)
    check_tangent_is_linear(system, x0, start, tangents, rtol)
    check_central_difference(system, x0, start, tangents, h)
    check_vmap_equals_loop(system, x0, start, key, rtol)


def random_tangents(key, x0, k):
    """`k` stacked standard normal tangents of `x0`."""
    dynamic, _ = tangent_space(x0)
    leaves, treedef = jax.tree_util.tree_flatten(dynamic)
    draws = [
        jax.random.normal(jax.random.fold_in(key, i), (k, *leaf.shape), leaf.dtype) for i, leaf in enumerate(leaves)
    ]
    return jax.tree_util.tree_unflatten(treedef, draws)


def assert_close(a, b, rtol):
    """Equal structures, equal other leaves, inexact leaves within `rtol` of the size of the leaf."""
    assert jax.tree_util.tree_structure(a) == jax.tree_util.tree_structure(b)
    for p, q in zip(jax.tree_util.tree_leaves(a), jax.tree_util.tree_leaves(b), strict=True):
        if eqx.is_inexact_array(p):
            assert p.dtype == q.dtype
            scale = max(float(jnp.max(jnp.abs(p), initial=0.0)), 1e-12)
            np.testing.assert_allclose(np.asarray(p), np.asarray(q), rtol=rtol, atol=rtol * scale)
        else:
            assert bool(jnp.all(_bits(p) == _bits(q))) if eqx.is_array(p) else p == q


def check_fixed_point(system, x0, start):
    """Structure, shapes and dtypes are those of the state."""
    before = eqx.filter_eval_shape(lambda x: x, x0)
    after = eqx.filter_eval_shape(system.step, jnp.asarray(start), x0)
    assert jax.tree_util.tree_structure(before) == jax.tree_util.tree_structure(after)
    for a, b in zip(jax.tree_util.tree_leaves(before), jax.tree_util.tree_leaves(after), strict=True):
        assert not isinstance(a, jax.ShapeDtypeStruct) or (a.shape, a.dtype) == (b.shape, b.dtype)


def check_steps_compose(system, x0, start, rtol):
    """m + n steps are n steps after m, and `evolve` is a loop of `step`."""
    once = evolve(system, x0, num_steps=4, start=start)
    middle = evolve(system, x0, num_steps=2, start=start)
    assert_close(once, evolve(system, middle, num_steps=2, start=start + 2), rtol)
    step = eqx.filter_jit(system.step)
    x = x0
    for n in range(4):
        x = step(jnp.asarray(start + n), x)
    assert_close(once, x, rtol)


def check_same_bits(system, x0, start):
    """The same call twice gives the same bits: noise is a function of the step."""
    a, b = (evolve(system, x0, num_steps=4, start=start) for _ in range(2))
    for p, q in zip(jax.tree_util.tree_leaves(a), jax.tree_util.tree_leaves(b), strict=True):
        assert not eqx.is_array(p) or np.array_equal(np.asarray(_bits(p)), np.asarray(_bits(q)))


def check_jit_equals_eager(system, x0, start, rtol):
    """Compiled and step by step the numbers agree, whether the step number is traced or not."""
    eager = system.step(start, x0)
    assert_close(eager, eqx.filter_jit(system.step)(jnp.asarray(start), x0), rtol)


def check_tangent_primal(system, x0, start, tangents, rtol):
    """The state that `tangent_step` returns is that of `step`, and tangents keep their structure."""
    state, pushed = _push(system, start, x0, tangents)
    assert_close(eqx.filter_jit(system.step)(jnp.asarray(start), x0), state, rtol)
    assert jax.tree_util.tree_structure(pushed) == jax.tree_util.tree_structure(tangents)
    for p, q in zip(jax.tree_util.tree_leaves(pushed), jax.tree_util.tree_leaves(tangents), strict=True):
        assert (p.shape, p.dtype) == (q.shape, q.dtype)
        assert bool(jnp.all(jnp.isfinite(p)))


def check_tangent_is_linear(system, x0, start, tangents, rtol):
    """D(2 u - 3 v) = 2 D u - 3 D v for the first two tangents."""
    mixed = jax.tree_util.tree_map(lambda v: (2 * v[0] - 3 * v[1])[None], tangents)
    pushed = _push(system, start, x0, tangents)[1]
    expected = jax.tree_util.tree_map(lambda v: (2 * v[0] - 3 * v[1])[None], pushed)
    assert_close(expected, _push(system, start, x0, mixed)[1], rtol)


def check_central_difference(system, x0, start, tangents, h):
    """D v = (step(x + h v) - step(x - h v)) / 2h + O(h^2), over all leaves together."""
    pushed = _push(system, start, x0, tangents)[1]
    dynamic, frozen = tangent_space(x0)
    step = eqx.filter_jit(lambda x: tangent_space(system.step(jnp.asarray(start), x))[0])
    for k in range(jax.tree_util.tree_leaves(tangents)[0].shape[0]):
        tangent = jax.tree_util.tree_map(lambda v, k=k: v[k], tangents)
        ahead, behind = (
            step(eqx.combine(jax.tree_util.tree_map(lambda x, v, s=s: x + s * v, dynamic, tangent), frozen))
            for s in (h, -h)
        )
        difference = _flat(jax.tree_util.tree_map(lambda a, b: (a - b) / (2 * h), ahead, behind))
        exact = _flat(jax.tree_util.tree_map(lambda v, k=k: v[k], pushed))
        assert np.linalg.norm(difference - exact) <= 1e-6 * max(np.linalg.norm(exact), 1.0)


def check_vmap_equals_loop(system, x0, start, key, rtol):
    """A batch of states is a loop over states."""
    dynamic, frozen = tangent_space(x0)
    shifts = random_tangents(jax.random.fold_in(key, 1), x0, 3)
    batch = jax.tree_util.tree_map(lambda x, v: x + 1e-3 * v, dynamic, shifts)
    n = jnp.asarray(start)

    def step(x):
        return tangent_space(system.step(n, eqx.combine(x, frozen)))[0]

    together = jax.jit(jax.vmap(step))(batch)
    single = jax.jit(step)
    for k in range(3):
        alone = single(jax.tree_util.tree_map(lambda x, k=k: x[k], batch))
        assert_close(alone, jax.tree_util.tree_map(lambda x, k=k: x[k], together), rtol)


def _push(system, start, x0, tangents):
    return eqx.filter_jit(system.tangent_step)(jnp.asarray(start), x0, tangents)


def _flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree_util.tree_leaves(tree)])


def _bits(x):
    return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
