"""The command line: `dynjax demo`, the experiments (`edge`, `sgd`, `bias`, ...), `report`, `verify`, `doctor`."""

import dataclasses
import difflib
import functools
import importlib.util
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

BAD_ARGUMENTS = 2

USAGE = """usage: dynjax COMMAND [OPTIONS]

Neural networks and their training as dynamical systems.

commands:
  demo       train on handwritten digits at eight learning rates, write a store and a report
  edge       an edge-of-stability sweep: learning rates x seeds on a task of your choice
  sgd        which learning rates keep SGD at a solution: the Lyapunov exponent, its thresholds, and real runs
  bias       which minima of f(x) = a b x gradient descent and SGD find, against the predicted edges
  memory     which delay equations can learn x^2: a phase diagram over K tau and T / tau, theory and trained networks
  embed      maps as neural ODEs: exact embeddings, trained networks of the same widths, and what narrow ones cannot do
  morse      critical points of networks of six architectures, random or trained, against what the theorems allow
  delay-fit  learn a delay equation with an unknown delay from a series; its exponents against those of the truth
  meanfield  synchrony on a graph of your choice against coupling: several sizes, the limit, the critical coupling
  attention  clusters of tokens under self-attention over inverse temperatures: predicted number, growth, lifetimes
  depth      exponents and gradients of deep plain networks around the edge of chaos, and the depths that can be trained
  flow       flow matching and diffusions against the exact flow: losses and their floor, samples, and when they are decided
  report     write the HTML report of a store
  verify     check a store for damage; --repair computes damaged blocks again
  doctor     say which versions, devices, precision and cache will be used, and check one product

`dynjax COMMAND --help` explains a command.
exit codes: 0 done, 2 bad arguments, 65 store of another configuration or damaged, 70 a lane could not be computed,
            74 storage failed, 75 stopped: run the same command again"""


class UsageError(Exception):
    """Wrong arguments: printed in one line, exit code 2."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0 if arguments else BAD_ARGUMENTS
    if arguments[0] in ("-V", "--version"):
        from . import __version__

        print(f"dynjax {__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, [c for c in COMMANDS if not c.startswith("_")], n=1)
        hint = f" Perhaps you meant `{close[0]}`." if close else " See `dynjax --help`."
        return _fail(f"There is no command `{name}`.{hint}", BAD_ARGUMENTS)
    return _guarded(COMMANDS[name], rest)


def _guarded(command: Callable[[list[str]], int], rest: list[str]) -> int:
    """Run a command; every expected failure becomes one line on standard error and its exit code."""
    try:
        _require_extras()
        from .sweep import SweepError

        try:
            return command(rest)
        except SweepError as error:
            return _fail(str(error), error.exit_code)
    except (UsageError, ValueError, TypeError, FileNotFoundError) as error:
        if os.environ.get("DYNJAX_TRACEBACK"):
            raise
        return _fail(str(error), BAD_ARGUMENTS)
    except BrokenPipeError:
        # Whoever read the output is gone (`| head`); the interpreter flushes once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return _fail("Interrupted before anything was saved; run the same command again.", 75)


def _fail(message: str, code: int) -> int:
    print(f"dynjax: {message}", file=sys.stderr)
    return code


def _require_extras() -> None:
    missing = [name for name in ("tyro", "zarr", "xarray", "matplotlib", "tqdm", "sklearn") if not _installed(name)]
    if missing:
        raise UsageError(f"The command line needs {', '.join(missing)}: install `dynjax[all]`.")


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _use_compile_cache() -> None:
    """Keep compiled programs in the user's cache directory, unless the user has chosen otherwise."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR") and jax.config.values["jax_compilation_cache_dir"] is None:
        root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(root, "dynjax", "jax"))
    if not os.environ.get("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """Where a sweep is stored and how it is run; none of this changes a number in it."""

    out: pathlib.Path = pathlib.Path("edge.zarr")
    """The store. The same command resumes it."""
    config: pathlib.Path | None = None
    """A TOML file with defaults for the options above; flags override it."""
    print_config: bool = False
    """Print the configuration as TOML and stop."""
    shard: str | None = None
    """k/n: compute every n-th block, starting with block k. From the variables of a Slurm array by default, or all."""
    workers: int | None = None
    """Worker processes; by default one per core on a CPU, none on an accelerator. 0 computes in this process, where
    several threads may change the last bits."""
    block: int | None = None
    """Lanes computed together; bits agree between runs of equal block size. 4 on a CPU, 32 on an accelerator."""
    time_budget: float | None = None
    """Stop after this many seconds, between segments, with exit code 75."""
    hang_timeout: float | None = None
    """End with exit code 75, saying where, if one segment takes longer than this many seconds (its compilation included)."""
    require: Literal["cpu", "gpu", "tpu"] | None = None
    """Refuse to start on any other kind of device."""
    report: bool = False
    """Also write the HTML report beside the store."""


def _parse_shard(text: str | None) -> tuple[int, int]:
    if text is None:
        task, count = os.environ.get("SLURM_ARRAY_TASK_ID"), os.environ.get("SLURM_ARRAY_TASK_COUNT")
        if task is None or count is None:
            return 0, 1
        text = f"{int(task) - int(os.environ.get('SLURM_ARRAY_TASK_MIN', '0'))}/{count}"
    try:
        k, n = (int(part) for part in text.split("/"))
    except ValueError:
        raise UsageError(f"Argument `shard` must be k/n such as 0/2, but found {text!r}.") from None
    if not 0 <= k < n:
        raise UsageError(f"Argument `shard` must be k/n with 0 <= k < n, but found {text!r}.")
    return k, n


def _parse(kind: Any, arguments: list[str], command: str, **kwargs: Any) -> Any:
    import tyro

    return tyro.cli(kind, args=arguments, prog=f"dynjax {command}", **kwargs)


# command: (experiment, what its help says)
_EXPERIMENTS = {
    "edge": (
        "edge-of-stability",
        "Train one network at many learning rates at once and follow the sharpness of every lane.",
    ),
    "sgd": (
        "sgd-stability",
        "Predict at which learning rates SGD stays at a solution with zero loss, and let real runs of SGD check it.",
    ),
    "bias": (
        "implicit-bias",
        "Run gradient descent and SGD on f(x) = a b x from many starts, and compare the minima they find with theory.",
    ),
    "memory": (
        "memory-capacity",
        "Train scalar neural delay equations under a hard Lipschitz bound K over a grid of K tau and T / tau, and compare "
        "what they can learn with the sharp curve on which the state begins to merge inputs.",
    ),
    "meanfield": (
        "meanfield",
        "Kuramoto oscillators on a graph: order parameters over couplings, sizes and their limit.",
    ),
    "attention": ("attention", "Follow tokens under self-attention over inverse temperatures: clusters and theory."),
    "depth": (
        "depth",
        "Measure how perturbations and gradients grow with depth in plain networks over weight variances, compare with "
        "infinitely wide ones, and train every network: which depths can be trained?",
    ),
    "flow": (
        "flow",
        "Train flow matching and diffusions to a Gaussian mixture of the plane, over learning rates, and compare them with the "
        "exact flow: losses with their floor, distances, likelihoods, and the dynamics of sampling.",
    ),
    "delay-fit": (
        "delay-fit",
        "Learn y' = f(y, y(t - tau)) with an unknown delay from a series, and compare the Lyapunov exponents of what was "
        "learnt with those of the truth: a low forecast error does not mean that the dynamics are right.",
    ),
    "morse": (
        "morse",
        "Find all critical points of networks R^2 -> R of six architectures, random or trained to a bowl, and compare them "
        "with what the theorems allow: none, nondegenerate ones, or degenerate ones.",
    ),
    "embed": (
        "embedding",
        "Embed six maps exactly by a shear, an isotopy and a delay, train neural ODEs of every width up to that of the "
        "shear, and compare their errors with the bounds for their widths.",
    ),
}


def _experiment(command: str, arguments: list[str]) -> int:
    """Flags of an experiment and of its run, then the sweep."""
    import tyro

    from .experiments import config_from_toml, config_to_toml, find_experiment

    name, about = _EXPERIMENTS[command]
    kind = find_experiment(name).config
    defaults: Any = config_from_toml(kind, _flag_value(arguments, "--config"))

    @dataclasses.dataclass(frozen=True)
    class Command:
        experiment: kind  # type: ignore[valid-type]
        """What is computed."""
        run: RunOptions

    Command.__doc__ = about
    omit = tyro.conf.OmitArgPrefixes[tyro.conf.FlagCreatePairsOff[Command]]
    options = RunOptions(out=pathlib.Path(f"{command}.zarr"))
    parsed = _parse(omit, arguments, command, default=Command(defaults, options))
    if parsed.run.print_config:
        print(config_to_toml(parsed.experiment), end="")
        return 0
    return _sweep(name, parsed.experiment, parsed.run, [command, *arguments])


def _flag_value(arguments: list[str], flag: str) -> str | None:
    for i, argument in enumerate(arguments):
        if argument == flag and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith(flag + "="):
            return argument.split("=", 1)[1]
    return None


def _sweep(name: str, config: Any, options: RunOptions, argv: list[str]) -> int:
    """Run a sweep, print its table, and write its report if asked."""
    from .experiments import find_experiment, run_experiment

    _use_compile_cache()
    _require(options.require)
    experiment = find_experiment(name)
    shard = _parse_shard(options.shard)
    if experiment.prepare is not None:
        _prepare(experiment, config)
    code = run_experiment(
        experiment,
        config,
        options.out,
        shard=shard,
        workers=experiment.workers if options.workers is None else options.workers,
        block=experiment.block if options.block is None and not options.out.exists() else options.block,
        time_budget=options.time_budget,
        hang_timeout=options.hang_timeout,
        argv=argv,
        progress=True,
    )
    if code in (0, 70):
        _show(experiment, options)
    return code


def _require(kind: str | None) -> None:
    """Raise unless JAX computes on the kind of device that was asked for."""
    import jax

    there = jax.default_backend()
    if kind is not None and there != kind:
        names = ", ".join(device.device_kind for device in jax.devices())
        raise UsageError(
            f"Argument `require` asks for a {kind}, but JAX found: {there} ({names}). See `dynjax doctor`."
        )


def _prepare(experiment: Any, config: Any) -> None:
    """What comes before the sweep, with a line for each stage on standard error."""
    import time

    from .experiments import precision

    start = time.monotonic()

    def say(text: str) -> None:
        print(f"dynjax: {time.monotonic() - start:5.1f} s  {text}", file=sys.stderr, flush=True)

    with precision(config):
        experiment.prepare(config, say)


def _show(experiment: Any, options: RunOptions) -> None:
    from . import sweep

    dataset = sweep.open(options.out)
    print(experiment.table(dataset))
    if options.report:
        page = options.out.with_suffix(".html")
        experiment.write_report(dataset, page)
        print(f"\nstore  {options.out}\nreport {page}")
    else:
        print(f"\nstore  {options.out}\nnext   dynjax report {options.out}")


@dataclasses.dataclass(frozen=True)
class DemoOptions:
    """The main job with its defaults: 500 handwritten digits, eight learning rates, 2,000 steps of gradient descent."""

    out: str = "demo"
    """Prefix: writes PREFIX.zarr and PREFIX.html."""
    workers: int | None = None
    """Worker processes; by default one per core on a CPU, none on an accelerator."""


def _demo(arguments: list[str]) -> int:
    """The main job with its defaults."""
    from .experiments.edge_of_stability import Config

    parsed = _parse(DemoOptions, arguments, "demo")
    store = pathlib.Path(f"{parsed.out}.zarr")
    options = RunOptions(out=store, workers=parsed.workers, report=True)
    return _sweep("edge-of-stability", Config(), options, ["demo", *arguments])


def _report(arguments: list[str]) -> int:
    """Write the report of a store."""
    import tyro

    @dataclasses.dataclass(frozen=True)
    class Report:
        """Write the HTML report of a store: one file, no external links."""

        store: Annotated[pathlib.Path, tyro.conf.Positional]
        """The store of a sweep."""
        out: pathlib.Path | None = None
        """The page; beside the store by default."""

    parsed = _parse(Report, arguments, "report")
    from . import sweep
    from .experiments import find_experiment

    dataset = sweep.open(parsed.store)
    page = parsed.out or parsed.store.with_suffix(".html")
    find_experiment(dataset.attrs["experiment"]).write_report(dataset, page)
    print(f"report {page}")
    return 0


def _verify(arguments: list[str]) -> int:
    """Check a store."""
    import tyro

    @dataclasses.dataclass(frozen=True)
    class Verify:
        """Check every promised chunk and every saved state of a store."""

        store: Annotated[pathlib.Path, tyro.conf.Positional]
        """The store of a sweep."""
        repair: bool = False
        """Compute damaged blocks again."""

    parsed = _parse(tyro.conf.FlagCreatePairsOff[Verify], arguments, "verify")
    from . import sweep

    found = sweep.verify(parsed.store)
    print(found)
    if not found.problems:
        return 0
    if not parsed.repair:
        print(f"next   dynjax verify {parsed.store} --repair", file=sys.stderr)
        return 65
    return _repair(parsed.store, found)


def _repair(store: pathlib.Path, found: Any) -> int:
    from . import sweep
    from .experiments import resume_experiment, stored_experiment

    _use_compile_cache()
    sweep.reset_blocks(store, found.blocks)
    code = resume_experiment(store, workers=stored_experiment(store)[0].workers, progress=True)
    if code:
        return code
    again = sweep.verify(store)
    print(again)
    return 65 if again.problems else 0


def _doctor(arguments: list[str]) -> int:
    """Versions, devices and one checked product."""

    @dataclasses.dataclass(frozen=True)
    class Doctor:
        """Say which versions, devices, precision and cache will be used, and check one Hessian product."""

    _parse(Doctor, arguments, "doctor")
    _use_compile_cache()
    from .experiments import diagnose

    text, healthy = diagnose()
    print(text)
    return 0 if healthy else 70


def _worker(arguments: list[str]) -> int:
    """A worker process of a sweep; started by the command that created the store."""
    from .experiments import work

    _use_compile_cache()
    return work(pathlib.Path(arguments[0]), arguments[1:])


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "demo": _demo,
    **{command: functools.partial(_experiment, command) for command in _EXPERIMENTS},
    "report": _report,
    "verify": _verify,
    "doctor": _doctor,
    "_worker": _worker,
}

if __name__ == "__main__":
    sys.exit(main())
