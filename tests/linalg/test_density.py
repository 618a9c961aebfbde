import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from dynjax.linalg import spectral_density
from dynjax.linalg._density import tridiagonalise
from dynjax.linalg._flat import flatten_operator
from dynjax.linalg._jacobi import small_eigh


def symmetric(matrix):
    return lx.MatrixLinearOperator(matrix, lx.symmetric_tag)


def diagonal_operator(d):
    return lx.FunctionLinearOperator(lambda v: d * v, jax.eval_shape(lambda: d), lx.symmetric_tag)


def test_moments_are_exact_up_to_twice_the_order(x64, key):
    order, n = 8, 60
    a = np.random.default_rng(0).normal(size=(n, n))
    a = jnp.asarray((a + a.T) / np.linalg.norm(a + a.T, 2))
    v = jax.random.normal(key, (n,))
    v = v / jnp.linalg.norm(v)
    alpha, beta = tridiagonalise(flatten_operator(symmetric(a)), v, order)
    nodes, vectors = small_eigh(jnp.diag(alpha) + jnp.diag(beta[:-1], 1) + jnp.diag(beta[:-1], -1))
    for p in range(2 * order):
        exact = v @ np.linalg.matrix_power(a, p) @ v
        np.testing.assert_allclose(jnp.sum(vectors[:, 0] ** 2 * nodes**p), exact, atol=1e-13)
    # Degree 2 order is the first that is not exact: otherwise the test above would show nothing.
    assert abs(jnp.sum(vectors[:, 0] ** 2 * nodes ** (2 * order)) - v @ np.linalg.matrix_power(a, 2 * order) @ v) > 1e-7


def test_moments_of_the_operator_lie_within_their_error(x64, key):
    d = jnp.linspace(-1, 2, 400)
    density = spectral_density(diagonal_operator(d), num_probes=30, order=10, key=key)
    np.testing.assert_allclose(density.weights.sum(axis=1), 1, atol=1e-12)
    assert density.dim == 400
    for p in (1, 2, 5):
        estimate = density.moment(p)
        assert abs(estimate.value - jnp.mean(d**p)) < 4 * estimate.standard_error
    np.testing.assert_allclose(density.moment(0).value, 1, atol=1e-12)


def marchenko_pastur_cdf(x, aspect):
    low, high = (1 - aspect**0.5) ** 2, (1 + aspect**0.5) ** 2
    fine = low + (high - low) * (1 - np.cos(np.linspace(0, np.pi, 20001))) / 2
    mass = np.sqrt(np.maximum((high - fine) * (fine - low), 0)) / (2 * np.pi * aspect * fine)
    steps = np.concatenate([[0], np.cumsum((mass[1:] + mass[:-1]) / 2 * np.diff(fine))])
    return np.interp(x, fine, steps, left=0, right=1)


def test_marchenko_pastur_is_recovered(x64, key):
    n, aspect = 2000, 0.5
    x = jax.random.normal(key, (int(n / aspect), n), jnp.float32)
    gram = jnp.matmul(x.T, x, precision=jax.lax.Precision.HIGHEST).astype(jnp.float64) / (n / aspect)
    density = spectral_density(symmetric(gram), num_probes=10, order=80, key=jax.random.key(1))
    nodes, weights = np.asarray(density.nodes).ravel(), np.asarray(density.weights).ravel() / 10
    order = np.argsort(nodes)
    points = np.linspace(-0.1, 3.5, 4001)
    measured = np.interp(points, nodes[order], np.cumsum(weights[order]) - weights[order] / 2, left=0, right=1)
    distance = np.trapezoid(np.abs(measured - marchenko_pastur_cdf(points, aspect)), points)
    assert distance < 0.02
    grid = jnp.linspace(-0.5, 4, 2000)
    np.testing.assert_allclose(jnp.trapezoid(density.evaluate(grid), grid), 1, atol=1e-3)


def test_bands_cover_the_smoothed_density_as_often_as_they_say(x64):
    """90 % bands, 200 repeats, 25 points: the mean coverage of correlated points has a standard error below 2 %."""
    d = jnp.concatenate([jnp.linspace(-1, 1, 150), jnp.linspace(1.5, 3, 50)])
    grid, width = jnp.linspace(-1.2, 3.2, 25), 0.3
    exact = jnp.mean(jnp.exp(-(((grid[:, None] - d) / width) ** 2) / 2), axis=1) / (width * np.sqrt(2 * np.pi))

    def covered(key):
        density = spectral_density(diagonal_operator(d), num_probes=12, order=25, key=key)
        low, high = density.bands(grid, width, confidence=0.9)
        return (low <= exact) & (exact <= high)

    share = jnp.mean(jax.jit(jax.vmap(covered))(jax.random.split(jax.random.key(3), 200)))
    assert 0.85 <= share <= 0.95


def test_exhausted_space_is_padded_with_zero_weights(x64, key):
    d = jnp.zeros(60).at[:2].set(jnp.array([3.0, 2.0]))
    density = spectral_density(diagonal_operator(d), num_probes=4, order=10, key=key)
    assert density.nodes.shape == density.weights.shape == (4, 10)
    assert jnp.all(jnp.sum(density.weights > 0, axis=1) == 3)
    np.testing.assert_allclose(density.weights.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(jnp.max(density.nodes, axis=1), 3, atol=1e-12)
    zero = spectral_density(diagonal_operator(jnp.zeros(30)), num_probes=2, order=5, key=key)
    assert jnp.isfinite(zero.evaluate(jnp.linspace(-1, 1, 11))).all()
    assert not zero.nodes.any()


def test_no_node_repeats_in_float32(key):
    d = jnp.concatenate([jnp.array([100.0, 60.0, 30.0]), jnp.linspace(0, 1, 997)]).astype(jnp.float32)
    density = spectral_density(diagonal_operator(d), num_probes=3, order=80, key=key)
    assert jnp.all(jnp.sum(jnp.abs(density.nodes - 100) < 1, axis=1) == 1)


def test_log_density_survives_the_tails(x64, key):
    density = spectral_density(diagonal_operator(jnp.linspace(0, 1, 50)), num_probes=4, order=10, key=key)
    grid = jnp.array([0.5, 40.0])
    np.testing.assert_allclose(density.log_evaluate(grid, 0.1)[0], jnp.log(density.evaluate(grid, 0.1)[0]), rtol=1e-12)
    assert density.evaluate(grid, 0.1)[1] == 0
    assert -1e6 < density.log_evaluate(grid, 0.1)[1] < -1e3


def test_blocks_of_probes_give_the_same_rules(x64, key):
    operator = diagonal_operator(jnp.linspace(0, 1, 50))
    whole = spectral_density(operator, num_probes=5, order=6, key=key)
    parts = spectral_density(operator, num_probes=5, order=6, key=key, block_size=2)
    np.testing.assert_allclose(parts.nodes, whole.nodes, atol=1e-12)
    np.testing.assert_allclose(parts.weights, whole.weights, atol=1e-12)
    assert "5 probes of order 6" in str(whole)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"order": 0}, ValueError, "Argument `order` must be at least 1"),
        ({"num_probes": 0}, ValueError, "Argument `num_probes` must be at least 1"),
        ({"num_probes": 2.0}, TypeError, "Argument `num_probes` must be an int"),
        ({"block_size": 0}, ValueError, "Argument `block_size` must be at least 1"),
    ],
)
def test_bad_input_is_one_sentence(key, arguments, error, message):
    with pytest.raises(error, match=message):
        spectral_density(symmetric(jnp.eye(3)), **({"num_probes": 2, "order": 2, "key": key} | arguments))


def test_bad_width_power_and_operator(key):
    density = spectral_density(symmetric(jnp.eye(3)), num_probes=2, order=2, key=key)
    with pytest.raises(ValueError, match="Argument `width` must be positive"):
        density.evaluate(jnp.zeros(2), width=0.0)
    with pytest.raises(ValueError, match="Argument `p` must be an int, at least 0"):
        density.moment(-1)
    with pytest.raises(ValueError, match="Argument `operator` must be square"):
        spectral_density(lx.MatrixLinearOperator(jnp.ones((3, 4))), num_probes=2, order=2, key=key)
