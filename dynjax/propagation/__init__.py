"""The input-output map: exact embeddings, critical points, memory capacity, reduction of delay equations."""

from ._adjoint_system import (
    CotangentSystem as CotangentSystem,
    Covector as Covector,
    Pullback as Pullback,
    adjoint_system as adjoint_system,
    pairing as pairing,
)
from ._classify import Classification as Classification, classify as classify
from ._classify_bounds import GradientBound as GradientBound
from ._classify_hypotheses import Hypothesis as Hypothesis
from ._critical_points import CriticalPoints as CriticalPoints, critical_points as critical_points
from ._critical_solution import (
    critical_solution as critical_solution,
    first_zero as first_zero,
    memory_threshold as memory_threshold,
)
from ._delay_embedding import DelayEmbedding as DelayEmbedding
from ._edge_of_chaos import (
    CriticalInitializer as CriticalInitializer,
    CriticalScale as CriticalScale,
    MeanFieldPropagation as MeanFieldPropagation,
    critical_initializer as critical_initializer,
    critical_weight_scale as critical_weight_scale,
    mean_field_propagation as mean_field_propagation,
)
from ._exponent_penalty import exponent_penalty as exponent_penalty
from ._gradient_norms import (
    GradientNorms as GradientNorms,
    GradientReport as GradientReport,
    gradient_norms as gradient_norms,
    gradient_report as gradient_report,
)
from ._isotopy import IsotopyEmbedding as IsotopyEmbedding
from ._layer_exponents import (
    LayerExponents as LayerExponents,
    SeparationField as SeparationField,
    layer_exponents as layer_exponents,
    separation_field as separation_field,
)
from ._layer_stages import Recurrence as Recurrence
from ._linear_reduction import LinearReduction as LinearReduction, linear_reduction as linear_reduction
from ._memory_capacity import MemoryCapacity as MemoryCapacity, memory_capacity as memory_capacity
from ._obstruction import (
    EmbeddingObstruction as EmbeddingObstruction,
    embedding_obstruction as embedding_obstruction,
    extremum_error_bound as extremum_error_bound,
    monotone_error_bound as monotone_error_bound,
)
from ._reduction import ReducedODE as ReducedODE, reduce_to_ode as reduce_to_ode
from ._shear import ShearEmbedding as ShearEmbedding
from ._width_audit import WidthAudit as WidthAudit, width_audit as width_audit
