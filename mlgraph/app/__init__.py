"""What is behind `python -m mlgraph.mnist`, whose commands are in `mlgraph.mnist`; the library needs none of it."""
