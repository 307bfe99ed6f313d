"""Are my derivatives right? Checks for people who build graphs or kernels.

`check_gradients` compares gradients with finite differences; `check_against_reference` and `check_reference` compare the compiled
sweep with numpy in float64. `derivatives` has these checks, `_intervals` the bounds on rounding errors that they allow.
"""

from mlgraph.testing.derivatives import Expected, check_against_reference, check_gradients, check_reference, expect

__all__ = ["Expected", "check_against_reference", "check_gradients", "check_reference", "expect"]
