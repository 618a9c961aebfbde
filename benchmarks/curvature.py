"""Hessian products, top-5 eigenvalues and spectral density against curvlinops, PyHessian and matfree, on the same weights.

All 1,797 digits, tanh 64-128-128-10 (26,122 parameters), cross-entropy, float32, after 200 steps of gradient descent at 0.5.
Every eigenpair is verified in float64 by the same code: the largest ||H v - lambda v|| / lambda_1 over the five.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin while they wait slow down the next contender

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg
import torch
from harness import Contender, race, save

import dynjax as dj

TARGET = 1e-3  # relative residual that every eigensolver must reach
ORDER, PROBES = 60, 8
WIDTHS = (64, 128, 128, 10)


def trained():
    """Data and weights shared by all contenders."""
    x, y = dj.data.digits(None, scale=1 / 8)
    x, y = jnp.asarray(x), jnp.asarray(y)
    model = dj.MLP(WIDTHS, key=jax.random.key(0))

    @eqx.filter_jit
    def train(model, x, y):
        body = lambda _, m: jax.tree.map(lambda p, g: p - 0.5 * g, m, jax.grad(loss)(m, x, y))
        return jax.lax.fori_loop(0, 200, body, model)

    return train(model, x, y), x, y


def loss(model, x, y):
    """Mean cross-entropy."""
    logits = jax.vmap(model)(x)
    return jnp.mean(jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, y[:, None], -1)[:, 0])


def as_torch(model, x, y):
    """The same network in PyTorch."""
    layers = []
    for i, (weight, bias) in enumerate(zip(model.weights, model.biases, strict=True)):
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0])
        linear.weight.data = torch.tensor(np.asarray(weight))
        linear.bias.data = torch.tensor(np.asarray(bias))
        layers += [linear, torch.nn.Tanh()] if i + 2 < len(WIDTHS) else [linear]
    return torch.nn.Sequential(*layers), torch.tensor(np.asarray(x)), torch.tensor(np.asarray(y)).long()


def torch_order(vector):
    """A PyTorch-ordered flat vector (w1, b1, w2, b2, ...) in the order of our module (all weights, then all biases)."""
    shapes = [(o, i) for i, o in zip(WIDTHS[:-1], WIDTHS[1:], strict=True)]
    weights, biases, start = [], [], 0
    for rows, columns in shapes:
        weights.append(vector[start : start + rows * columns])
        start += rows * columns
        biases.append(vector[start : start + rows])
        start += rows
    return np.concatenate(weights + biases)


def verifier(model, x, y):
    """The largest relative residual of five eigenpairs, in float64."""
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda p: jnp.asarray(np.asarray(p), jnp.float64), model)
        xs, ys = jnp.asarray(np.asarray(x), jnp.float64), jnp.asarray(np.asarray(y))
        flat, unravel = jax.flatten_util.ravel_pytree(wide)
        product = jax.jit(lambda v: jax.jvp(jax.grad(lambda f: loss(unravel(f), xs, ys)), (flat,), (v,))[1])

    def judge(result):
        values, vectors = result
        with jax.enable_x64(True):
            worst = 0.0
            for value, vector in zip(values, vectors, strict=True):
                v = jnp.asarray(np.asarray(vector, np.float64))
                v = v / jnp.linalg.norm(v)
                worst = max(worst, float(jnp.linalg.norm(product(v) - float(value) * v)))
        return {"residual": worst / float(values[0]), "lambda_1": float(values[0]), "lambda_5": float(values[4])}

    return judge


def products(model, x, y, net, xt, yt):
    """One Hessian product."""
    import curvlinops
    import pyhessian

    key = jax.random.key(1)
    flat, unravel = jax.flatten_util.ravel_pytree(model)
    v = jax.random.normal(key, flat.shape)
    tree = unravel(v)
    block = jax.vmap(unravel)(jax.random.normal(key, (8, flat.size)))
    H = dj.hessian(loss, model, x, y)
    ours = eqx.filter_jit(lambda H, t: H.mv(t))
    ours_block = eqx.filter_jit(lambda H, t: jax.vmap(H.mv)(t))
    ours(H, tree), ours_block(H, block)
    linop = curvlinops.HessianLinearOperator(
        net, torch.nn.CrossEntropyLoss(), list(net.parameters()), [(xt, yt)], check_deterministic=False
    )
    vt = torch.randn(flat.size)
    net.zero_grad(set_to_none=True)  # PyHessian adds to gradients that it finds
    comp = pyhessian.hessian(net, torch.nn.CrossEntropyLoss(), data=(xt, yt), cuda=False)
    vs = [torch.randn_like(p) for p in comp.params]
    return [
        Contender("dynjax", lambda: jax.block_until_ready(ours(H, tree))),
        Contender(
            "dynjax, one of a block of 8 (time of the block)", lambda: jax.block_until_ready(ours_block(H, block))
        ),
        Contender("curvlinops", lambda: linop @ vt),
        Contender(
            "PyHessian", lambda: pyhessian.utils.hessian_vector_product(comp.gradsH, comp.params, vs), note="graph kept"
        ),
    ]


def eigenvalues(model, x, y, net, xt, yt):
    """Five largest eigenvalues and their vectors."""
    import curvlinops
    import pyhessian
    from matfree import decomp, eig

    judge = verifier(model, x, y)
    flat, unravel = jax.flatten_util.ravel_pytree(model)
    H = dj.hessian(loss, model, x, y)
    solve = eqx.filter_jit(lambda H, key, copies: dj.eigsh(H, k=5, tol=TARGET, key=key, find_copies=copies))

    def ours(find_copies):
        def run():
            found = jax.block_until_ready(solve(H, jax.random.key(2), find_copies))
            return found.values, jax.vmap(lambda t: jax.flatten_util.ravel_pytree(t)[0])(found.vectors)

        return run

    def peer_curvlinops():
        linop = curvlinops.HessianLinearOperator(
            net, torch.nn.CrossEntropyLoss(), list(net.parameters()), [(xt, yt)], check_deterministic=False
        ).to_scipy()
        values, vectors = scipy.sparse.linalg.eigsh(linop, k=5, which="LA", tol=TARGET)
        order = np.argsort(values)[::-1]
        return values[order], [torch_order(vectors[:, i]) for i in order]

    def peer_pyhessian():
        torch.manual_seed(0)
        net.zero_grad(set_to_none=True)  # PyHessian adds to gradients that it finds
        comp = pyhessian.hessian(net, torch.nn.CrossEntropyLoss(), data=(xt, yt), cuda=False)
        values, vectors = comp.eigenvalues(maxIter=500, tol=1e-4, top_n=5)
        return np.asarray(values), [torch_order(torch.cat([p.flatten() for p in v]).numpy()) for v in vectors]

    def matvec(v, x, y):
        return jax.jvp(jax.grad(lambda f: loss(unravel(f), x, y)), (flat,), (v,))[1]

    def matfree_with(depth, verify=False):
        partial = eig.eigh_partial(decomp.tridiag_sym(depth, reortho="full"))

        @jax.jit
        def run(v0, x, y):
            values, vectors = partial(matvec, v0, x, y)
            values, vectors = values[::-1][:5], vectors[::-1][:5]
            images = jax.lax.map(lambda v: matvec(v, x, y), vectors) if verify else vectors
            return values, vectors, jnp.linalg.norm(images - values[:, None] * vectors, axis=1)

        def peer():
            v0 = jax.random.normal(jax.random.key(2), flat.shape)
            return jax.block_until_ready(run(v0, x, y))[:2]

        return peer

    depth = next(d for d in range(6, 200) if judge(matfree_with(d)())["residual"] < TARGET)
    counts = [int(solve(H, jax.random.key(2), copies).num_products) for copies in (True, False)]
    print(f"  matfree reaches the residual at depth {depth}; dynjax takes {counts} products")
    return [
        Contender("dynjax", ours(True), judge, f"{counts[0]} products: verified, and searched for further copies"),
        Contender("dynjax, find_copies=False", ours(False), judge, f"{counts[1]} products: verified"),
        Contender("curvlinops + ARPACK", peer_curvlinops, judge),
        Contender("PyHessian", peer_pyhessian, judge, "power iteration, tol 1e-4"),
        Contender(
            "matfree, verified",
            matfree_with(depth, True),
            judge,
            f"depth {depth}, the least that will do, told",
        ),
        Contender("matfree", matfree_with(depth), judge, f"depth {depth}; returns no residual"),
    ]


def densities(model, x, y, net, xt, yt):
    """Stochastic Lanczos quadrature, 8 probes of order 60."""
    import curvlinops
    import pyhessian
    from matfree import decomp, funm, stochtrace

    flat, unravel = jax.flatten_util.ravel_pytree(model)
    H = dj.hessian(loss, model, x, y)
    slq = eqx.filter_jit(lambda H, key: dj.spectral_density(H, num_probes=PROBES, order=ORDER, key=key))

    def mean(result):
        return {"tr H^2 / n": float(result)}

    def ours():
        found = jax.block_until_ready(slq(H, jax.random.key(3)))
        return jnp.mean(jnp.sum(found.weights * found.nodes**2, -1))

    def peer_curvlinops():
        linop = curvlinops.HessianLinearOperator(
            net, torch.nn.CrossEntropyLoss(), list(net.parameters()), [(xt, yt)], check_deterministic=False
        )
        grid, values = curvlinops.lanczos_approximate_spectrum(
            linop, ORDER, num_points=1024, num_repeats=PROBES, boundaries=(-1.0, 60.0)
        )
        return torch.trapezoid(values * grid**2, grid)

    # PyHessian 0.1 calls torch.eig, which current PyTorch no longer has; the replacement below does the same.
    def eig(matrix, eigenvectors=True):
        values, vectors = torch.linalg.eig(matrix)
        return torch.view_as_real(values), vectors.real

    torch.eig = eig

    def peer_pyhessian():
        net.zero_grad(set_to_none=True)  # PyHessian adds to gradients that it finds
        comp = pyhessian.hessian(net, torch.nn.CrossEntropyLoss(), data=(xt, yt), cuda=False)
        nodes, weights = comp.density(iter=ORDER, n_v=PROBES)
        return np.mean([np.sum(np.asarray(w) * np.asarray(n) ** 2) for n, w in zip(nodes, weights, strict=True)])

    def matvec(v, x, y):
        return jax.jvp(jax.grad(lambda f: loss(unravel(f), x, y)), (flat,), (v,))[1]

    square = funm.dense_funm_sym_eigh(lambda e: e**2)
    integrand = funm.monte_carlo_funm_sym(square, decomp.tridiag_sym(ORDER, reortho="full"))
    estimator = stochtrace.estimator_monte_carlo(integrand, stochtrace.sampler_signs(flat, num=PROBES))
    estimate = jax.jit(lambda key, x, y: estimator(matvec, key, x, y))

    def peer_matfree():
        return jax.block_until_ready(estimate(jax.random.key(3), x, y)) / flat.size

    return [
        Contender("dynjax", ours, mean),
        Contender("curvlinops", peer_curvlinops, mean, "no reorthogonalisation; range given"),
        Contender("PyHessian", peer_pyhessian, mean, "torch.eig replaced, or it fails"),
        Contender("matfree", peer_matfree, mean, "tr f(H) only: one function per run"),
    ]


def main():
    """Run all three and keep the tables."""
    model, x, y = trained()
    net, xt, yt = as_torch(model, x, y)
    given = (model, x, y, net, xt, yt)
    sections = {}
    for heading, make, repeats in (
        ("One Hessian product", products, 30),
        ("Five largest eigenvalues, verified residual below 1e-3", eigenvalues, 7),
        ("Spectral density, 8 probes of order 60", densities, 5),
    ):
        print(heading)
        sections[heading] = (race(make(*given), repeats), "dynjax")
    save("curvature", "Curvature against curvlinops, PyHessian and matfree", sections, __doc__.split("\n\n")[1])


if __name__ == "__main__":
    main()
