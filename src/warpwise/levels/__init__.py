"""Levels above the registration of one pair: weights (1); architecture (2) and tuning (3) are to come.

- `loop`: the one loop, which lets levels step in turns and knows none of them by name; `checkpoint`, `history` and `board`
  are what it writes.
- `weights`: level 1; `training` runs it on its own, or those of features and of their registration in turns, with
  `validation`. `settings` is what a person writes, `starter` writes
  a first one.
- `hypergradient` and its `estimators`: how an outer loss changes through the variables that minimise an inner one.

A level of your own is one file: a class with the methods of `loop.Level`. What it looks at comes from `warpwise.data`:
`prepared.sampler_of` makes batches of the pairs that it may see.
"""
