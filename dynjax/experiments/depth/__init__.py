"""Depth as time: what exponents mean for training."""

from ._flossing import Arm as Arm, Flossing as Flossing, flossing_experiment as flossing_experiment
