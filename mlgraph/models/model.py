"""Models that learn: any graph with outputs and a loss."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Bool, Float32, Ids, Int32, Int64
from mlgraph._support.attributes import Declared, spelled
from mlgraph._support.checks import StrOrBytesPath, level_outside
from mlgraph.compiler.grouping import Dropout
from mlgraph.engine.engine import Engine
from mlgraph.engine.function import Gradients, places_in
from mlgraph.engine.losses import CROSS_ENTROPIES, as_weights, define_loss, weighted
from mlgraph.engine.trace import Trace, Tracing, trace
from mlgraph.graph.arrays import Edges, bias_places, parameter_places, wiring
from mlgraph.graph.compaction import compacted
from mlgraph.graph.edits import cut, note_needed_before
from mlgraph.graph.graph import Graph, checked_graph
from mlgraph.graph.ids import ids_of
from mlgraph.graph.ops import NEURON, PARAMETER
from mlgraph.graph.topology import Topology, ancestors, levels_of
from mlgraph.graph.views import Edge, Freezable, Neuron, Node, NodesLike, described, name_of
from mlgraph.models.classes import Classes, checked_classes, n_classes_of
from mlgraph.models.history import History
from mlgraph.models.layer import Layer
from mlgraph.models.metrics import Metrics
from mlgraph.models.running import (
    answers,
    as_arrays,
    engine_of,
    evaluate,
    execute,
    labelled,
    outputs_of,
    read,
    read_to_predict,
    read_with_targets,
    warn_of_bytes,
)
from mlgraph.models.scaling import Scaling, as_data, checked_columns, checked_scaling

if TYPE_CHECKING:
    from typing_extensions import Self  # that of typing is of Python 3.11

    from mlgraph.engine.quantized import QuantizedFunction
    from mlgraph.pictures.drawing import Drawing
    from mlgraph.sparsity.schedules import Schedule
    from mlgraph.studio.studio import Studio
    from mlgraph.training.callbacks import Callback
    from mlgraph.training.loop import Progress


_NONE = np.zeros(0, bool)


def _reading_of(graph: Graph) -> tuple[Scaling | None, tuple[str, ...] | None]:
    """The scaling and the columns of the models of a graph, if they have one in common."""
    found = {
        repr(each): each
        for each in ((model.scaling, model.columns) for model in graph.models if isinstance(model, Model))
        if each[0]
    }
    return found.popitem()[1] if len(found) == 1 else (None, None)


def _classes_of(graph: Graph, n: int) -> Classes | None:
    """The n classes of the models of a graph, if those of one are as many, and no other has others."""
    models = [model for model in graph.models if isinstance(model, Model)]
    found = {model.classes for model in models if model.classes and len(model.classes) == n}
    return found.pop() if len(found) == 1 else None


class Model(Freezable, Declared):
    """A graph that can be trained: outputs and a loss.

    Parameters
    ----------
    graph : Graph
    outputs : Node, or sequence of Node, or array of their ids
        For the cross-entropies these are logits, one for each class.
    loss : "softmax_cross_entropy", "binary_cross_entropy", "squared_error", "mse" or Node
        The loss of a batch is the mean of the losses of its examples.

        "softmax_cross_entropy": an example has one class, or a probability or weight t for each
        class. Its loss is the sum over the classes of -t log p.

        "binary_cross_entropy": each output z answers a yes-or-no question, with a target t from 0
        to 1. The loss of an example is the sum over the outputs of softplus(z) - t z. That is
        -log sigmoid(z) for t = 1 and -log(1 - sigmoid(z)) for t = 0.

        "squared_error": the sum over the outputs of (output - target)^2. "mse": their mean, as Keras.

        A node is itself the loss. Its targets are the last inputs of the graph.

        A model with a cross-entropy adds its own loss nodes to the graph. Only a `Network` uses the
        dropout of its layers; other models of the same graph train without.

    Attributes
    ----------
    graph : Graph
    history : History
        History of the last `fit`.

    Raises
    ------
    TypeError
        If `graph` is not a graph, or `outputs` are not nodes.
    ValueError
        If there is no output, the loss is unknown, or a softmax has only one output. Also if an
        output has no path from an input, a parameter or a constant, belongs to another graph, or is
        a probability where a cross-entropy needs logits.

    Examples
    --------
    >>> g = mlgraph.Graph()
    >>> x = g.add_input("x")
    >>> slope, intercept = g.add_parameter(0.0), g.add_parameter(0.0)
    >>> line = mlgraph.Model(g, slope * x + intercept)
    >>> history = line.fit([[0.0], [1.0], [2.0]], [[1.0], [3.0], [5.0]], epochs=300, batch_size=3, learning_rate=0.1)
    >>> round(slope.value, 3), round(intercept.value, 3)
    (2.0, 1.0)
    """

    graph: Graph
    history: History
    output_ids: list[int]
    loss_ids: list[int]
    probability_ids: list[int]
    _loss: str
    _layers: list[Layer]
    _scaling: Scaling | None
    _columns: tuple[str, ...] | None
    _classes: Classes | None
    needed_before: Bool
    engines: dict[tuple[int, ...], Engine]
    _counted: tuple[tuple[int, ...], int]
    _tracing: Tracing
    _elsewhere: ClassVar = {
        **Freezable._elsewhere,
        **{name: f"layer.{name}" for name in ("dropout", "weight_dropout", "activation", "weights")},
        **dict.fromkeys(("get_weights", "coefs_", "state_dict"), "layer.weights, or graph.get_parameters()"),
        **dict.fromkeys(("set_weights", "load_state_dict"), "layer.weights, or graph.set_parameters()"),
        **dict.fromkeys(("load", "load_weights"), "mlgraph.load(path)"),
        "parameters": "graph.get_parameters()",
        "classes_": "classes",
        "score": 'evaluate(x, y)["accuracy"]',
        "summary": "print(model)",
        "inputs": "graph.inputs",
        "nodes": "graph",
        "edges": "graph.edges()",
        "neurons": "graph.neurons()",
        "compile": "fit, which takes the optimizer; the loss belongs to the last layer or to the Model",
        "partial_fit": "fit, which goes on from the present parameters",
    }

    def __init__(self, graph: Graph, outputs: Node | NodesLike, loss: str | Node = "squared_error") -> None:
        self._begin(checked_graph(graph))
        with graph.lock:
            is_first = not len(graph.models)
            if not is_first:
                self._scaling, self._columns = _reading_of(graph)
            self._define([outputs] if isinstance(outputs, Node) else outputs, loss)
            if not is_first:
                self._classes = _classes_of(graph, n_classes_of(self._loss, len(self.output_ids)))

    def _begin(self, graph: Graph) -> None:
        vars(self).update(  # faster than assignments, which check the names
            graph=graph,
            history=History(),
            _layers=[],  # only a `Network` has any
            _scaling=None,
            _columns=None,
            _classes=None,
            needed_before=_NONE,  # which nodes the model needed before an edit, if the graph had other models then
            engines={},  # by the nodes that they compute
            _counted=((), 0),  # the last number of edges, and the edits and sinks that it belongs to
            _tracing=Tracing(),
        )

    def _define(self, outputs: NodesLike, loss: str | Node) -> None:
        ids = ids_of(self.graph, "outputs", outputs, 1)
        ends = [("outputs", i) for i in ids]
        ends += [("loss", i) for i in ids_of(self.graph, "loss", [loss])] if isinstance(loss, Node) else []
        live = self.graph.live()
        for what, i in ends:
            if not live[i]:
                raise ValueError(
                    f"{what}: no path leads from an input, parameter or constant to {name_of(self.graph, i)}"
                )
        defined = define_loss(self.graph, ids, loss)
        self.output_ids, (self._loss, self.loss_ids, self.probability_ids) = ids, defined
        self._classes = None  # of a network, other outputs mean something else
        self.graph.models.add(self)

    def __repr__(self) -> str:
        sizes = (("input", self.graph.n_inputs), ("output", len(self.output_ids)), ("edge", self.n_edges))
        shape = ", ".join(f"{n} {what}" + "s" * (n != 1) for what, n in sizes)
        return f"<Model of {shape}: {self.loss}>"

    @property
    def loss(self) -> str:
        """Name of the loss that `fit` lowers; "node" if that is a node."""
        return self._loss

    @property
    def scaling(self) -> Scaling | None:
        """How the numbers of the data are read: "bytes", "unscaled" or (mean, std).

        "bytes": numbers from 0 to 255, which are divided by 255, whatever their dtype. "unscaled":
        as they are. (mean, std), two arrays of float64 of shape (columns,): as (x - mean) / std, and
        any further columns, which may be targets, as they are.

        None: not decided yet. The first `fit` decides on "bytes" for data of uint8 with a number
        above 1, on (mean, std) if ``standardize=True``, else on "unscaled". Until then other methods
        read data as `fit` would. It may be assigned, but not during training.

        A new model of a graph takes the scaling of the graph's other models, if that is one. Files
        and copies keep it. A `Function` reads numbers as they are.
        """
        return self._scaling

    @scaling.setter
    def scaling(self, scaling: Any) -> None:
        checked = checked_scaling(scaling)
        with self.graph.lock:
            self.graph.require_not_training("scaling")
            self._scaling = checked

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Names of the data's columns, which the first `fit` with a frame remembers; None before.

        From then on, frames are read in this order of columns, whatever theirs is. Arrays have no
        names, and are read as they are. It may be assigned, but not during training.

        Inputs that have no name of their own are called by these names, as in ``net.graph["age"]``,
        reprs, errors and pictures.
        """
        return self._columns

    @columns.setter
    def columns(self, columns: Iterable[str] | None) -> None:
        checked = checked_columns(columns, self.graph.n_inputs)
        with self.graph.lock:
            self.graph.require_not_training("columns")
            self._columns = checked

    @property
    def classes(self) -> Classes | None:
        """The labels that the outputs stand for, if they are not 0 to n - 1; else None.

        The first `fit` with strings as labels decides on them: the different labels, sorted, as many
        as there are outputs (two for one output with the binary cross-entropy). The very first
        `fit` decides likewise on whole numbers that are not from 0 to n - 1, if there are n different
        ones. From then on labels are given, and predicted, in this form; `predict_proba` has a
        column for each class in this order. It may be assigned, but not during training.

        A new model of a graph takes the classes of the graph's other models, if it has as many. Files
        and copies keep them.
        """
        return self._classes

    @classes.setter
    def classes(self, classes: Iterable[str] | Iterable[int] | None) -> None:
        checked = checked_classes(classes, n_classes_of(self._loss, len(self.output_ids)))
        with self.graph.lock:
            self.graph.require_not_training("classes")
            self._classes = checked

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers of a `Network`, from the first hidden layer to the outputs; empty for other models."""
        return tuple(self._layers)

    @property
    def outputs(self) -> list[Node]:
        """The output nodes: the last layer of a `Network`, or the logits if the loss is a cross-entropy."""
        return [self.graph[i] for i in self.output_ids]

    @property
    def probabilities(self) -> list[Node]:
        """The nodes whose values `predict_proba` returns; empty unless the loss is a cross-entropy."""
        return [self.graph[i] for i in self.probability_ids]

    @property
    def n_edges(self) -> int:
        """Number of edges that the outputs or the loss need; parameter nodes are not edges."""
        with self.graph.lock:
            graph, key = self.graph, (self.graph.edits, *self.sinks)
            if self._counted[0] != key:
                needed = self.alive()
                sources = graph.topology().sources_of(np.flatnonzero(needed & (graph.codes >= NEURON)))
                self._counted = key, int(np.count_nonzero(needed[sources]))
            return self._counted[1]

    @property
    def n_parameters(self) -> int:
        """Number of weights, biases and parameter nodes that the outputs or the loss need."""
        with self.graph.lock:
            graph, needed = self.graph, np.flatnonzero(self.alive() & (self.graph.codes >= PARAMETER))
            biases = np.count_nonzero(bias_places(graph, needed) >= 0)
            return self.n_edges + int(biases + np.count_nonzero(graph.codes[needed] == PARAMETER))

    @property
    def sparsity(self) -> float:
        """1 - `n_edges` / (the sum of the highest number of incoming edges that each neuron has ever had).

        An edge that was added and cut again counts as cut. A disconnected neuron counts with all
        edges that it had, and so does a neuron that no model has ever needed. Because of such
        neurons `prune` may cut less, or nothing; `compact` removes them.

        Neurons that only other models of the graph need do not count while those models exist. A
        copy or a file contains this model alone, and counts those neurons as cut.
        """
        with self.graph.lock:
            graph, own = self.graph, self.own() & (self.graph.codes >= NEURON)
            made = int(graph.storage.max_sources_of(graph.records[own]).sum())
            return max(0.0, 1 - self.n_edges / made) if made else 0.0

    # --- cutting and growing ----------------------------------------------------------------------

    @spelled()
    def prune(
        self,
        amount: float | None = None,
        *,
        sparsity: float | None = None,
        neurons: float | None = None,
        by: str | Callable[..., npt.ArrayLike] = "path",
        scope: str = "global",
        block: int = 1,
        data: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
        seed: int | None = None,
        n_threads: int | None = None,
    ) -> None:
        """Cut the edges or neurons with the lowest scores, as one edit, which `undo` takes back.

        Edges are ranked by bottleneck: a path from an input, a parameter or a constant to an output
        scores as its weakest edge, and an edge as its best path. A large weight is therefore cut
        together with a small one that all its paths share. The edges that remain are connected. An
        operation passes on the score of its best argument. Neurons are ranked in the same way. Only
        "magnitude" ranks each edge or neuron by itself. Whatever the criterion, no output is cut
        off: the best path to each stays. During `fit`, in a schedule or a callback, frozen edges
        stay.

        Parameters
        ----------
        amount : float
            Fraction of the present edges to cut: a second ``prune(0.5)`` leaves a quarter.
        sparsity : float
            In place of `amount`: fraction of the edges that are cut afterwards, as `Model.sparsity`
            counts them. If the model is as sparse already, nothing is cut. In either case nodes that
            are left without a live source or a path to an output lose their edges, too, so the result
            may be sparser than requested. Edges that only other models of the graph need are not cut.
        neurons : float
            In place of these: fraction of the neurons that are cut afterwards. The outputs of
            all models of the graph stay and do not count.
        by : str or callable
            The score. "path": absolute value of the weight, ranked by bottleneck as described
            above. "magnitude": the same without paths, as the literature does. Many of the largest
            weights may then lead nowhere; at high sparsity fewer edges remain, with less accuracy.
            "saliency": |weight x gradient| of the mean loss over `data`. "random": random numbers. A
            callable takes `mlgraph.Edges` (or, for neurons, a list of `Neuron`) and returns a score
            for each. It may run the model but must not edit it, and must not wait for another
            thread that runs the model, which would wait for the cut.

            The magnitude of a neuron is the norm of its incoming weights times that of its outgoing
            weights. Its saliency is |sum of weight x gradient| over its outgoing weights (Molchanov
            et al. 2017, Pruning convolutional neural networks). Ties are broken at random, always
            in the same way.
        scope : "global" or "layer"
            Whether all edges are compared with each other, or each layer loses the same fraction. A
            graph without layers is cut level by level; since a cut may move neurons to other
            levels, the same call again may cut more.
        block : int
            Number of adjacent neurons of a layer (or level) that keep or lose a source together
            (Lin et al. 2022, 1xN pattern for pruning convolutional neural networks). Their edges
            from that source share one score: the root mean square of their scores, the mean for a
            callable, one number for "random". With AVX2 or AVX-512, neurons with the same sources
            run faster, best in fours. Single edges of a block are cut if their neuron is weak, or
            to reach the exact number. `compact` renumbers neurons, and so changes their blocks.
        data : (x, y), optional
            For the saliency; other criteria need none.
        seed : int, optional
            For "random". By default drawn from the graph's own generator.
        n_threads : int, optional
            As for `fit`.

        Raises
        ------
        ValueError
            If too few edges would be kept for a path to each output; nothing has changed. (The
            fewest edges for that are not searched for among all paths: an edge or two more may be
            required. A run that has begun keeps them.)

        Warns
        -----
        UserWarning
            If more than half of the edges that were kept have gone with the others.
        """
        from mlgraph.sparsity.pruning import prune

        with self.require_outputs():
            kept = prune(
                self,
                amount,
                sparsity=sparsity,
                neurons=neurons,
                by=by,
                scope=scope,
                block=block,
                data=data,
                seed=seed,
                n_threads=n_threads,
            )
            left = self.n_edges
        if 2 * left < kept:
            what = f"{kept} edges are kept, but only {left} of them still lie between what is live and an output"
            warnings.warn(f"prune: {what}", UserWarning, stacklevel=level_outside())

    def undo(self) -> None:
        """Take back the last edit; see `Graph.undo`."""
        self.graph.undo()

    def redo(self) -> None:
        """Make the edit again that the last `undo` took back; see `Graph.redo`."""
        self.graph.redo()

    def compact(self) -> Self:
        """A copy without the nodes that neither an output nor the loss needs; inputs stay.

        The remaining nodes are renumbered in the same order. A layer keeps its remaining neurons,
        and is gone if there are none (a layer of probabilities keeps all its neurons). The copy
        computes the same, shares nothing with this model, and has no history. Its `sparsity` counts
        the neurons that it has. Attributes of a class that you have derived are copied as by
        `copy.deepcopy`: nodes among them belong to a copy of the whole graph, not to the compact one.
        """
        with self.require_outputs():
            graph, edges = self.graph, wiring(self.graph)
            dead = ~graph.live()[edges.source]
            if dead.any():  # edges out of neurons that are cut off add 0, and are not needed
                graph = graph.copy()
                cut(graph, edges, dead)
            graph, number = compacted(graph, ancestors(graph, graph.topology(), self.kept_ids()))
            other = object.__new__(type(self))
            outputs, loss_nodes, probabilities = (
                number[np.array(nodes, int)].tolist()
                for nodes in (self.output_ids, self.loss_ids, self.probability_ids)
            )
            other._restore(graph, outputs, self._loss, loss_nodes, probabilities)
            other._renumber(self, number)
            other._scaling, other._columns, other._classes = self._scaling, self._columns, self._classes
            vars(other).update(deepcopy({name: value for name, value in vars(self).items() if name not in vars(other)}))
        return other

    # --- running ----------------------------------------------------------------------------------

    def forward(self, x: npt.ArrayLike, *, n_threads: int | None = None) -> Float32:
        """Values of the outputs (of the logits, for the cross-entropies).

        Parameters
        ----------
        x : array_like, shape (examples, inputs)
            Read as `scaling` and `columns` say. Columns after the last that an output reads may be missing:
            all of them, or only those that operations read, such as the targets of a loss of your
            own.
        n_threads : int, optional
            As for `fit`.

        Returns
        -------
        float32, shape (examples, outputs)

        Raises
        ------
        TypeError, ValueError
            If the data are not real numbers, or not of this shape.

        Warns
        -----
        UserWarning
            As `fit`, if there are several examples.
        """
        return self._values(x, self.output_ids, n_threads)

    def predict_proba(self, x: npt.ArrayLike, *, n_threads: int | None = None) -> Float32:
        """Probabilities of the classes, or of yes for each output, float32 of shape (examples, outputs).

        Parameters as for `forward`.

        Raises
        ------
        ValueError
            If the loss is no cross-entropy.
        """
        if not self.probability_ids:
            raise ValueError(
                f"predict_proba: expected a model with loss {' or '.join(CROSS_ENTROPIES)}, got {self.loss}"
            )
        return self._values(x, self.probability_ids, n_threads)

    def predict(self, x: npt.ArrayLike, *, n_threads: int | None = None) -> npt.NDArray[Any]:
        """The likeliest class of each example, int64 of shape (examples,); parameters as for `forward`.

        With the binary cross-entropy, 1 where yes is likelier, else 0. A model that has `classes`
        returns these labels. Without a cross-entropy, what `forward` returns. Predictions have
        shape (examples,) for classes and for one output, else (examples, outputs).

        Raises
        ------
        TypeError, ValueError
            As `forward`; and if an output is NaN, where classes or answers are asked for.
        """
        if self.loss == "softmax_cross_entropy":
            examples = read_to_predict(self, x, self.output_ids)
            predicted = np.empty(len(examples), np.int64)
            unclear = execute(
                self, examples, self.output_ids, values=self.output_ids, highest=predicted, n_threads=n_threads
            )[0]
            return labelled(self, predicted, unclear)
        return labelled(self, *answers(self.loss, self.forward(x, n_threads=n_threads)))

    def evaluate(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike = (),
        *,
        sample_weight: npt.ArrayLike | None = None,
        metrics: Sequence[str | Callable[..., float]] | None = None,
        n_threads: int | None = None,
    ) -> dict[str, float]:
        """Mean loss over the examples and, for classes or yes-or-no questions, accuracy as a fraction.

        An example counts as right if its highest output is that of its label or highest target, or
        if all its questions are answered right; never if its loss is not finite. Without weights, all
        examples count alike, whatever their targets add up to.

        Parameters
        ----------
        x : array_like, shape (examples, inputs)
            At least one example, read as for `forward`.
        y : array_like
            Labels or targets as for `fit`.
        sample_weight : array_like, shape (examples,), optional
            Loss and accuracy become weighted means, sum(weight * loss) / sum(weight), as the scores
            of scikit-learn. An example of weight 0 is left out, even if its loss is not finite.
        metrics : list of str or callable, optional
            More results. They are NaN if an output is not a finite number.

            For numbers: "mae", "mse", "rmse", "r2", each the mean over the outputs; "r2" is NaN where
            all targets of an output are equal. For classes: "f1_macro", the mean over the classes that
            occur. For two classes or one question: "roc_auc". For a softmax: "top_5_accuracy".
            "accuracy" is always there.

            A function f(y_true, y_pred), such as those of scikit-learn, gets what `predict` returns
            as y_pred: classes, answers 0 or 1, or numbers in float64. y_true is of the same kind: the
            class of the highest target, whether a target is above 0.5, or the targets. The result is
            called by its ``__name__``. If there are weights, it is called with ``sample_weight=``,
            too, without the examples of weight 0.
        n_threads : int, optional
            As for `fit`.

        Returns
        -------
        dict
            "loss", and "accuracy" where there is one. Then the metrics by name.

        Raises
        ------
        TypeError, ValueError
            If there is no example, `x` are not real numbers or not of this shape, or `y` or
            `sample_weight` is not what `fit` takes. If a metric is unknown, or is not for such a
            model. Errors of functions pass through.

        Warns
        -----
        UserWarning
            As `fit`.
        """
        more = Metrics(metrics)
        with self.require_outputs():
            weight = as_weights(sample_weight)
            data, y = as_arrays(x, y)
            examples, objective = read_with_targets(self, data, y)
            objective = weighted(objective, len(examples), weight)
            more.check(self, objective, y)
            warn_of_bytes(examples)
            scores = evaluate(self, examples, objective, n_threads)
            if not more.names:
                return scores
            outputs = outputs_of(self, examples, n_threads)
        return scores | more.of(objective, outputs, y, self.classes)  # without the lock, which a function need not know

    def gradients(self, x: npt.ArrayLike, y: npt.ArrayLike = (), *, n_threads: int | None = None) -> Gradients:
        """Derivatives of the mean loss over the examples with respect to the inputs of each and to all parameters.

        Parameters
        ----------
        x, y
            As for `fit`; `x` may also be not finite.
        n_threads : int, optional
            As for `fit`.

        Returns
        -------
        Gradients
            `values` are those of the outputs; `edges` has the derivative for each weight, in the
            order of `Graph.edges`.

        Raises
        ------
        TypeError, ValueError
            If there is no example, `x` are not real numbers or not of this shape, or `y` is not what
            `fit` takes.
        """
        with self.require_outputs():
            examples, objective = read_with_targets(self, x, y)
            examples.check_any()
            graph, n_inputs = self.graph, examples.array.shape[1]
            nodes = np.array([*graph.input_ids[:n_inputs], *self.output_ids], np.int32)
            found = trace(graph, examples, self.sinks, nodes, objective, n_threads=n_threads, tracing=self._tracing)
            parameters, places = engine_of(self).gradient(examples, objective, n_threads), places_in(graph)
        adjoints = found.adjoints
        assert adjoints is not None
        return Gradients(
            found.values[:, n_inputs:], adjoints[:, :n_inputs] / np.float32(len(examples)), parameters, places
        )

    def trace(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike | None = None,
        nodes: NodesLike | None = None,
        *,
        n_threads: int | None = None,
    ) -> Trace:
        """Values of nodes for every example and, with `y`, the derivatives of each example's loss with respect to them.

        Parameters
        ----------
        x : array_like, shape (examples, inputs)
            Read as for `forward`.
        y : array_like, optional
            Labels or targets as for `fit`; () where `x` has all that the loss reads.
        nodes : sequence of Node, or array of their ids, optional
            By default all nodes that an output or the loss needs, except the inputs, whose values
            are the data. If `x` lacks targets that the loss reads, only those that an output needs.
        n_threads : int, optional
            As for `fit`.

        Returns
        -------
        Trace
            ``trace[node]`` and ``trace.adjoint(node)`` are float32 of shape (examples,).

        Raises
        ------
        TypeError, ValueError
            If `x` are not real numbers or not of this shape, `y` is not what `fit` takes, or `nodes`
            are none, or not of this graph.

        Examples
        --------
        >>> g = mlgraph.Graph()
        >>> x = g.add_input("x")
        >>> hidden = g.add_neuron([x], "relu", weights=[2.0])
        >>> model = mlgraph.Model(g, g.add_neuron([hidden], weights=[3.0]))
        >>> traced = model.trace([[1.0], [-1.0]], [[6.0], [1.0]])
        >>> traced[hidden]
        array([2., 0.], dtype=float32)
        >>> traced.adjoint(hidden)  # of (3 hidden - target)^2
        array([ 0., -6.], dtype=float32)
        """
        with self.require_outputs():
            if y is not None:
                examples, objective = read_with_targets(self, x, y)
                wanted = None if nodes is None else ids_of(self.graph, "nodes", nodes, 1)
                return trace(
                    self.graph, examples, self.sinks, wanted, objective, n_threads=n_threads, tracing=self._tracing
                )
            # Without targets, a loss that is a node cannot be computed, but what the outputs need
            # can.
            data = as_data(x)
            wanted = None if nodes is None else ids_of(self.graph, "nodes", nodes, 1)
            lacks = data.array.ndim == 2 and data.array.shape[1] < engine_of(self).plan.width
            needed = self.output_ids if lacks else self.sinks
            examples = read(self, data, needed)
            return trace(self.graph, examples, needed, wanted, n_threads=n_threads, tracing=self._tracing)

    def draw(
        self, x: npt.ArrayLike | None = None, y: npt.ArrayLike | None = None, *, limit: int | None = None
    ) -> Drawing:
        """A picture of what leads to the outputs.

        Parameters
        ----------
        x : array_like, shape (inputs,) or (1, inputs), optional
            One example, or a frame of one: every node shows its value. Without the targets of a loss that is a node,
            the loss is not drawn.
        y : array_like, optional
            Its label or targets, as for `trace`. Every node that the loss depends on shows the
            derivative of the loss, too.
        limit : int, optional
            As for `mlgraph.pictures.Drawing`.

        Returns
        -------
        mlgraph.pictures.Drawing
            A notebook shows it; `to_svg` and `to_dot` give it as text.
        """
        from mlgraph.pictures.drawing import draw_model

        with self.require_outputs():
            return draw_model(self, x, y, limit)

    def _repr_svg_(self) -> str | None:
        return self.draw().to_svg() if self.output_ids else None

    def inspect(
        self, x: npt.ArrayLike, y: npt.ArrayLike | None = None, *, n_threads: int | None = None
    ) -> npt.NDArray[Any]:
        """A table over all neurons, layer by layer.

        Parameters
        ----------
        x : array_like, shape (examples, inputs)
        y : array_like, optional
            Labels or targets as for `fit`. With them the table has the effect of each neuron on
            loss and accuracy, which takes long for many thousands of neurons. A loss that is a node
            needs none if `x` contains its targets.
        n_threads : int, optional
            As for `fit`.

        Returns
        -------
        structured array, shape (neurons,)
            It prints as a table, of its first and last rows if it is long. ``table["mean"]`` is a
            column, ``table.keys()`` lists them, and ``table.to_pandas()`` is a frame. One row for each
            neuron:

            layer, index, node : its layer, its index there and its id. The layer is -1 for a neuron
            of a network that is in no layer; in a model without layers it is the level.
            alive : whether an output depends on it.
            mean, std : mean and standard deviation of its value over the examples.
            active : fraction of the examples in which its weighted sum is positive.
            dormant : its mean absolute value, divided by the mean over the alive neurons of its
            layer; 0 for a neuron that is always 0 (Sokar et al. 2023, The dormant neuron phenomenon
            in deep reinforcement learning).
            fan_in, fan_out : number of edges into it, and out of it into other neurons.
            norm_in, norm_out : Euclidean norms of their weights.
            bias : its bias, NaN without one.
            loss, accuracy : increase of the loss and decrease of the accuracy without it. NaN for
            outputs, for neurons without which an output is disconnected, and without `y`.

        Raises
        ------
        TypeError, ValueError
            If there is no example, `x` are not real numbers or not of this shape, or `y` is not what
            `fit` takes.

        Examples
        --------
        >>> net = mlgraph.Network(2, seed=0)
        >>> hidden, out = net.add_layer(3, "relu"), net.add_layer(1)
        >>> hidden[1].bias = -9.0
        >>> table = net.inspect([[0.0, 1.0], [1.0, 0.0]])
        >>> table["index"][(table["layer"] == 0) & (table["active"] == 0)]  # never active
        array([1], dtype=int32)
        """
        from mlgraph.pictures.inspection import inspect

        with self.require_outputs():
            return inspect(self, x, () if y is None and self.loss == "node" else y, n_threads)

    def ablate(
        self,
        what: Neuron | Edge | Edges | Iterable[Neuron | Edge | tuple[Node | int, Node | int]] | range | Ids,
        x: npt.ArrayLike,
        y: npt.ArrayLike = (),
        *,
        n_threads: int | None = None,
    ) -> dict[str, float]:
        """What `evaluate` would give without some neurons or edges; nothing changes.

        The result is that of a cut: a neuron that loses its last live source gives 0, too, whatever
        its bias.

        Parameters
        ----------
        what : Neuron, Edge, Edges or iterable
            As for `Graph.prune`.
        x, y : array_like
            As for `evaluate`.
        n_threads : int, optional
            As for `fit`.

        Returns
        -------
        dict
            As from `evaluate`.

        Raises
        ------
        ValueError
            If an output is among them, or would be left without a live source.

        Examples
        --------
        >>> g = mlgraph.Graph()
        >>> x = g.add_inputs(2)
        >>> model = mlgraph.Model(g, g.add_neuron(x, weights=[1.0, 2.0]))
        >>> model.evaluate([[1.0, 1.0]], [[3.0]])
        {'loss': 0.0}
        >>> model.ablate([(x[1], model.outputs[0])], [[1.0, 1.0]], [[3.0]])
        {'loss': 4.0}

        To give a neuron its mean value in place of 0, edit it, and undo the edit:

        >>> net = mlgraph.Network(2, seed=0)
        >>> hidden, _ = net.add_layer(3, "tanh"), net.add_layer(1, "identity")
        >>> x, y, neuron = [[1.0, 0.0], [0.0, 1.0]], [1.0, 2.0], hidden[0]
        >>> mean = net.trace(x)[neuron].mean()
        >>> with net.graph.one_edit(parameters=True):
        ...     neuron.activation, neuron.weights, neuron.bias = "identity", np.zeros(2), mean
        >>> bool(net.evaluate(x, y)["loss"] != net.ablate(neuron, x, y)["loss"])
        True
        >>> net.undo()
        """
        from mlgraph.pictures.inspection import ablate

        with self.require_outputs():
            return ablate(self, what, x, y, n_threads)

    def ablation_table(
        self,
        layer: Layer | Iterable[Neuron] | range | Ids,
        x: npt.ArrayLike,
        y: npt.ArrayLike = (),
        *,
        n_threads: int | None = None,
    ) -> npt.NDArray[Any]:
        """What `evaluate` would give without each neuron of a layer in turn, at far less than an evaluation each.

        The layer is computed once, and what depends on it once for each neuron; a single neuron
        costs an evaluation. Nothing changes.

        Parameters
        ----------
        layer : Layer, or iterable of Neuron, or array of their ids
            Neurons that do not depend on each other; outputs may be among them, and have NaN.
        x, y : array_like
            As for `evaluate`.
        n_threads : int, optional
            As for `fit`.

        Returns
        -------
        structured array, shape (neurons,)
            A table as that of `inspect`. node : id of the neuron. loss, accuracy : without it; NaN for an
            output, and for the last way to one.

        Raises
        ------
        ValueError
            If one of the neurons, outputs apart, depends on another.
        """
        from mlgraph.pictures.inspection import ablation_table

        with self.require_outputs():
            return ablation_table(self, layer, x, y, n_threads)

    @spelled(
        **dict.fromkeys(("lr", "learning_rate_init"), "learning_rate"),
        **dict.fromkeys(("max_iter", "n_epochs", "num_epochs"), "epochs"),
        **dict.fromkeys(("alpha", "l2"), "weight_decay"),
        **dict.fromkeys(("clipnorm", "global_clipnorm", "max_norm", "max_grad_norm"), "clip_norm"),
        **dict.fromkeys(("random_state", "random_seed"), "seed"),
        **dict.fromkeys(("validation", "val_data", "eval_set"), "validation_data"),
        **dict.fromkeys(("val_split", "validation_fraction"), "validation_split"),
        solver="optimizer",
        callback="callbacks, a list",
        early_stopping="callbacks=[mlgraph.EarlyStopping()]",
        loss='the loss of the last layer, as in add_layer(1, loss="mse"), or of the Model',
        dropout="the dropout of a layer, as in add_layer(32, dropout=0.5)",
        n_jobs="n_threads",
    )
    def fit(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike = (),
        *,
        epochs: int | None = None,
        batch_size: int | tuple[int, int] | None = None,
        learning_rate: float | tuple[float, float] | Callable[[float], float] | None = None,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        l1: float = 0.0,
        clip_norm: float | None = None,
        optimizer: str = "adam",
        keep_optimizer: bool = False,
        standardize: bool = False,
        sample_weight: npt.ArrayLike | None = None,
        class_weight: Mapping[Any, float] | str | None = None,
        validation_data: tuple[npt.ArrayLike, ...] | None = None,
        validation_split: float = 0.0,
        metrics: Sequence[str | Callable[..., float]] | None = None,
        shuffle: bool = True,
        seed: int | None = None,
        callbacks: Sequence[Callback | Callable[[Progress], Any]] | None = None,
        verbose: bool = False,
        sparsify: Schedule | None = None,
        on_nonfinite: str = "raise",
        checkpoint: StrOrBytesPath | None = None,
        checkpoint_every: float = 60.0,
        resume: bool = False,
        n_threads: int | None = None,
    ) -> History:
        """Train the model, starting from its current parameters.

        On x86-64, adjoints, gradients, moments and parameters below 1.2e-38, the smallest normal
        number of float32, are flushed to zero. (Plain SGD leaves weights whose data are all zero
        unchanged.)

        Parameters
        ----------
        x : array_like, shape (examples, inputs)
            Read as `scaling` and `columns` say; the first run decides on them. Numbers, a frame, or a
            matrix of scipy.sparse, which is converted to a dense array. Trailing columns that
            are not needed may be missing, as for `Model.forward`. Data must be finite. Do not change
            `x` during the run: it may be read in place.
        y : array_like
            Labels, integers of shape (examples,), or targets of shape (examples, outputs). Targets
            are read unchanged, bytes too: if `x` and `y` are the same images, divide `y` by 255.
            Shape (examples, 1) is read like (examples,).

            Labels may also be strings, or other integers than 0 to outputs - 1: see `classes`.

            Softmax cross-entropy: a target is at least 0, the probability of a class or a weight for
            it. An example whose targets are all 0 counts, in accuracies, as one of the first class.

            Binary cross-entropy: targets from 0 to 1.

            Squared error: with several outputs, a label means 1 for its output and 0 for the others.

            A node as the loss: targets of shape (examples,) or (examples, targets) are the last
            inputs of the graph, after the columns of `x`. Pass () if `x` contains them already.
        epochs : int, optional
            By default 10, or more for few examples: as many as 2,000 batches take.
        batch_size : int or (int, int), optional
            By default a 64th of the examples, but at least 32 and at most 128. A pair is (first,
            last): after every batch the size moves from the first to the last with p^2, where p is
            the fraction of the training that is done. The last batch of an epoch has the remaining
            examples. The gradient is the mean over the batch.
        learning_rate : float or (float, float) or callable, optional
            A pair is (first, last): the rate moves with p^1.5. By default it is (0.003, 0) for Adam
            and (0.05, 0) for SGD. A function of p must always return
            the same rate for the same p, which is 0 for the first batch and below 1 for the last.
            It is checked for a thousand values of p before the run. `History.learning_rate` has the
            rate of each batch.
        momentum : float
            v = momentum * v + gradient; w = w - rate * v, with v = 0 at the start. For Adam it is
            beta1.
        weight_decay : float
            Decoupled weight decay (Loshchilov & Hutter 2019, Decoupled weight decay regularization):
            each step also computes w = w - rate * weight_decay * w for the weights of edges, not for
            biases and parameter nodes. For SGD without momentum it equals adding weight_decay / 2 *
            w^2 to the loss, as other libraries do; with momentum, their decay corresponds to
            1 / (1 - momentum) times as much here. It is at most 1 / the highest learning rate. A
            model without edges refuses it, and `l1`, which would change nothing.
        l1 : float
            Move each weight by learning_rate * l1 towards 0 after a step, where it stops: the proximal
            step of l1 * |w| (Parikh and Boyd 2014, Proximal algorithms, section 6.5.2). Weights are
            exactly 0 then, but their edges stay; `prune` cuts them. Biases and parameter nodes do not
            move. It costs what `clip_norm` does.
        clip_norm : float, optional
            Scale the gradient of a step to this Euclidean norm if its norm is larger (Pascanu et al.
            2013, On the difficulty of training recurrent neural networks). The norm is that of all
            parameters that the step trains, as in torch's `clip_grad_norm_` and in Keras'
            `global_clipnorm`. A step that overflows still follows `on_nonfinite`. Each step becomes
            two calls: in batches of 128, an epoch of 784-32-10 on MNIST takes about six times as
            long, of LeNet-300-100 twice.
        optimizer : "sgd" or "adam"
            Adam is the efficient form at the end of section 2 of Kingma & Ba (2015), with beta2 =
            0.999 and epsilon = 1e-8, which is added before the bias correction.
        keep_optimizer : bool
            Go on with the optimizer of the graph's last run: with its velocity or moments, and Adam's
            number of steps. Rates and sizes of batches begin as given. The optimizer must be the same;
            SGD with and without momentum are two. If there was no run, or the model is from a file,
            which holds no such state, the optimizer begins with zeros, as it does by default.
        standardize : bool
            Read each column of `x` as (x - mean) / std, with mean and standard deviation of these
            data, and keep that as the model's `scaling`. A model that has such a scaling keeps its
            own; one that has another scaling is refused.
        sample_weight : array_like, shape (examples,), optional
            Numbers of at least 0, not all 0, by which the losses of the examples are multiplied. The
            loss of a batch is still divided by its number of examples, as in Keras: weights of 2 act
            as a doubled learning rate, and a batch of one example of weight 2 and one of weight 0 as
            the first alone. An example of weight 0 teaches nothing, but its loss must be finite,
            too. The history has the weighted losses, and accuracies of all examples alike. Scores
            that a schedule computes from the data are not weighted.
        class_weight : dict from label to weight, or "balanced", optional
            A weight for the examples of each label, 1 for labels that are not named. It multiplies
            `sample_weight`. "balanced" is n / (k * count) for k labels that occur, of which this one
            occurs `count` times in n examples, as in scikit-learn. Labels may also be given as
            targets 0 and 1. It does not apply to the validation data.
        validation_data : (x, y) or (x, y, sample_weight), optional
            Data that are evaluated after each epoch.
        validation_split : float
            Share of the examples that are held out of the training and evaluated after each epoch
            instead. They are chosen at random, for the same number of examples always the same.
        metrics : list of str or callable, optional
            As for `evaluate`, computed from the validation data after each epoch. The history has a
            column ``validation_<name>`` for each. An error of a function ends the run.
        shuffle : bool
        seed : int, optional
            By default drawn from the graph's own generator, so each call goes on in another order. It
            determines the order of the examples, dropout, and what a schedule does at random. Calls
            with the same seed repeat all that.
        callbacks : list of Callback or callable, optional
            The hooks of a `Callback`, for example `EarlyStopping`, are called after each step and
            each epoch. A function is called with a `Progress` about five times a second between
            steps, after the last step of an epoch, and after every epoch; the steps at which it is
            called differ from run to run. If one of them raises StopIteration, the run ends there:
            parameters stay, and a checkpoint can be resumed.
        verbose : bool
            True, or 1: print a line for each epoch with its loss, accuracy, validation results and seconds. At
            most about ten lines a second are printed, and always those of the first and last epoch.
        sparsify : GradualPruning, SET, RigL or another Schedule, optional
            Schedule that cuts and adds edges during the run.
        on_nonfinite : "raise", "skip" or "disconnect"
            What to do if a loss, an adjoint, a gradient or an updated parameter is not finite. Such
            a number never reaches a parameter. "raise": end the run with a `NonFiniteError`.
            "skip": leave the examples with such numbers out of the step, or all its examples if
            only a sum or the update overflowed. "disconnect": cut the neuron where the overflow
            began out of the graph and repeat the step. If it began at an operation, or at a neuron
            without which an output is disconnected, the neuron that contributed most is cut. The
            history lists skipped examples and cut neurons.
        checkpoint : path, optional
            File from which a run can be resumed with bitwise equal results. It is rewritten during
            training, at its end and at Ctrl-C. The previous checkpoint is kept as
            ``<checkpoint>.previous``. `mlgraph.load` reads the model in it. If it cannot be
            written, for example on a full disk, `fit` warns and continues.
        checkpoint_every : float
            Minimum number of seconds between two checkpoints.
        resume : bool
            Continue from the checkpoint, if there is one, with its graph and parameters. Data and
            arguments must be those of the interrupted run; without `seed`, the one in the checkpoint
            is used. The model must be as it was when the run began, made with the same seed, or be
            loaded from the checkpoint. On the same kind of processor, the result is bitwise equal to
            that of an uninterrupted run, except for `History.epoch_seconds`. A checkpoint includes a
            callback's edits of the graph and its `state_dict`, but not what `undo` takes back. After the
            end of the run, `fit` warns and trains nothing; the model and the history are those of the end.
            To train further, load the model and start another run.
        n_threads : int, optional
            By default as many as the process may use and the work is worth. Results are bitwise
            equal for any number.

        Returns
        -------
        History

        Raises
        ------
        TypeError, ValueError
            If an argument is not as documented; no parameter has changed.
        NonFiniteError
            If a number is not finite, and `on_nonfinite` is "raise" or no neuron can be
            disconnected. Parameters and optimizer state are those before the step. The error names
            the node where the overflow began.
        RuntimeError
            If the graph is already being trained, by another thread or by the run that called this
            callback; if a layer was added in the meantime; or if `learning_rate` raises
            StopIteration. Predicting during a run is allowed.
        CheckpointError
            If the checkpoint belongs to another run.
        ModelFileError
            If the checkpoint is damaged, and so is the previous one or there is none.
        OSError
            If the system does not let a checkpoint be read.

        Warns
        -----
        UserWarning
            If the run to resume has already ended. If unscaled data are whole numbers from 0 to 255. If the
            outputs cannot reach the targets, or labels are learnt without softmax. If the mean loss of
            the last epoch is more than ten times that of the first step; the text names columns or
            targets that are too large.
        RuntimeWarning
            If a checkpoint cannot be written, or if it is damaged and the previous one is used. If
            standard output cannot be written.

        Examples
        --------
        >>> xor = mlgraph.Network(2, seed=0)
        >>> hidden, out = xor.add_layer(4, "tanh"), xor.add_layer(2, "softmax")
        >>> x, y = [[0, 0], [0, 1], [1, 0], [1, 1]], [0, 1, 1, 0]
        >>> history = xor.fit(x, y, epochs=200, batch_size=4, learning_rate=0.1)
        >>> xor.predict(x)
        array([0, 1, 1, 0])
        >>> len(history.epoch_loss), bool(history.epoch_loss[-1] < history.epoch_loss[0])
        (200, True)
        """
        from mlgraph.training.fitting import prepared

        run = prepared(
            self,
            x,
            y,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            momentum=momentum,
            weight_decay=weight_decay,
            l1=l1,
            clip_norm=clip_norm,
            optimizer=optimizer,
            keep_optimizer=keep_optimizer,
            standardize=standardize,
            sample_weight=sample_weight,
            class_weight=class_weight,
            validation_data=validation_data,
            validation_split=validation_split,
            metrics=metrics,
            shuffle=shuffle,
            seed=seed,
            callbacks=callbacks,
            verbose=verbose,
            sparsify=sparsify,
            on_nonfinite=on_nonfinite,
            checkpoint=checkpoint,
            checkpoint_every=checkpoint_every,
            resume=resume,
            n_threads=n_threads,
        )
        run.train(lambda: None)
        run.warn()
        return self.history

    def save(self, path: StrOrBytesPath) -> None:
        """Write the model to one file, all of it or nothing; `mlgraph.load` reads it.

        The file holds the state of the graph's random generator. It does not hold the history, the
        edits for `undo`, or the optimizer's state.

        Parameters
        ----------
        path : path
            Taken as it is: no ending is added.

        Raises
        ------
        OSError
            If it cannot be written; what stood at `path` is still there.
        ValueError
            If a weight or bias is NaN.
        """
        from mlgraph.models.model_file import content, write

        write(path, content(self))

    def quantize(self, calibrate: npt.ArrayLike) -> QuantizedFunction:
        """The outputs in 8-bit integers, as ``to_c(dtype="int8")`` writes them: how accurate will they be?

        Parameters
        ----------
        calibrate : array_like, shape (examples, inputs)
            Typical data, as `fit` takes them, a few hundred examples or more. The ranges of their values decide on the
            scales; what later exceeds a range is clipped.

        Returns
        -------
        QuantizedFunction
            A function of the same kind of data, with `to_c`. It has the present parameters and does not follow the
            model.

        Raises
        ------
        TypeError, ValueError
            As for `Function.quantize`.

        Examples
        --------
        >>> net = mlgraph.Network(2, seed=0)
        >>> layer = net.add_layer(3, "softmax")
        >>> x = np.random.default_rng(0).normal(50, 10, size=(300, 2))
        >>> y = (x[:, 0] > 50).astype(int) + (x[:, 1] > 50)
        >>> history = net.fit(x, y, epochs=20, standardize=True)
        >>> q = net.quantize(x)
        >>> bool(np.mean(q(x).argmax(axis=1) == net.predict(x)) > 0.98)
        True
        """
        from mlgraph.models.units import function_of

        data: Any = as_data(calibrate, "calibrate")
        return function_of(self, data).quantize(data)

    def to_c(self, name: str = "network", *, dtype: str = "float32", calibrate: npt.ArrayLike | None = None) -> str:
        """Write the outputs as a function in C99, for use without Python: ``void name(const float *x, float *y)``.

        The function reads one example, in the units of the data that `fit` took, and scales it as the model does. It
        gives the numbers of `forward`: of a classifier, the class with the largest score is the answer. A comment at
        the top names columns and classes. `Function.to_c` writes other nodes, such as `probabilities`.

        Parameters
        ----------
        name : str
            Name of the function in C.
        dtype : {"float32", "int8"}
            With "int8", the function computes in integers and reads bytes: ``void name(const uint8_t *x, int32_t *y)``.
            The comment says how numbers become bytes.
        calibrate : array_like, shape (examples, inputs)
            With "int8", as for `quantize`.

        Returns
        -------
        str
            A complete file; see `Function.to_c` and `QuantizedFunction.to_c`.

        Raises
        ------
        TypeError, ValueError
            As for `Function.to_c`.

        Examples
        --------
        >>> net = mlgraph.Network(1, seed=0)
        >>> layer = net.add_layer(1)
        >>> net.scaling, net.columns = ([20.0], [5.0]), ["degrees"]
        >>> text = net.to_c("power")
        >>> print(text[: text.index("static")])
        /* inputs: 1, outputs: 1, weights: 1
        <BLANKLINE>
           x has the numbers of the data:
           x[0]: "degrees"
        */
        #include <math.h>
        <BLANKLINE>
        typedef unsigned short place; /* of a value in v */
        <BLANKLINE>
        <BLANKLINE>
        """
        from mlgraph.models.units import function_of

        data: Any = None if calibrate is None else as_data(calibrate, "calibrate")
        return function_of(self, data).to_c(name, dtype=dtype, calibrate=data)

    def _values(self, x: npt.ArrayLike, nodes: list[int], n_threads: int | None) -> Float32:
        return execute(self, read_to_predict(self, x, nodes), nodes, values=nodes, n_threads=n_threads)[1]

    # --- for other rooms of the package, not for users --------------------------------------------

    @property
    def sinks(self) -> list[int]:
        """What a plan for training needs: the outputs and the nodes of the loss."""
        return [*self.output_ids, *self.loss_ids]

    def alive(self) -> Bool:
        """Which nodes are alive and needed for an output or the loss; shape (nodes,)."""
        sinks = frozenset(self.sinks)  # none of a network without layers; of a graph, no outputs mean all
        return self.graph.alive_for(sinks) if sinks else np.zeros(len(self.graph), bool)

    def own(self) -> Bool:
        """Which nodes do not belong only to other models of the graph; shape (nodes,)."""
        graph, theirs = self.graph, np.zeros(len(self.graph), bool)
        if len(graph.models) > 1:
            topology = graph.topology()
            for model in graph.models:
                theirs |= model.ever_needed(topology)
            theirs &= ~self.ever_needed(topology)
        return ~theirs

    def ever_needed(self, topology: Topology) -> Bool:
        """Which nodes the model needs, or needed before an edit that is not taken back; shape (nodes,)."""
        needed = ancestors(self.graph, topology, self.sinks)
        needed[: len(self.needed_before)] |= self.needed_before
        return needed

    def forget_nodes(self, nodes: int) -> None:
        """Forget all but so many nodes, the first ones: new nodes may get the numbers of the others."""
        self.needed_before = self.needed_before[:nodes]
        for layer in self._layers:
            layer.ids, layer.source_ids = ([i for i in ids if i < nodes] for ids in (layer.ids, layer.source_ids))

    def require_edges(self, name: str, why: str) -> None:
        """A ValueError about `name` that says what the model has and `why` this does not do, unless it has edges."""
        if not self.n_edges:
            raise ValueError(f"{name}: this model has {self.n_parameters} parameter nodes and no edges; {why}")

    def require_outputs(self) -> threading.RLock:
        """The lock of the graph; a ValueError if there are no outputs yet."""
        if not self.output_ids:
            raise ValueError("network: expected at least one layer, got none; add_layer adds one")
        return self.graph.lock

    def layer_numbers(self) -> Int64:
        """The layer of each node, len(layers) for nodes in no layer; without layers, the level of each node."""
        if not self._layers:
            return levels_of(self.graph)
        number = np.full(len(self.graph), len(self._layers))
        for i, layer in enumerate(self._layers):
            number[layer.ids] = i
        return number

    def kept_ids(self) -> Int32:
        """The nodes that a compact copy cannot do without."""
        # A layer of probabilities has one for each of its neurons, whether or not anything reads
        # it.
        of_layers = [i for layer in self._layers for i in layer.probability_ids]
        return np.array([*self.sinks, *self.probability_ids, *of_layers], np.int32)

    @property
    def dropout_shares(self) -> Dropout:
        """Neurons, and what shares of them and of their edges are dropped in training."""
        shares = ((layer.ids, layer.dropout, layer.weight_dropout) for layer in self._layers)
        return [(ids, neurons, edges) for ids, neurons, edges in shares if neurons or edges]

    def __copy__(self) -> Self:
        return deepcopy(self)  # if two models edited one graph, neither would know of the other's edits

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "engines": {}, "_tracing": Tracing()}  # compiled again when needed

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.graph.models.add(self)

    def _restore(
        self, graph: Graph, outputs: list[int], loss: str, loss_nodes: list[int], probabilities: list[int]
    ) -> None:
        self._begin(graph)
        self.output_ids, self._loss, self.loss_ids, self.probability_ids = outputs, loss, loss_nodes, probabilities
        graph.models.add(self)

    def parameter_places(self) -> Int64:
        """Places of the parameters of the nodes that its outputs or its loss need."""
        return parameter_places(self.graph, np.flatnonzero(self.alive()))

    def studio(
        self,
        x: npt.ArrayLike | None = None,
        y: npt.ArrayLike | None = None,
        *,
        test: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
        image: tuple[int, int] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        allow_hosts: Sequence[str] = (),
        open_browser: bool | None = None,
    ) -> Studio:
        """Open a page in the browser that shows this model while it trains, and edits it.

        Needs Starlette and uvicorn, the extra ``studio``. In a notebook, the returned object shows the page.

        Parameters
        ----------
        x, y : array_like
            As for `fit`; a TypeError if they are missing. A frame's column names are shown.
        test : (x, y), optional
            Data to test with. By default every fifth example is held out.
        image : (int, int), optional
            Height and width, if examples are images. Found by itself for square ones.
        host, port
            Where to listen; by default this computer alone can use the page, at a free port. Another host is
            warned of, since the page has plain HTTP.
        allow_hosts : list of str, optional
            More names by which browsers may address this computer, such as "studio.example".
        open_browser : bool, optional
            Whether to open the page in the browser now; by default not in a notebook.

        Returns
        -------
        Studio
            With the attribute `url` and the methods `close` and `wait`. The model may be used while
            it is open; until then its `classes` are None, and it gets the labels' names when it is closed.
        """
        from mlgraph.studio.studio import open_studio

        return open_studio(
            self, x, y, test=test, image=image, host=host, port=port, allow_hosts=allow_hosts, open_browser=open_browser
        )

    def become(self, other: Self) -> None:
        """Take over the graph of another model of the same outputs, which must not be used afterwards."""
        note_needed_before(self.graph)  # as the interrupted run did, which began with this model
        self.graph.become(other.graph)
        self._scaling, self._columns, self._classes = other._scaling, other._columns, other._classes
        for mine, theirs in zip(self._layers, other._layers, strict=True):
            mine.ids, mine.source_ids = theirs.ids, theirs.source_ids

    def _renumber(self, other: Self, number: Int64) -> None:
        """Take over another model's lists of nodes; `number` has the number here of each of its nodes, or -1."""

    def name_of(self, node: int) -> str:
        """What an error calls a node."""
        return described(self.graph, node)
