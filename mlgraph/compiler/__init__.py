"""How does a graph become a plan?

Read in the order of the passes: `lowering` (which nodes are needed, and what each computes), `grouping` (which neurons are swept
together), `layout` (where values and weights are stored), `instructions` (what a kernel is told), `plan` (all of it, kept until
the graph changes). `units` divides the parameters into parts that one thread updates, `holes` computes lightly pruned layers as
dense ones.
"""
