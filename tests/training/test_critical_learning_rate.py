import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sgd_problems import at_zero, product, random_jacobian, tanh_network

from dynjax import curvature, reference
from dynjax._core import Status
from dynjax.training._critical_learning_rate import critical_learning_rate
from dynjax.training._sgd_stability import sgd_stability
from dynjax.training._stability_diagram import stability_diagram

ONE = {"a": jnp.array(1.0), "b": jnp.array(1.0)}


def on_product(squares, criterion="almost_sure", a=1.0):
    params = {"a": jnp.asarray(a, float), "b": jnp.asarray(1 / a, float)}
    return critical_learning_rate(product, params, jnp.sqrt(jnp.asarray(squares)), batch_size=1, criterion=criterion)


@pytest.mark.parametrize("a", [1.0, 1.3])
@pytest.mark.parametrize(("criterion", "expected"), [("almost_sure", 4 / 3), ("gd", 1.0), ("mean_square", 4 / 5)])
def test_the_three_thresholds_of_the_product_network(x64, a, criterion, expected):
    result = on_product((1.0, 3.0), criterion, a)
    np.testing.assert_allclose(result.value * (a**2 + a**-2), expected, rtol=1e-6)
    assert (float(result.standard_error), int(result.status), result.exact) == (0.0, Status.OK, True)


def test_further_crossings_are_reported(x64):
    result = on_product((1.0, 10.0))
    np.testing.assert_allclose(2 * result.value, 0.229843788, rtol=1e-8)
    np.testing.assert_allclose(2 * result.crossings, [0.229843788, 0.870156212, 1.1], rtol=1e-8)
    np.testing.assert_allclose(
        2 * result.crossings, np.sort(reference.scalar_sgd_thresholds(jnp.array([1.0, 10.0])).crossings)
    )


def test_batches_in_one_dimension_count_by_their_curvature(x64):
    result = critical_learning_rate(product, ONE, jnp.sqrt(jnp.array([1.0, 3.0, 3.0])), batch_size=2)
    expected = reference.scalar_sgd_thresholds(jnp.array([4.0, 4.0, 6.0]))
    np.testing.assert_allclose(result.value, expected.almost_sure, rtol=1e-12)


def test_the_gradient_descent_threshold_is_that_of_the_kernel(x64):
    predict, params, x = tanh_network(num_samples=9)
    top = np.linalg.eigvalsh(curvature.tangent_kernel(predict, params, x).as_matrix())[-1]
    for options in ({"batch_size": 2, "criterion": "gd"}, {"batch_size": 9}):
        np.testing.assert_allclose(critical_learning_rate(predict, params, x, **options).value, 18 / top, rtol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["iid", "reshuffle"])
def test_the_exponent_changes_sign_at_the_threshold(x64, scheme):
    problem = at_zero(random_jacobian(4, 8, scale=1.5, seed=3))
    key = jax.random.key(1)
    result = critical_learning_rate(*problem, batch_size=1, key=key, num_steps=20_000, scheme=scheme)
    around = sgd_stability(
        *problem,
        learning_rates=result.value * jnp.array([0.97, 1.0, 1.03]),
        batch_size=1,
        num_steps=100_000,
        key=jax.random.key(2),
        scheme=scheme,
    )
    assert around.exponent[0] < -5 * around.standard_error[0]
    assert around.exponent[2] > 5 * around.standard_error[2]
    allowed = result.slope * result.standard_error
    assert abs(around.exponent[1]) < 4 * jnp.hypot(allowed, around.standard_error[1])
    assert result.standard_error < 0.01 * result.value
    assert (int(result.status), result.exact) == (Status.OK, False)


@pytest.mark.slow
def test_the_order_of_the_thresholds_on_an_ill_conditioned_kernel(x64):
    # Below the threshold the exponent is the slow mode, almost zero; above it rises at once.
    left, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((20, 20)))
    problem = at_zero(left * np.geomspace(0.02, 10, 20))
    square = critical_learning_rate(*problem, batch_size=1, criterion="mean_square").value
    result = critical_learning_rate(*problem, batch_size=1, num_steps=30_000, key=jax.random.key(0))
    assert square <= result.value < 1.2 * square
    around = sgd_stability(
        *problem,
        learning_rates=result.value * jnp.array([0.9, 1.1]),
        batch_size=1,
        num_steps=100_000,
        key=jax.random.key(2),
    )
    assert around.exponent[0] < 0 < around.exponent[1]
    assert jnp.all(around.sign_confidence > 0.999)


@pytest.mark.slow
def test_the_diagram_agrees_with_its_parts(x64):
    problem = at_zero(random_jacobian(4, 8, scale=1.5, seed=3))
    rates = jnp.array([0.2, 0.9])
    diagram = stability_diagram(
        *problem, learning_rates=rates, batch_sizes=(1, 4), num_steps=4000, key=jax.random.key(0)
    )
    assert diagram.exponent.shape == diagram.mean_square_rate.shape == (2, 2)
    np.testing.assert_allclose(diagram.exponent[1], diagram.gd_exponent, rtol=1e-12)
    for i, size in enumerate((1, 4)):
        square = critical_learning_rate(*problem, batch_size=size, criterion="mean_square")
        np.testing.assert_allclose(diagram.mean_square_threshold[i], square.value, rtol=1e-9)
    gd = critical_learning_rate(*problem, batch_size=1, criterion="gd").value
    np.testing.assert_allclose([diagram.gd_threshold, diagram.almost_sure_threshold[1]], gd, rtol=1e-12)
    first = critical_learning_rate(*problem, batch_size=1, num_steps=20_000, key=jax.random.key(1))
    gap = abs(first.value - diagram.almost_sure_threshold[0])
    assert gap < 5 * jnp.hypot(first.standard_error, diagram.almost_sure_standard_error[0])
    assert "batch size 4" in str(diagram)


def test_bad_input_is_refused(x64):
    problem = at_zero(random_jacobian(4, 8))
    with pytest.raises(ValueError, match="Argument `criterion` must be one of"):
        critical_learning_rate(*problem, batch_size=1, criterion="median")
    with pytest.raises(ValueError, match="Argument `batch_size` must be an integer from 1"):
        critical_learning_rate(*problem, batch_size=5)
    with pytest.raises(ValueError, match='Argument `scheme` must be "iid" for the mean-square criterion'):
        critical_learning_rate(*problem, batch_size=1, criterion="mean_square", scheme="reshuffle")
    with pytest.raises(ValueError, match="Argument `batch_sizes` must hold at least one"):
        stability_diagram(*problem, learning_rates=[0.1], batch_sizes=(), num_steps=10, key=jax.random.key(0))
