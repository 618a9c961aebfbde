"""Writes `reference_curvlinops.npz`: products with Hessians and Gauss-Newton matrices by curvlinops, in float64.

Run it by hand, in an environment with torch 2.13.0 and curvlinops-for-pytorch 3.0.1 (the extra `bench`):

    python tests/curvature/make_reference.py

For each network ("mlp", "cnn") and each loss ("mse", "ce") the file holds `<network>_parameters_<i>`,
`<network>_inputs`, `<loss>_targets`, `<network>_vectors_<i>` (two vectors, stacked first), and the products
`<network>_<loss>_hessian_<i>` and `<network>_<loss>_ggn_<i>`. Losses keep torch's convention: `MSELoss` is a mean over
samples *and* outputs of the square, i.e. 2/C times dynjax's "mse". The eleven samples are given to curvlinops in
batches of 4, 4 and 3.
"""

import pathlib

import numpy as np

SAMPLES, CLASSES = 11, 3


def networks(torch):
    nn = torch.nn
    mlp = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, CLASSES))
    cnn = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Conv2d(2, 3, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(48, CLASSES)
    )
    return {"mlp": (mlp, (5,)), "cnn": (cnn, (1, 6, 6))}


def main():
    import torch
    from curvlinops import GGNLinearOperator, HessianLinearOperator

    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    targets = {"mse": torch.randn(SAMPLES, CLASSES), "ce": torch.randint(0, CLASSES, (SAMPLES,))}
    losses = {"mse": torch.nn.MSELoss(), "ce": torch.nn.CrossEntropyLoss()}
    store = {f"{name}_targets": value.numpy() for name, value in targets.items()}
    for network, (model, shape) in networks(torch).items():
        inputs = torch.randn(SAMPLES, *shape)
        params = list(model.parameters())
        vectors = [torch.randn(*p.shape, 2) for p in params]
        store[f"{network}_inputs"] = inputs.numpy()
        for i, (p, v) in enumerate(zip(params, vectors, strict=True)):
            store[f"{network}_parameters_{i}"] = p.detach().numpy()
            store[f"{network}_vectors_{i}"] = np.moveaxis(v.numpy(), -1, 0)
        for name, loss in losses.items():
            batches = list(zip(inputs.split(4), targets[name].split(4), strict=True))
            for kind, operator_class in (("hessian", HessianLinearOperator), ("ggn", GGNLinearOperator)):
                operator = operator_class(model, loss, params, batches)
                for i, product in enumerate(operator @ vectors):
                    store[f"{network}_{name}_{kind}_{i}"] = np.moveaxis(product.detach().numpy(), -1, 0)
    np.savez_compressed(pathlib.Path(__file__).with_name("reference_curvlinops.npz"), **store)


if __name__ == "__main__":
    main()
