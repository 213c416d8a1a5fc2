"""Regularizers: what a deformation costs. Lower is better. Each is a row of `terms.TERMS`."""
