"""Are the derivatives right? Checks for people who build graphs or write kernels.

`check_gradients` compares the gradient of the compiled float32 sweep with finite differences,
`check_reference` that of the float64 reference, and `check_against_reference` compares the two with
each other. `expect` returns the results of the reference with bounds on the rounding error of
float32. Read `derivatives` first; `_intervals` computes the bounds.
"""

from mlgraph.testing.derivatives import Expected, check_against_reference, check_gradients, check_reference, expect

__all__ = ["Expected", "check_against_reference", "check_gradients", "check_reference", "expect"]
