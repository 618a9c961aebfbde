"""How does the cost grow? Times over sizes, with the exponents of power laws fitted to them, as a table and a plot.

Hessian products over samples and parameters, SGD exponents over learning rates, sparse products over nodes. Exponents are fitted
to the upper half of the sizes, where what does not depend on them no longer counts.
"""

import json
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from harness import RESULTS, machine

import dynjax as dj


def median_seconds(run, repeats=5):
    jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def loss(model, x, y):
    return jnp.mean(jnp.sum((jax.vmap(model)(x) - y) ** 2, -1))


def hessian_seconds(samples, width):
    x, y = jax.random.normal(jax.random.key(0), (samples, 64)), jax.random.normal(jax.random.key(1), (samples, 10))
    hessian = dj.hessian(loss, dj.MLP((64, width, width, 10), key=jax.random.key(2)), x, y)
    v = jax.tree_util.tree_map(lambda s: jnp.ones(s.shape, s.dtype), hessian.in_structure())
    product = eqx.filter_jit(lambda hessian, v: hessian.mv(v))
    return median_seconds(lambda: product(hessian, v))


def over_samples():
    sizes = (256, 512, 1024, 2048, 4096, 8192, 16384)
    return "Hessian product over samples (22,218 parameters)", sizes, [hessian_seconds(n, 116) for n in sizes]


def over_parameters():
    widths = (32, 64, 128, 256, 512, 1024)
    sizes = tuple(64 * w + w + w * w + w + 10 * w + 10 for w in widths)
    return "Hessian product over parameters (512 samples)", sizes, [hessian_seconds(512, w) for w in widths]


def over_rates():
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (50, 16))
        y = jnp.sign(jax.random.normal(jax.random.key(1), (50,)))
        model = dj.MLP((16, 32, 32, 1), key=jax.random.key(2), dtype=jnp.float64)
        predict = lambda model, x: jax.vmap(model)(x)[:, 0]
        params = dj.find_interpolation(predict, model, x, y).params
        top = float(dj.critical_learning_rate(predict, params, x, batch_size=50, criterion="gd").value)
        sizes, times = (4, 16, 64, 256), []
        for lanes in sizes:
            rates = jnp.geomspace(1e-3, 0.2, lanes) * top
            run = lambda rates=rates: dj.sgd_stability(
                predict, params, x, learning_rates=rates, batch_size=1, num_steps=20_000, key=jax.random.key(3)
            )
            times.append(median_seconds(run, 3))
    return "SGD stability over learning rates (50 samples, 20,000 steps)", sizes, times


def over_nodes():
    from dynjax.meanfield import Sparse

    sizes, times = (1_000, 10_000, 100_000, 1_000_000), []
    for nodes in sizes:
        key = np.unique(np.random.default_rng(0).integers(0, nodes * nodes, 10 * nodes))
        graph = Sparse.from_edges(key % nodes, key // nodes, num_nodes=nodes, scale=None)
        values = jax.random.normal(jax.random.key(1), (nodes, 2))
        product = jax.jit(lambda graph, F: graph.apply(F))
        times.append(median_seconds(lambda product=product, graph=graph, values=values: product(graph, values)))
    return "sparse product over nodes (degree 10, 2 columns)", sizes, times


def exponent(sizes, times):
    """The slope of log time over log size, in the upper half."""
    half = len(sizes) // 2
    return float(np.polyfit(np.log(sizes[half:]), np.log(times[half:]), 1)[0])


def main():
    from matplotlib.figure import Figure

    series = [job() for job in (over_samples, over_parameters, over_rates, over_nodes)]
    host = machine()
    figure = Figure(figsize=(7.4, 5.6), layout="constrained")
    lines = ["# How the cost grows", "", __doc__.split("\n\n")[1], ""]
    lines += [f"{host['cores']} cores of {host['cpu']}, Python {host['python']}, jax {host['versions']['jax']}.", ""]
    lines += ["| job | sizes | ms | exponent |", "|---|---|---|---|"]
    for ax, (name, sizes, times) in zip(figure.subplots(2, 2).ravel(), series, strict=True):
        slope = exponent(sizes, times)
        shown = ", ".join(f"{1e3 * t:.3g}" for t in times)
        lines.append(f"| {name} | {', '.join(f'{n:,}' for n in sizes)} | {shown} | {slope:.2f} |")
        ax.loglog(sizes, times, "o-", color="#1f6fb4", markersize=4)
        reference = np.array([sizes[len(sizes) // 2], sizes[-1]], float)
        ax.loglog(
            reference,
            times[-1] * (reference / sizes[-1]) ** slope,
            color="#22262b",
            ls="--",
            lw=1,
            label=f"slope {slope:.2f}",
        )
        ax.set_title(name, fontsize=8.5)
        ax.set_ylabel("s")
        ax.legend(frameon=False, fontsize=8)
    figure.savefig(RESULTS / "growth.png", dpi=110)
    (RESULTS / "growth.md").write_text("\n".join([*lines, "", "![Times over sizes](growth.png)"]) + "\n")
    rows = [
        {"job": name, "sizes": sizes, "seconds": times, "exponent": exponent(sizes, times)}
        for name, sizes, times in series
    ]
    (RESULTS / "growth.json").write_text(json.dumps({"machine": host, "rows": rows}, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
