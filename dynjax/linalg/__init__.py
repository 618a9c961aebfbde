"""Spectra of lineax operators on pytrees: eigenpairs, spectral density, trace, diagonal, effective dimension."""

from ._arnoldi import GeneralEigenResult as GeneralEigenResult, eigs as eigs
from ._density import SpectralDensity as SpectralDensity, spectral_density as spectral_density
from ._effective_dimension import effective_dimension as effective_dimension
from ._eigsh import EigenResult as EigenResult, eigsh as eigsh
from ._estimate import Estimate as Estimate, student_factor as student_factor
from ._trace import diagonal as diagonal, trace as trace
