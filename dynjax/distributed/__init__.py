"""One problem over many devices: samples spread over a mesh, and long runs that survive the death of a process."""

from ._mesh import data_mesh as data_mesh, replicate as replicate, shard_samples as shard_samples
from ._processes import initialize as initialize
from ._segments import run_segments as run_segments
