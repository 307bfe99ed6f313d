"""mlgraph: a neural network as an explicit graph of scalars, run on whole batches without the GIL.

Graph
    Nodes and edges. `Graph.input`, `Graph.parameter`, `Graph.add_neuron`, + - * / ** abs and the functions below make nodes.
    `Graph.compile` makes a `Function`, which takes a batch and has exact derivatives; `Function.to_c` writes it as C.
Node, Neuron, Edge
    Views of the parts of a graph, to read, change and prune it.
Model
    A graph with outputs and a loss, which can be trained: `Model.fit`, `Model.evaluate`, `Model.predict`, `Model.inspect`,
    `Model.trace`, `Model.ablate`, `Model.prune`, `Model.draw`, `Model.save`; `load` reads a saved model.
Network, Layer
    A model of layers: `Network.add_layer`.
Schedule, GradualPruning, SET, RigL
    Schedules that cut or move edges during `fit`; for your own, subclass `Schedule`.
Edges, Neurons, Gradients, Trace, History, Progress
    What `Graph.edges`, `Graph.neurons`, `Function.vjp` or `Model.gradients`, `Model.trace` and `Model.fit` return, and what
    `Model.fit` tells its callback.
NonFiniteError, CycleError, CheckpointError, ModelFileError
    The first is an ArithmeticError, the others are ValueErrors.
ISA, default_threads
    The build of the kernels in use ("v2", "v3", "v4" or "baseline"); how many threads large work gets.
mlgraph.datasets, mlgraph.testing, mlgraph.pictures
    The public modules: MNIST and other IDX files; checks of derivatives; pictures of graphs, of neurons and of runs.

Functions of nodes are exp, log, sqrt, sin, cos, tanh, sigmoid, relu, leaky_relu, softplus, minimum, maximum and where; sum,
prod, max, logsumexp and softmax take any number of nodes. `python -m mlgraph.mnist` is the application.

An argument that is not as documented raises a TypeError or a ValueError, a single id that no node has an IndexError. The
message is one line that names the argument or what was called, and nothing has changed. Other errors are listed under `Raises`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mlgraph_ext import ISA

if TYPE_CHECKING:
    from mlgraph import datasets as datasets, pictures as pictures, testing as testing
    from mlgraph._support.threads import default_threads as default_threads
    from mlgraph.engine.function import Function as Function, Gradients as Gradients
    from mlgraph.engine.trace import Trace as Trace
    from mlgraph.graph.arrays import Edges as Edges, Neurons as Neurons
    from mlgraph.graph.functions import (
        cos as cos,
        exp as exp,
        leaky_relu as leaky_relu,
        log as log,
        logsumexp as logsumexp,
        max as max,
        maximum as maximum,
        minimum as minimum,
        prod as prod,
        relu as relu,
        sigmoid as sigmoid,
        sin as sin,
        softmax as softmax,
        softplus as softplus,
        sqrt as sqrt,
        sum as sum,
        tanh as tanh,
        where as where,
    )
    from mlgraph.graph.graph import Graph as Graph
    from mlgraph.graph.topology import CycleError as CycleError
    from mlgraph.graph.views import Edge as Edge, Neuron as Neuron, Node as Node
    from mlgraph.models.history import History as History
    from mlgraph.models.layer import Layer as Layer
    from mlgraph.models.model import Model as Model
    from mlgraph.models.model_file import ModelFileError as ModelFileError, load as load
    from mlgraph.models.network import Network as Network
    from mlgraph.sparsity.schedules import (
        SET as SET,
        GradualPruning as GradualPruning,
        RigL as RigL,
        Schedule as Schedule,
    )
    from mlgraph.training.checkpoint import CheckpointError as CheckpointError
    from mlgraph.training.loop import Progress as Progress
    from mlgraph.training.nonfinite import NonFiniteError as NonFiniteError

    __version__: str

# Each name is imported when it is first used, so that `import mlgraph` stays fast.
_NAMES_BY_MODULE = {
    "_support.threads": "default_threads",
    "engine.function": "Function Gradients",
    "engine.trace": "Trace",
    "graph.arrays": "Edges Neurons",
    "graph.functions": "cos exp leaky_relu log logsumexp max maximum minimum prod relu sigmoid sin softmax softplus sqrt sum "
    "tanh where",
    "graph.graph": "Graph",
    "graph.topology": "CycleError",
    "graph.views": "Edge Neuron Node",
    "models.history": "History",
    "models.layer": "Layer",
    "models.model": "Model",
    "models.model_file": "ModelFileError load",
    "models.network": "Network",
    "sparsity.schedules": "SET GradualPruning RigL Schedule",
    "training.checkpoint": "CheckpointError",
    "training.loop": "Progress",
    "training.nonfinite": "NonFiniteError",
}
_MODULE_OF = {name: f"mlgraph.{module}" for module, names in _NAMES_BY_MODULE.items() for name in names.split()}
_PUBLIC_MODULES = ("datasets", "pictures", "testing")

__all__ = ["ISA", *sorted(_MODULE_OF.keys() - {"max", "sum"})]  # `import *` must not hide Python's own


if not TYPE_CHECKING:  # a type checker would accept every attribute

    def __getattr__(name: str) -> Any:
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
        raise AttributeError(f"module 'mlgraph' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF, *_PUBLIC_MODULES})
