"""Which edges and neurons are cut, and where do new ones grow?

Read `pruning` first, then `scores` (the criteria) and `paths` (the scores of paths, so that no
output is cut off). `growing` adds edges and neurons. `schedules` says what a schedule is, which cuts
and grows edges between the steps of training; `gradual_pruning` and `rewiring` are the schedules.
"""
