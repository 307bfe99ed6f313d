"""How do we check, lock and write? Helpers that know nothing of graphs.

Read `checks` first: it turns arguments into numbers and arrays, or raises. `array_types` names the
types of arrays. `locks` and `interrupts` keep threads and signals out of edits. `threads` decides
how many threads a call uses. `atomic_files` writes files. `installation` says how to install what is
missing.
"""
