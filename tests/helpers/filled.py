"""Lightly pruned networks, and the blocks with holes that their rows become."""

import numpy as np

import mlgraph
from mlgraph.compiler.holes import candidates, with_holes, worth_holes
from mlgraph.compiler.instructions import KINDS
from mlgraph.engine.examples import Examples

SPARSE = Examples((np.arange(60) // 4 % 4 == 0).astype(np.uint8)[None], 60)  # about as sparse as MNIST


def lightly_pruned(sizes=(60, 30, 32, 6), share=0.3, seed=0, **options):
    """Layers that have lost a share of their edges, each other ones."""
    net = mlgraph.Network(sizes[0], seed=seed)
    for size in sizes[1:-1]:
        net.add_layer(size, activation="tanh", **options)
    net.add_layer(sizes[-1], activation="softmax")
    net.prune(share, by="random", scope="layer", seed=seed)
    return net


def without_rows_when_filled(sizes=(130, 30, 10)):
    """Only the first layer has lost edges."""
    net = mlgraph.Network(sizes[0], seed=0)
    for size in sizes[1:-1]:
        net.add_layer(size, activation="tanh")
    net.add_layer(sizes[-1], activation="softmax")
    net.layers[0].mask = np.random.default_rng(0).random((sizes[1], sizes[0])) < 0.7
    return net


def with_blocks(plan, density=0.27):
    """The plan with the blocks that data of this density deserve, and what is copied into them."""
    return with_holes(plan, worth_holes(candidates(plan), density))


def kinds(plan):
    return [ins.kind for _, ins in plan.trained if ins.kind >= KINDS["dense"]]
