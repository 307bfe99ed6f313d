"""What a page that is open, but does not draw, costs a run in the studio.

    python -m pytest bench/bench_studio.py -s

A process asks for the state as the page does, eight times a second, and rests, in turns. Speeds are
those between two calls of the training thread, so no step is counted in part. Other work on the
machine comes and goes, so the cost is the median over pairs of neighbouring turns. The goal is at
most 5 %; nothing is asserted about time.
"""

import http.client
import multiprocessing
import time
from urllib.parse import urlsplit

import numpy as np
import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

from mlgraph.studio import build, data
from mlgraph.studio.session import Session

TURNS, SECONDS = 30, 0.6
EVERY = 0.125
"""Seconds between two requests of page/api.js while a run goes on."""


def ask(url, active, answers):
    """What the page does: ask for the state for as long as `active` is set."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc)
    while active.wait():
        begin = time.monotonic()
        try:
            connection.request("GET", f"/api/state?{parts.query}")
            answer = connection.getresponse()
            answer.read()
        except http.client.HTTPException:  # the server closes a connection that rests
            connection.close()
            continue
        with answers.get_lock():
            answers.value += answer.status == 200
        time.sleep(max(0.02, EVERY - (time.monotonic() - begin)))


def turn(run):
    """Examples per second, over a turn."""
    time.sleep(0.25)  # until a kernel call has begun in this turn
    (begin, _, first) = run._recent[-1]
    time.sleep(SECONDS)
    while run._recent[-1][0] == begin:  # another program has the processors
        time.sleep(0.05)
    (end, _, last) = run._recent[-1]
    return (last - first) / (end - begin)


@pytest.mark.parametrize("hidden", [(32,), (300, 100)], ids=["784-32-10", "784-300-100-10"])
def bench_open_page(hidden, mnist):
    """Speed of a run with a page that asks for the state, and without one."""
    from mlgraph.studio.studio import Studio

    images = data.mnist()
    context = multiprocessing.get_context("spawn")
    active, answers = context.Event(), context.Value("i", 0)
    with Studio(Session(build.network(images, list(hidden)), images)) as studio:
        process = context.Process(target=ask, args=(studio.url, active, answers), daemon=True)
        process.start()
        try:
            run = studio.session.run
            run.play()
            while run.epochs < 1:
                time.sleep(0.1)
            speeds = {"without": [], "with": []}
            for i in range(2 * TURNS):
                name = ("without", "with", "with", "without")[i % 4]  # neither is always the later one
                (active.set if name == "with" else active.clear)()
                speeds[name].append(turn(run))
        finally:
            process.terminate()
            process.join()
    without, with_page = (float(np.median(speeds[name])) for name in ("without", "with"))
    print(f"\n784-{'-'.join(map(str, hidden))}-10: {without:,.0f} examples/s without a page, {with_page:,.0f} with one")
    low, cost, high = np.percentile(1 - np.array(speeds["with"]) / np.array(speeds["without"]), (25, 50, 75))
    print(f"the page costs {cost:.1%} (quartiles {low:.1%} and {high:.1%}); it was answered {answers.value} times")
    assert answers.value > TURNS * SECONDS
