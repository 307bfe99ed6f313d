"""What is the network, and how do I change it?

Read `graph` first, the class that users edit, then `views`, the nodes, neurons and edges of a
graph, and `weights`, what `Neuron.weights` returns. `ops` is the table of all operations. `nodes`,
`storage` and `arrays` hold a graph's data; `topology` sorts its nodes. `edits`, `changes` and `undo`
change edges and undo that; `subgraph` and `compaction` add and remove many nodes, and `draft` makes
small graphs fast. `functions` and `formula` write and print expressions, and `derivatives` derives
them; `ids` checks arguments that name nodes. `protocols` is what a graph asks of its models.
"""
