"""mlgraph: a neural network as an explicit graph of scalars, swept over batches without the GIL."""

from mlgraph_ext import ISA as ISA

from mlgraph.engine import available_threads as default_threads
from mlgraph.graph import CycleError, Edge, Graph, Neuron, Node
from mlgraph.network import Layer, Model, Network
from mlgraph.training import History, NonFiniteError, Progress
