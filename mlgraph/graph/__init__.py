"""What is the network, and how do I change it?

Read `graph` first, the class that users edit, then the views of its parts, `views`. `ops` is the table of all operations.
`nodes`, `storage` and `arrays` are the columns behind the graph, `topology` the order of its nodes. `edits`, `changes` and `undo`
change edges and take changes back; `subgraph` and `compaction` add and remove many nodes. `functions` and `formula` are how
expressions are written and printed; `ids` checks the nodes that users name.
"""
