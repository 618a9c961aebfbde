"""Cotangents as dynamics: the conserved pairing, backpropagation, and spectra."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dynjax as dj
from dynjax import Status
from dynjax.propagation import adjoint_system, pairing
from dynjax.systems import henon, lorenz63

START = np.array([0.1, 0.1])


def tangents(system, x, delta, num_steps):
    """The tangent behind each step."""

    def body(carry, n):
        x, v = system.tangent_step(n, *carry)
        return (x, v), v[0]

    return jax.lax.scan(body, (x, delta[None]), jnp.arange(num_steps))[1]


def test_backpropagation_through_a_network(x64, key):
    """The pullback of all layers is the gradient of the composition, layer by layer."""
    model = dj.ResNet((3, 5, 1), depth=12, step=0.3, key=key)
    stack, h = model.layer_map(), model.lift(jnp.ones(3))
    orbit = dj.trajectory(stack, h, num_steps=12)
    last = jax.random.normal(key, (5,))
    back = dj.trajectory(adjoint_system(stack, orbit), last, num_steps=12).ys
    for layer in (0, 4, 11):
        rest = lambda h, layer=layer: dj.evolve(stack, h, num_steps=12 - layer, start=layer) @ last
        np.testing.assert_allclose(back[12 - layer], jax.grad(rest)(orbit.ys[layer]), rtol=1e-13, atol=1e-15)
    beyond = dj.evolve(adjoint_system(stack, orbit), last, num_steps=13)
    assert np.all(np.isnan(beyond))


def test_the_pairing_is_conserved_along_a_stored_orbit(x64):
    """lambda_m . delta_m is one number over 1,000 steps, relative to the product of the norms at the start."""
    for system, x, num_steps in (
        (henon(), jnp.asarray(START), 30),
        (lorenz63(dt=0.01), jnp.array([1.0, 2.0, 20.0]), 1000),
    ):
        orbit = dj.trajectory(system, x, num_steps=num_steps)
        delta = jnp.ones_like(x)
        forward = jnp.concatenate([delta[None], tangents(system, x, delta, num_steps)])
        back = dj.trajectory(adjoint_system(system, orbit), jnp.ones_like(x), num_steps=num_steps).ys[::-1]
        products = jnp.sum(forward * back, 1)
        np.testing.assert_allclose(products / products[-1], 1, rtol=1e-12)


def test_the_pairing_is_conserved_along_a_chaotic_orbit(x64):
    """Over 1,000 steps of Henon's map, over which tangents grow by e^419: linearised at the stored states themselves."""
    system, num_steps = henon(), 1000
    orbit = dj.trajectory(system, jnp.asarray(START), num_steps=num_steps)

    def push(delta, n):
        delta = system.tangent_step(n, orbit.ys[n], delta[None])[1][0]
        return delta, delta

    forward = jax.lax.scan(push, jnp.ones(2), jnp.arange(num_steps))[1]
    back = dj.trajectory(adjoint_system(system, orbit), jnp.array([0.3, 1.0]), num_steps=num_steps).ys[::-1]
    products = jnp.concatenate([jnp.ones(2)[None] @ back[0], jnp.sum(forward * back[1:], 1)])
    np.testing.assert_allclose(products / products[-1], 1, rtol=1e-12)
    assert np.max(np.abs(forward[-1])) > 1e150


def test_gaps_that_show_under_jit_only_are_marked(x64):
    """The steps of an orbit are values: gaps are refused outside of `jit` and give NaN inside, for linear maps too."""
    system = dj.Map(lambda n, x: 2.0 * x)

    @jax.jit
    def pull(x, every):
        orbit = dj.trajectory(system, x, num_steps=4)
        orbit = eqx.tree_at(lambda o: o.steps, orbit, orbit.steps * every)
        return dj.evolve(adjoint_system(system, orbit), jnp.ones(2), num_steps=4)

    np.testing.assert_array_equal(pull(jnp.ones(2), 1), [16.0, 16.0])
    assert np.all(np.isnan(pull(jnp.ones(2), 2)))


def test_the_pairing_is_conserved_forwards(x64):
    """For an area-preserving map over 1,000 steps near an elliptic point, where neither grows."""
    twist = dj.Map(lambda n, x: jnp.stack([x[0] + x[1] - 0.9 * jnp.sin(x[0]), x[1] - 0.9 * jnp.sin(x[0])]))
    x, delta, last = jnp.array([0.3, 0.1]), jnp.array([1.0, -0.5]), jnp.array([0.4, 2.0])
    adjoint = adjoint_system(twist)
    forward = tangents(twist, x, delta, 1000)
    path = dj.trajectory(adjoint, adjoint.init(x, last), num_steps=1000)
    products = jnp.sum(forward * path.ys.value[1:], 1)
    scale = jnp.linalg.norm(forward, axis=1) * jnp.linalg.norm(path.ys.value[1:], axis=1)
    assert np.max(np.abs(products - pairing(last, delta)) / np.asarray(scale)) < 1e-12
    np.testing.assert_array_equal(path.ys.point[-1], dj.evolve(twist, x, num_steps=1000))


def test_the_pairing_of_a_flow(x64):
    """Lorenz' equations over one unit of time: relative to |lambda| |delta| to 1e-8 in 2,000 steps, and of order four."""
    x, delta, last = jnp.array([1.0, 2.0, 20.0]), jnp.array([1.0, 0.0, 0.5]), jnp.array([0.2, -1.0, 1.0])
    errors = []
    for num_steps in (250, 500, 2000):
        flow = lorenz63(dt=1 / num_steps)
        adjoint = adjoint_system(flow)
        end = dj.evolve(adjoint, adjoint.init(x, last), num_steps=num_steps)
        tangent = tangents(flow, x, delta, num_steps)[-1]
        gap = pairing(end.value, tangent) - pairing(last, delta)
        errors.append(abs(float(gap / (jnp.linalg.norm(end.value) * jnp.linalg.norm(tangent)))))
        np.testing.assert_array_equal(end.point, dj.evolve(flow, x, num_steps=num_steps))
    assert errors[2] < 1e-8
    assert 10 < errors[0] / errors[1] < 40


def test_spectra(x64, key):
    """That of the pullback is that of the map; that of the joint system is negated and reversed."""
    steps, system, start = 20_000, henon(), jnp.asarray(START)
    options = {"num_steps": steps, "key": key}
    forward = dj.lyapunov_spectrum(system, start, **options)
    orbit = dj.trajectory(system, start, num_steps=steps)
    back = dj.lyapunov_spectrum(adjoint_system(system, orbit), jnp.ones(2), num_steps=steps - 100, burn_in=100, key=key)
    assert np.all(
        np.abs(back.exponents - forward.exponents) < 3 * np.hypot(back.standard_error, forward.standard_error)
    )
    np.testing.assert_allclose(back.sum, np.log(0.3), rtol=1e-10)
    adjoint = adjoint_system(system)
    joint = dj.lyapunov_spectrum(adjoint, adjoint.init(start, jnp.ones(2)), **options)
    assert joint.exponents.shape == (2,)
    gap = np.abs(joint.exponents + forward.exponents[::-1])
    assert np.all(gap < 3 * np.hypot(joint.standard_error, forward.standard_error[::-1]))
    np.testing.assert_allclose(joint.sum, -np.log(0.3), rtol=1e-10)


def test_the_spectrum_of_a_linear_flow(x64, key):
    matrix = jnp.array([[-0.3, 1.0, 0.0], [-1.0, -0.3, 0.0], [0.0, 0.0, -2.0]])
    flow = dj.Flow(lambda t, y, args: matrix @ y, 0.05)
    adjoint = adjoint_system(flow)
    found = dj.lyapunov_spectrum(adjoint, adjoint.init(jnp.ones(3), jnp.ones(3)), num_steps=4000, key=key)
    np.testing.assert_allclose(found.exponents, [2.0, 0.3, 0.3], atol=2e-4)


def test_singular_steps_are_marked(x64):
    """A projection has no inverse: NaN cotangents and a status, not large numbers."""
    flat = dj.Map(lambda n, x: jnp.stack([x[0], 0.0 * x[1]]))
    adjoint = adjoint_system(flat)
    path = dj.trajectory(adjoint, adjoint.init(jnp.ones(2), jnp.ones(2)), num_steps=3)
    assert np.all(np.isnan(path.final.value))
    assert int(path.status) == Status.NONFINITE
    # Backpropagation does not need the inverse.
    back = adjoint_system(flat, dj.trajectory(flat, jnp.ones(2), num_steps=3))
    np.testing.assert_array_equal(dj.evolve(back, jnp.ones(2), num_steps=3), [1.0, 0.0])


def test_under_transformations_and_in_single_precision():
    adjoint, start = adjoint_system(henon()), jnp.asarray(START)
    run = jax.jit(jax.vmap(lambda x: dj.evolve(adjoint, adjoint.init(x, jnp.ones(2)), num_steps=5).value))
    values = run(jnp.stack([start, start + 0.01]))
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(
        values[0], dj.evolve(adjoint, adjoint.init(start, jnp.ones(2)), num_steps=5).value, rtol=1e-5
    )
    slope = jax.grad(lambda c: jnp.sum(dj.evolve(adjoint, adjoint.init(start, c), num_steps=5).value))(jnp.ones(2))
    basis = jnp.stack([dj.evolve(adjoint, adjoint.init(start, e), num_steps=5).value for e in jnp.eye(2)])
    np.testing.assert_allclose(slope, jnp.sum(basis, 1), rtol=1e-4)


def test_bad_arguments():
    system, start = henon(), jnp.asarray(START)
    orbit = dj.trajectory(system, start, num_steps=4, save_every=2)
    with pytest.raises(TypeError, match="Argument `system` must be a dynjax system"):
        adjoint_system(jnp.tanh)
    with pytest.raises(TypeError, match="Argument `orbit` must be a Trajectory"):
        adjoint_system(system, jnp.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"Argument `orbit` must hold every step .* but states are 2 steps apart"):
        adjoint_system(system, orbit)
    seen = dj.trajectory(system, start, num_steps=4, observe=lambda n, x: (x, x))
    with pytest.raises(ValueError, match="Argument `orbit` must hold whole states"):
        adjoint_system(system, seen)
    with pytest.raises(ValueError, match="Argument `x0` must"):
        adjoint_system(dj.Map(lambda n, x: x[:2]), dj.trajectory(lorenz63(dt=0.1), jnp.ones(3), num_steps=2))
    adjoint = adjoint_system(system)
    with pytest.raises(ValueError, match=r"Argument `cotangent` must have leaves of shape \(2,\)"):
        adjoint.init(start, jnp.ones(3))
    with pytest.raises(ValueError, match="Argument `cotangent` must have the structure"):
        adjoint.init(start, (jnp.ones(2),))
    with pytest.raises(TypeError, match="Argument `x` must be real"):
        adjoint_system(dj.Map(lambda n, x: x)).init(jnp.ones(2) * 1j, jnp.ones(2))
    with pytest.raises(ValueError, match="Argument `tangent` must have leaves of shape"):
        pairing(jnp.ones(2), jnp.ones(3))
    with pytest.raises(ValueError, match="Argument `tangent` must have the structure"):
        pairing(jnp.ones(2), (jnp.ones(2),))
