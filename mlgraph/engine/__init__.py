"""How is a plan run over data?

Read `engine` first: it hands a plan, data and options to the kernels. `examples` checks data, `losses` targets, `steps` cuts data
into batches, `choice` decides how a call is run. `function` and `trace` give values and derivatives to users. `reference`
computes the same in numpy and float64; `c_source` writes it as C.
"""
