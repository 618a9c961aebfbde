"""Interpolation solutions: parameters at which a network reproduces its data to rounding."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Int8, PyTree

from .._core import Function, Raveler, Status, check_positive, check_that, found, is_concrete, split_inexact
from ..curvature import tangent_kernel

_BLOCK = 50  # steps of gradient descent between two looks at the curvature
_PRODUCTS = 12  # products of a power iteration; it is warm-started
_ROWS_AT_ONCE = 64
_LARGE = 2048  # above, singular values come from the Gram matrix
_DAMPINGS = 30  # dampings tried in one step of Levenberg and Marquardt


class Interpolation(eqx.Module):
    """Where the search for an interpolation solution has ended.

    Attributes:
        params: the parameters, a pytree like the start.
        residual_norm: |f(params) - y|, the Euclidean norm over all samples and outputs.
        converged: whether `residual_norm` is at most `tol * (1 + |y|)`.
        rank: rank of the Jacobian J of all outputs there: the number of singular values above `rank_tolerance` times the
            largest. The set of zero loss is regular where it is the number of outputs.
        rank_tolerance: see there; the larger side of J times eps, or the root of that for Jacobians with both sides above
            2,048, whose singular values come from the Gram matrix.
        singular_values: all singular values of J, descending.
        sample_curvatures: the eigenvalues of K_ii = J_i J_i^T of each sample, (N, outputs), ascending. A step of SGD with batch
            size B at the rate eta is singular for a sample alone where one of them is B / eta: see `resonant`.
        blocks: (N,) the connected component of each sample in the graph K_ij != 0, named by its first sample. Components do
            not interact under SGD.
        status: `OK`; `NOT_CONVERGED` where no step made the residual smaller (a minimum that is no interpolation),
            `MAX_STEPS` or `NONFINITE`.
        num_steps: steps of Levenberg and Marquardt.
        gd_loss: the loss (1/2N) |f - y|^2 after gradient descent.
    """

    params: PyTree
    residual_norm: Float[Array, ""]
    converged: Bool[Array, ""]
    rank: Int[Array, ""]
    rank_tolerance: float = eqx.field(static=True)
    singular_values: Float[Array, " values"]
    sample_curvatures: Float[Array, "samples outputs"]
    blocks: Int[Array, " samples"]
    status: Int8[Array, ""]
    num_steps: Int[Array, ""]
    gd_loss: Float[Array, ""]

    @property
    def num_blocks(self) -> Int[Array, ""]:
        """Number of connected components of the samples."""
        return jnp.sum(self.blocks == jnp.arange(self.blocks.size))

    @property
    def regular(self) -> Bool[Array, ""]:
        """Whether all gradients are independent and the graph K_ij != 0 is connected.

        With `~resonant(learning_rate, batch_size)` this is what the theorem on the limits of SGD asks for.
        """
        return (self.rank == self.sample_curvatures.size) & (self.num_blocks == 1)

    def resonant(self, learning_rate: Any, batch_size: int = 1) -> Bool[Array, ""]:
        """Whether I - (eta/B) K_ii is singular to rounding for some sample i."""
        gap = jnp.abs(
            1 - jnp.asarray(learning_rate, self.sample_curvatures.dtype) / batch_size * self.sample_curvatures
        )
        return jnp.any(gap <= 16 * jnp.finfo(gap.dtype).eps)

    def __str__(self) -> str:
        name = "converged" if bool(self.converged) else Status(int(self.status)).name
        parts = f", {int(self.num_blocks)} blocks" if int(self.num_blocks) > 1 else ""
        return f"Interpolation(residual {float(self.residual_norm):.1e}, rank {int(self.rank)}{parts}, {name})"


class _Problem(eqx.Module):
    """The residual f - y as a function of the flat vector of parameters."""

    predict: Function
    frozen: PyTree
    inputs: PyTree
    targets: Array
    structure: Any = eqx.field(static=True)

    @property
    def raveler(self) -> Raveler:
        leaves, treedef = self.structure
        return Raveler(jax.tree_util.tree_unflatten(treedef, leaves))

    def params(self, flat: Array) -> PyTree:
        return eqx.combine(self.raveler.unravel(flat), self.frozen)

    def residual(self, flat: Array) -> Float[Array, " rows"]:
        return jnp.ravel(self.predict(self.params(flat), self.inputs) - self.targets).astype(flat.dtype)

    def jacobian(self, flat: Array) -> Float[Array, "rows dim"]:
        """One backward pass of one sample for each row."""

        def rows(sample: PyTree) -> Array:
            alone = jax.tree_util.tree_map(lambda leaf: leaf[None], sample)
            output = lambda p: jnp.ravel(self.predict(self.params(p), alone)[0]).astype(flat.dtype)
            return jax.jacrev(output)(flat)

        size = min(_ROWS_AT_ONCE, self.targets.shape[0])
        return lax.map(rows, self.inputs, batch_size=size).reshape(-1, flat.size)


class _Options(NamedTuple):
    gd_steps: int
    max_steps: int


def find_interpolation(
    predict: Callable[[Any, Any], Array],
    params: PyTree,
    inputs: PyTree,
    targets: Any,
    *,
    gd_steps: int = 500,
    learning_rate: Any = None,
    max_steps: int = 200,
    tol: Any = None,
) -> Interpolation:
    r"""Parameters with f(params, inputs) = targets to rounding, by gradient descent and then Levenberg and Marquardt.

    Gradient descent on (1/2N) |f - y|^2 with the step 1 / sharpness, which is estimated anew every 50 steps, leads to a
    region that training would reach; there the damped Gauss-Newton steps

    $$\delta = -J^\top (J J^\top + \mu)^{-1} (f - y)$$

    converge quadratically, and the shortest of all steps stays close. The linear systems have the size of the smaller side
    of J, (number of outputs) x (number of parameters), which is why the method is written out here: solvers that factor J
    stacked on the damping work with (outputs + parameters) x parameters. Steps are taken until the residual no longer halves,
    beyond the tolerance. Where there is no interpolation (as a rule with fewer parameters than outputs) it ends at a minimum
    of the loss with `converged` false.

    Args:
        predict: `predict(params, inputs)`, (N,) or (N, C); row i must depend on sample i alone.
        params: start, any pytree; its floating-point leaves vary.
        inputs: the samples, an array or a pytree of arrays with a leading axis N.
        targets: y, of the shape of the outputs.
        gd_steps: steps of gradient descent, static, a multiple of 50; 0 for none.
        learning_rate: of gradient descent; automatic by default.
        max_steps: bound on the steps of Levenberg and Marquardt, static.
        tol: the residual counts as zero at `tol * (1 + |y|)`; eps^(2/3) by default, 4e-11 in double precision. Single
            precision ends near 1e-5: use double precision for what rests on zero loss.

    Returns:
        An `Interpolation`. J is stored; a step costs one backward pass for each output, J J^T and a Cholesky
        factorisation. 100 samples and 8,385 parameters take about a second on two CPU cores.

    Raises:
        TypeError: if `predict` is no function or does not return one real array.
        ValueError: if shapes do not fit, data are not finite, or counts are out of range.

    Example:
        ```python
        solution = dj.find_interpolation(lambda p, x: jax.vmap(p)(x)[:, 0], model, x, y)
        solution.residual_norm, solution.rank
        ```

    References:
        More, The Levenberg-Marquardt algorithm, in Numerical Analysis (1978).
    """
    targets = jnp.asarray(targets)
    inputs = jax.tree_util.tree_map(jnp.asarray, inputs)
    outputs = tangent_kernel(predict, params, inputs).out_structure()
    shape = jax.tree_util.tree_leaves(outputs)[0].shape
    check_that(
        targets.shape == shape, "targets", f"have the shape {shape} of the outputs", f"found shape {targets.shape}"
    )
    for name, value in (("inputs", inputs), ("targets", targets), ("params", split_inexact(params)[0])):
        check_finite(name, value)
    for name, count, least in (("gd_steps", gd_steps, 0), ("max_steps", max_steps, 1)):
        good = isinstance(count, int) and not isinstance(count, bool) and count >= least
        check_that(good, name, f"be an integer of at least {least}", f"found {count!r}")
    check_that(gd_steps % _BLOCK == 0, "gd_steps", f"be a multiple of {_BLOCK}", f"found {gd_steps}")
    for name, value in (("learning_rate", learning_rate), ("tol", tol)):
        if value is not None:
            check_positive(value, name)
    params = jax.tree_util.tree_map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf, params)
    dynamic, frozen = split_inexact(params)
    leaves, treedef = jax.tree_util.tree_flatten(jax.eval_shape(lambda: dynamic))
    problem = _Problem(Function(predict), frozen, inputs, targets, (tuple(leaves), treedef))
    return _search(problem, dynamic, learning_rate, tol, _Options(gd_steps, max_steps))


def check_finite(name: str, tree: PyTree) -> None:
    """Raise unless every floating-point leaf is finite; traced values pass."""
    for leaf in jax.tree_util.tree_leaves(tree):
        if is_concrete(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.inexact):
            check_that(bool(jnp.all(jnp.isfinite(leaf))), name, "be finite", f"{found(leaf)} holds NaN or infinity")


@eqx.filter_jit
def _search(problem: _Problem, start: PyTree, learning_rate: Any, tol: Any, options: _Options) -> Interpolation:
    with jax.default_matmul_precision("highest"):
        flat = problem.raveler.ravel(start)
        eps = float(jnp.finfo(flat.dtype).eps)
        tol = jnp.asarray(eps ** (2 / 3) if tol is None else tol, flat.dtype)
        size = jnp.sqrt(jnp.sum(jnp.square(problem.targets.astype(flat.dtype))))
        flat = _descend(problem, flat, learning_rate, options.gd_steps)
        gd_loss = jnp.sum(jnp.square(problem.residual(flat))) / (2 * problem.targets.shape[0])
        flat, residual, steps, unfinished = _levenberg_marquardt(problem, flat, tol * (1 + size), options.max_steps)
        norm = jnp.sqrt(jnp.sum(jnp.square(residual)))
        good = norm <= tol * (1 + size)
        jacobian = problem.jacobian(flat)
        values, relative = _singular_values(jacobian)
        curvatures, blocks = _interactions(jacobian, problem.targets.shape[0])
    status = jnp.where(unfinished, int(Status.MAX_STEPS), int(Status.NOT_CONVERGED))
    status = jnp.where(good, int(Status.OK), status)
    status = jnp.where(jnp.isfinite(norm), status, int(Status.NONFINITE))
    return Interpolation(
        params=problem.params(flat),
        residual_norm=norm,
        converged=good,
        rank=jnp.sum(values > relative * values[0]),
        rank_tolerance=relative,
        singular_values=values,
        sample_curvatures=curvatures,
        blocks=blocks,
        status=status.astype(jnp.int8),
        num_steps=steps,
        gd_loss=gd_loss,
    )


def _singular_values(jacobian: Float[Array, "rows dim"]) -> tuple[Float[Array, " values"], float]:
    """(singular values, the part of the largest below which they are zero to rounding)."""
    relative = max(jacobian.shape) * float(jnp.finfo(jacobian.dtype).eps)
    jacobian = jacobian if jacobian.shape[0] <= jacobian.shape[1] else jacobian.T
    if jacobian.shape[0] <= _LARGE:
        return jnp.linalg.svd(jacobian, compute_uv=False), relative
    return jnp.sqrt(jnp.maximum(jnp.linalg.eigvalsh(jacobian @ jacobian.T)[::-1], 0)), relative**0.5


def _interactions(
    jacobian: Float[Array, "rows dim"], samples: int
) -> tuple[Float[Array, "samples outputs"], Int[Array, " samples"]]:
    """(eigenvalues of all K_ii, the smallest number of a sample that each one is linked to through some K_ij != 0)."""
    rows = jacobian.reshape(samples, -1, jacobian.shape[1])
    own = jnp.linalg.eigvalsh(rows @ jnp.swapaxes(rows, 1, 2))
    norms = jnp.sqrt(jnp.sum(jacobian * jacobian, axis=1, keepdims=True))
    unit = jacobian / jnp.where(norms > 0, norms, 1)
    linked = jnp.abs(unit @ unit.T) > 64 * jacobian.shape[0] * jnp.finfo(jacobian.dtype).eps
    linked = jnp.any(linked.reshape(samples, -1, samples, rows.shape[1]), axis=(1, 3)) | jnp.eye(samples, dtype=bool)

    def spread(pair: tuple[Array, Array]) -> tuple[Array, Array]:
        labels, _ = pair
        new = jnp.min(jnp.where(linked, labels, samples), axis=1)
        return new, jnp.any(new != labels)

    labels, _ = lax.while_loop(lambda pair: pair[1], spread, (jnp.arange(samples), jnp.asarray(True)))
    return own, labels


def _descend(problem: _Problem, flat: Float[Array, " dim"], learning_rate: Any, num_steps: int) -> Float[Array, " dim"]:
    """Gradient descent in blocks; a block that has made the loss larger is undone, and the step halved."""
    samples = problem.targets.shape[0]

    def loss(p: Array) -> Array:
        return jnp.sum(jnp.square(problem.residual(p))) / (2 * samples)

    def sharpness(p: Array, v: Array) -> tuple[Array, Array]:
        _, push = jax.linearize(problem.residual, p)
        pull = jax.linear_transpose(push, p)

        def product(_: int, pair: tuple[Array, Array]) -> tuple[Array, Array]:
            w = pull(push(pair[0]))[0] / samples
            size = jnp.sqrt(jnp.sum(w * w))
            return w / jnp.where(size > 0, size, 1), size

        return lax.fori_loop(0, _PRODUCTS, product, (v, jnp.zeros((), p.dtype)))

    def block(carry: tuple[Array, Array, Array], _: None) -> tuple[tuple[Array, Array, Array], None]:
        p, v, share = carry
        if learning_rate is None:
            v, top = sharpness(p, v)
            step = share / jnp.where(top > 0, top, 1)
        else:
            step = share * jnp.asarray(learning_rate, p.dtype)
        q = lax.fori_loop(0, _BLOCK, lambda _, q: q - step * jax.grad(loss)(q), p)
        better = loss(q) <= loss(p)
        return (jnp.where(better, q, p), v, jnp.where(better, share, share / 2)), None

    v = jax.random.normal(jax.random.key(0), flat.shape, flat.dtype)
    start = (flat, v / jnp.sqrt(jnp.sum(v * v)), jnp.ones((), flat.dtype))
    return lax.scan(block, start, None, length=num_steps // _BLOCK)[0][0]


class _Trial(NamedTuple):
    """A step of Levenberg and Marquardt: where it leads, the decrease over that of the linear model, its damping."""

    point: Float[Array, " dim"]
    residual: Float[Array, " rows"]
    ratio: Float[Array, ""]
    damping: Float[Array, ""]
    attempts: Int[Array, ""]


def _square(v: Array) -> Array:
    return jnp.sum(v * v)


def _levenberg_marquardt(problem: _Problem, flat: Array, goal: Array, max_steps: int) -> tuple[Array, ...]:
    """(parameters, residual, steps, whether the budget was exhausted)."""

    def turn(carry: Any) -> Any:
        p, r, share, steps, _ = carry
        trial, trace = _best_trial(problem, p, r, share)
        better = _square(trial.residual) < _square(r)
        shrink = jnp.where(trial.ratio > 0.75, 0.02, jnp.where(trial.ratio > 0.25, 1.0, 4.0))
        go_on = _worth_it(jnp.sqrt(_square(r)), jnp.sqrt(_square(trial.residual)), goal) & better
        p, r = jnp.where(better, trial.point, p), jnp.where(better, trial.residual, r)
        return p, r, shrink * trial.damping / trace, steps + 1, go_on

    def going(carry: Any) -> Array:
        return carry[4] & (carry[3] < max_steps)

    residual = problem.residual(flat)
    go = jnp.all(jnp.isfinite(residual)) & (_square(residual) > 0)
    carry = (flat, residual, jnp.asarray(1e-3, flat.dtype), jnp.asarray(0), go)
    p, r, _, steps, unfinished = lax.while_loop(going, turn, carry)
    return p, r, steps, unfinished


# Optimistix' LevenbergMarquardt, which factors J stacked on the damping, took 0.7 s a step for 100 outputs and 1,000 parameters
# and 4.7 s for 2,000; all of `find_interpolation`, divided by its steps, 0.13 and 0.15 s.
def _best_trial(problem: _Problem, p: Array, r: Array, share: Array) -> tuple[_Trial, Array]:
    """(the first step, with growing damping, that makes the residual smaller; the trace that dampings are relative to)."""
    jacobian = problem.jacobian(p)
    dual = jacobian.shape[0] <= jacobian.shape[1]
    gram = jacobian @ jacobian.T if dual else jacobian.T @ jacobian
    trace = jnp.trace(gram)

    def attempt(damping: Array, attempts: Array) -> _Trial:
        factor = jax.scipy.linalg.cho_factor(gram + damping * jnp.eye(gram.shape[0], dtype=p.dtype))
        if dual:
            step = -(jax.scipy.linalg.cho_solve(factor, r) @ jacobian)
        else:
            step = -jax.scipy.linalg.cho_solve(factor, r @ jacobian)
        new = problem.residual(p + step)
        expected = _square(r) - _square(r + jacobian @ step)
        return _Trial(p + step, new, (_square(r) - _square(new)) / expected, damping, attempts)

    def bad(trial: _Trial) -> Array:
        # Not finite counts as bad.
        better = (trial.ratio > 1e-3) & (_square(trial.residual) < _square(r))
        return ~better & (trial.attempts < _DAMPINGS)

    # Never below rounding, where the Cholesky factorisation would fail.
    damping = jnp.maximum(share * trace, 2 * jnp.finfo(p.dtype).eps * trace)
    first = attempt(damping, jnp.asarray(0))
    return lax.while_loop(bad, lambda trial: attempt(10 * trial.damping, trial.attempts + 1), first), trace


def _worth_it(before: Array, after: Array, goal: Array) -> Array:
    """Whether to go on: below the goal while the residual halves, above it while it changes at all."""
    rounding = 10 * jnp.finfo(before.dtype).eps
    return (after > 0) & jnp.where(before <= goal, after <= before / 2, before - after > rounding * before)
