"""dynjax: neural networks and their training as dynamical systems, in JAX.

The everyday names are here (`dj.hessian`, `dj.eigsh`, `dj.TrainingMap`, ...); each room is an attribute too (`dj.linalg`,
`dj.sweep`, ...). All of them load on first use, so that `import dynjax` costs nothing and changes no JAX setting.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import (
        curvature as curvature,
        data as data,
        distributed as distributed,
        experiments as experiments,
        generative as generative,
        linalg as linalg,
        meanfield as meanfield,
        networks as networks,
        propagation as propagation,
        reference as reference,
        report as report,
        stability as stability,
        sweep as sweep,
        systems as systems,
        training as training,
    )
    from ._core import Status as Status
    from .curvature import (
        batch_sharpness as batch_sharpness,
        fisher as fisher,
        gauss_newton as gauss_newton,
        gradient_covariance as gradient_covariance,
        hessian as hessian,
        preconditioned as preconditioned,
        sharpness as sharpness,
        tangent_kernel as tangent_kernel,
    )
    from .linalg import (
        diagonal as diagonal,
        effective_dimension as effective_dimension,
        eigs as eigs,
        eigsh as eigsh,
        spectral_density as spectral_density,
        trace as trace,
    )
    from .meanfield import (
        DigraphMeasure as DigraphMeasure,
        GraphOperator as GraphOperator,
        critical_coupling as critical_coupling,
    )
    from .networks import (
        MLP as MLP,
        DenseResNet as DenseResNet,
        LipschitzField as LipschitzField,
        NeuralDDE as NeuralDDE,
        NeuralODE as NeuralODE,
        ResNet as ResNet,
    )
    from .propagation import (
        DelayEmbedding as DelayEmbedding,
        IsotopyEmbedding as IsotopyEmbedding,
        ShearEmbedding as ShearEmbedding,
        adjoint_system as adjoint_system,
        classify as classify,
        critical_points as critical_points,
        layer_exponents as layer_exponents,
        memory_capacity as memory_capacity,
        reduce_to_ode as reduce_to_ode,
    )
    from .stability import (
        covariant_vectors as covariant_vectors,
        finite_time_exponents as finite_time_exponents,
        finite_time_field as finite_time_field,
        fixed_point as fixed_point,
        floquet_multipliers as floquet_multipliers,
        lyapunov_spectrum as lyapunov_spectrum,
        moment_function as moment_function,
        tail_index as tail_index,
    )
    from .systems import (
        DelayFlow as DelayFlow,
        Flow as Flow,
        FullBatch as FullBatch,
        LayerMap as LayerMap,
        Map as Map,
        MiniBatches as MiniBatches,
        RandomMap as RandomMap,
        ReshuffledBatches as ReshuffledBatches,
        WhiteNoise as WhiteNoise,
        ddesolve as ddesolve,
        evolve as evolve,
        trajectory as trajectory,
    )
    from .training import (
        SharpnessTracker as SharpnessTracker,
        TrainingMap as TrainingMap,
        critical_learning_rate as critical_learning_rate,
        edge_ratio as edge_ratio,
        find_interpolation as find_interpolation,
        minimum_stability as minimum_stability,
        preconditioner as preconditioner,
        sgd_exponent as sgd_exponent,
        sgd_stability as sgd_stability,
        stability_diagram as stability_diagram,
        stability_threshold as stability_threshold,
    )

__version__ = "0.1.0"

_ROOMS = (
    "curvature",
    "data",
    "distributed",
    "experiments",
    "generative",
    "linalg",
    "meanfield",
    "networks",
    "propagation",
    "reference",
    "report",
    "stability",
    "sweep",
    "systems",
    "training",
)
_NAMES = {
    "_core": ("Status",),
    "curvature": (
        "batch_sharpness",
        "fisher",
        "gauss_newton",
        "gradient_covariance",
        "hessian",
        "preconditioned",
        "sharpness",
        "tangent_kernel",
    ),
    "linalg": ("diagonal", "effective_dimension", "eigs", "eigsh", "spectral_density", "trace"),
    "meanfield": ("DigraphMeasure", "GraphOperator", "critical_coupling"),
    "networks": ("MLP", "DenseResNet", "LipschitzField", "NeuralDDE", "NeuralODE", "ResNet"),
    "propagation": (
        "DelayEmbedding",
        "IsotopyEmbedding",
        "ShearEmbedding",
        "adjoint_system",
        "classify",
        "critical_points",
        "layer_exponents",
        "memory_capacity",
        "reduce_to_ode",
    ),
    "stability": (
        "covariant_vectors",
        "finite_time_exponents",
        "finite_time_field",
        "fixed_point",
        "floquet_multipliers",
        "lyapunov_spectrum",
        "moment_function",
        "tail_index",
    ),
    "systems": (
        "DelayFlow",
        "Flow",
        "FullBatch",
        "LayerMap",
        "Map",
        "MiniBatches",
        "RandomMap",
        "ReshuffledBatches",
        "WhiteNoise",
        "ddesolve",
        "evolve",
        "trajectory",
    ),
    "training": (
        "SharpnessTracker",
        "TrainingMap",
        "critical_learning_rate",
        "edge_ratio",
        "find_interpolation",
        "minimum_stability",
        "preconditioner",
        "sgd_exponent",
        "sgd_stability",
        "stability_diagram",
        "stability_threshold",
    ),
}
_HOME = {name: room for room, names in _NAMES.items() for name in names}

__all__ = sorted((*_ROOMS, *_HOME))


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    elif name in _ROOMS:
        value = importlib.import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
