import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynjax import curvature as dc


def jacobian(problem):
    """(N, C, dim)"""
    return jax.jacobian(lambda flat: problem.predict(problem.unravel(flat), problem.x))(problem.flat)


def gradients(loss, problem, targets):
    """(N, dim)"""
    one = lambda flat, x, y: loss(problem.unravel(flat), x[None], y[None])
    return jax.vmap(jax.grad(one), (None, 0, 0))(problem.flat, problem.x, targets)


def test_softmax_regression_equals_its_hessian(x64, relative):
    x = jax.random.normal(jax.random.key(0), (13, 4))
    labels = jax.random.randint(jax.random.key(1), (13,), 0, 3)
    w = jax.random.normal(jax.random.key(2), (4, 3))
    predict = lambda w, x: x @ w
    value = dc.mean_loss("softmax_cross_entropy")
    H = dc.hessian(lambda w, x, y: value(predict(w, x), y), w, x, labels)
    G = dc.gauss_newton(predict, "softmax_cross_entropy", w, x, labels)
    assert relative(G.as_matrix(), H.as_matrix()) < 1e-13


@pytest.mark.parametrize("loss", ["mse", "softmax_cross_entropy", "sigmoid_binary_cross_entropy"])
def test_closed_forms_agree_with_jacobians_and_differentiated_losses(problem, relative, loss):
    targets = problem.labels if loss == "softmax_cross_entropy" else jax.nn.sigmoid(problem.y)
    outputs = problem.predict(problem.params, problem.x)
    n, c = outputs.shape
    B = jax.hessian(lambda f: dc.mean_loss(loss)(f, targets))(outputs).reshape((n * c, n * c))
    J = jacobian(problem).reshape((n * c, -1))
    G = dc.gauss_newton(problem.predict, loss, problem.params, problem.x, targets)
    assert relative(G.as_matrix(), J.T @ B @ J) < 1e-13
    callable_loss = dc.gauss_newton(problem.predict, dc.mean_loss(loss), problem.params, problem.x, targets)
    assert relative(callable_loss.as_matrix(), J.T @ B @ J) < 1e-13
    assert relative(G.root().T @ G.root(), J.T @ B @ J) < 1e-13
    assert relative(callable_loss.root().T @ callable_loss.root(), J.T @ B @ J) < 1e-12
    F = dc.fisher(problem.predict, loss, problem.params, problem.x)
    assert relative(F.as_matrix(), J.T @ B @ J) < 1e-13


@pytest.mark.parametrize("loss", ["mse", "softmax_cross_entropy"])
def test_gram_matrix_has_the_same_nonzero_spectrum(make_problem, x64, loss):
    problem = make_problem(widths=(4, 8, 3), samples=6)
    targets = problem.labels if loss == "softmax_cross_entropy" else problem.y
    G = dc.gauss_newton(problem.predict, loss, problem.params, problem.x, targets)
    gram = np.linalg.eigvalsh(G.gram())[::-1]
    full = np.linalg.eigvalsh(G.as_matrix())[::-1]
    rank = 18 if loss == "mse" else 12
    np.testing.assert_allclose(gram[:rank], full[:rank], rtol=0, atol=1e-12 * full[0])
    assert np.all(np.abs(full[rank:]) < 1e-12 * full[0])
    assert np.all(np.abs(gram[rank:]) < 1e-12 * full[0])


def test_outputs_without_a_class_axis(problem, relative):
    scalar = lambda params, x: problem.predict(params, x)[:, 0]
    J = jacobian(problem)[:, 0]
    p = jax.nn.sigmoid(scalar(problem.params, problem.x))
    y = (problem.y[:, 0] > 0).astype(float)
    for loss, weight in (("mse", jnp.ones_like(p)), ("sigmoid_binary_cross_entropy", p * (1 - p))):
        G = dc.gauss_newton(scalar, loss, problem.params, problem.x, y, chunk_size=4)
        expected = (J.T * weight) @ J / len(p)
        assert relative(G.as_matrix(), expected) < 1e-13
        assert relative(G.root().T @ G.root(), expected) < 1e-13


def test_integer_labels_one_hot_and_nothing_give_the_same(problem):
    make = lambda targets: dc.fisher(problem.predict, "softmax_cross_entropy", problem.params, problem.x, targets)
    expected = make(None).mv(problem.direction)
    for targets in (problem.labels, jax.nn.one_hot(problem.labels, 3), jax.nn.one_hot(problem.labels, 3, dtype=int)):
        for a, b in zip(jax.tree.leaves(make(targets).mv(problem.direction)), jax.tree.leaves(expected), strict=True):
            np.testing.assert_array_equal(a, b)


def test_exact_fisher_is_the_expected_outer_product_of_scores(problem, relative):
    probabilities = jax.nn.softmax(problem.predict(problem.params, problem.x))
    total = 0.0
    for label in range(3):
        score = gradients(problem.cross_entropy, problem, jnp.full_like(problem.labels, label))
        total += jnp.einsum("n,np,nq->pq", probabilities[:, label], score, score) / len(problem.x)
    F = dc.fisher(problem.predict, "softmax_cross_entropy", problem.params, problem.x)
    assert relative(F.as_matrix(), total) < 1e-13


@pytest.mark.parametrize("loss", ["mse", "softmax_cross_entropy"])
def test_empirical_fisher_is_the_second_moment_of_gradients(problem, relative, loss):
    value = problem.squared_error if loss == "mse" else problem.cross_entropy
    targets = problem.y if loss == "mse" else problem.labels
    g = gradients(value, problem, targets)
    F = dc.fisher(problem.predict, loss, problem.params, problem.x, targets, kind="empirical", chunk_size=4)
    assert relative(F.as_matrix(), g.T @ g / len(g)) < 1e-13
    assert relative(F.gram(), g @ g.T / len(g)) < 1e-13
    second = dc.gradient_covariance(value, problem.params, problem.x, targets, centered=False)
    assert relative(second.as_matrix(), g.T @ g / len(g)) < 1e-13


def test_gradient_covariance_agrees_with_numpy(problem, relative):
    g = gradients(problem.cross_entropy, problem, problem.labels)
    C = dc.gradient_covariance(problem.cross_entropy, problem.params, problem.x, problem.labels, chunk_size=4)
    assert relative(C.as_matrix(), np.cov(g.T, bias=True)) < 1e-13
    assert relative(C.root().T @ C.root(), np.cov(g.T, bias=True)) < 1e-13
    centred = g - g.mean(0)
    assert relative(C.gram(), centred @ centred.T / len(g)) < 1e-13


@pytest.mark.parametrize("chunk_size", [None, 5])
def test_gradient_covariance_does_not_cancel(x64, relative, chunk_size):
    # All gradients are 1e6 plus noise of size 1. Subtracting the outer product of the mean would leave an error of 1e-4.
    gradients = 1e6 + np.random.default_rng(0).normal(size=(12, 3))
    C = dc.gradient_covariance(
        lambda w, x, y: jnp.mean(x @ w), jnp.ones(3), gradients, np.zeros(12), chunk_size=chunk_size
    )
    assert relative(C.as_matrix(), np.cov(gradients.T, bias=True)) < 1e-8


def test_scalar_losses_agree_with_their_definitions(problem):
    f = np.asarray(problem.predict(problem.params, problem.x))
    y, labels = np.asarray(problem.y), np.asarray(problem.labels)
    bits = (y > 0).astype(float)
    logs = f - np.log(np.sum(np.exp(f), axis=1, keepdims=True))
    p = 1 / (1 + np.exp(-f))
    np.testing.assert_allclose(dc.mean_loss("mse")(f, y), 0.5 * np.sum((f - y) ** 2) / 11, rtol=1e-14)
    np.testing.assert_allclose(
        dc.mean_loss("softmax_cross_entropy")(jnp.asarray(f), jnp.asarray(labels)),
        -np.mean(logs[range(11), labels]),
        rtol=1e-14,
    )
    np.testing.assert_allclose(
        dc.mean_loss("sigmoid_binary_cross_entropy")(jnp.asarray(f), jnp.asarray(bits)),
        -np.sum(bits * np.log(p) + (1 - bits) * np.log(1 - p)) / 11,
        rtol=1e-13,
    )
