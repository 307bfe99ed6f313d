"""What has outputs and a loss?

Read `model` first: any graph that can be trained. `network` and `layer` build models of layers.
`population` holds many models. `model_file` saves and loads them. `history` records what happened in
a run. `metrics` are further results of an evaluation. `scaling` says how a model reads data, and `units`
tells this to functions in C.
"""
