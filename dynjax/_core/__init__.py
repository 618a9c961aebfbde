"""Ground floor: pytree vector algebra, argument checks, static parts of pytrees, status codes."""

from ._checks import (
    check_count as check_count,
    check_positive as check_positive,
    check_scalar_loss as check_scalar_loss,
    check_that as check_that,
    found as found,
    is_concrete as is_concrete,
)
from ._lockstep import any_lane as any_lane, cond_any_lane as cond_any_lane
from ._static import Function as Function, Static as Static, freeze as freeze, thaw as thaw
from ._status import Status as Status, status_of_diffrax as status_of_diffrax
from ._tree import (
    Raveler as Raveler,
    split_inexact as split_inexact,
    tree_add_scaled as tree_add_scaled,
    tree_all_finite as tree_all_finite,
    tree_dot as tree_dot,
    tree_norm as tree_norm,
    tree_random as tree_random,
    tree_scale as tree_scale,
    tree_structure as tree_structure,
    tree_where as tree_where,
)
