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
# # The edge of stability
#
# Gradient descent with learning rate $\eta$ on a quadratic with curvature $s$ multiplies the distance to the minimum by
# $1 - \eta s$ at every step, so it is stable only while $s < 2/\eta$. A network is not a quadratic, and something curious
# happens: its *sharpness*, the largest eigenvalue of the Hessian of the training loss, rises until it reaches $2/\eta$, and
# then stays there while the loss goes on falling, no longer monotonically (Cohen et al., 2021).
#
# In the language of dynamical systems: a training step is a map on (parameters, optimiser state). For gradient descent its
# tangent is $I - \eta H$, so the sharpness crosses $2/\eta$ exactly when an eigenvalue of the tangent crosses $-1$: a flip.
# Every optimiser has such a number. This notebook finds it, watches it being reached, and does so inside an ordinary training
# loop.

# %%
import os
import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import dynjax as dj

SMALL = os.environ.get("DYNJAX_SMALL") == "1"
plt.rcParams.update({"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## 1. The critical curvature of any optimiser
#
# `dj.stability_threshold` linearises one step of an optax transformation on the scalar quadratic $\frac{s}{2} w^2$, with
# second moments frozen, and finds the smallest $s$ at which the step stops being a contraction. Nothing in it knows the
# formulas in the last column.

# %%
lr, b = 0.05, 0.9
rules = {
    "gradient descent": (optax.sgd(lr), 2 / lr),
    "heavy ball": (optax.sgd(lr, momentum=b), (2 + 2 * b) / lr),
    "Nesterov": (optax.sgd(lr, momentum=b, nesterov=True), (2 + 2 * b) / ((1 + 2 * b) * lr)),
    "Adam": (optax.adam(lr, b1=b), (2 + 2 * b) / ((1 - b) * lr)),
    "RMSProp": (optax.rmsprop(lr), 2 / lr),
    "gradient descent + weight decay": (optax.chain(optax.add_decayed_weights(1e-2), optax.sgd(lr)), 2 / lr - 1e-2),
}
print(f"{'optimiser':34s}{'found':>12s}{'formula':>12s}")
for name, (rule, formula) in rules.items():
    print(f"{name:34s}{float(dj.stability_threshold(rule)):12.4f}{formula:12.4f}")

# %% [markdown]
# ## 2. Sharpness inside your own training loop
#
# The loop below is plain JAX and optax. `SharpnessTracker` is a pure function with a state of its own: it refreshes the top
# eigenvector every 20 steps by a warm-started Lanczos iteration, and uses a Rayleigh quotient (one Hessian product) in between.

# %%
x, y = dj.data.digits(500, seed=None, scale=1 / 8, one_hot=True)
x, y = jnp.asarray(x), jnp.asarray(y)
model = dj.MLP((64, 64, 64, 10), key=jax.random.key(0))


def loss(model, x, y):
    return 0.5 * jnp.mean(jnp.sum((jax.vmap(model)(x) - y) ** 2, axis=-1))


lr = 0.35
optimizer = optax.sgd(lr)
tracker = dj.SharpnessTracker(loss, optimizer=optimizer, every=20)


@eqx.filter_jit
def train_step(model, opt_state, track):
    track = tracker.update(track, model, opt_state, x, y)
    value, grads = jax.value_and_grad(loss)(model, x, y)
    updates, opt_state = optimizer.update(grads, opt_state, model)
    return optax.apply_updates(model, updates), opt_state, track, value


params, opt_state, track = model, optimizer.init(model), tracker.init(model)
losses, sharpness = [], []
for _ in range(100 if SMALL else 1000):
    params, opt_state, track, value = train_step(params, opt_state, track)
    losses.append(float(value))
    sharpness.append(float(track.sharpness))

fig, (top, bottom) = plt.subplots(2, 1, figsize=(7, 5), sharex=True)
top.semilogy(losses, lw=1)
top.set_ylabel("training loss")
bottom.plot(sharpness, lw=1)
bottom.axhline(2 / lr, color="k", ls="--", lw=1)
bottom.text(len(losses), 2 / lr, " 2/lr", va="bottom", ha="right")
bottom.set(xlabel="step", ylabel="sharpness")
fig.suptitle(f"Gradient descent at lr = {lr}: the sharpness rises to 2/lr and stays")
fig.tight_layout()

# %% [markdown]
# ## 3. The whole spectrum
#
# The Hessian is a lineax operator on the parameters: only products are ever formed. Its top eigenvalues stand clear of a bulk
# near zero; the density below comes from stochastic Lanczos quadrature.

# %%
H = dj.hessian(loss, params, x, y)
top = eqx.filter_jit(lambda H: dj.eigsh(H, k=5, which="both"))(H)
print("five largest and five smallest eigenvalues:", np.round(np.asarray(top.values), 4))
print("residuals:", np.asarray(top.residuals), "products:", int(top.num_products))

density = dj.spectral_density(H, num_probes=4 if SMALL else 16, order=40 if SMALL else 80, key=jax.random.key(1))
grid = jnp.linspace(-1, 1.15 * top.values[0], 600)
fig, ax = plt.subplots(figsize=(7, 3))
ax.semilogy(grid, density.evaluate(grid, width=0.05), lw=1)
ax.axvline(2 / lr, color="k", ls="--", lw=1)
ax.set(xlabel="eigenvalue of the Hessian", ylabel="spectral density", ylim=(1e-6, None))
fig.tight_layout()

# %% [markdown]
# ## 4. Many learning rates at once
#
# `edge_of_stability.run` trains every lane (a learning rate and a seed) in blocks with one compiled program, writes a store
# that survives any kill, and returns an xarray data set. It is what `dynjax edge` and `dynjax demo` call. The *edge ratio* is
# the (preconditioned) sharpness divided by the optimiser's threshold: 1 means "at the edge" for every optimiser.

# %%
from dynjax.experiments import edge_of_stability as edge

config = edge.Config(
    learning_rates=(0.2, 0.3, 0.4) if SMALL else (0.15, 0.2, 0.25, 0.3, 0.4, 0.5),
    num_steps=200 if SMALL else 2000,
)
runs = edge.run(config, pathlib.Path("edge.zarr"))
print(edge.table(runs))

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
for lane, rate in enumerate(runs.learning_rate.values):
    colour = plt.cm.viridis(lane / runs.sizes["lane"])
    left.plot(runs.reading, runs.sharpness[lane], color=colour, lw=1, label=f"{rate:g}")
    left.axhline(2 / rate, color=colour, ls=":", lw=0.8)
    right.plot(runs.reading, runs.edge_ratio[lane], color=colour, lw=1)
left.set(xlabel="step", ylabel="sharpness", title="sharpness, and 2/lr dotted")
left.legend(title="learning rate", fontsize=8)
right.axhline(1, color="k", ls="--", lw=1)
right.set(xlabel="step", ylabel="edge ratio", title="one number for all of them")
fig.tight_layout()

# %% [markdown]
# ## 5. The same number for other optimisers
#
# On Chebyshev's toy task (20 points of a polynomial, one hidden layer of 100) each optimiser settles near its own law. Adam's
# raw sharpness keeps growing; its *preconditioned* sharpness is what stops at $38/\eta$.

# %%
settings = [("gd", 0.2), ("heavy-ball", 0.1), ("nesterov", 0.04), ("adam", 1e-3)]
fig, ax = plt.subplots(figsize=(7, 3.6))
for name, rate in settings:
    config = edge.Config(
        task="chebyshev",
        optimizer=name,
        learning_rates=(rate,),
        num_steps=200 if SMALL else 10_000,
        density_probes=0,
    )
    run = edge.run(config, pathlib.Path(f"{name}.zarr"))
    ax.plot(run.reading, run.edge_ratio[0], lw=1, label=f"{name}, threshold {float(run.threshold[0]):.4g}")
ax.axhline(1, color="k", ls="--", lw=1)
ax.set(xlabel="step", ylabel="edge ratio", ylim=(0, 1.6))
ax.legend(fontsize=8)
fig.tight_layout()
