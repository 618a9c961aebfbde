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
# # Delay equations: solving, differentiating, learning
#
# In a delay equation $y'(t) = f(t, y(t), y(t - \tau))$ the state is a piece of the past. That makes three things harder than for
# ordinary equations: the solution has corners which wander through time, the delay itself is a parameter one may want a
# derivative of, and the dynamics are infinite dimensional.
#
# | what | with |
# |---|---|
# | adaptive, differentiable solutions; delays that vary | `systems.ddesolve` |
# | a map on histories with fixed steps, for exponents and training | `dj.DelayFlow` |
# | networks with delays, and what they can represent | `networks.NeuralDDE`, `dynjax.propagation` |
# | learning an equation with an unknown delay | `dynjax delay-fit` |

# %%
import os

import diffrax
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax

import dynjax as dj
from dynjax import networks, propagation, systems
from dynjax.experiments import delay_fit
from dynjax.systems import ddesolve

jax.config.update("jax_enable_x64", True)
SMALL = os.environ.get("DYNJAX_SMALL") == "1"
plt.rcParams.update({"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False})

# %% [markdown]
# ## 1. A first example, and its corners
#
# $y'(t) = -y(t - 1)$ with $y = 1$ for $t \le 0$. The past is flat and the solution leaves it with slope $-1$, so $y'$ jumps at 0.
# The equation hands that jump on: $y''$ jumps at 1, $y'''$ at 2, and so on. `ddesolve` makes every such *breakpoint* the
# end of a step. It also works between them with the solver's own interpolation, which `evaluate` returns.


# %%
def pure_delay(t, y, delayed, args):
    return -delayed[0]


solution = ddesolve(pure_delay, 0.0, 10.0, 1.0, history=lambda t: 1.0, delays=1.0, rtol=1e-10, atol=1e-10)
print(solution)
print(f"y(10) = {float(solution.final):.15f}, exact {10493 / 518400:.15f}")

# %%
ts = np.linspace(-1, 6, 701)
values = jax.vmap(solution.evaluate)(ts)
slope = jnp.where(ts < 0, 0, -jax.vmap(solution.evaluate)(np.maximum(ts - 1, -1)))
curve = jnp.where(ts < 1, 0, jax.vmap(solution.evaluate)(np.maximum(ts - 2, -1)))
figure, axes = plt.subplots(3, 1, figsize=(8, 4.6), sharex=True)
for ax, line, name in zip(axes, (values, slope, curve), ("$y$", "$y'$", "$y''$"), strict=True):
    for breakpoint_ in range(7):
        ax.axvline(breakpoint_, color="0.85", lw=0.8)
    ax.plot(ts, line, lw=1.2)
    ax.set_ylabel(name)
axes[0].set_title("a jump of $y'$ at 0 becomes one of $y''$ at 1")
axes[-1].set_xlabel("t")
figure.tight_layout()

# %% [markdown]
# ## 2. Tolerance, order, and two engines
#
# `engine="segments"` (the default) is adaptive, with any Diffrax solver. It judges a step by the defect of its interpolation
# too, since that is what later delayed values are read from: the error at the end follows the tolerance.
#
# `engine="stages"` takes fixed steps on a mesh that repeats with the delay. The delayed value of a Runge-Kutta stage is then a
# stage of an earlier step, nothing is interpolated, and a method keeps its full order. It is one fused loop: the choice for
# training. Hutchinson's equation $y' = 1.5\, y\, (1 - y(t - 1))$, with $y(20) = 0.794988745209076$:


# %%
def hutchinson(t, y, delayed, args):
    return 1.5 * y * (1 - delayed[0])


exact = 0.794988745209076
problem = {"history": lambda t: 0.5, "delays": 1.0}
tolerances = 10.0 ** -np.arange(4, 12, 2 if SMALL else 1)
by_tolerance = [
    abs(float(ddesolve(hutchinson, 0.0, 20.0, 0.5, rtol=r, atol=r, **problem).final) - exact) for r in tolerances
]
numbers = np.array([4, 8, 16] if SMALL else [2, 4, 8, 16, 32])
methods = {"Heun": diffrax.Heun(), "Bosh3": diffrax.Bosh3(), "Dopri5": diffrax.Dopri5(), "Dopri8": diffrax.Dopri8()}
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4))
axes[0].loglog(tolerances, by_tolerance, "o-", ms=4)
axes[0].loglog(tolerances, tolerances, "k--", lw=0.8, label="error = tolerance")
axes[0].set(xlabel="rtol = atol", ylabel="error at t = 20", title="segments: Tsit5")
axes[0].legend(frameon=False)
for name, method in methods.items():
    errors = [
        abs(
            float(
                ddesolve(
                    hutchinson, 0.0, 20.0, 0.5, engine="stages", solver=method, steps_per_delay=int(n), **problem
                ).final
            )
            - exact
        )
        for n in numbers
    ]
    errors = np.maximum(errors, 2e-16)
    clear = errors > 1e-13
    order = -np.polyfit(np.log(numbers[clear]), np.log(errors[clear]), 1)[0]
    axes[1].loglog(numbers, errors, "o-", ms=4, label=f"{name}: {order:.1f}")
axes[1].set(xlabel="steps per delay", title="stages: methods of order 2, 3, 5 and 8")
axes[1].set_xticks(numbers, [str(n) for n in numbers])
axes[1].minorticks_off()
axes[1].legend(frameon=False, fontsize=8)
figure.tight_layout()

# %% [markdown]
# ## 3. The derivative with respect to the delay
#
# A longer delay moves all breakpoints. Both modes of differentiation get that right; for the first example
# $\partial y(5.5) / \partial \tau = 0.779947916666667$ at $\tau = 1$. With a traced delay the number of segments must be given:
# it is the size of an array.

# %%
truth = 0.779947916666667


def end(delay, adjoint="reverse", engine="segments"):
    options = {"rtol": 1e-10, "atol": 1e-10} if engine == "segments" else {"steps_per_delay": 8}
    return ddesolve(
        pure_delay, 0.0, 5.5, 1.0, history=lambda t: 1.0, delays=delay, max_segments=6, adjoint=adjoint,
        engine=engine, **options,
    ).final  # fmt: skip


reverse = jax.grad(end)(1.0)
forward = jax.jvp(lambda delay: end(delay, "forward"), (1.0,), (1.0,))[1]
stages = jax.grad(lambda delay: end(delay, engine="stages"))(1.0)
for name, value in (("reverse", reverse), ("forward", forward), ("stages", stages)):
    print(f"{name:8s} {float(value):.15f}  error {abs(float(value) - truth):.1e}")

# %% [markdown]
# ## 4. Many delays at once
#
# No function has a batch axis: `vmap` over the delay. Above, Hutchinson's equation for eight delays with `ddesolve`; with
# $r\tau < \pi/2$ the population settles, above it oscillates. Below, the local maxima of the Mackey-Glass equation for many
# delays with `DelayFlow`, all in one compiled loop: periods double into chaos.

# %%
delays = jnp.linspace(0.6, 1.3, 8)
ts = jnp.linspace(0, 30, 300)


def orbit(delay):
    return ddesolve(
        hutchinson, 0.0, 30.0, 0.5, history=lambda t: 0.5, delays=delay, ts=ts, max_segments=50, rtol=1e-6, atol=1e-6
    ).ys


num_delays = 24 if SMALL else 500


def maxima(tau, keep=16):
    flow = systems.mackey_glass(0.2, tau=tau, num_history=120)
    settled = dj.evolve(flow, flow.init(jnp.asarray(1.2)), num_steps=6_000 if SMALL else 15_000)
    y = dj.trajectory(flow, settled, num_steps=4_000, observe=lambda n, x: x.y).ys
    peak = (y[1:-1] > y[:-2]) & (y[1:-1] >= y[2:])
    return jnp.where(peak, y[1:-1], jnp.nan)


taus = jnp.linspace(8, 22, num_delays)
peaks = np.asarray(jax.jit(lambda taus: jax.lax.map(maxima, taus, batch_size=100))(taus))
figure, axes = plt.subplots(2, 1, figsize=(8, 6.2))
for delay, y in zip(delays, jax.jit(jax.vmap(orbit))(delays), strict=True):
    axes[0].plot(ts, y, lw=1, color=plt.cm.viridis(float((delay - 0.6) / 0.8)), label=f"{float(delay):.1f}")
axes[0].set(xlabel="t", ylabel="y", title="Hutchinson, r = 1.5: settling below $\\tau = \\pi/3$, oscillating above")
axes[0].legend(title="$\\tau$", frameon=False, ncol=2, fontsize=7, loc="upper right")
for tau, row in zip(taus, peaks, strict=True):
    found = row[np.isfinite(row)]
    axes[1].plot(np.full(found.size, float(tau)), found, "k,", alpha=0.35)
axes[1].set(xlabel="$\\tau$", ylabel="local maxima of y", title="Mackey-Glass")
figure.tight_layout()

# %% [markdown]
# ## 5. A distributed delay
#
# A moving integral is one more state. For $y'(t) = -\int_{t-1}^t y(s)\,ds$ let $z$ be the integral: $y' = -z$ and
# $z' = y - y(t - 1)$. With a characteristic solution as the past the answer is known in closed form.

# %%
root = -1.25597589374643333 + 1.36963627214953217j
past_y = lambda t: jnp.real(jnp.exp(root * t))
past_z = lambda t: jnp.real(jnp.exp(root * t) * (1 - jnp.exp(-root)) / root)
distributed = ddesolve(
    lambda t, x, delayed, args: jnp.stack([-x[1], x[0] - delayed[0][0]]),
    0.0, 5.0, jnp.stack([past_y(0.0), past_z(0.0)]), history=lambda t: jnp.stack([past_y(t), past_z(t)]), delays=1.0,
    rtol=1e-11, atol=1e-11,
)  # fmt: skip
print(f"y(5) = {float(distributed.final[0]):.14f}, exact {0.00158244746726138:.14f}")

# %% [markdown]
# ## 6. A delay that depends on the state
#
# A delay may be a function `tau(t, y, args)`. Where the delayed time $t - \tau$ meets an earlier breakpoint is then not known in
# advance: `ddesolve` finds it on the march, to the accuracy of the solution, and returns it as `breakpoints`, with derivatives.
# Take $y'(t) = y(y(t))$ from $y(2) = 1$ with the constant past $\varphi = 1/2$, that is $\tau = t - y(t)$. The solution is $t/2$
# until $y$ meets 2 at $t = 4$, then $2e^{t/2 - 2}$ until $y$ meets 4 at $4 + 2\ln 2$, and so on. The first meeting is at
# $2 + 1/\varphi$, so its derivative by the level of the past is $-4$.


# %%
def self_reference(level):
    return ddesolve(
        lambda t, y, delayed, args: delayed[0],
        2.0, 5.5, 1.0, history=lambda t: level, delays=lambda t, y, args: t - y, max_segments=8, rtol=1e-10, atol=1e-10,
    )  # fmt: skip


varying = self_reference(jnp.asarray(0.5))
print(varying)
print("breakpoints", varying.breakpoints[:2], "exact", 4.0, 4 + 2 * np.log(2))
print(f"y(5.5) = {float(varying.final):.12f}, exact 4.241412295057")
moved = jax.grad(lambda level: self_reference(level).breakpoints[0])(jnp.asarray(0.5))
print(f"derivative of the first breakpoint: {float(moved):.8f}, exact -4")

# %%
ts = np.linspace(2, 5.5, 200)
y = jax.vmap(varying.evaluate)(ts)
figure, ax = plt.subplots(figsize=(5.5, 3))
ax.plot(ts, y, lw=1.4, label="y(t), the time looked back to")
ax.plot(ts, ts, "k--", lw=0.8, label="t")
for level, meeting in ((2, 4.0), (4, 4 + 2 * np.log(2))):
    ax.plot([2, meeting, meeting], [level, level, 1], color="0.7", lw=0.8)
    ax.plot(meeting, level, "o", color="tab:red", ms=5)
ax.set(xlabel="t", title="breakpoints are where y(t) meets an earlier one")
ax.legend(frameon=False, fontsize=8)
figure.tight_layout()

# %% [markdown]
# ## 7. What a neural delay equation can represent
#
# `networks.NeuralDDE` lifts an input into a constant past, follows a delay equation to the time $T$, and reads the output off the
# state there. Let $K$ be the Lipschitz constant of its field. What decides is the *memory capacity* $K\tau$:
#
# $$w'(t) = -K\, w(t - \tau), \quad w = 1 \text{ on the past}$$
#
# is the smallest factor by which any such equation can shrink the distance of two solutions (derived; see
# `propagation.critical_solution`). While $w > 0$ the state remembers the input: a scalar model is monotone in its input and
# misses $x^2$ on $[-1, 1]$ by a mean square of at least $9/160$. After the first zero of $w$ states can merge, and every
# Lipschitz map is within reach. That gives a sharp curve in the plane of $T/\tau$ and $K\tau$; for long times it tends to $1/e$.

# %%
ratios = jnp.linspace(0.4, 12, 80)
threshold = propagation.memory_threshold(ratios)
times = jnp.linspace(-1, 6, 400)
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2))
for memory in (0.3, 0.42, 0.5, 0.7, 1.0):
    w = propagation.critical_solution(memory, times)
    zero = float(propagation.first_zero(memory))
    (line,) = axes[0].plot(times, w, lw=1.2, label=f"{memory:g}")
    if zero < 6:
        axes[0].plot(zero, 0, "o", ms=5, color=line.get_color())
axes[0].axhline(0, color="0.6", lw=0.8)
axes[0].set(xlabel="$t/\\tau$", ylabel="w", title="the smallest factor, and its zeros")
axes[0].legend(title="$K\\tau$", frameon=False, fontsize=8)
axes[1].plot(ratios, threshold, "k", lw=1.2)
axes[1].fill_between(ratios, 0, threshold, alpha=0.15)
axes[1].axhline(float(np.exp(-1)), color="0.6", lw=0.8, ls="--")
axes[1].text(11.9, 0.15, "injective: no extremum", ha="right")
axes[1].text(11.9, 0.9, "embeddable", ha="right")
axes[1].text(11.9, 0.385, "1/e", ha="right", va="bottom", color="0.4", fontsize=8)
axes[1].set(xlabel="$T/\\tau$", ylabel="$K\\tau$", ylim=(0, 1.5), title="the phase boundary")
figure.tight_layout()

# %% [markdown]
# `memory_capacity` says on which side a model is. With `lipschitz=K` the field cannot exceed the bound, whatever its weights:
# the verdict then holds for every network of this shape, before and after training.

# %%
for bound in (0.44, 0.6):
    model = networks.NeuralDDE((1, 1, 1), delay=1.0, horizon=3.0, lipschitz=bound, time_pieces=6, key=jax.random.key(0))
    capacity = propagation.memory_capacity(model, lambda x: x[0] ** 2)
    print(capacity)

# %% [markdown]
# Training sees the same boundary. Two models, alike but for their bound, learn $x^2$; the readout is trained with the rest.

# %%
nodes, quadrature = np.polynomial.legendre.leggauss(32)
nodes, quadrature = jnp.asarray(nodes), jnp.asarray(quadrature / 2)


def train(bound, num_steps):
    model = networks.NeuralDDE(
        (1, 1, 1), delay=1.0, horizon=3.0, lipschitz=bound, time_pieces=6, hidden=(8,), steps_per_delay=4,
        solver=diffrax.Bosh3(), key=jax.random.key(1),
    )  # fmt: skip

    def loss(model):
        # The best affine readout of the state, by least squares: the field has only to fold the line.
        state = jax.vmap(model.solve)(nodes[:, None])[:, 0]
        mean = jnp.sum(quadrature * state)
        target = nodes**2 - 1 / 3
        slope = jnp.sum(quadrature * (state - mean) * target) / jnp.sum(quadrature * (state - mean) ** 2)
        return jnp.sum(quadrature * (slope * (state - mean) - target) ** 2)

    system = dj.TrainingMap(loss, optax.adam(optax.cosine_decay_schedule(0.03, num_steps)))
    trained = dj.evolve(system, system.init(model), num_steps=num_steps).params
    return trained, loss(trained)


figure, ax = plt.subplots(figsize=(5.5, 3))
inputs = jnp.linspace(-1, 1, 101)
for bound in (0.44, 0.6):
    trained, error = train(bound, 50 if SMALL else 1500)
    state = jax.vmap(trained.solve)(inputs[:, None])[:, 0]
    slope, shift = np.polyfit(np.asarray(state), np.asarray(inputs) ** 2, 1)
    ax.plot(inputs, slope * state + shift, lw=1.4, label=f"$K\\tau$ = {bound}: mean square {float(error):.1e}")
ax.plot(inputs, inputs**2, "k--", lw=0.8, label="$x^2$")
ax.set(xlabel="x", title=f"boundary at {float(propagation.memory_threshold(3.0)):.4f}, floor below it 0.05625")
ax.legend(frameon=False, fontsize=8)
figure.tight_layout()

# %% [markdown]
# ## 8. Exponents of a trained delay network: low error without chaos
#
# `dynjax delay-fit` learns $y' = f(y, y(t - \tau))$ with a network $f$ and an unknown $\tau$ from a noisy Mackey-Glass series.
# Both losses find the delay, from a start four units off: forecasts of one sample, and forecasts of 60 samples, which go on
# beyond the delay and are fed with their own past. On test data their one-step errors agree. Their attractors do not,
# and the exponents show it.

# %%
sizes = {"num_steps": 100, "exponent_steps": 1_000, "num_samples": 2_000} if SMALL else {}
config = delay_fit.Config(initial_delays=(13.0,), seeds=(0,), **sizes)
runs = delay_fit.run(config, "delay.zarr", workers=0)
print(delay_fit.table(runs))

# %%
delay_fit.delay_figure(runs)

# %%
delay_fit.portrait_figure(runs)

# %% [markdown]
# Anything with a delay is a system: `DelayModel.flow(dt)` of the experiment, or `NeuralDDE.delay_flow(dt)` with a trained field
# or your own. Ikeda's equation $y' = -y + g \sin y(t - 3)$, one neuron that listens to itself, goes from rest over a limit cycle
# (a zero exponent on top) to chaos with one, two, three positive exponents: a scalar equation has an infinite dimensional state.


# %%
def leading_exponents(gain):
    field = lambda t, y, delayed: -y + gain * jnp.sin(delayed[0])
    network = networks.NeuralDDE((1, 1, 1), delay=3.0, horizon=3.0, field=field, key=jax.random.key(3))
    system = network.delay_flow(0.1, num_history=30)
    start = system.init(network.lift(jnp.array([0.5])))
    result = dj.lyapunov_spectrum(system, start, num_steps=1_000 if SMALL else 20_000, burn_in=5_000, k=3)
    return result.exponents, result.standard_error


gains = jnp.linspace(0.5, 8, 6 if SMALL else 31)
exponents, errors = jax.jit(lambda gains: jax.lax.map(leading_exponents, gains))(gains)
figure, ax = plt.subplots(figsize=(6, 3))
for mode in range(3):
    ax.errorbar(gains, exponents[:, mode], 2 * errors[:, mode], fmt="o-", ms=3, lw=1, label=f"$\\lambda_{mode + 1}$")
ax.axhline(0, color="0.6", lw=0.8)
ax.set(xlabel="gain g", ylabel="exponent", ylim=(-0.6, 0.3), title="Ikeda's equation: rest, cycle, chaos")
ax.legend(frameon=False, fontsize=8, loc="lower right")
figure.tight_layout()
