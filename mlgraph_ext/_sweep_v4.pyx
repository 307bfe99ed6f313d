# The build for x86-64-v4: AVX-512, in full vectors (flags and directives: setup.py).
include "_sweep.pxi"
