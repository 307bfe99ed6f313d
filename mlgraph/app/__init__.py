"""How does the command-line program `python -m mlgraph.mnist` work? The library itself does not need this room.

`mlgraph.mnist` calls one of the commands `train`, `evaluate`, `inspect`, `prune` and `sweep`.
`learning` is the training run of `train` and `prune`, `display` its output. `recipe` holds the
hyperparameters and presets, `arguments` the types of options, `comparison` the table and picture of
`sweep`, and `common` what all commands share.
"""
