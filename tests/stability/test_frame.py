import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dynjax.stability._frame import FrameSpace, orthonormal_rows, triangle

METHODS = ("gram-schmidt", "cholesky", "householder")


def block(k, dim, decay, seed=0):
    v = np.random.default_rng(seed).standard_normal((k, dim))
    v[1:] += 3 * v[:1]
    return jnp.asarray(v * np.exp(-decay * np.arange(k))[:, None])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("k", "dim"), [(1, 3), (3, 3), (6, 9), (8, 200)])
def test_factors_are_those_of_numpy(x64, method, k, dim):
    v = block(k, dim, 1.0)
    q, logs = orthonormal_rows(v, method)
    _, r = np.linalg.qr(np.asarray(v).T)
    np.testing.assert_allclose(q @ q.T, np.eye(k), atol=1e-13)
    np.testing.assert_allclose(logs, np.log(np.abs(np.diagonal(r))), atol=1e-12)
    np.testing.assert_allclose(triangle(v, q) @ q, v, atol=1e-13)
    assert np.all(np.diagonal(triangle(v, q)) > 0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_rows_stay_orthonormal_when_the_block_has_nearly_collapsed(x64, method, dtype):
    eps = float(jnp.finfo(dtype).eps)
    common = np.random.default_rng(1).standard_normal(12)
    rest = np.random.default_rng(2).standard_normal((5, 12))
    v = jnp.asarray(common + 100 * eps * rest, dtype)
    q, logs = orthonormal_rows(v, method)
    live = np.isfinite(logs)
    np.testing.assert_allclose((q @ q.T)[live][:, live], np.eye(live.sum()), atol=50 * eps)


@pytest.mark.parametrize("method", METHODS)
def test_derivatives_agree_with_central_differences(x64, method):
    v, dv = block(3, 5, 0.3, seed=3), block(3, 5, 0.3, seed=4)
    fn = lambda v: orthonormal_rows(v, method)
    _, (dq, dlogs) = jax.jvp(fn, (v,), (dv,))
    h = 1e-6
    (q1, l1), (q0, l0) = fn(v + h * dv), fn(v - h * dv)
    np.testing.assert_allclose(dq, (q1 - q0) / (2 * h), atol=1e-7)
    np.testing.assert_allclose(dlogs, (l1 - l0) / (2 * h), atol=1e-7)
    scalar = lambda v: jnp.sum(jnp.sin(fn(v)[0])) + fn(v)[1][1]
    forward = jax.jvp(scalar, (v,), (dv,))[1]
    np.testing.assert_allclose(jnp.vdot(jax.grad(scalar)(v), dv), forward, rtol=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_dependent_vectors_are_lost_without_nan(x64, method):
    v = jnp.asarray([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0]])
    q, logs = orthonormal_rows(v, method)
    assert logs[1] == -jnp.inf
    np.testing.assert_array_equal(q[1], 0)
    slope = jax.jacobian(lambda v: orthonormal_rows(v, method)[1])(v)
    assert np.all(np.isfinite(slope))
    np.testing.assert_allclose(slope[0, 0], v[0] / jnp.sum(v[0] ** 2), rtol=1e-12)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_values_that_are_not_finite_stay_visible(x64, method, bad):
    _, logs = orthonormal_rows(block(3, 4, 0.1).at[1, 2].set(bad), method)
    assert not np.all(np.isfinite(logs))
    assert not np.any(np.isneginf(logs[:2]))


def test_mixed_pytrees_go_to_frames_and_back(x64):
    x = {"a": jnp.ones((2, 2), jnp.float32), "n": jnp.asarray(3), "z": jnp.ones(3, jnp.complex128)}
    space = FrameSpace(x)
    assert space.dim == 4 + 6
    assert space.dtype == jnp.float64
    frame = space.random(jax.random.key(0), 5)
    np.testing.assert_allclose(frame @ frame.T, np.eye(5), atol=1e-12)
    v = space.unflatten(frame)
    assert v["n"] is None
    assert v["a"].dtype == jnp.float32
    assert v["z"].shape == (5, 3)
    np.testing.assert_allclose(space.flatten(v), frame, atol=1e-7)
