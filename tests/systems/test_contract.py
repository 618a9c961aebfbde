"""The contract of `AbstractSystem`, over the systems of this room."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from systems.contract import check_system

from dynjax.systems import FullBatch, Map, MiniBatches, RandomMap, ReshuffledBatches, WhiteNoise


def henon(n, x):
    return jnp.stack([1 - 1.4 * x[0] ** 2 + x[1], 0.3 * x[0]])


class Relax(eqx.Module):
    """A map with parameters of its own, on a state with leaves that carry no tangent."""

    matrix: jax.Array
    power: int = eqx.field(static=True)

    def __call__(self, n, x):
        y = jnp.tanh(self.matrix @ x["y"]) ** self.power + 0.1 * jnp.cos(n)
        return {"y": y, "visits": x["visits"] + 1, "key": x["key"], "name": x["name"]}


def noisy(x, noise):
    return 0.9 * jnp.sin(x) + noise


def regression(x, batch):
    inputs, targets = batch
    return x - 0.1 * inputs.T @ (inputs @ x - targets) / inputs.shape[0]


def make(name):
    key = jax.random.key(3)
    if name == "henon":
        return Map(henon), jnp.array([0.1, 0.2])
    if name == "module":
        matrix = jax.random.normal(key, (4, 4))
        return Map(Relax(matrix, 3)), {
            "y": jnp.linspace(-0.5, 0.7, 4),
            "visits": jnp.asarray(2),
            "key": key,
            "name": "relax",
        }
    if name == "white noise":
        return RandomMap(noisy, WhiteNoise((3,), key=key, scale=0.2)), jnp.array([0.3, -0.4, 1.0])
    x = jax.random.normal(key, (11, 4))
    data = (x, x @ jnp.arange(4.0))
    paths = {
        "mini-batches": lambda: MiniBatches(data, 3, key=key),
        "single samples": lambda: MiniBatches(data, 1, key=key),
        "reshuffled": lambda: ReshuffledBatches(data, 4, key=key),
        "full batch": lambda: FullBatch(*data),
    }
    return RandomMap(regression, paths[name]()), jnp.ones(4)


NAMES = ["henon", "module", "white noise", "mini-batches", "single samples", "reshuffled", "full batch"]


@pytest.mark.parametrize("name", NAMES)
def test_system_keeps_the_contract(x64, name):
    system, x0 = make(name)
    check_system(system, x0)


def test_contract_notices_a_wrong_tangent(x64):
    class Wrong(Map):
        def tangent_step(self, n, x, v):
            state, pushed = Map.tangent_step(self, n, x, v)
            return state, 1.001 * pushed

    with pytest.raises(AssertionError):
        check_system(Wrong(henon), jnp.array([0.1, 0.2]))


def test_contract_notices_a_state_that_changes_its_dtype(x64):
    system = Map(lambda n, x: x.astype(jnp.float32))
    with pytest.raises(AssertionError):
        check_system(system, jnp.ones(2))


def test_different_keys_give_different_noise(x64):
    a, b = (RandomMap(noisy, WhiteNoise((3,), key=jax.random.key(k))).step(0, jnp.zeros(3)) for k in (0, 1))
    assert not jnp.array_equal(a, b)
