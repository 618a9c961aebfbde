"""The stability engine: Lyapunov exponents of anything that steps, with error bars."""

from ._covariant import CovariantVectors as CovariantVectors, covariant_vectors as covariant_vectors
from ._dimension import (
    kaplan_yorke_dimension as kaplan_yorke_dimension,
    kolmogorov_sinai_entropy as kolmogorov_sinai_entropy,
)
from ._finite_time import (
    FiniteTimeExponents as FiniteTimeExponents,
    finite_time_exponents as finite_time_exponents,
    finite_time_field as finite_time_field,
)
from ._fixed_point import FixedPoint as FixedPoint, fixed_point as fixed_point
from ._floquet import PeriodicOrbit as PeriodicOrbit, floquet_multipliers as floquet_multipliers
from ._moments import (
    MomentFunction as MomentFunction,
    TailIndex as TailIndex,
    moment_function as moment_function,
    tail_index as tail_index,
)
from ._spectrum import (
    LyapunovSpectrum as LyapunovSpectrum,
    LyapunovState as LyapunovState,
    lyapunov_spectrum as lyapunov_spectrum,
)
from ._time_average import TimeAverage as TimeAverage, time_average as time_average
