"""Reference values: exponents, thresholds and roots in closed form, as functions that can be differentiated and mapped."""

from ._attention import (
    attention_cluster_number as attention_cluster_number,
    attention_mode_growth as attention_mode_growth,
    attention_noise_threshold as attention_noise_threshold,
    equiangular_overlap as equiangular_overlap,
    hemisphere_probability as hemisphere_probability,
)
from ._bessel import bessel_i as bessel_i, bessel_ie as bessel_ie, bessel_ratio as bessel_ratio
from ._deep_networks import (
    deep_linear_exponents as deep_linear_exponents,
    relu_network_exponent as relu_network_exponent,
)
from ._delay import delay_exponents as delay_exponents, delay_roots as delay_roots
from ._diffusion import (
    geometric_brownian_exponent as geometric_brownian_exponent,
    geometric_brownian_moment_function as geometric_brownian_moment_function,
    geometric_brownian_variance as geometric_brownian_variance,
    white_noise_oscillator_exponent as white_noise_oscillator_exponent,
)
from ._faddeeva import erfcx as erfcx, faddeeva as faddeeva
from ._gaussian_products import (
    gaussian_product_exponents as gaussian_product_exponents,
    gaussian_product_variances as gaussian_product_variances,
    gaussian_residual_exponent as gaussian_residual_exponent,
    gaussian_triangular_exponents as gaussian_triangular_exponents,
    ginibre_product_exponents as ginibre_product_exponents,
    ginibre_product_variances as ginibre_product_variances,
)
from ._generative import (
    gaussian_flow_exponents as gaussian_flow_exponents,
    gaussian_flow_slope_range as gaussian_flow_slope_range,
    mixture_flow_matching_floor as mixture_flow_matching_floor,
    two_mode_speciation_ratio as two_mode_speciation_ratio,
)
from ._isotropic_sgd import (
    isotropic_sgd_critical_learning_rate as isotropic_sgd_critical_learning_rate,
    isotropic_sgd_exponents as isotropic_sgd_exponents,
    isotropic_sgd_mean_square_learning_rate as isotropic_sgd_mean_square_learning_rate,
    kaczmarz_exponents as kaczmarz_exponents,
)
from ._kernel_sgd import (
    orthogonal_sgd_exponents as orthogonal_sgd_exponents,
    sgd_exponent_sum as sgd_exponent_sum,
    two_gradient_sgd_exponents as two_gradient_sgd_exponents,
)
from ._kuramoto import (
    beat_frequency as beat_frequency,
    gaussian_critical_coupling as gaussian_critical_coupling,
    gaussian_growth_rate as gaussian_growth_rate,
    gaussian_order_parameter as gaussian_order_parameter,
    lorentzian_critical_coupling as lorentzian_critical_coupling,
    lorentzian_order_parameter as lorentzian_order_parameter,
    noisy_order_parameter as noisy_order_parameter,
    ott_antonsen_transient as ott_antonsen_transient,
    phase_locked_difference as phase_locked_difference,
    uniform_critical_coupling as uniform_critical_coupling,
    uniform_order_parameter as uniform_order_parameter,
)
from ._kuramoto_graphs import (
    adaptive_in_phase_state as adaptive_in_phase_state,
    max_kernel_eigenvalue as max_kernel_eigenvalue,
    power_law_eigenvalue as power_law_eigenvalue,
    power_law_field as power_law_field,
    ring_eigenvalue as ring_eigenvalue,
    ring_smallest_eigenvalue as ring_smallest_eigenvalue,
    small_world_eigenvalue as small_world_eigenvalue,
    triad_order_parameters as triad_order_parameters,
    twisted_amplitude as twisted_amplitude,
    twisted_critical_fraction as twisted_critical_fraction,
    twisted_growth_rate as twisted_growth_rate,
    two_block_eigenvalue as two_block_eigenvalue,
    volterra_growth as volterra_growth,
)
from ._linear import (
    gradient_descent_exponents as gradient_descent_exponents,
    linear_flow_exponents as linear_flow_exponents,
    linear_map_exponents as linear_map_exponents,
    lorenz63_exponent_sum as lorenz63_exponent_sum,
    lorenz96_exponent_sum as lorenz96_exponent_sum,
    roessler_exponent_sum as roessler_exponent_sum,
    stuart_landau_exponents as stuart_landau_exponents,
)
from ._maps import (
    baker_exponents as baker_exponents,
    beta_map_exponent as beta_map_exponent,
    cat_map_exponents as cat_map_exponents,
    chebyshev_exponent as chebyshev_exponent,
    coupled_doubling_exponents as coupled_doubling_exponents,
    cubic_training_exponents as cubic_training_exponents,
    gauss_map_exponent as gauss_map_exponent,
    henon_exponent_sum as henon_exponent_sum,
    logistic_exponent as logistic_exponent,
    tent_exponent as tent_exponent,
)
from ._mean_field import (
    double_well_critical_noise as double_well_critical_noise,
    flow_matching_floor as flow_matching_floor,
    mean_field_ou_variance as mean_field_ou_variance,
    quadratic_network_overlap as quadratic_network_overlap,
    uniform_sample_wasserstein as uniform_sample_wasserstein,
)
from ._mean_field_table import (
    ReferenceValue as ReferenceValue,
    mean_field_table as mean_field_table,
)
from ._mixture_transport import (
    LineMixture as LineMixture,
    monotone_transport as monotone_transport,
    variance_preserving_transport as variance_preserving_transport,
)
from ._scalar_sgd import (
    ScalarSGDThresholds as ScalarSGDThresholds,
    gaussian_sgd_critical_learning_rate as gaussian_sgd_critical_learning_rate,
    gaussian_sgd_exponent as gaussian_sgd_exponent,
    scalar_sgd_exponent as scalar_sgd_exponent,
    scalar_sgd_moment_function as scalar_sgd_moment_function,
    scalar_sgd_tail_index as scalar_sgd_tail_index,
    scalar_sgd_thresholds as scalar_sgd_thresholds,
)
from ._two_by_two import (
    isotropic_two_by_two_exponents as isotropic_two_by_two_exponents,
    lloyd_exponent as lloyd_exponent,
    positive_product_exponent as positive_product_exponent,
    random_fibonacci_exponent as random_fibonacci_exponent,
)
from ._wide_networks import (
    critical_weight_variance as critical_weight_variance,
    wide_network_exponent as wide_network_exponent,
    wide_network_susceptibility as wide_network_susceptibility,
    wide_network_variance as wide_network_variance,
)
