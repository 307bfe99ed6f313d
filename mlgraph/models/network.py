"""Networks: models of layers, one behind the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Int64
from mlgraph._support.attributes import spelled
from mlgraph._support.checks import one_of, share, truth, whole
from mlgraph._support.interrupts import uninterrupted
from mlgraph._support.tables import to_text
from mlgraph.engine.losses import CROSS_ENTROPIES, SQUARED, check_classes
from mlgraph.graph import ops
from mlgraph.graph.arrays import Edges
from mlgraph.graph.graph import Graph
from mlgraph.graph.initializers import called, checked_init, draw
from mlgraph.graph.views import Neuron
from mlgraph.models.layer import Layer, dropout_of
from mlgraph.models.model import Model

if TYPE_CHECKING:
    from typing_extensions import Self  # that of typing is of Python 3.11


class Network(Model):
    """A model of layers, each of which reads all outputs of the layer before it.

    A network without layers cannot be run, cut or saved (ValueError).

    Parameters
    ----------
    n_inputs : int
    seed : int, optional
        Of the graph's own generator: fixes the first weights, and all that calls without a seed draw
        later. By default random bits of the system.

    Attributes
    ----------
    graph : Graph
        Its inputs are nodes 0 to n_inputs - 1.
    history : History
        Of the last `fit`.

    Raises
    ------
    TypeError, ValueError
        If `n_inputs` is not a positive integer, or `seed` is neither None nor an integer of
        at least 0.

    Examples
    --------
    >>> net = mlgraph.Network(784, seed=0)
    >>> net.add_layer(32, activation="leaky_relu")
    <Layer of 32 leaky_relu neurons>
    >>> net.add_layer(10, activation="softmax")
    <Layer of 10 softmax neurons>
    >>> net.n_edges
    25408
    """

    _elsewhere: ClassVar = {
        **Model._elsewhere,
        **dict.fromkeys(("add", "add_dense"), "add_layer"),
        "add_dropout": "add_layer(size, dropout=0.5)",
    }

    _ends: list[int]

    @spelled(
        **dict.fromkeys(("input_dim", "input_shape", "input_size", "in_features"), "n_inputs"),
        **dict.fromkeys(("layers", "hidden", "hidden_layer_sizes", "activation", "dropout"), "added with add_layer"),
        **dict.fromkeys(("learning_rate", "optimizer", "epochs", "batch_size"), "an argument of fit"),
        loss='an argument of the last layer, as in add_layer(1, loss="mse")',
        random_state="seed",
    )
    def __init__(self, n_inputs: int, *, seed: int | None = None) -> None:
        n_inputs = whole("n_inputs", n_inputs)
        self._begin(Graph(seed=seed))
        self._loss = "squared_error"
        self.output_ids, self.loss_ids, self.probability_ids = [], [], []
        self._ends = [node.id for node in self.graph.add_inputs(n_inputs)]

    @spelled(
        kernel_initializer="init",
        use_bias="bias",
        act="activation",
        **dict.fromkeys(("units", "n_neurons", "neurons", "out_features"), "size"),
    )
    def add_layer(
        self,
        size: int,
        activation: str | None = None,
        *,
        dropout: float = 0.0,
        weight_dropout: float = 0.0,
        bias: bool = True,
        loss: str | None = None,
        init: str | Callable[[tuple[int, int]], npt.ArrayLike] | None = None,
    ) -> Layer:
        """Add neurons that read all outputs of the layer before.

        Weights begin normally distributed with variance 1 / (3 fan-in), biases at 0. In a deep
        network such weights are too small to learn from: with more than four layers choose an
        `init`, such as "lecun_normal" with three times the variance or "he_normal" with six times.

        Parameters
        ----------
        size : int
        activation : str, optional
            identity, relu, leaky_relu (of slope 0.01 below 0), elu, gelu, silu, softplus, sigmoid,
            tanh or softmax. By default leaky_relu for a hidden layer and identity for the last one:
            a layer is the last one until another is added.
        dropout : float
            Share of the neurons dropped in training (inverted dropout: the others are scaled up).
            They are chosen anew for each step, or for each 128 examples of a larger step.
        weight_dropout : float
            Share of the incoming edges dropped in training, chosen anew for each 32 examples
            (DropConnect, Wan et al. 2013); rounded to 1/65536.
        bias : bool
        loss : str, optional
            The loss of the network if this is its last layer; see `Model`. After softmax it is
            softmax_cross_entropy, else squared_error or, if asked for, mse; after sigmoid also
            binary_cross_entropy.
        init : str or callable, optional
            How the first weights are drawn: "he_normal" or "he_uniform" with variance 2 / fan-in
            (He et al. 2015, for relu), "glorot_normal" or "glorot_uniform" with 2 / (fan-in +
            fan-out) (Glorot and Bengio 2010, for tanh and sigmoid), "lecun_normal" with 1 / fan-in
            (LeCun et al. 1998), or "zeros". Fan-in is the number of sources of a neuron, fan-out
            the size of the layer. Uniform weights are within sqrt(3 variance) of 0; normal ones are
            not truncated. A callable gets the shape (neurons, sources) and returns the weights.

        Returns
        -------
        Layer

        Raises
        ------
        RuntimeError
            If the network is being trained.
        ValueError
            If the loss does not fit the activation or the size (a softmax needs two outputs), or
            neurons whose values become probabilities are to be dropped.
        """
        size, chosen = whole("size", size), activation is not None
        activation = one_of("activation", activation, (*ops.ACTIVATIONS, "softmax")) if chosen else "identity"
        fitting = {"softmax": CROSS_ENTROPIES[:1], "sigmoid": (*SQUARED, CROSS_ENTROPIES[1])}
        fits = fitting.get(activation, SQUARED)
        wanted = dict(zip(CROSS_ENTROPIES, fitting, strict=True)).get(str(loss), activation)
        if wanted != activation:
            raise ValueError(f"activation: expected {wanted}, which {loss} goes with, got {activation}")
        loss = fits[0] if loss is None else one_of(f"loss after {activation}", loss, fits)
        check_classes("size", loss, size)
        bias, init = truth("bias", bias), checked_init(init)
        dropout, weight_dropout = dropout_of(dropout, loss in CROSS_ENTROPIES), share("weight_dropout", weight_dropout)
        inner = "identity" if loss in CROSS_ENTROPIES else activation
        weights = called(init, (size, len(self._ends))) if callable(init) else None
        with self.graph.lock:
            self.graph.require_not_training("add_layer")
            sources = np.array(self._ends, np.int32)
            # With outputs that are in no layer the network could not be saved.
            with self.graph.one_edit(), uninterrupted():
                if isinstance(init, str):
                    weights = draw(init, self.graph.random, (size, len(sources)))
                ids = self.graph.add_neurons(sources, inner, n=size, weights=weights, biases=0.0 if bias else None)
                self._define([Neuron(self.graph, i) for i in ids], loss)
                given = activation if chosen else None
                layer = Layer(self.graph, list(ids), given, dropout, weight_dropout, self.probability_ids)
                if self._layers:
                    self._layers[-1].become_hidden()
                self._add(layer)
        return layer

    def widen(self, layer: Layer, n: int = 1, *, seed: int | None = None) -> list[Neuron]:
        """Add neurons to a hidden layer; until they are trained, they change no output except by rounding.

        They read all of the layer before that is alive, with weights as in a new layer; all neurons
        of the next layer that are alive read them, with weights of 0. They have biases if a neuron
        of the layer has one. None is frozen. It is one edit.

        Parameters
        ----------
        layer : Layer
            One of `layers`, except the last and layers of probabilities.
        n : int
        seed : int, optional
            By default drawn from the graph's own generator. It fixes the weights, together with the
            number of nodes in the graph.

        Returns
        -------
        list of Neuron
            The new neurons, from then on the last `n` of the layer.

        Raises
        ------
        CycleError
            If edges that lead back to the layer before would make a cycle; nothing has changed.
        TypeError, ValueError
            If an argument is not as documented, or nothing is alive in the layer before or behind.

        Examples
        --------
        A neuron becomes two, each with half of its effect (Chen et al. 2016, Net2Net):

        >>> net = mlgraph.Network(2, seed=0)
        >>> hidden, _ = net.add_layer(3, "tanh"), net.add_layer(1, "identity")
        >>> neuron, before = hidden[0], net.predict([[0.5, -1.0]])
        >>> (twin,) = net.widen(hidden)
        >>> twin.weights, twin.bias = neuron.weights, neuron.bias
        >>> for edge, other in zip(neuron.out_edges, twin.out_edges):
        ...     edge.weight = other.weight = edge.weight / 2
        >>> bool(np.allclose(net.predict([[0.5, -1.0]]), before)), net
        (True, <Network 2-4-1: 12 edges>)
        """
        from mlgraph.sparsity.growing import widen

        return widen(self, layer, n, seed)

    @spelled()
    def regrow(
        self,
        fraction: float,
        *,
        by: str | Callable[[Edges], npt.ArrayLike] = "random",
        scope: str = "global",
        block: int = 1,
        data: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
        seed: int | None = None,
        n_threads: int | None = None,
    ) -> None:
        """Add edges of weight 0 from layer to layer; until they are trained, they change no output except by rounding.

        It is one edit.

        Parameters
        ----------
        fraction : float
            Share of the free places that get an edge. A place is free if no edge is there and both
            nodes are alive, unless an edge there might make a cycle with edges that lead back or
            within a layer. What was cut off stays so.
        by : "random", "gradient" or callable
            "gradient": where the loss over `data` is steepest (Evci et al. 2020). A callable takes
            the possible edges as `mlgraph.Edges` of weight 0, and returns a score for each; those
            with the highest are added. (It may run the network; editing it is a RuntimeError.) Of
            equal scores some are taken at random, always the same ones.
        scope : "global" or "layer"
            Whether places are compared across layers, or each layer gets edges in the same share of
            its places.
        block : int
            How many adjacent neurons of a layer gain a source together, as `prune` cuts them. Their
            places for that source all score the root mean square of their scores (with a callable
            the mean, at random one number).
        data : (x, y), optional
            For the gradient.
        seed : int, optional
            For "random". By default drawn from the graph's own generator.
        n_threads : int, optional
            As for `fit`.

        Raises
        ------
        ValueError
            If the gradient is asked for without `data`, or `data` are not what `fit` takes; nothing
            has changed.
        """
        from mlgraph.sparsity.growing import regrow

        with self.require_outputs():
            regrow(self, fraction, by=by, scope=scope, block=block, data=data, seed=seed, n_threads=n_threads)

    def _renumber(self, other: Self, number: Int64) -> None:
        self._ends = number[other._layers[0].source_ids].tolist()
        for layer in other._layers:
            kept = [i for i in number[layer.ids].tolist() if i >= 0]
            if kept:
                probabilities = number[layer.probability_ids].tolist() if layer.probability_ids else []
                self._add(
                    Layer(self.graph, kept, layer._activation, layer.dropout, layer.weight_dropout, probabilities)
                )

    def _add(self, layer: Layer) -> None:
        self._layers.append(layer)
        layer.source_ids = self._ends
        self._ends = layer.probability_ids or list(layer.ids)
        self.engines.clear()

    @property
    def is_layered(self) -> bool:
        """Whether the layers describe the whole network.

        True if each neuron of each layer reads only outputs of the layer before, and has the
        activation of its layer. Then the weights, biases and activations of the layers are all that
        the outputs depend on. Edges may have been cut. False after an edge that jumps over a layer,
        leads back, or reads a node that is in no layer; or after another activation of a neuron.
        """
        with self.graph.lock:
            return all(layer.describes_its_neurons() for layer in self._layers)

    def __str__(self) -> str:
        """A table of the layers; the repr is one line."""
        names = ("layer", "neurons", "activation", "dropout", "edges", "parameters")
        with self.graph.lock:
            alive = self.alive()
            rows = [
                [
                    str(i),
                    f"{layer.size:,}",
                    layer.activation,
                    f"{layer.dropout:g}" if layer.dropout else "",
                    f"{sum(len(neuron.weights) for neuron in layer if alive[neuron.id]):,}",
                    f"{len(layer.parameter_places()):,}",
                ]
                for i, layer in enumerate(self.layers)
            ]
        return f"{self!r}\n{to_text(names, rows)}" if rows else repr(self)

    def __repr__(self) -> str:
        inputs = self.layers[0].source_ids if self.layers else self._ends  # of the graph's, others may be targets
        sizes = "-".join(str(n) for n in (len(inputs), *(layer.size for layer in self.layers)))
        with self.graph.lock:
            alive, layers = self.alive(), enumerate(self._layers)
            counts = [(i, layer.size, int(np.count_nonzero(alive[layer.ids]))) for i, layer in layers]
            notes = [f"{n} of {size} neurons of layer {i} alive" for i, size, n in counts if n < size]
            notes += [] if self.is_layered else ["not layered"]
        return f"<Network {'; '.join([f'{sizes}: {self.n_edges} edges', *notes])}>"
