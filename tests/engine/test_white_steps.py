"""What the kernels do after a bad step."""

import numpy as np
import pytest
from swept import data, layered

from mlgraph.compiler.plan import Plan
from mlgraph.engine.engine import Engine
from mlgraph.engine.steps import Steps
from mlgraph.models.running import read_with_targets


@pytest.mark.parametrize("sizes", [(200, 10), (200, 26), (200, 20, 10)], ids=str)
@pytest.mark.parametrize("why", ["not finite", "above the limit"])
def test_nothing_is_swept_after_a_bad_step(sweep, sizes, why):
    """Also by a thread that has one unit a step and does not look again before it begins the next one."""
    x, y = data(1200, 200, 1, "sparse")[0] / np.float32(255), np.full((1200, sizes[-1]), 0.1, np.float32)
    bad, results = 200, set()  # by this step all threads have come
    if why == "not finite":
        x[4 * bad + 2, 7] = np.inf
    else:
        y[4 * bad + 2] = 1e6
    for n_threads in (1, 2, 2, 2, 2, 3):
        net = layered(sizes, "relu")
        examples, objective = read_with_targets(net, x, y)
        engine = Engine(net.graph, Plan(net.graph, [*net.output_ids, *net.loss_ids], net.dropout_shares))
        losses = np.full(1200, -1, np.float32)
        stopped, _, _ = engine.execute(
            examples,
            steps=Steps(np.arange(0, 1200, 4), np.full(300, 4), np.full(300, 0.01, np.float32)),
            objective=objective,
            optimizer="sgd",
            seed=0,
            losses=losses,
            n_threads=n_threads,
            limit=1e4 * (why == "above the limit"),
        )
        assert stopped == bad and (losses[: 4 * bad] >= 0).all() and (losses[4 * bad + 4 :] == -1).all()
        results.add(net.graph.parameters.tobytes())
    assert len(results) == 1
