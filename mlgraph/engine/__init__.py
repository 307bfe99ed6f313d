"""How is a plan run over data?

Read `engine` first: it hands a plan, data and options to the kernels. `examples` checks data, `losses`
checks targets, `steps` divides data into batches, and `choice` decides how a call is swept. `function` and
`trace` return values and derivatives to users. `reference` computes the same in numpy and float64;
`c_source` writes it as C. `quantized` computes neurons in 8-bit integers, and `c_int8` writes these as C.
`units` tells what the numbers of such a function stand for.
"""
