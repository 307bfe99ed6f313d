"""What a page may change in a network, by one table: `POST /api/edit` takes ``{"edit": name, ...}``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from mlgraph._support.checks import FLOAT32_MAX, one_of, real, share, truth, whole
from mlgraph.graph.views import Neuron
from mlgraph.models.network import Network
from mlgraph.studio.session import Session

MOST_NEW = 1000
"""Largest number of neurons that one edit adds."""


class Kind(NamedTuple):
    """One kind of edit.

    Attributes
    ----------
    apply : callable
        Called with the session and the fields; returns what undo calls it.
    needs, takes : str
        Names of the fields that must be there, and of those that may be.
    """

    apply: Callable[..., None]
    needs: str = ""
    takes: str = ""


def edit(session: Session, given: Any) -> None:
    """Make an edit.

    Raises
    ------
    TypeError, ValueError, IndexError
        If it is not as described in `EDITS`, or the network refuses it; nothing has changed.
    """
    if not isinstance(given, dict):
        raise TypeError(f"edit: expected an object, got {type(given).__name__}")
    fields = dict(given)
    numbering = fields.pop("numbering", None)
    kind = EDITS[one_of("edit", fields.pop("edit", None), tuple(EDITS))]
    needs, takes = kind.needs.split(), kind.takes.split()
    missing, unknown = [n for n in needs if n not in fields], [n for n in fields if n not in (*needs, *takes)]
    if "node" in needs and "node" in missing and {"layer", "neuron"} <= set(unknown):
        # {"layer": 0, "neuron": 7} in place of {"node": ...}
        fields["node"] = {name: fields.pop(name) for name in ("layer", "neuron")}
        missing, unknown = [n for n in missing if n != "node"], [n for n in unknown if n not in ("layer", "neuron")]
    if missing or unknown:
        expected = ", ".join([*needs, *(f"[{n}]" for n in takes)]) or "no other fields"
        raise ValueError(f"edit {given['edit']}: expected {expected}; got {', '.join(sorted(fields)) or 'none'}")
    with session.lock:  # so that the nodes it finds are those of the network that it edits
        if numbering is not None:
            session.require_numbering(numbering)
        kind.apply(session, **fields)


def _number(what: str, value: Any) -> float:
    return real(what, value, "a number that float32 can hold", -FLOAT32_MAX, FLOAT32_MAX)


def _cut_neuron(session: Session, node: Any) -> None:
    neuron = session.neuron(node)
    if not len(neuron.in_edges) and not len(neuron.out_edges):
        raise ValueError(f"cut-neuron: {neuron!r} is cut already")
    with session.editing(f"cut {neuron!r}"):
        neuron.prune()


def _cut_edge(session: Session, source: Any, target: Any) -> None:
    edge = session.edge(source, target)
    with session.editing(f"cut {edge!r}"):
        edge.prune()


def _add_edge(session: Session, source: Any, target: Any, weight: float = 0.0) -> None:
    start, end = session.node(source, "source"), session.neuron(target, "target")
    weight = _number("weight", weight)
    with session.editing(f"edge from {start!r} to {end!r}"):
        session.model.graph.add_edge(start, end, weight)


def _set_weight(session: Session, source: Any, target: Any, value: float) -> None:
    edge, value = session.edge(source, target), _number("value", value)
    _assign(session, f"weight of {edge.source.name} to {edge.target.name}", edge, "weight", value)


def _set_bias(session: Session, node: Any, value: float | None) -> None:
    neuron = session.neuron(node)
    if value is None or neuron.bias is None:
        with session.editing(f"bias of {neuron!r}"):
            neuron.bias = None if value is None else _number("value", value)
    else:
        _assign(session, f"bias of {neuron!r}", neuron, "bias", _number("value", value))


def _set_activation(session: Session, node: Any, value: str) -> None:
    neuron = session.neuron(node)
    with session.editing(f"activation of {neuron!r}"):
        neuron.activation = value


def _set_dropout(session: Session, layer: Any, value: float) -> None:
    of = session.layer(layer)
    _assign(session, f"dropout of layer {layer}", of, "dropout", share("value", value))


def _freeze(session: Session, value: bool, node: Any = None, layer: Any = None) -> None:
    value = truth("value", value)
    if (node is None) == (layer is None):
        raise ValueError("freeze: expected either node or layer")
    what: Any = session.neuron(node) if layer is None else session.layer(layer)
    name = repr(what) if layer is None else f"layer {layer}"
    neurons = [what] if layer is None else what.neurons

    def assign(values: list[bool]) -> None:
        for neuron, frozen in zip(neurons, values, strict=True):
            neuron.frozen = frozen

    with session.editing(f"{'freeze' if value else 'thaw'} {name}") as how:
        old, new = [neuron.frozen for neuron in neurons], [value] * len(neurons)
        assign(new)
        how += [lambda: assign(old), lambda: assign(new)]


def _assign(session: Session, what: str, thing: Any, name: str, value: Any) -> None:
    """Assign an attribute that the graph's own undo does not know."""
    old = getattr(thing, name)
    with session.editing(f"{what}: {old:.4g} → {value:.4g}") as how:
        setattr(thing, name, value)
        how += [lambda: setattr(thing, name, old), lambda: setattr(thing, name, value)]


def _widen(session: Session, layer: Any, n: int = 1) -> None:
    of, n = session.layer(layer), whole("n", n, 1, MOST_NEW)
    assert isinstance(session.model, Network)
    with session.editing(f"{n} more in layer {layer}"):
        session.model.widen(of, n)


def _add_neuron(session: Session, sources: Any, targets: Any, activation: str = "tanh") -> None:
    """A neuron between nodes; its outgoing weights begin at 0, so that nothing changes at first."""
    if not isinstance(sources, list) or not isinstance(targets, list) or not sources or not targets:
        raise ValueError("add-neuron: expected lists of at least one source and one target")
    start = [session.node(node, "sources") for node in sources]
    ends = [session.neuron(node, "targets") for node in targets]
    graph = session.model.graph
    with session.editing("new neuron"), graph.one_edit():
        new: Neuron = graph.add_neuron(start, activation)
        for end in ends:
            graph.add_edge(new, end, 0.0)


def _prune(session: Session, sparsity: float, by: str = "path") -> None:
    of, sparsity = session.model, share("sparsity", sparsity)
    data, graph = session.data, session.model.graph
    sample = (data.x[:4096], data.y[:4096]) if by == "saliency" else None
    # A slider goes both ways: what it cut before returns first. Moved again before the next step, it cuts anew,
    # so that its place alone decides on the network, and one undo takes all of it back. After steps, what was
    # trained stays, and the next cut is another.
    with graph.lock:
        session.notice()
        before, n, last = {**session.test(fresh=True), "n_edges": of.n_edges}, 0, session.last_edit
        again = last is not None and last["what"].startswith("sparsity") and last["step"] == session.run.steps
        if again and last is not None:
            before = last["before"]
        try:
            while (session.can_undo or "").startswith("sparsity") and (again or sparsity < of.sparsity):
                again = False
                session.undo()
                n += 1
            if not n or sparsity > of.sparsity:
                with session.editing(f"sparsity {100 * sparsity:.3g} %"):
                    of.prune(sparsity=sparsity, by=by, data=sample)
        except BaseException:
            for _ in range(n):
                session.redo()
            session.last_edit = last
            raise
        session.last_edit = {**(session.last_edit or {}), "before": before}


def _undo(session: Session) -> None:
    session.undo()


def _redo(session: Session) -> None:
    session.redo()


EDITS = {
    "cut-neuron": Kind(_cut_neuron, "node"),
    "cut-edge": Kind(_cut_edge, "source target"),
    "add-edge": Kind(_add_edge, "source target", "weight"),
    "add-neuron": Kind(_add_neuron, "sources targets", "activation"),
    "set-weight": Kind(_set_weight, "source target value"),
    "set-bias": Kind(_set_bias, "node value"),
    "set-activation": Kind(_set_activation, "node value"),
    "set-dropout": Kind(_set_dropout, "layer value"),
    "freeze": Kind(_freeze, "value", "node layer"),
    "widen": Kind(_widen, "layer", "n"),
    "prune": Kind(_prune, "sparsity", "by"),
    "undo": Kind(_undo),
    "redo": Kind(_redo),
}
"""The kinds of edits. A node is an id, {"layer": 0, "neuron": 7} or {"input": 3}; "node" may also be given as
"layer" and "neuron" beside "edit". Any edit may carry the "numbering" of the answer that told the ids: if they may mean
other nodes by now, it is refused."""
