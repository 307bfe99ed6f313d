"""How does a graph become a plan?

Read `plan` first: it runs the passes and holds their result. The passes are `lowering` (which nodes are
needed), `grouping` (which nodes one instruction computes) and `layout` (where parameters are stored).
`instructions` is the format that kernels read. `units` divides the parameters among threads for the
update, and `holes` turns lightly pruned rows into dense blocks.
"""
