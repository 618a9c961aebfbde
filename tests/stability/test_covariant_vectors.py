import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynjax as dj
from dynjax import Status, systems
from dynjax.stability import covariant_vectors, lyapunov_spectrum


def test_vectors_of_a_linear_map_are_its_eigenvectors(x64):
    turn = np.random.default_rng(0).standard_normal((4, 4))
    values = np.array([2.0, -1.1, 0.7, 0.2])
    matrix = turn @ np.diag(values) @ np.linalg.inv(turn)
    result = covariant_vectors(systems.linear_map(matrix), jnp.zeros(4), num_steps=100, save_every=5, burn_in=200)
    unit = turn / np.linalg.norm(turn, axis=0)
    np.testing.assert_allclose(np.abs(np.einsum("nkd,dk->nk", result.vectors, unit)), 1, atol=1e-10)
    np.testing.assert_allclose(result.growth, np.broadcast_to(np.log(np.abs(values)), (20, 4)), atol=1e-10)
    np.testing.assert_allclose(result.angles[3, 0, 1], np.arccos(abs(unit[:, 0] @ unit[:, 1])), atol=1e-8)
    np.testing.assert_array_equal(result.steps[:3], [200, 205, 210])


def test_subspace_angle_is_the_smallest_principal_angle(x64):
    from scipy.linalg import subspace_angles

    turn = np.random.default_rng(3).standard_normal((5, 5))
    matrix = turn @ np.diag([2.0, 1.5, 0.7, 0.4, 0.2]) @ np.linalg.inv(turn)
    result = covariant_vectors(systems.linear_map(matrix), jnp.zeros(5), num_steps=10, save_every=10, burn_in=200)
    for split in (1, 2, 4):
        exact = subspace_angles(turn[:, :split], turn[:, split:]).min()
        np.testing.assert_allclose(result.subspace_angle(split), exact, atol=1e-8)


def test_vectors_are_carried_along_and_the_neutral_one_is_the_vector_field(x64):
    lorenz = systems.lorenz63(0.01)
    result = covariant_vectors(lorenz, jnp.ones(3), num_steps=5_000, save_every=10, burn_in=2_000)
    field = jax.vmap(lambda x: lorenz.vector_field(0.0, x, lorenz.args))(result.states)
    field = field / jnp.linalg.norm(field, axis=1, keepdims=True)
    # The numerical step carries the field of the equation up to its own error.
    np.testing.assert_allclose(np.abs(jnp.sum(field * result.vectors[:, 1], axis=1)), 1, atol=1e-9)

    def push(n, x, v):
        return jax.lax.fori_loop(0, 10, lambda i, pair: lorenz.tangent_step(n + i, *pair), (x, v))[1]

    pushed = jax.jit(jax.vmap(push))(result.steps, result.states, result.vectors)
    lengths = jnp.linalg.norm(pushed, axis=-1)
    np.testing.assert_allclose(pushed[:-1] / lengths[:-1, :, None], result.vectors[1:], atol=1e-10)
    np.testing.assert_allclose(jnp.log(lengths) / 0.1, result.growth, atol=1e-9)
    exact = lyapunov_spectrum(lorenz, jnp.ones(3), num_steps=5_000, burn_in=2_000).exponents
    # Growth telescopes: means differ by boundary terms, log of a ratio of angles over the time.
    np.testing.assert_allclose(result.exponents, exact, atol=3 / 50)
    assert float(jnp.min(result.subspace_angle(2))) > 0.05
    assert int(result.status) == Status.OK


def test_checkpoints_do_not_change_the_vectors(x64):
    henon = systems.henon()
    fine = covariant_vectors(henon, jnp.zeros(2), num_steps=60, save_every=1, burn_in=60)
    coarse = covariant_vectors(henon, jnp.zeros(2), num_steps=60, save_every=20, burn_in=60)
    np.testing.assert_allclose(fine.vectors[::20], coarse.vectors, atol=1e-10)
    np.testing.assert_allclose(fine.growth.reshape(3, 20, 2).mean(axis=1), coarse.growth, atol=1e-10)


def test_it_runs_in_jit_and_vmap(x64):
    fn = lambda x: covariant_vectors(systems.henon(), x, num_steps=20, save_every=5, burn_in=40, k=1).vectors
    starts = jnp.stack([jnp.zeros(2), jnp.array([0.1, 0.1])])
    np.testing.assert_allclose(jax.jit(jax.vmap(fn))(starts), jnp.stack([fn(x) for x in starts]), atol=1e-9)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_steps": 0}, "`num_steps` must be an integer of at least 1"),
        ({"num_steps": 10, "k": 3}, "`k` must be at most the dimension"),
        ({"num_steps": 10, "save_every": 3}, "`save_every` must divide `num_steps`, but 3 does not divide 10"),
        ({"num_steps": 10, "save_every": 5, "qr_every": 2}, "`qr_every` must divide `save_every`, but 2"),
        ({"num_steps": 10, "settle": -1}, "`settle` must be an integer of at least 0"),
    ],
)
def test_counts_that_do_not_fit_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        covariant_vectors(systems.henon(), jnp.zeros(2), **kwargs)


def test_angles_need_two_sides(x64):
    result = covariant_vectors(systems.henon(), jnp.zeros(2), num_steps=10, burn_in=20)
    with pytest.raises(ValueError, match="`num_leading` must be below the number of vectors 2"):
        result.subspace_angle(2)


def test_an_orbit_that_leaves_the_numbers_is_reported(x64):
    result = covariant_vectors(systems.henon(), jnp.array([10.0, 0.0]), num_steps=50)
    assert int(result.status) == Status.NONFINITE


def test_a_network_layer_map_has_vectors(x64):
    w = jnp.asarray(np.random.default_rng(5).standard_normal((6, 6)))
    cell = dj.Map(lambda n, x: {"h": jnp.tanh(w @ x["h"])})
    result = covariant_vectors(cell, {"h": jnp.ones(6)}, num_steps=100, save_every=10, burn_in=100, k=2)
    assert result.vectors.shape == (10, 2, 6)
    assert result.states["h"].shape == (10, 6)
