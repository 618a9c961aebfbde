"""Experiments: frozen configurations, pure programs, summaries and reports. No numerics of their own."""

from . import (
    attention as attention,
    delay_fit as delay_fit,
    depth as depth,
    edge_of_stability as edge_of_stability,
    embedding as embedding,
    flow as flow,
    implicit_bias as implicit_bias,
    meanfield as meanfield,
    memory_capacity as memory_capacity,
    morse as morse,
    sgd_stability as sgd_stability,
)
from ._doctor import diagnose as diagnose
from ._fit import Fit as Fit, fit as fit
from ._registry import EXPERIMENTS as EXPERIMENTS, Experiment as Experiment, find_experiment as find_experiment
from ._runner import (
    precision as precision,
    resume_experiment as resume_experiment,
    run_experiment as run_experiment,
    stored_experiment as stored_experiment,
    work as work,
)
from ._toml import config_from_toml as config_from_toml, config_to_toml as config_to_toml
