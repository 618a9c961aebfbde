import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from dynjax.linalg import effective_dimension


def diagonal_operator(d):
    return lx.FunctionLinearOperator(lambda v: d * v, jax.eval_shape(lambda: d), lx.symmetric_tag)


def exact(d, z):
    return jnp.sum(d / (d + z), axis=-1)


def test_agrees_with_dense_where_the_order_resolves_it(x64, key):
    d = 10.0 ** jnp.linspace(-4, 1, 400)
    z = jnp.array([0.03, 0.3])
    estimate = effective_dimension(diagonal_operator(d), z, num_probes=400, order=60, key=key)
    truth = exact(d, z[:, None])
    np.testing.assert_allclose(estimate.value, truth, rtol=0.02)
    assert jnp.all(jnp.abs(estimate.value - truth) < 4 * estimate.standard_error)
    single = effective_dimension(diagonal_operator(d), 0.3, num_probes=400, order=60, key=key)
    np.testing.assert_allclose(single.value, estimate.value[1], rtol=1e-9)


def test_intervals_cover(x64):
    d = 10.0 ** jnp.linspace(-4, 1, 60)

    def covered(key):
        low, high = effective_dimension(diagonal_operator(d), 0.05, num_probes=10, order=20, key=key).interval(0.95)
        return (low <= exact(d, 0.05)) & (exact(d, 0.05) <= high)

    assert jnp.mean(jax.jit(jax.vmap(covered))(jax.random.split(jax.random.key(2), 200))) >= 0.9


def test_an_order_too_small_shows_in_the_error(x64, key):
    """Sixty nodes cannot resolve z = 1e-5 of the largest eigenvalue; the Gauss rule alone is off by 36 of 214 here."""
    d = 10.0 ** jnp.linspace(-6, 1, 300)
    estimate = effective_dimension(diagonal_operator(d), 1e-4, num_probes=100, order=60, key=key)
    assert estimate.standard_error > 5
    assert abs(estimate.value - exact(d, 1e-4)) < 2 * estimate.standard_error


@pytest.mark.parametrize("order", [1, 2, 3, 12])
def test_deficient_and_zero_operators(x64, key, order):
    d = jnp.zeros(40).at[:2].set(jnp.array([3.0, 1.0]))
    estimate = effective_dimension(diagonal_operator(d), 1.0, num_probes=200, order=order, key=key)
    assert abs(estimate.value - 1.25) < 4 * estimate.standard_error
    zero = effective_dimension(diagonal_operator(jnp.zeros(40)), 1.0, num_probes=3, order=order, key=key)
    np.testing.assert_allclose(zero.value, 0, atol=1e-12)


def test_bad_input_is_one_sentence(key):
    operator = diagonal_operator(jnp.ones(3))
    with pytest.raises(ValueError, match="Argument `regularisation` must be positive"):
        effective_dimension(operator, -1.0, num_probes=2, order=2, key=key)
    with pytest.raises(ValueError, match="Argument `order` must be at least 1"):
        effective_dimension(operator, 1.0, num_probes=2, order=0, key=key)
