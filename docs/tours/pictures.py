"""Walk the three tours in a browser: take their pictures, and print the figures that they state.

    python docs/tours/pictures.py                      # docs/tours/*.png, in about four minutes

Needs ``pip install -e '.[studio,browser]' pillow`` and a Chromium. Every step is a click on the page.
"""

from __future__ import annotations

import argparse
import io
import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from mlgraph.studio import build, data
from mlgraph.studio.data import Data
from mlgraph.studio.session import Session
from mlgraph.studio.studio import Studio

FIGURES = ("test-accuracy", "test-loss", "accuracy", "loss", "n-edges")


class Visitor:
    """Someone at the page."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.page, self.folder = page, folder

    def at(self, name: str) -> Locator:
        """An element by its data-testid."""
        return self.page.locator(f"[data-testid={name}]")

    def click(self, name: str) -> None:
        """Click an element, and let the page answer."""
        self.at(name).click()
        self.page.wait_for_timeout(1200)

    def until_idle(self) -> None:
        """Wait for the end of a run."""
        self.page.wait_for_timeout(400)
        self.at("play").wait_for(timeout=300_000)
        self.page.wait_for_timeout(800)

    def learn(self, epochs: int) -> None:
        """Press Epoch so many times."""
        for done in range(epochs):
            begun = int(self.at("epoch-number").inner_text())
            self.at("epoch").click()
            self.page.wait_for_function(
                "n => +document.querySelector('[data-testid=epoch-number]').textContent > n", arg=begun
            )
            self.at("play").wait_for(timeout=60_000)
            if done + 1 == epochs:
                self.page.wait_for_timeout(800)

    def cut(self, neuron: int) -> None:
        """Cut a neuron of layer 0, tell what it cost, and undo it."""
        self.click(f"neuron-0-{neuron}")
        self.click("cut-neuron")
        self.tell_edit()
        self.click("undo")

    def slide(self, name: str, value: float) -> None:
        """Move a slider."""
        script = (
            "(s, v) => { s.focus(); s.value = v; for (const e of ['input', 'change']) s.dispatchEvent(new Event(e)); }"
        )
        self.at(name).evaluate(script, value)
        self.page.wait_for_timeout(1200)

    def mean_cost(self) -> tuple[float, float]:
        """Mean and greatest loss of accuracy, in points, when a neuron of layer 0 is missing."""
        costs = []
        for i in range(32):
            self.at(f"neuron-0-{i}").click()
            self.page.wait_for_timeout(400)
            with_it, without = self.at("ablation").inner_text().split("%")[:2]
            costs.append(float(with_it.split()[-1]) - float(without.split()[-1]))
        return sum(costs) / len(costs), max(costs)

    def tell(self, what: str) -> None:
        """Print the figures above the network."""
        print(f"  {what}:", ", ".join(f"{name} {self.at(name).inner_text()}" for name in FIGURES), flush=True)

    def tell_edit(self) -> None:
        """Print the line of the last edit."""
        print(" ", " ".join(self.at("last-edit").inner_text().split()), flush=True)

    def picture(self, name: str) -> None:
        """Take a picture of the page."""
        self.page.mouse.move(5, 500)  # no tip over the picture
        self.page.wait_for_timeout(1000)
        image = Image.open(io.BytesIO(self.page.screenshot())).convert("RGB")
        image.quantize(128, dither=Image.Dither.NONE).save(self.folder / name, optimize=True)
        print(f"  {self.folder / name}")


def what_a_neuron_sees(v: Visitor) -> None:
    """The first tour."""
    v.at("pace").select_option("10")
    v.click("play")
    v.page.wait_for_timeout(9000)
    v.click("pause")
    v.tell("after ten seconds")
    v.click("reset")
    v.at("pace").select_option("null")
    v.learn(10)
    v.tell("after ten epochs")
    v.click("neuron-0-4")
    v.picture("what-a-neuron-sees.png")
    print(" ", v.page.locator(".bars").first.get_attribute("aria-label"))
    v.cut(1)
    v.cut(4)
    v.page.locator("#panel-neuron button.example").first.click()
    v.at("patch").wait_for()
    for value in (10, 5, 0):
        v.slide("patch", value)
        says = v.page.locator("#panel-example .bars").first.get_attribute("aria-label")
        print(f"  with {value}: {v.at('prediction').inner_text()}; {says}")
    v.picture("what-if.png")
    v.click("tab-neuron")
    v.click("cut-neuron")
    v.learn(1)
    v.tell("one epoch after the cut")


def why_dropout(v: Visitor) -> None:
    """The second tour."""
    for dropout in ("0", "0.1", "0.3"):
        v.click("reset")
        v.at("dropout").select_option(dropout)
        v.page.wait_for_timeout(800)
        v.learn(10)
        v.tell(f"dropout {dropout}, ten epochs")
        print("  cost of a neuron: mean {:.2f}, greatest {:.2f} points".format(*v.mean_cost()))
        for neuron in (2, 4):
            v.cut(neuron)
        if dropout == "0.1":
            v.click("neuron-0-4")
            v.click("cut-neuron")
            v.picture("why-dropout.png")
    v.click("tab-data")
    v.page.get_by_role("button", name="300-100").click()
    for dropout in ("0", "0.3"):
        v.click("build")
        v.at("dropout").select_option(dropout)
        v.page.wait_for_timeout(800)
        for epoch in (3, 10):
            v.learn(epoch - int(v.at("epoch-number").inner_text()))
            v.tell(f"300-100, dropout {dropout}, epoch {epoch}")


def how_little_is_enough(v: Visitor) -> None:
    """The third tour."""
    v.click("tab-prune")
    v.learn(5)
    v.tell("after five epochs")
    for sparsity in (50, 70, 90, 95):
        v.slide("sparsity", sparsity)
        v.tell(f"slider at {sparsity} %")
    v.slide("sparsity", 0)
    v.slide("sparsity", 95)
    v.picture("cut-at-once.png")
    v.learn(10)
    v.tell("ten epochs later")
    for method, goal in (("gradual", 95), ("SET", 95), ("RigL", 95), ("gradual", 90), ("gradual", 99)):
        v.click("reset")
        v.learn(5)
        v.at("goal").fill(str(goal))
        v.at(f"method-{method}").click()
        v.until_idle()
        v.tell(f"{method} to {goal} %")
        if (method, goal) == ("gradual", 95):
            v.picture("how-little-is-enough.png")


def walk(browser: Browser, mnist: Data, tour: Callable[[Visitor], None], folder: Path) -> None:
    """Walk one tour, as the page that `python -m mlgraph.studio` opens."""
    print(tour.__name__)
    with Studio(Session(build.network(mnist, [32]), mnist)) as studio:
        page = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="light")
        page.goto(studio.url)
        page.wait_for_timeout(1500)
        tour(Visitor(page, folder))
        page.close()


def main() -> None:
    """Walk the tours."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder (default: that of this file)")
    args = parser.parse_args()
    executable = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    mnist = data.mnist()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        for tour in (what_a_neuron_sees, why_dropout, how_little_is_enough):
            walk(browser, mnist, tour, args.out)
        browser.close()


if __name__ == "__main__":
    main()
