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
# # Mean-field limits: oscillators, graphs, wide networks, attention
#
# Many units, each driven by an average over others: oscillators on a graph, the neurons of a wide layer in training, the
# tokens of a transformer. As their number grows the average stops fluctuating, and a transport equation takes the place of the
# particles. On a graph there is one density for each *label* $x$, the fibre, and a measure $\eta^x$ that says who drives $x$.
# That family of measures is a *digraph measure* (Kuehn and Xu, arXiv:2107.08419).
#
# | what | with |
# |---|---|
# | a finite graph as a linear map | `GraphOperator`: `Sparse`, `Block`, `Window`, `Shift`, ... |
# | its limit, graphon or not | `DigraphMeasure` |
# | particles, and a sweep over couplings in one program | `kuramoto`, `coupling_sweep` |
# | limits | `ott_antonsen`, `vlasov` (Fourier, finite volume, tracers), `stationary_order_parameter` |
# | where synchrony starts | `critical_coupling`, differentiable |
# | how far finite networks are from it | `fibre_distance`, `convergence_study`, `dobrushin_certificate` |
# | wide layers, attention | `two_layer_flow`, `attention_flow`, `circle_attention` |

# %%
import functools
import os
import warnings

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.colors import to_rgb

import dynjax as dj
from dynjax import meanfield, reference
from dynjax.meanfield import DigraphMeasure

jax.config.update("jax_enable_x64", True)
SMALL = os.environ.get("DYNJAX_SMALL") == "1"
plt.rcParams.update({"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False})
key = jax.random.key(6)
# Random edges, or mean densities as weights, which compile faster.
EDGES = {"weighted": True} if SMALL else {"mean_degree": 40}


def plain_ticks(ax, values):
    """Ticks of a logarithmic axis at the values that were run."""
    ax.set_xticks(values, [str(value) for value in values])
    ax.set_xticks([], minor=True)


# %% [markdown]
# ## 1. A graph is an average, and what one divides by matters
#
# $(AF)_i = \frac1N \sum_j a_{ij} F_j$, where $a_{ij}$ is the weight of the edge $j \to i$. Every graph of the package is this
# map $A$, computed as its structure allows. Graphs from elsewhere (`from_scipy`, `from_networkx`, `Sparse.from_edges`) come
# with a matrix only, so the division must be said: by $N$, by the degree of the node that is driven, or by nothing. The same
# edges then have critical couplings a thousand times apart. Most disagreements about a critical coupling are this one.

# %%
num_nodes = 300 if SMALL else 1000
matrix = np.triu(np.random.default_rng(0).random((num_nodes, num_nodes)) < 0.1, 1)
matrix = (matrix | matrix.T).astype(float)
law = meanfield.Lorentzian(1.0)
print(f"one random graph of {num_nodes} nodes, edge probability 0.1, frequencies of half width 1")
for scale, meaning in (("n", "divided by N"), ("degree", "divided by the degree"), (None, "not divided")):
    graph = meanfield.GraphOperator.from_scipy(matrix, scale=scale)
    largest = np.linalg.eigvals(graph.to_scipy(None).toarray()).real.max()
    print(f"  {meaning:22s} critical coupling {2 / largest:8.4f}")

# %% [markdown]
# Direction matters as well. Two blocks, of which the first drives the second and never listens:

# %%
one_way = meanfield.Block([[0.0, 0.0], [1.0, 0.0]], sizes=(3, 3))
values = jnp.array([1.0, 1, 1, 0, 0, 0])
print("what arrives at the nodes:          ", one_way.apply(values))
print("the same with all edges turned over:", one_way.transpose().apply(values))

# %% [markdown]
# ## 2. Digraph measures and their critical couplings
#
# Nodes sit at labels $x$ and $\eta^x$ says who drives them. A graphon has a density, $\eta^x(dy) = W(x, y)\,dy$; sparser graphs
# have point masses instead. Samples:

# %%
gallery = {
    "small world": DigraphMeasure.small_world(0.15, 0.2).sample(200, key),
    "two blocks": DigraphMeasure.stochastic_block([[0.8, 0.2], [0.2, 0.4]], [1, 1]).sample(200, key),
    "power law": DigraphMeasure.power_law(0.35).sample(200, key, mean_degree=40),
    "1 - max(x, y)": DigraphMeasure.max_kernel().sample(200),
    "Volterra": DigraphMeasure.volterra().sample(200),
    "shift ring, in cells": DigraphMeasure.shift_ring(0.2).sample_in_cells(20, 10),
}
figure, axes = plt.subplots(1, 6, figsize=(11, 2.3))
for ax, (name, graph) in zip(axes, gallery.items(), strict=True):
    ax.imshow(graph.to_scipy().toarray(), cmap="Blues", interpolation="nearest")
    ax.set_title(name, fontsize=9)
    ax.set(xticks=[], yticks=[])
axes[0].set(ylabel="driven node", xlabel="driving node")
figure.tight_layout()

# %% [markdown]
# Near incoherence each eigenvalue $\zeta$ of $(Af)(x) = \int f\,d\eta^x$ has a mode of its own. With frequencies of a law
# $g$ the first to grow does so at $K_c = 2 / (\pi g(0) \zeta_{\max})$; a negative coupling may destabilise the most negative
# one. Below: the measure, and for comparison one finite graph drawn from it.

# %%
families = {
    "complete": DigraphMeasure.complete(),
    "Erdos-Renyi, p = 0.3": DigraphMeasure.erdos_renyi(0.3),
    "two blocks": DigraphMeasure.stochastic_block([[0.8, 0.2], [0.2, 0.4]], [1, 1]),
    "ring, r = 0.2": DigraphMeasure.ring(0.2),
    "small world": DigraphMeasure.small_world(0.2, 0.1),
    "power law, a = 1/4": DigraphMeasure.power_law(0.25),
    "min(x, y)": DigraphMeasure.min_kernel(),
    "1 - max(x, y)": DigraphMeasure.max_kernel(),
    "shift ring, s = 0.2": DigraphMeasure.shift_ring(0.2),
    "nearest-neighbour cycle": DigraphMeasure.nearest_neighbour_cycle(),
    "sphere": DigraphMeasure.sphere(),
    "star, a = 1, b = 1/4": DigraphMeasure.star(1.0, 0.25),
    "binary tree": DigraphMeasure.tree([-1, 0, 0, 1, 1, 2, 2]),
    "Volterra": DigraphMeasure.volterra(),
}


def finite_graph(measure, key):
    if measure.is_atomic:  # populations on every label; one oscillator for each would have no limit (section 6)
        return None
    drawn = measure.is_symmetric and measure.part.kind.drawn
    return measure.sample(num_nodes, key, **(EDGES if drawn else {}))


print(f"{'':26s}{'largest':>9s}{'smallest':>10s}{'Kc':>9s}{'finite graph':>14s}{'Kc, negative':>14s}")
for name, measure in list(families.items())[: 5 if SMALL else None]:
    largest, smallest = measure.spectrum(1)[0], measure.spectrum(1, which="smallest")[0]
    critical = meanfield.critical_coupling(measure, law)
    negative = meanfield.critical_coupling(measure, law, branch="negative")
    graph = finite_graph(measure, key)
    sampled = "" if graph is None else f"{float(meanfield.critical_coupling(graph, law)):14.3f}"
    print(f"{name:26s}{largest:9.4f}{smallest:10.4f}{critical:9.3f}{sampled:>14s}{negative:14.3f}")

# %% [markdown]
# Volterra and the tree have no critical coupling at all: whatever is sent forward never comes back. Section 6 returns to that.
# The cycle is the identity: every fibre is an all-to-all population for itself.
#
# ## 3. Particles, their limit, and the predicted curve
#
# For Lorentzian frequencies the fibres that start as Poisson kernels remain so (Ott and Antonsen, arXiv:0806.0004), and one
# complex number for each label is the whole state:
# $\dot z(x) = -\Delta z + \frac K2 (h - \bar h z^2)$ with $h(x) = \int z\,d\eta^x$. Here `ott_antonsen` is run
# to $t = 80$ for each coupling, on 64 cells; `stationary_order_parameter` solves for the end at once; particles are time averages
# with two standard errors. All couplings of a curve are one program.

# %%
num_nodes = 400 if SMALL else 2000
steps = 400 if SMALL else 1000
chosen = {
    "complete": (families["complete"], meanfield.AllToAll(num_nodes)),
    "small world": (families["small world"], families["small world"].sample(num_nodes, key, **EDGES)),
    "power law": (
        families["power law, a = 1/4"],
        families["power law, a = 1/4"].sample(num_nodes, key, **EDGES),
    ),
}


def predicted_curve(measure, couplings):
    return jax.vmap(lambda K: meanfield.stationary_order_parameter(measure, law, K, num_labels=64))(couplings)


if SMALL:
    del chosen["power law"]
figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.2), sharey=True)
for ax, (name, (measure, graph)) in zip(axes, chosen.items(), strict=False):
    critical = float(meanfield.critical_coupling(measure, law))
    couplings = critical * jnp.linspace(0.4, 2.6, 12)
    fine = critical * jnp.linspace(0.4, 2.6, 60)
    curve = predicted_curve(measure, fine)

    def settled(K, measure=measure):
        limit = meanfield.ott_antonsen(measure.cells(64), law, K, dt=0.1)
        return limit.order_parameter(dj.evolve(limit, limit.init(0.5), num_steps=800))

    limit = jax.jit(jax.vmap(settled))(couplings)
    sweep = meanfield.coupling_sweep(
        graph, law, couplings, dt=0.1, num_steps=steps, burn_in=400, key=key, frequency_key=jax.random.key(1)
    )
    ax.plot(fine, curve, color="0.3", lw=1.3, label="stationary state of the limit")
    ax.plot(couplings, limit, "o", mfc="none", mec="tab:orange", ms=8, label="Ott-Antonsen at t = 80")
    ax.errorbar(couplings, sweep.order_parameter, 2 * sweep.standard_error, fmt=".", color="tab:blue", ms=6,
                label=f"{num_nodes} particles")  # fmt: skip
    ax.axvline(critical, color="tab:red", lw=0.9, ls="--", label="predicted $K_c$")
    ax.set(xlabel="coupling K", title=f"{name}, $K_c$ = {critical:.3g}")
axes[0].set(ylabel="order parameter r", ylim=(-0.03, 1))
figure.legend(*axes[0].get_legend_handles_labels(), ncols=4, loc="lower center", frameon=False, fontsize=8)
figure.tight_layout(rect=(0, 0.08, 1, 1))

# %% [markdown]
# Below $K_c$ the particles do not show zero but about $1/\sqrt N$, and with random frequencies they fluctuate most at $K_c$.
#
# ## 4. The distance to the limit
#
# How far is a finite network from its limit, and at what rate does that fall? `convergence_study` runs particles at several sizes
# and fits a power law. On the complete graph the limit is known in closed form:
# $\dot r = -\Delta r + \frac K2 r(1 - r^2)$. Independent frequencies and phases give the rate $-1/2$.

# %%
times = jnp.linspace(0, 4, 41)
exact = reference.ott_antonsen_transient(times, 0.5, 4.0, 1.0)


def run_particles(num_nodes, key):
    frequency_key, phase_key = jax.random.split(key)
    system = meanfield.kuramoto(meanfield.AllToAll(num_nodes), law, 4.0, dt=0.1, frequency_key=frequency_key)
    angles = meanfield.PoissonKernel(0.5).quantile(jax.random.uniform(phase_key, (num_nodes,)))
    observe = lambda n, x: meanfield.order_parameter(x)
    return dj.trajectory(system, system.init(angles), num_steps=40, observe=observe).ys


sizes = [50, 200, 800] if SMALL else [50, 200, 800, 3200, 12800]
report = meanfield.convergence_study(run_particles, exact, sizes, num_replicates=16, key=key)
print(report)

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
for num, colour in zip(sizes[::2], ("tab:orange", "tab:blue", "tab:purple"), strict=False):
    runs = jax.vmap(lambda key, num=num: run_particles(num, key))(jax.random.split(key, 12))
    axes[0].plot(times, runs.T, lw=0.6, alpha=0.6, color=colour)
    axes[0].plot([], [], color=colour, label=f"N = {num}")
axes[0].plot(times, exact, "k", lw=1.6, label="limit")
axes[0].set(xlabel="t", ylabel="r", title="12 runs of each size", ylim=(0.3, 0.9))
axes[0].legend(frameon=False, fontsize=8, loc="lower right")
axes[1].loglog(report.sizes, report.errors, "o", label="root mean square of 16 runs")
axes[1].loglog(report.sizes, report.constant * report.sizes**report.slope, "k--", lw=0.9,
               label=f"slope {float(report.slope):.3f} $\\pm$ {float(report.slope_error):.3f}")  # fmt: skip
axes[1].set(xlabel="N", title="largest error of r in time")
plain_ticks(axes[1], sizes)
axes[1].legend(frameon=False, fontsize=8)
figure.tight_layout()

# %% [markdown]
# The order parameter is one number; the limit says more, namely which phases are found at *every* label. `fibre_distance` is the
# largest Wasserstein distance over the labels, on the circle of length 1, exact for atoms and densities.
#
# Two solutions on the same graph cannot separate faster than $e^{2Kmt}$, $m$ the largest total weight (Dobrushin). The
# `dobrushin_certificate` holds a run against that: what violates it does not solve the equation it is said to solve.
# Below, two solutions on a ring from slightly different starts, and a wrong pair, with twice the coupling in one of them.

# %%
ring = DigraphMeasure.ring(0.2)
labels = ring.grid(48).labels
first = meanfield.PoissonKernel(0.4, 0.6 * jnp.cos(2 * jnp.pi * labels))
second = meanfield.PoissonKernel(0.4, 0.6 * jnp.cos(2 * jnp.pi * labels) + 0.05 * jnp.sin(6 * jnp.pi * labels))


def tracers(law, coupling):
    system = meanfield.vlasov(ring, meanfield.Identical(), coupling, method="tracers", dt=0.05, num_labels=48,
                              num_tracers=32)  # fmt: skip
    return system, dj.trajectory(system, system.init(law), num_steps=80, save_every=4)


figure, ax = plt.subplots(figsize=(5.5, 3.2))
system, base = tracers(first, 2.0)
for coupling, words in ((2.0, "the same coupling"), (4.0, "twice the coupling in one")):
    other = tracers(second, coupling)[1]
    apart = jax.vmap(lambda x, y: meanfield.fibre_distance(system.fibre_measure(x), system.fibre_measure(y)))(
        base.ys, other.ys
    )
    certificate = meanfield.dobrushin_certificate(base.ts, apart, 2.0, 0.4)
    ax.semilogy(certificate.times, certificate.measured, "o-", ms=3, lw=1,
                label=f"{words}: {'holds' if certificate.holds else 'violated'}")  # fmt: skip
ax.semilogy(certificate.times, certificate.bound, "k--", lw=0.9, label="Dobrushin's bound")
ax.set(xlabel="t", ylabel="fibre distance, turns", title="a bound as a check of a run")
ax.legend(frameon=False, fontsize=8)
figure.tight_layout()

# %% [markdown]
# ## 5. With noise: the Fokker-Planck equation, three ways
#
# Identical oscillators with noise $D$ on the complete graph order above $K = 2D$, with a density proportional to
# $e^{(Kr/D) \cos\theta}$ and $r = I_1(Kr/D) / I_0(Kr/D)$. `vlasov` has three discretisations: a hierarchy of Fourier moments,
# finite volumes with positive densities, and characteristics (tracers) where there is no noise.

# %%
noise, coupling = 0.5, 2.0
truth = float(reference.noisy_order_parameter(coupling, noise))
complete = DigraphMeasure.complete()


def steady_error(method, dt, num_steps, **options):
    system = meanfield.vlasov(complete, meanfield.Identical(), coupling, noise=noise, method=method, dt=dt,
                              num_labels=1, **options)  # fmt: skip
    end = dj.evolve(system, system.init(meanfield.VonMises(1.0)), num_steps=num_steps)
    return abs(float(system.order_parameter(end)) - truth)


def tracer_error(count):
    system = meanfield.vlasov(complete, meanfield.Identical(), 1.0, method="tracers", dt=0.01, num_labels=1,
                              num_tracers=count)  # fmt: skip
    end = dj.evolve(system, system.init(meanfield.PoissonKernel(0.5)), num_steps=100)
    return abs(float(system.order_parameter(end)) - float(reference.ott_antonsen_transient(1.0, 0.5, 1.0, 0.0)))


modes = [8] if SMALL else [2, 4, 6, 8, 10, 12]
cells = [16] if SMALL else [16, 32, 64, 128]
counts = [16] if SMALL else [8, 16, 32, 64]
fourier = [steady_error("fourier", 0.05, 800, num_modes=m) for m in modes]
volumes = []
for m in cells:
    step = meanfield.finite_volume_step(
        complete, meanfield.Identical(), coupling, noise=noise, num_labels=1, num_cells=m
    )
    volumes.append(steady_error("finite_volume", step, int(12 / step), num_cells=m))
traced = [tracer_error(m) for m in counts]

limit = meanfield.vlasov(complete, meanfield.Identical(), coupling, noise=noise, dt=0.05, num_labels=1, num_modes=24)
orbit = dj.trajectory(limit, limit.init(meanfield.CosinePhases(0.02)), num_steps=400, save_every=2)
angles = jnp.linspace(-jnp.pi, jnp.pi, 181)
density = jax.vmap(lambda x: limit.density(x, angles)[0])(orbit.ys)

figure, axes = plt.subplots(1, 3, figsize=(11, 3.2))
image = axes[0].pcolormesh(orbit.ts, angles, density.T, cmap="magma", shading="nearest", rasterized=True)
axes[0].set(xlabel="t", ylabel="phase", title="density, from almost uniform")
figure.colorbar(image, ax=axes[0])
axes[1].plot(angles, density[-1], lw=1.5, label="Fourier, t = 20")
stationary = np.exp(coupling * truth / noise * np.cos(angles))
stationary /= np.trapezoid(stationary, angles)
axes[1].plot(angles, stationary, "k--", lw=1, label="closed form")
axes[1].set(xlabel="phase", title="the density that is reached")
axes[1].legend(frameon=False, fontsize=8)
for x, errors, words, mark in ((modes, fourier, "Fourier modes", "o-"), (cells, volumes, "finite volumes", "s-"),
                               (counts, traced, "tracers (no noise)", "^-")):  # fmt: skip
    axes[2].loglog(x, np.maximum(errors, 1e-16), mark, ms=4, lw=1, label=words)
axes[2].set(xlabel="unknowns for each fibre", title="error of r against closed forms")
plain_ticks(axes[2], [2, 8, 32, 128])
axes[2].legend(frameon=False, fontsize=8)
figure.tight_layout()

# %% [markdown]
# ## 6. What is not a graphon
#
# On the *shift ring* each label is driven by the two labels at distance $s$, $\eta^x = (\delta_{x+s} + \delta_{x-s})/2$. A
# network approaches that limit if every label carries a population: $m$ cells with $n$ oscillators each, which feel cell
# averages. More cells with one oscillator each do not help: every node then listens to two others for ever.
# Fibre distances to the Ott-Antonsen limit, at $t = 3$, from a start that differs from label to label:

# %%
shift = DigraphMeasure.shift_ring(0.2)
num_cells, end = 25, 30
cell_grid = shift.cells(num_cells)
start = meanfield.PoissonKernel(0.7, 1.5 * jnp.sin(2 * jnp.pi * cell_grid.labels))
narrow = meanfield.Lorentzian(0.2)
limit = meanfield.ott_antonsen(cell_grid, narrow, 3.0, dt=0.1)
target = limit.fibre_measure(dj.evolve(limit, limit.init(start), num_steps=end))


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, None, 0))
def to_limit(graph, target, key):
    """The mean fibre distance over the cells at the end, particles against the limit."""
    count = graph.num_nodes // num_cells
    frequency_key, phase_key = jax.random.split(key)
    levels = jax.random.uniform(phase_key, (num_cells, count))
    place = jnp.repeat(start.phase, count).reshape(num_cells, count)
    angles = (meanfield.PoissonKernel(0.7).quantile(levels.ravel()).reshape(levels.shape) + place).ravel()
    system = meanfield.kuramoto(graph, narrow, 3.0, dt=0.05, frequency_key=frequency_key, method="heun")
    final = dj.evolve(system, system.init(angles), num_steps=2 * end)
    return meanfield.fibre_distance(meanfield.group_by_cells(final.angles, num_cells), target, kind="mean")


counts = [4, 32] if SMALL else [4, 32, 256]
keys = jax.random.split(key, 8)
in_cells, one_each = [], []
for count in counts:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", meanfield.MeanFieldWarning)
        single = shift.sample(num_cells * count)
    for graph, found in ((shift.sample_in_cells(num_cells, count), in_cells), (single, one_each)):
        found.append(to_limit(graph, target, keys))
good, bad = (meanfield.convergence_report(counts, jnp.stack(errors)) for errors in (in_cells, one_each))
figure, ax = plt.subplots(figsize=(5.5, 3.2))
for report, words, colour in (
    (good, "25 cells with n oscillators", "tab:blue"),
    (bad, "25 n nodes with one", "tab:red"),
):
    ax.loglog(counts, report.errors, "o-", color=colour, label=f"{words}: slope {float(report.slope):.2f}")
ax.set(xlabel="n", ylabel="mean fibre distance", title="shift ring: the same number of oscillators")
plain_ticks(ax, counts)
ax.legend(frameon=False, fontsize=8)
figure.tight_layout()

# %% [markdown]
# On the *sphere* a label is driven by the great circle orthogonal to it. The eigenvalues are $P_l(0)$: 1, $-\frac12$,
# $\frac38$, ... A repulsive coupling beyond $-4\Delta$ therefore sets in with $l = 2$. Now a label avoids the phases of all
# labels orthogonal to it. Out of this noise the limit grows patches around three axes that
# are nearly orthogonal, with phases a third of a turn apart (an observation, not a theorem).

# %%
sphere = DigraphMeasure.sphere().grid(600 if SMALL else 3200)
repulsive = meanfield.ott_antonsen(sphere, meanfield.Lorentzian(0.25), -4.0, dt=0.05)
rough = 0.05 * jax.random.normal(key, (2, sphere.num_labels))
frames = dj.trajectory(repulsive, repulsive.init(rough[0] + 1j * rough[1]), num_steps=800, save_every=100).ys
points = np.asarray(sphere.labels)
longitude, latitude = np.arctan2(points[:, 1], points[:, 0]), np.arcsin(np.clip(points[:, 2], -1, 1))


def phase_colours(z, strongest):
    """Hue for the phase, white where there is no order."""
    strength = np.clip(np.abs(z) / strongest, 0, 1)[:, None]
    return strength * plt.cm.hsv((np.angle(z) / (2 * np.pi)) % 1)[:, :3] + (1 - strength) * np.array(to_rgb("w"))


figure, axes = plt.subplots(1, 3, figsize=(10.5, 2.5), subplot_kw={"projection": "mollweide"})
for ax, frame in zip(axes, (0, 1, 8), strict=True):
    z = np.asarray(repulsive.local_order_parameter(frames[frame]))
    ax.scatter(longitude, latitude, c=phase_colours(z, np.abs(z).max()), s=18 if SMALL else 6, linewidth=0)
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"t = {5 * frame}, largest |z| = {np.abs(z).max():.2f}", fontsize=9)
figure.suptitle("phases on the sphere, K = -4", fontsize=10)
figure.tight_layout()

# %% [markdown]
# *Volterra's* measure, $\eta^x = 1\{y < x\}\,dy$, is dense and directed. Its spectrum is $\{0\}$, so no coupling makes
# incoherence unstable. It is far from normal: a perturbation first grows, by $e^{-\Delta t} I_0(\sqrt{2Kxt})$ at the label $x$
# while it is small, and the longer the further down the line.

# %%
volterra = DigraphMeasure.volterra()
limit = meanfield.ott_antonsen(volterra, law, 20.0, num_labels=100, dt=0.02)
orbit = dj.trajectory(limit, limit.init(1e-3), num_steps=1500, save_every=5)
z = jnp.abs(jax.vmap(limit.local_order_parameter)(orbit.ys))
gentle = meanfield.ott_antonsen(volterra, law, 8.0, num_labels=100, dt=0.02)
small = dj.trajectory(gentle, gentle.init(1e-6), num_steps=800, save_every=5)
last = jnp.abs(jax.vmap(gentle.local_order_parameter)(small.ys))[:, -1] / 1e-6
figure, axes = plt.subplots(1, 2, figsize=(9.5, 3.2))
image = axes[0].pcolormesh(orbit.ts, limit.grid.labels, z.T, cmap="magma", shading="nearest", rasterized=True)
axes[0].set(xlabel="t", ylabel="label x", title="|z| on Volterra's measure, K = 20")
figure.colorbar(image, ax=axes[0])
axes[1].semilogy(small.ts, last, lw=2.5, alpha=0.5, label=f"limit, K = 8, x = {float(gentle.grid.labels[-1]):.3f}")
axes[1].semilogy(small.ts, reference.volterra_growth(small.ts, float(gentle.grid.labels[-1]), 8.0, 1.0), "k--", lw=1,
                 label="$e^{-t} I_0(\\sqrt{2Kxt})$")  # fmt: skip
axes[1].semilogy(small.ts, np.exp(-small.ts), color="tab:red", lw=1, label="what the spectrum says")
axes[1].set(xlabel="t", title="growth of a perturbation", ylim=(1e-4, 30))
axes[1].legend(frameon=False, fontsize=8)
figure.tight_layout()

# %% [markdown]
# ## 7. A graph with a critical coupling of one's choice
#
# `critical_coupling` is differentiable in the graph, the law and the noise. Four communities, mean density 0.3: an Erdos-Renyi
# graph of that density synchronises at $2/0.3 = 6.67$. Which densities, with no edge more, do so at 4, or hold out until 9?
# A threshold above 6.67 takes a directed graph: for a symmetric one the eigenvalue is never below the mean density. The first
# design is a dense core, the second a chain of command. An early onset has its price: the core leaves the rest behind.

# %%
weights = jnp.full(4, 0.25)


def densities(logits):
    """Densities in (0, 1) of mean 0.3, by a common shift of the logits."""
    shift = jnp.zeros(())
    for _ in range(12):  # Newton's method
        p = jax.nn.sigmoid(logits + shift)
        shift = shift - (jnp.mean(p) - 0.3) / jnp.mean(p * (1 - p))
    return jax.nn.sigmoid(logits + shift)


def threshold(logits):
    measure = DigraphMeasure.stochastic_block(densities(logits), weights, directed=True)
    return meanfield.critical_coupling(measure, law)


def design(target, num_steps):
    optimizer = optax.adam(0.1)

    @jax.jit
    def step(logits, state):
        value, gradient = jax.value_and_grad(lambda logits: jnp.log(threshold(logits) / target) ** 2)(logits)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(logits, updates), state, value

    logits = 0.3 * jax.random.normal(jax.random.key(3), (4, 4))
    state = optimizer.init(logits)
    for _ in range(num_steps):
        logits, state, _ = step(logits, state)
    return logits


designs = {"Erdos-Renyi": jnp.zeros((4, 4))}
for target in (4.0,) if SMALL else (4.0, 9.0):
    designs[f"designed for {target:g}"] = design(target, 60 if SMALL else 300)
couplings = jnp.linspace(2, 14, 9 if SMALL else 16)
figure, axes = plt.subplots(1, 4, figsize=(11.5, 2.9), width_ratios=(1, 1, 1, 1.7))
for ax, (name, logits), colour in zip(axes, designs.items(), ("0.4", "tab:blue", "tab:red"), strict=False):
    order = jnp.argsort(-jnp.sum(densities(logits), axis=0))  # the strongest driver first
    density, critical = densities(logits)[order][:, order], float(threshold(logits))
    ax.imshow(density, vmin=0, vmax=1, cmap="Blues")
    for (row, column), value in np.ndenumerate(np.asarray(density)):
        ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color="w" if value > 0.6 else "k")
    ax.set(xticks=[], yticks=[], xlabel=f"$K_c$ = {critical:.3f}")
    ax.set_title(name, fontsize=9)
    measure = DigraphMeasure.stochastic_block(density, weights, directed=True)
    graph = measure.sample(400 if SMALL else 1000, key, **EDGES)
    sweep = meanfield.coupling_sweep(graph, law, couplings, dt=0.1, num_steps=400, burn_in=300, key=key,
                                     frequency_key=jax.random.key(2))  # fmt: skip
    axes[3].plot(couplings, sweep.order_parameter, "o", ms=4, color=colour)
    fine = jnp.linspace(2, 14, 121)
    axes[3].plot(fine, predicted_curve(measure, fine), lw=1, color=colour)
axes[0].set(ylabel="driven community")
axes[3].set(xlabel="coupling K", title="r: limits and particles")
figure.tight_layout()

# %% [markdown]
# ## 8. Twisted states
#
# On a ring of identical oscillators synchrony is not the only state that attracts: the phases may wind $q$ times around. From
# random phases a ring of short reach ends in one of them, after defects have met and annihilated. A twist is stable as long as
# the neighbourhood is short of it; $q = 1$ loses stability when a node hears 68.09 % of the ring (Wiley, Strogatz and Girvan).

# %%
num_nodes, reach, num_runs = 200, 4, 60 if SMALL else 400
window = meanfield.Window(num_nodes, reach)
ring_system = meanfield.kuramoto(window, jnp.zeros(num_nodes), num_nodes / (2 * reach), dt=0.5)
starts = jax.random.uniform(key, (num_runs, num_nodes), maxval=2 * jnp.pi)


@jax.jit
def winding(angles):
    phases = dj.evolve(ring_system, ring_system.init(angles), num_steps=800).angles
    jumps = jnp.diff(phases, append=phases[:1])
    return jnp.round(jnp.sum(jnp.mod(jumps + jnp.pi, 2 * jnp.pi) - jnp.pi) / (2 * jnp.pi)).astype(int)


windings = np.asarray(jax.jit(jax.vmap(winding))(starts))
shown = int(np.argmax(np.abs(windings)))
orbit = dj.trajectory(ring_system, ring_system.init(starts[shown]), num_steps=600, save_every=2,
                      observe=lambda n, x: x.angles)  # fmt: skip

fractions, leading = [], []
for fraction in np.linspace(0.55, 0.8, 26):
    size = 1000
    half = round(fraction * size / 2)
    profile = np.where(np.minimum(np.arange(size), size - np.arange(size)) <= half, 1.0, 0.0)
    fractions.append((2 * half + 1) / size)
    leading.append(float(jnp.max(meanfield.twist_eigenvalues(profile, 1)[1:])))

figure, axes = plt.subplots(1, 3, figsize=(11, 3.2), width_ratios=(1.4, 1, 1))
axes[0].imshow(orbit.ys.T, cmap="twilight", aspect="auto", extent=(0, 300, 0, 1), interpolation="nearest")
axes[0].set(xlabel="t", ylabel="label x", title=f"phases, ending with {windings[shown]} turns")
values, numbers = np.unique(windings, return_counts=True)
axes[1].bar(values, numbers / num_runs, color="tab:blue", alpha=0.8)
axes[1].set(xlabel="winding number", title=f"{num_runs} random starts, reach {reach}/{num_nodes}", xticks=values)
axes[2].plot(fractions, leading, "o-", ms=3, lw=1)
axes[2].axhline(0, color="0.6", lw=0.8)
axes[2].axvline(float(reference.twisted_critical_fraction()), color="tab:red", ls="--", lw=0.9)
axes[2].set(xlabel="share of the ring that a node hears", title="leading eigenvalue over K, q = 1")
figure.tight_layout()

# %% [markdown]
# ## 9. Weights that adapt, and triads
#
# Let the weight of every edge follow the phases,
# $\dot\kappa_{ij} = -\epsilon(\kappa_{ij} + \sin(\theta_i - \theta_j + \beta))$. What the network builds out of a random start,
# communities or a gradual order, $\beta$ decides. Oscillators are sorted by their frequency and phase at the end.

# %%
num_nodes = 60 if SMALL else 100
phase_lag = 0.3 * jnp.pi
figure, axes = plt.subplots(1, 3, figsize=(10, 3.1), layout="constrained")
phase_key, weight_key = jax.random.split(jax.random.key(4))
angles = jax.random.uniform(phase_key, (num_nodes,), maxval=2 * jnp.pi)
kappa = jax.random.uniform(weight_key, (num_nodes, num_nodes), minval=-1)


@jax.jit
def adapted(beta):
    system = meanfield.adaptive_kuramoto(num_nodes, jnp.zeros(num_nodes), rate=0.01, phase_lag=phase_lag,
                                         adaptation_lag=beta, dt=0.2)  # fmt: skip
    state = dj.evolve(system, system.init(angles, kappa), num_steps=2000 if SMALL else 6000)
    return state, system.vector_field(state).phases


for ax, beta in zip(axes, (-0.53, 0, 0.45), strict=True):
    state, speed = adapted(beta * jnp.pi)
    order = np.lexsort((np.mod(state.phases, 2 * np.pi), np.round(speed, 2)))
    image = ax.imshow(np.asarray(state.weights)[np.ix_(order, order)], cmap="RdBu_r", vmin=-1, vmax=1)
    ax.set(xticks=[], yticks=[], title=f"$\\beta$ = {beta}$\\pi$")
axes[0].set(ylabel="driven oscillator", xlabel="driving oscillator")
bar = figure.colorbar(image, ax=axes, label="weight $\\kappa$", shrink=0.9)

# %% [markdown]
# *Triads*, terms such as $\sin(2\theta_j - \theta_k - \theta_i)$, cost no more than pairs, since they factor through two
# means. In the limit $\dot r = -\Delta r + \frac r2 (1 - r^2)(K_1 + K_{23} r^2)$: the onset becomes abrupt, with hysteresis.
# Particles follow the branch they start near.

# %%
num_nodes = 1000 if SMALL else 10_000
pairs = jnp.linspace(-2, 4, 121)
unstable, stable = jax.vmap(lambda K: meanfield.triads_stationary(1.0, K, 8.0))(pairs).T


@jax.jit
def end_state(K, spread):
    frequency_key, phase_key = jax.random.split(jax.random.key(5))
    system = meanfield.triads(num_nodes, law, K, 8.0, dt=0.05, frequency_key=frequency_key)
    angles = spread * jax.random.uniform(phase_key, (num_nodes,), minval=-jnp.pi, maxval=jnp.pi)
    return meanfield.order_parameter(dj.evolve(system, system.init(angles), num_steps=600))


figure, ax = plt.subplots(figsize=(5.5, 3.2))
ax.plot(pairs, stable, "k", lw=1.2, label="limit, stable")
ax.plot(pairs, unstable, "k:", lw=1.2, label="limit, unstable")
ax.plot([-2, 2], [0, 0], "k", lw=1.2)
ax.plot([2, 4], [0, 0], "k:", lw=1.2)
shown = jnp.linspace(-1.8, 3.8, 8 if SMALL else 15)
for spread, words, mark in ((1.0, "particles from incoherence", "^"), (0.1, "particles from synchrony", "v")):
    ends = [float(end_state(K, spread)) for K in shown]
    ax.plot(shown, ends, mark, ms=5, alpha=0.8, label=words)
ax.set(xlabel="pairwise coupling $K_1$", ylabel="r", title=f"$K_{{23}}$ = 8, N = {num_nodes}")
ax.legend(frameon=False, fontsize=8, loc="center left")
figure.tight_layout()

# %% [markdown]
# ## 10. Wide two-layer networks
#
# With the output $f(x) = \frac1N \sum_i s(x; \theta_i)$ the neurons of a layer are particles, coupled through the residual, and
# gradient descent is a Wasserstein gradient flow of their law (arXiv:1804.06561). For quadratic neurons
# $(\theta \cdot x)^2$ and Gaussian inputs the risk knows the second moment $M = \frac1N\sum_i \theta_i\theta_i^T$ only, and
# $\dot M = -2(GM + MG)$ with $G = 4(M - M^*) + 2\operatorname{tr}(M - M^*) I$ at *every* width. A cubature with
# $3^d$ nodes integrates the risk exactly, so a wide and a narrow network that start with the same $M$ train alike;
# a random start differs from the limit by its sample of $M(0)$ only.

# %%
dimension = 3
nodes = np.array(np.meshgrid(*[[-np.sqrt(3), 0, np.sqrt(3)]] * dimension)).reshape(dimension, -1).T
cubature = np.prod(np.where(nodes == 0, 2 / 3, 1 / 6), axis=1)
teacher = np.diag([1.0, 0.4, 0.0])
targets = np.einsum("ki,ij,kj->k", nodes, teacher, nodes)
training = meanfield.two_layer_flow(lambda theta, x: (theta @ x) ** 2, nodes, targets, weights=cubature, dt=2e-3)
second_moment = lambda n, theta: theta.T @ theta / theta.shape[0]


def velocity(t, M, args):
    gap = M - teacher
    G = 4 * gap + 2 * jnp.trace(gap) * jnp.eye(dimension)
    return -2 * (G @ M + M @ G)


riccati = dj.trajectory(dj.Flow(velocity, 2e-3), 0.2 * jnp.eye(dimension), num_steps=300)


def train(num_neurons, key):
    theta = jnp.sqrt(0.2) * jax.random.normal(key, (num_neurons, dimension))
    return dj.trajectory(training, theta, num_steps=300, observe=second_moment).ys


theta = jnp.tile(jnp.sqrt(0.6) * jnp.eye(dimension), (2, 1))  # six neurons with M(0) = 0.2 I exactly
matched = dj.trajectory(training, theta, num_steps=300, observe=second_moment).ys
apart = float(jnp.max(jnp.abs(matched - riccati.ys)))
print(f"six neurons with the right M(0): largest difference to the Riccati flow {apart:.1e}")
widths = [16, 64, 256] if SMALL else [16, 64, 256, 1024, 4096]
report = meanfield.convergence_study(train, riccati.ys, widths, num_replicates=8, key=key)
runs = jax.vmap(lambda key: train(64, key))(jax.random.split(key, 10))
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
for entry, colour in enumerate(("tab:blue", "tab:orange", "tab:green")):
    axes[0].plot(riccati.ts, runs[:, :, entry, entry].T, color=colour, lw=0.6, alpha=0.5)
    axes[0].plot(riccati.ts, riccati.ys[:, entry, entry], color=colour, lw=2, label=f"$M_{{{entry + 1}{entry + 1}}}$")
axes[0].set(xlabel="t", title="64 neurons, 10 starts (thin), and the limit")
axes[0].legend(frameon=False, fontsize=8)
axes[1].loglog(report.sizes, report.errors, "o")
axes[1].loglog(report.sizes, report.constant * report.sizes**report.slope, "k--", lw=0.9,
               label=f"slope {float(report.slope):.3f} $\\pm$ {float(report.slope_error):.3f}")  # fmt: skip
axes[1].set(xlabel="neurons", title="distance to the limit")
plain_ticks(axes[1], widths)
axes[1].legend(frameon=False, fontsize=8)
figure.tight_layout()

# %% [markdown]
# ## 11. Attention
#
# The tokens of a transformer, on the sphere and with depth as time, attract each other (arXiv:2305.05465). Without matrices the
# energy $\frac1{2\beta}$ mean $e^{\beta\langle x_i, x_j\rangle}$ never falls, and in the end all tokens agree. On the way they
# stay in clusters for very long. On the circle uniform tokens are unstable: mode $k$ grows at $k^2 I_k(\beta)/\beta$, and the
# fastest one gives the number of clusters of the first plateau, about $\sqrt{2\beta}$.

# %%
beta = 5.0
num_tokens = 150 if SMALL else 400
predicted = int(meanfield.cluster_prediction(beta))
rate = float(meanfield.mode_growth_rate(predicted, beta))
num_steps = 3000 if SMALL else 30_000
attention = meanfield.circle_attention(beta, dt=0.1 / rate, kind="usa")
tokens = 2 * jnp.pi * (jnp.arange(num_tokens) + 0.3 * jax.random.normal(key, (num_tokens,))) / num_tokens
report = meanfield.metastability_report(attention, tokens, beta, num_records=num_steps // 5, record_every=5)
orbit = dj.trajectory(attention, tokens, num_steps=num_steps, save_every=5)
units = np.asarray(report.times) * rate
print(f"predicted: {predicted} clusters")
for count in range(8, 0, -1):
    if float(report.lifetimes[count]) * rate > 5:
        print(f"  {count} clusters for {float(report.lifetimes[count]) * rate:7.1f} units of 1/rate")

# %%
edges = np.linspace(-np.pi, np.pi, 181)
picture = np.stack([np.histogram((row + np.pi) % (2 * np.pi) - np.pi, edges)[0] for row in np.asarray(orbit.ys)])
chosen = np.unique(np.geomspace(1, num_steps // 5, 400).astype(int))  # equal steps on a logarithmic axis
figure, axes = plt.subplots(3, 1, figsize=(8, 6), sharex=True, height_ratios=(2, 1, 1))
axes[0].pcolormesh(units[chosen], edges, np.log1p(picture[chosen][:-1].T), cmap="magma", rasterized=True)
axes[0].set(ylabel="angle", title=f"tokens on the circle, $\\beta$ = {beta:g}")
for mode in range(1, 7):
    axes[1].loglog(units[chosen], np.abs(report.moments[chosen, mode - 1]), lw=1, label=f"{mode}",
                   color=plt.cm.viridis((mode - 1) / 5.5))  # fmt: skip
axes[1].set(ylabel="modes", ylim=(1e-4, 1.5))
axes[1].legend(title="k", frameon=False, fontsize=7, ncols=2, loc="lower right")
axes[2].plot(units[chosen], report.energy[chosen], lw=1.2, color="tab:red")
axes[2].set(xscale="log", xlabel="time, in units of 1 / fastest rate", ylabel="energy")
figure.tight_layout()

# %% [markdown]
# Left: growth rates, measured from the first steps, against $k^2 I_k(\beta)/\beta$. Right: the staircase of predicted numbers.
# Tokens that start orthogonal to each other stay equiangular; in the middle their overlap against the exact solution.

# %%
figure, axes = plt.subplots(1, 3, figsize=(11, 3.1))
ks = np.arange(1, 9)
for beta, colour in ((2.0, "tab:green"), (5.0, "tab:blue"), (9.0, "tab:purple")):
    rates = np.array([float(meanfield.mode_growth_rate(int(k), beta)) for k in ks])
    step = 0.02 / rates.max()
    attention = meanfield.circle_attention(beta, dt=step, num_modes=40)
    grid = 2 * jnp.pi * jnp.arange(256) / 256
    moments = lambda angles: jnp.stack([jnp.abs(jnp.mean(jnp.exp(1j * k * angles))) for k in ks])
    kicked = grid + 1e-5 * sum(jnp.sin(k * grid) / k for k in ks)
    end = dj.evolve(attention, kicked, num_steps=50)
    measured = np.log(moments(end) / moments(kicked)) / (50 * step)
    axes[0].plot(ks, rates / rates.max(), "-", lw=1, color=colour)
    axes[0].plot(ks, measured / rates.max(), "o", ms=4, color=colour, label=f"$\\beta$ = {beta:g}")
axes[0].set(xlabel="mode k", title="growth rates over the fastest")
axes[0].legend(frameon=False, fontsize=8)
for kind, colour in (("sa", "tab:blue"), ("usa", "tab:orange")):
    system = meanfield.attention_flow(2.0, dt=0.01, kind=kind)
    overlap = dj.trajectory(system, jnp.eye(8), num_steps=400, save_every=10, observe=lambda n, x: x[0] @ x[1])
    truth = [float(reference.equiangular_overlap(t, 2.0, 8, kind=kind)) for t in overlap.ts]
    axes[1].plot(overlap.ts, truth, "k", lw=0.8)
    axes[1].plot(overlap.ts, overlap.ys, "o", ms=3, color=colour, label=kind.upper())
    print(f"{kind}: largest error of the overlap {np.max(np.abs(overlap.ys - np.array(truth))):.1e}")
axes[1].set(xlabel="t", title="overlap of 8 orthogonal tokens, $\\beta$ = 2")
axes[1].legend(frameon=False, fontsize=8)
betas = jnp.linspace(0.5, 40, 200)
axes[2].plot(betas, jax.vmap(meanfield.cluster_prediction)(betas), drawstyle="steps-mid", lw=1.3, label="argmax")
axes[2].plot(betas, jnp.sqrt(2 * betas), "k--", lw=0.8, label="$\\sqrt{2\\beta}$")
axes[2].set(xlabel="$\\beta$", title="predicted clusters")
axes[2].legend(frameon=False, fontsize=8)
figure.tight_layout()

# %% [markdown]
# ## 12. When not to trust a limit
#
# A limit always returns a number. Where it says little about the system at hand, or the quadrature behind it is poor, the
# package warns:

# %%
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always", meanfield.MeanFieldWarning)
    DigraphMeasure.shift_ring(0.2).sample(100)
    meanfield.kuramoto(meanfield.AllToAll(100), law, 3.0, dt=0.1)
    meanfield.vlasov(complete, meanfield.Gaussian(1.0), 3.0, dt=0.1, num_labels=1)
for warning in caught:
    print("-", warning.message, "\n")

# %% [markdown]
# Besides: within some $N^{-1/2}$ of the critical coupling a finite network shows a smeared transition; where the mean degree is
# below 20 or so, a graph synchronises later than its limit; on directed graphs "stable" may come after a large transient.
# `dynjax meanfield` and `dynjax attention` run these comparisons at size, with stores, error bars and a report.
