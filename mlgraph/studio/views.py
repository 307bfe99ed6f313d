"""What a page shows of a session, as structures for JSON and as bytes."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt

from mlgraph._support.checks import FLOAT32_MAX, shown
from mlgraph.graph.arrays import Edges
from mlgraph.graph.graph import Graph
from mlgraph.graph.ops import INPUT, NEURON
from mlgraph.graph.topology import topological
from mlgraph.graph.views import Neuron, Node, name_of
from mlgraph.models.model import Model
from mlgraph.models.network import Network
from mlgraph.models.scaling import Standardization
from mlgraph.pictures.portrait import neuron_portraits
from mlgraph.studio.data import Data
from mlgraph.studio.session import SAMPLE, Session, finite, json_ready

MOST_EDGES = 200_000
"""A graph without layers is shown whole up to so many edges."""

MOST_PIXELS = 4000


def network(session: Session) -> dict[str, Any]:
    """The nodes to draw, in columns: inputs, then layers or levels.

    Returns
    -------
    dict
        columns : list of lists of ids. image : height and width of the inputs, or None.
        neurons : a dict by id: status and name. Statuses are "ok", "cut", "frozen", "dead" (never
        positive, or always the same, over the test examples), "dormant" (hardly any) and "nan".
            activation and bias are those of a neuron, or the kind of an operation.
        edges : source, target and weight of each edge that no layer's `weights` have: for graphs
            without layers all, else those that jump. None if they are very many.
    """
    with session.looking():
        model, data = session.model, session.data
        graph = model.graph
        alive = graph.alive()
        status = statuses(session)
        if model.layers:
            columns = [list(layer.ids) for layer in model.layers]
            inputs = list(model.layers[0].source_ids)
        else:
            inputs = list(graph.input_ids)
            columns = _columns(session)
        edges = graph.edges()
        if model.layers:
            edges = _beside_layers(graph, inputs, columns, edges)
        neurons = {
            i: {
                "status": status.get(i, "ok") if alive[i] else "cut",
                "name": named(session, graph[i]),
                **_activation(graph[i]),
            }
            for column in columns
            for i in column
        }
        found: dict[str, Any] = {
            "version": session.version,
            "numbering": session.numbering,
            "inputs": inputs,
            "columns": columns,
            "neurons": neurons,
            "outputs": list(model.output_ids),
            "image": data.image,
            "edges": None,
        }
        if len(edges.source) <= MOST_EDGES:
            found["edges"] = {
                "source": edges.source.tolist(),
                "target": edges.target.tolist(),
                "weight": json_ready(edges.weight),
            }
            more = [
                (s.id, n) for column in columns for n in column if graph._code[n] < NEURON for s in graph[n].sources
            ]
            found["edges"]["source"] += [s for s, _ in more]
            found["edges"]["target"] += [n for _, n in more]
            found["edges"]["weight"] += [None] * len(more)
    return found


def _activation(node: Node) -> dict[str, Any]:
    """What a neuron computes from its sum, for a line of text."""
    if not isinstance(node, Neuron):
        return {"activation": node.kind, "bias": None}
    return {"activation": node.activation, "bias": None if node.bias is None else finite(node.bias)}


def _beside_layers(graph: Graph, inputs: list[int], columns: list[list[int]], edges: Edges) -> Edges:
    """The edges that `weights` of no layer has; neurons of no layer join the column after their last source."""
    outside, source, target = -2, edges.source, edges.target
    at = np.full(len(graph), outside)
    at[inputs] = -1
    for number, column in enumerate(columns):
        at[column] = number
    beside = (at[source] != at[target] - 1) | (at[target] == outside)
    for node in np.unique(target[at[target] == outside]).tolist():
        number = min(len(columns) - 1, 1 + max(0, int(at[source[target == node]].max())))
        columns[number].append(node)
        at[node] = number
    return Edges(source[beside], target[beside], edges.weight[beside])


def _columns(session: Session) -> list[list[int]]:
    """Nodes but inputs by level. A cut neuron stays where it was in the beginning, or joins those after its sources.

    Neurons of the beginning that nothing reads are left out; new ones are not, since a page may connect them.
    """
    model = session.model
    graph, level = model.graph, _levels(model)
    last, alive = max(level.values()), graph.alive()
    at: dict[int, float] = {node: number for node, number in level.items() if graph._code[node] != INPUT}
    cut = [i for i in topological(graph, graph.topology())[1].tolist() if graph._code[i] >= NEURON and not alive[i]]
    before = _levels(session.initial) if cut else {}
    for node in cut:
        sources = graph._source_list(node).tolist()
        if sources and node not in before and node < len(session.initial.graph):
            continue
        after = 1 + max((at.get(s, 0) for s in sources), default=0)
        at[node] = min(before.get(node, after), last - 0.5)  # before the last outputs, though they may have moved up
    columns: dict[float, list[int]] = {}
    for node, number in sorted(at.items()):  # so that a neuron keeps its place when it is cut
        columns.setdefault(number, []).append(node)
    return [columns[number] for number in sorted(columns)]


def _levels(model: Model) -> dict[int, int]:
    """The nodes that the outputs need, by the length of the longest path to them."""
    graph = model.graph
    _, order = topological(graph, graph.topology(), model.output_ids)
    level: dict[int, int] = {}
    for node in order.tolist():
        sources = graph._source_list(node).tolist()
        level[node] = 0 if graph._code[node] == INPUT else 1 + max((level.get(s, 0) for s in sources), default=0)
    return level


def statuses(session: Session) -> dict[int, str]:
    """What is special about neurons: dead, dormant, frozen or nan; see `network`."""
    model, data = session.model, session.data
    found: dict[int, str] = {}
    failure = session.run.failure
    table = model.inspect(data.test_x[: SAMPLE // 4])
    for row in table:
        node = int(row["node"])
        if not row["alive"]:
            continue
        if row["std"] == 0 or (row["active"] == 0 and row["dormant"] < 1e-3):
            found[node] = "dead"
        elif row["dormant"] < 0.05:
            found[node] = "dormant"
    for layer in model.layers:
        for neuron in layer:
            if neuron.alive and neuron.frozen:
                found[neuron.id] = "frozen"
    if failure is not None and failure["node"] >= 0:
        found[failure["node"]] = "nan"
    return found


def weights(session: Session, number: Any) -> tuple[dict[str, Any], bytes]:
    """The weights of a layer in one byte each, for pictures.

    Returns
    -------
    header : dict
        neurons, sources, and scales: a list of float, one for each neuron.
    bytes
        int8 of shape (neurons, sources); times its scale / 127 it is a weight. -128 is no edge.
    """
    with session.looking():
        layer = session.layer(number)
        matrix, mask = np.asarray(layer.weights), np.asarray(layer.mask)
        version, step = session.version, session.run.steps
    most = np.abs(matrix).max(axis=1, initial=0)
    scale = np.where(most > 0, most, 1)
    small = np.round(matrix / scale[:, None] * 127).astype(np.int8)
    small[~mask.astype(bool)] = -128
    header = {"neurons": len(matrix), "sources": matrix.shape[1], "version": version, "step": step}
    return {**header, "scales": json_ready(scale)}, small.tobytes()


def neuron(session: Session, given: Any) -> dict[str, Any]:
    """One neuron: its parameters and edges, its values, what excites it, and what its absence costs."""
    with session.looking():
        model, data = session.model, session.data
        node = session.node(given)
        found = _place(session, node)
        found["alive"] = bool(node.alive)
        found["version"], found["numbering"] = session.version, session.numbering
        if isinstance(node, Neuron):
            bias = node.bias
            found |= {
                "activation": node.activation,
                "bias": None if bias is None else float(bias),
                "frozen": node.frozen,
                "in": [
                    {**_place(session, edge.source), "weight": float(weight)}
                    for edge, weight in zip(node.in_edges, np.asarray(node.weights), strict=True)
                ],
            }
        else:
            found["formula"] = str(node)
            found["in"] = [{**_place(session, source), "weight": None} for source in node.sources]
        found["out"] = [{**_place(session, edge.target), "weight": float(edge.weight)} for edge in node.out_edges]
        if not node.alive or node.kind == "input":
            return found
        sample = data.test_x[:SAMPLE]
        values = model.trace(sample, None, [node]).values[:, 0]
        usual = values[np.isfinite(values)].astype(np.float64)  # a network that overflows has others
        counts, ends = np.histogram(usual, 24)
        top = np.argsort(-values, kind="stable")[:12]
        found["histogram"] = {"counts": counts.tolist(), "from": float(ends[0]), "to": float(ends[-1])}
        found["mean"] = finite(usual.mean()) if len(usual) == len(values) else None
        found["excites"] = [_example(session, int(i), float(values[i])) for i in top]
        found["ablation"] = _ablation(session, node)
        if isinstance(node, Neuron) and isinstance(model, Network) and data.classes and data.test_y.ndim == 1:
            portrait = neuron_portraits(model, [node], sample, data.test_y[:SAMPLE])[0]
            found["votes"] = json_ready(portrait.logit_weights)
            found["class_means"] = json_ready(portrait.class_means)
            if data.image:
                found["picture"] = json_ready(np.round(portrait.input_weights, 5))
                found["picture_is_weights"] = portrait.reads_inputs
    return found


def _ablation(session: Session, node: Node) -> dict[str, Any] | None:
    """What the test results would be without a neuron; None if it cannot go."""
    if not isinstance(node, Neuron):
        return None
    data = session.data
    try:
        without = session.model.ablate(node, data.test_x[:SAMPLE], data.test_y[:SAMPLE])
    except ValueError:  # an output, or the last way to one
        return None
    now = session.model.evaluate(data.test_x[:SAMPLE], data.test_y[:SAMPLE])
    return {name: {"with": finite(now[name]), "without": finite(without[name])} for name in now}


def named(session: Session, node: Node) -> str:
    """What a page calls a node: a column of the data, an output by its class, a neuron by its place in a layer."""
    model, data = session.model, session.data
    if node.kind == "input":
        number = int(model.graph.records[node.id])
        return data.columns[number] if number < len(data.columns) else name_of(model.graph, node.id)
    outputs = model.output_ids
    if data.classes and node.id in outputs and len(outputs) == len(data.classes):
        return f"output {data.classes[outputs.index(node.id)]}"
    return name_of(model.graph, node.id)


def _place(session: Session, node: Node) -> dict[str, Any]:
    """How a page refers to a node."""
    graph = session.model.graph
    place: dict[str, Any] = {"node": node.id, "name": named(session, node), "kind": node.kind}
    if node.kind == "input":
        place["input"] = int(graph.records[node.id])
    for i, layer in enumerate(session.model.layers):
        if node.id in layer.ids:
            place |= {"layer": i, "neuron": layer.ids.index(node.id)}
    return place


# --- examples -------------------------------------------------------------------------------------


def pixels(session: Session, row: npt.NDArray[Any]) -> list[int]:
    """An example as bytes for a picture."""
    if row.dtype == np.uint8:
        return [int(v) for v in row]
    low, high = float(row.min()), float(row.max())
    return np.round((row - low) / ((high - low) or 1) * 255).astype(int).tolist()  # type: ignore[no-any-return]


def _example(session: Session, index: int, value: float | None = None) -> dict[str, Any]:
    data = session.data
    row, target = data.test_x[index], data.test_y[index]
    is_class = data.classes and np.ndim(target) == 0
    label = data.classes[int(target)] if is_class else json_ready(np.ravel(data.as_given(target))[:8])  # type: ignore[index]
    found: dict[str, Any] = {"index": index, "label": label, "value": finite(value)}
    if data.image:
        found["pixels"] = pixels(session, row)
    elif len(row) <= 64:
        found["x"] = json_ready(row)
    return found


def examples(session: Session, first: int, count: int, wrong: bool = False) -> dict[str, Any]:
    """Test examples with what the network says of them."""
    with session.looking():
        data, model = session.data, session.model
        count = max(0, min(count, 100))
        n = len(data.test_x)
        at = np.arange(n)
        if wrong and data.classes:
            at = np.flatnonzero(model.predict(data.test_x).ravel() != data.test_y.ravel())
        chosen = at[first : first + count]
        if not len(chosen):
            return {"of": len(at), "numbering": session.numbering, "examples": []}
        said = model.predict(data.test_x[chosen])
        found = [{**_example(session, int(i)), "says": _answer(session, said[k])} for k, i in enumerate(chosen)]
        return {"of": len(at), "numbering": session.numbering, "examples": found}


def _answer(session: Session, said: Any) -> Any:
    """What the network says, as the data have it: a class, or numbers in their units."""
    classes = session.data.classes
    if classes and np.ndim(said) == 0 and session.model.loss in ("softmax_cross_entropy", "binary_cross_entropy"):
        return classes[int(said)]
    return json_ready(np.ravel(session.data.as_given(said))[:8])


def example(session: Session, given: Any) -> dict[str, Any]:
    """How values flow through the network for one example.

    Parameters
    ----------
    given : dict
        index (of a test example) or x (a list of numbers); label, to get adjoints; patch, a dict
        from ids to values; numbering, of the answer that told the index or the ids.

    Returns
    -------
    dict
        values : by id. adjoints : derivative of the loss by id, and `input_adjoints` with respect to
        each input. answer : the class, or numbers in the units of the data. probabilities : one for each
        class, or None. x : the numbers of the example. scaled : the same in standard deviations, if the model
        standardizes them.
    """
    with session.looking():
        data = session.data
        if isinstance(given, dict) and given.get("numbering") is not None:
            session.require_numbering(given["numbering"])
        row = _row_of(given, data)
        model = _patched(session.model, given.get("patch") or {})
        label = given.get("label")
        traced = model.trace(row, None)
        found: dict[str, Any] = {"values": dict(zip(traced.nodes.tolist(), json_ready(traced.values[0]), strict=True))}
        said = model.predict(row)[0]
        found["answer"] = _answer(session, said)
        found["probabilities"] = None
        if model.probabilities:
            found["probabilities"] = json_ready(model.predict_proba(row)[0])
        if label is not None:
            if data.classes is None or label not in data.classes:
                raise ValueError(f"label: expected one of {shown(data.classes)}, got {shown(label)}")
            target = np.array([data.classes.index(label)])
            if len(model.outputs) == 1:
                target = target[:, None].astype(np.float32)
            with_adjoints = model.trace(row, target)
            found["adjoints"] = dict(
                zip(with_adjoints.nodes.tolist(), json_ready(with_adjoints.adjoints[0]), strict=True)  # type: ignore[index]
            )
            inputs = model.trace(row, target, model.graph.inputs[: data.x.shape[1]])
            found["input_adjoints"] = json_ready(inputs.adjoints[0])  # type: ignore[index]
        if data.image:
            found["pixels"] = pixels(session, row[0])
        found["x"] = json_ready(row[0]) if row.shape[1] <= MOST_PIXELS else None
        if isinstance(model.scaling, Standardization):
            found["scaled"] = json_ready(model.trace(row, nodes=model.graph.inputs).values[0])
        return found


def _row_of(given: Any, data: Data) -> npt.NDArray[Any]:
    """The example that a page asks for, of shape (1, columns)."""
    if not isinstance(given, dict) or not set(given) <= {"index", "x", "label", "patch", "numbering"}:
        raise ValueError("example: expected index or x, and perhaps label, patch and numbering")
    if ("index" in given) == ("x" in given):
        raise ValueError("example: expected either index or x")
    if "index" in given:
        index = given["index"]
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(data.test_x):
            raise ValueError(f"index: expected 0 to {len(data.test_x) - 1}, got {shown(index)}")
        return data.test_x[index : index + 1]
    x = given["x"]
    if not isinstance(x, list) or len(x) != data.x.shape[1] or not all(_is_number(v) for v in x):
        raise ValueError(f"x: expected a list of {data.x.shape[1]} numbers")
    row = np.array([x], np.float32)
    return np.clip(np.round(row), 0, 255).astype(np.uint8) if data.x.dtype == np.uint8 else row


def _patched(model: Model, patch: Any) -> Model:
    """The model; or a copy in which neurons, given by their ids, have constant values."""
    if not isinstance(patch, dict) or len(patch) > 100 or not all(_is_number(v) for v in patch.values()):
        raise ValueError("patch: expected an object of at most 100 ids with numbers")
    if not patch:
        return model
    model = copy.deepcopy(model)
    with model.graph.one_edit(parameters=True):
        for key, value in patch.items():
            node = model.graph[int(key)] if key.isdigit() and int(key) < len(model.graph) else None
            if not isinstance(node, Neuron) or not node.alive:
                raise ValueError(f"patch: {key} is no live neuron")
            node.activation, node.weights, node.bias = "identity", np.zeros(len(node.weights)), float(value)
    return model


def plane(session: Session, nodes: list[Any], side: int) -> tuple[dict[str, Any], bytes]:
    """Values of nodes over the plane of two inputs: int8 of shape (nodes, side, side), rows from the top."""
    with session.looking():
        data = session.data
        if not data.is_plane:
            raise ValueError("plane: the data do not have two columns")
        side = max(4, min(side, 128))
        low, high = data.x.min(0).astype(float), data.x.max(0).astype(float)
        margin = 0.15 * (high - low)
        low, high = low - margin, high + margin
        xs, ys = np.linspace(low[0], high[0], side), np.linspace(high[1], low[1], side)
        points = np.column_stack([np.tile(xs, side), np.repeat(ys, side)]).astype(np.float32)
        ids = [session.node(n).id for n in nodes[:400]]
        graph = session.model.graph
        alive = graph.alive()
        live = [i for i in ids if alive[i] and graph._code[i] != INPUT]
        values = np.zeros((len(ids), len(points)), np.float32)
        if live:
            traced = session.model.trace(points, None, np.array(live)).values
            for k, i in enumerate(live):
                values[ids.index(i)] = traced[:, k]
        for k, i in enumerate(ids):
            if graph._code[i] == INPUT:
                values[k] = points[:, int(graph.records[i])]
        most = np.abs(values).max(axis=1, initial=0)
        scale = np.where(most > 0, most, 1)
        header = {
            "nodes": ids,
            "side": side,
            "x": [float(low[0]), float(high[0])],
            "y": [float(low[1]), float(high[1])],
            "scales": json_ready(scale),
        }
        return header, np.round(values / scale[:, None] * 127).astype(np.int8).tobytes()


def points(session: Session) -> dict[str, Any]:
    """The training and test points of the plane, at most 2,000 of each."""
    data = session.data
    if not data.is_plane:
        raise ValueError("points: the data do not have two columns")
    return {
        name: {
            "x": json_ready(x[:SAMPLE, 0]),
            "y": json_ready(x[:SAMPLE, 1]),
            "label": json_ready(np.ravel(y)[:SAMPLE]),
        }
        for name, x, y in (("train", data.x, data.y), ("test", data.test_x, data.test_y))
    }


def _is_number(value: Any) -> bool:
    """Whether a value of JSON is a number that float32 can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= FLOAT32_MAX
