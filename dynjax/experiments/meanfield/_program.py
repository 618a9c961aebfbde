"""One lane as a pure program: oscillators at all sizes with one coupling, averages formed while they move."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int8, Int32

from ... import data
from ..._core import Status, tree_all_finite, tree_where
from ...meanfield import GraphOperator, Oscillators, Phases, kuramoto, leading_left_vector
from ...sweep import AbstractProgram
from ._config import Config
from ._graphs import Population, population, sizes
from ._prediction import BINS, Prediction, bin_matrix, law, predict

_FIRST_PHASES, _FREQUENCIES, _PHASE_NOISE = range(3)


class LaneState(NamedTuple):
    """Everything a lane carries from one segment to the next."""

    phases: tuple[Phases, ...]
    profile: Float[Array, "bins"]
    coupling: Float[Array, ""]
    seed: Int32[Array, ""]
    reading: Int32[Array, ""]
    status: Int8[Array, ""]


class Crowd(eqx.Module):
    """The oscillators of one size, and what is read off them.

    Attributes:
        graph: who drives whom.
        readout: rows that make the order parameter of the phasors and, where degrees vary, their projection on the leading
            left eigenvector.
        norms: the factors that make squares of these N E|z|^2 and |v . u|^2.
        bins: averages over bins of labels; for the largest size only.
        eigenvalue: the leading one of this graph; 0 where the limit has no threshold.
        mean_degree: drivers of a node.
    """

    graph: GraphOperator
    readout: Float[Array, "rows nodes"]
    norms: Float[Array, "rows"]
    bins: Float[Array, "bins nodes"] | None
    eigenvalue: Float[Array, ""]
    mean_degree: Float[Array, ""]


class MeanFieldProgram(AbstractProgram):
    """Oscillators on graphs of several sizes, as `dynjax.sweep` runs them over blocks of couplings and seeds.

    The lanes of a block share the graphs: its edges are read once for all of them. Frequencies, first phases and noise of a
    seed are the same at all couplings, so that curves over K are smooth.

    Args:
        config: the configuration.
    """

    crowds: tuple[Crowd, ...]
    limits: tuple[Array, ...]
    config: Config = eqx.field(static=True)
    sizes: tuple[int, ...] = eqx.field(static=True)
    along: tuple[float, ...] = eqx.field(static=True)
    num_segments: int = eqx.field(static=True)

    def __init__(self, config: Config):
        dtype = jnp.dtype(config.precision)
        prediction = predict(config)
        self.config, self.num_segments, self.sizes = config, config.num_segments, sizes(config)
        self.crowds = tuple(_crowd(config, size, size == self.sizes[-1], prediction, dtype) for size in self.sizes)
        tables = (prediction.couplings, prediction.limit, prediction.profile, prediction.curve, prediction.critical)
        self.limits = tuple(jnp.asarray(table, dtype) for table in tables)
        self.along = tuple(prediction.curve_couplings.tolist())

    def init(self, lane: dict[str, Array]) -> LaneState:
        """The first phases of a seed, the same at all couplings."""
        dtype = jnp.dtype(self.config.precision)
        return LaneState(
            phases=tuple(Phases.of(self._first(lane["seed"], size, dtype)) for size in self.sizes),
            profile=jnp.zeros(BINS, dtype),
            coupling=lane["coupling"].astype(dtype),
            seed=lane["seed"].astype(jnp.int32),
            reading=jnp.asarray(0, jnp.int32),
            status=jnp.asarray(int(Status.RUNNING), jnp.int8),
        )

    def segment(self, state: LaneState) -> tuple[LaneState, dict[str, Array], Int8[Array, ""]]:
        """Some readings, each an average over `steps_per_reading` steps."""
        systems = [self._system(crowd, size, state) for crowd, size in zip(self.crowds, self.sizes, strict=True)]
        length = self.config.num_readings // self.num_segments
        state, records = jax.lax.scan(lambda s, _: self._until_reading(s, systems), state, None, length=length)
        return state, records, state.status

    def final(self, state: LaneState) -> dict[str, Array]:
        """The profile of the largest size, and what the limit says of this coupling."""
        couplings, limits, profiles, curve, critical = self.limits
        here = jnp.argmin(jnp.abs(couplings - state.coupling))
        averaged = self.config.num_readings - self.config.first_averaged
        alive = jnp.where(state.status == int(Status.RUNNING), 1.0, jnp.nan).astype(critical.dtype)
        return {
            "profile": state.profile / averaged * alive,
            "limit": limits[here],
            "limit_profile": profiles[here],
            "curve": curve,
            "critical": critical,
            "eigenvalue": jnp.stack([crowd.eigenvalue for crowd in self.crowds]),
            "mean_degree": jnp.stack([crowd.mean_degree for crowd in self.crowds]),
        }

    def _until_reading(self, state: LaneState, systems: list[Oscillators]) -> tuple[LaneState, dict[str, Array]]:
        """`steps_per_reading` steps of every size and averages over them; a lane that is not finite any more stands still."""
        steps = self.config.steps_per_reading
        parts = []
        for crowd, system, x in zip(self.crowds, systems, state.phases, strict=True):
            parts.append(_advance(crowd, system, x, state.reading * steps, steps))
        phases = tuple(part[0] for part in parts)
        alive = (state.status == int(Status.RUNNING)) & tree_all_finite(phases)
        averaged = state.reading >= self.config.first_averaged
        profile = state.profile + jnp.where(averaged, _profile(self.crowds[-1], phases[-1]), 0)
        new = state._replace(phases=phases, profile=profile, reading=state.reading + 1)
        kept = tree_where(alive, new, state)
        failed = (state.status == int(Status.RUNNING)) & ~alive
        status = jnp.where(failed, int(Status.NONFINITE), state.status).astype(jnp.int8)
        records = {name: jnp.stack([part[1][name] for part in parts]) for name in parts[0][1]}
        return kept._replace(status=status), {name: jnp.where(alive, v, jnp.nan) for name, v in records.items()}

    def _system(self, crowd: Crowd, size: int, state: LaneState) -> Oscillators:
        noisy = self.config.noise > 0
        return kuramoto(
            crowd.graph,
            self._frequencies(state.seed, size, state.coupling.dtype),
            state.coupling,
            dt=jnp.asarray(self.config.dt, state.coupling.dtype),
            noise=self.config.noise,
            key=self._key(state.seed, size, _PHASE_NOISE) if noisy else None,
            method="heun" if noisy else "rk4",
        )

    def _frequencies(self, seed: Array, size: int, dtype: Any) -> Any:
        """One for each oscillator; identical ones as NumPy zeros, so that the room knows that nothing turns."""
        if self.config.frequencies == "identical":
            return np.zeros(size, dtype)
        key = self._key(seed, size, _FREQUENCIES)
        if self.config.draws == "random":
            return law(self.config).sample(size, key).astype(dtype)
        # Quantiles in increasing order would correlate with the places of the nodes.
        return jax.random.permutation(key, law(self.config).midpoints(size)).astype(dtype)

    def _first(self, seed: Array, size: int, dtype: Any) -> Array:
        if self.config.start == "coherent":
            return jnp.zeros(size, dtype)
        return jax.random.uniform(self._key(seed, size, _FIRST_PHASES), (size,), dtype, maxval=2 * jnp.pi)

    def _key(self, seed: Array, size: int, purpose: int) -> Array:
        key = jax.random.fold_in(jax.random.key(self.config.seed), seed)
        return jax.random.fold_in(jax.random.fold_in(key, size), purpose)

    def watched(self) -> tuple[str, ...]:
        """The order parameter is what one follows while it runs."""
        return ("order",)

    def dims(self) -> dict[str, tuple[str, ...]]:
        """Dimensions of the records behind `lane`."""
        series = dict.fromkeys(("order", "fluctuation", "projected"), ("reading", "size"))
        sized = dict.fromkeys(("eigenvalue", "mean_degree"), ("size",))
        profiles = dict.fromkeys(("profile", "limit_profile"), ("label",))
        return {**series, **sized, **profiles, "curve": ("along",), "limit": (), "critical": ()}

    def coords(self) -> dict[str, np.ndarray]:
        """Times at the end of the readings, sizes, labels of the profile, couplings of the curve of the limit."""
        return {
            "reading": self.config.reading_interval * np.arange(1, self.config.num_readings + 1),
            "size": np.asarray(self.sizes),
            "label": (np.arange(BINS) + 0.5) / BINS,
            "along": np.asarray(self.along),
        }


def _crowd(config: Config, size: int, largest: bool, prediction: Prediction, dtype: Any) -> Crowd:
    people: Population = population(config, size)
    graph = people.graph
    weights = np.full(size, 1 / size) if people.weights is None else people.weights
    rows, eigenvalue = [weights], np.zeros(())
    if np.isfinite(prediction.critical):
        vector, eigenvalue, mass = (np.asarray(part, float) for part in _leading(graph, dtype))
        if not _alike(mass, dtype):
            rows.append(vector)
    readout = np.stack(rows)
    bins = None
    if largest:
        bins = np.zeros((BINS, size))
        order = np.arange(size) if people.order is None else people.order
        bins[:, order] = bin_matrix(size)
    return Crowd(
        graph=graph,
        readout=jnp.asarray(readout, dtype),
        norms=jnp.asarray(1 / np.sum(readout**2, axis=1), dtype),
        bins=None if bins is None else jnp.asarray(bins, dtype),
        eigenvalue=jnp.asarray(eigenvalue, dtype),
        mean_degree=jnp.asarray(graph.mean_degree, dtype),
    )


@eqx.filter_jit
def _leading(graph: GraphOperator, dtype: Any) -> tuple[Array, Array, Array]:
    """The leading left eigenvector, its Rayleigh quotient, and the weights that arrive at the nodes."""
    vector = leading_left_vector(graph, dtype=dtype)
    return vector, jnp.sum(vector * graph.transpose().apply(vector)), graph.mass(dtype)


def _alike(mass: np.ndarray, dtype: Any) -> bool:
    """Whether all nodes are driven with the same total weight, up to rounding."""
    return bool(np.ptp(mass) <= 64 * np.finfo(dtype).eps * np.max(np.abs(mass)))


def _advance(crowd: Crowd, system: Oscillators, x: Phases, start: Array, steps: int) -> tuple[Phases, dict[str, Array]]:
    """Steps of one size, and the averages of the order parameter and of squares over them."""

    def move(i: Array, carry: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
        before, order, squares = carry
        after: Any = system.step(start + i, before)
        moduli = (crowd.readout @ after.cos) ** 2 + (crowd.readout @ after.sin) ** 2
        return after, order + jnp.sqrt(moduli[0]), squares + crowd.norms * moduli

    zeros = jnp.zeros(crowd.norms.shape, x.cos.dtype)
    moved, order, squares = jax.lax.fori_loop(0, steps, move, (x, zeros[0], zeros))
    return moved, {"order": order / steps, "fluctuation": squares[0] / steps, "projected": squares[-1] / steps}


def _profile(crowd: Crowd, x: Phases) -> Float[Array, "bins"]:
    """The phasors in each bin of labels, along the mean phasor of all."""
    cos, sin = crowd.readout[0] @ x.cos, crowd.readout[0] @ x.sin
    size = jnp.sqrt(cos**2 + sin**2)
    bins: Any = crowd.bins
    return ((bins @ x.cos) * cos + (bins @ x.sin) * sin) / jnp.where(size > 0, size, 1)


def lanes(config: Config) -> dict[str, np.ndarray]:
    """The lanes of a configuration: every coupling with every seed."""
    coupling, seed = np.meshgrid(predict(config).couplings, np.arange(config.num_seeds, dtype=np.int32), indexing="ij")
    return {"coupling": coupling.ravel(), "seed": seed.ravel()}


def labels(config: Config) -> dict[str, np.ndarray]:
    """Lane coordinates that are only stored: none."""
    return {}


def fingerprint(program: MeanFieldProgram) -> str:
    """SHA-256 of the graphs, so that a store can tell whether a file has changed."""
    graphs = [crowd.graph for crowd in program.crowds]
    return data.sha256(*(np.asarray(leaf) for leaf in jax.tree_util.tree_leaves(graphs) if eqx.is_array(leaf)))


def program(config: Config) -> MeanFieldProgram:
    """The program of a configuration.

    Args:
        config: the configuration.

    Returns:
        A `MeanFieldProgram`; arrays take the precision of the configuration, so build it where that precision is enabled.

    Raises:
        FileNotFoundError: if the graph is a file that is not there.
        ValueError: if the graph of a file cannot be used.
    """
    return MeanFieldProgram(config)
