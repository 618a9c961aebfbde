"""How fast are delay equations? Batches of solves, gradients by the delay, and one fused step.

1. 256 Mackey-Glass equations (delay 17, constant pasts between 0.5 and 1.3, to t = 100), in double precision. The peers solve one
   after the other. Tolerances and steps are chosen so that the largest measured errors (against dynjax at 1e-11) are alike;
   ddeint has no error control and is timed for 8 of the 256 only.
2. The gradient of a mean squared error by the delay and the weights of a network, for 64 pasts.
3. One step of `DelayFlow` on its own.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait slow down the next contender

import jax

jax.config.update("jax_enable_x64", True)

import contextlib
import tempfile
import warnings

import diffrax
import jax.numpy as jnp
import numpy as np
from harness import Contender, race, save

import dynjax as dj

LANES, DELAY, END = 256, 17.0, 100.0
PASTS = np.linspace(0.5, 1.3, LANES)


def mackey_glass(t, y, delayed, args):
    p = delayed[0] * delayed[0]
    p = p * p * p * p * p
    return 0.2 * delayed[0] / (1 + p) - 0.1 * y


def solve(past, **options):
    return dj.ddesolve(mackey_glass, 0.0, END, past, history=lambda t: past, delays=DELAY, **options).final


def ours(**options):
    run = jax.jit(jax.vmap(lambda past: solve(past, **options)))
    return lambda: jax.block_until_ready(run(jnp.asarray(PASTS)))


def jitcdde_runs(rtol):
    import jitcdde

    y, t = jitcdde.y, jitcdde.t
    field = [0.2 * y(0, t - DELAY) / (1 + y(0, t - DELAY) ** 10) - 0.1 * y(0)]
    dde = jitcdde.jitcdde(field, max_delay=DELAY, verbose=False)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # its build looks at the working directory
        dde.compile_C(verbose=False)

    def run():
        out = np.empty(LANES)
        for i, past in enumerate(PASTS):
            dde.purge_past()
            dde.constant_past([past], time=0.0)
            dde.set_integration_parameters(rtol=rtol, atol=rtol)
            dde.step_on_discontinuities()
            out[i] = dde.integrate(END)[0]
        return out

    return run


def ddeint_runs(points, lanes):
    from ddeint import ddeint

    def field(y, t):
        late = y(t - DELAY)
        return 0.2 * late / (1 + late**10) - 0.1 * y(t)

    times = np.linspace(0, END, points)

    def run():
        return np.array(
            [np.asarray(ddeint(field, lambda t, p=p: p, times)[-1]).ravel()[0] for p in PASTS[:: LANES // lanes]]
        )

    return run


def batches():
    exact = np.asarray(jax.vmap(lambda past: solve(past, rtol=1e-11, atol=1e-11))(jnp.asarray(PASTS)))

    def judged(out):
        out = np.asarray(out)
        return {"largest error": float(np.abs(out - exact[:: LANES // len(out)]).max())}

    stages = {"engine": "stages", "steps_per_delay": 10}
    contenders = [
        Contender("dynjax, stages, 10 Tsit5 steps for the delay", ours(**stages), judged),
        Contender(
            "dynjax, stages, 5 Dopri8 steps",
            ours(engine="stages", steps_per_delay=5, solver=diffrax.Dopri8()),
            judged,
        ),
        Contender(
            "dynjax, segments, rtol 1e-6", ours(rtol=1e-6, atol=1e-6, max_steps=64), judged, "adaptive, defect control"
        ),
        Contender("jitcdde, rtol 1e-7", jitcdde_runs(1e-7), judged, "compiled C, one after the other"),
        Contender("ddeint, 2,000 points, 8 of 256", ddeint_runs(2_000, 8), judged, "SciPy, no error control"),
    ]
    for contender in contenders[:3]:
        contender.calls = 20
    return race(contenders, 5)


GRADIENT_LANES, GRADIENT_END, SIZE = 64, 3.0, 8


def network(key):
    """Weights of y' = W2 tanh(W1 (y, y(t - tau))), and pasts and targets."""
    keys = jax.random.split(key, 4)
    first = 0.3 * jax.random.normal(keys[0], (32, 2 * SIZE))
    second = 0.3 * jax.random.normal(keys[1], (SIZE, 32))
    return (
        first,
        second,
        jax.random.normal(keys[2], (GRADIENT_LANES, SIZE)),
        jax.random.normal(keys[3], (GRADIENT_LANES, SIZE)),
    )


def gradients_ours(first, second, pasts, targets, **options):
    def loss(theta):
        first, second, delay = theta

        def final(past):
            field = lambda t, y, d, args: second @ jnp.tanh(first @ jnp.concatenate([y, d[0]]))
            return dj.ddesolve(field, 0.0, GRADIENT_END, past, history=lambda t: past, delays=delay, **options).final

        return jnp.mean((jax.vmap(final)(pasts) - targets) ** 2)

    run = jax.jit(jax.value_and_grad(loss))
    return lambda: jax.block_until_ready(run((first, second, jnp.asarray(1.0))))


def gradients_torchdde(first, second, pasts, targets, dt, adjoint):
    import torch
    import torchdde

    as_torch = lambda leaf: torch.tensor(np.array(leaf))

    class Field(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Parameter(as_torch(first))
            self.second = torch.nn.Parameter(as_torch(second))
            self.delays = torch.nn.Parameter(torch.tensor([1.0], dtype=torch.float64))

        def forward(self, t, y, func_args, history):
            return torch.tanh(torch.cat([y, history[0]], dim=1) @ self.first.T) @ self.second.T

    field, past, target = Field(), as_torch(pasts), as_torch(targets)
    ends = torch.tensor([0.0, GRADIENT_END], dtype=torch.float64)
    # The adjoint equation interpolates the solution on the grid of outputs.
    times = torch.linspace(0.0, GRADIENT_END, round(GRADIENT_END / dt) + 1, dtype=torch.float64) if adjoint else ends

    def run():
        field.zero_grad()
        ys = torchdde.integrate(
            field, torchdde.RK4(), ends[0], ends[1], times, lambda t: past, None, dt0=torch.tensor(dt, dtype=torch.float64),
            delays=field.delays, discretize_then_optimize=not adjoint,
        )  # fmt: skip
        loss = torch.mean((ys[:, -1] - target) ** 2)
        loss.backward()
        return float(loss.detach()), (
            field.first.grad.numpy().copy(),
            field.second.grad.numpy(),
            field.delays.grad.numpy().copy(),
        )

    return run


def gradients():
    problem = network(jax.random.key(0))
    value, exact = gradients_ours(
        *problem, engine="stages", steps_per_delay=16, solver=diffrax.Dopri8(), max_segments=3
    )()

    def judged(out):
        loss, grads = out
        first, delay = np.asarray(grads[0]), float(np.ravel(np.asarray(grads[2]))[0])
        return {
            "error of the loss": abs(float(loss) / float(value) - 1),
            "error of the gradient": float(np.linalg.norm(first - exact[0]) / np.linalg.norm(exact[0])),
            "error of the delay's": abs(delay / float(exact[2]) - 1),
        }

    stages = {"engine": "stages", "max_segments": 3}
    contenders = [
        Contender(
            "dynjax, stages, 10 Tsit5 steps for the delay",
            gradients_ours(*problem, steps_per_delay=10, **stages),
            judged,
        ),
        Contender(
            "dynjax, segments, rtol 1e-6",
            gradients_ours(*problem, rtol=1e-6, atol=1e-6, max_segments=3, max_steps=64),
            judged,
        ),
        Contender(
            "torchdde, 10 RK4 steps for the delay", gradients_torchdde(*problem, 0.1, False), judged, "backpropagation"
        ),
        Contender(
            "torchdde, adjoint, 10 RK4 steps", gradients_torchdde(*problem, 0.1, True), judged, "adjoint equation"
        ),
    ]
    for contender in contenders[:2]:
        contender.calls = 5
    return race(contenders, 5)


def one_step(lanes):
    system = dj.systems.mackey_glass(0.1)  # delay 17
    num_steps = 200_000 if lanes == 1 else 4_000
    pasts = jnp.linspace(0.5, 1.3, lanes)
    final = lambda past: dj.evolve(system, system.init(past), num_steps=num_steps).y
    run = jax.jit(jax.vmap(final) if lanes > 1 else lambda pasts: final(pasts[0]))
    seconds = lambda out: {}
    name = f"dynjax `DelayFlow`, {num_steps:,} steps of {lanes} lane{'s' * (lanes > 1)}"
    return Contender(name, lambda: jax.block_until_ready(run(pasts)), seconds), num_steps * lanes


def main():
    warnings.simplefilter("ignore")
    sections = {f"{LANES} Mackey-Glass equations to t = {END:g}": (rows := batches(), rows[0].name)}
    rows = gradients()
    sections[f"Loss and gradient by weights and delay, {GRADIENT_LANES} x {SIZE}, to t = {GRADIENT_END:g}"] = (
        rows,
        rows[0].name,
    )
    pairs = [one_step(1), one_step(LANES)]
    rows = race([contender for contender, _ in pairs], 5)
    for row, (_, steps) in zip(rows, pairs, strict=True):
        row.accuracy["microseconds for a step of a lane"] = min(row.times) / steps * 1e6
    sections["One fused step of Mackey-Glass, dt = 0.1"] = (rows, rows[0].name)
    save("delay", "Delay equations", sections, __doc__.strip().split("\n\n", 1)[1])


if __name__ == "__main__":
    main()
