"""Oscillators on graphs, order parameters, sweeps, and the warnings of the room."""
