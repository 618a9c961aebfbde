"""What an accelerator adds: rates of the large jobs, bit equality of equal blocks, and the memory probe on the device.

    python benchmarks/accelerator.py [job ...]

Every job runs by itself, prints what it found, and goes on to the next if it fails. Rates are of second calls. A CPU runs the
same jobs in small sizes. Results go to `results/accelerator_<device>.json` and `.md`, or where DYNJAX_RESULTS says.
"""

import dataclasses
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
import traceback

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from harness import machine

import dynjax as dj
from dynjax import systems

SMALL = jax.default_backend() == "cpu"


@dataclasses.dataclass
class Finding:
    """One line of the table.

    Attributes:
        job: what was run.
        value: the figure.
        unit: of it.
        note: seconds of the first call, errors, sizes.
    """

    job: str
    value: float
    unit: str
    note: str = ""


def timed(run, repeats=3):
    """(seconds of the first call, median seconds of the following ones, result)."""
    start = time.perf_counter()
    result = jax.block_until_ready(run())
    first = time.perf_counter() - start
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = jax.block_until_ready(run())
        times.append(time.perf_counter() - start)
    return first, statistics.median(times), result


def digits_sweep():
    """The program of `dynjax edge` on 500 digits, 200 steps, 10 readings of the sharpness: whole blocks at once."""
    from dynjax.experiments import edge_of_stability as edge, precision
    from dynjax.sweep._program import init_block, segment_block

    out = []
    for lanes in (8,) if SMALL else (256, 1024):
        settings = edge.Config(
            learning_rates=tuple(np.geomspace(0.1, 0.66, lanes).tolist()),
            num_steps=200,
            sharpness_every=20,
            density_probes=0,
        )
        with precision(settings):
            program = edge.program(settings)
            block = {name: jnp.asarray(values) for name, values in edge.lanes(settings).items()}

            def run(program=program, block=block):
                state = init_block(program, block)
                for _ in range(program.num_segments):
                    state, records, _ = segment_block(program, state)
                return records

            first, seconds, records = timed(run, 2)
        sharp = np.asarray(records["sharpness"])[:, -1]
        note = f"first call {first:.1f} s, {seconds:.2f} s; sharpness of lane 0 at the end {float(sharp[0]):.4f}"
        out.append(Finding(f"digits sweep, {lanes} lanes in one block", lanes * 200 / seconds, "lane-steps/s", note))
    return out


def sgd():
    """Exponents of SGD at an interpolation solution of 100 digits, batch size 1."""
    with jax.enable_x64(True):
        x, labels = dj.data.digits(100, seed=None, scale=1 / 8)
        x = jnp.asarray(x)
        x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-2)
        y = jnp.asarray((labels % 2) * 2.0 - 1)
        model = dj.MLP((64, 64, 64, 1), key=jax.random.key(0), dtype=jnp.float64)
        predict = lambda model, x: jax.vmap(model)(x)[:, 0]
        solution = dj.find_interpolation(predict, model, x, y)
        top = float(dj.critical_learning_rate(predict, solution.params, x, batch_size=100, criterion="gd").value)
    out = []
    for dtype, lanes, steps in ((jnp.float64, 16, 100_000),) if SMALL else (
        (jnp.float64, 4096, 4_000), (jnp.float32, 65536, 2_000),
    ):  # fmt: skip
        with jax.enable_x64(dtype == jnp.float64):
            cast = lambda leaf, dtype=dtype: (
                jnp.asarray(np.asarray(leaf), dtype) if eqx.is_inexact_array(leaf) else leaf
            )
            params, inputs = jax.tree_util.tree_map(cast, (solution.params, x))
            rates = jnp.geomspace(1e-3, 0.2, lanes, dtype=dtype) * top

            def run(params=params, inputs=inputs, rates=rates, steps=steps):
                return dj.sgd_stability(
                    predict, params, inputs, learning_rates=rates, batch_size=1, num_steps=steps, key=jax.random.key(1)
                )

            first, seconds, result = timed(run, 2)
            middle = float(np.asarray(result.exponent)[lanes // 2])
        note = f"first call {first:.1f} s, {seconds:.2f} s; exponent of the middle lane {middle:.6f}"
        name = f"SGD stability, {lanes} rates, {steps} steps, {jnp.dtype(dtype).name}"
        out.append(Finding(name, lanes * steps / seconds, "lane-steps/s", note))
    return out


def kuramoto():
    """All-to-all Kuramoto oscillators, Runge-Kutta of order four, order parameter after every step, float32."""
    from dynjax.meanfield import AllToAll, kuramoto, order_parameter

    out = []
    for size, steps in ((100_000, 20),) if SMALL else ((1_000_000, 400), (16_000_000, 100)):
        rng = np.random.default_rng(0)
        speeds, angles = (
            jnp.asarray(a, jnp.float32) for a in (rng.standard_normal(size), rng.uniform(0, 2 * np.pi, size))
        )
        system = kuramoto(AllToAll(size), speeds, jnp.float32(2.0), dt=0.05, state="phasor")
        start = system.init(angles)

        @jax.jit
        def run(system, start, steps=steps):
            def step(x, n):
                x = system.step(n, x)
                return x, order_parameter(x)

            return jax.lax.scan(step, start, jnp.arange(steps))[1]

        first, seconds, seen = timed(lambda run=run, system=system, start=start: run(system, start))
        note = f"first call {first:.1f} s, {1e3 * seconds / steps:.3f} ms a step; r at the end {abs(complex(seen[-1])):.6f}"
        out.append(Finding(f"Kuramoto, {size:,} oscillators", size * steps / seconds, "oscillator-steps/s", note))
    return out


def graphs():
    """Products with a random graph of 1e5 nodes and 1e6 edges, forwards and transposed; PyTorch's CSR where it is there."""
    from dynjax.meanfield import Sparse

    nodes, edges, out = 100_000, 1_000_000, []
    rng = np.random.default_rng(1)
    key = np.unique(rng.integers(0, nodes * nodes, edges))
    graph = Sparse.from_edges(key % nodes, key // nodes, num_nodes=nodes, scale=None)
    apply = jax.jit(lambda graph, F: jax.lax.fori_loop(0, 50, lambda _, F: graph.apply(F) * 0.05, F))
    back = jax.jit(lambda graph, F: jax.lax.fori_loop(0, 50, lambda _, F: jax.vjp(graph.apply, F)[1](F)[0] * 0.05, F))
    for columns in (2, 32):
        values = jnp.asarray(rng.standard_normal((nodes, columns)), jnp.float32)
        for name, job in (("product", apply), ("transposed", back)):
            first, seconds, _ = timed(lambda job=job, values=values: job(graph, values))
            note = f"first call {first:.1f} s, {1e3 * seconds / 50:.3f} ms; 50 in a loop"
            out.append(
                Finding(f"sparse {name}, {columns} columns", len(key) * columns * 50 / seconds, "edge-columns/s", note)
            )
    try:
        import torch

        if not torch.cuda.is_available():
            return out
        matrix = torch.sparse_coo_tensor(
            torch.tensor(np.stack([key // nodes, key % nodes])), torch.ones(len(key)), (nodes, nodes)
        ).to_sparse_csr().cuda()  # fmt: skip
        for columns in (2, 32):
            values = torch.randn(nodes, columns, device="cuda")
            for _round in range(2):
                torch.cuda.synchronize()
                start = time.perf_counter()
                for _ in range(50):
                    result = matrix @ values
                torch.cuda.synchronize()
                seconds = (time.perf_counter() - start) / 50
            del result
            rate = len(key) * columns / seconds
            out.append(
                Finding(f"PyTorch CSR product, {columns} columns", rate, "edge-columns/s", f"{1e3 * seconds:.3f} ms")
            )
    except ImportError:
        pass
    return out


def curvature():
    """The Hessian of 26,122 parameters over 1,797 digits: a product, five eigenvalues, a spectral density."""
    x, y = dj.data.digits(None, scale=1 / 8)
    x, y = jnp.asarray(x), jnp.asarray(y)
    model = dj.MLP((64, 128, 128, 10), key=jax.random.key(0))

    def loss(model, x, y):
        logits = jax.vmap(model)(x)
        return jnp.mean(jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, y[:, None], -1)[:, 0])

    out = []
    with jax.default_matmul_precision("highest"):
        hessian = dj.hessian(loss, model, x, y)
        v = jax.tree_util.tree_map(jnp.ones_like, eqx.filter(model, eqx.is_inexact_array))

        @eqx.filter_jit
        def products(hessian, v):
            return jax.lax.fori_loop(0, 50, lambda _, v: jax.tree_util.tree_map(lambda a: 0.01 * a, hessian.mv(v)), v)

        first, seconds, _ = timed(lambda: products(hessian, v))
        out.append(Finding("Hessian product", 1e3 * seconds / 50, "ms", f"first call {first:.1f} s; 50 in a loop"))
        first, seconds, found = timed(lambda: dj.eigsh(hessian, k=5, tol=1e-3, key=jax.random.key(1)))
        out.append(Finding("five eigenvalues to 1e-3", 1e3 * seconds, "ms", f"first call {first:.1f} s, {found}"[:160]))
        first, seconds, _ = timed(
            lambda: dj.spectral_density(hessian, num_probes=8, order=60, key=jax.random.key(2)), 2
        )
        out.append(Finding("spectral density, 8 probes of order 60", 1e3 * seconds, "ms", f"first call {first:.1f} s"))
    return out


def lyapunov():
    """Three exponents of Lorenz' system, factorised every 10 steps, many orbits, and Lorenz-96."""
    out = []
    lanes, steps = (64, 500) if SMALL else (65_536, 1_000)
    with jax.enable_x64(True):
        starts = 1 + 0.1 * jax.random.normal(jax.random.key(0), (lanes, 3))
        system = systems.lorenz63(0.01)
        one = lambda x: dj.lyapunov_spectrum(system, x, num_steps=steps, k=3, qr_every=10, burn_in=0).exponents
        run = jax.jit(jax.vmap(one))
        first, seconds, found = timed(lambda: run(starts))
    note = f"first call {first:.1f} s; sum of exponents {float(jnp.mean(jnp.sum(found, -1))):.6f} (-13.666667)"
    out.append(Finding(f"Lorenz, {lanes:,} orbits, float64", lanes * steps / seconds, "steps/s", note))
    return out


def delay():
    """Mackey-Glass equations to t = 100, ten Tsit5 steps for the delay 17."""
    lanes = 64 if SMALL else 16_384

    def field(t, y, delayed, args):
        p = delayed[0] * delayed[0]
        p = p * p * p * p * p
        return 0.2 * delayed[0] / (1 + p) - 0.1 * y

    with jax.enable_x64(True):
        pasts = jnp.linspace(0.5, 1.3, lanes)
        solve = lambda past: (
            dj.ddesolve(
                field, 0.0, 100.0, past, history=lambda t: past, delays=17.0, engine="stages", steps_per_delay=10
            ).final
        )
        run = jax.jit(jax.vmap(solve))
        first, seconds, found = timed(lambda: run(pasts))
    note = f"first call {first:.1f} s, {1e3 * seconds:.2f} ms; mean at the end {float(jnp.mean(found)):.6f}"
    return [Finding(f"{lanes:,} Mackey-Glass equations, float64", lanes / seconds, "solves/s", note)]


def neural_ode():
    """A training step of a neural ODE, 256 and 16,384 samples of 8 numbers, rtol 1e-4."""
    import optax

    out = []
    for batch in (256,) if SMALL else (256, 16_384):
        model = dj.NeuralODE((8, 8, 8), hidden=(64, 64), rtol=1e-4, atol=1e-4, key=jax.random.key(0), dtype=jnp.float32)
        x, y = jax.random.normal(jax.random.key(1), (2, batch, 8))
        params, static = eqx.partition(model, eqx.is_inexact_array)
        optimizer = optax.adam(1e-3)

        @jax.jit
        def step(params, state, static=static, x=x, y=y, optimizer=optimizer):
            loss = lambda p: jnp.mean((eqx.combine(p, static).batch(x) - y) ** 2)
            value, grads = jax.value_and_grad(loss)(params)
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state, value

        first, seconds, _ = timed(
            lambda step=step, params=params, state=optimizer.init(params): step(params, state), 10
        )
        out.append(
            Finding(f"neural ODE, training step, {batch} samples", 1e3 * seconds, "ms", f"first call {first:.1f} s")
        )
    return out


def attention():
    """The right-hand side of self-attention, 64 dimensions, without storing the scores."""
    out = []
    for tokens in (1_024,) if SMALL else (4_096, 32_768):
        x = np.random.default_rng(6).standard_normal((tokens, 64)).astype(np.float32)
        x = jnp.asarray(x / np.linalg.norm(x, axis=1, keepdims=True))
        flow = dj.meanfield.attention_flow(jnp.float32(5.0), dt=0.1)
        run = jax.jit(lambda x, flow=flow: jax.lax.fori_loop(0, 10, lambda _, x: flow.field(0.0, x), x))
        first, seconds, _ = timed(lambda run=run, x=x: run(x))
        out.append(
            Finding(
                f"self-attention, {tokens:,} tokens", 1e2 * seconds, "ms", f"first call {first:.1f} s; 10 in a loop"
            )
        )
    return out


def bit_equality():
    """The same sweep in one process, and in two that share it out: are all records equal bit by bit?"""
    rates = [f"{rate:.4g}" for rate in np.linspace(0.1, 0.6, 8)]
    command = [sys.executable, "-m", "dynjax.cli", "edge", "--learning-rates", *rates, "--num-steps", "200",
               "--sharpness-every", "20", "--block", "4", "--workers", "0"]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for name, shard in (("one", "0/1"), ("two", "0/2"), ("two", "1/2")):
            path = os.path.join(folder, f"{name}.zarr")
            subprocess.run([*command, "--out", path, "--shard", shard], check=True, capture_output=True, text=True)
        one, two = (dj.sweep.open(os.path.join(folder, f"{name}.zarr")) for name in ("one", "two"))
        names = [name for name in one.data_vars if one[name].dtype.kind == "f"]
        unequal = [name for name in names if not np.array_equal(one[name].values, two[name].values, equal_nan=True)]
    return [
        Finding(
            "bit equality of 1 and 2 shards, blocks of 4",
            float(not unequal),
            "1 if equal",
            f"differ: {unequal or 'none'}",
        )
    ]


def memory():
    """The probe refuses a block that does not fit; without it the block is marked, and the device goes on."""
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests" / "sweep"))
    import toy

    from dynjax.sweep import BlockTooLarge, _memory

    class Huge(toy.Descent):
        """Every lane sorts 64 Mi numbers in one go: half a gibibyte of temporaries."""

        def segment(self, state):
            state, records, status = super().segment(state)
            count = 2**16 if SMALL else 2**26
            numbers = jnp.sort(jnp.sin(state["lr"] * jnp.arange(count, dtype=jnp.float32)))
            return (
                state,
                {**records, "stop_step": records["stop_step"] + (jnp.dot(numbers, numbers[::-1]) > 1e30)},
                status,
            )

    limit, out = _memory.memory_limit(), []
    rates = np.linspace(0.05, 0.9, 512)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        if SMALL:
            os.environ[_memory.LIMIT_VARIABLE] = str(2**26)
        try:
            toy.run(path / "a.zarr", program=Huge(), rates=rates, block=512)
            said = "not refused"
        except BlockTooLarge as error:
            said = str(error)
        finally:
            os.environ.pop(_memory.LIMIT_VARIABLE, None)
        out.append(Finding("memory probe refuses 512 lanes", float("must leave room" in said), "1 if so", said[:200]))
        if SMALL:
            return out
        os.environ[_memory.LIMIT_VARIABLE] = str(2**60)  # as if there were plenty
        try:
            result = toy.run(path / "b.zarr", program=Huge(num_segments=2), rates=rates, block=512)
            good = "OOM" in result.lane_status
            out.append(Finding("without the probe the block is marked OOM", float(good), "1 if so", str(result)[:200]))
        finally:
            os.environ.pop(_memory.LIMIT_VARIABLE)
        again = toy.run(path / "c.zarr", program=Huge(num_segments=2), rates=rates[:8], block=None)
        out.append(
            Finding(
                "the same process goes on with blocks that fit",
                float(again.status == "done"),
                "1 if so",
                str(again)[:160],
            )
        )
    return [*out, Finding("memory that may be used", (limit or 0) / 2**30, "GiB", "")]


def bandwidth():
    """Two ceilings of the device: copying memory, and products of float32 matrices at the highest precision."""
    size = 2**24 if SMALL else 2**30
    x = jnp.ones(size // 4, jnp.float32)
    copy = jax.jit(lambda x: jax.lax.fori_loop(0, 20, lambda i, x: x + i.astype(x.dtype), x))
    _, seconds, _ = timed(lambda: copy(x))
    out = [
        Finding("read and write of memory", 2 * size * 20 / seconds / 1e9, "GB/s", f"{size / 2**20:.0f} MiB, 20 times")
    ]
    n = 512 if SMALL else 8192
    a = jax.random.normal(jax.random.key(0), (n, n))
    for name in ("highest", "default"):
        with jax.default_matmul_precision(name):
            product = jax.jit(lambda a: jnp.matmul(a, a) / n)
            _, seconds, found = timed(lambda product=product: product(a))
        exact = np.asarray(a[:8], np.float64) @ np.asarray(a, np.float64) / n
        error = np.linalg.norm(np.asarray(found[:8]) - exact) / np.linalg.norm(exact)
        out.append(
            Finding(
                f"float32 matrix product, precision {name}", 2 * n**3 / seconds / 1e12, "Tflop/s", f"error {error:.1e}"
            )
        )
    return out


JOBS = {
    job.__name__: job
    for job in (bandwidth, digits_sweep, sgd, kuramoto, memory, graphs, curvature, lyapunov, attention, delay, neural_ode,
                bit_equality)
}  # fmt: skip


def write(findings, failures):
    """The table so far, in JSON and in Markdown."""
    device = jax.devices()[0].device_kind
    host = machine() | {"device": device, "failed": failures}
    folder = pathlib.Path(os.environ.get("DYNJAX_RESULTS", pathlib.Path(__file__).parent / "results"))
    stem = folder / f"accelerator_{re.sub('[^a-z0-9]+', '_', device.lower())}"
    rows = [dataclasses.asdict(row) for row in findings]
    stem.with_suffix(".json").write_text(json.dumps({"machine": host, "rows": rows}, indent=1) + "\n")
    versions = ", ".join(f"{k} {v}" for k, v in host["versions"].items())
    lines = [f"# {device}", "", f"{host['cores']} cores of {host['cpu']}, Python {host['python']}, {versions}.", ""]
    lines += ["| job | figure | unit | remark |", "|---|---|---|---|"]
    lines += [f"| {row.job} | {row.value:.4g} | {row.unit} | {row.note} |" for row in findings]
    stem.with_suffix(".md").write_text("\n".join(lines) + "\n")


def main(names):
    """Run jobs and write what they found."""
    findings, failures = [], []
    for name in names or JOBS:
        began = time.perf_counter()
        try:
            found = JOBS[name]()
        except Exception:
            traceback.print_exc()
            failures.append(name)
            continue
        findings += found
        write(findings, failures)  # what is there is kept, whatever comes
        for row in found:
            print(f"{row.job}: {row.value:.4g} {row.unit} ({row.note})", flush=True)
        print(f"  [{name}: {time.perf_counter() - began:.0f} s]", flush=True)
    return len(failures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
