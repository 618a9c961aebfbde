"""One harness for all benchmarks: warm-up, interleaved repeats, medians and spreads, tables in Markdown and JSON."""

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import pathlib
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

RESULTS = pathlib.Path(__file__).parent / "results"


@dataclasses.dataclass
class Row:
    """One way of doing a job.

    Attributes:
        name: what is timed.
        first: seconds of the first call, compilation included.
        times: seconds of the counted calls.
        accuracy: what was reached, in the benchmark's own measure (a verified residual, a value).
        note: anything a reader must know.
    """

    name: str
    first: float
    times: list[float]
    accuracy: dict[str, float] = dataclasses.field(default_factory=dict)
    note: str = ""

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.times)


@dataclasses.dataclass
class Contender:
    """A function to time, and how to judge what it returns.

    Attributes:
        name: what the table calls it.
        run: does the whole job and waits for its result.
        judge: accuracy figures of a result, computed outside the clock.
        note: anything a reader must know.
        calls: calls in a row that are timed as one and divided: for jobs of milliseconds, which would otherwise be
            measured with the caches and the memory pages that the contender before has left.
    """

    name: str
    run: Callable[[], Any]
    judge: Callable[[Any], dict[str, float]] = lambda result: {}
    note: str = ""
    calls: int = 1


def race(contenders: Sequence[Contender], repeats: int = 5) -> list[Row]:
    """Time all contenders in turn, round after round, so that a drift of the machine's speed meets all of them."""
    rows = []
    for contender in contenders:
        start = time.perf_counter()
        result = contender.run()
        first = time.perf_counter() - start
        rows.append(Row(contender.name, first, [], contender.judge(result), contender.note))
        print(f"  {contender.name}: first call {first:.2f} s {rows[-1].accuracy}", flush=True)
    for _ in range(repeats):
        for contender, row in zip(contenders, rows, strict=True):
            start = time.perf_counter()
            for _ in range(contender.calls):
                contender.run()
            row.times.append((time.perf_counter() - start) / contender.calls)
    return rows


def table(rows: Sequence[Row], reference: str) -> str:
    """Markdown: medians, spread, the ratio to the reference row (how many times slower), accuracy, first call."""
    base = next(row for row in rows if row.name == reference).median
    measures = sorted({name for row in rows for name in row.accuracy})
    head = ["", "median s", "min-max s", "times slower", *measures, "first call s", "remark"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [
            row.name,
            f"{row.median:.4g}",
            f"{min(row.times):.3g}-{max(row.times):.3g}",
            f"{row.median / base:.2f}",
            *(f"{row.accuracy[name]:.3g}" if name in row.accuracy else "" for name in measures),
            f"{row.first:.2f}",
            row.note,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine() -> dict[str, Any]:
    """Hardware and versions."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as info:
        model = next(line.split(":")[1].strip() for line in info if line.startswith("model name"))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = (
        "dynjax",
        "jax",
        "jaxlib",
        "equinox",
        "torch",
        "curvlinops-for-pytorch",
        "pyhessian",
        "matfree",
        "lyapax",
        "jitcode",
        "scipy",
        "networkx",
        "xgi",
        "kuramoto",
    )
    versions = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {"cpu": model, "cores": cores, "python": platform.python_version(), "versions": versions}


def save(name: str, title: str, sections: dict[str, tuple[Sequence[Row], str]], text: str = "") -> None:
    """Write `results/<name>.json` and `results/<name>.md`, and print the latter.

    Args:
        name: file name without its ending.
        title: heading.
        sections: heading -> (rows, name of the reference row).
        text: what was run, in a sentence or two.
    """
    RESULTS.mkdir(exist_ok=True)
    host = machine()
    lines = [f"# {title}", "", text, ""]
    versions = ", ".join(f"{k} {v}" for k, v in host["versions"].items())
    lines += [f"{host['cores']} cores of {host['cpu']}, Python {host['python']}, {versions}.", ""]
    for heading, (rows, reference) in sections.items():
        lines += [f"## {heading}", "", table(rows, reference), ""]
    (RESULTS / f"{name}.md").write_text("\n".join(lines))
    data = {
        "title": title,
        "machine": host,
        "sections": {k: [dataclasses.asdict(r) for r in rows] for k, (rows, _) in sections.items()},
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(data, indent=1) + "\n")
    print("\n".join(lines))
