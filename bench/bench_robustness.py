"""What safety costs: the check of every step for numbers that are not finite, and an epoch beside a busy process."""

import subprocess
import sys
import time

import numpy as np
import pytest
from rivals import network

import mlgraph_ext
from mlgraph.compiler.instructions import KINDS, LANES, OF_NEURONS
from mlgraph.engine.engine import NOTHING
from mlgraph.engine.examples import Examples
from mlgraph.engine.steps import Learning
from mlgraph.models.running import engine_of
from mlgraph.training.nonfinite import Guard

BATCH = 128


def seconds_of(call, times):
    """Seconds of each of some calls, one after the other."""
    seconds = []
    for _ in range(times):
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return seconds


def floats_looked_at(plan, n):
    """In an epoch of `n` examples: adjoints of neurons and parameters, and values that neurons read, of every tile."""
    slots = plan.read_slots[1] - plan.read_slots[0]
    slots += sum(ins.size for ins in plan.instructions if ins.kind in (*OF_NEURONS, KINDS["parameter"]))
    tiles = -(-BATCH // LANES) * (n // BATCH) + -(-(n % BATCH) // LANES)
    return slots * LANES * tiles


@pytest.mark.benchmark(group="what is not finite, epoch on one thread, batch 128")
@pytest.mark.parametrize("hidden", [(32,), (300, 100)], ids=str)
@pytest.mark.parametrize("kind", ["bytes", "floats"])
def bench_nonfinite_check(benchmark, note, mnist, hidden, kind):
    """A pass over all that an epoch's check looks at; `share_of_epoch` is its time as a share of the epoch's.

    That is adjoints, values and losses, which a sweep has in a nearer cache than this pass, and the
    optimizer's state. Data of floats are looked at once more, when `fit` begins (`data_once_a_fit`,
    in seconds). There is no run without the check to compare with: no switch turns it off. A sum
    for each run of weights, of one number for each tile, is not timed.
    """
    x, y = (mnist.train_x, mnist.train_y) if kind == "bytes" else (mnist.train_x / np.float32(255), mnist.train_y)
    net, given = (
        network(*hidden),
        {"epochs": 1, "batch_size": BATCH, "n_threads": 1, "optimizer": "sgd", "learning_rate": 0.05},
    )
    net.fit(x, y, **given)
    n = floats_looked_at(engine_of(net).plan, len(x)) + len(x)
    looked_at = np.ones(2**17, np.float32)  # fits into a second-level cache
    learning = Learning(NOTHING, "momentum", (0.9, 0.0, 0.0), 0, False, 1)
    guard = Guard(net, "raise", Examples(x[:1], 784), learning)

    def check():
        for first in range(0, n, len(looked_at)):
            assert mlgraph_ext.sweep.are_finite(looked_at, np.array([[0, min(len(looked_at), n - first)]]))
        guard.begin(learning, 0.05)
        return guard.limit

    limit = benchmark.pedantic(check, rounds=20, warmup_rounds=2)
    data = min(seconds_of(lambda: Examples(x, 784).check_trainable(), 5)) if kind == "floats" else 0.0
    epoch = min(seconds_of(lambda: net.fit(x, y, **given), 7))
    once = min(benchmark.stats.stats.data)
    note(floats=n, epoch=epoch, share_of_epoch=round(once / epoch, 5), data_once_a_fit=data)
    print(
        f"\n{'-'.join(map(str, hidden))}, {kind}: {once / epoch:.2%} of an epoch of {epoch:.4f} s, "
        f"{data:.4f} s once a fit"
    )
    assert limit > 0 and np.isfinite(net.graph.parameters).all()


@pytest.mark.benchmark(group="busy neighbour, epoch 784-32-10, batch 128")
@pytest.mark.parametrize("neighbours", [1, 2])
def bench_busy_neighbour(benchmark, note, mnist, neighbours):
    """Five epochs while other processes compute; `worst_over_quiet` is the slowest over the fastest without them."""
    net, given = network(32), {"epochs": 1, "batch_size": BATCH, "optimizer": "sgd", "learning_rate": 0.05}

    def epoch():
        net.fit(mnist.train_x, mnist.train_y, **given)

    quiet = min(seconds_of(epoch, 6))
    spin = [sys.executable, "-c", "print(flush=True)\nwhile True: pass"]
    children = [subprocess.Popen(spin, stdout=subprocess.PIPE) for _ in range(neighbours)]
    try:
        for child in children:
            child.stdout.readline()
        benchmark.pedantic(epoch, rounds=5)
    finally:
        for child in children:
            child.kill()
            child.communicate()
    worst = benchmark.stats.stats.max
    accuracy = net.evaluate(mnist.test_x, mnist.test_y)["accuracy"]
    note(neighbours=neighbours, quiet=quiet, worst_over_quiet=round(worst / quiet, 3), accuracy=accuracy)
    print(f"\n{neighbours} beside: {worst / quiet:.2f} times the quiet {quiet:.4f} s in the worst of five")
    assert accuracy > 0.9
