# The build for processors other than x86-64: no instruction-set flag (flags and directives: setup.py).
include "_sweep.pxi"
