"""What a page may take away: the session, or the network, which answers in the labels and the units of the data."""

from __future__ import annotations

import tempfile
from copy import deepcopy
from pathlib import Path

import numpy as np

from mlgraph.graph.views import Neuron
from mlgraph.models.classes import n_classes_of
from mlgraph.models.model import Model
from mlgraph.studio import session_file
from mlgraph.studio.data import Data
from mlgraph.studio.session import Session

FILES = {
    "session.npz": "application/octet-stream",
    "model.npz": "application/octet-stream",
    "model.c": "text/plain",
    "network.svg": "image/svg+xml",
}
"""Names of files, with their types."""


def file(session: Session, name: str) -> bytes:
    """The content of one of `FILES`."""
    if name == "model.c":
        return network(session).to_c().encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        if name == "session.npz":
            session_file.save(session, path)
        elif name == "network.svg":
            network(session).draw().save(path)
        else:
            network(session).save(path)
        return path.read_bytes()


def network(session: Session) -> Model:
    """A copy of the network, with the names and classes of the data, and outputs in its units.

    Raises
    ------
    ValueError
        If the data have units, and an output has been given another activation than identity.
    """
    with session.lock:
        data, classes = session.data, session.classes
        with session.model.graph.lock:
            model = deepcopy(session.model)
    if classes is not None and n_classes_of(model.loss, len(model.outputs)) == len(classes):
        model.classes = classes
    _name_nodes(model, data)
    if data.units is not None:
        for output, mean, deviation in zip(model.outputs, *data.units, strict=True):
            if not isinstance(output, Neuron) or output.activation != "identity":
                raise ValueError(
                    "the network answers in standard deviations; an output of activation identity can be changed to "
                    f"the units of the data, but {output!r} is none"
                )
            output.bias = float(deviation * (output.bias or 0) + mean)
            output.weights = deviation * np.asarray(output.weights)
    return model


def _name_nodes(model: Model, data: Data) -> None:
    """Names inputs by the columns and outputs by the classes, unless they have names; pixels get none."""
    columns = data.columns if data.image is None and model.columns is None else []
    classes = data.classes or []
    for nodes, names in ((model.graph.inputs, columns), (model.outputs, classes)):
        if len(nodes) == len(names):
            for node, name in zip(nodes, names, strict=True):
                if node.id not in model.graph.names:
                    node.name = str(name)
