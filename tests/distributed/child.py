"""One process of the distributed tests: computes on one device, on eight virtual ones, or as one of several processes.

Usage: python child.py devices N | processes PORT COUNT ID [PATH [DIE_AFTER]]. Prints one line of JSON.
"""

import json
import os
import re
import signal
import sys
import time

if sys.argv[1] == "devices":
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={sys.argv[2]}"

import jax

jax.config.update("jax_enable_x64", True)

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax

import dynjax as dj
from dynjax.meanfield import AllToAll, coupling_sweep, kuramoto, order_parameter

SAMPLES, SEGMENTS = 1000, 5


def problem(mesh):
    """Digits spread over the mesh, and a network on every device."""
    x, y = dj.data.digits(SAMPLES, seed=0, scale=1 / 8)
    x, y = np.asarray(x, float), np.eye(10)[np.asarray(y)]
    model = dj.MLP((64, 16, 10), key=jax.random.key(0), dtype=jnp.float64)
    return dj.distributed.replicate(model, mesh), *dj.distributed.shard_samples((x, y), mesh)


def predict(model, x):
    return jax.vmap(model)(x)


def half_square(f, y):
    return 0.5 * jnp.mean(jnp.sum((f - y) ** 2, -1))


def loss(model, x, y):
    return half_square(predict(model, x), y)


def eigenvalues(operator):
    found = dj.eigsh(operator, k=3, key=jax.random.key(1))
    assert bool(jnp.all(found.converged))
    return np.asarray(found.values).tolist()


def curvature(mesh):
    model, x, y = problem(mesh)
    hessian = dj.hessian(loss, model, x, y)
    density = dj.spectral_density(hessian, num_probes=2, order=20, key=jax.random.key(2))
    return {
        "hessian": eigenvalues(hessian),
        "chunks": eigenvalues(dj.hessian(loss, model, x, y, chunk_size=96)),
        "gauss_newton": eigenvalues(dj.gauss_newton(predict, half_square, model, x, y)),
        "density": np.asarray(jax.tree_util.tree_leaves(density)[0]).ravel()[:5].tolist(),
    }


def collectives(mesh):
    """The kinds of messages in chunked products of the Hessian, the Gauss-Newton matrix and the tangent kernel."""
    model, x, y = problem(mesh)
    products = {
        "hessian": dj.hessian(loss, model, x, y, chunk_size=40),
        "gauss_newton": dj.gauss_newton(predict, half_square, model, x, y, chunk_size=40),
        "kernel": dj.tangent_kernel(predict, model, x, chunk_size=40),
    }
    kinds = {}
    for name, operator in products.items():
        vector = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), operator.in_structure())
        program = (
            eqx.filter_jit(lambda operator, v: operator.mv(v)).lower(operator, vector).compile().compiled.as_text()
        )
        kinds[name] = sorted(set(re.findall(r" (all-[a-z]+|collective-[a-z]+)\(", program)))
    return {"collectives": kinds}


def kernel(mesh):
    """The tangent kernel of 200 samples and 10 outputs: 2,000 rows."""
    model, x, _ = problem(mesh)
    found = dj.tangent_kernel(predict, model, x[:200])
    top = eigenvalues(found)
    dense = np.linalg.eigvalsh(np.asarray(found.as_matrix()))[::-1][:3] if mesh.devices.size == 1 else []
    return {"kernel": top, "dense": list(dense)}


def particles(mesh):
    """Oscillators spread over the mesh, and an ensemble of couplings over them."""
    size = 4096
    rng = np.random.default_rng(0)
    speeds, angles = dj.distributed.shard_samples((rng.standard_normal(size), rng.uniform(0, 6, size)), mesh)
    system = kuramoto(AllToAll(size), speeds, jnp.asarray(2.5), dt=0.05)
    run = jax.jit(lambda system, x: jax.lax.fori_loop(0, 100, lambda n, x: system.step(n, x), x))
    r = order_parameter(run(system, system.init(angles)))
    sweep = coupling_sweep(AllToAll(size), speeds, jnp.linspace(1.0, 4.0, 3), dt=0.05, num_steps=60, burn_in=20, initial=angles,
                           key=jax.random.key(0))  # fmt: skip
    return {"r": [float(r.real), float(r.imag)], "sweep": np.asarray(jnp.abs(order_parameter(sweep.final))).tolist()}


def resumable(mesh, path, die_after):
    """Training in segments; the process may kill itself after one of them."""
    model, x, y = problem(mesh)
    optimizer = optax.sgd(0.3, momentum=0.9)

    @jax.jit
    def ten_steps(state, x, y):  # data that other processes hold must be arguments, not constants
        def step(_, state):
            model, moments = state
            updates, moments = optimizer.update(jax.grad(loss)(model, x, y), moments)
            return optax.apply_updates(model, updates), moments

        return jax.lax.fori_loop(0, 10, step, state)

    begun = []

    def on_segment(done, state):
        begun.append(done)
        if done == die_after:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.05)

    state = (model, dj.distributed.replicate(optimizer.init(model), mesh))
    segment = lambda state: ten_steps(state, x, y)
    model, _ = dj.distributed.run_segments(segment, state, SEGMENTS, path, on_segment=on_segment)
    return {"trained": eigenvalues(dj.hessian(loss, model, x, y)), "first": begun[0] if begun else None}


def main():
    path, die_after = None, None
    if sys.argv[1] == "processes":
        port, count, number = map(int, sys.argv[2:5])
        dj.distributed.initialize(f"127.0.0.1:{port}", count, number, heartbeat=5)
        path = sys.argv[5] if len(sys.argv) > 5 else None
        die_after = int(sys.argv[6]) if len(sys.argv) > 6 else None
    elif len(sys.argv) > 3:
        path = sys.argv[3]
    mesh = dj.distributed.data_mesh()
    out = {"devices": mesh.devices.size}
    out |= (
        resumable(mesh, path, die_after)
        if path
        else curvature(mesh) | collectives(mesh) | kernel(mesh) | particles(mesh)
    )
    print(json.dumps(out), flush=True)


if __name__ == "__main__":
    main()
