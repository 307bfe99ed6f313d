"""What the second phase of a step is cut into."""

import numpy as np
import pytest
from planned import plan_of

import mlgraph
from mlgraph.compiler.units import unit_floats, units_of
from mlgraph.graph.storage import PANEL
from mlgraph.models.running import engine_of


def test_units_do_not_cut_quads():
    """Of rows about 2048 edges each; neurons that share their sources stay together."""
    rng, g = np.random.default_rng(0), mlgraph.Graph()
    x = g.inputs(300)
    lists = [[node for node in x if rng.random() < 0.3] for _ in range(40)]
    hidden = [g.add_neuron(lists[i // 5], weights=np.ones(len(lists[i // 5]))) for i in range(100)]
    plan = plan_of(*hidden)
    units = units_of(plan, False, 0)
    bounds = units[units[:, 1] == 0][:, 2:4]
    assert len(bounds) == 5 and set((bounds % 5).ravel()) == {0, 4}
    assert bounds[0, 0] == 0 and bounds[-1, 1] == 100 and (bounds[1:, 0] == bounds[:-1, 1]).all()


@pytest.mark.parametrize("ahead", [0, 1, 2, 3])
@pytest.mark.parametrize("sizes", [(150, 40), (150, 600), (70, 9, 1100)], ids=str)
def test_units_take_each_weight_and_bias_of_blocks_once(sizes, ahead):
    net = mlgraph.Network(sizes[0], seed=0)
    for size in sizes[1:]:
        net.add_layer(size)
    plan = engine_of(net).plan
    units = units_of(plan, True, ahead)
    taken = {i: np.zeros((-(-ins.size // PANEL), ins.arity + 1), int) for i, ins in plan.trained}
    for i, part, first, last, panel, panels in units.tolist():
        end = plan.instructions[i].arity
        some, first, last = taken[i][panel : panel + panels], *((end, end + 1) if part == 1 else (first, last))
        assert len(some) == panels and first < last <= end + (part == 1)
        some[:, first:last] += 1
        some[:, end] += part == 2 and first == 0
        assert part == 2 or panels * PANEL * (last - first) <= unit_floats(plan, units)
    assert all((each == 1).all() for each in taken.values())
