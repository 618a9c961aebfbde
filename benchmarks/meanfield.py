"""How fast are oscillators on graphs? dynjax against sparse products of SciPy, networkx, XGI and the package kuramoto.

Single precision for the steps of a million oscillators and for the sparse products, double precision for whole sweeps. Errors are
against the same sum by NumPy in double precision, or, for sweeps, against `solve_ivp` at 1e-10.
"""

import os
import resource
import time

# One thread for everybody: XLA's loops do not use a second one, and SciPy's sparse products neither.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false".strip()
os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import networkx as nx
import numpy as np
import scipy.sparse as sp
from harness import Contender, Row, race, save
from scipy.integrate import solve_ivp

from dynjax.meanfield import AllToAll, Sparse, attention_flow, coupling_sweep, kuramoto, order_parameter

MILLION, STEPS, DT = 1_000_000, 20, 0.05
NODES, EDGES = 100_000, 1_000_000
SWEEP_NODES, DEGREE, COUPLINGS, TIME = 2_000, 20, 16, 10.0


def _done(value):
    return jax.block_until_ready(value)


# --- a million oscillators, all to all ----------------------------------------------------------------------------------


def all_to_all():
    rng = np.random.default_rng(0)
    speeds = rng.standard_normal(MILLION).astype(np.float32)
    angles = rng.uniform(0, 2 * np.pi, MILLION).astype(np.float32)

    def run_of(state):
        system = kuramoto(AllToAll(MILLION), jnp.asarray(speeds), jnp.float32(2.0), dt=DT, state=state)
        start = system.init(jnp.asarray(angles))

        @jax.jit
        def run(system, start):
            def step(x, n):
                x = system.step(n, x)
                return x, order_parameter(x)

            return jax.lax.scan(step, start, jnp.arange(STEPS))[1]

        return lambda: _done(run(system, start))

    def numpy_run(dtype):
        w, theta0 = speeds.astype(dtype), angles.astype(dtype)

        def slope(theta):
            c, s = np.cos(theta), np.sin(theta)
            return w + 2 * (s.mean() * c - c.mean() * s)

        def run(steps=STEPS):
            theta, seen = theta0, []
            for _ in range(steps):
                k1 = slope(theta)
                k2 = slope(theta + DT / 2 * k1)
                k3 = slope(theta + DT / 2 * k2)
                k4 = slope(theta + DT * k3)
                theta = theta + DT / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
                seen.append(abs(np.mean(np.exp(1j * theta))))
            return np.array(seen)

        return run

    exact = numpy_run(np.float64)()
    judge = lambda r: {"error of r": float(np.max(np.abs(np.asarray(r) - exact)))}
    rate = lambda r: judge(r) | {"oscillator-steps": MILLION * STEPS}
    contenders = [
        Contender("dynjax, phasors", run_of("phasor"), rate, "RK4 in rotating frames, r after every step"),
        Contender("dynjax, angles", run_of("angle"), rate, "RK4, sines and cosines"),
        Contender("NumPy, angles", numpy_run(np.float32), rate, "RK4 by hand, vectorised"),
    ]
    rows = race(contenders, 5)
    for row in rows:
        row.accuracy["oscillator-steps/s"] = row.accuracy.pop("oscillator-steps") / min(row.times)
    return rows, contenders[0].name


# --- the right-hand side on a sparse graph ------------------------------------------------------------------------------


def sparse_products(columns, kind):
    rng = np.random.default_rng(1)
    if kind == "random":
        key = np.unique(rng.integers(0, NODES * NODES, EDGES))
        targets, sources = key // NODES, key % NODES
    else:  # degrees with a heavy tail
        graph = nx.barabasi_albert_graph(NODES, EDGES // (2 * NODES), seed=1)
        ends = np.array(graph.edges)
        targets, sources = np.concatenate([ends, ends[:, ::-1]]).T
    values = rng.standard_normal((NODES, columns)).astype(np.float32)
    graph = Sparse.from_edges(sources, targets, num_nodes=NODES, scale=None)
    matrix = sp.csr_matrix((np.ones(len(targets), np.float32), (targets, sources)), shape=(NODES, NODES))
    exact = matrix.astype(np.float64) @ values.astype(np.float64)
    judge = lambda out: {"error": float(np.max(np.abs(np.asarray(out) - exact))), "edges": len(targets)}
    apply, columns_in = jax.jit(lambda graph, F: graph.apply(F)), jnp.asarray(values)
    back = jax.jit(lambda graph, F: jax.vjp(graph.apply, F)[1](F)[0])
    transposed = matrix.T.tocsr()
    reverse = transposed.astype(np.float64) @ values.astype(np.float64)
    judge_back = lambda out: {"error": float(np.max(np.abs(np.asarray(out) - reverse))), "edges": len(targets)}
    contenders = [
        Contender("dynjax, `Sparse.apply`", lambda: _done(apply(graph, columns_in)), judge, "gathers"),
        Contender("SciPy CSR product", lambda: matrix @ values, judge),
        Contender("dynjax, reverse mode", lambda: _done(back(graph, columns_in)), judge_back, "the transposed lists"),
        Contender("SciPy CSR product, transposed", lambda: transposed @ values, judge_back, "stored transposed"),
    ]
    for contender in contenders:
        contender.calls = 10
    rows = race(contenders, 9)
    for row in rows:
        row.accuracy["edges/s per column pair"] = columns / 2 * row.accuracy.pop("edges") / row.median
    return rows, contenders[0].name


# --- a sweep over couplings -----------------------------------------------------------------------------------------------


def sweep():
    graph = nx.gnm_random_graph(SWEEP_NODES, SWEEP_NODES * DEGREE // 2, seed=3)
    matrix = nx.to_scipy_sparse_array(graph, format="csr", dtype=float) / DEGREE
    rng = np.random.default_rng(4)
    speeds, angles = rng.standard_normal(SWEEP_NODES), rng.uniform(0, 2 * np.pi, SWEEP_NODES)
    couplings = np.linspace(0.5, 4.0, COUPLINGS)
    with jax.enable_x64(True):
        operator = Sparse.from_networkx(graph, scale=None)

    def ours(dt):
        def run():
            with jax.enable_x64(True):
                done = coupling_sweep(
                    operator, jnp.asarray(speeds), jnp.asarray(couplings / DEGREE), dt=dt, num_steps=20,
                    burn_in=round(TIME / dt) - 20, initial=jnp.asarray(angles), key=jax.random.key(0),
                )  # fmt: skip
                return np.asarray(order_parameter(done.final))

        return run

    def slope(coupling):
        def of(t, theta):
            c, s = np.cos(theta), np.sin(theta)
            field = matrix @ np.stack([c, s], axis=1)
            return speeds + coupling * (field[:, 1] * c - field[:, 0] * s)

        return of

    def scipy_run(rtol, chosen=couplings):
        def run():
            ends = [
                solve_ivp(slope(k), (0, TIME), angles, rtol=rtol, atol=rtol, t_eval=[TIME]).y[:, -1] for k in chosen
            ]
            return np.abs(np.mean(np.exp(1j * np.array(ends)), axis=1))

        return run

    exact = scipy_run(1e-10)()
    judge = lambda r: {"error of r": float(np.max(np.abs(np.asarray(r) - exact[: len(r)])))}
    contenders = [
        Contender(
            "dynjax, `coupling_sweep`", ours(DT), judge, f"16 couplings as lanes, RK4, steps of {DT}, one program"
        ),
        Contender("dynjax, coarse", ours(0.2), judge, "steps of 0.2"),
        Contender(
            "SciPy, `solve_ivp`, 1e-6", scipy_run(1e-6), judge, "RK45 over CSR products, one coupling after another"
        ),
        Contender("SciPy, `solve_ivp`, 1e-4", scipy_run(1e-4), judge, "RK45, coarse"),
    ]
    contenders += _kuramoto_package(graph, speeds, angles, couplings, judge)
    contenders += _xgi(graph, speeds, angles, couplings, judge)
    return race(contenders, 3), contenders[0].name


def _kuramoto_package(graph, speeds, angles, couplings, judge):
    try:
        from kuramoto import Kuramoto
    except ImportError:
        return []
    dense = nx.to_numpy_array(graph)

    def run():
        # It divides by the degree of each node; weights that undo this would change its algorithm's input only.
        degree = dense.sum(axis=1)
        model = Kuramoto(
            coupling=couplings[-1] / DEGREE * degree.mean(), dt=DT, T=TIME, n_nodes=SWEEP_NODES, natfreqs=speeds
        )
        return np.abs(np.mean(np.exp(1j * model.run(adj_mat=dense, angles_vec=angles)[:, -1:]), axis=0))

    return [
        Contender("kuramoto, one coupling of the 16", run, lambda r: {}, "N x N differences; another normalisation")
    ]


def _xgi(graph, speeds, angles, couplings, judge):
    try:
        import xgi
    except ImportError:
        return []
    hypergraph = xgi.Hypergraph()
    hypergraph.add_nodes_from(range(SWEEP_NODES))
    hypergraph.add_edges_from([list(edge) for edge in graph.edges])

    def run():
        xgi.simulate_kuramoto(
            hypergraph, k2=couplings[-1] / DEGREE, k3=0.0, omega=speeds, theta=angles, timesteps=20, dt=DT
        )
        return np.zeros(0)

    return [
        Contender("XGI, 20 Euler steps of one coupling", run, lambda r: {}, "1/160 of the steps that the others take")
    ]


# --- large sweeps ---------------------------------------------------------------------------------------------------------


def large_sweeps():
    """Whole sweeps of 8 couplings in single precision, once each: seconds, rates, and the memory of the process after it."""
    rng = np.random.default_rng(5)
    key = np.unique(rng.integers(0, NODES * NODES, EDGES))
    sparse = Sparse.from_edges(key % NODES, key // NODES, num_nodes=NODES, scale="degree")
    jobs = [("all to all, 1,000,000 nodes", AllToAll(MILLION)), ("sparse, 100,000 nodes and 1,000,000 edges", sparse)]
    couplings = jnp.linspace(0.5, 4.0, 8, dtype=jnp.float32)
    rows = []
    for name, graph in jobs:
        speeds = jnp.asarray(rng.standard_normal(graph.num_nodes), jnp.float32)
        for steps in (100, 400):
            start = time.perf_counter()
            done = coupling_sweep(
                graph, speeds, couplings, dt=DT, num_steps=steps, burn_in=0, key=jax.random.key(1), num_batches=20
            )
            _done(done.order_parameter)
            spent = time.perf_counter() - start
            figures = {
                "oscillator-steps/s": graph.num_nodes * len(couplings) * steps / spent,
                "peak memory, GiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
            }
            rows.append(Row(f"{name}, {steps} steps", spent, [spent], figures, "8 couplings, compilation included"))
            print(f"  {rows[-1].name}: {spent:.1f} s {figures}", flush=True)
    return rows, rows[0].name


# --- attention ------------------------------------------------------------------------------------------------------------


def attention():
    tokens, width = 4_096, 64
    x = np.random.default_rng(6).standard_normal((tokens, width)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    flow = attention_flow(jnp.float32(5.0), dt=0.1)
    ours, state = jax.jit(lambda x: flow.field(0.0, x)), jnp.asarray(x)

    def dense(x, beta=5.0):
        scores = np.exp(beta * (x @ x.T))
        out = (scores @ x) / scores.sum(axis=1, keepdims=True)
        return out - np.sum(out * x, axis=1, keepdims=True) * x

    exact = dense(x.astype(np.float64))
    judge = lambda out: {"error": float(np.max(np.abs(np.asarray(out) - exact)))}
    contenders = [
        Contender(
            "dynjax, `attention_flow`", lambda: _done(ours(state)), judge, "tiles, running softmax, memory O(n d)"
        ),
        Contender("NumPy, all scores at once", lambda: dense(x), judge, "memory O(n^2)"),
    ]
    return race(contenders, 5), contenders[0].name


def main():
    sections = {}
    print("all to all")
    sections["A million oscillators, all to all, 20 steps"] = all_to_all()
    for kind in ("random", "heavy-tailed"):
        for columns in (2, 32):
            print(kind, columns)
            title = f"One product with a {kind} graph of 1e5 nodes and 1e6 edges, {columns} columns"
            sections[title] = sparse_products(columns, kind)
    print("sweep")
    sections[f"{COUPLINGS} couplings on {SWEEP_NODES} nodes of mean degree {DEGREE}, to t = {TIME:g}"] = sweep()
    print("attention")
    sections["Right-hand side of self-attention, 4,096 tokens in 64 dimensions"] = attention()
    print("large sweeps")
    sections["Whole sweeps of 8 couplings"] = large_sweeps()
    save("meanfield", "Oscillators on graphs", sections, __doc__.strip().split("\n\n")[1])


if __name__ == "__main__":
    main()
