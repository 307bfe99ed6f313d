"""How does a model learn, and what if it cannot?

Read `fitting` first: it checks the arguments of `fit` and reads the data. `run` trains one model with
them. `loop` takes the steps, epoch by epoch. `nonfinite` decides what happens to a step that overflows; `faults`
finds the node where that began. `checkpoint` writes runs to files and resumes them. `report` prints
a line for each epoch; `callbacks` are what a run calls.
"""
