"""Levels above the registration of one pair: training (1); architecture (2) and tuning (3) are to come.

`settings` is what a person writes, `starter` writes a first one. `volumes` and `prepared` decode and align a dataset,
`batches` and `synthetic_pairs` draw pairs, `training` is the loop, with `validation`, `checkpoint` and `board`;
`comparison` measures registrars on a dataset. `hypergradient` and its `estimators` differentiate an upper level
through a lower one.
"""
