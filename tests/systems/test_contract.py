"""The contract of `AbstractSystem`, over the systems of this room."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from systems.contract import check_system

from dynjax import systems
from dynjax.systems import (
    DelayFlow,
    Flow,
    FullBatch,
    LayerMap,
    Map,
    MiniBatches,
    RandomMap,
    ReshuffledBatches,
    WhiteNoise,
    initial_state,
)


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


class Swing(eqx.Module):
    """A driven vector field with a parameter of its own, on a state with leaves that carry no tangent."""

    damping: jax.Array

    def __call__(self, t, y, args):
        return {
            "angle": y["speed"],
            "speed": -args * jnp.sin(y["angle"]) - self.damping * y["speed"] + jnp.cos(t),
            "count": None,
            "name": None,
        }


def pair_of_delays(t, y, delayed, args):
    late, later = delayed["late"], delayed["later"]
    return {"a": jnp.cos(t) - late["a"] * y["b"], "b": args * jnp.tanh(later["b"]) - late["a"].sum()}


class Block(eqx.Module):
    linear: eqx.nn.Linear

    def __call__(self, x):
        return x + 0.5 * jnp.tanh(self.linear(x))


def make_more(name):
    """Flows, delay flows and layers: in particular those with a clock, pytrees, and leaves without tangents."""
    key = jax.random.key(3)
    kind, _, rest = name.partition(" ")
    if kind == "flow":
        state = {"angle": jnp.asarray([1.0, 0.2]), "speed": jnp.asarray([0.1, -0.4])}
        flow = Flow(Swing(jnp.asarray(0.1)), 0.1, method=rest, args=jnp.asarray([1.0, 1.3]), t0=0.7)
        return flow, state | {"count": jnp.asarray(4), "name": "swing"}
    if name == "delay two":
        flow = DelayFlow(pair_of_delays, {"late": 0.53, "later": 1.2}, 0.1, args=jnp.asarray(0.8), t0=0.3)
        return flow, flow.init(lambda t: {"a": jnp.stack([jnp.sin(t), jnp.cos(t)]), "b": jnp.exp(t)})
    if name == "delay of one step":
        flow = DelayFlow(lambda t, y, d, args: -d * (1 + y), 0.1, 0.1)
        return flow, flow.init(0.4)
    layers = [Block(eqx.nn.Linear(4, 4, key=k)) for k in jax.random.split(key, 8)]
    return LayerMap(layers), jnp.linspace(-1.0, 1.0, 4)


MORE = [
    *(f"flow {method}" for method in ("euler", "midpoint", "heun", "rk4", "dopri5", "tsit5")),
    "delay two",
    "delay of one step",
    "layers",
]

MATRIX = ((0.9, -0.4), (0.3, 0.7))
STANDARD = {
    "logistic": (3.9,),
    "tent": (1.9,),
    "chebyshev": (4,),
    "henon": (),
    "standard_map": (1.2,),
    "arnold_cat": (),
    "baker": (),
    "coupled_lattice": (5,),
    "folded_towel": (),
    "linear_map": (MATRIX,),
    "lorenz63": (),
    "lorenz96": (6,),
    "rossler": (),
    "stuart_landau": (),
    "linear_flow": (MATRIX, 0.1),
    "mackey_glass": (0.5,),
    "linear_delay": (0.15,),
}

NAMES = ["henon", "module", "white noise", "mini-batches", "single samples", "reshuffled", "full batch"]


@pytest.mark.parametrize("name", NAMES)
def test_system_keeps_the_contract(x64, name):
    system, x0 = make(name)
    check_system(system, x0)


def fast_first(names, fast):
    """All names, those not in `fast` only with the slow tests: they run through the same code as the fast ones."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", fast_first(MORE, ["flow rk4", "flow tsit5", "delay two", "layers"]))
def test_flows_and_layers_keep_the_contract(x64, name):
    system, x0 = make_more(name)
    check_system(system, x0, start=3)


@pytest.mark.parametrize(
    "name", fast_first(STANDARD, ["chebyshev", "baker", "folded_towel", "lorenz96", "mackey_glass"])
)
def test_standard_systems_keep_the_contract(x64, name):
    maker = getattr(systems, name)
    check_system(maker(*STANDARD[name]), initial_state(maker, *STANDARD[name]))


def test_geometric_brownian_motion_keeps_the_contract(x64, key):
    maker = systems.geometric_brownian_motion
    check_system(maker(key, dt=0.1), initial_state(maker, key))


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
