"""Operators over batches against the operators of all data, and the check that every pass reads the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynjax as dj
from dynjax.curvature import streamed, streamed_eigsh


@pytest.fixture
def problem(x64):
    """A network of 93 parameters on 70 samples."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((70, 4)), rng.standard_normal((70, 3))
    return dj.MLP((4, 10, 3), key=jax.random.key(0), dtype=jnp.float64), x, y


def loss(model, x, y):
    return jnp.mean(jnp.sum((jax.vmap(model)(x) - y) ** 2, -1))


def pieces(x, y, size=16):
    """Batches of 16 with a rest of 6."""
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]


@pytest.mark.parametrize("kind", ["hessian", "gauss_newton"])
def test_batches_give_the_operator_of_all_samples(problem, kind):
    model, x, y = problem
    if kind == "hessian":
        build = lambda x, y: dj.hessian(loss, model, x, y)
    else:
        half = lambda f, y: jnp.mean(jnp.sum((f - y) ** 2, -1))
        build = lambda x, y: dj.gauss_newton(lambda m, x: jax.vmap(m)(x), half, model, x, y)
    whole = build(jnp.asarray(x), jnp.asarray(y))
    parts = streamed(build, pieces(x, y))
    vector = jax.tree_util.tree_map(
        lambda s: jnp.cos(jnp.arange(s.size, dtype=s.dtype)).reshape(s.shape), whole.in_structure()
    )
    for found, expected in zip(*map(jax.tree_util.tree_leaves, (parts.mv(vector), whole.mv(vector))), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)
    spectrum = np.linalg.eigvalsh(np.asarray(whole.as_matrix()))[::-1]
    top = streamed_eigsh(parts, k=3)
    np.testing.assert_allclose(top.values, spectrum[:3], rtol=1e-10)
    assert bool(top.converged.all())
    assert int(top.status) == dj.Status.OK
    assert float(top.residuals.max()) < 1e-9
    low = streamed_eigsh(parts, k=2, which="smallest", check=False)
    np.testing.assert_allclose(low.values, spectrum[-2:], rtol=1e-9, atol=1e-10)
    # The vectors are a pytree like the parameters.
    again = jax.vmap(whole.mv)(top.vectors)
    for a, v in zip(*map(jax.tree_util.tree_leaves, (again, top.vectors)), strict=True):
        np.testing.assert_allclose(a, top.values.reshape(-1, *[1] * (v.ndim - 1)) * v, atol=1e-8)


def test_products_are_compiled_once_for_each_shape(problem):
    model, x, y = problem
    traced = []

    def counted(model, x, y):
        traced.append(x.shape)
        return loss(model, x, y)

    parts = streamed(lambda x, y: dj.hessian(counted, model, x, y), pieces(x, y))
    vector = jax.tree_util.tree_map(lambda s: jnp.ones(s.shape, s.dtype), parts.in_structure())
    parts.mv(vector)
    before = len(traced)
    parts.mv(vector)
    assert len(traced) == before


def test_a_budget_that_is_used_up_is_said(problem):
    model, x, y = problem
    parts = streamed(lambda x, y: dj.hessian(loss, model, x, y), pieces(x, y))
    found = streamed_eigsh(parts, k=2, max_products=3, check=False)
    assert int(found.status) == dj.Status.NOT_CONVERGED
    assert not bool(found.converged.all())
    assert int(found.num_products) == 5


def test_a_space_that_is_invariant_is_left(x64):
    """Three samples of two outputs: rank 6 at most in 93 dimensions, the rest of the spectrum is 0."""
    rng = np.random.default_rng(1)
    model = dj.MLP((4, 10, 3), key=jax.random.key(0), dtype=jnp.float64)
    x, y = rng.standard_normal((2, 4)), rng.standard_normal((2, 3))
    build = lambda x, y: dj.gauss_newton(lambda m, x: jax.vmap(m)(x), lambda f, y: jnp.mean((f - y) ** 2), model, x, y)
    exact = np.linalg.eigvalsh(np.asarray(build(jnp.asarray(x), jnp.asarray(y)).as_matrix()))[::-1]
    found = streamed_eigsh(streamed(build, [(x[:1], y[:1]), (x[1:], y[1:])]), k=8)
    np.testing.assert_allclose(found.values, exact[:8], atol=1e-10)


def test_order_does_not_matter_but_other_samples_do(problem):
    model, x, y = problem
    build = lambda x, y: dj.hessian(loss, model, x, y)
    rng = np.random.default_rng(0)

    def shuffled():
        order = rng.permutation(70)
        return iter(pieces(x[order], y[order]))

    streamed(build, shuffled).check_deterministic()

    def dropping():
        order = rng.permutation(70)[:64]
        return iter(pieces(x[order], y[order]))

    with pytest.raises(ValueError, match=r"shuffles and drops the rest"):
        streamed_eigsh(streamed(build, dropping))
    passes = iter([10, 70, 50])
    with pytest.raises(ValueError, match="first read 70 samples, the second 50"):
        streamed(build, lambda: iter(pieces(x[: (n := next(passes))], y[:n]))).check_deterministic()


def test_a_loss_with_hidden_randomness_is_found(problem):
    model, x, y = problem
    rng = np.random.default_rng(0)

    def noisy(model, x, y):
        factor = jax.pure_callback(lambda: np.float64(rng.uniform(0.5, 1.5)), jax.ShapeDtypeStruct((), jnp.float64))
        return factor * loss(model, x, y)

    with pytest.raises(ValueError, match=r"not deterministic .*dropout"):
        streamed(lambda x, y: dj.hessian(noisy, model, x, y), pieces(x, y)).check_deterministic()


def test_bad_arguments_are_one_sentence(problem):
    model, x, y = problem
    build = lambda x, y: dj.hessian(loss, model, x, y)
    with pytest.raises(TypeError, match="read again and again"):
        streamed(build, iter(pieces(x, y)))
    with pytest.raises(TypeError, match="read again and again"):
        streamed(build, 3)
    with pytest.raises(ValueError, match="at least one batch"):
        streamed(build, [])
    with pytest.raises(TypeError, match="curvature operator"):
        streamed(lambda x, y: x, pieces(x, y))
    with pytest.raises(TypeError, match="made by `streamed`"):
        streamed_eigsh(build(jnp.asarray(x), jnp.asarray(y)))
    parts = streamed(build, pieces(x, y))
    with pytest.raises(ValueError, match="`which`"):
        streamed_eigsh(parts, which="both")
    with pytest.raises(ValueError, match="`k`"):
        streamed_eigsh(parts, k=1000)
    used = iter(pieces(x, y))
    once = streamed(build, lambda: used)
    list(used)
    with pytest.raises(ValueError, match="used up"):
        once.mv(jax.tree_util.tree_map(lambda s: jnp.ones(s.shape, s.dtype), once.in_structure()))
