"""Networks as Equinox modules: multilayer perceptrons, residual networks, neural ODEs and neural delay equations."""

from ._affine import Affine as Affine
from ._fields import MLPField as MLPField
from ._initializers import (
    he_normal as he_normal,
    lecun_normal as lecun_normal,
    lecun_uniform as lecun_uniform,
    orthogonal as orthogonal,
    xavier_normal as xavier_normal,
)
from ._lipschitz_bound import lipschitz_bound as lipschitz_bound
from ._lipschitz_field import LipschitzField as LipschitzField
from ._mlp import MLP as MLP
from ._neural_dde import NeuralDDE as NeuralDDE
from ._neural_ode import NeuralODE as NeuralODE
from ._residual import DenseResNet as DenseResNet, ResNet as ResNet
