"""Derivatives of exponents: right over independent factors, refused through chaos."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynjax as dj
from dynjax import systems
from dynjax.stability import lyapunov_spectrum
from dynjax.stability._guard import tangent_depends_on_state


def sgd_exponent(learning_rate, key, num_steps=4_000):
    system = dj.RandomMap(lambda w, x: w - learning_rate * x * (x @ w), dj.WhiteNoise((4,), key=key))
    return lyapunov_spectrum(system, jnp.ones(4), num_steps=num_steps, k=1).exponents[0]


def test_derivative_over_independent_factors_is_that_of_central_differences(x64):
    key = jax.random.key(0)
    slope = jax.jit(jax.grad(sgd_exponent))(jnp.asarray(0.3), key)
    h = 1e-6
    fn = jax.jit(sgd_exponent)
    difference = (fn(jnp.asarray(0.3 + h), key) - fn(jnp.asarray(0.3 - h), key)) / (2 * h)
    np.testing.assert_allclose(slope, difference, rtol=1e-5)
    forward = jax.jvp(lambda e: sgd_exponent(e, key), (jnp.asarray(0.3),), (jnp.asarray(1.0),))[1]
    np.testing.assert_allclose(forward, slope, rtol=1e-10)


def test_derivative_of_the_closed_form_is_met_within_its_error(x64):
    """Positive matrices keep all vectors in a cone, so that no term of the derivative is large: 16 runs agree with it."""
    pair = jnp.array([[[2.0, 1.0], [1.0, 1.0]], [[3.0, 1.0], [2.0, 1.0]]])

    def exponent(matrices, key):
        path = lambda n: matrices[jax.random.randint(jax.random.fold_in(key, n), (), 0, 2)]
        system = dj.RandomMap(lambda x, a: a @ x, path)
        return lyapunov_spectrum(system, jnp.zeros(2), num_steps=2_000, k=1).exponents[0]

    slopes = jax.jit(lambda keys: jax.lax.map(lambda key: jax.grad(exponent)(pair, key), keys))
    slopes = slopes(jax.random.split(jax.random.key(1), 16))
    exact = jax.grad(dj.reference.positive_product_exponent)(pair)
    error = jnp.std(slopes, axis=0, ddof=1) / 4
    assert np.all(error < 0.01 * jnp.abs(exact))
    assert np.all(jnp.abs(jnp.mean(slopes, axis=0) - exact) < 4 * error)


def test_derivative_of_a_growth_rate_is_exactly_one(x64):
    def exponent(rate):
        return lyapunov_spectrum(systems.linear_map(jnp.exp(rate)[None, None]), jnp.ones(1), num_steps=50).exponents[0]

    np.testing.assert_allclose(jax.grad(exponent)(jnp.asarray(0.2)), 1.0, rtol=1e-12)

    def of_flow(rate):
        flow = systems.linear_flow(rate[None, None], 0.01, method="dopri5")
        return lyapunov_spectrum(flow, jnp.ones(1), num_steps=50, qr_every=5).exponents[0]

    np.testing.assert_allclose(jax.grad(of_flow)(jnp.asarray(0.2)), 1.0, rtol=1e-8)


def logistic_exponent(r, **kwargs):
    return lyapunov_spectrum(systems.logistic(r), jnp.asarray(0.4), num_steps=500, **kwargs).exponents[0]


def test_derivative_through_chaos_is_refused_at_trace_time(x64):
    with pytest.raises(ValueError, match="Argument `differentiable` must be True"):
        jax.grad(logistic_exponent)(jnp.asarray(3.9))
    with pytest.raises(ValueError, match="Argument `differentiable` must be True"):
        jax.eval_shape(jax.grad(logistic_exponent), jnp.asarray(3.9))


def test_it_can_be_forced_and_is_then_as_bad_as_promised(x64):
    slope = jax.grad(lambda r: logistic_exponent(r, differentiable=True))(jnp.asarray(3.9))
    assert abs(float(slope)) > 1e20 or not np.isfinite(slope)


def test_values_through_chaos_are_not_touched_by_the_guard(x64):
    inside = jax.jit(logistic_exponent)(jnp.asarray(3.9))
    np.testing.assert_allclose(inside, logistic_exponent(3.9), atol=1e-6)


def test_the_guard_sees_which_tangents_depend_on_the_state():
    x = jnp.ones(2)
    noise = dj.WhiteNoise((2, 2), key=jax.random.key(0))
    assert not tangent_depends_on_state(dj.RandomMap(lambda x, a: a @ x, noise), x)
    assert not tangent_depends_on_state(dj.RandomMap(jax.jit(lambda x, a: a @ x + 1), noise), x)
    assert not tangent_depends_on_state(systems.linear_flow(jnp.eye(2)), x)
    assert tangent_depends_on_state(systems.henon(), x)
    assert tangent_depends_on_state(systems.lorenz63(), jnp.ones(3))
    assert tangent_depends_on_state(dj.RandomMap(lambda x, a: jax.nn.relu(a @ x), noise), x)


def captured_logistic_exponent(r, **kwargs):
    """The parameter is held by the function and is no leaf of the system."""
    system = dj.Map(lambda n, x: r * x * (1 - x))
    return lyapunov_spectrum(system, jnp.asarray(0.4), num_steps=100, **kwargs).exponents[0]


@pytest.mark.parametrize(
    "derivative", [jax.grad, jax.jacfwd, lambda fn: jax.jit(jax.grad(fn)), lambda fn: jax.grad(jax.jit(fn))]
)
def test_a_parameter_that_a_function_holds_does_not_slip_through(x64, derivative):
    with pytest.raises(ValueError, match="Argument `differentiable` must be True"):
        derivative(captured_logistic_exponent)(3.9)


def test_a_parameter_that_a_function_holds_can_be_mapped_and_differentiated_where_that_is_right(x64):
    mapped = jax.vmap(captured_logistic_exponent)(jnp.array([3.2, 3.9]))
    loop = [captured_logistic_exponent(r) for r in (3.2, 3.9)]
    np.testing.assert_allclose(mapped, loop, rtol=1e-9)
    growth = lambda a: lyapunov_spectrum(dj.Map(lambda n, x: jnp.exp(a) * x), jnp.zeros(()), num_steps=50).exponents[0]
    np.testing.assert_allclose(jax.grad(growth)(0.2), 1.0, rtol=1e-12)
