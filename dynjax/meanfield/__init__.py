"""Large networks and their limits: digraph measures, graph operators, particles, Vlasov fibres, thresholds, distances."""

from ._distances.bounded_lipschitz import bounded_lipschitz as bounded_lipschitz
from ._distances.circle_distance import (
    CellMasses as CellMasses,
    Points as Points,
    circle_wasserstein as circle_wasserstein,
)
from ._distances.convergence import (
    ConvergenceReport as ConvergenceReport,
    convergence_report as convergence_report,
    convergence_study as convergence_study,
)
from ._distances.dobrushin import (
    DobrushinCertificate as DobrushinCertificate,
    dobrushin_bound as dobrushin_bound,
    dobrushin_certificate as dobrushin_certificate,
)
from ._distances.fibre_distance import (
    fibre_distance as fibre_distance,
    fibre_distances as fibre_distances,
    group_by_cells as group_by_cells,
)
from ._graphs.block import Block as Block
from ._graphs.circulant import Circulant as Circulant, Window as Window
from ._graphs.combination import Combination as Combination
from ._graphs.cumulative import Cumulative as Cumulative
from ._graphs.edge_list import EdgeList as EdgeList
from ._graphs.graph_operator import AllToAll as AllToAll, Dense as Dense, GraphOperator as GraphOperator
from ._graphs.low_rank import LowRank as LowRank
from ._graphs.parent_map import ParentMap as ParentMap
from ._graphs.random_batch import RandomBatch as RandomBatch
from ._graphs.shift import Shift as Shift
from ._graphs.sparse import Sparse as Sparse
from ._graphs.sphere import SphereOperator as SphereOperator
from ._limits.finite_volume import finite_volume_step as finite_volume_step
from ._limits.ott_antonsen import OttAntonsen as OttAntonsen, ott_antonsen as ott_antonsen
from ._limits.phase_laws import (
    CosinePhases as CosinePhases,
    PoissonKernel as PoissonKernel,
    SampledPhases as SampledPhases,
    UniformPhases as UniformPhases,
    VonMises as VonMises,
)
from ._limits.vlasov import vlasov as vlasov
from ._measures.digraph_measure import DigraphMeasure as DigraphMeasure, LabelGrid as LabelGrid, as_grid as as_grid
from ._measures.in_cells import InCells as InCells
from ._measures.label_spectrum import (
    TransientGrowth as TransientGrowth,
    label_spectrum as label_spectrum,
    transient_growth as transient_growth,
)
from ._networks.attention import (
    AttentionFlow as AttentionFlow,
    attention_energy as attention_energy,
    attention_flow as attention_flow,
    sphere_tokens as sphere_tokens,
)
from ._networks.attention_circle import (
    angles_to_tokens as angles_to_tokens,
    attention_limit as attention_limit,
    circle_attention as circle_attention,
    tokens_to_angles as tokens_to_angles,
)
from ._networks.attention_modes import (
    cluster_prediction as cluster_prediction,
    mode_growth_rate as mode_growth_rate,
    noise_threshold as noise_threshold,
)
from ._networks.clusters import Clusters as Clusters, count_clusters as count_clusters
from ._networks.diffusion import Diffusion as Diffusion
from ._networks.masked_network import hopfield as hopfield, masked_network as masked_network
from ._networks.mckean import (
    critical_noise as critical_noise,
    magnetisation as magnetisation,
    mckean_mean as mckean_mean,
    mckean_vlasov as mckean_vlasov,
)
from ._networks.metastability import (
    Metastability as Metastability,
    circle_moments as circle_moments,
    metastability_report as metastability_report,
)
from ._networks.pair_stream import Causal as Causal, pair_average as pair_average
from ._networks.pair_system import (
    CouplingTerm as CouplingTerm,
    PairCoupling as PairCoupling,
    SeparableCoupling as SeparableCoupling,
    pair_system as pair_system,
)
from ._networks.two_layer import (
    TwoLayerRisk as TwoLayerRisk,
    two_layer_flow as two_layer_flow,
    two_layer_output as two_layer_output,
    two_layer_sgd as two_layer_sgd,
)
from ._networks.wasserstein_flow import wasserstein_flow as wasserstein_flow
from ._particles.adaptive import (
    AdaptiveOscillators as AdaptiveOscillators,
    AdaptiveState as AdaptiveState,
    adaptive_kuramoto as adaptive_kuramoto,
    in_phase_state as in_phase_state,
)
from ._particles.couplings import (
    AbstractInteraction as AbstractInteraction,
    HigherOrder as HigherOrder,
    Pairwise as Pairwise,
)
from ._particles.kuramoto import Oscillators as Oscillators, kuramoto as kuramoto, oscillators as oscillators
from ._particles.order_parameter import (
    complex_order_parameter as complex_order_parameter,
    local_order_parameter as local_order_parameter,
    order_parameter as order_parameter,
)
from ._particles.phases import Phases as Phases
from ._particles.sweep_couplings import (
    CouplingSweep as CouplingSweep,
    CriticalCouplingEstimate as CriticalCouplingEstimate,
    coupling_sweep as coupling_sweep,
    empirical_critical_coupling as empirical_critical_coupling,
    leading_left_vector as leading_left_vector,
    subcritical_fit as subcritical_fit,
)
from ._particles.triads import triads as triads, triads_limit as triads_limit, triads_stationary as triads_stationary
from ._particles.twisted_states import twist as twist, twist_eigenvalues as twist_eigenvalues
from ._particles.validity import (
    MeanFieldWarning as MeanFieldWarning,
    warn_clipped_edges as warn_clipped_edges,
    warn_filamentation as warn_filamentation,
    warn_heavy_tails as warn_heavy_tails,
    warn_low_degree as warn_low_degree,
    warn_near_critical as warn_near_critical,
    warn_single_particles as warn_single_particles,
)
from ._thresholds.dispersion import growth_rate as growth_rate, leading_root as leading_root
from ._thresholds.frequency_laws import (
    AbstractFrequencyLaw as AbstractFrequencyLaw,
    Gaussian as Gaussian,
    Identical as Identical,
    Lorentzian as Lorentzian,
    Uniform as Uniform,
)
from ._thresholds.stationary import (
    StationaryState as StationaryState,
    stationary_order_parameter as stationary_order_parameter,
    stationary_state as stationary_state,
)
from ._thresholds.thresholds import critical_coupling as critical_coupling
