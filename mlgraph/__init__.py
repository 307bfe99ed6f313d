"""A neural network as an explicit graph of scalars, compiled to fast loops over whole batches.

Graph
    Nodes and edges. Create nodes with `Graph.add_input`, `Graph.add_parameter`, `Graph.add_neuron`, the
    operators + - * / **, `abs` and the functions below. `Graph.compile` returns a `Function`.
Function
    Evaluates nodes for a batch, with exact derivatives. `Function.to_c` translates it to C, and
    `Function.quantize` to 8-bit integers, a `QuantizedFunction`. `Model.to_c` and `Model.quantize`
    do so for what a model predicts.
Node, Neuron, Edge
    Views of the parts of a graph: read, change and remove them.
Model
    A graph with outputs and a loss. Train it with `Model.fit`, use it with `Model.evaluate` and
    `Model.predict`, look into it with `Model.inspect`, `Model.trace`, `Model.ablate` and
    `Model.draw`, shrink it with `Model.prune`, save it with `Model.save`. `load` reads it back.
Network, Layer
    A model made of layers: `Network.add_layer`.
Population
    Many models over the same data: evaluated in one call, trained side by side.
Schedule, GradualPruning, SET, RigL
    Schedules prune or rewire edges during `fit`. Subclass `Schedule` to write your own.
Edges, Neurons, Gradients, Trace, History, Progress
    Results of `Graph.edges`, `Graph.neurons`, `Function.vjp` and `Model.gradients`, `Model.trace`
    and `Model.fit`.
Callback, EarlyStopping
    What `Model.fit` calls during a run, with a `Progress`. Subclass `Callback` to write your own.
NonFiniteError, CycleError, CheckpointError, ModelFileError
    `NonFiniteError` is an ArithmeticError; the others are ValueErrors.
ISA, default_threads
    The build of the kernels in use ("v2", "v3", "v4" or "baseline"), and the number of threads
    that large workloads get by default.
mlgraph.datasets, mlgraph.exchange, mlgraph.pictures, mlgraph.testing
    Public modules: MNIST and other IDX files; models from and for other libraries; pictures of
    graphs, neurons and training runs; checks of derivatives.

The functions of nodes are exp, expm1, log, log1p, sqrt, sin, cos, arcsin, arccos, arctan, sinh,
cosh, tanh, erf, sigmoid, relu, leaky_relu, elu, gelu, silu, softplus, floor, sign, minimum, maximum
and where. The functions sum, prod, max, logsumexp and softmax take any number of nodes. `grad` makes
the derivative of a node, as nodes. `import mlgraph.sklearn` has estimators for
scikit-learn. `python -m mlgraph.mnist` runs the application.

An invalid argument raises a TypeError or a ValueError, and an id without a node an IndexError. The
message is one line that names the argument or the method, and the call has changed nothing. The
docstrings list other errors under `Raises`.
"""

from importlib import import_module

from mlgraph_ext import ISA

# Each name is imported when it is first used, so that `import mlgraph` is fast. Type checkers read __init__.pyi.
_MODULES = {
    "_support.threads": "default_threads",
    "engine.function": "Function Gradients",
    "engine.quantized": "QuantizedFunction",
    "engine.trace": "Trace",
    "graph.arrays": "Edges Neurons",
    "graph.derivatives": "grad",
    "graph.functions": "arccos arcsin arctan cos cosh elu erf exp expm1 floor gelu leaky_relu log log1p logsumexp max"
    " maximum minimum prod relu sigmoid sign silu sin sinh softmax softplus sqrt sum tanh where",
    "graph.graph": "Graph",
    "graph.topology": "CycleError",
    "graph.views": "Edge Neuron Node",
    "models.history": "History",
    "models.layer": "Layer",
    "models.model": "Model",
    "models.model_file": "ModelFileError load",
    "models.network": "Network",
    "models.population": "Population",
    "sparsity.gradual_pruning": "GradualPruning",
    "sparsity.rewiring": "SET RigL",
    "sparsity.schedules": "Schedule",
    "training.callbacks": "Callback EarlyStopping",
    "training.checkpoint": "CheckpointError",
    "training.loop": "Progress",
    "training.nonfinite": "NonFiniteError",
}
_MODULE_OF = {name: f"mlgraph.{module}" for module, names in _MODULES.items() for name in names.split()}
_ELSEWHERE = {
    "callbacks": "mlgraph.Callback and mlgraph.EarlyStopping",
    "Dense": "network.add_layer(size, activation)",
    "layers": "network.add_layer(size, activation)",
    "load_model": "mlgraph.load",
    "losses": 'named in network.add_layer(1, loss="mse"), or any node as mlgraph.Model(graph, outputs, loss=node)',
    "nn": "mlgraph.Network",
    "optim": 'named in fit(optimizer="adam", learning_rate=0.003)',
    "optimizers": 'named in fit(optimizer="adam", learning_rate=0.003)',
    "Sequential": "mlgraph.Network",
}
"""Where things of other libraries are, for errors."""
_PUBLIC_MODULES = ("datasets", "exchange", "pictures", "testing")

__all__ = ["ISA", *sorted(_MODULE_OF.keys() - {"max", "sum"})]  # `import *` must not hide the built-in functions


def __getattr__(name):
    if name in _MODULE_OF:
        value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
        return value
    if name in _PUBLIC_MODULES:
        return import_module(f"mlgraph.{name}")
    if name == "__version__":
        metadata = import_module("importlib.metadata")
        try:
            return metadata.version("mlgraph")
        except metadata.PackageNotFoundError:  # a clone that is on the path but not installed
            pass
    if name in _ELSEWHERE:
        raise AttributeError(f"module 'mlgraph' has no attribute {name!r}; here it is {_ELSEWHERE[name]}")
    raise AttributeError(f"module 'mlgraph' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_MODULE_OF, *_PUBLIC_MODULES})
