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
# # What a network can represent: embeddings and critical points
#
# A neural ODE lifts its input to $\mathbb R^m$, follows a flow for a time $T$, and reads its output off:
# $\Phi = R \circ h_T \circ \lambda$, $\lambda(x) = Wx + b$, $R(y) = Vy + c$. How large has $m$ to be, for maps
# $\mathbb R^d \to \mathbb R^q$?
#
# - $m \ge d + q$: large enough for **every** map, by an explicit formula.
# - $m \le d$: the map has **no critical point**, whatever the field and however long one trains.
#
# Both can be computed with, and this notebook does.

# %%
import os

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import dynjax as dj
from dynjax.experiments import fit, morse
from dynjax.networks import MLP, NeuralODE
from dynjax.propagation import (
    DelayEmbedding,
    IsotopyEmbedding,
    ShearEmbedding,
    classify,
    critical_points,
    embedding_obstruction,
    extremum_error_bound,
    monotone_error_bound,
    width_audit,
)

jax.config.update("jax_enable_x64", True)
SMALL = os.environ.get("DYNJAX_SMALL") == "1"
plt.rcParams.update({"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False})
key = jax.random.key(0)

# %% [markdown]
# ## 1. The shear: every map, exactly
#
# With the state $(u, v)$, $u' = 0$ and $v' = \psi(u) / T$, the input rests and drives the output: $v(T) = \psi(x)$.
# One
# Runge-Kutta step is exact. The result is an ordinary `NeuralODE`; with a network for $\psi$ it is a starting point
# for training.


# %%
def swirl(x):
    """A map of the plane that is nowhere near one-to-one."""
    r2 = jnp.sum(x**2)
    return jnp.stack([r2 * jnp.cos(2 * x[0]), jnp.sin(3 * x[0] * x[1])])


shear = ShearEmbedding(swirl, in_size=2, out_size=2)
points = jax.random.uniform(key, (1000, 2), minval=-2.0, maxval=2.0)
error = jnp.max(jnp.abs(jax.vmap(shear)(points) - jax.vmap(swirl)(points)))
print(f"widths {shear.widths}, largest error {error:.1e}")

# %% [markdown]
# How wide is wide enough? `width_audit` answers for widths or for a model, and `embedding_obstruction` says which
# derivatives
# narrower states exclude: $\operatorname{rank} D\Phi \ge \operatorname{rank} W + \operatorname{rank} V - m$.

# %%
for widths in [(2, 2, 1), (2, 3, 1), (2, 2, 2), (2, 3, 2), (2, 4, 2)]:
    print(f"{widths}  {width_audit(widths).statement}")
flat = jax.jacfwd(swirl)(jnp.zeros(2))
print("\nD swirl(0) =", flat.tolist())
print({m: embedding_obstruction(2, m, 2).excludes(flat) for m in (2, 3, 4)})

# %% [markdown]
# ## 2. Why it works: points are lifted past each other
#
# On the line a flow keeps the order of points, so that $x^2$ is out of reach: its best monotone fit is $1/2$ away
# somewhere, and
# $9/160$ in the mean square. In the plane of $(u, v)$ two points with the same output sit side by side. Below, the
# flow lines
# of a *learnt* augmented field for $x^2$: training finds a way of its own to bend the line into a parabola.

# %%
nodes, weights = np.polynomial.legendre.leggauss(32)
nodes, weights = jnp.asarray(nodes)[:, None], jnp.asarray(weights) / 2


def mean_square(model):
    return weights @ (jax.vmap(model)(nodes)[:, 0] - nodes[:, 0] ** 2) ** 2


def best(state_size, num_steps, seeds=3):
    """The best of a few networks."""
    make = lambda s: NeuralODE((1, state_size, 1), key=jax.random.fold_in(key, s), time_dependent=True, num_steps=12)
    train = lambda model: fit(mean_square, model, num_steps=num_steps, learning_rate=0.03).model
    return min((train(make(s)) for s in range(seeds)), key=lambda model: float(mean_square(model)))


num_steps = 150 if SMALL else 2000
narrow, wide = best(1, num_steps), best(2, num_steps)
print(f"m = 1: mean square {mean_square(narrow):.5f}, bound {monotone_error_bound(lambda x: x**2):.5f}")
print(f"m = 2: mean square {mean_square(wide):.1e}")


# %%
def states(model, x, num_times=49):
    """The states of many inputs at equidistant times."""
    flow = model.flow(model.horizon / (num_times - 1))
    advance = lambda h: dj.trajectory(flow, h, num_steps=num_times - 1).ys
    return np.asarray(jax.vmap(lambda x: advance(model.lift(x)))(x))


x = jnp.linspace(-1, 1, 25)[:, None]
colours = plt.colormaps["viridis"](np.linspace(0, 0.9, len(x)))
figure, axes = plt.subplots(1, 3, figsize=(10, 3.3))
for path, colour in zip(states(narrow, x), colours, strict=True):
    axes[0].plot(np.linspace(0, 1, path.shape[0]), path[:, 0], color=colour, lw=1)
axes[0].set(title="m = 1: no one passes", xlabel="time", ylabel="state")
wide_paths = states(wide, x)
for path, colour in zip(wide_paths, colours, strict=True):
    axes[1].plot(path[:, 0], path[:, 1], color=colour, lw=1)
    axes[1].plot(*path[-1], "o", color=colour, ms=3.5)
axes[1].plot(wide_paths[:, 0, 0], wide_paths[:, 0, 1], color="0.4", lw=1)
axes[1].set(title="m = 2: flow lines in the plane", xlabel="$h_1$", ylabel="$h_2$")
line = jnp.linspace(-1, 1, 201)[:, None]
axes[2].plot(line[:, 0], line[:, 0] ** 2, color="0.8", lw=5, label="$x^2$")
axes[2].plot(line[:, 0], jax.vmap(narrow)(line)[:, 0], "--", color="#b8442a", label="m = 1")
axes[2].plot(line[:, 0], jax.vmap(wide)(line)[:, 0], ":", color="#1f6fb4", lw=2, label="m = 2")
axes[2].set(title="what comes out", xlabel="x")
axes[2].legend(frameon=False)
figure.tight_layout()

# %% [markdown]
# ## 3. Without augmentation: what is possible, and what is not
#
# For $m \le d$ the gradient is a product of injective maps, and it has a lower bound that can be computed from the
# weights,
# $|\nabla \Phi| \ge \sigma_{\min}(W)\, e^{-KT} |V|$. `classify` checks the hypotheses on the actual weights and
# gives the certificate
# for the Runge-Kutta steps that are really taken. No extremum means: if a target has one that is $\delta$ deep on a
# ball, the
# sup error is at least $\delta / 2$.

# %%
model = NeuralODE((2, 2, 1), num_steps=16, key=jax.random.key(3))
report = classify(model)
print(report)
sample = jax.random.uniform(key, (5000, 2), minval=-4.0, maxval=4.0)
slopes = jnp.linalg.norm(jax.vmap(jax.grad(lambda x: model(x)[0]))(sample), axis=1)
print(f"\nsmallest |grad| in 5,000 points {jnp.min(slopes):.4f}; a bowl of depth 1 costs {extremum_error_bound(1.0):g}")

# %% [markdown]
# On the line every *increasing* map is exact without augmentation, by the isotopy $(1 - t/T)\,x + (t/T)\,\psi(x)$:
# points move in
# straight lines, at speeds that depend on time. And with a **delay** even $x^2$ is: the state passes through zero
# for all
# inputs at once, while the history still tells them apart (notebook 05 has the details). The price is the gain of
# the readout.

# %%
isotopy = IsotopyEmbedding(lambda x: x + 0.45 * jnp.sin(2 * jnp.pi * x) / jnp.pi)
delay = DelayEmbedding(lambda x: x**2, in_size=1, out_size=1, lipschitz=0.6, horizon=3.0)
wanted = line + 0.45 * jnp.sin(2 * jnp.pi * line) / jnp.pi
print(f"isotopy: error {jnp.max(jnp.abs(jax.vmap(isotopy)(line) - wanted)):.1e}")
print(f"delay:   error {jnp.max(jnp.abs(jax.vmap(delay)(line) - line**2)):.1e}, gain {float(delay.gain):.1f}")
figure, axes = plt.subplots(1, 2, figsize=(8, 2.8))
for path, colour in zip(states(isotopy, x), colours, strict=True):
    axes[0].plot(np.linspace(0, 1, path.shape[0]), path[:, 0], color=colour, lw=1)
axes[0].set(title="the isotopy", xlabel="time", ylabel="state")
axes[1].plot(line[:, 0], wanted[:, 0], color="0.8", lw=5)
axes[1].plot(line[:, 0], jax.vmap(isotopy)(line)[:, 0], color="#1f6fb4", lw=1.3)
axes[1].set(title="and its map", xlabel="x")
figure.tight_layout()

# %% [markdown]
# ## 4. All critical points, with a proof
#
# `critical_points` looks for every zero of the gradient in a box. The degree is a check: $\sum
# (-1)^{\mathrm{index}}$ is the winding
# number of the gradient around the box. It is not a proof. $x^3 - x + y^2$ has a minimum and a saddle, $x^3 + x +
# y^2$ has
# nothing, and both have degree 0: a search that misses the pair would not notice. `complete` is a proof, by
# interval arithmetic.


# %%
class Cubic(eqx.Module):
    """x^3 + c x + y^2: one structure, so that both values of c share the compiled programs."""

    c: jax.Array

    def __call__(self, z):
        return z[0] ** 3 + self.c * z[0] + z[1] ** 2


def kinds(found):
    """Names of the critical points."""
    names = ("minimum", "saddle", "maximum")
    pairs = zip(np.asarray(found.morse_index), np.asarray(found.degenerate), strict=True)
    return ["degenerate" if degenerate else names[index] for index, degenerate in pairs]


def picture(fn, found, half_width, ax, title, number=101):
    """Level sets and critical points."""
    axis = jnp.linspace(-half_width, half_width, number)
    grid = jnp.stack(jnp.meshgrid(axis, axis), -1).reshape(-1, 2)
    values = jax.jit(jax.vmap(lambda z: jnp.reshape(fn(z), ())))(grid).reshape(number, number)
    morse.level_sets(axis, axis, values, found.points, kinds(found), ax=ax)
    ax.set_title(title, fontsize=9)


figure, axes = plt.subplots(1, 2, figsize=(7, 3.4))
for ax, c in zip(axes, (-1.0, 1.0), strict=True):
    found = critical_points(Cubic(jnp.asarray(c)), [-2, -2], [2, 2], key=key)
    print(f"c = {c:+g}: {found}, degree {found.degree} = {found.boundary_degree}, {found.num_cells} cells")
    picture(Cubic(jnp.asarray(c)), found, 2.0, ax, f"$x^3 {'-' if c < 0 else '+'} x + y^2$: degree {found.degree}")
figure.tight_layout()

# %% [markdown]
# ## 5. Architectures and their classes
#
# C1: no critical point. C2: nondegenerate ones only. C3: a degenerate one. Random networks of the six architectures of
# `dynjax morse`; markers are minima (▽), saddles (✕), maxima (▲) and degenerate points (◆). Behind a bottleneck of
# width 1 and a
# lift of rank 1 the map is constant along lines, so that critical points come as whole lines.

# %%
config = morse.Config()
picks = (3, 3, 5, 6, 0, 2)
zoo = {kind.title: morse.networks(kind, config)[seed] for kind, seed in zip(morse.ARCHITECTURES, picks, strict=True)}
figure, axes = plt.subplots(2, 3, figsize=(9.5, 6.4))
for ax, (name, network) in zip(axes.ravel(), zoo.items(), strict=True):
    verdict = classify(network, box=([-2, -2], [2, 2]), prove_complete=isinstance(network, MLP))
    allowed = " or ".join(sorted(verdict.classes))
    print(f"{name:34s} {verdict.architecture:13s} allowed {allowed:14s} found {verdict.empirical.morse_class}"
          f"  degrees agree: {verdict.empirical.degree_matches}, consistent: {verdict.consistent}")  # fmt: skip
    picture(
        network, verdict.empirical, 2.0, ax, f"{name}\nallowed {allowed}, found {verdict.empirical.morse_class}", 61
    )
figure.tight_layout()

# %% [markdown]
# ## 6. What training does about it
#
# Ask all six for a bowl: `dynjax morse --weights trained`. Those that can have a minimum learn it. The others settle
# for a valley,
# and something telling happens to the non-augmented perceptron: the target is even, and descent takes the *rank* of
# its
# first matrix away. It leaves the class of full-rank networks, in which there is no critical point at all, to get at
# least a
# line of them. `classify` sees it, since it looks at the weights that are there.

# %%
config = morse.Config(num_seeds=2, weights="trained", num_steps=100 if SMALL else 1500)
figure, axes = plt.subplots(1, 4, figsize=(11, 3.1))
panels = iter(axes)
for kind in (morse.ARCHITECTURES[0], morse.ARCHITECTURES[1]):
    for network in morse.train(morse.networks(kind, config), config):
        verdict = classify(network, box=([-2, -2], [2, 2]))
        first = np.linalg.svd(np.asarray(network.weights[0]), compute_uv=False)
        print(
            f"{kind.title}: singular values of W_1 {first[0]:.2f} and {first[-1]:.0e}, so {verdict.architecture}: "
            f"{' or '.join(sorted(verdict.classes))}, found {verdict.empirical.morse_class}"
        )
        picture(network, verdict.empirical, 2.0, next(panels), kind.title, 61)
figure.tight_layout()
