"""Two-layer networks in training, as particles."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from ..._core import Function, check_count, check_positive, check_that, found, is_concrete
from ...systems import AbstractMap, Flow
from ...systems._system import IntScalarLike, as_number
from .diffusion import Diffusion, check_noise, scaled_noise
from .pair_system import as_system
from .wasserstein_flow import num_particles


def two_layer_output(
    neuron: Callable[[PyTree, Any], Any], particles: PyTree, inputs: Float[Array, "samples *dims"]
) -> Float[Array, "samples *out"]:
    """The outputs f(x) = (1/N) sum_i s(x; th_i) of a two-layer network, for a batch of inputs.

    Args:
        neuron: s(th, x), of the parameters of one neuron and one input; a number or an array.
        particles: th, a pytree with a leading axis of N neurons.
        inputs: x, with a leading axis of samples.
    """
    num_particles(particles)
    every = jax.vmap(jax.vmap(neuron, (0, None)), (None, 0))
    return jnp.mean(every(particles, inputs), axis=1)


class TwoLayerRisk(eqx.Module):
    """R = sum_k p_k |y_k - f(x_k; rho)|^2, its value and the velocities -N grad_i R of the particles.

    The risk is never written out as a sum over pairs of neurons: residuals are formed on the data, and pulled back, in
    blocks of data, so that the cost is O(N n) and the memory O(N block).
    """

    neuron: Function
    inputs: Float[Array, "samples *dims"]
    targets: Float[Array, "samples *out"]
    weights: Float[Array, "samples"]
    block: int | None = eqx.field(static=True)

    def __init__(self, neuron: Any, inputs: Any, targets: Any, weights: Any = None, block: int | None = None):
        check_that(callable(neuron), "neuron", "be a function s(theta, x)", found(neuron), TypeError)
        inputs, targets = jnp.asarray(inputs), jnp.asarray(targets)
        good = inputs.ndim > 0 and targets.shape[:1] == inputs.shape[:1] and inputs.shape[0] > 0
        check_that(
            good, "targets", "have one row for each sample of `inputs`", f"shapes {inputs.shape}, {targets.shape}"
        )
        samples = inputs.shape[0]
        if weights is None:
            weights = jnp.full(samples, 1 / samples, targets.dtype)
        weights = jnp.asarray(weights, targets.dtype)
        check_that(weights.shape == (samples,), "weights", f"have shape ({samples},)", found(weights))
        if block is not None:
            check_count(block, "block")
            good = samples % block == 0
            check_that(good, "block", f"divide the number of samples {samples}", f"found {block}")
        self.neuron = Function(neuron)
        self.inputs, self.targets, self.weights, self.block = inputs, targets, weights, block

    def value(self, particles: PyTree) -> Float[Array, ""]:
        """The risk."""
        residuals = two_layer_output(self.neuron, particles, self.inputs) - self.targets
        return jnp.sum(self.weights * jnp.sum(jnp.abs(residuals.reshape(len(self.weights), -1)) ** 2, axis=1))

    def __call__(self, t: Any, particles: PyTree, args: Any = None) -> PyTree:
        """The velocities -2 grad Psi(th_i; rho), with Diffrax's arguments."""
        if self.block is None:
            return self._pull(particles, self.inputs, self.targets, self.weights)
        cut = lambda leaf: leaf.reshape(-1, self.block, *leaf.shape[1:])
        blocks = (cut(self.inputs), cut(self.targets), cut(self.weights))

        def add(total: PyTree, block: tuple[Array, Array, Array]) -> tuple[PyTree, None]:
            part = jax.checkpoint(lambda *args: self._pull(*args))(particles, *block)
            return jax.tree_util.tree_map(jnp.add, total, part), None

        start = jax.tree_util.tree_map(jnp.zeros_like, particles)
        return lax.scan(add, start, blocks)[0]

    def _pull(self, particles: PyTree, inputs: Array, targets: Array, weights: Array) -> PyTree:
        output, pull = jax.vjp(lambda th: two_layer_output(self.neuron, th, inputs), particles)
        good = output.shape == targets.shape
        check_that(good, "neuron", f"return the shape {targets.shape[1:]} of a target", f"found {output.shape[1:]}")
        push = weights.reshape(-1, *(1,) * (output.ndim - 1)) * (targets - output)
        (slopes,) = pull(push.astype(output.dtype))
        return jax.tree_util.tree_map(lambda slope: 2 * num_particles(particles) * slope, slopes)


def two_layer_flow(
    neuron: Callable[[PyTree, Any], Any],
    inputs: Any,
    targets: Any,
    *,
    dt: Any,
    weights: Any = None,
    temperature: Any = None,
    key: PRNGKeyArray | None = None,
    block: int | None = None,
    method: str | None = None,
) -> Flow | Diffusion:
    r"""Gradient-flow training of a two-layer network, as a system of N particles.

    f(x; rho) = int s(x; th) rho(dth) with rho = (1/N) sum_i delta_{th_i}, and the risk R = sum_k p_k |y_k - f(x_k)|^2. With
    V(th) = -E[y s], U(th, th') = E[s s'] and Psi = V + int U rho (so that dR/drho = 2 Psi),

        th_i' = -2 grad Psi(th_i; rho) = -N grad_{th_i} R,

    the limit of SGD th_i += 2 e (y - f) grad s with time e per step, and the Wasserstein gradient flow of R: d_t rho =
    2 div(rho grad Psi). With the temperature tau the particles get sqrt(4 tau) dW_i; the limit gains 2 tau Laplacian(rho),
    decreases R/2 + tau int rho log rho, and rests at rho prop. to exp(-Psi/tau). A ridge belongs into Psi: add it as a drift
    through `wasserstein_flow`.

    A population risk is that of a cubature: `inputs` its nodes and `weights` its weights.

    Args:
        neuron: s(th, x) of one neuron and one input; a number or an array like a target.
        inputs: x, with a leading axis of samples.
        targets: y, likewise.
        dt: time per step, traced.
        weights: p_k; 1/n if not given.
        temperature: tau, traced; none by default.
        key: fixes the noise path; needed with a temperature.
        block: samples that are pulled back together, a divisor of their number; all by default.
        method: of `Flow` or of `Diffusion`.

    Returns:
        A system on the pytree of the parameters of all neurons, each leaf with a leading axis N. One evaluation costs one
        forward and one backward pass, O(N n).

    Raises:
        TypeError: if `neuron` is no function.
        ValueError: if the shapes do not fit.

    References:
        Mei, Montanari and Nguyen (2018), arXiv:1804.06561; Mei, Misiakiewicz and Montanari (2019), arXiv:1902.06015.
    """
    risk = TwoLayerRisk(neuron, inputs, targets, weights, block)
    noise = None if temperature is None else 2 * jnp.asarray(temperature)
    return as_system(risk, dt, noise, key, method)


class TwoLayerSGD(AbstractMap):
    """SGD on a two-layer network in the mean-field scaling; see `two_layer_sgd`."""

    neuron: Function
    batches: Function
    dt: Float[Array, ""]
    temperature: Float[Array, ""]
    key: PRNGKeyArray | None

    def step(self, n: IntScalarLike, x: PyTree) -> PyTree:
        """The particles after the batch of step `n`."""
        inputs, targets = self.batches(n)
        push = TwoLayerRisk(self.neuron, inputs, targets)(0.0, x)
        x = jax.tree_util.tree_map(lambda th, v: th + self.dt.astype(th.dtype) * v, x, push)
        if self.key is None:
            return x
        kicks = scaled_noise(jax.random.fold_in(self.key, n), x, 4 * self.temperature * self.dt)
        return jax.tree_util.tree_map(jnp.add, x, kicks)


def two_layer_sgd(
    neuron: Callable[[PyTree, Any], Any],
    batches: Callable[[Any], Any],
    *,
    step_size: Any,
    temperature: Any = None,
    key: PRNGKeyArray | None = None,
) -> TwoLayerSGD:
    r"""SGD on a two-layer network in the mean-field scaling, as a random map of N particles.

        th_i' = th_i + 2 e mean_batch[(y - f(x)) grad s(x; th_i)] + sqrt(4 tau e) xi_i

    Its time per step is the step size e, so that it follows `two_layer_flow` as e -> 0 and N -> inf.

    Args:
        neuron: s(th, x).
        batches: a noise path `batches(n) -> (inputs, targets)`, such as `MiniBatches`.
        step_size: e, traced.
        temperature: tau; none by default.
        key: fixes the noise; needed with a temperature.

    Raises:
        TypeError: if `neuron` or `batches` is no function.
        ValueError: if the step is not positive, or a temperature comes without a key.
    """
    check_that(callable(neuron), "neuron", "be a function s(theta, x)", found(neuron), TypeError)
    check_that(callable(batches), "batches", "be a function of the step", found(batches), TypeError)
    check_positive(step_size, "step_size")
    check_that((temperature is None) == (key is None), "key", "be given with `temperature`, and only then", "it is not")
    if temperature is not None and is_concrete(temperature):
        check_noise(temperature)
    return TwoLayerSGD(
        neuron=Function(neuron),
        batches=Function(batches),
        dt=as_number(step_size, "step_size"),
        temperature=as_number(0.0 if temperature is None else temperature, "temperature"),
        key=key,
    )
