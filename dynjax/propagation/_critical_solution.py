"""The slowest decay that a delay equation of given strength allows, and where it reaches zero."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from .._core import check_that, is_concrete

_DEGREE = 48  # of the window polynomials; exact in the first 47 windows, afterwards the rest is below rounding
_WINDOWS = 20  # from here on one pair of characteristic roots is all of the solution, up to exp(-42)
_HALVINGS = 60
_NEWTON_STEPS = 8


def critical_solution(memory: Float[Array, "..."] | float, t: Float[Array, "..."] | float) -> Float[Array, "..."]:
    r"""The solution w of w'(t) = -K w(t - tau) with w = 1 for t <= 0, at the time t in units of the delay.

    It is the smallest factor by which a delay equation with the constant K can shrink differences: for every field with
    |F(t, u) - F(t, v)| <= K sup |u - v| and constant data c_1, c_2 on the past,

    $$|y_1(t) - y_2(t)| \ge w(t) |c_1 - c_2| \quad\text{up to the first zero of } w \text{ [derived].}$$

    In closed form w(t) = sum_{j=0}^{floor(t)+1} (-K tau)^j (t - j + 1)^j / j!, which is rounding noise from t of about 12.
    Here each window [n, n+1] has its own Taylor polynomial, obtained from that of the window before, at a cost of 50
    multiplications per window; the relative error is then a few roundings. For tau -> 0 at fixed K t it becomes exp(-K t).

    Args:
        memory: K tau, positive or 0.
        t: time in units of the delay, any shape that broadcasts with `memory`.

    Returns:
        w(t). Derivatives in both arguments are exact, in both modes.

    Raises:
        ValueError: if `memory` is negative or not finite.

    Example:
        ```python
        dj.propagation.critical_solution(0.5, 2.0)         # 1 - 0.5 * 2 + 0.5**2 / 2 = 0.125
        ```

    References:
        Bellen and Zennaro, Numerical Methods for Delay Differential Equations (2003), on the method of steps.
    """
    check_memory(memory)
    memory, t = _floats(memory, t)
    return _solutions(memory, t)


def first_zero(memory: Float[Array, "..."] | float) -> Float[Array, "..."]:
    r"""The first zero T*/tau of w' = -K w(t - tau), w = 1 on the past; infinite if and only if K tau <= 1/e.

    A delay equation with constant K and delay tau keeps different constant data apart before T*, and can merge them after it.
    Up to t = 20 the zero is found on the window polynomials. Later zeros follow from the leading pair of characteristic
    roots lambda = -omega cot omega +- i omega, K tau = omega exp(-omega cot omega) / sin omega, which is then the whole
    solution to 18 digits:

    $$\omega (T^*/\tau + 1) + \arctan\frac{1 - \omega \cot\omega}{\omega} = \pi \quad\text{[derived].}$$

    Args:
        memory: K tau, positive or 0, any shape.

    Returns:
        T*/tau, with exact derivatives (0 where it is infinite). Close to 1/e, T*/tau is about pi / sqrt(2 (e K tau - 1)),
        so its relative error grows like (rounding) (T*/tau)^2.

    Raises:
        ValueError: if `memory` is negative or not finite.

    Example:
        ```python
        dj.propagation.first_zero(0.5)                     # 2.7400789501051
        ```
    """
    check_memory(memory)
    (memory,) = _floats(memory)
    return _first_zeros(memory)


def memory_threshold(horizon_over_delay: Float[Array, "..."] | float) -> Float[Array, "..."]:
    r"""The critical memory capacity K tau at the horizon T: the inverse of `first_zero`.

    Below it no neural delay equation y' = F(t, y_t) with |F(t, u) - F(t, v)| <= K sup |u - v| and constant data can merge two
    inputs, whatever its dimension, so that its map to the output has no local extremum unless the state is larger than
    the input; above it every Lipschitz map is embedded exactly once the state holds input and output (`DelayEmbedding`)
    [derived]. It is tau / T for T <= tau, 2 - sqrt 2 at T = 2 tau, and tends to 1/e.

    Args:
        horizon_over_delay: T / tau, positive, any shape; `inf` gives 1/e.

    Returns:
        The critical K tau, with exact derivatives.

    Raises:
        ValueError: if `horizon_over_delay` is not positive.

    Example:
        ```python
        dj.propagation.memory_threshold(3.0)               # 0.48198707159518
        ```

    References:
        Kuehn and Kuntz, arXiv:2505.07244 (2025), for the memory capacity K tau; the sharp curve is derived here.
    """
    if is_concrete(horizon_over_delay):
        good = bool(np.all(np.asarray(horizon_over_delay) > 0))
        check_that(good, "horizon_over_delay", "be positive", f"found {horizon_over_delay}")
    (ratio,) = _floats(horizon_over_delay)
    return _thresholds(ratio)


def check_memory(memory: Any) -> None:
    """Raise unless K tau is finite and not negative; a traced one passes."""
    if is_concrete(memory):
        array = np.asarray(memory)
        good = bool(np.all(np.isfinite(array) & (array >= 0)))
        check_that(good, "memory", "be finite and not negative", f"found {memory}")


def window_polynomials(memory: Array, num_windows: int) -> Float[Array, "windows degree"]:
    """Taylor coefficients of w at the start of each of the first windows [n, n + 1], in powers of t - n, as few as it takes."""
    size = min(num_windows + 1, _DEGREE)
    row = jnp.zeros(size, jnp.result_type(memory)).at[0].set(1)
    rows = []
    for _ in range(num_windows):
        row = _next_window(memory, row)
        rows.append(row)
    return jnp.stack(rows)


def polynomial(coefficients: Float[Array, " degree"], s: Array) -> Array:
    """The value at s, by Horner's rule."""
    return lax.fori_loop(
        0,
        coefficients.shape[0],
        lambda i, value: value * s + coefficients[coefficients.shape[0] - 1 - i],
        jnp.zeros_like(s),
    )


def _floats(*values: Any) -> tuple[Array, ...]:
    dtype = jnp.result_type(*values, float)
    return tuple(jnp.asarray(value, dtype) for value in values)


def _next_window(memory: Array, row: Float[Array, " degree"]) -> Float[Array, " degree"]:
    """w(n + 1 + s) = w(n + 1) - K tau int_0^s w(n + r) dr, coefficient by coefficient."""
    powers = jnp.arange(1, row.shape[0], dtype=row.dtype)
    return jnp.concatenate([jnp.sum(row)[None], -memory * row[:-1] / powers])


def _constant(memory: Array) -> Float[Array, " degree"]:
    """The past, w = 1."""
    return jnp.zeros(_DEGREE, memory.dtype).at[0].set(1)


def _march(memory: Array, t: Array) -> Array:
    """w(t) by as many windows as it takes; forward mode only."""
    window = jnp.maximum(jnp.floor(lax.stop_gradient(t)), -1)
    row = lax.fori_loop(0, window.astype(int) + 1, lambda _, row: _next_window(memory, row), _constant(memory))
    return polynomial(row, jnp.where(window < 0, 0, t - window))


@jax.custom_jvp
def _solution(memory: Array, t: Array) -> Array:
    return _march(memory, t)


@_solution.defjvp
def _solution_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    memory, t = primals
    value, by_memory = _memory_derivative(memory, t)
    by_time = jnp.where(t < 0, 0, -memory * _solution(memory, t - 1))
    return value, by_memory * tangents[0] + by_time * tangents[1]


def _memory_derivative(memory: Array, t: Array) -> tuple[Array, Array]:
    """The value w(t) and dw/d(K tau)."""
    value, slope = jax.jvp(lambda m: _march(m, t), (memory,), (jnp.ones_like(memory),))
    return value, slope


@jax.custom_jvp
def _first_zero(memory: Array) -> Array:
    early, found = _early_zero(memory)
    late = _late_zero(_frequency(memory))
    return jnp.where(found, early, jnp.where(_excess(memory) > 0, late, jnp.inf))


@_first_zero.defjvp
def _first_zero_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (memory,) = primals
    zero = _first_zero(memory)
    return zero, _zero_slope(memory, zero) * tangents[0]


def _zero_slope(memory: Array, zero: Array) -> Array:
    """dT*/d(K tau) where w(T*) = 0, by the implicit function; 0 where there is no zero."""
    finite = jnp.isfinite(zero)
    near = jnp.where(zero < _WINDOWS, zero, 1)
    early = _memory_derivative(memory, near)[1] / (memory * _solution(memory, near - 1))
    omega = _frequency(memory)
    late = jax.grad(_late_zero)(omega) / (jax.grad(_growth)(omega) * memory)
    return jnp.where(finite, jnp.where(zero < _WINDOWS, early, late), 0)


def _early_zero(memory: Array) -> tuple[Array, Array]:
    """The first zero up to t = 20, and whether there is one. w falls until one delay after it, so one end tells."""

    def window(row: Array, _: Any) -> tuple[Array, Array]:
        following = _next_window(memory, row)
        return following, following

    _, rows = lax.scan(window, _constant(memory), length=_WINDOWS)
    ended = jnp.sum(rows, axis=1) <= 0
    first = jnp.argmax(ended)
    row = rows[first]
    low, high = jnp.zeros_like(memory), jnp.ones_like(memory)

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        below = polynomial(row, middle) <= 0
        return jnp.where(below, low, middle), jnp.where(below, middle, high)

    low, high = lax.fori_loop(0, _HALVINGS, halve, (low, high))
    return first + (low + high) / 2, jnp.any(ended)


def _bend(omega: Array) -> Array:
    """1 - omega cot omega, without cancellation."""
    small = omega < 1e-3
    safe = jnp.where(small, 1, omega)
    return jnp.where(small, omega**2 / 3 + omega**4 / 45, 1 - safe / jnp.tan(safe))


def _growth(omega: Array) -> Array:
    """log(e K tau) of the pair of characteristic roots with the imaginary parts +- omega."""
    small = omega < 1e-3
    safe = jnp.where(small, 1, omega)
    return jnp.where(small, omega**2 / 6 + omega**4 / 180, jnp.log(safe / jnp.sin(safe))) + _bend(omega)


def _late_zero(omega: Array) -> Array:
    """Where the leading pair of roots vanishes first."""
    return (jnp.pi - jnp.arctan(_bend(omega) / omega)) / omega - 1


class _Equation(NamedTuple):
    """Newton's method for a function that is smooth and has no flat point on its way."""

    function: Any

    def solve(self, x: Array) -> Array:
        def step(_: int, x: Array) -> Array:
            value, slope = jax.value_and_grad(self.function)(x)
            return x - value / slope

        return lax.fori_loop(0, _NEWTON_STEPS, step, x)


def _excess(memory: Array) -> Array:
    """log(e K tau); minus infinity at 0."""
    return jnp.log(memory) + 1


def _frequency(memory: Array) -> Array:
    """Omega of the leading roots for K tau > 1/e; something harmless where there is none or where it is not needed."""
    excess = lax.stop_gradient(_excess(memory))
    excess = jnp.clip(excess, jnp.finfo(memory.dtype).eps / 4, 0.05)
    return _Equation(lambda omega: _growth(omega) - excess).solve(jnp.sqrt(2 * excess))


@jax.custom_jvp
def _threshold(ratio: Array) -> Array:
    inside = jnp.clip(ratio, 1, _WINDOWS)
    low, high = jnp.full_like(ratio, np.exp(-1)), jnp.ones_like(ratio)

    def halve(_: int, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        enough = _first_zero(middle) <= inside
        return jnp.where(enough, low, middle), jnp.where(enough, middle, high)

    low, high = lax.fori_loop(0, _HALVINGS, halve, (low, high))
    late = jnp.exp(_growth(_threshold_frequency(ratio)) - 1)
    return jnp.where(ratio <= 1, 1 / ratio, jnp.where(ratio <= _WINDOWS, (low + high) / 2, late))


@_threshold.defjvp
def _threshold_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (ratio,) = primals
    memory = _threshold(ratio)
    inside = jnp.clip(ratio, 1, _WINDOWS)
    near = jnp.where(ratio <= _WINDOWS, memory, 1)
    middle = near * _solution(near, inside - 1) / _memory_derivative(near, inside)[1]
    omega = _threshold_frequency(ratio)
    late = jax.grad(_growth)(omega) * memory / jax.grad(_late_zero)(omega)
    late = jnp.where(jnp.isinf(ratio), 0, late)
    slope = jnp.where(ratio <= 1, -1 / ratio**2, jnp.where(ratio <= _WINDOWS, middle, late))
    return memory, slope * tangents[0]


def _threshold_frequency(ratio: Array) -> Array:
    """Omega of the roots for which the first zero is at `ratio`, where that is late; 0 for an infinite one."""
    late = jnp.maximum(lax.stop_gradient(ratio), _WINDOWS)
    guess = jnp.maximum(jnp.pi / (late + 4 / 3), jnp.finfo(ratio.dtype).tiny)
    finite = jnp.where(jnp.isinf(late), _WINDOWS, late)
    equation = _Equation(lambda omega: omega * (finite + 1) + jnp.arctan(_bend(omega) / omega) - jnp.pi)
    return jnp.where(jnp.isinf(late), guess, equation.solve(guess))


_solutions = jax.jit(jnp.vectorize(_solution))
_first_zeros = jax.jit(jnp.vectorize(_first_zero))
_thresholds = jax.jit(jnp.vectorize(_threshold))
