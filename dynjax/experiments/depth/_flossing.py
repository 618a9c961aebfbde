"""Does a penalty on exponents let a deep plain network train? Two arms, several seeds, one program."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from ..._core import check_count, check_positive, check_that, found, is_concrete
from ...propagation import exponent_penalty, layer_exponents
from ...systems import LayerMap
from ._network import CLIP, Layers, Parameters, lifted, outputs, spirals


class Arm(eqx.Module):
    """One way of training, for every seed and learning rate.

    Attributes:
        learning_rates: of Adam, `(rates,)`.
        losses: mean logistic loss over the points after training, `(seeds, rates)`.
        accuracies: share of points on the right side after training, `(seeds, rates)`.
        curves: loss before each step of training, `(seeds, rates, steps)`.
        exponents: of the hidden layers when training starts, mean over the probes, `(seeds, k)`.
    """

    learning_rates: Float[Array, "rates"]
    losses: Float[Array, "seeds rates"]
    accuracies: Float[Array, "seeds rates"]
    curves: Float[Array, "seeds rates steps"]
    exponents: Float[Array, "seeds k"]

    @property
    def best(self) -> Int[Array, ""]:
        """The index of the learning rate of smallest mean loss over the seeds; one that diverges is never the best."""
        return jnp.argmin(jnp.mean(jnp.where(jnp.isfinite(self.losses), self.losses, jnp.inf), 0))

    @property
    def best_losses(self) -> Float[Array, "seeds"]:
        """Losses at the best learning rate."""
        return self.losses[:, self.best]

    @property
    def best_accuracies(self) -> Float[Array, "seeds"]:
        """Accuracies at the best learning rate."""
        return self.accuracies[:, self.best]

    def __str__(self) -> str:
        if not is_concrete(self.losses):
            return "Arm(traced)"
        low, high = (float(end(np.asarray(self.best_accuracies))) for end in (np.min, np.max))
        rate = float(self.learning_rates[self.best])
        return f"Arm(accuracy {low:.3g} to {high:.3g} over {self.losses.shape[0]} seeds at rate {rate:.3g})"


class Flossing(eqx.Module):
    """What `flossing_experiment` finds.

    Attributes:
        plain: training alone, for `num_steps + floss_steps` steps.
        flossed: `floss_steps` steps on the penalty alone, then `num_steps` of training.
        penalties: the penalty at the start of each step of flossing, `(seeds, floss_steps)`.
    """

    plain: Arm
    flossed: Arm
    penalties: Float[Array, "seeds floss_steps"]

    def __str__(self) -> str:
        return f"Flossing(plain: {self.plain}, flossed: {self.flossed})"


class _Plan(NamedTuple):
    """What the compiled program is made for."""

    depth: int
    width: int
    weight_scale: float
    bias_scale: float
    num_points: int
    num_steps: int
    floss_steps: int
    floss_rate: float
    k: int
    num_probes: int
    penalty_weight: float


def flossing_experiment(
    num_seeds: int = 5,
    *,
    learning_rates: Any = (1e-4, 3e-4, 1e-3, 3e-3),
    depth: int = 100,
    width: int = 32,
    weight_scale: float = 0.9,
    bias_scale: float = 0.2,
    num_points: int = 64,
    num_steps: int = 300,
    floss_steps: int = 100,
    floss_rate: float = 3e-3,
    k: int | None = None,
    num_probes: int = 4,
    penalty_weight: float = 0.0,
    seed: int = 0,
) -> Flossing:
    r"""Trains a deep plain tanh network in the ordered phase, with and without flossing its exponents first.

    Hidden layers are h -> tanh(W h + b) without skip connections or normalisation, W_ij ~ N(0, s_w^2 / width) and
    b_i ~ N(0, s_b^2). At the defaults chi_1 < 1: all inputs are drawn to one hidden state at the rate -0.2 per layer, so that
    after 100 layers the output does not depend on the input, and no gradient reaches the first layers. The task is to tell two
    intertwined spirals apart, by Adam on the whole set with gradients clipped to norm 1. The second arm first takes
    `floss_steps` steps of Adam on

        P = mean over probes of sum_{i <= k} lambda_i^2

    (`dj.propagation.exponent_penalty`), which sees a few inputs and no label. The first arm gets as many steps of training
    instead, both arms get the same seeds and every learning rate: compare their best.

    The budget is part of the statement: with 2,000 steps (and 128 points) one plain network of five left log 2. Without biases
    the signal falls to about e^{-12} only, Adam scales it up again, and plain networks train too, to some 90 per cent.
    After flossing the two smaller of the default rates train all seeds; the two larger ones overshoot in most.

    Args:
        num_seeds: networks in each arm; points and initial parameters are drawn anew for each.
        learning_rates: of Adam, tried in both arms, `(rates,)`.
        depth: number of hidden layers.
        width: of these.
        weight_scale: s_w.
        bias_scale: s_b.
        num_points: points on both spirals together.
        num_steps: steps of training after flossing.
        floss_steps: steps of flossing.
        floss_rate: learning rate of flossing.
        k: number of exponents in the penalty, at most `width`; half the width by default.
        num_probes: inputs, spread over the points, at which exponents are taken.
        penalty_weight: a positive number adds the penalty with this weight to the loss of the second arm while it trains.
        seed: of all random numbers.

    Returns:
        `Flossing`. One program for all seeds and learning rates of both arms. Cost: 2 * num_seeds * rates *
        (num_steps + floss_steps) gradients of the network over all points; 40 seconds at the defaults on two cores.

    Raises:
        ValueError: if a count or a scale is out of range, or `learning_rates` is not a vector of positive numbers.

    Example:
        ```python
        from dynjax.experiments.depth import flossing_experiment

        found = flossing_experiment()
        print(found.plain.best_accuracies, found.flossed.best_accuracies)
        ```

    References:
        Engelken, Gradient flossing: improving gradient descent through dynamic control of Jacobians (2023), for flossing before
        training; Schoenholz, Gilmer, Ganguli and Sohl-Dickstein, Deep information propagation (2017), for chi_1 and the depth
        up to which plain networks train.
    """
    rates = jnp.asarray(learning_rates, jnp.result_type(float))
    check_that(rates.ndim == 1 and rates.size > 0, "learning_rates", "be a vector", found(rates))
    check_positive(rates, "learning_rates")
    check_count(width, "width")
    k = max(1, width // 2) if k is None else k
    counts = {"num_seeds": num_seeds, "depth": depth, "num_steps": num_steps, "floss_steps": floss_steps, "k": k}
    for name, value in counts.items():
        check_count(value, name)
    check_count(num_points, "num_points", 2)
    check_count(num_probes, "num_probes")
    check_count(seed, "seed", 0)
    check_that(k <= width, "k", f"be at most {width}, the width", f"found {k}")
    check_that(num_probes <= num_points, "num_probes", f"be at most {num_points}, the points", f"found {num_probes}")
    check_positive(weight_scale, "weight_scale")
    check_positive(floss_rate, "floss_rate")
    for name, number in {"bias_scale": bias_scale, "penalty_weight": penalty_weight}.items():
        check_that(0 <= number < math.inf, name, "be 0 or more, and finite", f"found {number}")
    plan = _Plan(
        depth,
        width,
        float(weight_scale),
        float(bias_scale),
        num_points,
        num_steps,
        floss_steps,
        float(floss_rate),
        k,
        num_probes,
        float(penalty_weight),
    )
    return _run(jax.random.split(jax.random.key(seed), num_seeds), rates, plan)


@eqx.filter_jit
def _run(keys: Array, rates: Float[Array, "rates"], plan: _Plan) -> Flossing:
    plain, flossed, penalties = jax.vmap(lambda key: _one_seed(key, rates, plan))(keys)
    return Flossing(Arm(rates, *plain), Arm(rates, *flossed), penalties)


def _one_seed(key: Array, rates: Float[Array, "rates"], plan: _Plan) -> tuple[Any, Any, Array]:
    """Both arms from one start, and the penalties on the way of the second."""
    data_key, key = jax.random.split(key)
    points, labels = spirals(data_key, plan.num_points, rates.dtype)
    probes = points[np.linspace(0, plan.num_points - 1, plan.num_probes).round().astype(int)]
    start = _network(key, plan)

    def loss(network: Parameters) -> Array:
        return jnp.mean(jax.nn.softplus(-labels * outputs(network, _layers(network), points)))

    def penalty(network: Parameters) -> Array:
        return exponent_penalty(LayerMap(_layers(network)), lifted(network.lift, probes), k=plan.k)

    def both(network: Parameters) -> Array:
        return loss(network) + plan.penalty_weight * penalty(network)

    def arm(network: Parameters, objective: Callable[[Parameters], Array], num_steps: int) -> tuple[Array, ...]:
        def train(rate: Array) -> tuple[Array, Array, Array]:
            trained, curve = _minimise(objective, loss, network, num_steps, rate)
            right = jnp.sign(outputs(trained, _layers(trained), points)) == labels
            return loss(trained), jnp.mean(right.astype(points.dtype)), curve

        exponents = layer_exponents(LayerMap(_layers(network)), lifted(network.lift, probes), k=plan.k).exponents
        return *jax.vmap(train)(rates), exponents

    flossed, penalties = _minimise(penalty, penalty, start, plan.floss_steps, jnp.asarray(plan.floss_rate))
    plain_arm = arm(start, loss, plan.num_steps + plan.floss_steps)
    return plain_arm, arm(flossed, both if plan.penalty_weight > 0 else loss, plan.num_steps), penalties


def _network(key: Array, plan: _Plan) -> Parameters:
    first, second, third, last = jax.random.split(key, 4)
    shape = (plan.depth, plan.width)
    weight = plan.weight_scale / plan.width**0.5 * jax.random.normal(first, (*shape, plan.width))
    bias = plan.bias_scale * jax.random.normal(second, shape)
    lift = jax.random.normal(third, (plan.width, 2))
    return Parameters(lift, weight, bias, jax.random.normal(last, (plan.width,)) / plan.width**0.5)


def _layers(network: Parameters) -> Layers:
    """The hidden layers, all switched on."""
    return Layers(network.weight, network.bias, jnp.ones(network.bias.shape[0], bool), jnp.tanh)


def _minimise(
    objective: Callable[[Parameters], Array],
    observed: Callable[[Parameters], Array],
    network: Parameters,
    num_steps: int,
    rate: Array,
) -> tuple[Parameters, Float[Array, "steps"]]:
    """Adam on the objective, and what is observed before each step."""
    optimizer = optax.chain(optax.clip_by_global_norm(CLIP), optax.adam(rate))
    same = objective is observed

    def step(carry: Any, _: None) -> tuple[Any, Array]:
        network, state = carry
        value, slope = jax.value_and_grad(objective)(network)
        updates, state = optimizer.update(slope, state)
        return (optax.apply_updates(network, updates), state), value if same else observed(network)

    (network, _), values = jax.lax.scan(step, (network, optimizer.init(network)), None, length=num_steps)
    return network, values
