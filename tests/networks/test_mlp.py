"""MLPs by width profile and their initialisations."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynjax.networks as nets


def test_output_is_the_composition_of_its_layers(x64, key):
    model = nets.MLP((3, 5, 4, 2), key=key)
    x = jax.random.normal(jax.random.key(1), (3,))
    h = np.asarray(x)
    for layer, (weight, bias) in enumerate(zip(model.weights, model.biases, strict=True)):
        h = np.asarray(weight) @ h + np.asarray(bias)
        h = np.tanh(h) if layer < 2 else h
    np.testing.assert_allclose(model(x), h, rtol=1e-13)


def test_every_leaf_is_a_parameter_so_plain_jax_works(key):
    model = nets.MLP((3, 5, 2), key=key)
    assert all(eqx.is_inexact_array(leaf) for leaf in jax.tree_util.tree_leaves(model))
    grads = jax.jit(jax.grad(lambda m: m(jnp.ones(3)).sum()))(model)
    assert grads.weights[0].shape == (5, 3)


def test_default_initialisation_is_uniform_within_the_fan_in_bound(x64, key):
    model = nets.MLP((400, 300), key=key)
    bound = 1 / 20
    assert float(jnp.abs(model.weights[0]).max()) <= bound
    assert float(jnp.abs(model.biases[0]).max()) <= bound
    draws = model.weights[0]
    # a uniform on +-b has variance b^2/3; the sample variance has standard error b^2 sqrt(4/45/n)
    assert abs(float(draws.var()) - bound**2 / 3) < 5 * bound**2 * np.sqrt(4 / 45 / draws.size)


@pytest.mark.parametrize(
    ("initializer", "variance"),
    [
        (nets.lecun_normal(), 1 / 300),
        (nets.he_normal(), 2 / 300),
        (nets.xavier_normal(1.9), 1.9**2 * 2 / 500),
    ],
)
def test_normal_initialisations_have_the_stated_variance(x64, key, initializer, variance):
    draws = initializer(key, (200, 300), jnp.float64)
    assert abs(float(draws.var()) - variance) < 5 * variance * np.sqrt(2 / draws.size)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_orthogonal_weights_have_orthonormal_rows_or_columns(x64, key, shape):
    weight = nets.orthogonal(2.0)(key, shape, jnp.float64)
    gram = weight.T @ weight if shape[0] >= shape[1] else weight @ weight.T
    np.testing.assert_allclose(gram, 4 * np.eye(min(shape)), atol=1e-12)


def test_per_layer_choices_are_taken(key):
    model = nets.MLP(
        (1, 7, 1), key=key, initializer=(nets.xavier_normal(1.9), nets.xavier_normal()), bias=(True, False)
    )
    assert model.biases[1] is None
    assert not np.any(model.biases[0])


def test_parameters_take_the_wanted_dtype(x64, key):
    model = nets.MLP((2, 3, 1), key=key, dtype=jnp.float32)
    assert {leaf.dtype for leaf in jax.tree_util.tree_leaves(model)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"widths": (3,)}, "at least two positive integers"),
        ({"widths": (3, 0, 1)}, "at least two positive integers"),
        ({"widths": (3, 2, 1), "bias": (True,)}, "one entry for each of the 2 layers"),
    ],
)
def test_bad_widths_are_refused(kwargs, sentence, key):
    with pytest.raises(ValueError, match=sentence):
        nets.MLP(**kwargs, key=key)


def test_a_batch_without_vmap_is_refused_with_advice(key):
    with pytest.raises(ValueError, match=r"jax\.vmap"):
        nets.MLP((3, 2), key=key)(jnp.ones((4, 3)))
