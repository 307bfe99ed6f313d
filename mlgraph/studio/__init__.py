"""The studio: a page in the browser that shows a network while it trains, and edits it.

- `data`: what there is to learn from, and how a page shows an example of it.
- `curve`: every mini-batch of a run, in bounded memory.
- `run`: the thread that trains, and its pause, pace and options.
- `session`: one network, its data and its run; what all windows share.
- `views`: what a page shows of a session, as JSON and bytes.
- `build`: networks, data and runs that a page asks for.
- `take_away`: the network as a file, in the labels and units of the data.
- `edits`: what a page may change, by one table.
- `server`: the addresses of the protocol, and who may use them.
- `page/`: the page, without a build step.
"""
