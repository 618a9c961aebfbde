"""All benchmarks in one go, and the table of the README from their results.

    python benchmarks/run.py              run everything that can be run here, then write the table
    python benchmarks/run.py --table      write the table from the results that are there
    python benchmarks/run.py --check      fail if the table of the README is not that of the results

Every script runs by itself, so that a peer that is missing or breaks costs its own table only; what failed is said at the end.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).parent
RESULTS, README = HERE / "results", HERE.parent / "README.md"
SCRIPTS = (
    "curvature",
    "sweep",
    "lyapunov",
    "sgd_stability",
    "delay",
    "neural_ode",
    "meanfield",
    "scaling",
    "accelerator",
    "growth",
)
BEGIN, END = "<!-- performance: made by benchmarks/run.py -->", "<!-- end of performance -->"

# (file, section, row of dynjax, row of the peer, what the README calls the job, the peer)
CHOSEN = (
    ("curvature", "One Hessian product", "dynjax", "curvlinops", "Hessian product", "curvlinops"),
    ("curvature", "One Hessian product", "dynjax", "PyHessian", "", "PyHessian"),
    ("curvature", "Five largest eigenvalues", "dynjax", "curvlinops + ARPACK", "five eigenvalues, verified", "curvlinops"),
    ("curvature", "Five largest eigenvalues", "dynjax", "PyHessian", "", "PyHessian"),
    ("curvature", "Five largest eigenvalues", "dynjax", "matfree, verified", "", "matfree, told its depth"),
    ("curvature", "Spectral density", "dynjax", "curvlinops", "spectral density", "curvlinops"),
    ("curvature", "Spectral density", "dynjax", "PyHessian", "", "PyHessian"),
    ("curvature", "Spectral density", "dynjax", "matfree", "", "matfree"),
    ("sweep", "8 lanes", "dynjax sweep", "PyTorch loop, 1 thread, to", "sweep over 8 learning rates", "PyTorch loop"),
    ("lyapunov", "Lorenz, 50,000", "dynjax", "lyapax", "Lyapunov spectrum, Lorenz", "lyapax"),
    ("lyapunov", "Lorenz, 50,000", "dynjax", "jitcode", "", "jitcode"),
    ("lyapunov", "Lorenz-96", "dynjax", "lyapax", "Lyapunov spectrum, Lorenz-96", "lyapax"),
    ("lyapunov", "Lorenz-96", "dynjax", "jitcode", "", "jitcode"),
    ("delay", "256 Mackey-Glass", "dynjax, stages, 10", "jitcdde", "256 delay equations", "jitcdde"),
    ("delay", "256 Mackey-Glass", "dynjax, segments", "jitcdde", "the same, adaptive", "jitcdde"),
    ("delay", "Loss and gradient", "dynjax, stages", "torchdde, 10", "gradients of a delay equation", "torchdde"),
    ("neural_ode", "Training step", "dynjax, `model.batch`", "torchdiffeq, 1", "neural ODE, training step", "torchdiffeq"),
    ("neural_ode", "Training step", "dynjax, `Backsolve", "torchdiffeq adjoint", "the same, adjoint", "torchdiffeq"),
    ("meanfield", "A million", "dynjax, phasors", "NumPy", "a million oscillators", "NumPy"),
    ("meanfield", "One product with a random graph of 1e5 nodes and 1e6 edges, 2", "dynjax, `Sparse", "SciPy CSR product",
     "product with a sparse graph", "SciPy"),
    ("meanfield", "16 couplings", "dynjax, `coupling_sweep`", "SciPy, `solve_ivp`, 1e-6", "sweep over 16 couplings",
     "SciPy's `solve_ivp`, like errors"),
    ("meanfield", "Right-hand side of self", "dynjax", "NumPy", "self-attention, 4,096 tokens", "NumPy"),
)  # fmt: skip


def seconds(found, section, name):
    """(median, smallest, largest) seconds of a row, by the beginnings of the names of its section and of itself."""
    rows = next(rows for heading, rows in found["sections"].items() if heading.startswith(section))
    times = next(row["times"] for row in rows if row["name"].startswith(name))
    return statistics.median(times), min(times), max(times)


def table():
    """The lines between the marks: jobs, ratios with their spread, and the hardware."""
    found = {file: json.loads((RESULTS / f"{file}.json").read_text()) for file in {row[0] for row in CHOSEN}}
    lines = ["| job | dynjax | against | times slower (spread) |", "|---|---|---|---|"]
    machines = set()
    for file, section, ours, theirs, job, peer in CHOSEN:
        mine, other = (seconds(found[file], section, name) for name in (ours, theirs))
        ratio, low, high = other[0] / mine[0], other[1] / mine[2], other[2] / mine[1]
        shown = f"**{ratio:.2g}**" if ratio < 1 else f"{ratio:.2g}"
        lines.append(f"| {job} | {readable(mine[0]) if job else ''} | {peer} | {shown} ({low:.2g}-{high:.2g}) |")
        host = found[file]["machine"]
        machines.add(f"{host['cores']} cores of {host['cpu']}")
    lines += [
        "",
        f"On {' and '.join(sorted(machines))}; the peers ran in the same rounds. Medians; spread: extremes over extremes.",
    ]
    return "\n".join(lines)


def readable(value):
    return f"{1e3 * value:.3g} ms" if value < 1 else f"{value:.3g} s"


def replaced(text):
    """The README with the table of the results."""
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.split(END)[1]


def run():
    """Every script in turn; returns those that failed."""
    failed = []
    for name in SCRIPTS:
        start = time.perf_counter()
        print(f"== {name}", flush=True)
        code = subprocess.run([sys.executable, str(HERE / f"{name}.py")], check=False).returncode
        print(
            f"== {name}: {'done' if code == 0 else f'failed with exit code {code}'}, {time.perf_counter() - start:.0f} s"
        )
        failed += [name] if code else []
    return failed


def main(arguments):
    failed = run() if not arguments else []
    text = README.read_text()
    new = replaced(text)
    if arguments == ["--check"]:
        return int(new != text)
    README.write_text(new)
    if failed:
        print("failed:", ", ".join(failed))
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
