"""Draw the README's pictures from stores: `dynjax demo --out demo`, `dynjax memory --out memory.zarr`,
`dynjax meanfield --out meanfield.zarr`, then `python notebooks/make_images.py demo.zarr memory.zarr meanfield.zarr`.
Stores of other experiments are passed over.
"""

import pathlib
import sys

import dynjax as dj
from dynjax.experiments import edge_of_stability, meanfield, memory_capacity

PICTURES = {
    "edge-of-stability": ("edge_of_stability.png", edge_of_stability.training_figure),
    "memory-capacity": ("memory_capacity.png", memory_capacity.phase_figure),
    "meanfield": ("mean_field.png", meanfield.order_figure),
}

for store in sys.argv[1:]:
    dataset = dj.sweep.open(store)
    if dataset.attrs["experiment"] in PICTURES:
        name, draw = PICTURES[dataset.attrs["experiment"]]
        draw(dataset).savefig(pathlib.Path(__file__).parent / "images" / name, dpi=130)
