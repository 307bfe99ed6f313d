# The build for x86-64-v2: SSE4.2 (flags and directives: setup.py).
include "_sweep.pxi"
