"""mlgraph: a neural network as an explicit graph of scalars, swept over batches without the GIL."""

from typing import TYPE_CHECKING, Any

from mlgraph.engine import available_threads as default_threads
from mlgraph.function import Function, Gradients
from mlgraph.functions import *  # noqa: F403
from mlgraph.functions import __all__ as _functions
from mlgraph.graph import CycleError, Graph
from mlgraph.model import Model
from mlgraph.network import Layer, Network
from mlgraph.nonfinite import NonFiniteError
from mlgraph.training import History, Progress
from mlgraph.views import Edge, Neuron, Node
from mlgraph_ext import ISA

if TYPE_CHECKING:
    from mlgraph.checkpoint import CheckpointError
    from mlgraph.modelfile import ModelFileError, load
    from mlgraph.sparsify import SET, GradualPruning, RigL

__all__ = [
    "ISA", "SET", "CheckpointError", "CycleError", "Edge", "Function", "GradualPruning", "Gradients", "Graph", "History",
    "Layer", "Model", "ModelFileError", "Network", "Neuron", "Node", "NonFiniteError", "Progress", "RigL", "default_threads",
    "load", *_functions,
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # What few programs need at once is imported when asked for.
    if name in ("ModelFileError", "load"):
        from mlgraph import modelfile

        return getattr(modelfile, name)
    if name == "CheckpointError":
        from mlgraph.checkpoint import CheckpointError

        return CheckpointError
    if name in ("SET", "GradualPruning", "RigL"):
        from mlgraph import sparsify

        return getattr(sparsify, name)
    if name in ("datasets", "drawing", "pruning", "sparsify", "testing"):
        from importlib import import_module

        return import_module(f"mlgraph.{name}")
    if name == "__version__":
        from importlib.metadata import version

        return version("mlgraph")
    raise AttributeError(f"module 'mlgraph' has no attribute {name!r}")
