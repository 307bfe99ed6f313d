"""Networks and data that a page asks for: toys, files, layers, and runs that prune."""

from __future__ import annotations

import io
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from mlgraph._support.checks import one_of, shown, whole
from mlgraph.graph.graph import Graph
from mlgraph.graph.views import Node
from mlgraph.models.model import Model
from mlgraph.models.network import Network
from mlgraph.sparsity.gradual_pruning import GradualPruning
from mlgraph.sparsity.rewiring import SET, RigL
from mlgraph.studio import data as sources, session_file
from mlgraph.studio.data import Data
from mlgraph.studio.run import OPTIONS
from mlgraph.studio.session import Session

MOST_NEURONS = 4096
MOST_LAYERS = 16
MOST_EDGES = 5_000_000

SCHEDULES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "gradual": (GradualPruning, ("until", "by")),
    "SET": (SET, ("until", "fraction")),
    "RigL": (RigL, ("until", "fraction")),
}
"""Schedules, and the options of each that a page may choose."""


def network(data: Data, hidden: list[int], activation: str = "leaky_relu", seed: int = 0) -> Network:
    """A network for the data: softmax for classes, a linear layer for numbers; ValueError if it is too large."""
    sizes = (data.x.shape[1], *hidden, data.y.shape[1] if data.classes is None else len(data.classes))
    n_edges = sum(a * b for a, b in pairwise(sizes))
    if n_edges > MOST_EDGES:
        raise ValueError(
            f"hidden: a network of {'-'.join(map(str, sizes))} has {n_edges:,} edges, above {MOST_EDGES:,}"
        )
    net = Network(data.x.shape[1], seed=seed)
    # The default weights are too small to learn a spiral from two coordinates.
    init = "glorot_normal" if data.is_plane else None
    for size in hidden:
        net.add_layer(size, activation, init=init)
    if data.classes is not None:
        net.add_layer(len(data.classes), "softmax", init=init)
    else:
        net.add_layer(data.y.shape[1], "identity")
    if data.standardize:
        # The statistics of the training data, as `fit(standardize=True)` would keep them.
        net.scaling = (np.mean(data.x, axis=0), np.where(np.std(data.x, axis=0) > 0, np.std(data.x, axis=0), 1))
    return net


def overflowing(seed: int = 0) -> tuple[Model, Data]:
    """MNIST learnt by 32 hidden neurons, one of them cubed: at a rate of 0.1 it overflows (docs/nonfinite.md)."""
    data, graph = sources.mnist(), Graph(seed=seed)
    pixels = graph.add_inputs(data.x.shape[1])
    hidden: list[Node] = [graph[i] for i in graph.add_neurons(pixels, "leaky_relu", n=31, biases=0.0)]
    hidden.append(graph.add_neuron(pixels) ** 3)
    outputs = [graph[i] for i in graph.add_neurons(hidden, n=10, biases=0.0)]
    model = Model(graph, outputs, loss="softmax_cross_entropy")
    model.scaling = "bytes"
    return model, data


def new(session: Session, given: dict[str, Any]) -> None:
    """Begin with other data or another network.

    Parameters
    ----------
    given : dict
        data : "mnist", the name of a toy, "overflow", or "keep"; points : for one's own points of
        the plane, a list of [x, y, class]; hidden : sizes of the hidden layers; activation; seed.
    """
    unknown = sorted(set(given) - {"data", "points", "hidden", "activation", "seed"})
    if unknown:
        raise ValueError(f"new: there is no {unknown[0][:80]!r}")
    hidden = given.get("hidden", [8, 8] if session.data.is_plane else [32])
    if not isinstance(hidden, list) or len(hidden) > MOST_LAYERS:
        raise ValueError(f"hidden: expected a list of at most {MOST_LAYERS} sizes")
    hidden = [whole("hidden", size, 1, MOST_NEURONS) for size in hidden]
    seed = whole("seed", given.get("seed", 0), 0)
    name = given.get("data", "keep")
    if name == "overflow":
        session.replace(*overflowing())
        session.run.change(learning_rate=0.1, optimizer="sgd", batch_size=128)
        return
    if "points" in given:
        data = _points(given["points"])
    elif name == "keep":
        data = session.data
    elif name == "mnist":
        data = sources.mnist()
    else:
        one_of("data", name, ("mnist", "overflow", "keep", *sources.TOYS))
        data = sources.toy(name)
    if "hidden" not in given:
        hidden = [8, 8] if data.is_plane else [32]
    activation = given.get("activation", "tanh" if data.is_plane else "leaky_relu")
    before = session.data
    session.replace(network(data, hidden, activation, seed), data)
    if data is not before:  # the options of the scene that overflows, say, suit no other data
        session.run.change(**OPTIONS)
    if data.is_plane:
        session.run.change(learning_rate=0.01)


def _points(given: Any) -> Data:
    if not isinstance(given, list) or not 2 <= len(given) <= 5000 or not all(map(_is_point, given)):
        raise ValueError("points: expected 2 to 5000 lists [x, y, class], with classes 0 and 1")
    array = np.array(given, np.float64)
    return sources.points(array[:, :2], array[:, 2].astype(int), "my points")


def _is_point(given: Any) -> bool:
    if not isinstance(given, list) or len(given) != 3:
        return False
    return all(isinstance(v, int | float) and abs(v) < 1e6 for v in given) and given[2] in (0, 1)


def upload(session: Session, content: bytes, name: str, target: str | None) -> None:
    """Begin with the data of a file, and a network of one hidden layer; or go on with a session that was saved."""
    kind = session_file.kind(io.BytesIO(content))
    if kind == "model":
        raise ValueError(f"{name}: a network without its data; python -m mlgraph.studio {name} opens it")
    if kind == "session":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "session.npz"
            path.write_bytes(content)
            try:
                saved = session_file.read(path)
            except ValueError as error:
                raise ValueError(str(error).replace(str(path), name)) from None
        session_file.resume(saved, session)
        return
    data = sources.from_file(content, name, target)
    if len(data.columns) > sources.MOST_COLUMNS or len(data.classes or ()) > sources.MOST_LABELS:
        raise ValueError(f"{name}: more than {sources.MOST_COLUMNS:,} columns or {sources.MOST_LABELS:,} classes")
    session.replace(network(data, [32]), data)
    session.run.change(**OPTIONS)


def play(session: Session, sparsify: Any = None, epochs: Any = None, on_nonfinite: str = "raise") -> None:
    """Go on, or begin a run, perhaps one that prunes while it trains."""
    run = session.run
    one_of("on_nonfinite", on_nonfinite, ("raise", "skip", "disconnect"))
    epochs = None if epochs is None else whole("epochs", epochs, 1, 10_000)
    if sparsify is None:
        if on_nonfinite != "raise":
            run.end()
        if not run.is_alive:
            session.schedule(None)
        run.play(fit={"on_nonfinite": on_nonfinite})
        return
    if not isinstance(sparsify, dict) or not {"method", "sparsity"} <= set(sparsify):
        raise ValueError("sparsify: expected method and sparsity")
    method = one_of("method", sparsify["method"], tuple(SCHEDULES))
    schedule, options = SCHEDULES[method]
    given = {name: value for name, value in sparsify.items() if name != "method"}
    unknown = sorted(set(given) - {"sparsity", *options})
    if unknown:
        raise ValueError(f"sparsify: {method} has no {shown(unknown[0])}; it has {', '.join(options)}")
    if "by" in given:
        one_of("by", given["by"], ("path", "magnitude", "saliency", "random"))
    scheduled, epochs = schedule(**given), epochs or 10
    scheduled.check(session.model)
    run.end()
    names = {"gradual": "gradual pruning"}
    session.schedule(f"{names.get(method, method)} to {100 * scheduled.sparsity:.3g} % in {epochs} epochs", epochs)
    run.play(fit={"epochs": epochs, "sparsify": scheduled, "on_nonfinite": on_nonfinite})
