import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.linalg

from dynjax._core import Status
from dynjax.linalg import eigs
from dynjax.linalg._schur import eigenvalue_order, small_schur

DIM = 200


def operator(matrix):
    return lx.MatrixLinearOperator(jnp.asarray(matrix))


def function_operator(matrix):
    matrix = jnp.asarray(matrix)
    return lx.FunctionLinearOperator(lambda v: matrix @ v, jax.eval_shape(lambda: matrix[0]))


def best(values, k, which):
    score = np.abs(values) if which == "LM" else np.real(values)
    return values[np.lexsort((-np.imag(values), -np.round(score, 9)))][:k]


def spectrum(matrix):
    return np.linalg.eigvals(matrix)


def similar(block_matrix, rng, condition=10.0):
    """A matrix similar to the one given, by a transformation of that condition number."""
    n = len(block_matrix)
    p, q = (np.linalg.qr(rng.normal(size=(n, n)))[0] for _ in range(2))
    change = p * np.geomspace(1, condition, n) @ q
    return change @ block_matrix @ np.linalg.inv(change)


def rotation(modulus, angle):
    return modulus * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def matrix_with_pairs(rng, pairs, n=DIM):
    rest = np.diag(rng.uniform(-0.8, 0.8, n - 2 * len(pairs)))
    return similar(scipy.linalg.block_diag(*(rotation(*pair) for pair in pairs), rest), rng)


def explicit_residuals(matrix, result):
    return np.linalg.norm(matrix @ result.vectors.T - np.asarray(result.values) * result.vectors.T, axis=0)


@pytest.mark.parametrize("which", ["LM", "LR"])
def test_eigenvalues_agree_with_dense_linear_algebra(x64, which):
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(DIM, DIM)) / np.sqrt(DIM)
    result = eigs(operator(matrix), 4, which=which)
    assert int(result.status) == Status.OK
    np.testing.assert_allclose(result.values, best(spectrum(matrix), 4, which), atol=1e-9)


def test_eigenvalues_agree_with_arpack(x64):
    rng = np.random.default_rng(2)
    matrix = matrix_with_pairs(rng, [(1.1, 0.4), (1.05, 2.0)])
    result = eigs(operator(matrix), 4)
    expected = scipy.sparse.linalg.eigs(matrix, 4)[0]
    np.testing.assert_allclose(result.values, best(expected, 4, "LM"), atol=1e-10)
    assert int(result.num_products) <= 200


def test_residuals_are_those_of_the_returned_pairs(x64):
    rng = np.random.default_rng(3)
    matrix = similar(np.diag(np.linspace(-1, 1.2, DIM)) + np.diag(rng.normal(size=DIM - 1), 1), rng)
    result = eigs(operator(matrix), 4)
    np.testing.assert_allclose(explicit_residuals(matrix, result), result.residuals, atol=1e-13)
    assert np.all(np.asarray(result.residuals) <= 4e-11 * np.linalg.norm(matrix, 2))
    np.testing.assert_allclose(np.linalg.norm(result.vectors, axis=1), 1, rtol=1e-13)


def test_prescribed_complex_pairs_come_whole_and_in_order(x64):
    rng = np.random.default_rng(4)
    pairs = [(1.2, 0.3), (1.1, 1.3)]
    result = eigs(operator(matrix_with_pairs(rng, pairs)), 4)
    expected = [r * np.exp(sign * 1j * a) for r, a in pairs for sign in (1, -1)]
    np.testing.assert_allclose(result.values, expected, atol=1e-10)


@pytest.mark.slow
def test_a_wanted_number_that_cuts_a_pair_returns_its_upper_half(x64):
    rng = np.random.default_rng(5)
    result = eigs(operator(matrix_with_pairs(rng, [(1.3, 0.9), (1.2, 0.3), (1.1, 1.3)])), 3)
    np.testing.assert_allclose(result.values[2], 1.2 * np.exp(0.3j), atol=1e-10)
    assert bool(jnp.all(result.converged))


def test_pairs_of_equal_modulus_stay_neighbours(x64):
    rng = np.random.default_rng(6)
    result = eigs(operator(matrix_with_pairs(rng, [(1.1, 0.3), (1.1, 1.3)])), 4)
    values = np.asarray(result.values)
    np.testing.assert_allclose(values[1::2], np.conj(values[::2]), atol=1e-11)


def test_real_eigenvalues_and_vectors_are_real(x64):
    rng = np.random.default_rng(7)
    result = eigs(operator(similar(np.diag(np.linspace(-1, 1.3, DIM)), rng)), 4)
    assert np.all(np.imag(result.values) == 0)
    assert np.all(np.imag(result.vectors) == 0)


@pytest.mark.parametrize("size", [2, 3])
def test_jordan_blocks_are_found_to_a_root_of_the_precision(x64, size):
    rng = np.random.default_rng(8)
    rest = np.diag(rng.uniform(-0.8, 0.8, DIM - size))
    block = 1.2 * np.eye(size) + np.diag(np.ones(size - 1), 1)
    matrix = similar(scipy.linalg.block_diag(block, rest), rng, 2.0)
    result = eigs(operator(matrix), 4)
    values = np.asarray(result.values[:size])
    # The residual is at the tolerance all the same: the pairs are those of a matrix close by.
    assert np.all(np.asarray(result.residuals) <= 4e-11 * np.linalg.norm(matrix, 2))
    # An error e in the matrix moves the values by about e^(1/size), and their mean by about e.
    bound = np.max(result.residuals) + np.finfo(float).eps * np.linalg.norm(matrix, 2)
    assert np.max(np.abs(values - 1.2)) <= 10 * bound ** (1 / size)
    assert abs(np.mean(values) - 1.2) <= 1e3 * bound


def test_a_symmetric_operator_gives_the_values_of_lanczos(x64):
    values = jnp.linspace(0.0, 1.0, DIM) ** 2
    result = eigs(lx.FunctionLinearOperator(lambda v: values * v, jax.eval_shape(lambda: values)), 4)
    np.testing.assert_allclose(result.values, np.asarray(values)[::-1][:4], atol=1e-12)


@pytest.mark.parametrize("dim", [1, 32, 33])
def test_dimensions_around_the_size_of_the_basis(x64, dim):
    matrix = np.random.default_rng(dim).normal(size=(dim, dim))
    result = eigs(operator(matrix), 1, method="arnoldi")
    np.testing.assert_allclose(result.values, best(spectrum(matrix), 1, "LM"), atol=1e-11)
    everything = eigs(operator(matrix), dim)
    np.testing.assert_allclose(everything.values, best(spectrum(matrix), dim, "LM"), atol=1e-11)


@pytest.mark.slow
def test_dense_and_arnoldi_agree_where_both_run(x64):
    matrix = np.random.default_rng(9).normal(size=(60, 60))
    dense, iterated = (eigs(operator(matrix), 4, method=method) for method in ("dense", "arnoldi"))
    np.testing.assert_allclose(dense.values, iterated.values, atol=1e-9)
    np.testing.assert_allclose(explicit_residuals(matrix, dense), dense.residuals, atol=1e-12)


def test_operators_on_pytrees_give_vectors_of_their_structure(x64):
    matrix = np.random.default_rng(10).normal(size=(150, 150)) / 10
    flat = lambda tree: jnp.concatenate([tree["a"].ravel(), tree["b"][0]])
    tree = lambda v: {"a": v[:100].reshape(10, 10), "b": (v[100:],)}
    a = lx.FunctionLinearOperator(
        lambda t: tree(jnp.asarray(matrix) @ flat(t)), jax.eval_shape(lambda: tree(jnp.zeros(150)))
    )
    result = eigs(a, 2)
    np.testing.assert_allclose(result.values, best(spectrum(matrix), 2, "LM"), atol=1e-9)
    assert result.vectors["a"].shape == (2, 10, 10)
    assert result.vectors["b"][0].dtype == jnp.complex128


def test_nilpotent_and_zero_operators_end_at_once(x64):
    shift = function_operator(np.diag(np.arange(DIM - 1) < 1, 1).astype(float))
    for a in (function_operator(np.zeros((DIM, DIM))), shift):
        result = eigs(a, 2)
        assert int(result.status) == Status.OK
        assert np.max(np.abs(result.values)) <= 1e-7
        assert int(result.num_products) <= 40


def test_single_precision_reaches_its_tolerance():
    matrix = matrix_with_pairs(np.random.default_rng(11), [(1.2, 0.3)]).astype(np.float32)
    result = eigs(operator(matrix), 2)
    assert result.values.dtype == jnp.complex64
    assert int(result.status) == Status.OK
    np.testing.assert_allclose(result.values, 1.2 * np.exp([0.3j, -0.3j]), atol=1e-4)


def test_an_exhausted_budget_is_not_reported_as_convergence(x64):
    # A permutation: every eigenvalue has modulus 1, so there is nothing to converge to.
    result = eigs(operator(np.roll(np.eye(DIM), 1, axis=0)), 4, max_restarts=3)
    assert int(result.status) == Status.NOT_CONVERGED
    assert not np.any(result.converged)


def test_operators_that_are_not_finite_end_with_that_status(x64):
    matrix = np.full((DIM, DIM), np.nan)
    for method in ("arnoldi", "dense"):
        result = eigs(operator(matrix), 4, method=method)
        assert int(result.status) == Status.NONFINITE
        assert np.all(np.isnan(result.values))


def test_it_runs_under_jit_and_vmap(x64):
    rng = np.random.default_rng(12)
    matrices = np.stack([matrix_with_pairs(rng, [(1.1 + 0.1 * i, 1.0)], 120) for i in range(3)])
    results = jax.vmap(eqx.filter_jit(lambda m: eigs(lx.MatrixLinearOperator(m), 2)))(jnp.asarray(matrices))
    for i in range(3):
        np.testing.assert_allclose(results.values[i], (1.1 + 0.1 * i) * np.exp([1j, -1j]), atol=1e-9)


@pytest.mark.slow
def test_a_good_start_saves_products(x64):
    a = operator(similar(np.diag(np.linspace(-1, 1.05, DIM)), np.random.default_rng(13)))
    cold = eigs(a, 1, num_krylov=12)
    warm = eigs(a, 1, num_krylov=12, v0=jnp.real(cold.vectors[0]))
    assert int(warm.num_products) < int(cold.num_products)


def test_differentiation_is_refused(x64):
    with pytest.raises(NotImplementedError, match="carry no derivative"):
        jax.grad(lambda m: jnp.real(eigs(lx.MatrixLinearOperator(m)).values[0]))(jnp.eye(3))


def test_bad_input_is_refused(x64):
    a = operator(np.eye(5))
    with pytest.raises(TypeError, match="be a lineax linear operator"):
        eigs(np.eye(5))
    with pytest.raises(ValueError, match="be square"):
        eigs(operator(np.zeros((2, 3))))
    for options, match in [
        ({"k": 0}, "be between 1 and the dimension 5"),
        ({"k": 6}, "be between 1 and the dimension 5"),
        ({"which": "SM"}, '"LM" or "LR"'),
        ({"method": "qr"}, "`method`"),
        ({"tol": -1.0}, "`tol`"),
        ({"num_krylov": 3}, "`num_krylov`"),
        ({"max_restarts": 0}, "`max_restarts`"),
        ({"v0": jnp.zeros(4)}, "`v0`"),
        ({"v0": {"a": jnp.zeros(5)}}, "`v0`"),
    ]:
        with pytest.raises(ValueError, match=match):
            eigs(a, **options)
    with pytest.raises(TypeError, match="`k`"):
        eigs(a, 1.0)


@pytest.mark.parametrize(("n", "which"), [(1, "LM"), (2, "LM"), (3, "LR"), (17, "LM"), (17, "LR")])
def test_small_schur_is_a_schur_form_in_the_order_asked_for(x64, n, which):
    rng = np.random.default_rng(n)
    form = jax.jit(small_schur, static_argnums=1)
    for matrix in (rng.normal(size=(n, n)), np.eye(n) + np.diag(np.ones(n - 1), 1), np.zeros((n, n)), np.eye(n)[::-1]):
        schur = jax.tree_util.tree_map(np.asarray, form(jnp.asarray(matrix, float), which))
        product = schur.basis @ schur.triangle @ schur.basis.conj().T
        np.testing.assert_allclose(product, matrix, atol=1e-13 * n)
        np.testing.assert_allclose(schur.basis.conj().T @ schur.basis, np.eye(n), atol=1e-13 * n)
        score = np.abs(schur.values) if which == "LM" else np.real(schur.values)
        assert np.all(np.diff(score) <= 1e-12)


def test_the_order_keeps_partners_together(x64):
    values = jnp.asarray([1j, 1.0 + 1e-16j, -1j, np.exp(0.3j) * (1 + 2e-16), np.exp(-0.3j), -1.0])
    ordered = np.asarray(values[eigenvalue_order(values, "LM")])
    partners = [np.argmin(np.abs(ordered - np.conj(v))) for v in ordered]
    assert all(abs(i - j) <= 1 for i, j in enumerate(partners))
