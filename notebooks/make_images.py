"""Draw the README's picture from a store: `dynjax demo --out demo`, then `python notebooks/make_images.py demo.zarr`."""

import pathlib
import sys

import dynjax as dj
from dynjax.experiments import edge_of_stability as edge

figure = edge.training_figure(dj.sweep.open(sys.argv[1]))
figure.savefig(pathlib.Path(__file__).parent / "images" / "edge_of_stability.png", dpi=130)
