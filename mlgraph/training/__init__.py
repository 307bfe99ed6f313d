"""How does a model learn, and what if it cannot?

Read `fitting` first: it checks the arguments of `fit` and prepares a run. `training` is the loop over epochs. `nonfinite` decides
what happens when a number overflows, `faults` finds the node where that began. `checkpoint` writes and resumes runs.
"""
