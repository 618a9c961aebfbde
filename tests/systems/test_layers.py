"""Layer stacks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynjax._core import Status
from dynjax.systems import LayerMap, evolve, trajectory


class Layer(eqx.Module):
    linear: eqx.nn.Linear
    scale: float = eqx.field(static=True)

    def __init__(self, key, width=5, scale=0.7):
        self.linear = eqx.nn.Linear(width, width, key=key)
        self.scale = scale

    def __call__(self, x):
        return x + self.scale * jnp.tanh(self.linear(x))


def layers(depth=6, **kwargs):
    return [Layer(key, **kwargs) for key in jax.random.split(jax.random.key(0), depth)]


def test_evolving_through_all_layers_is_the_network(x64):
    stack = layers()
    x = jnp.linspace(-1.0, 1.0, 5)
    expected = x
    for layer in stack:
        expected = layer(expected)
    for built in (LayerMap(stack), LayerMap(tuple(stack))):
        assert built.depth == 6
        np.testing.assert_allclose(evolve(built, x, num_steps=6), expected, rtol=1e-12)
        np.testing.assert_allclose(built.step(4, x), stack[4](x), rtol=1e-12)


def test_a_stacked_module_is_taken_as_it_is(x64):
    keys = jax.random.split(jax.random.key(0), 6)
    stacked = LayerMap(eqx.filter_vmap(Layer)(keys))
    x = jnp.linspace(-1.0, 1.0, 5)
    np.testing.assert_allclose(evolve(stacked, x, num_steps=6), evolve(LayerMap(layers()), x, num_steps=6), rtol=1e-12)


def test_the_weights_can_be_differentiated(x64):
    x = jnp.linspace(-1.0, 1.0, 5)
    stack = layers()

    def loss(stack):
        return jnp.sum(evolve(LayerMap(stack), x, num_steps=6) ** 2)

    def direct(stack):
        y = x
        for layer in stack:
            y = layer(y)
        return jnp.sum(y**2)

    for a, b in zip(
        jax.tree_util.tree_leaves(eqx.filter_grad(loss)(stack)),
        jax.tree_util.tree_leaves(eqx.filter_grad(direct)(stack)),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)


def test_a_clock_beyond_the_depth_is_refused_or_marked(x64):
    stack = LayerMap(layers())
    x = jnp.ones(5)
    for n in (-1, 6):
        with pytest.raises(ValueError, match=f"`n` must be from 0 to 5, the depth less one, but found {n}"):
            stack.step(n, x)
        _, pushed = eqx.filter_jit(stack.tangent_step)(jnp.asarray(n), x, jnp.eye(5))
        assert bool(jnp.all(jnp.isnan(pushed)))
    assert int(trajectory(stack, x, num_steps=6).status) == Status.OK
    assert int(trajectory(stack, x, num_steps=7).status) == Status.NONFINITE


@pytest.mark.parametrize(
    ("build", "error", "sentence"),
    [
        (lambda: LayerMap([]), ValueError, "at least one layer"),
        (lambda: LayerMap([jnp.ones(3)]), TypeError, "callable layers"),
        (lambda: LayerMap(3), TypeError, "callable layers"),
        (lambda: LayerMap([*layers(2), *layers(1, width=4)]), ValueError, "layer 2 differs from layer 0"),
        (lambda: LayerMap([*layers(2), *layers(1, scale=0.5)]), ValueError, "layer 2 differs from layer 0"),
        (lambda: LayerMap(jnp.tanh), ValueError, "it holds no array"),
        (
            lambda: LayerMap(eqx.tree_at(lambda m: m.linear.bias, layers(1)[0], jnp.ones(3))),
            ValueError,
            r"the leading axes are \[3, 5\]",
        ),
    ],
)
def test_bad_layers_are_refused(build, error, sentence):
    with pytest.raises(error, match=sentence):
        build()


def test_changing_widths_are_refused():
    wide = LayerMap([eqx.nn.Linear(3, 4, key=key) for key in jax.random.split(jax.random.key(0), 2)])
    with pytest.raises(ValueError, match="shapes and dtypes"):
        evolve(wide, jnp.ones(3), num_steps=2)
