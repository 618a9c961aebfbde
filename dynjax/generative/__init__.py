"""Generative models as flows: flow matching and diffusions, exact fields of Gaussian mixtures, and their dynamics."""

from ._commitment import Commitment as Commitment, commitment_times as commitment_times
from ._fit_flow import FittedFlow as FittedFlow, fit_flow as fit_flow
from ._gaussian_mixture import GaussianMixture as GaussianMixture
from ._lipschitz_profile import LipschitzProfile as LipschitzProfile, lipschitz_profile as lipschitz_profile
from ._log_likelihood import LogLikelihood as LogLikelihood, log_likelihood as log_likelihood
from ._loss_floor import LossFloor as LossFloor, loss_floor as loss_floor
from ._losses import flow_matching_loss as flow_matching_loss, score_matching_loss as score_matching_loss
from ._mixture_field import MixtureField as MixtureField
from ._noise_paths import (
    AbstractNoisePath as AbstractNoisePath,
    Coefficients as Coefficients,
    StraightLine as StraightLine,
    VariancePreserving as VariancePreserving,
)
from ._sample import Samples as Samples, sample as sample
from ._sampling_exponents import (
    SamplingExponents as SamplingExponents,
    sampling_exponents as sampling_exponents,
)
from ._speciation import speciation_time as speciation_time
from ._stiffness import Stiffness as Stiffness, stiffness as stiffness
from ._trained_fields import ScoreField as ScoreField, VelocityField as VelocityField
from ._wasserstein import wasserstein2 as wasserstein2
