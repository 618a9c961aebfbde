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
# # Vanishing and exploding gradients as Lyapunov exponents
#
# Depth is time. A perturbation of a hidden state grows from layer to layer at rates, the Lyapunov exponents of the network, and a
# gradient runs through the same products backwards, at the same rates. Gradients vanish where the first exponent is negative,
# explode where it is positive.
#
# | what | with |
# |---|---|
# | exponents of any model in depth | `layer_exponents`, `Recurrence` |
# | infinitely wide networks | `mean_field_propagation`, `critical_weight_scale` |
# | backpropagation as a system | `adjoint_system`, `pairing` |
# | norms of gradients, a verdict | `gradient_norms`, `gradient_report` |
# | the cure | `critical_initializer`, `exponent_penalty` |
# | where a network separates inputs | `separation_field` |

# %%
import os

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import dynjax as dj
from dynjax import reference
from dynjax.networks import he_normal
from dynjax.propagation import (
    Recurrence,
    adjoint_system,
    critical_initializer,
    critical_weight_scale,
    exponent_penalty,
    gradient_norms,
    gradient_report,
    layer_exponents,
    mean_field_propagation,
    pairing,
    separation_field,
)
from dynjax.systems import LayerMap

jax.config.update("jax_enable_x64", True)
SMALL = os.environ.get("DYNJAX_SMALL") == "1"
plt.rcParams.update({"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False})
BLUE, RED, GREEN, INK = "#3d6bb3", "#c8553d", "#4f9d69", "#22262b"
key = jax.random.key(7)


class Layer(eqx.Module):
    weight: jax.Array
    bias: jax.Array
    activation: object = eqx.field(static=True)

    def __call__(self, x):
        return self.activation(self.weight @ x + self.bias)


def random_stack(key, width, depth, weight_scale, bias_scale, activation):
    """Layers stacked from the start: depth costs no compile time."""

    def layer(key):
        one, two = jax.random.split(key)
        weight = weight_scale / width**0.5 * jax.random.normal(one, (width, width))
        return Layer(weight, bias_scale * jax.random.normal(two, (width,)), activation)

    return LayerMap(eqx.filter_vmap(layer)(jax.random.split(key, depth)))


# %% [markdown]
# ## 1. The edge of chaos, and how far finite networks are from it
#
# At infinite width the first exponent is $\frac12 \log \chi_1$ with $\chi_1 = \sigma_w^2\, E\, \phi'(\sqrt{q^*} z)^2$. It changes
# sign at the critical weight variance. At finite width it is smaller: critical initialisation still contracts, by about
# $5/(4N)$ per layer for ReLU, for which the exact value is known.

# %%
for bias_variance in (0.01, 0.05, 0.1):
    found = critical_weight_scale(jnp.tanh, bias_variance=bias_variance)
    print(f"sigma_b^2 = {bias_variance}: sigma_w^2 = {found.weight_variance:.10f}, q* = {found.fixed_point:.7f}")
print(mean_field_propagation(jnp.tanh, 3.0, 0.05))

variances = jnp.linspace(1.0, 3.4, 7 if SMALL else 13)
depth, repeats = (60, 3) if SMALL else (150, 8)
fine = jnp.linspace(0.8, 3.6, 60)
fig, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
curve = jax.vmap(lambda v: reference.wide_network_exponent(v, 0.05))(fine)
axes[0].plot(fine, curve, color=INK, label="infinite width")
for width, colour in ((20, RED), (100, BLUE)):

    @eqx.filter_jit
    def rate(variance, key, width=width):
        stack = random_stack(key, width, depth, jnp.sqrt(variance), 0.05**0.5, jnp.tanh)
        return layer_exponents(stack, jnp.ones((1, width)), k=1).exponents[0]

    rates = np.array([[rate(v, k) for k in jax.random.split(key, repeats)] for v in variances])
    axes[0].errorbar(
        variances, rates.mean(1), rates.std(1) / repeats**0.5, fmt="o", ms=3, color=colour, label=f"N = {width}"
    )
axes[0].axhline(0, color=INK, lw=0.6)
axes[0].set(xlabel=r"$\sigma_w^2$ (tanh, $\sigma_b^2$ = 0.05)", ylabel="first exponent per layer")
axes[0].legend(frameon=False)
widths = np.array([10, 20, 50, 100])
exact = np.array([float(reference.relu_network_exponent(int(n))) for n in widths])
axes[1].plot(widths, -exact, color=INK, label="exact")
axes[1].plot(widths, 5 / (4 * widths), color=INK, ls=(0, (4, 2.5)), lw=0.9, label="5 / (4N)")
for width in widths if not SMALL else widths[:2]:
    run = eqx.filter_jit(
        lambda key, n=int(width): layer_exponents(
            random_stack(key, n, depth, 2.0**0.5, 0.0, jax.nn.relu), jnp.ones((1, n)), k=1
        ).exponents[0]
    )
    rates = np.array([run(k) for k in jax.random.split(key, 3 * repeats)])
    rates = rates[np.isfinite(rates)]  # narrow networks die: all units of a layer off
    axes[1].errorbar(width, -rates.mean(), rates.std() / rates.size**0.5, fmt="o", ms=3, color=BLUE)
axes[1].set(xlabel="width N (ReLU, He initialisation)", ylabel="contraction per layer", xscale="log", yscale="log")
axes[1].legend(frameon=False)
plt.show()

# %% [markdown]
# ## 2. Backpropagation is a system of its own
#
# Along a stored orbit the cotangents $\lambda_{l-1} = J_l^T \lambda_l$ are a linear system that runs backwards. The pairing
# $\lambda_l \cdot \delta_l$ with a perturbation is the same number at every layer: what the gradient predicts is what happens.

# %%
stack = random_stack(key, 50, 100, 1.0, 0.0, jnp.tanh)
x = jax.random.normal(key, (50,))
orbit = dj.trajectory(stack, x, num_steps=100)
last = jax.random.normal(jax.random.fold_in(key, 1), (50,))
gradients = dj.trajectory(adjoint_system(stack, orbit), last, num_steps=100).ys[::-1]
delta, products = jnp.ones(50), []
for n in range(101):
    products.append(float(pairing(gradients[n], delta)))
    if n < 100:
        delta = stack.tangent_step(n, orbit.ys[n], delta[None])[1][0]
print("relative spread of the pairing over 100 layers:", np.ptp(products) / abs(products[0]))

# %% [markdown]
# Norms of gradients over 100 layers of He-initialised ReLU networks of width 50, and the line that the exact exponent predicts:
# a factor of 13 is lost although every textbook calls this initialisation critical.

# %%
networks = 8 if SMALL else 64
norms = eqx.filter_jit(
    lambda key: gradient_norms(
        random_stack(key, 50, 100, 2.0**0.5, 0.0, jax.nn.relu), jnp.ones((1, 50)), key=key
    ).log_norms[0]
)
logs = np.array([norms(k) for k in jax.random.split(key, networks)])
layers = np.arange(101)
fig, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
ax.plot(layers, logs.T, color=BLUE, lw=0.4, alpha=0.4)
ax.plot(layers, logs.mean(0), color=BLUE, lw=1.6, label=f"mean of {networks} networks")
ax.plot(
    layers, float(reference.relu_network_exponent(50)) * (100 - layers), color=INK, ls=(0, (4, 2.5)), label="predicted"
)
ax.set(xlabel="layer", ylabel="log norm of the gradient")
ax.legend(frameon=False)
plt.show()

deep = dj.MLP((50, *[50] * 60, 1), activation=jax.nn.relu, bias=False, initializer=he_normal(), key=key)
print(gradient_report(deep, jax.random.normal(key, (4, 50))))
start = critical_initializer(jnp.tanh, law="orthogonal")
critical = dj.MLP((50, *[50] * 60, 1), key=key, **start._asdict())
print(gradient_report(critical, 0.1 * jax.random.normal(key, (4, 50))))

# %% [markdown]
# ## 3. Recurrent networks: time is depth
#
# The exponents of a cell along its input sequence say for how long it remembers. At the origin a random tanh network with gain
# $g$ has the logarithms of the moduli of the eigenvalues of its matrix; inputs shrink them.

# %%
width = 40
matrix = jax.random.normal(key, (width, width)) / width**0.5
sequence = jax.random.normal(key, (2, 150 if SMALL else 400, width))
fig, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
for strength, colour in ((0.0, INK), (0.3, BLUE), (1.0, RED)):
    cell = Recurrence(lambda u, h, s=strength: jnp.tanh(0.95 * matrix @ h + s * u), jnp.zeros(width))
    ax.plot(layer_exponents(cell, sequence).exponents, color=colour, label=f"inputs of size {strength:g}")
moduli = np.sort(np.log(0.95 * np.abs(np.linalg.eigvals(np.asarray(matrix)))))[::-1]
ax.plot(moduli, ".", ms=3, color=GREEN, label="eigenvalues at rest")
ax.set(xlabel="direction", ylabel="exponent per time step", ylim=(-3.5, 0.2))
ax.legend(frameon=False, fontsize=8)
plt.show()

# %% [markdown]
# ## 4. A penalty that makes deep networks trainable
#
# A plain tanh network of many layers that starts in the ordered phase does not train: its output hardly depends on its input. A
# few steps that bring half of its exponents to zero, $P = \sum_i \lambda_i^2$ (gradient flossing), before training change that.

# %%
depth, width = (30, 16) if SMALL else (100, 32)
labels = jnp.where(jnp.arange(256) % 2 == 0, 1.0, -1.0)
radius = jnp.linspace(0.3, 1.8, 256)
angle = 1.5 * jnp.pi * radius / 1.8
points = labels[:, None] * radius[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], 1)
points = points + 0.04 * jax.random.normal(key, (256, 2))  # two spirals


def initial(key):
    one, two, three = jax.random.split(key, 3)
    first, last = jax.random.normal(one, (width, 2)), jax.random.normal(three, (width,)) / width**0.5
    return first, random_stack(two, width, depth, 0.7, 0.0, jnp.tanh), last


def hidden(params, x):
    return dj.evolve(params[1], jnp.tanh(params[0] @ x), num_steps=depth)


def loss(params):
    return jnp.mean(jax.nn.softplus(-labels * jax.vmap(lambda x: params[2] @ hidden(params, x))(points)))


def penalty(params):
    return exponent_penalty(params[1], jax.vmap(lambda x: jnp.tanh(params[0] @ x))(points[::32]), k=width // 2)


@eqx.filter_jit
def minimise(objective, params, steps, rate):
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    arrays, static = eqx.partition(params, eqx.is_inexact_array)

    def step(carry, _):
        arrays, state = carry
        value, slope = jax.value_and_grad(lambda a: objective(eqx.combine(a, static)))(arrays)
        updates, state = optimizer.update(slope, state)
        return (optax.apply_updates(arrays, updates), state), value

    (arrays, _), values = jax.lax.scan(step, (arrays, optimizer.init(arrays)), None, length=steps)
    return eqx.combine(arrays, static), values


params = initial(jax.random.fold_in(key, 5))
steps = 40 if SMALL else 400
flossed, penalties = minimise(penalty, params, 40 if SMALL else 200, 3e-3)
_, plain_losses = minimise(loss, params, steps, 3e-4)
trained, flossed_losses = minimise(loss, flossed, steps, 3e-4)
fig, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
for name, one, colour in (("at the start", params, RED), ("after flossing", flossed, BLUE)):
    states = jax.vmap(lambda x, p=one: jnp.tanh(p[0] @ x))(points[::32])
    axes[0].plot(layer_exponents(one[1], states).exponents, color=colour, label=name)
axes[0].axhline(0, color=INK, lw=0.6)
axes[0].set(xlabel="direction", ylabel="exponent per layer")
axes[0].legend(frameon=False)
axes[1].plot(plain_losses, color=RED, label="plain")
axes[1].plot(flossed_losses, color=BLUE, label="flossed before")
axes[1].set(xlabel="step", ylabel="loss")
axes[1].legend(frameon=False)
plt.show()

# %% [markdown]
# Where does the trained network separate inputs? The largest finite-time exponent over the input space, with the data: ridges lie
# along the boundary of the decision, between the spirals.

# %%
side = 41 if SMALL else 121
grid = jnp.linspace(-2.0, 2.0, side)
plane = jnp.stack(jnp.meshgrid(grid, grid), -1)


def largest_exponent(x):
    jacobian = jax.jacfwd(lambda x: hidden(trained, x))(x)
    return jnp.log(jnp.linalg.svd(jacobian, compute_uv=False)[0]) / depth


field = jax.jit(jax.vmap(jax.vmap(largest_exponent)))(plane)
shallow = dj.MLP((2, 20, 20, 1), key=key)
ftle = separation_field(shallow, plane).exponents[..., 0]
fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
for ax, values, title in ((axes[0], field, "trained, deep"), (axes[1], ftle, "random, two hidden layers")):
    image = ax.pcolormesh(grid, grid, values, cmap="viridis", rasterized=True)
    ax.set(title=title, aspect="equal", xlabel="$x_1$", ylabel="$x_2$")
    fig.colorbar(image, ax=ax)
axes[0].scatter(*np.asarray(points).T, c=np.where(np.asarray(labels) > 0, "w", "k"), s=3)
plt.show()
