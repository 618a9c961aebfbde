"""Curvature of losses and networks as lineax operators: Hessian, Gauss-Newton, Fisher, tangent kernel, sharpness."""

from ._batch_sharpness import (
    BatchQuotients as BatchQuotients,
    BatchSharpness as BatchSharpness,
    batch_quotients as batch_quotients,
    batch_sharpness as batch_sharpness,
)
from ._covariance import GradientCovariance as GradientCovariance, gradient_covariance as gradient_covariance
from ._gauss_newton import GaussNewton as GaussNewton, fisher as fisher, gauss_newton as gauss_newton
from ._hessian import Hessian as Hessian, hessian as hessian
from ._kernel import TangentKernel as TangentKernel, tangent_kernel as tangent_kernel
from ._losses import mean_loss as mean_loss
from ._operator import AbstractCurvature as AbstractCurvature
from ._preconditioned import Preconditioned as Preconditioned, preconditioned as preconditioned
from ._sharpness import Sharpness as Sharpness, sharpness as sharpness
from ._streamed import Streamed as Streamed, streamed as streamed, streamed_eigsh as streamed_eigsh
