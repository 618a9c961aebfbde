"""Reference values: exponents, thresholds and roots in closed form, as functions that can be differentiated and mapped."""

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
from ._gaussian_products import (
    gaussian_product_exponents as gaussian_product_exponents,
    gaussian_product_variances as gaussian_product_variances,
    gaussian_residual_exponent as gaussian_residual_exponent,
    gaussian_triangular_exponents as gaussian_triangular_exponents,
    ginibre_product_exponents as ginibre_product_exponents,
    ginibre_product_variances as ginibre_product_variances,
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
