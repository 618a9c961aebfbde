"""Static parts, status codes and argument checks."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynjax._core import (
    Function,
    Status,
    check_positive,
    check_scalar_loss,
    freeze,
    is_concrete,
    status_of_diffrax,
    thaw,
)


def test_freeze_and_thaw_are_inverse():
    tree = {"w": jnp.ones(2), "fn": jnp.tanh, "name": "layer", "none": None}
    arrays, static = freeze(tree)
    back = thaw(arrays, static)
    assert back["fn"] is jnp.tanh
    assert back["name"] == "layer"
    assert back["none"] is None
    np.testing.assert_array_equal(back["w"], tree["w"])


def test_static_parts_of_equal_trees_are_equal_so_nothing_is_traced_again():
    traces = []

    @eqx.filter_jit
    def call(fn, x):
        traces.append(1)
        return fn(x)

    for scale in (1.0, 2.0, 3.0):
        fn = Function(eqx.nn.Lambda(jnp.tanh))
        call(fn, scale * jnp.ones(2))
    assert len(traces) == 1


def test_a_function_passes_through_plain_jit_and_vmap():
    net = eqx.nn.Linear(2, 3, key=jax.random.key(0))
    wrapped = Function(net)
    x = jnp.ones(2)
    np.testing.assert_allclose(jax.jit(lambda f, x: f(x))(wrapped, x), net(x), rtol=1e-6)
    stacked = jax.tree_util.tree_map(lambda a: jnp.stack([a, 2 * a]), wrapped)
    np.testing.assert_allclose(jax.vmap(lambda f: f(x))(stacked)[1], 2 * net(x), rtol=1e-6)


def test_unhashable_static_parts_are_refused():
    with pytest.raises(TypeError, match="hashable"):
        freeze({"bad": {1, 2}})


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (lambda t, y, a: -y, Status.OK),
        (lambda t, y, a: y * jnp.nan, Status.NONFINITE),
        (lambda t, y, a: -1e6 * (y - jnp.cos(t)), Status.MAX_STEPS),
    ],
)
def test_diffrax_results_become_status_codes(field, expected):
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Tsit5(),
        0.0,
        1.0,
        0.1,
        jnp.ones(()),
        stepsize_controller=diffrax.PIDController(rtol=1e-5, atol=1e-5),
        max_steps=64,
        throw=False,
    )
    finite = jnp.isfinite(field(0.0, jnp.ones(()), None))
    status = jax.jit(lambda s, f: status_of_diffrax(s.result, f))(solution, finite)
    assert status.dtype == jnp.int8
    assert Status(int(status)) is expected


def test_status_numbers_never_change():
    names = ("RUNNING", "OK", "DIVERGED", "NONFINITE", "MAX_STEPS", "NOT_CONVERGED", "OOM", "TIMEOUT", "ERROR")
    names += ("INACCURATE",)
    assert [(s.name, int(s)) for s in Status] == list(zip(names, range(10), strict=True))


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        (lambda p, x: p @ x.T, "must return one scalar, but it returned shape"),
        (lambda p, x: (jnp.sum(p), x), "returned a tuple of length 2"),
        (lambda p, x: jnp.sum(p @ x), "must be callable as"),
        (lambda p: jnp.sum(p), "must be callable as"),
        (lambda p, x: jnp.sum(p).astype(int), "real floating-point"),
        (3.0, "must be a function"),
    ],
)
def test_a_bad_loss_is_named_in_one_sentence(loss, sentence):
    with pytest.raises((TypeError, ValueError), match=sentence) as info:
        check_scalar_loss(loss, jnp.ones((3, 2)), (jnp.ones((5, 2)),))
    assert len(str(info.value).splitlines()) == 1


def test_checks_pass_traced_values():
    @jax.jit
    def fn(x):
        assert not is_concrete(x)
        check_positive(x, "x")
        return x

    fn(-1.0)
    with pytest.raises(ValueError, match="Argument `x` must be positive and finite, but found -1"):
        check_positive(-1.0, "x")
