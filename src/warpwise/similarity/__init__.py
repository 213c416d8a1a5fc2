"""Similarities: how well the warped moving image matches the fixed one. Lower is better, everywhere.

Each is a row of `terms.TERMS`. `base` says what a solver asks of one; `auto` chooses by contrast.
"""
