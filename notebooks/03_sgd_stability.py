# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which minima can SGD find?
#
# An overparameterised network fits its data on a whole manifold of parameters. Whether SGD can end at a given point of it is
# decided by the linearised steps there: a product of random matrices $A_\xi = I - \frac{\eta}{B} \sum_{i \in \xi} J_i^T J_i$,
# one for each batch. Along the manifold nothing happens; on the *normal space* the product grows or decays like $e^{\lambda n}$.
# The sign of this Lyapunov exponent $\lambda$ decides: Chemnitz and Engel (JMLR 26, 2025, arXiv:2407.20209) show, under
# regularity assumptions on the solution, that it lies in the support of the limit of SGD if $\lambda < 0$, and does not if
# $\lambda > 0$.
#
# There are three notions of stability about, with three different thresholds in the learning rate: full-batch gradient descent,
# $\eta < 2N/\lambda_{\max}(K)$; mean square, where the variance stays bounded; and almost surely, $\lambda < 0$. This notebook
# computes all three, checks them against real runs, and shows where they part.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import dynjax as dj
from dynjax import reference

jax.config.update("jax_enable_x64", True)
SMALL = os.environ.get("DYNJAX_SMALL") == "1"
plt.rcParams.update({"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## 1. The smallest example in which the notions differ
#
# $f(x) = abx$ with targets $y = x$ and $x^2 \in \{1, 3\}$: all minima satisfy $ab = 1$, and stability depends on $s = \eta (a^2 +
# b^2)$ alone. The normal space has dimension one, so everything is an exact mean over the samples:
# $\lambda = \frac{1}{2} \log|1 - s| + \frac{1}{2} \log |1 - 3s|$.

# %%
squares = np.array([1.0, 3.0])
x = jnp.sqrt(jnp.asarray(squares))
predict = lambda p, x: p[0] * p[1] * x
solution = jnp.array([2.0, 0.5])  # a^2 + b^2 = 4.25
size = float(jnp.sum(solution**2))
for criterion in ("gd", "mean_square", "almost_sure"):
    found = dj.critical_learning_rate(predict, solution, x, batch_size=1, criterion=criterion)
    print(f"{criterion:12s} s_c = {float(found.value) * size:.9f}")
rates = jnp.linspace(0.01, 1.6, 400) / size
result = dj.sgd_stability(predict, solution, x, learning_rates=rates, batch_size=1, num_steps=1, key=jax.random.key(0))
print("rank", result.rank, "exact", result.exact, "regular", bool(result.regular[0]), "(the gradients are dependent)")

figure, ax = plt.subplots(figsize=(6.5, 3))
ax.plot(rates * size, result.exponent, label="almost surely: $\\lambda$")
ax.plot(rates * size, result.gd_exponent, label="gradient descent: $\\mu$")
ax.plot(rates * size, result.mean_square_rate, label="mean square: $\\frac{1}{2} \\log \\rho$")
ax.axhline(0, color="0.6", lw=0.8)
ax.set(ylim=(-2, 1), xlabel="$\\eta (a^2 + b^2)$", title="stable where a curve is below zero: 4/3, 1 and 4/5")
ax.legend(frameon=False)
figure.tight_layout()

# %% [markdown]
# With $x^2 \in \{1, 10\}$ stability in the learning rate is not even an interval: the first upward crossing is reported as
# the value, and the further ones beside it.

# %%
wide = jnp.sqrt(jnp.array([1.0, 10.0]))
print(dj.critical_learning_rate(predict, jnp.array([1.0, 1.0]), wide, batch_size=1).crossings * 2)

# %% [markdown]
# ## 2. Where runs end up: implicit bias
#
# At a fixed learning rate the stable part of the hyperbola $ab = 1$ is $a^2 + b^2 < s_c / \eta$. Every minimum has
# $a^2 + b^2 \ge 2$, so at $\eta = 0.55$ neither gradient descent nor the mean-square theory leaves anything; SGD converges all
# the same, in three quarters of the runs.

# %%
num_runs = 2_000 if SMALL else 40_000


def end_points(rate, stochastic, key):
    start, noise = jax.random.split(key)
    a, b = jax.random.uniform(start, (2, num_runs), maxval=2.0)

    def step(n, ab):
        a, b = ab
        drawn = jnp.asarray(squares)[jax.random.randint(jax.random.fold_in(noise, n), (num_runs,), 0, 2)]
        pull = rate * jnp.where(stochastic, drawn, squares.mean()) * (a * b - 1)
        return a - pull * b, b - pull * a

    return jax.lax.fori_loop(0, 3_000, step, (a, b))


figure, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True)
for ax, rate in zip(axes, (0.45, 0.55), strict=True):
    for stochastic, colour in ((False, "tab:orange"), (True, "tab:blue")):
        a, b = end_points(rate, stochastic, jax.random.key(1))
        good = jnp.abs(a * b - 1) < 1e-6
        name = "SGD" if stochastic else "GD"
        if bool(jnp.any(good)):
            ax.hist(
                (a**2 + b**2)[good],
                bins=60,
                range=(2, 3.4),
                color=colour,
                alpha=0.6,
                label=f"{name}: {float(good.mean()):.0%}",
            )
        else:
            ax.plot([], [], color=colour, lw=6, alpha=0.6, label=f"{name}: 0%")
    for edge, style in ((4 / 3, "-"), (1.0, "--"), (4 / 5, ":")):
        ax.axvline(edge / rate, color="k", lw=0.9, ls=style)
    ax.set(xlabel="$a^2 + b^2$ at the end", title=f"$\\eta = {rate}$", xlim=(1.4, 3.4), yscale="log")
    ax.legend(frameon=False, title="converged")
figure.suptitle("edges of stability: mean square $\\cdots$, gradient descent - -, almost sure —", fontsize=9)
figure.tight_layout()

# %% [markdown]
# ## 3. Handwritten digits
#
# A network with 8,385 parameters on 100 digits (target: the parity). `find_interpolation` descends, then finishes with
# Levenberg-Marquardt, to zero loss at the level of rounding.

# %%
num_samples = 30 if SMALL else 100
images, labels = dj.data.digits(num_samples, seed=None, scale=1 / 8)
inputs = jnp.asarray(images)
inputs = (inputs - inputs.mean(axis=0)) / (inputs.std(axis=0) + 1e-2)
targets = jnp.asarray((labels % 2) * 2.0 - 1)
network = dj.MLP((64, 16, 1) if SMALL else (64, 64, 64, 1), key=jax.random.key(0), dtype=jnp.float64)
outputs = lambda model, x: jax.vmap(model)(x)[:, 0]
digits = dj.find_interpolation(outputs, network, inputs, targets)
print(f"residual {float(digits.residual_norm):.1e}, rank {int(digits.rank)} of {num_samples}")

# %% [markdown]
# The thresholds, and the exponent at many learning rates at once. All rates share their noise, in orthonormal coordinates of the
# normal space; a naive product in parameter space would be slower by two orders of magnitude, and wrong: rounding leaks
# into the directions along the manifold, whose exponent is zero.

# %%
key = jax.random.key(2)
steps = 5_000 if SMALL else 100_000
critical = {
    name: dj.critical_learning_rate(
        outputs, digits.params, inputs, batch_size=1, criterion=name, key=key, num_steps=steps
    )
    for name in ("almost_sure", "mean_square", "gd")
}
for name, value in critical.items():
    print(f"{name:12s} {value}")
threshold = float(critical["almost_sure"].value)
rates = jnp.linspace(0.3, 2.0, 12 if SMALL else 40) * threshold
result = dj.sgd_stability(
    outputs, digits.params, inputs, targets=targets, learning_rates=rates, batch_size=1, num_steps=steps, key=key
)
figure, ax = plt.subplots(figsize=(6.5, 3.2))
ax.plot(rates, result.exponent, label="$\\lambda$")
ax.fill_between(
    rates, result.exponent - 2 * result.standard_error, result.exponent + 2 * result.standard_error, alpha=0.3
)
ax.plot(rates, result.mean_square_rate, ls=":", label="mean-square rate")
ax.axhline(0, color="0.6", lw=0.8)
ax.axvline(threshold, color="tab:blue", lw=0.8, ls="--")
ax.axvline(float(critical["mean_square"].value), color="tab:orange", lw=0.8, ls=":")
ax.set(
    xlabel="learning rate", ylabel="per step", title="a corner: below, only the slowest mode decays", ylim=(-2e-3, None)
)
ax.legend(frameon=False)
figure.tight_layout()

# %% [markdown]
# Does real, nonlinear SGD agree? Sixteen runs on each side of the threshold, started at distance $10^{-6}$ from the solution.

# %%
runs, horizon = 16, 1_000 if SMALL else 6_000


@jax.jit
def escape(rate, key):
    direction, noise = jax.random.split(key)
    flat, unravel = jax.flatten_util.ravel_pytree(digits.params)
    push = jax.random.normal(direction, flat.shape)
    start = flat + 1e-6 * push / jnp.linalg.norm(push)

    def step(n, p):
        i = jax.random.randint(jax.random.fold_in(noise, n), (), 0, num_samples)
        loss = lambda p: 0.5 * (outputs(unravel(p), inputs[i][None])[0] - targets[i]) ** 2
        return p - rate * jax.grad(loss)(p)

    def block(p, m):
        p = jax.lax.fori_loop(0, horizon // 50, lambda j, p: step(m * (horizon // 50) + j, p), p)
        return p, jnp.linalg.norm(outputs(unravel(p), inputs) - targets)

    first = jnp.linalg.norm(outputs(unravel(start), inputs) - targets)
    return jnp.append(first, jax.lax.scan(block, start, jnp.arange(50))[1])


figure, ax = plt.subplots(figsize=(6.5, 3))
time = np.arange(51) * (horizon // 50)
for factor, colour in ((0.9, "tab:blue"), (1.1, "tab:red")):
    residuals = jax.lax.map(lambda k, f=factor: escape(f * threshold, k), jax.random.split(jax.random.key(3), runs))
    ax.semilogy(time, residuals.T, color=colour, lw=0.7)
    ax.plot([], [], color=colour, label=f"{factor} $\\eta_c$")
ax.set(xlabel="step", ylabel="$|f - y|$", title="real SGD near an interpolation solution")
ax.legend(frameon=False)
figure.tight_layout()

# %% [markdown]
# ## 4. Learning rate and batch size
#
# The diagram of stability: where the colour turns red, SGD leaves this solution.

# %%
sizes = (1, 2, 4, 8) if SMALL else (1, 2, 4, 8, 16, 32)
grid = jnp.geomspace(0.5, 24, 8 if SMALL else 32) * threshold
diagram = dj.stability_diagram(
    outputs,
    digits.params,
    inputs,
    learning_rates=grid,
    batch_sizes=sizes,
    num_steps=2_000 if SMALL else 20_000,
    key=key,
)
figure, ax = plt.subplots(figsize=(6.5, 3.4))
sign = np.sign(np.asarray(diagram.exponent)) * np.abs(np.asarray(diagram.exponent)) ** 0.25
limit = np.nanmax(np.abs(sign))
mesh = ax.pcolormesh(grid, np.arange(len(sizes)), sign, cmap="RdBu_r", vmin=-limit, vmax=limit, shading="nearest")
ax.plot(diagram.almost_sure_threshold, np.arange(len(sizes)), "k-", lw=1.5, label="almost sure")
ax.plot(diagram.mean_square_threshold, np.arange(len(sizes)), "k:", lw=1.5, label="mean square")
ax.set(xscale="log", xlabel="learning rate", ylabel="batch size", title="$\\lambda$ (fourth root, red: unstable)")
ax.set_yticks(np.arange(len(sizes)), sizes)
ax.legend(frameon=False)
figure.tight_layout()

# %% [markdown]
# ## 5. A closed form: isotropic inputs
#
# For Gaussian samples $x \in R^d$ and the factors $I - \eta x x^T$ the whole spectrum is known. The critical learning rates of
# the three notions drift apart as the dimension grows.

# %%
dims = np.arange(2, 13)
almost_sure = [float(reference.isotropic_sgd_critical_learning_rate(int(d))) for d in dims]
mean_square = [float(reference.isotropic_sgd_mean_square_learning_rate(int(d))) for d in dims]
figure, ax = plt.subplots(figsize=(5.5, 2.8))
ax.semilogy(dims, np.full(len(dims), 2.0), "o--", ms=4, label="gradient descent")
ax.semilogy(dims, almost_sure, "o-", ms=4, label="almost surely")
ax.semilogy(dims, mean_square, "o:", ms=4, label="in mean square")
ax.set(xlabel="dimension", ylabel="critical $\\eta$")
ax.legend(frameon=False)
figure.tight_layout()

# %% [markdown]
# ## 6. The deterministic half: isolated minima and manifolds
#
# `minimum_stability` looks at any minimum of any loss under any optax optimiser: is it isolated, or on a manifold, and does
# the optimiser stay there? `compare_across_threshold` asks this of one network with less data than parameters, and with more.

# %%
teacher = jax.tree_util.tree_map(lambda leaf: 3 * leaf, dj.MLP((2, 2, 1), key=jax.random.key(4), dtype=jnp.float64))
points = jax.random.normal(jax.random.key(5), (60, 2))
small_outputs = lambda model, x: jax.vmap(model)(x)[:, 0]
values = small_outputs(teacher, points) + 0.05 * jax.random.normal(jax.random.key(6), (60,))
sides = dj.experiments.sgd_stability.compare_across_threshold(
    small_outputs, teacher, points, values, num_samples=(5, 60), learning_rate=0.05
)
for side in sides:
    print(side)

# %% [markdown]
# Momentum moves the threshold of gradient descent from $2/\lambda_{\max}$ to $2 (1 + \beta)/\lambda_{\max}$.

# %%
loss = lambda model, x, y: 0.5 * jnp.mean((small_outputs(model, x) - y) ** 2)
minimum = sides[0].minimum.params
for name, rule in (("gradient descent", None), ("heavy ball", lambda rate: optax.sgd(rate, momentum=0.9))):
    verdict = dj.minimum_stability(loss, minimum, points[:5], values[:5], learning_rate=0.05, optimizer=rule)
    print(f"{name:17s}", verdict)
