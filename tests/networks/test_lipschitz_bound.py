"""Certified upper bounds on Lipschitz constants."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynjax.networks as nets
from dynjax.networks._activations import _CONSTANTS


def test_affine_maps_have_their_operator_norms(x64):
    weight = jnp.array([[1.0, -2.0], [0.5, 3.0]])
    assert float(nets.lipschitz_bound(nets.Affine(weight), "sup")) == 3.5
    expected = np.linalg.norm(np.asarray(weight), 2)
    np.testing.assert_allclose(nets.lipschitz_bound(nets.Affine(weight), "euclidean"), expected, rtol=1e-14)


def test_a_perceptron_has_the_product_of_its_norms(x64, key):
    model = nets.MLP((3, 5, 4, 2), activation=jax.nn.sigmoid, key=key)
    sup = np.prod([np.abs(np.asarray(w)).sum(1).max() for w in model.weights]) / 16
    euclidean = np.prod([np.linalg.norm(np.asarray(w), 2) for w in model.weights]) / 16
    np.testing.assert_allclose(nets.lipschitz_bound(model), sup, rtol=1e-14)
    np.testing.assert_allclose(nets.lipschitz_bound(model, "euclidean"), euclidean, rtol=1e-13)


@pytest.mark.parametrize("norm", ["sup", "euclidean"])
@pytest.mark.parametrize("num_delays", [0, 1, 2])
def test_no_jacobian_of_a_field_exceeds_its_bound(x64, key, norm, num_delays):
    field = nets.MLPField(2, num_delays=num_delays, time_dependent=True, key=key)
    bound = float(nets.lipschitz_bound(field, norm))
    blocks = 1 + num_delays
    x = jax.random.normal(jax.random.key(1), (500, blocks, 2))
    jacobians = jax.jit(jax.vmap(jax.jacfwd(lambda x: field(0.3, x[0], tuple(x[1:])))))(x)  # (500, 2, blocks, 2)
    if norm == "sup":
        attained = jnp.sum(jnp.abs(jacobians), axis=(2, 3)).max()  # sharp: the signs can be chosen
    else:
        attained = jnp.linalg.norm(jacobians.sum(2), ord=2, axis=(1, 2)).max()  # equal steps in all arguments
    assert 0.05 * bound < float(attained) <= bound * (1 + 1e-12)


def test_the_column_of_the_time_does_not_count(x64, key):
    field = nets.MLPField(2, time_dependent=True, key=key)
    larger = eqx.tree_at(lambda f: f.mlp.weights[0], field, field.mlp.weights[0].at[:, -1].mul(100))
    assert float(nets.lipschitz_bound(larger)) == float(nets.lipschitz_bound(field))


def test_a_lipschitz_field_is_bounded_in_both_norms(x64, key):
    for norm in ("sup", "euclidean"):
        field = nets.LipschitzField(0.7, norm, size=3, num_delays=1, hidden=(8, 8), key=key)
        other = "sup" if norm == "euclidean" else "euclidean"
        assert 0.05 < float(nets.lipschitz_bound(field, norm)) <= 0.7
        x = jax.random.normal(jax.random.key(1), (500, 2, 3))
        jacobians = jax.jit(jax.vmap(jax.jacfwd(lambda x, field=field: field(0.3, x[0], (x[1],)))))(x)
        attained = {
            "sup": jnp.sum(jnp.abs(jacobians), axis=(2, 3)).max(),
            "euclidean": jnp.linalg.norm(jacobians.sum(2), ord=2, axis=(1, 2)).max(),
        }
        for which in (norm, other):
            assert float(attained[which]) <= float(nets.lipschitz_bound(field, which)) * (1 + 1e-12)


def test_a_small_lipschitz_field_has_a_smaller_bound_than_its_constant(x64, key):
    field = nets.LipschitzField(0.7, size=3, num_delays=1, key=key)
    small = eqx.tree_at(lambda f: f.weights, field, tuple(0.01 * w for w in field.weights))
    assert float(nets.lipschitz_bound(small)) < 0.1


@pytest.mark.parametrize("activation", list(_CONSTANTS), ids=lambda a: getattr(a, "__name__", "scipy"))
def test_constants_of_activations_are_the_largest_slopes(x64, activation):
    grid = jnp.concatenate([jnp.linspace(-30, 30, 60_001), -jnp.geomspace(1e-9, 1, 1000), jnp.geomspace(1e-9, 1, 1000)])
    slopes = jnp.abs(jax.jit(jax.vmap(jax.grad(activation)))(grid))
    largest = float(jnp.max(slopes))
    assert largest <= _CONSTANTS[activation] * (1 + 1e-12)
    assert largest >= _CONSTANTS[activation] * (1 - 1e-4)


def test_an_unknown_activation_needs_its_constant(x64, key):
    square = lambda x: jnp.tanh(x) ** 2
    model = nets.MLP((2, 3, 1), activation=square, key=key)
    with pytest.raises(ValueError, match="`activation_lipschitz` must be given"):
        nets.lipschitz_bound(model)
    with pytest.raises(ValueError, match="`activation_lipschitz` must be positive"):
        nets.lipschitz_bound(model, activation_lipschitz=0.0)
    plain = nets.MLP((2, 3, 1), key=key)
    expected = 0.77 * nets.lipschitz_bound(plain)
    np.testing.assert_allclose(nets.lipschitz_bound(model, activation_lipschitz=0.77), expected, rtol=1e-14)


def test_modules_can_bring_their_own_bound():
    class Rotation(eqx.Module):
        def lipschitz_bound(self, norm):
            return jnp.asarray(1.0 if norm == "euclidean" else 2**0.5)

    assert float(nets.lipschitz_bound(Rotation(), "euclidean")) == 1.0


def test_unknown_modules_and_norms_are_refused(key):
    with pytest.raises(TypeError, match="method `lipschitz_bound"):
        nets.lipschitz_bound(jnp.sin)
    with pytest.raises(ValueError, match='`norm` must be "sup" or "euclidean"'):
        nets.lipschitz_bound(nets.MLP((2, 1), key=key), "l2")


def test_the_bound_can_be_differentiated(x64, key):
    gradient = jax.grad(lambda m: nets.lipschitz_bound(m, "euclidean"))(nets.MLP((3, 5, 2), key=key))
    assert all(bool(jnp.all(jnp.isfinite(w))) and bool(jnp.any(w != 0)) for w in gradient.weights)
