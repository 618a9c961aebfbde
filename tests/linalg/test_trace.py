import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from dynjax.linalg import diagonal, trace


def symmetric(matrix):
    return lx.MatrixLinearOperator(matrix, lx.symmetric_tag)


def with_spectrum(values, seed=0):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))
    matrix = (q * np.asarray(values)) @ q.T
    return jnp.asarray((matrix + matrix.T) / 2)


@pytest.mark.parametrize("method", ["hutchinson", "xtrace"])
def test_95_percent_intervals_cover_in_at_least_90_percent(x64, method):
    matrix = with_spectrum(1.0 / np.arange(1, 61))

    def covered(key):
        low, high = trace(symmetric(matrix), num_probes=20, key=key, method=method).interval(0.95)
        return (low <= jnp.trace(matrix)) & (jnp.trace(matrix) <= high)

    assert jnp.mean(jax.jit(jax.vmap(covered))(jax.random.split(jax.random.key(0), 200))) >= 0.9


@pytest.mark.parametrize("rank", [0, 1, 5, 10])
def test_xtrace_is_exact_up_to_rank_num_probes(x64, key, rank):
    matrix = with_spectrum(np.where(np.arange(50) < rank, 1.0 + np.arange(50), 0) * (-1.0) ** np.arange(50))
    estimate = trace(symmetric(matrix), num_probes=10, key=key, method="xtrace")
    np.testing.assert_allclose(estimate.value, jnp.trace(matrix), atol=1e-10)
    assert estimate.standard_error < 1e-10


def test_xtrace_beats_hutchinson_when_the_spectrum_decays(x64, key):
    matrix = with_spectrum(np.exp(-0.3 * np.arange(80)))
    plain = trace(symmetric(matrix), num_probes=42, key=key)
    better = trace(symmetric(matrix), num_probes=20, key=key, method="xtrace")  # the same number of products
    assert better.standard_error < plain.standard_error / 20
    assert abs(better.value - jnp.trace(matrix)) < 4 * better.standard_error
    assert abs(plain.value - jnp.trace(matrix)) < 4 * plain.standard_error


def test_more_probes_than_unknowns(x64, key):
    matrix = with_spectrum([3.0, -1.0, 0.5])
    np.testing.assert_allclose(trace(symmetric(matrix), num_probes=9, key=key, method="xtrace").value, 2.5, atol=1e-10)
    scalar = trace(symmetric(jnp.array([[4.0]])), num_probes=3, key=key, method="xtrace")
    np.testing.assert_allclose(scalar.value, 4.0)


def test_xtrace_in_float32_is_as_good_as_rounding(key):
    matrix = with_spectrum(np.where(np.arange(50) < 6, 2.0, 0)).astype(jnp.float32)
    estimate = trace(symmetric(matrix), num_probes=10, key=key, method="xtrace")
    np.testing.assert_allclose(estimate.value, 12.0, rtol=1e-4)


def test_diagonal_is_exact_for_diagonal_operators_and_a_pytree(x64, key):
    d = {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.array([-1.0, 7.0])}
    structure = jax.eval_shape(lambda: d)
    operator = lx.FunctionLinearOperator(
        lambda v: jax.tree_util.tree_map(jnp.multiply, d, v), structure, lx.symmetric_tag
    )
    estimate = diagonal(operator, num_probes=3, key=key)
    assert jax.tree_util.tree_all(jax.tree_util.tree_map(jnp.allclose, estimate.value, d))
    assert estimate.value["w"].shape == (2, 3)


def test_diagonal_intervals_cover(x64):
    matrix = with_spectrum(1.0 / np.arange(1, 41))

    def covered(key):
        low, high = diagonal(symmetric(matrix), num_probes=30, key=key).interval(0.95)
        return (low <= jnp.diagonal(matrix)) & (jnp.diagonal(matrix) <= high)

    share = jnp.mean(jax.jit(jax.vmap(covered))(jax.random.split(jax.random.key(1), 200)))
    assert 0.93 <= share <= 0.97


def test_trace_is_differentiable_in_the_operator(x64, key):
    value = lambda s: trace(symmetric(s * jnp.diag(jnp.arange(5.0))), num_probes=4, key=key).value
    np.testing.assert_allclose(jax.grad(value)(2.0), 10.0, rtol=1e-12)


def test_one_probe_has_no_error_bar(key):
    assert jnp.isinf(trace(symmetric(jnp.eye(4)), num_probes=1, key=key).standard_error)
    assert "samples" in str(trace(symmetric(jnp.eye(4)), num_probes=2, key=key))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_probes": 0}, "Argument `num_probes` must be at least 1"),
        ({"method": "exact"}, "Argument `method` must be"),
        ({"operator": lx.MatrixLinearOperator(jnp.ones((2, 3)))}, "Argument `operator` must be square"),
    ],
)
def test_bad_input_is_one_sentence(key, arguments, message):
    arguments = {"operator": symmetric(jnp.eye(3)), "num_probes": 2, "key": key} | arguments
    operator = arguments.pop("operator")
    with pytest.raises(ValueError, match=message):
        trace(operator, **arguments)


def test_bad_confidence(key):
    with pytest.raises(ValueError, match="Argument `confidence` must be between 0 and 1"):
        trace(symmetric(jnp.eye(3)), num_probes=2, key=key).interval(1.0)
