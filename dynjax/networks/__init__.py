"""Networks as Equinox modules."""

from ._initializers import (
    he_normal as he_normal,
    lecun_normal as lecun_normal,
    lecun_uniform as lecun_uniform,
    orthogonal as orthogonal,
    xavier_normal as xavier_normal,
)
from ._mlp import MLP as MLP
