"""A tiny program for the sweep tests, also run as a script in child processes.

Gradient descent on random quadratics: per-lane learning rate and seed, noise from a key in the state, a lane that
leaves the finite numbers freezes. Usage: python toy.py STORE [--pause SECONDS] [--shard K/N] [--wait]
"""

import argparse
import sys
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from dynjax import sweep
from dynjax._core import Status

NUM_LANES = 10
BLOCK = 2
LEARNING_RATES = np.linspace(0.05, 0.9, NUM_LANES)
TRACES: list[str] = []


class Descent(sweep.AbstractProgram):
    curvature: Array  # (dim,)
    num_segments: int = eqx.field(static=True)
    slice_steps: int = eqx.field(static=True)

    def __init__(self, num_segments: int = 4, slice_steps: int = 5):
        self.curvature = jnp.linspace(0.5, 2.0, 6)
        self.num_segments, self.slice_steps = num_segments, slice_steps

    def init(self, lane: dict[str, Array]) -> Any:
        key = jax.random.key(lane["seed"])
        x = jax.random.normal(jax.random.fold_in(key, 7), self.curvature.shape)
        zero = jnp.zeros((), jnp.int32)
        return {
            "x": x,
            "lr": lane["learning_rate"],
            "key": key,
            "n": zero,
            "status": zero.astype(jnp.int8),
            "stop": zero - 1,
        }

    def segment(self, state: Any) -> Any:
        TRACES.append("segment")

        def step(state: Any, _: None) -> Any:
            noise = jax.random.normal(jax.random.fold_in(state["key"], state["n"]), state["x"].shape)
            x = state["x"] - state["lr"] * (self.curvature * state["x"] + 0.01 * noise)
            loss = 0.5 * jnp.sum(self.curvature * x**2)
            good = (state["status"] == Status.RUNNING) & jnp.isfinite(loss)
            fell = (state["status"] == Status.RUNNING) & ~jnp.isfinite(loss)
            after = {
                **state,
                "x": jnp.where(good, x, state["x"]),
                "n": state["n"] + 1,
                "status": jnp.where(fell, int(Status.NONFINITE), state["status"]).astype(jnp.int8),
                "stop": jnp.where(fell, state["n"], state["stop"]),
            }
            return after, jnp.where(good, loss, jnp.nan)

        state, loss = jax.lax.scan(step, state, None, length=self.slice_steps)
        reading = jnp.stack([state["x"][:3], state["x"][3:]]).sum(1)[None]
        return state, {"loss": loss, "reading_value": reading, "stop_step": state["stop"]}, state["status"]

    def final(self, state: Any) -> dict[str, Array]:
        return {"density": jnp.cumsum(state["x"])}

    def dims(self) -> dict[str, tuple[str, ...]]:
        return {"loss": ("step",), "reading_value": ("reading", "part"), "stop_step": (), "density": ("grid",)}

    def coords(self) -> dict[str, np.ndarray]:
        return {
            "step": np.arange(self.num_segments * self.slice_steps),
            "reading": np.arange(self.num_segments) * self.slice_steps,
            "part": np.arange(2),
            "grid": np.linspace(0, 1, 6),
        }


class Stuck(Descent):
    """Never comes back from its third segment."""

    def segment(self, state: Any) -> Any:
        def wait(n: Any) -> Any:
            time.sleep(3600 if n >= 2 * self.slice_steps else 0)
            return np.asarray(n)

        n = jax.pure_callback(wait, jax.ShapeDtypeStruct((), jnp.int32), state["n"], vmap_method="sequential")
        return super().segment({**state, "n": n})


def lanes(rates: Any = LEARNING_RATES) -> dict[str, np.ndarray]:
    return {"learning_rate": np.asarray(rates), "seed": np.arange(len(rates)) % 3}


def run(store: Any, **options: Any) -> sweep.RunResult:
    """The sweep of these tests, with changes."""
    rates = options.pop("rates", LEARNING_RATES)
    program = options.pop("program", None) or Descent()
    config = options.pop("config", {"depth": 3, "name": "toy", "widths": [1, 2]})
    labels = {"optimizer": ["gd"] * len(rates)}
    options = {"experiment": "toy", "block": BLOCK, "coords": labels, **options}
    return sweep.run(program, lanes(rates), config, store, **options)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--wait", action="store_true")
    parser.add_argument("--stuck", action="store_true")
    parser.add_argument("--hang-timeout", type=float)
    options = parser.parse_args()
    k, n = options.shard.split("/")
    show = sweep._progress.make_meter(True)

    def progress(event: dict[str, Any]) -> None:
        show(event)
        print(event["event"], flush=True)
        time.sleep(options.pause if event["event"] == "segment" else 0)

    with sweep.stop_on_signals() as stop:
        result = run(
            options.store,
            program=Stuck() if options.stuck else None,
            shard=(int(k), int(n)),
            stop=stop,
            wait_for_locks=options.wait,
            hang_timeout=options.hang_timeout,
            progress=progress,
        )
    print(result, flush=True)
    return result.exit_code


if __name__ == "__main__":
    sys.exit(main())
