"""How long LeNet-300-100 takes for one example and for 10,000: mlgraph and onnxruntime, in turns.

    python bench/onnx_latency.py [--rounds 60]

The network of onnxruntime is that of `mlgraph.exchange.to_onnx`, in which cut edges are zeros. Both have the
machine's cores. A turn is a batch of 10,000, or 200 calls with one example; the best and the median of the
turns are printed.
"""

import argparse
import statistics
import time

import numpy as np
import onnxruntime

import mlgraph
from mlgraph import exchange

EXAMPLES = {1: (200, 1e6, "us"), 10_000: (1, 1e3, "ms")}
"""Numbers of examples, with the calls of a turn and the unit of its time."""


def lenet(sparsity):
    net = mlgraph.Network(784, seed=0)
    for size, activation in ((300, "relu"), (100, "relu"), (10, "softmax")):
        net.add_layer(size, activation)
    net.prune(sparsity)
    return net


def callers(net):
    """What computes the probabilities, by name."""
    session = onnxruntime.InferenceSession(
        exchange.to_onnx(net).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    compiled = net.graph.compile(net.probabilities)
    return {
        "`predict_proba`": net.predict_proba,
        "`graph.compile`": compiled,
        "onnxruntime": lambda x: session.run(None, {"x": x})[0],
    }


def seconds(call, x, calls):
    began = time.perf_counter()
    for _ in range(calls):
        call(x)
    return (time.perf_counter() - began) / calls


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    networks = {f"{sparsity:.0%}": callers(lenet(sparsity)) for sparsity in (0, 0.9, 0.98)}
    print("| examples | edges cut |", " | ".join(next(iter(networks.values()))), "|")
    print("|---|---|---|---|---|")
    for examples, (calls, factor, unit) in EXAMPLES.items():
        x = rng.random((examples, 784), np.float32)
        for cut, computed_by in networks.items():
            times = {name: [] for name in computed_by}
            expected = next(iter(computed_by.values()))(x)
            for name, call in computed_by.items():
                np.testing.assert_allclose(call(x), expected, rtol=1e-4, atol=1e-6, err_msg=name)
            for _ in range(rounds):
                for name, call in computed_by.items():
                    times[name].append(seconds(call, x, calls) * factor)
            cells = (f"{min(each):.3g}, {statistics.median(each):.3g}" for each in times.values())
            print(f"| {examples:,}, in {unit} | {cut} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
