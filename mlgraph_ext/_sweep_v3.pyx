# The build for x86-64-v3: AVX2 and FMA (flags and directives: setup.py).
include "_sweep.pxi"
