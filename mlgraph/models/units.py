"""In which units a model reads its data and answers, for functions that leave Python."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from mlgraph._support.array_types import Float64
from mlgraph.engine.examples import BYTE, Examples
from mlgraph.engine.function import Function
from mlgraph.engine.units import Units, quoted
from mlgraph.graph.views import own_name
from mlgraph.models.classes import n_classes_of
from mlgraph.models.model import Model
from mlgraph.models.running import scaling_for
from mlgraph.models.scaling import BYTES, UNSCALED, Data, Scaling, Standardization, as_data, ordered, scaled


def function_of(model: Model, calibrate: Data | None = None) -> Function:
    """The outputs of a model as a function that knows the units of the model's data.

    A model without a scaling reads data as the first `fit` on `calibrate` would.
    """
    with model.require_outputs():
        scaling = model.scaling or (UNSCALED if calibrate is None else scaling_for(model, calibrate))
        graph, n = model.graph, model.graph.n_inputs
        read = partial(_read, model.columns, scaling, n)
        names = {i: name for i, node in enumerate(graph.input_ids) if (name := own_name(graph, node)) is not None}
        return Function(graph, model.outputs, units=Units(read, *_mean_and_std(scaling, n), names, _answers(model)))


def _read(columns: tuple[str, ...] | None, scaling: Scaling, n: int, x: npt.ArrayLike, what: str) -> Examples:
    data = ordered(as_data(x, what), columns, complete=True)
    array = scaled(data, scaling)
    examples = Examples((array / 255).astype(np.float32) if array.dtype == BYTE else array, n, what)
    examples.columns = data.columns
    return examples


def _mean_and_std(scaling: Scaling, n: int) -> tuple[Float64, Float64]:
    mean, std = np.zeros(n), np.full(n, 255.0 if scaling == BYTES else 1.0)
    if isinstance(scaling, Standardization):  # targets of a loss that is a node may follow
        mean[: len(scaling.mean)], std[: len(scaling.std)] = scaling
    return mean, std


def _answers(model: Model) -> list[str]:
    """What the outputs mean."""
    n, classes = len(model.output_ids), model.classes
    n_classes = n_classes_of(model.loss, n)
    if n_classes and n == 1:
        no, yes = [_shown(label) for label in classes] if classes else ["no", "yes"]
        return [f"y[0] is a score: above 0 it means {yes}, else {no}."]
    names: dict[int, object] = {i: own_name(model.graph, node) for i, node in enumerate(model.output_ids)}
    lines = [
        f"y[{i}]: {_shown(name)}" for i, name in (names | dict(enumerate(classes or ()))).items() if name is not None
    ]
    what = ""
    if n_classes:
        what = "y[i] is the score of class i; the largest is the answer"
    elif model.loss == "binary_cross_entropy":
        what = "y[i] is a score: above 0 it means yes, else no"
    return [f"{what}{':' if lines else '.'}", *lines] if what else lines


def _shown(label: object) -> str:
    return quoted(label) if isinstance(label, str) else str(label)
