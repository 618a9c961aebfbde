"""The configuration of the mean-field experiment, shared by the command line and by Python users."""

import dataclasses
import math
import pathlib
from typing import Literal

from ..._core import check_that
from .._plain_values import check_plain_integer

GRAPHS = (
    "complete",
    "erdos-renyi",
    "stochastic-block",
    "ring",
    "small-world",
    "power-law",
    "min",
    "max",
    "shift-ring",
    "sphere",
    "star",
    "volterra",
    "tree",
)
FILES = (".npz", ".csv", ".tsv", ".txt")
# Driven by single labels: only populations on every label have a limit.
IN_CELLS = ("shift-ring", "star", "tree")

_READINGS = 40  # readings that a run aims at
_SEGMENTS = 10
_LEAST_AVERAGED = 4


@dataclasses.dataclass(frozen=True)
class Config:
    """Kuramoto oscillators on a graph: theta_i' = omega_i + (K/N) sum_j a_ij sin(theta_j - theta_i) + sqrt(2 D) xi_i.

    Every coupling K with every seed is a lane, and each lane runs all sizes N. The order parameter r = |mean exp(i theta)| is
    compared with its limit for large N, and the onset of synchrony with the predicted critical coupling.
    """

    graph: str = "small-world"
    """complete, erdos-renyi, stochastic-block, ring, small-world, power-law, min, max, shift-ring, sphere, star, volterra or
    tree; or the path of a file with a graph of your own: a matrix written by scipy.sparse.save_npz (entry [i, j] is the weight of
    the edge j -> i), or a list of edges (.csv, .tsv or .txt: source target [weight], nodes numbered from 0)."""
    probability: float = 0.1
    """erdos-renyi: probability of an edge."""
    density: tuple[float, ...] = (0.8, 0.2, 0.2, 0.4)
    """stochastic-block: density of edges between blocks, row by row; row b is what drives block b."""
    block_sizes: tuple[float, ...] = (0.5, 0.5)
    """stochastic-block: sizes of the blocks, in any unit."""
    radius: float = 0.2
    """ring, small-world: nodes up to this distance on the circle of length 1 are neighbours."""
    rewiring: float = 0.1
    """small-world: density of edges beyond the radius, and of those missing within it."""
    exponent: float = 0.25
    """power-law: edges have the density w(x) w(y), w(x) = (1 - a) x^-a, with this a."""
    shift: float = 0.2
    """shift-ring: distance of the two labels that drive a label."""
    cells: int = 25
    """shift-ring, star, tree: labels, each with a population of N / cells oscillators. The tree is binary."""
    mean_degree: float = 100.0
    """Expected mean degree of random graphs, whose edges then weigh more so that the limit stays the same; 0 for the
    densities as they are."""
    weighted: bool = False
    """Take the densities as weights of all edges instead of drawing edges at random."""
    scale: Literal["n", "degree", "none"] = "n"
    """Graphs of files: what the sum over the drivers of a node is divided by: N, the weighted in-degree, or nothing."""
    undirected: bool = False
    """Lists of edges: every edge goes both ways."""
    frequencies: Literal["lorentzian", "gaussian", "uniform", "identical"] = "lorentzian"
    """Law of the natural frequencies, centred at 0."""
    width: float = 1.0
    """Half width at half height, standard deviation or half width of the law."""
    draws: Literal["random", "midpoints"] = "random"
    """Frequencies drawn independently for every seed, or the quantiles of (i + 1/2) / N in random order. Quantiles fluctuate
    less, but a finite network in nature has random ones, and in the tails of a Lorentzian they err by about 2 / N."""
    noise: float = 0.0
    """D of the phase noise, radians squared per unit of time."""
    sizes: tuple[int, ...] = (250, 1000, 4000)
    """Numbers of oscillators; a graph from a file has its own."""
    couplings: tuple[float, ...] = ()
    """Values of K; by default `num_couplings` of them from 0.3 to 2.5 times the predicted critical one."""
    num_couplings: int = 16
    """How many values of K are chosen if none are given."""
    num_seeds: int = 3
    """Draws of frequencies, noise and initial phases; the graph is the same for all of them."""
    dt: float = 0.1
    """Time step. Runge-Kutta of order four without noise, stochastic Heun with noise."""
    time: float = 40.0
    """Length of a run."""
    burn_in: float = 16.0
    """Time before averages begin."""
    start: Literal["coherent", "incoherent"] = "coherent"
    """All phases equal, or independent and uniform. From incoherent starts rings may stay in twisted states."""
    seed: int = 0
    """Seed of the graph and of everything else that is random."""
    precision: Literal["float32", "float64"] = "float32"
    """Floating-point precision of the particles; predictions are always computed in float64."""

    def __post_init__(self) -> None:
        """Say at once what cannot work."""
        check_graph_name(self.graph)
        self._check_parameters()
        self._check_counts()
        self._check_times()
        choices: tuple[tuple[str, tuple[str, ...]], ...] = (
            ("scale", ("n", "degree", "none")),
            ("frequencies", ("lorentzian", "gaussian", "uniform", "identical")),
            ("draws", ("random", "midpoints")),
            ("start", ("coherent", "incoherent")),
            ("precision", ("float32", "float64")),
        )
        for name, known in choices:
            value = getattr(self, name)
            check_that(value in known, name, f"be {', '.join(known[:-1])} or {known[-1]}", f"found {value!r}")

    def _check_parameters(self) -> None:
        for name, low, high in (
            ("probability", 0.0, 1.0),
            ("radius", 0.0, 0.5),
            ("rewiring", 0.0, 1.0),
            ("exponent", 0.0, 0.5),
            ("shift", 0.0, 1.0),
        ):
            value = getattr(self, name)
            open_low, open_high = name in ("probability", "radius"), name == "exponent"
            good = (low < value if open_low else low <= value) and (value < high if open_high else value <= high)
            must = f"lie in {'(' if open_low else '['}{low:g}, {high:g}{')' if open_high else ']'}"
            check_that(good, name, must, f"found {value}")
        count = len(self.block_sizes)
        good = count > 0 and all(0 < size < math.inf for size in self.block_sizes)
        check_that(good, "block_sizes", "be positive and finite", f"found {self.block_sizes}")
        fits = len(self.density) == count**2
        check_that(fits, "density", f"hold {count**2} numbers for {count} blocks", f"found {len(self.density)}")
        good = all(0 <= value <= 1 for value in self.density) and max(self.density) > 0
        check_that(good, "density", "lie in [0, 1] and not be zero", f"found {self.density}")
        for name in ("mean_degree", "noise"):
            value = getattr(self, name)
            check_that(0 <= value < math.inf, name, "be finite and not negative", f"found {value}")
        check_that(0 < self.width < math.inf, "width", "be positive and finite", f"found {self.width}")

    def _check_counts(self) -> None:
        for name, least in (("cells", 2), ("num_couplings", 2), ("num_seeds", 1)):
            check_plain_integer(name, getattr(self, name), least)
        check_that(0 <= self.seed < 2**31, "seed", "lie in [0, 2^31)", f"found {self.seed}")
        check_that(len(self.sizes) > 0, "sizes", "hold at least one number", "it is empty")
        for size in self.sizes:
            check_plain_integer("sizes", size, 20)
            if self.graph in IN_CELLS:
                whole = size % self.cells == 0
                check_that(whole, "sizes", f"be multiples of cells = {self.cells} for this graph", f"found {size}")
        for name in ("sizes", "couplings"):
            values = getattr(self, name)
            check_that(len(set(values)) == len(values), name, "hold no number twice", f"found {values}")
        good = all(0 < value < math.inf for value in self.couplings)
        check_that(good, "couplings", "be positive and finite", f"found {self.couplings}")

    def _check_times(self) -> None:
        check_that(0 < self.dt < math.inf, "dt", "be positive and finite", f"found {self.dt}")
        good = math.isfinite(self.time) and self.time >= 8 * self.dt
        check_that(good, "time", f"be at least 8 dt = {8 * self.dt:g}", f"found {self.time}")
        check_that(0 <= self.burn_in < self.time, "burn_in", "lie in [0, time)", f"found {self.burn_in}")
        averaged = self.num_readings - self.first_averaged
        must = f"leave {_LEAST_AVERAGED} of the {self.num_readings} readings of a run"
        check_that(averaged >= _LEAST_AVERAGED, "burn_in", must, f"{averaged} remain")

    @property
    def drawn(self) -> bool:
        """Whether the graph has random edges."""
        return not self.weighted and self.graph in ("erdos-renyi", "stochastic-block", "small-world", "power-law")

    @property
    def num_readings(self) -> int:
        """Readings of a run, of which each is an average over `steps_per_reading` steps."""
        return min(_READINGS, round(self.time / self.dt))

    @property
    def steps_per_reading(self) -> int:
        """Steps between two readings; `time` is rounded to a whole number of readings."""
        return max(1, round(self.time / self.dt / self.num_readings))

    @property
    def reading_interval(self) -> float:
        """Time between two readings."""
        return self.steps_per_reading * self.dt

    @property
    def first_averaged(self) -> int:
        """The first reading that lies behind the burn-in as a whole."""
        return math.ceil(self.burn_in / self.reading_interval - 1e-9)

    @property
    def num_segments(self) -> int:
        """Segments of a lane, a divisor of `num_readings`."""
        return max(d for d in range(1, _SEGMENTS + 1) if self.num_readings % d == 0)


def is_file(graph: str) -> bool:
    """Whether the name of a graph is the path of a file."""
    return pathlib.PurePath(graph).suffix in FILES


def check_graph_name(graph: str) -> None:
    """Raise unless a graph is in the library or has the name of a file that can be read."""
    must = f"be one of {', '.join(GRAPHS)}, or a file ending in {', '.join(FILES[:-1])} or {FILES[-1]}"
    check_that(graph in GRAPHS or is_file(graph), "graph", must, f"found {graph!r}")
