"""Film a session of the studio: train, look into a neuron, cut it, undo, draw a 3, cut 95 % of the edges, train on.

    python bench/studio_film.py                        # bench/pictures/studio.webp, in about 40 seconds
    python bench/studio_film.py --pictures             # the pictures of docs/studio.md in place of the film

Needs ``pip install -e '.[studio,browser]' pillow`` and a Chromium. The film is an animated WebP of
about 20 seconds at 4 frames a second.
"""

from __future__ import annotations

import argparse
import io
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

import mlgraph
from mlgraph.studio import build, data
from mlgraph.studio.session import Session
from mlgraph.studio.studio import Studio

FRAMES_A_SECOND = 4
SIZE = {"width": 1280, "height": 800}


class Film:
    """Takes a picture of the page about four times a second."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.frames: list[Image.Image] = []

    def roll(self, seconds: float) -> None:
        """Film for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            begin = time.monotonic()
            self.frames.append(Image.open(io.BytesIO(self.page.screenshot())).convert("RGB"))
            self.page.wait_for_timeout(max(0, 1000 / FRAMES_A_SECOND - 1000 * (time.monotonic() - begin)))


def at(page: Page, name: str) -> Any:
    """An element by its data-testid."""
    return page.locator(f"[data-testid={name}]")


def draw_3(film: Film) -> None:
    """Draw a 3 in two strokes."""
    page = film.page
    box = at(page, "draw-canvas").bounding_box()
    for middle, begin, end in ((0.3, -150, 90), (0.66, -90, 150)):
        for angle in range(begin, end + 1, 15):
            x = box["x"] + box["width"] * (0.45 + 0.18 * math.cos(math.radians(angle)))
            y = box["y"] + box["height"] * (middle + 0.18 * math.sin(math.radians(angle)))
            page.mouse.move(x, y, steps=2)
            if angle == begin:
                page.mouse.down()
            if angle % 60 == 0:
                film.roll(0.2)
        page.mouse.up()


def act(film: Film) -> None:
    """The session."""
    page = film.page
    film.roll(0.8)
    at(page, "pace").select_option("1000")  # at full speed, all would be over in a second
    at(page, "play").click()
    film.roll(4)
    at(page, "neuron-0-7").click()
    film.roll(2.5)
    at(page, "cut-neuron").click()
    film.roll(2)
    at(page, "undo").click()
    film.roll(1)
    at(page, "pause").click()
    at(page, "tab-example").click()
    film.roll(0.6)
    draw_3(film)
    film.roll(1.6)
    at(page, "tab-prune").click()
    at(page, "sparsity").evaluate(
        "s => { s.value = 95; s.dispatchEvent(new Event('input')); s.dispatchEvent(new Event('change')); }"
    )
    film.roll(1.8)
    at(page, "play").click()
    film.roll(3)
    at(page, "pause").click()
    film.roll(0.8)


def graph_without_layers(n: int = 60) -> Session:
    """A graph in which each neuron reads some earlier ones, and data for it."""
    rng, graph = np.random.default_rng(0), mlgraph.Graph(seed=0)
    nodes: list[mlgraph.Node] = graph.add_inputs(12)
    for _ in range(n):
        chosen = rng.choice(len(nodes), min(len(nodes), int(rng.integers(2, 9))), replace=False)
        nodes.append(graph.add_neuron([nodes[i] for i in chosen], "tanh"))
    outputs = [graph.add_neuron(nodes[12 + i :: 4]) for i in range(3)]
    x = rng.normal(size=(2000, 12)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] * x[:, 2] > 0).astype(int) + (x[:, 3] > 1)
    return Session(mlgraph.Model(graph, outputs, loss="softmax_cross_entropy"), data.arrays(x, y))


def pictures(browser: Browser, folder: Path) -> None:
    """Write studio.png and others."""

    def picture(name: str, session: Session, look: Callable[[Page], None], accuracy: float, **options: Any) -> None:
        with Studio(session) as studio:
            page = browser.new_page(**{"viewport": SIZE, "color_scheme": "light", **options})
            page.goto(studio.url)
            at(page, "play").click()
            end = time.monotonic() + 60
            while session.test().get("accuracy", 0) < accuracy and time.monotonic() < end:
                page.wait_for_timeout(200)
            at(page, "pause").click()
            look(page)
            page.mouse.move(5, 500)  # no tip over the picture
            page.wait_for_timeout(1500)
            image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
            image.quantize(128, dither=Image.Dither.NONE).save(folder / name, optimize=True)
            page.close()
            print(folder / name)

    def select(page: Page) -> None:
        at(page, "neuron-0-12").click()

    def digit(page: Page) -> None:
        at(page, "tab-example").click()
        draw_3(Film(page))

    mnist, spiral = data.mnist(), data.toy("spiral")
    toy = Session(build.network(spiral, [8, 8], "tanh"), spiral, {"learning_rate": 0.01})
    picture("studio.png", Session(build.network(mnist, [32]), mnist), select, 0.967)
    picture("studio-dark.png", Session(build.network(mnist, [300, 100]), mnist), digit, 0.976, color_scheme="dark")
    picture("studio-toy.png", toy, lambda page: at(page, "tab-data").click(), 0.99)
    picture("studio-graph.png", graph_without_layers(), lambda page: None, 0.94)
    narrow = {"width": 390, "height": 844}
    picture("studio-narrow.png", Session(build.network(mnist, [32]), mnist), lambda page: None, 0.96, viewport=narrow)


def film(browser: Browser, path: Path) -> None:
    """Write the film."""
    mnist = data.mnist()
    with Studio(Session(build.network(mnist, [32]), mnist)) as studio:
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.goto(studio.url)
        page.wait_for_timeout(1000)
        taken = Film(page)
        act(taken)
    first, *others = [frame.resize((960, 600), Image.Resampling.LANCZOS) for frame in taken.frames]
    options = {"duration": 1000 // FRAMES_A_SECOND, "loop": 0, "quality": 55, "method": 4}
    first.save(path, save_all=True, append_images=others, **options)
    print(f"{path}: {len(taken.frames)} frames, {path.stat().st_size / 1024:.0f} kB")


def main() -> None:
    """Film, or take pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("bench/pictures"), help="folder (default: %(default)s)")
    parser.add_argument("--pictures", action="store_true", help="take the pictures of docs/studio.md")
    args = parser.parse_args()
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        if args.pictures:
            pictures(browser, args.out)
        else:
            film(browser, args.out / "studio.webp")
        browser.close()


if __name__ == "__main__":
    main()
