# The public names for type checkers. tests/test_packaging.py compares them with those of __init__.py.
from mlgraph import datasets as datasets, exchange as exchange, pictures as pictures, testing as testing
from mlgraph._support.threads import default_threads as default_threads
from mlgraph.engine.function import Function as Function, Gradients as Gradients
from mlgraph.engine.quantized import QuantizedFunction as QuantizedFunction
from mlgraph.engine.trace import Trace as Trace
from mlgraph.graph.arrays import Edges as Edges, Neurons as Neurons
from mlgraph.graph.derivatives import grad as grad
from mlgraph.graph.functions import *  # noqa: F403
from mlgraph.graph.graph import Graph as Graph
from mlgraph.graph.topology import CycleError as CycleError
from mlgraph.graph.views import Edge as Edge, Neuron as Neuron, Node as Node
from mlgraph.models.history import History as History
from mlgraph.models.layer import Layer as Layer
from mlgraph.models.model import Model as Model
from mlgraph.models.model_file import ModelFileError as ModelFileError, load as load
from mlgraph.models.network import Network as Network
from mlgraph.models.population import Population as Population
from mlgraph.sparsity.gradual_pruning import GradualPruning as GradualPruning
from mlgraph.sparsity.rewiring import SET as SET, RigL as RigL
from mlgraph.sparsity.schedules import Schedule as Schedule
from mlgraph.training.callbacks import Callback as Callback, EarlyStopping as EarlyStopping
from mlgraph.training.checkpoint import CheckpointError as CheckpointError
from mlgraph.training.loop import Progress as Progress
from mlgraph.training.nonfinite import NonFiniteError as NonFiniteError
from mlgraph_ext import ISA as ISA

__version__: str
