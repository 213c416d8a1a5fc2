"""Level 0: registration of one pair, arrays in and arrays out.

`linear` finds where to begin and a rigid or affine map, `deformable` descends, `learned` asks a network. `base` says what
each takes and gives; how they are chosen and set is a `methods.Method`.
"""
