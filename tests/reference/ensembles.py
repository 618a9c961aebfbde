"""Lyapunov spectra of random matrix products by QR, with standard errors from independent chains."""

import numpy as np


def simulate(draw, dim, *, chains=400, steps=500, burn_in=50, k=None, seed=0):
    """Per chain estimates (chains, k); `draw(rng, chains)` gives factors (chains, dim, dim)."""
    rng = np.random.default_rng(seed)
    frame = np.linalg.qr(rng.standard_normal((chains, dim, dim)))[0][:, :, :k]
    total = 0
    for n in range(burn_in + steps):
        frame, triangle = np.linalg.qr(draw(rng, chains) @ frame)
        if n >= burn_in:
            total = total + np.log(np.abs(np.einsum("cii->ci", triangle)))
    return total / steps


def assert_agrees(estimates, exact, *, num_errors=4.0, resolution=np.inf):
    """The mean over chains is within some standard errors, and these are below `resolution`."""
    error = np.std(estimates, axis=0, ddof=1) / np.sqrt(len(estimates))
    assert np.all(error < resolution), error
    assert np.all(np.abs(np.mean(estimates, axis=0) - np.asarray(exact)) < num_errors * error), (
        np.mean(estimates, axis=0),
        np.asarray(exact),
        error,
    )
