"""An optimiser seen by one coordinate: which parts of its state are frozen, and how its update answers to a gradient."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float

from .._core import check_that, is_concrete
from ._map import check_optimizer

# Centred RMSProp subtracts the square of its mean gradient: that mean is odd in the gradient but belongs to the second
# moment. Everything else is found by running the optimiser.
_CENTRED = ("ScaleByRStdDevState", "ScaleByRStdDevWithCountState")
# Gradient accumulation and lookahead: one step of theirs is not the map that is iterated.
_PERIODIC = ("MultiStepsState", "ApplyEvery", "LookaheadState")
# Size of the gradients by which the state is classified: small, so that most clips do not act.
_PROBE = 2.0**-10
# A counter "at infinity". Not the largest integer, which a plain `count + 1` of a user's transformation would overflow.
_FOREVER = 2**30


class Coordinate:
    """One scalar parameter under an optimiser, as a map (w, state, g) -> (update, state').

    Each floating-point leaf of the state belongs to one of three classes, found by two steps from the initial state with
    gradient +h, -h and 0:

    - odd: it depends on the sign of the gradient (momentum). It is dynamic.
    - even: it depends on the gradient but not on its sign (second moments). It is frozen.
    - kept: it does not depend on the gradient (hyperparameters). It has the value of the state it is read from.

    The classes are arrays, so that an optimiser may hold a traced learning rate. Integers that grow by one a step are
    counters. "Frozen at e" means that the *new* value of the leaf, which the update uses, is e when the gradient is 0.

    Args:
        optimizer: an optax transformation.
        dtype: floating-point dtype of the parameter.

    Attributes:
        start: initial float leaves; `odd`, `even`, `centred`: their classes.
        floats: positions of the float leaves among all leaves of the state.
        even_at: float leaves that may be even, static; `moving`: which of (w, float leaves) may be dynamic, static.

    Raises:
        TypeError: if `optimizer` is no optax transformation.
        ValueError: if it does not run on one scalar parameter.
    """

    def __init__(self, optimizer: Any, dtype: Any):
        check_optimizer(optimizer)
        self.dtype = jnp.dtype(dtype)
        self.optimizer = optax.with_extra_args_support(optimizer)
        # Evaluated now, even where this is being traced: without a traced learning rate inside the optimiser the classes
        # are then known, and what does not vary costs nothing.
        with jax.ensure_compile_time_eval():
            try:
                state = optimizer.init(jnp.zeros((), self.dtype))
            except Exception as error:  # it is someone else's code
                raise _not_on_a_scalar(error) from error
            self._read_structure(state)
            try:
                self._classify()
            except Exception as error:
                raise _not_on_a_scalar(error) from error

    def _read_structure(self, state: Any) -> None:
        paths, treedef = jax.tree_util.tree_flatten_with_path(state)
        self.treedef: Any = treedef
        leaves = [leaf for _, leaf in paths]
        _refuse_periodic(state)
        self.is_float = [jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in leaves]
        self.is_integer = [jnp.issubdtype(jnp.result_type(leaf), jnp.integer) for leaf in leaves]
        self.floats = [i for i, good in enumerate(self.is_float) if good]
        for i in self.floats:
            shape = jnp.shape(leaves[i])
            check_that(
                shape == (),
                "optimizer",
                "act coordinate by coordinate, with one number per parameter in each part of its state",
                f"one part has shape {shape} for a single parameter",
            )
        self.start = jnp.asarray([jnp.asarray(leaves[i], self.dtype) for i in self.floats], self.dtype)
        self.rest: list[Any] = [
            None if good else jnp.asarray(leaf) for leaf, good in zip(leaves, self.is_float, strict=True)
        ]
        self.dtypes = [
            jnp.result_type(leaf) if good else None for leaf, good in zip(leaves, self.is_float, strict=True)
        ]
        marks = jax.tree_util.tree_leaves(jax.tree_util.tree_map(_mark, state, is_leaf=_is_centred))
        self.centred = np.asarray([marks[i] for i in self.floats], bool)
        parents = [str(path[:-1]) for path, _ in paths]
        # The counter of a second moment is the integer beside it in the same tuple.
        self.counter_of = [
            next((j for j, p in enumerate(parents) if p == parents[i] and self.is_integer[j]), None)
            for i in self.floats
        ]

    def _classify(self) -> None:
        # One small program: as single operations it would be two dozen compilations.
        self.odd, self.even, self.probed, self.counts, self.later = jax.jit(self._classes)()
        every = np.ones(len(self.floats), bool)
        self.even_at = np.flatnonzero(np.asarray(self.even) if is_concrete(self.even) else every)
        dynamic = np.asarray(self.odd) if is_concrete(self.odd) else every
        self.moving = np.flatnonzero(np.concatenate([[True], dynamic]))

    def _classes(self) -> tuple[Array, Array, Array, list[Any], list[Any]]:
        """(odd, even, float leaves after the probe, which leaves count steps, the other leaves late in a run)."""
        size = jnp.asarray(_PROBE, self.dtype)
        (plus, _), (minus, _), (zero, rest) = self._two_steps(size), self._two_steps(-size), self._two_steps(0 * size)
        tolerance = jnp.sqrt(jnp.finfo(self.dtype).eps)
        odd = jnp.abs(plus - minus) > tolerance * (jnp.abs(plus) + jnp.abs(minus))
        even = (~odd & (plus != zero)) | self.centred
        counts = [
            new == old + 2 if good else jnp.asarray(False)
            for new, old, good in zip(rest, self.rest, self.is_integer, strict=True)
        ]
        # Flags such as "this is the first step" have their later value.
        later = [
            jnp.where(c, jnp.asarray(_FOREVER, leaf.dtype), leaf) if good else leaf
            for leaf, good, c in zip(rest, self.is_integer, counts, strict=True)
        ]
        return odd & ~self.centred, even, plus, counts, later

    def _two_steps(self, g: Float[Array, ""]) -> tuple[Float[Array, "leaves"], list[Any]]:
        """The leaves after two steps from the initial state with the gradient `g`."""
        w, x, rest = jnp.zeros((), self.dtype), self.start, self.rest
        for _ in range(2):
            u, x, rest = self._advance(w, x, g, rest)
            w = w + u
        return x, rest

    def _advance(self, w: Any, x: Any, g: Any, rest: list[Any], value: float = 0.0) -> tuple[Array, Array, list[Any]]:
        leaves = list(rest)
        for k, i in enumerate(self.floats):
            leaves[i] = x[k].astype(self.dtypes[i])
        state = jax.tree_util.tree_unflatten(self.treedef, leaves)
        update, state = self.optimizer.update(
            g, state, w, value=jnp.full_like(w, value), grad=g, value_fn=lambda p: jnp.full_like(p, value)
        )
        leaves = self.treedef.flatten_up_to(state)
        floats = jnp.asarray([jnp.asarray(leaves[i], self.dtype) for i in self.floats], self.dtype)
        rest = [None if good else jnp.asarray(leaf) for leaf, good in zip(leaves, self.is_float, strict=True)]
        return jnp.asarray(update, self.dtype), floats, rest

    def subtrees(self, opt_state: Any) -> list[Any]:
        """The parts of an optimiser's state over any parameters that stand where this state has its leaves.

        Raises:
            ValueError: if it is not a state of this optimiser.
        """
        try:
            return self.treedef.flatten_up_to(opt_state)
        except (ValueError, TypeError) as error:
            raise ValueError(
                "Argument `opt_state` must be a state of `optimizer`, coordinate by coordinate, "
                f"but the structures differ: {str(error).splitlines()[0]}"
            ) from error

    def clock(self, rest: list[Any] | None) -> tuple[list[Any], Float[Array, "leaves"]]:
        """(the leaves before the step that made `rest`, steps that each float leaf has seen); at infinity if None."""
        if rest is None:
            return self.later, jnp.full((len(self.floats),), jnp.inf, self.dtype)
        before = [
            leaf if not good else jnp.where(c, jnp.maximum(leaf, 1) - 1, leaf)
            for leaf, good, c in zip(rest, self.is_integer, self.counts, strict=True)
        ]
        age = [
            jnp.inf if j is None else jnp.where(self.counts[j], jnp.maximum(rest[j], 1).astype(self.dtype), jnp.inf)
            for j in self.counter_of
        ]
        return before, jnp.asarray(age, self.dtype)

    def nothing_even(self) -> bool:
        """Whether it is known, while tracing too, that there are no second moments."""
        return self.even_at.size == 0

    def advance(self, w: Any, x: Any, g: Any, before: list[Any]) -> tuple[Float[Array, ""], Float[Array, "leaves"]]:
        """(update, float leaves after it)."""
        return self._advance(w, x, g, before)[:2]

    def has_limit(self, x: Float[Array, "leaves"], before: list[Any]) -> Bool[Array, ""]:
        """Whether the kept leaves come to rest and the update does not depend on the value of the loss."""
        zero = jnp.zeros((), self.dtype)
        _, once = self.advance(zero, x, zero, before)
        twice = self.advance(zero, once, zero, before)[1]
        rests = jnp.all(jnp.where(self.even | self.odd, True, once == twice))
        return rests & jnp.isfinite(self._advance(zero, x, zero + 1e-4, before, value=float("nan"))[0])

    def _decay(self, x: Any, before: list[Any]) -> tuple[Array, Array]:
        """The float leaves after a step without gradient, and the derivative of each with respect to itself."""
        zero = jnp.zeros((), self.dtype)

        def after(y: Array) -> Array:
            return self.advance(zero, y, zero, before)[1]

        slopes = jnp.zeros_like(x)
        for k in self.even_at:
            unit = jnp.zeros_like(x).at[k].set(1)
            slopes = slopes.at[k].set(jax.jvp(after, (x,), (unit,))[1][k])
        return after(x), slopes

    def before_freezing(
        self, frozen: Float[Array, "leaves"], kept: Float[Array, "leaves"], before: list[Any]
    ) -> tuple[Float[Array, "leaves"], Bool[Array, ""]]:
        """Float leaves from which one step without gradient leads to the even leaves `frozen`, and whether they exist.

        The recursion of a second moment is affine without gradient, e' = a e + b, so that Newton's method is exact; the
        second round is for rounding and for leaves that depend on each other (AMSGrad).
        """
        x = jnp.where(self.even, frozen, jnp.where(self.odd, 0, kept))
        if self.nothing_even():
            return x, jnp.asarray(True)
        for _ in range(2):
            after, slope = self._decay(x, before)
            usable = jnp.isfinite(slope) & (slope > 0)
            x = jnp.where(self.even, x + (frozen - after) / jnp.where(usable, slope, 1), x)
        error = jnp.abs(self._decay(x, before)[0] - frozen)
        floor = jnp.sqrt(jnp.finfo(self.dtype).eps)
        return x, jnp.all(jnp.where(self.even, error <= floor * jnp.abs(frozen) + least_moment(self.dtype), True))

    def reference(
        self, kept: Float[Array, "leaves"], before: list[Any], age: Float[Array, "leaves"]
    ) -> Float[Array, "leaves"]:
        """The even leaves after `age` steps with a gradient of size 1, so that a bias-corrected moment is 1.

        It is 1 + a^age (e_0 - 1) for a moving average that forgets at the rate a, and 1 for everything else.
        """
        if self.nothing_even():
            return jnp.zeros_like(self.start)
        _, slope = self._decay(jnp.where(self.even, 1, jnp.where(self.odd, 0, kept)), before)
        forgets = (slope > 0) & (slope < 1)
        slope = jnp.where(forgets, slope, 0.5)
        # A moving average of squares cannot have grown by more in the two steps of the probe; a maximum (AdaMax) can.
        most = _PROBE**2 + slope**2 * (self.start - _PROBE**2)
        averages = forgets & (self.probed <= most + 1e-3 * jnp.abs(most)) & jnp.isfinite(age)
        memory = jnp.where(averages, slope ** jnp.where(averages, age, 1), 0)
        return jnp.where(self.centred, 0, 1 + memory * (self.start - 1))

    def response(self, x: Float[Array, "leaves"], before: list[Any]) -> Float[Array, ""]:
        """-d update / d g at g = 0: the step size of the coordinate at the given float leaves."""
        zero = jnp.zeros((), self.dtype)
        return -jax.jvp(lambda g: self.advance(zero, x, g, before)[0], (zero,), (jnp.ones_like(zero),))[1]


def least_moment(dtype: Any) -> float:
    """A positive number whose decay by a few per cent does not underflow."""
    return float(jnp.finfo(dtype).tiny) * 1e6


def _is_centred(node: Any) -> bool:
    return type(node).__name__ in _CENTRED


def _mark(node: Any) -> Any:
    if _is_centred(node):
        return node._replace(**{name: name == "mu" for name in node._fields})
    return False


def _refuse_periodic(state: Any) -> None:
    names = {
        type(node).__name__
        for node in jax.tree_util.tree_leaves(state, is_leaf=lambda node: type(node).__name__ in _PERIODIC)
        if type(node).__name__ in _PERIODIC
    }
    check_that(
        not names,
        "optimizer",
        "do the same at every step",
        f"it acts every few steps only (found a {', '.join(sorted(names))}): pass the inner optimiser",
    )


def _not_on_a_scalar(error: Exception) -> ValueError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return ValueError(
        f"Argument `optimizer` must act coordinate by coordinate, but on one scalar parameter it raised: {reason}"
    )
