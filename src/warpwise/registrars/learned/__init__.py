"""Registration by trained networks, alone or as the start of a solver."""
