"""Digraph measures: their parts, label grids, spectra and samples."""
