"""How fast are Lyapunov spectra? dynjax and lyapax take the same Runge-Kutta steps of the same systems.

Lorenz (RK4, dt = 0.01, factorised every 10 steps; one orbit, and 256 at once), and Lorenz-96 with 40 variables and 10 exponents.
Double precision, one process.
"""

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import lyapax
import numpy as np
from harness import Contender, race, save

import dynjax as dj
from dynjax import systems

STEPS, EVERY, LANES = 50_000, 10, 256


def lorenz_field(x):
    return jnp.array([10 * (x[1] - x[0]), x[0] * (28 - x[2]) - x[1], x[0] * x[1] - 8 / 3 * x[2]])


def lorenz96_field(x):
    return (jnp.roll(x, -1) - jnp.roll(x, 2)) * jnp.roll(x, 1) - x + 8.0


def judged(exponents):
    exponents = np.asarray(exponents)
    first = exponents[..., 0]
    return {"first exponent": float(np.mean(first)), "sum": float(np.mean(np.sum(exponents, axis=-1)))}


def ours(system, starts, num_steps, k, every):
    """The same work as the peer: no burn-in of its own, the peer's counts of steps and factorisations."""

    def one(x):
        return dj.lyapunov_spectrum(system, x, num_steps=num_steps, k=k, qr_every=every, burn_in=0).exponents

    run = jax.jit(one if starts.ndim == 1 else jax.vmap(one))
    return lambda: jax.block_until_ready(run(starts))


def peer(field, dt, starts, num_steps, k, every):
    step = lyapax.rk4_step(field, dt)

    def one(x):
        return lyapax.lyapunov_spectrum(step, x, dt, num_steps, k=k, renorm_every=every).exponents

    run = jax.jit(one if starts.ndim == 1 else jax.vmap(one))
    return lambda: jax.block_until_ready(run(starts))


def pair(system, field, dt, starts, num_steps, k, every):
    return [
        Contender("dynjax", ours(system, starts, num_steps, k, every), judged),
        Contender("lyapax", peer(field, dt, starts, num_steps, k, every), judged),
    ]


def main():
    x0 = jnp.ones(3)
    many = 1 + 0.1 * jax.random.normal(jax.random.key(0), (LANES, 3))
    x96 = 8 + 0.01 * jax.random.normal(jax.random.key(1), (40,))
    lorenz = systems.lorenz63(0.01)
    sections = {
        f"Lorenz, {STEPS:,} steps, 3 exponents, factorised every {EVERY}": (
            race(pair(lorenz, lorenz_field, 0.01, x0, STEPS, 3, EVERY), 7),
            "dynjax",
        ),
        f"Lorenz, {LANES} orbits of {STEPS // 20:,} steps": (
            race(pair(lorenz, lorenz_field, 0.01, many, STEPS // 20, 3, EVERY), 7),
            "dynjax",
        ),
        "Lorenz-96, 40 variables, 10 exponents, 10,000 steps of 0.02, factorised every 5": (
            race(pair(systems.lorenz96(40, 0.02), lorenz96_field, 0.02, x96, 10_000, 10, 5), 7),
            "dynjax",
        ),
    }
    text = "Fixed steps, double precision, one process; both contenders take the same steps and factorise as often."
    save("lyapunov", "Lyapunov spectra", sections, text)


if __name__ == "__main__":
    main()
