"""One lane as a pure program: tokens that attract each other, read at times that are even in the logarithm."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Int8, PRNGKeyArray

from ... import data
from ..._core import Status
from ...meanfield import (
    angles_to_tokens,
    attention_energy,
    attention_flow,
    circle_attention,
    circle_moments,
    count_clusters,
    sphere_tokens,
)
from ...meanfield._networks.attention_modes import default_modes
from ...sweep import AbstractProgram
from ...systems import AbstractSystem
from ._config import Config
from ._scales import cap_angle, rates_at

NUM_MODES = 12  # Fourier modes that are stored


class LaneState(NamedTuple):
    """Everything a lane carries from one segment to the next.

    On the circle `x` holds angles (n,) in radians, not wrapped; on other spheres tokens (n, d).
    """

    x: Float[Array, "tokens *d"]
    step: Int[Array, ""]
    reading: Int[Array, ""]
    beta: Float[Array, ""]
    rate: Float[Array, ""]
    diffusion: Float[Array, ""]
    angle: Float[Array, ""]
    least_share: Float[Array, ""]
    key: PRNGKeyArray
    status: Int8[Array, ""]


class AttentionProgram(AbstractProgram):
    """Runs of self-attention, as `dynjax.sweep` runs them over blocks of lanes: one compiled program for all.

    Args:
        config: the configuration.
    """

    reading_steps: Int[Array, "readings"]
    config: Config = eqx.field(static=True)
    num_segments: int = eqx.field(static=True)
    num_harmonics: int = eqx.field(static=True)

    def __init__(self, config: Config):
        self.config, self.num_segments = config, config.num_segments
        self.reading_steps = jnp.asarray(config.reading_steps, jnp.int32)
        # As many harmonics of the kernel as the largest beta needs, for all lanes.
        self.num_harmonics = default_modes(max(config.betas))

    @property
    def circular(self) -> bool:
        """Whether tokens are angles."""
        return self.config.dimension == 2

    def init(self, lane: dict[str, Array]) -> LaneState:
        """The tokens of a seed, the same at every inverse temperature."""
        dtype = jnp.dtype(self.config.precision)
        seeded = jax.random.fold_in(jax.random.key(self.config.seed), lane["seed"])
        draw, path = jax.random.split(seeded)
        beta = lane["beta"].astype(dtype)
        # Computed here, not by the host: other compiler flags in workers may change the last bits, lanes must not change.
        rates = rates_at(beta, self.config.kind)
        fastest = jnp.argmax(rates) + 1
        return LaneState(
            x=self._start(draw, dtype),
            step=jnp.asarray(0, jnp.int32),
            reading=jnp.asarray(0, jnp.int32),
            beta=beta,
            rate=jnp.max(rates),
            diffusion=self.config.noise * rates[0],
            angle=cap_angle(fastest).astype(dtype),
            # A quarter of a cluster, if there were one more than expected, is a stray.
            least_share=(0.25 / (fastest + 1)).astype(dtype),
            key=path,
            status=jnp.asarray(int(Status.RUNNING), jnp.int8),
        )

    def _start(self, key: PRNGKeyArray, dtype: Any) -> Float[Array, "tokens *d"]:
        n, dimension = self.config.num_tokens, self.config.dimension
        if not self.circular:
            return sphere_tokens(n, dimension, key=key, dtype=dtype)
        if self.config.start == "uniform":
            return 2 * jnp.pi * jax.random.uniform(key, (n,), dtype)
        lattice = jnp.arange(n).astype(dtype) * (2 * np.pi / n)
        return lattice + self.config.perturbation * jax.random.normal(key, (n,), dtype)

    def segment(self, state: LaneState) -> tuple[LaneState, dict[str, Array], Int8[Array, ""]]:
        """A few readings."""
        length = -(-self.reading_steps.size // self.num_segments)
        state, records = lax.scan(lambda s, _: self._until_reading(s), state, None, length=length)
        return state, records, state.status

    def final(self, state: LaneState) -> dict[str, Array]:
        """All tokens at the end, the growth rate that sets the unit of time, and D."""
        return {"tokens": self._tokens(state.x), "rate": state.rate, "diffusion": state.diffusion}

    def _until_reading(self, state: LaneState) -> tuple[LaneState, dict[str, Array]]:
        """Steps up to the next reading, and what is seen then; a lane that is not finite any more stands still."""
        system = self._system(state)
        last = self.reading_steps[jnp.minimum(state.reading, self.reading_steps.size - 1)]
        stop = jnp.where(state.status == int(Status.RUNNING), last, state.step)
        step, x = lax.while_loop(
            lambda carry: carry[0] < stop,
            lambda carry: (carry[0] + 1, system.step(carry[0], carry[1])),
            (state.step, state.x),
        )
        good = (state.status == int(Status.RUNNING)) & jnp.all(jnp.isfinite(x))
        records = self._look(x, state, good)
        failed = (state.status == int(Status.RUNNING)) & ~good
        status = jnp.where(failed, int(Status.NONFINITE), state.status).astype(jnp.int8)
        x = jnp.where(good, x, state.x)
        return state._replace(x=x, step=step, reading=state.reading + 1, status=status), records

    def _look(self, x: Array, state: LaneState, good: Array) -> dict[str, Array]:
        """Energy, clusters, how tight they are, Fourier modes and angles."""
        tokens = self._tokens(x)
        found = count_clusters(tokens, angle=state.angle, least_share=state.least_share)
        cosines = jnp.sum(tokens * found.centers[found.labels], axis=-1)
        alive = jnp.where(good, 1.0, jnp.nan).astype(x.dtype)
        records = {
            "energy": attention_energy(tokens, state.beta) * alive,
            "clusters": jnp.where(good, found.count, -1).astype(jnp.int32),
            "spread": jnp.sqrt(2 * jnp.maximum(1 - jnp.mean(cosines), 0)) * alive,
        }
        if self.circular:
            records["modes"] = jnp.abs(circle_moments(tokens, NUM_MODES)) * alive
            records["angles"] = (x[:: self.config.stride] * alive).astype(jnp.float32)
        return records

    def _tokens(self, x: Array) -> Float[Array, "tokens d"]:
        return angles_to_tokens(x) if self.circular else x

    def _system(self, state: LaneState) -> AbstractSystem:
        """The dynamics of a lane."""
        options: dict[str, Any] = {"dt": self.config.dt / state.rate, "kind": self.config.kind}
        if self.config.noise:
            options |= {"noise": state.diffusion, "key": state.key}
        if self.circular:
            return circle_attention(state.beta, num_modes=self.num_harmonics, **options)
        return attention_flow(state.beta, **options)

    def watched(self) -> tuple[str, ...]:
        """Energies of different lanes differ by orders; clusters and their width are what one follows."""
        return ("clusters", "spread")

    def dims(self) -> dict[str, tuple[str, ...]]:
        """Dimensions of the records behind `lane`."""
        dims: dict[str, tuple[str, ...]] = dict.fromkeys(("energy", "clusters", "spread"), ("reading",))
        if self.circular:
            dims |= {"modes": ("reading", "mode"), "angles": ("reading", "kept_token")}
        return dims | {"tokens": ("token", "component"), "rate": (), "diffusion": ()}

    def coords(self) -> dict[str, np.ndarray]:
        """Readings in units of time of the lane, numbers of the others."""
        coords = {
            "reading": self.config.dt * self.config.reading_steps,
            "token": np.arange(self.config.num_tokens),
            "component": np.arange(self.config.dimension),
        }
        if self.circular:
            coords["mode"] = np.arange(1, NUM_MODES + 1)
            coords["kept_token"] = np.arange(0, self.config.num_tokens, self.config.stride)
        return coords


def lanes(config: Config) -> dict[str, np.ndarray]:
    """The lanes of a configuration: every inverse temperature with every seed."""
    beta, seed = np.meshgrid(np.asarray(config.betas), np.arange(config.num_seeds, dtype=np.int32), indexing="ij")
    return {"beta": beta.ravel(), "seed": seed.ravel()}


def labels(config: Config) -> dict[str, np.ndarray]:
    """Lane coordinates that are only stored: none."""
    return {}


def fingerprint(program: AttentionProgram) -> str:
    """SHA-256 of the steps at which lanes are read, the only data there is."""
    return data.sha256(np.asarray(program.reading_steps))


def program(config: Config) -> AttentionProgram:
    """The program of a configuration.

    Args:
        config: the configuration.

    Returns:
        An `AttentionProgram`; arrays take the precision of the configuration, so build it where that precision is enabled.
    """
    return AttentionProgram(config)
