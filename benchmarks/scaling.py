"""Does a second process pay? One Hessian product of many digits over processes, one core each, and what they say to each other.

    python benchmarks/scaling.py

The samples are spread over the processes (`dj.distributed`), the parameters are copied. "Bytes" are those of the sums over the
processes in the compiled product: between one and two numbers for each parameter, whatever the number of samples. Strong scaling:
the same samples over more processes.
"""

import json
import os
import pathlib
import re
import socket
import statistics
import subprocess
import sys
import time

SAMPLES = (1_024, 16_384)
PRODUCTS, ROUNDS = 10, 5


def child(port, count, number):
    """One process: products in a loop, timed from barrier to barrier."""
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[number % len(cores)]})
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"

    import dynjax as dj

    dj.distributed.initialize(f"127.0.0.1:{port}", count, number)

    import equinox as eqx
    import jax
    import jax.numpy as jnp
    import numpy as np

    def loss(model, x, y):
        logits = jax.vmap(model)(x)
        return jnp.mean(jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, y[:, None], -1)[:, 0])

    mesh = dj.distributed.data_mesh()
    x, y = dj.data.digits(None, scale=1 / 8)
    model = dj.distributed.replicate(dj.MLP((64, 128, 128, 10), key=jax.random.key(0)), mesh)
    out = []
    for samples in SAMPLES:
        repeated = np.arange(samples) % len(x)
        hessian = dj.hessian(loss, model, *dj.distributed.shard_samples((x[repeated], y[repeated]), mesh))
        v = jax.tree_util.tree_map(jnp.ones_like, eqx.filter(model, eqx.is_inexact_array))

        @eqx.filter_jit
        def products(hessian, v):
            step = lambda _, v: jax.tree_util.tree_map(lambda a: 0.01 * a, hessian.mv(v))
            return jax.lax.fori_loop(0, PRODUCTS, step, v)

        text = products.lower(hessian, v).compile().compiled.as_text()
        jax.block_until_ready(products(hessian, v))
        times = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            jax.block_until_ready(products(hessian, v))
            times.append((time.perf_counter() - start) / PRODUCTS)
        out.append({"samples": samples, "seconds": statistics.median(times), "bytes": reduced_bytes(text)})
    if number == 0:
        print(json.dumps(out), flush=True)


def reduced_bytes(text):
    """Bytes of the results of all all-reduces of a program."""
    sizes = {"f32": 4, "f64": 8, "s32": 4, "pred": 1}
    total = 0
    for line in text.splitlines():
        if re.search(r"= .* all-reduce(-start)?\(", line):
            for kind, shape in re.findall(r"(f32|f64|s32|pred)\[([\d,]*)\]", line.split(" all-reduce")[0]):
                count = 1
                for part in filter(None, shape.split(",")):
                    count *= int(part)
                total += sizes[kind] * count
    return total


def race(count):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [sys.executable, __file__, "child", str(port), str(count)]
    children = [subprocess.Popen([*command, str(i)], stdout=subprocess.PIPE, text=True) for i in range(count)]
    outs = [process.communicate(timeout=600)[0] for process in children]
    return json.loads(outs[0].strip().splitlines()[-1])


def main():
    from harness import RESULTS, machine

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    counts = [count for count in (1, 2, 4) if count <= cores]
    rows = {count: race(count) for count in counts}
    host = machine()
    lines = ["# A Hessian product over processes", "", __doc__.split("\n\n")[2], ""]
    lines += [
        f"{host['cores']} cores of {host['cpu']}, Python {host['python']}, jax {host['versions']['jax']}; loopback.",
        "",
    ]
    lines += ["| samples | processes | ms | times faster than one | bytes summed |", "|---|---|---|---|---|"]
    for i, samples in enumerate(SAMPLES):
        for count in counts:
            row = rows[count][i]
            ratio = rows[1][i]["seconds"] / row["seconds"]
            lines.append(f"| {samples:,} | {count} | {1e3 * row['seconds']:.3g} | {ratio:.2f} | {row['bytes']:,} |")
    (RESULTS / "scaling.md").write_text("\n".join(lines) + "\n")
    (RESULTS / "scaling.json").write_text(json.dumps({"machine": host, "rows": rows}, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "child":
        child(*map(int, sys.argv[2:]))
    else:
        sys.path.insert(0, str(pathlib.Path(__file__).parent))
        main()
