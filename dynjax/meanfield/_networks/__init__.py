"""Wide networks, masked networks and attention as particle systems."""
