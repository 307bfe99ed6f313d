"""``python -m mlgraph.mnist inspect``: a table and a picture of what the neurons of a saved network do."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import mlgraph
from mlgraph.app.arguments import INDEX, NEURON, Failure
from mlgraph.app.common import (
    FAILED,
    OK,
    add_common_options,
    add_model_argument,
    check_output,
    complain,
    count,
    describe,
    finite,
    load,
    remark,
)
from mlgraph.datasets import Dataset
from mlgraph.graph.views import name_of
from mlgraph.pictures import Portrait, draw_portraits, neuron_portraits
from mlgraph.pictures.plotting import picture_format

MOST_SHOWN = 40
"""Maximum number of neurons in the picture of a layer. Those that the loss needs most are shown."""

LISTED = 12
"""Maximum number of edges and images in the description of a neuron."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    add_model_argument(parser)
    add_common_options(parser)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--neuron", type=NEURON, metavar="LAYER.INDEX", help="describe one neuron in detail, for example 0.7"
    )
    which.add_argument("--layer", type=INDEX, metavar="N", help="layer to draw (default: 0, the first)")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="picture to write: .png, .svg or .pdf (default: named after MODEL, such as model.png, model.1.png for "
        "layer 1, model.0.7.png for neuron 0.7)",
    )
    parser.add_argument("--no-plot", action="store_true", help="do not draw a picture")


def run(args: argparse.Namespace) -> int:
    """Describe the neurons of a saved network; return the exit status."""
    net, data = load(args.model, args.data)
    layer, index = args.neuron or (args.layer or 0, None)
    if layer >= len(net.layers):
        option = "--layer" if index is None else "--neuron"
        raise Failure(f"argument {option}: expected a layer from 0 to {len(net.layers) - 1}, got {layer}")
    size = net.layers[layer].size
    if index is not None and index >= size:
        raise Failure(f"argument --neuron: expected a neuron from {layer}.0 to {layer}.{size - 1}, got {layer}.{index}")
    suffix = "".join(f".{number}" for number in args.neuron or ([layer] if layer else [])) + ".png"
    out = Path(args.out) if args.out is not None else Path(args.model).with_suffix(suffix)
    if not args.no_plot:
        _check_picture(out, args.model)

    table = net.inspect(data.test_x, data.test_y, n_threads=args.threads)
    accuracy = net.evaluate(data.test_x, data.test_y, n_threads=args.threads)["accuracy"]
    heading = f"{describe(net)}, test accuracy {accuracy:.2%}"
    of_layer = table[table["layer"] == layer]
    shown = of_layer[of_layer["alive"]] if index is None else of_layer[[index]]
    n = len(shown)
    shown = shown[np.argsort(-shown["loss"], kind="stable")][:MOST_SHOWN]
    neurons = [mlgraph.Neuron(net.graph, node) for node in shown["node"].tolist()]
    is_wanted = n and shown["alive"].all() and not (args.no_plot and index is None)
    portraits = neuron_portraits(net, neurons, data.test_x, data.test_y) if is_wanted else []

    remarks = []
    status = OK
    if args.no_plot:
        pass
    elif not portraits:
        remark("no picture: " + (f"layer {layer} has no live neurons" if index is None else "the neuron is cut off"))
    else:  # draw before printing, since whoever reads the output may close the pipe early
        title = heading
        if index is None:
            if np.isnan(shown["loss"]).all():
                what = "the outputs"
            elif n > MOST_SHOWN:
                what = f"the {MOST_SHOWN} of {n} neurons that the loss needs most"
            else:
                what = "those that the loss needs most come first"
            title += f"; layer {layer}, {what}"
        titles = [_title(row) for row in shown]
        try:
            draw_portraits(portraits, data.test_x, data.image_shape, out, titles=titles, title=title)
            remarks = [f"\nwrote {out}"]
        except ImportError as error:
            remark(f"no picture: {error}")
        except Exception as error:  # matplotlib raises errors of many types; the table needs no picture
            complain(f"error: no picture: {error}")
            status = FAILED
    print(f"{args.model}: {heading}")
    if index is None:
        never = table["alive"] & (table["active"] == 0) & ~np.isnan(table["loss"])  # outputs may well be inactive
        state = f"{count(int(table['alive'].sum()), 'neuron')} alive of {len(table):,}"
        print(f"sparsity {net.sparsity:.2%}, {state}" + (f", {never.sum():,} never active\n" if never.any() else "\n"))
        print(*_table(table), *remarks, sep="\n")
    else:
        print(*_describe(net, neurons[0], shown[0], portraits, data), *remarks, sep="\n")
    if args.json:
        names = table.dtype.names or ()
        rows = [dict(zip(names, map(finite, row), strict=True)) for row in (table if index is None else shown).tolist()]
        result = {
            "model": args.model,
            "data": args.data,
            "test_accuracy": accuracy,
            "sparsity": net.sparsity,
            "edges": net.n_edges,
            "neurons": rows,
        }
        print(json.dumps(result))
    sys.stdout.flush()
    return status


def _check_picture(out: Path, model: str) -> None:
    """Raise a `Failure` if no picture can be written at this path, so that no work is lost at the end."""
    check_output(out)
    if out.exists() and out.samefile(model):
        raise Failure(f"argument --out: {str(out)!r} would replace MODEL; choose another name")
    try:
        picture_format(out)
    except ValueError as error:
        raise Failure(f"argument --out: {str(error).removeprefix('path: ')}") from None


def _table(table: Any) -> list[str]:
    lines = [
        "neuron  active    mean  deviation  dormant  fan in  fan out  norm in  norm out    bias"
        "  without: loss   accuracy"
    ]
    for row in table:
        name = f"{row['layer']}.{row['index']}" if row["layer"] >= 0 else f"n{row['node']}"  # -1: in no layer
        if not row["alive"]:
            lines.append(f"{name:7}  cut")
            continue
        cost = "" if np.isnan(row["loss"]) else f"  {row['loss']:+13.4f}  {_points(row):+9.2f} points"
        lines.append(
            f"{name:7}  {row['active']:5.1%}  {row['mean']:6.3f}  {row['std']:9.3f}  {row['dormant']:7.3f}"
            f"  {row['fan_in']:6}  {row['fan_out']:7}  {row['norm_in']:7.3f}  {row['norm_out']:8.3f}"
            f"  {row['bias']:6.3f}{cost}"
        )
    return lines


def _describe(
    net: mlgraph.Network, neuron: mlgraph.Neuron, row: Any, portraits: list[Portrait], data: Dataset
) -> list[str]:
    state = "alive" if row["alive"] else "cut off"
    lines = ["", f"neuron {row['layer']}.{row['index']}: {neuron.activation}, node {neuron.id}, {state}"]
    edges = sorted(neuron.in_edges, key=lambda edge: -abs(edge.weight))
    targets = sorted(neuron.out_edges, key=lambda edge: -abs(edge.weight))

    def name(node: mlgraph.Node) -> str:
        if node.kind == "input":
            return "pixel {},{}".format(*divmod(int(net.graph.records[node.id]), data.image_shape[1]))
        return name_of(net.graph, node.id, short=True)

    bias = "no bias" if neuron.bias is None else f"bias {neuron.bias:.4f}"
    largest_in = ", ".join(f"{name(edge.source)} {edge.weight:+.3f}" for edge in edges[:LISTED])
    largest_out = ", ".join(f"{name(edge.target)} {edge.weight:+.3f}" for edge in targets[:LISTED])
    lines += [
        f"  {count(len(edges), 'source')}, {bias}, norm of the weights {row['norm_in']:.4f}"
        + (f"; the largest: {largest_in}" if edges else ""),
        f"  {count(len(targets), 'target')}, norm of the weights {row['norm_out']:.4f}"
        + (f"; the largest: {largest_out}" if targets else ""),
        f"  value: mean {row['mean']:.4f}, deviation {row['std']:.4f}, active in {row['active']:.1%}, dormant score "
        f"{row['dormant']:.3f}",
    ]
    if not np.isnan(row["loss"]):
        lines.append(f"  without it: loss {row['loss']:+.4f}, accuracy {_points(row):+.2f} points")
    present = np.unique(data.test_y)  # a class without test images has no mean
    for portrait in portraits:
        means, weights = portrait.class_means, portrait.logit_weights
        images = [f"{i} (a {data.test_y[i]})" for i in portrait.top_examples[:LISTED].tolist()]
        lines += [
            "  mean value by class: "
            + ", ".join(f"{c} {means[c]:.3f}" for c in present[np.argsort(-means[present])].tolist()),
            "  logits: " + ", ".join(f"{c} {weights[c]:+.3f}" for c in np.argsort(-weights).tolist()),
            "  test images that excite it most: " + (", ".join(images) or "none"),
        ]
    return lines


def _points(row: Any) -> float:
    """Change of the accuracy without a neuron, in percentage points; 0, not -0, if there is none."""
    return float(0 - 100 * row["accuracy"])


def _title(row: Any) -> str:
    cost = "" if np.isnan(row["accuracy"]) else f"   without it: loss {row['loss']:+.3f}, {_points(row):+.2f} points"
    return f"{row['layer']}.{row['index']}   active in {row['active']:.0%}{cost}"
