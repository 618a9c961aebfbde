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
# # Lyapunov exponents of anything that steps
#
# Two copies of a system, started a hair apart, separate (or approach) like $e^{\lambda t}$. The rate $\lambda$ is the leading
# *Lyapunov exponent*; an orthonormal frame pushed along by the tangent map and factorised now and then, $V = LQ$, gives the whole
# spectrum $\lambda_1 \ge \lambda_2 \ge \dots$ as time averages of $\log L_{ii}$.
#
# `dj.lyapunov_spectrum` does this for every system of dynjax: maps, random maps, flows, delay equations, layers, training
# steps. The tangent is that of the *numerical* step, and every exponent comes with a standard error that takes correlations in
# time into account.

# %%
import os

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import dynjax as dj
from dynjax import reference, systems

jax.config.update("jax_enable_x64", True)
SMALL = os.environ.get("DYNJAX_SMALL") == "1"
plt.rcParams.update({"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False})


def steps(full):
    """Fewer steps where the notebook is only checked."""
    return full // 20 if SMALL else full


# %% [markdown]
# ## 1. The Lorenz attractor
#
# The sum of the exponents is the divergence of the vector field, $-41/3$, exactly. With a method of order five the numerical
# map honours that to six digits, so the sum is a check of the step size; the single exponents carry a statistical error, and
# `required_time` says how long one would have to run for another digit.

# %%
lorenz = systems.lorenz63(dt=0.01, method="dopri5")
result = dj.lyapunov_spectrum(lorenz, jnp.ones(3), num_steps=steps(400_000), history=True)
print(result)
print(f"sum {float(result.sum):.7f}, divergence {float(reference.lorenz63_exponent_sum()):.7f}")
print(f"for an error of 1e-4 in the first: time {float(result.required_time(1e-4)[0]):,.0f}")

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
time = float(result.bin_time) * np.arange(1, len(result.history) + 1)
running = np.cumsum(np.asarray(result.history), axis=0) / np.arange(1, len(time) + 1)[:, None]
error = float(result.standard_error[0]) * np.sqrt(time[-1] / time)
axes[0].plot(time, running[:, 0], lw=1)
axes[0].fill_between(time, 0.9056 - 2 * error, 0.9056 + 2 * error, alpha=0.15)
axes[0].set(
    xscale="log", xlabel="time", title="running mean of $\\lambda_1$, and the band $\\pm 2$ s.e.", ylim=(0.6, 1.2)
)
path = dj.trajectory(lorenz, jnp.ones(3), num_steps=6000, save_every=2).ys
axes[1].plot(path[:, 0], path[:, 2], lw=0.4)
axes[1].set(title="the attractor", xlabel="x", ylabel="z")
figure.tight_layout()

# %% [markdown]
# A run goes on where it stopped: hand back `.state`. Old and new statistics are joined.

# %%
longer = dj.lyapunov_spectrum(lorenz, None, num_steps=steps(400_000), state=result.state)
print(
    f"{float(result.standard_error[0]):.2g} -> {float(longer.standard_error[0]):.2g}, time {float(longer.total_time):g}"
)

# %% [markdown]
# ## 2. A parameter sweep is one compiled program
#
# No function has a batch axis; `vmap` over whatever is an array. Here the logistic map at 400 values of $r$, against the closed
# forms at the few places where there are some.

# %%
rs = jnp.linspace(2.8, 4.0, 60 if SMALL else 400)


@jax.jit
@jax.vmap
def logistic_exponent(r):
    return dj.lyapunov_spectrum(systems.logistic(r), jnp.asarray(0.4), num_steps=2_000, burn_in=500).exponents[0]


figure, ax = plt.subplots(figsize=(8, 2.8))
ax.plot(rs, logistic_exponent(rs), lw=0.8)
known = [2.9, 3.2, 4.0]
ax.plot(known, [float(reference.logistic_exponent(r)) for r in known], "o", ms=5)
ax.axhline(0, color="0.6", lw=0.8)
ax.set(ylim=(-2, 0.8), xlabel="r", ylabel="$\\lambda$", title="logistic map, and exact values")
figure.tight_layout()

# %% [markdown]
# ## 3. Your own recurrent cell
#
# Anything with a state and a step fits `dj.Map` or, driven by inputs, `dj.RandomMap`. A cell with gated memory, written as an
# ordinary function of a dictionary; its inputs are a frozen path `inputs(n)`. The sign of the leading exponent decides whether
# the cell forgets its initial state (the echo-state property), and $1/|\lambda|$ how fast: as seen by backpropagation, whether
# gradients vanish or explode.

# %%
size = 32
keys = jax.random.split(jax.random.key(1), 3)
weights = {
    "gate": jax.random.normal(keys[0], (size, size)) / np.sqrt(size),
    "update": jax.random.normal(keys[1], (size, size)) / np.sqrt(size),
    "input": jax.random.normal(keys[2], (size,)),
}


def cell(state, signal, gain, weights):
    h, memory = state["h"], state["memory"]
    gate = jax.nn.sigmoid(gain * weights["gate"] @ h)
    memory = gate * memory + (1 - gate) * jnp.tanh(gain * weights["update"] @ h + weights["input"] * signal)
    return {"h": jnp.tanh(2 * memory), "memory": memory}


def leading_exponent(gain):
    inputs = dj.WhiteNoise((), key=jax.random.key(2), scale=0.3)
    network = dj.RandomMap(lambda state, signal: cell(state, signal, gain, weights), inputs)
    start = {"h": jnp.ones(size), "memory": jnp.zeros(size)}
    result = dj.lyapunov_spectrum(network, start, num_steps=steps(8_000), k=1)
    return result.exponents[0], result.standard_error[0]


gains = jnp.linspace(0.5, 6, 12)
exponent, error = jax.jit(lambda g: jax.lax.map(leading_exponent, g))(gains)
figure, ax = plt.subplots(figsize=(6, 2.8))
ax.errorbar(gains, exponent, 2 * error, fmt="o-", ms=4, lw=1)
ax.axhline(0, color="0.6", lw=0.8)
ax.set(xlabel="gain of the recurrent weights", ylabel="$\\lambda_1$ per step", title="a driven gated cell")
figure.tight_layout()

# %% [markdown]
# ## 4. A stochastic differential equation with frozen noise
#
# One Euler-Maruyama step is a random map, and its noise is a path: a pure function of the step number. The noisy
# hardening oscillator below synchronises: two starts under the *same* noise come together at the rate $\lambda_1 < 0$, although
# each of them wanders for ever.

# %%
dt = 0.01


def oscillator(x, noise):
    position, speed = x
    drift = jnp.stack([speed, -(position**3) - 0.5 * speed])
    return x + dt * drift + jnp.stack([0.0, 0.8]) * noise


noise = dj.WhiteNoise((), key=jax.random.key(3), scale=np.sqrt(dt))
sde = dj.RandomMap(oscillator, noise, dt=dt)
result = dj.lyapunov_spectrum(sde, jnp.array([1.0, 0.0]), num_steps=steps(400_000))
print(result)
print(f"the sum is minus the damping, -0.5, up to the step: {float(result.sum):.4f}")

num = steps(6_000)
one, two = (dj.trajectory(sde, jnp.array(x), num_steps=num) for x in ([1.0, 0.0], [-1.0, 1.0]))
figure, axes = plt.subplots(1, 2, figsize=(9, 2.8))
axes[0].plot(one.ts, one.ys[:, 0], lw=0.8)
axes[0].plot(two.ts, two.ys[:, 0], lw=0.8)
axes[0].set(xlabel="time", title="two starts, one noise")
distance = jnp.linalg.norm(one.ys - two.ys, axis=1)
axes[1].semilogy(one.ts, distance, lw=0.8)
axes[1].semilogy(one.ts, float(distance[0]) * np.exp(float(result.exponents[0]) * np.asarray(one.ts)), "--", lw=1)
axes[1].set(xlabel="time", title="their distance, and $e^{\\lambda_1 t}$")
figure.tight_layout()

# %% [markdown]
# ## 5. Delay equations
#
# The state of a delay equation is a history. For $x'(t) = -x(t - 1)$ the exponents are the real parts of the roots of
# $z = -e^{-z}$, branches of the Lambert function; for the Mackey-Glass equation they tell how many directions of an infinite
# dimensional history stay alive.

# %%
linear = systems.linear_delay(0.02, tau=1.0, b=-1.0)
found = dj.lyapunov_spectrum(linear, linear.init(lambda t: 1.0 + t), num_steps=steps(100_000), k=6)
exact = reference.delay_exponents(0.0, -1.0, 1.0, 6)
print("found", np.round(np.asarray(found.exponents), 4))
print("exact", np.round(np.asarray(exact), 4))
glass = systems.mackey_glass(0.1, tau=17.0)
print(dj.lyapunov_spectrum(glass, glass.init(jnp.asarray(1.2)), num_steps=steps(400_000), k=4))

# %% [markdown]
# ## 6. Products of random matrices, and how far to trust an error bar
#
# The exponents of Gaussian matrices are known in closed form (Newman, 1986). Here 60 independent runs, each with its 95 %
# interval: about three of them should miss.

# %%
exact = float(reference.gaussian_product_exponents(3)[0])


@jax.jit
def run(key):
    product = dj.RandomMap(lambda x, a: a @ x, dj.WhiteNoise((3, 3), key=key))
    result = dj.lyapunov_spectrum(product, jnp.zeros(3), num_steps=2_000)
    return result.exponents[0], *[end[0] for end in result.interval()]


middle, lower, upper = jax.lax.map(run, jax.random.split(jax.random.key(4), 60))
missed = (lower > exact) | (upper < exact)
figure, ax = plt.subplots(figsize=(8, 2.6))
ax.vlines(np.arange(60), lower, upper, colors=np.where(missed, "tab:red", "tab:blue"), lw=1.5)
ax.axhline(exact, color="k", lw=0.8)
ax.set(xlabel="run", title=f"Newman's exponent and 60 intervals: {int(missed.sum())} miss")
figure.tight_layout()

# %% [markdown]
# ## 7. Which way do perturbations point?
#
# Exponents are rates; *covariant Lyapunov vectors* are the directions that belong to them (Ginelli et al., 2007). On the Lorenz
# attractor the second is the direction of the flow itself, and the angle between the expanding and the contracting ones says
# where the attractor is close to folding.

# %%
lorenz = systems.lorenz63(dt=0.01)
vectors = dj.covariant_vectors(lorenz, jnp.ones(3), num_steps=steps(40_000), save_every=10, burn_in=2_000)
field = jax.vmap(lambda x: lorenz.vector_field(0.0, x, lorenz.args))(vectors.states)
along = jnp.abs(jnp.sum(field * vectors.vectors[:, 1], axis=1)) / jnp.linalg.norm(field, axis=1)
print(f"second vector along the flow: 1 - {float(1 - along.min()):.1e}")
angle = vectors.subspace_angle(2)
figure, ax = plt.subplots(figsize=(5.5, 3.6))
dots = ax.scatter(vectors.states[:, 0], vectors.states[:, 2], c=np.degrees(angle), s=3, cmap="viridis")
figure.colorbar(dots, label="angle, degrees")
ax.set(xlabel="x", ylabel="z", title="angle between the contracting direction\nand the plane of the others")
figure.tight_layout()

# %% [markdown]
# ## 8. Finite-time exponents: ridges in a field
#
# Over a finite time the growth depends on where one starts. Its field over a grid of initial states (an FTLE field) has ridges
# where neighbours part: for a damped, forced pendulum they outline the basins.

# %%
pendulum = dj.Flow(lambda t, y, args: jnp.stack([y[1], -jnp.sin(y[0]) - 0.15 * y[1] + 0.4 * jnp.sin(t)]), 0.05)
resolution = 40 if SMALL else 240
angle, speed = jnp.meshgrid(jnp.linspace(-np.pi, np.pi, resolution), jnp.linspace(-3, 3, resolution))
field = dj.finite_time_field(pendulum, jnp.stack([angle, speed], axis=-1), num_steps=300)
figure, ax = plt.subplots(figsize=(5.5, 3.8))
mesh = ax.pcolormesh(angle, speed, field.exponents[..., 0], cmap="magma", rasterized=True)
figure.colorbar(mesh, label="largest finite-time exponent")
ax.set(xlabel="angle", ylabel="speed", title="forced pendulum, time 15")
figure.tight_layout()

# %% [markdown]
# ## 9. Almost surely stable, and yet with infinite variance
#
# For products of random factors the growth of moments is a function of its own, $L(p) = \lim \frac{1}{n} \log E|A_n \cdots A_1
# v|^p$: convex, with slope $\lambda$ at zero. Where $\lambda < 0 < L(2)$ single orbits converge, but with power-law tails whose
# index $p^*$ solves $L(p^*) = 0$. The scalar SGD step $w \mapsto (1 - \eta h)w$, $h \in \{1, 3\}$, at $\eta = 0.9$:

# %%
curvatures = jnp.array([1.0, 3.0])


def sgd(key):
    def step(w, u):
        return (1 - 0.9 * jnp.where(u < 0.5, *curvatures)) * w

    return dj.RandomMap(step, lambda n: jax.random.uniform(jax.random.fold_in(key, n), ()))


orders = jnp.linspace(0.1, 2.4, 12)
moments = dj.moment_function(sgd, jnp.zeros(()), orders, num_steps=steps(4_000), key=jax.random.key(5))
tail = dj.tail_index(sgd, jnp.zeros(()), num_steps=steps(2_000), key=jax.random.key(6), p_max=3.0)
exact = [float(reference.scalar_sgd_moment_function(p, 0.9, curvatures)) for p in orders]
figure, ax = plt.subplots(figsize=(5.5, 2.8))
ax.plot(orders, exact, lw=1, label="exact")
ax.errorbar(orders, moments.values, 2 * moments.standard_error, fmt="o", ms=4, label="resampled population")
ax.axvline(float(tail.value), color="tab:red", lw=0.8, ls="--", label=f"tail index {float(tail.value):.3f}")
ax.axhline(0, color="0.6", lw=0.8)
ax.set(xlabel="p", ylabel="L(p)")
ax.legend(frameon=False)
figure.tight_layout()

# %% [markdown]
# ## 10. Derivatives of exponents
#
# Over independent factors reverse mode finds the derivative of the exponent along a path. For factors that keep vectors in a
# cone, such as positive matrices, it is as well behaved as the exponent itself; for others it is right for each path, but has
# heavy tails from path to path. Along a chaotic orbit the derivative of a long average is worthless, and asking for it is an
# error unless one insists.

# %%
pair = jnp.array([[[2.0, 1.0], [1.0, 1.0]], [[3.0, 1.0], [2.0, 1.0]]])


def random_exponent(matrices, key):
    path = lambda n: matrices[jax.random.randint(jax.random.fold_in(key, n), (), 0, 2)]
    product = dj.RandomMap(lambda x, a: a @ x, path)
    return dj.lyapunov_spectrum(product, jnp.zeros(2), num_steps=steps(10_000), k=1).exponents[0]


slope = jax.jit(jax.grad(random_exponent))(pair, jax.random.key(7))
closed = jax.grad(reference.positive_product_exponent)(pair)
print("d lambda / d entries of the first matrix:", np.round(np.asarray(slope[0]).ravel(), 4))
print("closed form:                             ", np.round(np.asarray(closed[0]).ravel(), 4))
try:
    jax.grad(lambda r: dj.lyapunov_spectrum(systems.logistic(r), jnp.asarray(0.4), num_steps=100).exponents[0])(3.9)
except ValueError as error:
    print(error)

# %% [markdown]
# Fixed points and periodic orbits have multipliers in place of exponents: `dj.fixed_point` and `dj.floquet_multipliers`.

# %%
henon = systems.henon()
print(dj.fixed_point(henon, jnp.array([0.6, 0.2])))
van_der_pol = dj.Flow(lambda t, y, args: jnp.stack([y[1], (1 - y[0] ** 2) * y[1] - y[0]]), 0.01)
print(dj.floquet_multipliers(van_der_pol, jnp.array([2.0, 0.0]), num_steps=1000))
