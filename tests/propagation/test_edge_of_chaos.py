"""The edge of chaos, depth scales, and initialisations that start there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

import dynjax as dj
from dynjax import reference
from dynjax.propagation import critical_initializer, critical_weight_scale, mean_field_propagation

ROWS = [
    (0.01, 1.4242052905, 0.2733009),
    (0.05, 1.7609546396, 0.5700479),
    (0.1, 1.9860726411, 0.8057992),
    (0.3, 2.5051271897, 1.4611694),
]


@pytest.mark.parametrize(("bias_variance", "weight_variance", "fixed_point"), ROWS)
def test_the_critical_line_of_tanh(x64, bias_variance, weight_variance, fixed_point):
    """Row 44 of the table of reference values, and row 29 of that on mean-field limits."""
    found = critical_weight_scale(jnp.tanh, bias_variance=bias_variance)
    np.testing.assert_allclose(found.weight_variance, weight_variance, rtol=1e-10)
    np.testing.assert_allclose(found.fixed_point, fixed_point, atol=6e-8)
    if bias_variance == 0.05:
        np.testing.assert_allclose(found, [1.760954639607, 0.570047881641], atol=1e-12)
    assert mean_field_propagation(jnp.tanh, *found[:1], bias_variance).phase == "critical"


def test_edges_without_biases(x64):
    assert critical_weight_scale(jnp.tanh).weight_variance == 1
    assert critical_weight_scale(jnp.tanh).fixed_point == 0
    for activation, variance in ((jax.nn.relu, 2.0), (jax.nn.identity, 1.0), (jax.nn.leaky_relu, 2 / (1 + 1e-4))):
        found = critical_weight_scale(activation)
        np.testing.assert_allclose(found.weight_variance, variance, rtol=1e-13)
        assert np.isnan(found.fixed_point)


def test_an_independent_solution_for_another_activation(x64):
    """The two conditions hold, by adaptive quadrature, for erf and for GELU."""
    gauss = lambda f: quad(lambda z: f(z) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi), -10, 10, epsabs=1e-12, limit=200)[
        0
    ]
    for activation in (jax.scipy.special.erf, jnp.arctan):
        variance, q = map(float, critical_weight_scale(activation, bias_variance=0.1))
        slope = jax.jit(jax.grad(activation))
        value = jax.jit(activation)
        np.testing.assert_allclose(
            variance * gauss(lambda z, s=slope, q=q: float(s(np.sqrt(q) * z)) ** 2), 1, atol=1e-9
        )
        power = gauss(lambda z, v=value, q=q: float(v(np.sqrt(q) * z)) ** 2)
        np.testing.assert_allclose(variance * power + 0.1, q, atol=1e-9)


def test_the_edge_is_differentiable(x64):
    edge = lambda b: critical_weight_scale(jnp.tanh, bias_variance=b).weight_variance
    step = 1e-5
    np.testing.assert_allclose(jax.grad(edge)(0.05), (edge(0.05 + step) - edge(0.05 - step)) / (2 * step), rtol=1e-7)
    np.testing.assert_allclose(jax.vmap(edge)(jnp.array([0.05, 0.1])), [1.7609546396, 1.9860726411], rtol=1e-10)


@pytest.mark.parametrize(
    ("sw2", "sb2", "exponent"), [(3.0, 0.05, 0.0948697), (1.0, 0.1, -0.1863739), (1.5, 0.05, -0.0316636)]
)
def test_exponents_of_wide_tanh_networks(x64, sw2, sb2, exponent):
    """Row 43; in the ordered phase all inputs end up alike, and the correlation decays as the perturbation does."""
    found = mean_field_propagation(jnp.tanh, sw2, sb2)
    np.testing.assert_allclose(found.exponent, exponent, atol=6e-8)
    assert found.phase == ("chaotic" if exponent > 0 else "ordered")
    if exponent < 0:
        assert found.correlation == 1
        np.testing.assert_allclose(found.correlation_depth, -1 / (2 * exponent), rtol=1e-5)
    else:
        assert 0 < found.correlation < 1
        assert 0 < found.correlation_slope < 1
    assert 0 < found.variance_slope < 1
    assert found.phase in str(found)


def test_the_correlation_of_two_inputs_in_a_wide_network(x64, key):
    """Eight networks of width 300: c* and q* within three standard errors plus 1/N."""
    sw2, sb2, width, depth = 3.0, 0.05, 300, 40
    theory = mean_field_propagation(jnp.tanh, sw2, sb2)

    def run(key):
        keys = jax.random.split(key, depth + 1)

        def layer(h, key):
            one, two = jax.random.split(key)
            weight = jax.random.normal(one, (width, width)) * jnp.sqrt(sw2 / width)
            return weight @ jnp.tanh(h) + jnp.sqrt(sb2) * jax.random.normal(two, (width, 1)), None

        h, _ = jax.lax.scan(layer, jax.random.normal(keys[0], (width, 2)), keys[1:])
        norms = jnp.mean(h**2, 0)
        return jnp.mean(norms), jnp.mean(h[:, 0] * h[:, 1]) / jnp.sqrt(norms[0] * norms[1])

    with jax.enable_x64(False):
        q, c = (np.array(values) for values in zip(*(jax.jit(run)(k) for k in jax.random.split(key, 8)), strict=True))
    assert abs(q.mean() - theory.variance) < 3 * q.std() / np.sqrt(7) + 3 / width
    assert abs(c.mean() - theory.correlation) < 3 * c.std() / np.sqrt(7) + 3 / width


@pytest.mark.parametrize("law", ["gaussian", "orthogonal"])
def test_networks_started_at_the_edge(x64, law, key):
    start = critical_initializer(jnp.tanh, bias_variance=0.05, law=law)
    model = dj.MLP((300, 300, 300), key=key, **start._asdict())
    np.testing.assert_allclose(jnp.mean(model.weights[0] ** 2) * 300, 1.7609546, rtol=0.02)
    np.testing.assert_allclose(jnp.mean(jnp.stack(model.biases) ** 2), 0.05, rtol=0.3)
    if law == "orthogonal":
        np.testing.assert_allclose(model.weights[0] @ model.weights[0].T, 1.760954639607 * np.eye(300), atol=1e-10)
    assert np.all(np.asarray(dj.MLP((3, 4, 2), key=key, **critical_initializer(jax.nn.relu)._asdict()).biases[0]) == 0)


def test_gaussian_layer_products_of_the_table(x64):
    """Row 28 of the mean-field table: the top exponent of products with entries of variance 1/N."""
    table = {1: -0.635181422731, 2: -0.288607832451, 10: -0.051660122001, 100: -0.005016666000}
    for width, exponent in table.items():
        np.testing.assert_allclose(reference.deep_linear_exponents(width, 1.0)[0], exponent, atol=1e-12)


def test_bad_arguments():
    with pytest.raises(TypeError, match="Argument `activation` must be a function"):
        critical_weight_scale(1.0)
    with pytest.raises(ValueError, match="bias_variance` must"):
        critical_weight_scale(jnp.tanh, bias_variance=-0.1)
    with pytest.raises(
        ValueError, match=r"Argument `bias_variance` must leave relu an edge of chaos, but at 0\.1 there is none"
    ):
        critical_weight_scale(jax.nn.relu, bias_variance=0.1)
    with pytest.raises(ValueError, match="weight_variance` must be positive"):
        mean_field_propagation(jnp.tanh, 0.0)
    with pytest.raises(ValueError, match='Argument `law` must be "gaussian" or "orthogonal"'):
        critical_initializer(jnp.tanh, law="uniform")
