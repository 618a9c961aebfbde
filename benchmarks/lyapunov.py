"""How fast are Lyapunov spectra? dynjax and lyapax take the same Runge-Kutta steps of the same systems; jitcode its own.

Lorenz (RK4, dt = 0.01, factorised every 10 steps; one orbit, and 256 at once), and Lorenz-96 with 40 variables and 10 exponents.
Double precision, one process. jitcode compiles C code of the variational equations and integrates it with adaptive steps over the
same time, with its default tolerance, and factorises as often.
"""

import contextlib
import tempfile
import time

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import lyapax
import numpy as np
from harness import Contender, race, save
from jitcode import jitcode_lyap, y

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


def generated(field, start, span, interval, k):
    """The same exponents by generated C code; `field` takes and returns sequences of expressions."""
    size = len(start)
    begin = time.perf_counter()
    ode = jitcode_lyap(field([y(i) for i in range(size)]), n_lyap=k, verbose=False)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # its build reads the project it stands in
        ode.compile_C(verbose=False)
    ode.set_integrator("dopri5")
    compiled = time.perf_counter() - begin
    times = np.arange(interval, span + interval / 2, interval)

    def run():
        ode.set_initial_value(np.asarray(start), 0.0)
        return np.mean([ode.integrate(t)[1] for t in times], axis=0)

    return Contender("jitcode", run, judged, f"adaptive steps; C compiled before, in {compiled:.1f} s")


def lorenz_terms(x):
    return [10 * (x[1] - x[0]), x[0] * (28 - x[2]) - x[1], x[0] * x[1] - 8 / 3 * x[2]]


def lorenz96_terms(x):
    n = len(x)
    return [(x[(i + 1) % n] - x[i - 2]) * x[i - 1] - x[i] + 8 for i in range(n)]


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
            race(
                [
                    *pair(lorenz, lorenz_field, 0.01, x0, STEPS, 3, EVERY),
                    generated(lorenz_terms, x0, STEPS * 0.01, EVERY * 0.01, 3),
                ],
                7,
            ),
            "dynjax",
        ),
        f"Lorenz, {LANES} orbits of {STEPS // 20:,} steps": (
            race(pair(lorenz, lorenz_field, 0.01, many, STEPS // 20, 3, EVERY), 7),
            "dynjax",
        ),
        "Lorenz-96, 40 variables, 10 exponents, 10,000 steps of 0.02, factorised every 5": (
            race(
                [
                    *pair(systems.lorenz96(40, 0.02), lorenz96_field, 0.02, x96, 10_000, 10, 5),
                    generated(lorenz96_terms, x96, 200.0, 0.1, 10),
                ],
                7,
            ),
            "dynjax",
        ),
    }
    text = (
        "Double precision, one process. dynjax and lyapax take the same fixed steps; jitcode integrates over the same time with "
        "adaptive steps at its default tolerance. All factorise equally often."
    )
    save("lyapunov", "Lyapunov spectra", sections, text)


if __name__ == "__main__":
    main()
