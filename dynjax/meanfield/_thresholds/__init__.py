"""Frequency laws, critical couplings, growth rates and stationary states."""
