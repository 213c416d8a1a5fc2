"""Measures of a registration: overlap, distance of surfaces, and how regular the deformation is."""
