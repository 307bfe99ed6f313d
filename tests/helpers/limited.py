"""All that uses threads, in a process whose memory or threads are limited."""

from processes import run

WORK = """
import hashlib, os, resource, sys, warnings

kind, limit, *counts = sys.argv[1], *map(int, sys.argv[2:])
if kind == "AS":
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
warnings.simplefilter("ignore")  # of refused threads
try:
    import numpy as np
    import mlgraph

    def network(seed):
        net = mlgraph.Network(40, seed=seed)
        net.add_layer(32)
        net.add_layer(10, "softmax")
        return net

    rng, results = np.random.default_rng(0), []
    x, y = rng.integers(0, 3, (3000, 40)).astype(np.float32), rng.integers(0, 10, 3000)
    for n in counts:
        net = network(0)
        net.fit(x, y, epochs=2, batch_size=256, validation_data=(x[:70], y[:70]), n_threads=n)
        few, more = {"n_threads": min(n, 2)}, {"n_threads": n}
        traced = net.trace(x[:200], y[:200], **more)
        population = mlgraph.Population([network(seed) for seed in range(4)])
        population.fit(x[:300], y[:300], epochs=2, n_threads=min(n, 7))
        found = [
            net.graph.get_parameters(),
            net.predict(x, **few),
            net.gradients(x[:999], y[:999], **more).parameters,
            net.inspect(x[:500], y[:500], **few)["mean"],
            net.evaluate(x, y, **more)["loss"],
            traced.adjoint(net.layers[0].neurons[3]),
            population.predict(x, **more),
            population.forward(x, n_threads=min(n, 7)),
        ]
        print(hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in found)).hexdigest()[:16])
        if kind == "NPROC":
            if os.geteuid() == 0:  # who may start threads without limit
                os.setgid(65534)
                os.setuid(65534)
            resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit))
except MemoryError:
    print("MemoryError")
"""


def results(kind, limit, *counts, **environment):
    """What a process prints: for each number of threads a hash of its results, until MemoryError ends it.

    `kind` is "AS" (bytes of address space), "NPROC" (threads of the user, from the second number on) or "none".
    """
    return run(WORK, kind, str(limit), *map(str, counts), **environment)


def bare_memory():
    """Bytes of address space that the import of mlgraph and numpy needs, at its peak."""
    code = "import mlgraph; mlgraph.Network(1); print(open('/proc/self/status').read().split('VmPeak:')[1].split()[0])"
    return 1024 * int(run(code)[0])
