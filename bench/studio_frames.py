"""How fast the studio draws: the frame time while zooming and panning, in headless Chromium.

    python bench/studio_frames.py

Prints the median and the 95th percentile for 784-300-100-10 on MNIST and for a free graph of 20,000 edges.
Needs ``pip install -e '.[studio]' playwright`` and a Chromium, found on the path or told by --chromium.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np

import mlgraph
from mlgraph.datasets import load_mnist

LARGEST = 33.0
"""Median frame time, in milliseconds, that the studio promises."""

RECORD = """() => {
  window.frames_ = [];
  window.recording_ = true;
  let before = performance.now();
  const note = (now) => {
    window.frames_.push(now - before);
    before = now;
    if (window.recording_) requestAnimationFrame(note);
  };
  requestAnimationFrame(note);
}"""


def free_graph(neurons: int = 2000, edges: int = 20_000, inputs: int = 20, seed: int = 0) -> mlgraph.Model:
    """Neurons that read earlier ones, chosen at random."""
    rng = np.random.default_rng(seed)
    graph = mlgraph.Graph(seed=seed)
    nodes = list(graph.add_inputs(inputs))
    unread = set()
    for _ in range(neurons - 1):
        chosen = rng.choice(len(nodes), min(len(nodes), edges // neurons), replace=False)
        unread.difference_update(chosen.tolist())
        unread.add(len(nodes))
        nodes.append(graph.add_neuron([nodes[i] for i in chosen], "tanh"))
    return mlgraph.Model(graph, graph.add_neuron([nodes[i] for i in sorted(unread)]))


def studios() -> Iterator[tuple[str, Any]]:
    """What is measured."""
    data = load_mnist()
    net = mlgraph.Network(784, seed=0)
    for size in (300, 100):
        net.add_layer(size, "leaky_relu")
    net.add_layer(10, "softmax")
    yield "784-300-100-10", net.studio(data.train_x[:1000], data.train_y[:1000], open_browser=False)
    model = free_graph()
    x = np.random.default_rng(1).normal(size=(200, 20)).astype(np.float32)
    yield f"free graph, {model.n_edges:,} edges", model.studio(x, x[:, :1], open_browser=False)


def frames(page, url: str, rounds: int) -> np.ndarray:
    """Frame times, in milliseconds, of a person who zooms in, looks around, rests, and zooms out."""
    page.goto(url)
    page.wait_for_selector("[data-testid=neuron-0-0]", state="attached")
    page.wait_for_timeout(3000)
    box = page.locator("[data-testid=network]").bounding_box()
    x, y = box["x"] + box["width"] * 0.55, box["y"] + box["height"] * 0.5
    page.evaluate(RECORD)
    for _ in range(rounds):
        page.mouse.move(x, y)
        for _ in range(30):
            page.mouse.wheel(0, -40)
        page.wait_for_timeout(400)
        page.mouse.down()
        page.mouse.move(x - 200, y + 100, steps=30)
        page.mouse.move(x + 100, y - 100, steps=30)
        page.mouse.up()
        page.wait_for_timeout(400)
        for _ in range(40):
            page.mouse.wheel(0, 40)
    return np.array(page.evaluate("() => { window.recording_ = false; return window.frames_; }")[1:])


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("chromium-browser"))
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=args.chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        for name, studio in studios():
            with studio:
                times = frames(page, studio.url, args.rounds)
            median, slow = np.percentile(times, [50, 95])
            verdict = "" if median <= LARGEST else f", above the promised {LARGEST:.0f} ms"
            print(f"{name:<28} median {median:5.1f} ms, 95 % below {slow:5.1f} ms, {len(times)} frames{verdict}")
        browser.close()


if __name__ == "__main__":
    main()
