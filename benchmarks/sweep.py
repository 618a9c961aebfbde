"""A learning-rate sweep against a PyTorch loop over the rates, on the same cores.

Gradient descent on 500 digits, tanh 64-64-64-10, squared error, 8 learning rates, 200 steps each with the sharpness read every
20 steps, float32. dynjax: the program of `dynjax edge`, blocks of 4 lanes, one single-threaded process on each core, Lanczos
readings to a relative residual of 1e-2. PyTorch: one rate after the other, warm-started power iterations for a reading,
either to the same residual (at most 100 iterations) or, as scripts often do, 8 of them, whatever the residual. Start-up and
compilation are not in the times; they are in the notes.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait slow down the next contender

import multiprocessing
import statistics
import time

import torch
from harness import Contender, race, save

RATES = tuple(2 / sharpness for sharpness in (3.0, 4, 5, 6, 8, 10, 15, 20))
STEPS, EVERY, POWER = 200, 20, 8
BLOCK = 4


def config():
    """The sweep, without the final density."""
    from dynjax.experiments import edge_of_stability as edge

    return edge.Config(learning_rates=RATES, num_steps=STEPS, sharpness_every=EVERY, density_probes=0)


def worker(index, cores, start, finish):
    """Compile, then run the blocks of this worker each time the barrier opens."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {cores[index]})
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
    import jax

    from dynjax.experiments import edge_of_stability as edge
    from dynjax.sweep._program import init_block, segment_block

    settings = config()
    program = edge.program(settings)
    lanes = edge.lanes(settings)
    blocks = [slice(i, i + BLOCK) for i in range(0, len(RATES), BLOCK)][index :: len(cores)]

    def run():
        for block in blocks:
            state = init_block(program, {name: jax.numpy.asarray(values[block]) for name, values in lanes.items()})
            for _ in range(program.num_segments):
                state, records, _ = segment_block(program, state)
            jax.block_until_ready(records)

    run()
    while True:
        start.wait()
        run()
        finish.wait()


class Workers:
    """Processes that wait for each round of the race."""

    def __init__(self):
        context = multiprocessing.get_context("spawn")
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count()))
        count = min(len(cores), -(-len(RATES) // BLOCK))
        self.start, self.finish = context.Barrier(count + 1), context.Barrier(count + 1)
        self.processes = [
            context.Process(target=worker, args=(i, cores[:count], self.start, self.finish), daemon=True)
            for i in range(count)
        ]
        for process in self.processes:
            process.start()

    def run(self):
        """One whole sweep."""
        self.start.wait()
        self.finish.wait()


def torch_loop(threads, tol=None):
    """The usual script: for each rate, train, and now and then power-iterate: to a residual, or a few times."""
    from dynjax import data

    torch.set_num_threads(threads)
    readings = []  # products spent and residual reached
    x, y = data.digits(500, seed=None, scale=1 / 8, one_hot=True)
    x, y = torch.tensor(x), torch.tensor(y)

    def lane(rate):
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 10)
        )
        params = list(net.parameters())
        v = [torch.randn_like(p) for p in params]
        sharpness = 0.0

        def loss():
            return 0.5 * ((net(x) - y) ** 2).sum(-1).mean()

        for step in range(STEPS):
            if step % EVERY == 0:
                grads = torch.autograd.grad(loss(), params, create_graph=True)
                limit = POWER if tol is None else 100
                for i in range(limit):
                    norm = torch.sqrt(sum((a * a).sum() for a in v))
                    v = [a / norm for a in v]
                    hv = torch.autograd.grad(grads, params, v, retain_graph=True)
                    sharpness = sum((a * b).sum() for a, b in zip(v, hv, strict=True)).item()
                    if tol is not None or i + 1 == limit:
                        gap = sum(((a - sharpness * b) ** 2).sum() for a, b in zip(hv, v, strict=True))
                        residual = gap.sqrt().item() / abs(sharpness)
                    v = [a.detach() for a in hv]
                    if tol is not None and residual <= tol:
                        break
                readings.append((i + 1, residual))
            grads = torch.autograd.grad(loss(), params)
            with torch.no_grad():
                for p, g in zip(params, grads, strict=True):
                    p -= rate * g

    for rate in RATES:
        lane(rate)
    return readings


def judge(readings):
    """Products for a reading, and the residuals that they reached."""
    products, residuals = zip(*readings, strict=True)
    return {"products for a reading": statistics.mean(products), "median residual": statistics.median(residuals)}


def main():
    """Race the sweep against the loop on one and on all threads."""
    began = time.perf_counter()
    workers = Workers()
    workers.run()
    ready = time.perf_counter() - began
    cores = os.cpu_count()
    rows = race(
        [
            Contender("dynjax sweep", workers.run, note=f"ready after {ready:.1f} s: imports, data, compilation"),
            Contender("PyTorch loop, 1 thread, to the same residual", lambda: torch_loop(1, 1e-2), judge),
            Contender(f"PyTorch loop, {cores} threads, to the same residual", lambda: torch_loop(cores, 1e-2), judge),
            Contender(f"PyTorch loop, 1 thread, {POWER} iterations", lambda: torch_loop(1), judge),
            Contender(f"PyTorch loop, {cores} threads, {POWER} iterations", lambda: torch_loop(cores), judge),
        ],
        repeats=5,
    )
    lane_steps = len(RATES) * STEPS
    text = __doc__.split("\n\n")[1]
    text += "\n\nLane-steps per second: " + ", ".join(f"{row.name} {lane_steps / row.median:.0f}" for row in rows) + "."
    save("sweep", "A learning-rate sweep against a PyTorch loop", {"8 lanes": (rows, "dynjax sweep")}, text)


if __name__ == "__main__":
    main()
