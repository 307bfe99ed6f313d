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
GradualPruning, SET, RigL
    Schedules that cut or move edges during `fit`; for your own, subclass `mlgraph.sparsify.Schedule`.
Edges, Neurons, Gradients, Trace, History, Progress
    What `Graph.edges`, `Graph.neurons`, `Function.vjp` or `Model.gradients`, `Model.trace` and `Model.fit` return, and what
    `Model.fit` tells its callback.
NonFiniteError, CycleError, CheckpointError, ModelFileError
    The first is an ArithmeticError, the others are ValueErrors.
ISA, default_threads
    The build of the kernels in use ("v2", "v3", "v4" or "baseline"); how many threads large work gets.
mlgraph.datasets, mlgraph.testing
    MNIST and other IDX files; checks of derivatives.
mlgraph.drawing, mlgraph.portrait, mlgraph.plotting
    Pictures: of graphs; of neurons that read images; of a run, by its accuracies or losses.

Functions of nodes are exp, log, sqrt, sin, cos, tanh, sigmoid, relu, leaky_relu, softplus, minimum, maximum and where; sum,
prod, max, logsumexp and softmax take any number of nodes. `python -m mlgraph.mnist` is the application.

An argument that is not as documented raises a TypeError or a ValueError, a single id that no node has an IndexError. The
message is one line that names the argument or what was called, and nothing has changed. Other errors are listed under `Raises`.
"""

from typing import TYPE_CHECKING, Any

from mlgraph.arrays import Edges, Neurons
from mlgraph.function import Function, Gradients
from mlgraph.functions import *  # noqa: F403
from mlgraph.functions import __all__ as _functions
from mlgraph.graph import CycleError, Graph
from mlgraph.history import History
from mlgraph.layer import Layer
from mlgraph.model import Model
from mlgraph.network import Network
from mlgraph.nonfinite import NonFiniteError
from mlgraph.threads import default_threads
from mlgraph.trace import Trace
from mlgraph.training import Progress
from mlgraph.views import Edge, Neuron, Node
from mlgraph_ext import ISA

if TYPE_CHECKING:
    from mlgraph import datasets as datasets
    from mlgraph import drawing as drawing
    from mlgraph import pruning as pruning
    from mlgraph import sparsify as sparsify
    from mlgraph import testing as testing
    from mlgraph.checkpoint import CheckpointError
    from mlgraph.modelfile import ModelFileError, load
    from mlgraph.sparsify import SET, GradualPruning, RigL

    __version__: str

__all__ = [
    "ISA", "SET", "CheckpointError", "CycleError", "Edge", "Edges", "Function", "GradualPruning", "Gradients",
    "Graph", "History", "Layer", "Model", "ModelFileError", "Network", "Neuron", "Neurons", "Node", "NonFiniteError",
    "Progress", "RigL", "Trace", "default_threads", "load",
    *(name for name in _functions if name not in ("max", "sum")),  # `import *` must not take these from Python
]  # fmt: skip

# What few programs need at once is imported when asked for.
_LATER = {
    "CheckpointError": "checkpoint", "GradualPruning": "sparsify", "ModelFileError": "modelfile", "RigL": "sparsify",
    "SET": "sparsify", "load": "modelfile",
}  # fmt: skip
_MODULES = ("datasets", "drawing", "pruning", "sparsify", "testing")


if not TYPE_CHECKING:  # to type checkers it would mean that there is every attribute

    def __getattr__(name: str) -> Any:
        from contextlib import suppress
        from importlib import import_module

        if name in _LATER:
            return getattr(import_module(f"mlgraph.{_LATER[name]}"), name)
        if name in _MODULES:
            return import_module(f"mlgraph.{name}")
        if name == "__version__":
            metadata = import_module("importlib.metadata")
            with suppress(metadata.PackageNotFoundError):  # of a clone that is on the path and not installed
                return metadata.version("mlgraph")
        raise AttributeError(f"module 'mlgraph' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER, *_MODULES})
