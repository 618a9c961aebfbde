"""Distances on the circle and between fibres, Dobrushin bounds, rates of convergence."""
