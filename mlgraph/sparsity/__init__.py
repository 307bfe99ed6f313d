"""What is cut, and what is grown?

Read `pruning` first, then `scores` and `paths`, which say what is weak. `growing` adds edges and neurons. `schedules` cut and grow
between the steps of training.
"""
