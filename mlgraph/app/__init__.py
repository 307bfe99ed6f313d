"""The implementation of `python -m mlgraph.mnist`, whose commands are in `mlgraph.mnist`; the library does not need it."""
