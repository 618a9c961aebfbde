"""How fast are exponents of SGD at an interpolation solution? Normal coordinates against products in parameter space.

100 digits, tanh 64-64-64-1 (8,385 parameters), batch size 1, 16 learning rates, double precision, one process. The contenders in
parameter space push one tangent of 8,385 numbers for each learning rate: with the rows of the Jacobian stored, or as one does
without thinking, by the derivative of the SGD step. They are run for fewer steps, and times are per lane and step. They also
give a wrong number in the end, since rounding leaks into the directions along the manifold of solutions; that is in the tests.
Of the whole call 0.2 s do not depend on the number of steps: kernel, normal space, mean-square rates.
"""

import jax

jax.config.update("jax_enable_x64", True)

import jax.numpy as jnp
import numpy as np
from harness import Contender, race, save
from jax.flatten_util import ravel_pytree

import dynjax as dj

SAMPLES, RATES, STEPS, FEW = 100, 16, 1_000_000, 400


def problem():
    x, labels = dj.data.digits(SAMPLES, seed=None, scale=1 / 8)
    x = jnp.asarray(x)
    x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-2)
    y = jnp.asarray((labels % 2) * 2.0 - 1)
    model = dj.MLP((64, 64, 64, 1), key=jax.random.key(0), dtype=jnp.float64)
    predict = lambda model, x: jax.vmap(model)(x)[:, 0]
    solution = dj.find_interpolation(predict, model, x, y)
    assert bool(solution.converged)
    return predict, solution.params, x, y


def main():
    predict, params, x, y = problem()
    top = float(dj.critical_learning_rate(predict, params, x, batch_size=SAMPLES, criterion="gd").value)
    rates = jnp.geomspace(1e-3, 0.2, RATES) * top
    flat, unravel = ravel_pytree(params)
    rows = jax.jacrev(lambda p: predict(unravel(p), x))(flat)

    def ours(key=jax.random.key(1)):
        result = dj.sgd_stability(predict, params, x, learning_rates=rates, batch_size=1, num_steps=STEPS, key=key)
        return jax.block_until_ready(result)

    @jax.jit
    def stored(key):
        def step(w, n):
            row = rows[jax.random.randint(jax.random.fold_in(key, n), (), 0, SAMPLES)]
            w = w - rates * row[:, None] * (row @ w)
            norm = jnp.linalg.norm(w, axis=0)
            return w / norm, jnp.log(norm)

        start = jax.random.normal(key, (flat.size, RATES))
        return jax.lax.scan(step, start, jnp.arange(FEW))[1].mean(axis=0)

    @jax.jit
    def derivative(key):
        def step(w, n):
            i = jax.random.randint(jax.random.fold_in(key, n), (), 0, SAMPLES)
            loss = lambda p: 0.5 * (predict(unravel(p), x[i][None])[0] - y[i]) ** 2
            push = jax.linearize(jax.grad(loss), flat)[1]
            w = w - rates[:, None] * jax.vmap(push)(w)
            norm = jnp.linalg.norm(w, axis=1)
            return w / norm[:, None], jnp.log(norm)

        start = jax.random.normal(key, (RATES, flat.size))
        return jax.lax.scan(step, start, jnp.arange(FEW))[1].mean(axis=0)

    judge = lambda steps: lambda _: {"steps": steps}
    rows_of_table = race(
        [
            Contender("dynjax, whole call", ours, judge(STEPS)),
            Contender(
                "parameter space, stored Jacobian", lambda: jax.block_until_ready(stored(jax.random.key(2))), judge(FEW)
            ),
            Contender(
                "parameter space, derivative of the step",
                lambda: jax.block_until_ready(derivative(jax.random.key(2))),
                judge(FEW),
            ),
        ],
        5,
    )
    base = rows_of_table[0].median / STEPS
    for row in rows_of_table:
        per = row.median / row.accuracy["steps"]
        row.note = f"{RATES / per:.3g} lane-steps/s, {per / base:.0f} times slower per lane and step"
    save(
        "sgd_stability",
        "Exponents of SGD",
        {"100 digits, batch 1, 16 learning rates": (rows_of_table, "dynjax, whole call")},
        "Seconds are for different numbers of steps; compare the remarks.",
    )
    return np.asarray(rows_of_table[0].times)


if __name__ == "__main__":
    main()
