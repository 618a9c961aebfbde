"""Newton's method for critical points from many starts at once, and the derivatives that judge what it finds."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

CHUNK = 128  # points per call of a compiled program, so that each is compiled once
MAX_STEPS = 80
_FRACTIONS = (1.0, 0.5, 0.2, 0.05)  # of a Newton step
_DESCENTS = (1.0, 0.2)  # of the best step along the gradient of |g|^2
_ROOM = 0.25  # of the box on every side, in which iterates may wander


class Landscape(NamedTuple):
    """A scalar map on a box: its arrays are traced, so that maps of one architecture share all compiled programs."""

    function: Any
    lower: np.ndarray
    upper: np.ndarray

    @property
    def dim(self) -> int:
        """Number of variables."""
        return self.lower.shape[0]

    @property
    def dtype(self) -> Any:
        """The floating dtype of the box, in which everything but the proof is computed."""
        return self.lower.dtype

    @property
    def size(self) -> np.ndarray:
        """Lengths of the sides."""
        return self.upper - self.lower

    def values(self, x: np.ndarray) -> np.ndarray:
        """The map at points (n, d)."""
        return _in_chunks(_values, self.function, x)

    def gradients(self, x: np.ndarray) -> np.ndarray:
        """Its gradients at points (n, d)."""
        return _in_chunks(_gradients, self.function, x)

    def hessians(self, x: np.ndarray) -> np.ndarray:
        """Its Hessians at points (n, d), symmetrised."""
        matrices = _in_chunks(_hessians, self.function, x)
        return 0.5 * (matrices + np.swapaxes(matrices, 1, 2))

    def inside(self, x: np.ndarray) -> np.ndarray:
        """Which points lie in the box."""
        return np.all((x >= self.lower) & (x <= self.upper), axis=1)


def scalar(function: Any) -> Any:
    """The map as a function with values of shape ()."""
    return lambda x: jnp.reshape(function(x), ())


@eqx.filter_jit
def _values(function: Any, x: Array) -> Array:
    return jax.vmap(scalar(function))(x)


@eqx.filter_jit
def _gradients(function: Any, x: Array) -> Array:
    return jax.vmap(jax.grad(scalar(function)))(x)


@eqx.filter_jit
def _hessians(function: Any, x: Array) -> Array:
    return jax.vmap(jax.jacfwd(jax.grad(scalar(function))))(x)


def _in_chunks(program: Any, function: Any, x: np.ndarray) -> np.ndarray:
    """Apply a compiled program to points in chunks of one size, the last one filled up."""
    parts = []
    for start in range(0, max(x.shape[0], 1), CHUNK):
        part = x[start : start + CHUNK]
        if not part.shape[0]:
            part = np.zeros((1, x.shape[1]), x.dtype)
        filled = np.concatenate([part, np.repeat(part[:1], CHUNK - part.shape[0], axis=0)])
        parts.append(np.asarray(program(function, filled))[: part.shape[0]])
    return np.concatenate(parts)[: x.shape[0]]


def low_discrepancy(landscape: Landscape, shift: np.ndarray, first: int, count: int) -> np.ndarray:
    """Points `first`, ..., `first + count - 1` of a randomly shifted Kronecker sequence in the box.

    Multiples of (1/p, 1/p^2, ..., 1/p^d) modulo 1 with p^(d+1) = p + 1, the generalised golden ratio.
    """
    dim = landscape.dim
    ratio = 2.0
    for _ in range(40):
        ratio = (1 + ratio) ** (1 / (dim + 1))
    steps = ratio ** -np.arange(1.0, dim + 1)
    unit = (shift + np.arange(first + 1, first + count + 1)[:, None] * steps) % 1.0
    return (landscape.lower + unit * landscape.size).astype(landscape.dtype)


def newton(landscape: Landscape, starts: np.ndarray) -> np.ndarray:
    """Where Newton's method ends from each start (n, d); in chunks, each until all of its starts are at rest."""
    with_box = (landscape.function, jnp.asarray(landscape.lower), jnp.asarray(landscape.upper))
    return _in_chunks(_newton, with_box, starts)


@eqx.filter_jit
def _newton(problem: Any, starts: Float[Array, "n d"]) -> Float[Array, "n d"]:
    """Damped Newton steps and descents of |g|^2; the candidate with the smallest |g| is taken, if it is smaller at all."""
    function, lower, upper = problem
    gradient = jax.grad(scalar(function))
    room = _ROOM * (upper - lower)

    def merit(x: Array) -> Array:
        value = jnp.linalg.norm(gradient(x))
        inside = jnp.all((x >= lower - room) & (x <= upper + room))
        return jnp.where(inside & jnp.isfinite(value), value, jnp.inf)

    def improve(x: Array, best: Array) -> tuple[Array, Array]:
        candidates = x + _steps(gradient(x), jax.jacfwd(gradient)(x), upper - lower)
        merits = jax.vmap(merit)(candidates)
        k = jnp.argmin(merits)
        better = merits[k] < best
        return jnp.where(better, candidates[k], x), jnp.where(better, merits[k], best)

    def turn(state: tuple[Any, ...]) -> tuple[Any, ...]:
        n, x, best, _ = state
        new, merits = jax.vmap(improve)(x, best)
        return n + 1, new, merits, jnp.any(merits < best)

    begin: tuple[Any, ...] = (0, starts, jax.vmap(merit)(starts), True)
    return jax.lax.while_loop(lambda s: (s[0] < MAX_STEPS) & s[3], turn, begin)[1]


def _steps(
    g: Float[Array, " d"], matrix: Float[Array, "d d"], size: Float[Array, " d"]
) -> Float[Array, "candidates d"]:
    """The shortest Newton step and the descent direction of |g|^2 / 2 with several lengths, none longer than the box.

    Eigenvalues below sqrt(eps) of the largest count as zero: on a curve of critical points their part is rounding.
    """
    matrix = jnp.where(jnp.all(jnp.isfinite(matrix)), matrix, jnp.eye(g.shape[0], dtype=g.dtype))
    norm = jnp.linalg.norm(matrix)
    scale = jnp.where(norm > 0, norm, 1)
    unit = matrix / scale
    floor = jnp.finfo(g.dtype).eps
    normal = unit @ unit + floor * jnp.eye(g.shape[0], dtype=g.dtype)
    full = -jnp.linalg.solve(normal, unit @ g) / scale
    slope = unit @ g
    curved = jnp.sum((unit @ slope) ** 2)
    descent = -slope * jnp.sum(slope**2) / jnp.where(curved > 0, curved, 1) / scale
    steps = [f * full for f in _FRACTIONS] + [f * descent for f in _DESCENTS]
    stacked = jnp.stack([jnp.where(jnp.isfinite(s), s, 0) for s in steps])
    longest = jnp.max(jnp.abs(stacked) / size, axis=1, keepdims=True)
    return stacked / jnp.maximum(longest * 2, 1)


class Judgement(NamedTuple):
    """What the derivatives say about candidates (n)."""

    x: np.ndarray
    gradient_norm: np.ndarray
    eigenvalues: np.ndarray
    step: np.ndarray  # length of the Newton step in units of the box
    kantorovich: np.ndarray
    radius: np.ndarray  # within which there is no second zero
    degenerate: np.ndarray
    unresolved: np.ndarray  # not degenerate, but Kantorovich's test fails too

    def take(self, index: Any) -> "Judgement":
        """Some of them."""
        return Judgement(*(field[index] for field in self))


def judge(landscape: Landscape, x: np.ndarray, gradient_scale: float, hessian_scale: float) -> Judgement:
    """Kantorovich's quantity beta^2 (|g| + rounding) L and the eigenvalues, at each candidate."""
    eps = float(np.finfo(landscape.dtype).eps)
    gradients = landscape.gradients(x).astype(np.float64)
    matrices = landscape.hessians(x)
    norm = np.linalg.norm(gradients, axis=1)
    values, vectors = np.linalg.eigh(matrices.astype(np.float64)) if x.shape[0] else (np.zeros(x.shape), matrices)
    least, largest = np.min(np.abs(values), axis=1), np.max(np.abs(values), axis=1)
    rounding = 8 * eps * hessian_scale
    beta = np.where(least > rounding, 1 / np.maximum(least, np.finfo(np.float64).tiny), np.inf)
    lipschitz = _hessian_lipschitz(landscape, x, matrices)
    eta = beta * (norm + 8 * eps * gradient_scale)
    with np.errstate(all="ignore"):
        kantorovich = np.where(np.isfinite(beta), beta * eta * lipschitz, np.inf)
        radius = np.maximum(0.5 / (beta * lipschitz), 8 * eta)
    fails = ~(kantorovich <= 0.5)
    small = least <= 8 * eps**0.5 * np.maximum(largest, hessian_scale)
    floor = eps * np.maximum(largest, eps * hessian_scale)
    parts = np.einsum("nij,ni->nj", vectors, gradients) if x.shape[0] else np.zeros(x.shape)
    newton_step = parts * values / (values**2 + (floor**2 / eps)[:, None] + np.finfo(np.float64).tiny)
    step = np.linalg.norm(newton_step, axis=1) / np.linalg.norm(landscape.size)
    return Judgement(x, norm, values, step, kantorovich, radius, small & fails, ~small & fails)


def _hessian_lipschitz(landscape: Landscape, x: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """An estimate of the Lipschitz constant of the Hessian near each point, by one-sided differences along the axes."""
    step = float(np.finfo(landscape.dtype).eps) ** 0.25
    total = np.zeros(x.shape[0])
    for axis in range(landscape.dim):
        delta = step * landscape.size[axis]
        shifted = x.copy()
        # Towards the middle of the box, where the map is defined for sure.
        sign = np.where(x[:, axis] > 0.5 * (landscape.lower[axis] + landscape.upper[axis]), -1, 1)
        shifted[:, axis] += (sign * delta).astype(landscape.dtype)
        change = (landscape.hessians(shifted) - matrices).astype(np.float64) / delta
        total += np.sum(change**2, axis=(1, 2))
    return np.sqrt(total)
