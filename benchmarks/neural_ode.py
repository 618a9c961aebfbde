"""How fast is a training step of a neural ODE? dynjax and torchdiffeq take it with the same weights and the same tolerance.

A batch of 256 samples of 8 numbers, field 8-64-64-8 with tanh, time 1, mean squared error, gradient and an Adam update. Single
precision, rtol = atol = 1e-4, 20 steps in a row at a time. Errors are those against a solution at 1e-12 in double precision.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait slow down the next contender

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from harness import Contender, race, save
from torchdiffeq import odeint, odeint_adjoint

import dynjax as dj

BATCH, SIZE, HIDDEN, TOLERANCE, RATE = 256, 8, (64, 64), 1e-4, 1e-3


def data(key):
    x_key, y_key = jax.random.split(key)
    return jax.random.normal(x_key, (BATCH, SIZE)), jnp.tanh(jax.random.normal(y_key, (BATCH, SIZE)))


def loss_of(model, x, y, batched):
    out = model.batch(x) if batched else jax.vmap(model)(x)
    return jnp.mean((out - y) ** 2)


def ours(model, x, y, batched):
    optimizer = optax.adam(RATE)
    params, static = eqx.partition(model, eqx.is_inexact_array)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state):
        value, grads = jax.value_and_grad(lambda p: loss_of(eqx.combine(p, static), x, y, batched))(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value, grads

    return lambda: jax.block_until_ready(step(params, state))


class Field(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        layers = zip(model.field.mlp.weights, model.field.mlp.biases, strict=True)
        self.weights = torch.nn.ParameterList([torch.tensor(np.array(w)) for w, _ in layers])
        self.biases = torch.nn.ParameterList([torch.tensor(np.array(b)) for b in model.field.mlp.biases])

    def forward(self, t, h):
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            h = torch.tanh(torch.nn.functional.linear(h, weight, bias))
        return torch.nn.functional.linear(h, self.weights[-1], self.biases[-1])


def peer(model, x, y, solve, threads):
    field = Field(model)
    lift = [torch.nn.Parameter(torch.tensor(np.array(leaf))) for leaf in (model.lift.weight, model.lift.bias)]
    read = [torch.nn.Parameter(torch.tensor(np.array(leaf))) for leaf in (model.readout.weight, model.readout.bias)]
    optimizer = torch.optim.Adam([*field.parameters(), *lift, *read], lr=0.0)  # the same point at every call
    x, y = torch.tensor(np.array(x)), torch.tensor(np.array(y))
    times = torch.tensor([0.0, 1.0])

    def run():
        torch.set_num_threads(threads)
        optimizer.zero_grad()
        h = torch.nn.functional.linear(x, *lift)
        h = solve(field, h, times, rtol=TOLERANCE, atol=TOLERANCE, method="dopri5")[-1]
        loss = torch.mean((torch.nn.functional.linear(h, *read) - y) ** 2)
        loss.backward()
        optimizer.step()
        return float(loss.detach()), field.weights[0].grad.numpy().copy()

    return run


def exact(model, x, y):
    """Loss and gradient by the first weight of the field at 1e-12."""
    with jax.enable_x64(True):
        wide = lambda leaf: jnp.asarray(np.array(leaf), jnp.float64) if eqx.is_inexact_array(leaf) else leaf
        lift, field, readout = jax.tree_util.tree_map(wide, (model.lift, model.field, model.readout))
        parts = {"lift": lift, "field": field, "readout": readout, "dtype": jnp.float64}
        model = dj.NeuralODE((SIZE, SIZE, SIZE), rtol=1e-12, atol=1e-12, key=jax.random.key(0), **parts)
        x, y = (jnp.asarray(np.array(leaf), jnp.float64) for leaf in (x, y))
        value, grads = eqx.filter_value_and_grad(loss_of)(model, x, y, True)
        return float(value), np.asarray(grads.field.mlp.weights[0])


def main():
    model = dj.NeuralODE(
        (SIZE, SIZE, SIZE), hidden=HIDDEN, rtol=TOLERANCE, atol=TOLERANCE, key=jax.random.key(0), dtype=jnp.float32
    )
    adjoint = dj.NeuralODE(
        (SIZE, SIZE, SIZE), hidden=HIDDEN, rtol=TOLERANCE, atol=TOLERANCE, key=jax.random.key(0), dtype=jnp.float32,
        adjoint=diffrax.BacksolveAdjoint(),
    )  # fmt: skip
    x, y = data(jax.random.key(1))
    value, slope = exact(model, x, y)

    def judged(loss, grad):
        error = np.linalg.norm(grad - slope) / np.linalg.norm(slope)
        return {"error of the loss": abs(float(loss) / value - 1), "error of the gradient": float(error)}

    mine = lambda out: judged(out[2], np.asarray(out[3].field.mlp.weights[0]))
    theirs = lambda out: judged(*out)
    contenders = [
        Contender("dynjax, `model.batch`", ours(model, x, y, True), mine, "one sequence of steps for all samples"),
        Contender(
            "dynjax, `BacksolveAdjoint`", ours(adjoint, x, y, True), mine, "adjoint equation, one sequence of steps"
        ),
        Contender("dynjax, `vmap(model)`", ours(model, x, y, False), mine, "each sample with its own steps"),
        Contender("torchdiffeq, 1 thread", peer(model, x, y, odeint, 1), theirs, "one sequence of steps"),
        Contender("torchdiffeq, 2 threads", peer(model, x, y, odeint, 2), theirs, "likewise"),
        Contender("torchdiffeq adjoint, 1 thread", peer(model, x, y, odeint_adjoint, 1), theirs, "adjoint equation"),
    ]
    for contender in contenders:
        contender.calls = 20
    rows = race(contenders, 9)
    sections = {"Training step, 256 x 8, field 8-64-64-8": (rows, contenders[0].name)}
    save("neural_ode", "Neural ODE", sections, __doc__.strip().split("\n\n")[1])


if __name__ == "__main__":
    main()
