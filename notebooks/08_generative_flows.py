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
# # Generative models as flows
#
# Flow matching and diffusions carry noise to data along $x' = u(t, x)$. For a Gaussian mixture the field $u$ is known exactly,
# and with it everything a trained model can only approximate: densities, the least possible loss, the moment at which a
# trajectory has decided where it will end.
#
# | what | with |
# |---|---|
# | an exact field | `GaussianMixture.flow_matching_field()`, `.score_field()` |
# | samples, densities | `sample`, `log_likelihood` |
# | training | `VelocityField`, `ScoreField`, `fit_flow`, `loss_floor` |
# | the dynamics | `sampling_exponents`, `speciation_time`, `commitment_times`, `stiffness`, `lipschitz_profile` |

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from dynjax.data import digits
from dynjax.generative import (
    GaussianMixture,
    ScoreField,
    VariancePreserving,
    VelocityField,
    commitment_times,
    fit_flow,
    flow_matching_loss,
    lipschitz_profile,
    log_likelihood,
    loss_floor,
    sample,
    sampling_exponents,
    speciation_time,
    stiffness,
    wasserstein2,
)

jax.config.update("jax_enable_x64", True)
SMALL = os.environ.get("DYNJAX_SMALL") == "1"
plt.rcParams.update({"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False})
COLOURS = np.array(["#3d6bb3", "#c8553d", "#4f9d69", "#8a5fb0", "#d99b2b", "#3aa6b9", "#b04f86", "#7a7a3c"])
key = jax.random.key(8)

# %% [markdown]
# ## 1. The exact field is its own oracle
#
# On the line any flow from one law to another keeps the order of points. Where a point ends is therefore known without solving
# anything, and so are densities: along the field
# $\log p_1(x_1) = \log p_0(x_0) - \int_0^1 \mathrm{div}\, u\, dt$ must be the density of the mixture.

# %%
line = GaussianMixture([-2.0, 2.0], 0.25)
ends = sample(line.flow_matching_field(), jnp.array([[0.5], [1.0]]), rtol=1e-10, atol=1e-10).points[:, 0]
print("from 0.5 and 1.0 to", ends, "; expected 1.851096089584, 2.237616424624")
points = line.sample(200, key)
for name, field in (("flow matching", line.flow_matching_field()), ("diffusion", line.score_field())):
    base = None if name == "flow matching" else field.log_noise_density
    found = log_likelihood(field, points, base=base, rtol=1e-9, atol=1e-9)
    print(name, "largest error of log p:", float(jnp.max(jnp.abs(found.value - jax.vmap(line.log_density)(points)))))

# %% [markdown]
# A diffusion does not end in exactly normal noise. Taking $N(0, 1)$ for the law at its end is an error of the signal left there.

# %%
field = line.score_field(VariancePreserving.constant(1.0, 8.0))
exact = jax.vmap(line.log_density)(points)
rough = log_likelihood(field, points, rtol=1e-9, atol=1e-9).value
print("largest error with a normal base:", float(jnp.max(jnp.abs(rough - exact))), "; signal left:", float(np.exp(-4)))

# %% [markdown]
# ## 2. From noise to modes
#
# Eight modes on a ring. Each trajectory is coloured by the mode where it ends: at first they all move alike, then the plane is
# divided.

# %%
angles = 2 * np.pi * np.arange(8) / 8
ring = GaussianMixture(2.0 * np.stack([np.cos(angles), np.sin(angles)], 1), 0.04)
exact_field = ring.flow_matching_field()
noise = jax.random.normal(key, (200 if SMALL else 600, 2))
times = jnp.linspace(0, 1, 41)


def draw_paths(ax, field, title):
    out = sample(field, noise, times=times, num_steps=4)
    mode = np.asarray(jnp.argmax(jax.vmap(ring.responsibilities)(out.points), -1))
    for path, k in zip(np.asarray(out.path)[::3], mode[::3], strict=True):
        ax.plot(*path.T, color=COLOURS[k], lw=0.5, alpha=0.5)
    ax.scatter(*np.asarray(out.points).T, c=COLOURS[mode], s=4)
    ax.set(title=title, aspect="equal", xlim=(-3.2, 3.2), ylim=(-3.2, 3.2))


settings = {"num_steps": 300, "batch_size": 128} if SMALL else {"num_steps": 4000, "batch_size": 512}
velocity = fit_flow(VelocityField(2, hidden=(96, 96), key=key), ring, key=key, learning_rate=4e-3, **settings)
score = fit_flow(ScoreField(2, hidden=(96, 96), key=key), ring, key=key, learning_rate=4e-3, **settings)
fig, axes = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained")
draw_paths(axes[0], exact_field, "exact flow matching")
draw_paths(axes[1], velocity.field, "trained flow matching")
out = sample(score.field, noise, num_steps=100)
mode = np.asarray(jnp.argmax(jax.vmap(ring.responsibilities)(out.points), -1))
axes[2].scatter(*np.asarray(out.points).T, c=COLOURS[mode], s=4)
axes[2].set(title="trained diffusion", aspect="equal", xlim=(-3.2, 3.2), ylim=(-3.2, 3.2))
plt.show()

# %% [markdown]
# ## 3. A loss has a floor
#
# The flow-matching loss of the exact field is not 0: $x_t$ does not tell $x_1 - x_0$. A loss below the floor, by more than its
# standard error, is a mistake and not a success.

# %%
floor = loss_floor(ring, key=key)
fresh = ring.sample(4000 if SMALL else 40000, jax.random.fold_in(key, 1))
terms = flow_matching_loss(velocity.field, fresh, jax.random.fold_in(key, 2), per_sample=True)
error = float(jnp.std(terms)) / fresh.shape[0] ** 0.5
print(f"floor {float(floor.value):.4f} +- {float(floor.standard_error):.4f}")
print(f"trained {float(jnp.mean(terms)):.4f} +- {error:.4f}")
two = [ring.sample(noise.shape[0], jax.random.fold_in(key, i)) for i in (3, 4)]
print(f"W2 between two samples {wasserstein2(*two):.3f}")
for name, field in (("exact", exact_field), ("flow matching", velocity.field), ("diffusion", score.field)):
    print(f"W2 to a sample, {name}: {wasserstein2(sample(field, noise, num_steps=100).points, two[0]):.3f}")

width = max(len(velocity.losses) // 100, 1)
smooth = np.asarray(velocity.losses)[: len(velocity.losses) // width * width].reshape(-1, width).mean(1)
fig, ax = plt.subplots(figsize=(6, 3), layout="constrained")
ax.plot(width * (np.arange(smooth.size) + 0.5), smooth, color=COLOURS[0], label="training")
ax.axhline(float(floor.value), color="#22262b", ls=(0, (4, 2.5)), lw=1, label="floor")
ax.set(xlabel="step", ylabel="flow-matching loss", ylim=(0.95 * float(floor.value), smooth[0]))
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## 4. When is it decided?
#
# For two modes at $\pm m$ of variance $s^2$ the law of $x_t$ splits at the noise-to-signal ratio $\sqrt{|m|^2 - s^2}$. At
# that time 47.9 per cent of all trajectories have committed, with 90 per cent probability, to the mode where they end,
# whatever the modes. Positive finite-time exponents say that neighbours part: they do between the modes, and nowhere else.

# %%
pair = GaussianMixture([[-2.0, 0.0], [2.0, 0.0]], 0.25)
pair_field = pair.flow_matching_field()
split = float(speciation_time(pair_field))
committed = commitment_times(pair_field, jax.random.normal(key, (500 if SMALL else 4000, 2)), num_steps=4)
print(f"speciation at {split:.4f}; committed by then: {float(jnp.mean(committed.times <= split)):.3f}")
starts = jnp.stack([jnp.array([0.0, 0.3, 1.0]), jnp.zeros(3)], 1)
found = sampling_exponents(pair_field, starts, jnp.linspace(0, 1, 81), num_steps=8)

fig, axes = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
axes[0].hist(np.asarray(committed.times), bins=40, color=COLOURS[0], alpha=0.8)
axes[0].axvline(split, color=COLOURS[1], lw=1.5, label="speciation")
axes[0].set(xlabel="time of commitment", ylabel="trajectories")
axes[0].legend(frameon=False)
for i, x in enumerate(starts):
    axes[1].plot(found.times, found.log_stretching[i, :, 0], color=COLOURS[i], label=f"from ({x[0]:g}, {x[1]:g})")
axes[1].axvline(split, color=COLOURS[1], lw=0.8)
axes[1].set(xlabel="t", ylabel="log of the largest stretching")
axes[1].legend(frameon=False, fontsize=8)
grid = jnp.linspace(-2.5, 2.5, 61 if SMALL else 121)
plane = jnp.stack(jnp.meshgrid(grid, grid), -1)
largest = sampling_exponents(pair_field, plane, jnp.array([0.0, 1.0]), num_steps=64).exponents[..., -1, 0]
image = axes[2].pcolormesh(grid, grid, largest, cmap="RdBu_r", vmin=-4, vmax=4, rasterized=True)
axes[2].set(title="largest exponent over [0, 1]", xlabel="noise $x_1$", ylabel="noise $x_2$", aspect="equal")
fig.colorbar(image, ax=axes[2])
plt.show()

# %% [markdown]
# ## 5. Stiffness near the data
#
# Inside a tight mode the field contracts at the rate $1 / (1 - t)$ until $1 - t$ is about $s$; an explicit method must resolve
# that. The Lipschitz bound of the exact field is attained; that of a trained network, a product of norms, is far above what the
# network does.

# %%
tight = GaussianMixture([[-2.0, 0.0], [2.0, 0.0]], 0.01).flow_matching_field()
t = jnp.linspace(0, 0.999, 200)
paths = sample(tight, noise[:50], times=t, num_steps=8).path
seen = stiffness(tight, paths, t)
bound = lipschitz_profile(tight, t)
trained = lipschitz_profile(velocity.field)
print(f"bound of the trained network: {float(trained.bounds.max()):.0f}")
fig, ax = plt.subplots(figsize=(6, 3), layout="constrained")
ax.plot(t, seen.norm.T, color=COLOURS[0], lw=0.4, alpha=0.5)
ax.plot(t, bound.bounds, color="#22262b", lw=1.3, label="bound over the plane")
ax.plot(t[t < 0.9], 1 / (1 - t[t < 0.9]), color=COLOURS[1], ls=(0, (4, 2.5)), label="1 / (1 - t)")
ax.set(xlabel="t", ylabel="norm of the Jacobian", yscale="log")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## 6. Digits
#
# The same on handwritten digits, 8 by 8 pixels. There is no exact law here: what remains is the flow itself. Every image is
# the end of a trajectory; the exponents say how many directions of the noise are still told apart in the image.

# %%
images = jnp.asarray(digits(standardise=False)[0]) / 8 - 1  # pixels from -1 to 1
options = {"num_steps": 200, "batch_size": 64} if SMALL else {"num_steps": 6000, "batch_size": 256}
start = VelocityField(64, hidden=(256, 256, 256), key=key, dtype=jnp.float32)
digit_flow = fit_flow(start, images, key=key, learning_rate=1e-3, **options)
noise64 = jax.random.normal(key, (32, 64), jnp.float32)
made = sample(digit_flow.field, noise64, num_steps=50).points
fig, axes = plt.subplots(4, 8, figsize=(7, 3.6))
for ax, image in zip(axes.ravel(), np.asarray(made), strict=True):
    ax.imshow(image.reshape(8, 8), cmap="gray_r")
    ax.axis("off")
plt.show()

spectrum = sampling_exponents(digit_flow.field, noise64[: 2 if SMALL else 8], jnp.array([0.0, 1.0]), num_steps=50)
fig, ax = plt.subplots(figsize=(6, 2.8), layout="constrained")
ax.plot(np.arange(1, 65), np.asarray(spectrum.exponents[:, -1]).T, color=COLOURS[0], lw=0.8, alpha=0.6)
ax.axhline(0, color="#5c636b", lw=0.8)
ax.set(xlabel="direction", ylabel="exponent over [0, 1]")
plt.show()
