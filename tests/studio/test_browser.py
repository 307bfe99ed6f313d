"""Stories of the studio's page, in a real Chromium: what someone does with it, and what they see."""

import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

import mlgraph

sync_api = pytest.importorskip("playwright.sync_api", reason="needs pip install -e '.[browser]'")
pytest.importorskip("starlette", reason="needs pip install -e '.[studio]'")
chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if chromium is None:
    pytest.skip("no chromium is installed", allow_module_level=True)

from mlgraph.studio import build, data, edits  # noqa: E402
from mlgraph.studio.session import Session  # noqa: E402
from mlgraph.studio.studio import Studio  # noqa: E402


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def mnist():
    return data.mnist()


@pytest.fixture
def opened(browser):
    """Opens a session in a page; a message of the console, or an error, fails the test."""
    studios, complaints = [], []

    def open_session(session, expects="status of 4"):
        studios.append(Studio(session))
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        # The browser tells each refusal, too.
        page.on("console", lambda message: expects in message.text or complaints.append(message.text))
        page.on("pageerror", lambda error: expects in str(error) or complaints.append(str(error)))
        page.goto(studios[-1].url)
        until(lambda: at(page, "n-edges").count() and at(page, "n-edges").inner_text() != "–")
        return page

    yield open_session
    for studio in studios:
        studio.close()
    assert not complaints


def at(page, name):
    return page.locator(f"[data-testid={name}]")


def number(page, name):
    return float(at(page, name).inner_text().replace(",", "").removesuffix("%"))


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def trained(page, accuracy):
    at(page, "play").click()
    until(lambda: at(page, "test-accuracy").inner_text() != "–" and number(page, "test-accuracy") >= accuracy)


def test_train_cut_the_most_valuable_neuron_and_undo(opened, mnist):
    session = Session(build.network(mnist, [32]), mnist)
    page = opened(session)
    trained(page, 95)
    table = session.model.ablation_table(session.model.layers[0], mnist.test_x, mnist.test_y)
    index = int(np.nanargmax(table["loss"]))
    at(page, f"neuron-0-{index}").click()
    at(page, "cut-neuron").wait_for()
    edges = number(page, "n-edges")
    at(page, "cut-neuron").click()  # while it trains
    at(page, "last-edit").wait_for()
    until(lambda: number(page, "n-edges") == edges - 784 - 10)
    assert session.run.status == "running"
    told = session.last_edit
    assert told["after"]["accuracy"] < told["before"]["accuracy"] - 0.002
    for moment in ("before", "after"):
        assert f"{100 * told[moment]['accuracy']:.2f} %" in at(page, "last-edit").inner_text()
    at(page, "undo").click()
    until(lambda: number(page, "n-edges") == edges)
    at(page, "pause").click()
    until(lambda: session.run.status == "paused")


def test_draw_a_3_and_read_3(opened, mnist):
    page = opened(Session(build.network(mnist, [32]), mnist))
    trained(page, 96)
    at(page, "pause").click()
    at(page, "tab-example").click()
    box = at(page, "draw-canvas").bounding_box()
    for middle, begin, end in ((0.3, -150, 90), (0.66, -90, 150)):
        for angle in range(begin, end + 1, 15):
            x = box["x"] + box["width"] * (0.45 + 0.18 * math.cos(math.radians(angle)))
            y = box["y"] + box["height"] * (middle + 0.18 * math.sin(math.radians(angle)))
            page.mouse.move(x, y, steps=3)
            if angle == begin:
                page.mouse.down()
        page.mouse.up()
    until(lambda: at(page, "prediction").count() and at(page, "prediction").inner_text() == "3")


def test_slide_to_95_percent_sparsity_and_train_on(opened, mnist):
    page = opened(Session(build.network(mnist, [32]), mnist))
    trained(page, 95)
    at(page, "pause").click()
    at(page, "tab-prune").click()
    slider = at(page, "sparsity")
    slider.focus()
    slider.evaluate("s => { s.value = 95; s.dispatchEvent(new Event('input')); s.dispatchEvent(new Event('change')); }")
    until(lambda: number(page, "n-edges") <= 25408 * 0.05 + 1)
    until(lambda: number(page, "test-accuracy") < 80)
    trained(page, 85)
    assert number(page, "n-edges") <= 25408 * 0.05 + 1


def test_a_neuron_that_overflows_is_named_and_disconnected(opened, mnist):
    session = Session(build.network(mnist, [32]), mnist)
    page = opened(session)
    at(page, "tab-data").click()
    at(page, "data-overflow").click()
    until(lambda: not session.model.layers)
    at(page, "play").click()
    at(page, "trouble").wait_for()
    node = session.run.failure["node"]
    page.get_by_text("Where and how").click()
    assert f"n{node}" in at(page, "trouble").inner_text()
    assert session.run.failure["sweep"]
    page.get_by_role("button", name="Disconnect it").click()
    at(page, "trouble").wait_for(state="hidden")
    until(lambda: number(page, "n-edges") < 25408 and number(page, "test-accuracy") > 90)
    assert session.run.failure is None and np.isfinite(session.model.graph.get_parameters()).all()
    assert session.run.disconnected and f"n{session.run.disconnected[0]}" in at(page, "handled").inner_text()


def test_two_windows_agree_and_a_closed_one_ends_nothing(opened, browser, mnist):
    session = Session(build.network(mnist, [32]), mnist)
    first = opened(session)
    second = browser.new_page()
    second.goto(first.url)
    at(second, "play").click()
    at(first, "pause").wait_for()
    second.close()
    until(lambda: session.run.epochs > 1)
    assert session.run.status == "running"


def test_what_is_refused_says_why_in_the_page(opened):
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    net = mlgraph.Network(3, seed=0)
    net.add_layer(2, "tanh")
    net.add_layer(1)
    page = opened(Session(net, data.arrays(x, x[:, 0])))
    at(page, "tab-prune").click()
    field = page.get_by_label("sparsity in percent").nth(1)
    field.fill("120")
    field.press("Enter")
    at(page, "error").wait_for()
    assert "sparsity: expected a number from 0 to below 1, got 1.2" in at(page, "error").inner_text()


def test_a_network_is_pruned_while_it_trains_and_not_before(opened, mnist):
    session = Session(build.network(mnist, [32]), mnist)
    page = opened(session)
    at(page, "tab-prune").click()
    at(page, "goal").fill("90")
    page.get_by_role("spinbutton", name="epochs", exact=True).fill("3")
    assert number(page, "n-edges") == 25408
    at(page, "method-gradual").click()
    until(lambda: number(page, "n-edges") <= 2541 and session.run.status == "idle")
    assert session.run.epochs == 3 and number(page, "test-accuracy") > 85


def test_a_patched_value_can_be_taken_back(opened, mnist):
    page = opened(Session(build.network(mnist, [32]), mnist))
    at(page, "neuron-0-4").click()
    page.locator("#panel-neuron button.example").first.click()
    slider = at(page, "patch")
    slider.focus()
    slider.press("ArrowRight")
    back = page.get_by_role("button", name="As it is")
    until(back.is_enabled)
    back.click()
    until(back.is_disabled)


def test_a_table_is_learnt_by_the_column_that_is_chosen(opened):
    session = Session(build.network(data.toy("circle", 100), [4]), data.toy("circle", 100))
    page = opened(session)
    at(page, "tab-data").click()
    rows = "".join(f"{i};{i},5;{'big' if i > 20 else 'small'};{10 * i}\n" for i in range(40))
    content = ';"width; in m";größe;number\n' + rows
    field = page.get_by_label("a .csv, .npz or .npy file")
    field.set_input_files({"name": "t.csv", "mimeType": "text/csv", "buffer": content.encode("cp1252")})
    assert at(page, "target").locator("option").all_inner_texts() == ["width; in m", "größe", "number"]
    at(page, "learn").click()
    until(lambda: session.data.columns == ["width; in m", "größe_big", "größe_small"])
    field.set_input_files({"name": "t.csv", "mimeType": "text/csv", "buffer": (content + ";1;2;3\n").encode()})
    at(page, "learn").click()
    until(lambda: "größe" in at(page, "error").inner_text())  # neither words nor numbers
    field.set_input_files({"name": "t.csv", "mimeType": "text/csv", "buffer": content.encode()})
    at(page, "target").select_option("größe")
    at(page, "learn").click()
    until(lambda: session.data.classes == ["big", "small"])
    assert session.data.columns == ["width; in m", "number"]
    until(lambda: "2 columns, 2 classes. It learns größe." in at(page, "data-name").inner_text())


def test_own_points_by_the_keyboard_alone(opened):
    session = Session(build.network(data.toy("xor", 100), [4]), data.toy("xor", 100))
    page = opened(session)
    at(page, "tab-data").click()
    page.get_by_text("Your own points").click()
    until(lambda: at(page, "use-points").is_enabled())  # the points that are learnt now
    page.get_by_role("button", name="Clear").click()
    assert at(page, "use-points").is_disabled() and "two points" in at(page, "use-points").get_attribute("title")
    at(page, "own-points").focus()
    for key in ("Enter", "ArrowLeft", "Enter", "ArrowUp", "Shift+Enter"):
        page.keyboard.press(key)
    at(page, "use-points").click()
    until(lambda: session.data.name == "my points")
    found = np.concatenate([session.data.x, session.data.test_x])
    assert sorted(map(tuple, found.astype(float).round(1).tolist())) == [(-0.1, 0.0), (-0.1, 0.1), (0.0, 0.0)]


def test_a_drag_of_the_slider_is_one_edit(opened):
    digits = data.toy("spiral", 300)
    session = Session(build.network(digits, [16, 16]), digits)
    page = opened(session)
    edges = session.model.n_edges
    at(page, "tab-prune").click()
    box = at(page, "sparsity").bounding_box()
    page.mouse.move(box["x"] + 8, box["y"] + box["height"] / 2)
    page.mouse.down()
    for share in (0.2, 0.7, 0.4, 0.5):
        page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2, steps=4)
        time.sleep(0.4)
    page.mouse.up()
    until(lambda: abs(session.model.sparsity - 0.5) < 0.02 and session.can_undo)
    until(lambda: session.can_undo and session.model.n_edges == number(page, "n-edges"))
    at(page, "undo").click()
    until(lambda: session.model.n_edges == edges and session.can_undo is None)


def test_a_reload_shows_the_same(opened, mnist):
    page = opened(Session(build.network(mnist, [32]), mnist))
    at(page, "neuron-0-7").click()
    at(page, "tab-example").click()
    page.get_by_role("button", name="test example 5:").click()
    said = at(page, "prediction").inner_text()
    page.reload()
    at(page, "prediction").wait_for()
    assert (
        at(page, "prediction").inner_text() == said and at(page, "tab-example").get_attribute("aria-selected") == "true"
    )
    at(page, "tab-neuron").click()
    until(lambda: "layer 0 neuron 7" in page.locator("#panel-neuron").inner_text())


def test_a_saved_session_is_dropped_and_goes_on(opened, mnist, tmp_path):
    session = Session(build.network(mnist, [8]), mnist)
    page = opened(session)
    at(page, "epoch").click()
    until(lambda: session.run.epochs == 1)
    at(page, "tab-data").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="session.npz").click()
    download.value.save_as(tmp_path / "session.npz")
    at(page, "data-circle").click()
    until(lambda: number(page, "n-edges") < 1000)
    page.set_input_files("#panel-data input[type=file]", tmp_path / "session.npz")
    until(lambda: number(page, "n-edges") == 784 * 8 + 80)
    assert session.run.epochs == 1 and session.data.name == "MNIST"


def test_an_example_of_a_table_is_typed_and_its_columns_speak(opened):
    rng = np.random.default_rng(0)
    ages, pays = rng.integers(18, 80, 300).tolist(), rng.integers(10_000_000, 16_000_000, 300).tolist()
    rows = "".join(f"{a},{b},{'yes' if a < 40 else 'no'}\n" for a, b in zip(ages, pays, strict=True))
    table = f"age,income,buys\n{rows}"
    found = data.from_file(table.encode(), "t.csv")
    session = Session(build.network(found, [8]), found)
    session.run.play(epochs=200)
    assert session.run.wait_until_paused()
    page = opened(session)
    at(page, "tab-example").click()
    age, income = (page.get_by_role("spinbutton", name=name, exact=True) for name in ("age", "income"))
    # The fields begin with an example, to all its digits: the others stay when one of them is typed.
    first = found.test_x[0]
    until(lambda: income.input_value() == f"{first[1]:.0f}")
    assert age.input_value() == f"{first[0]:.0f}"
    for typed, said in (("20", "yes"), ("70", "no")):
        age.fill(typed)
        until(lambda said=said: at(page, "prediction").inner_text() == said)
        assert income.input_value() == f"{first[1]:.0f}"
    page.get_by_label("why").select_option("yes")
    until(lambda: "More of these columns speaks against yes" in page.locator("#panel-example").inner_text())
    against = page.get_by_text("More of these columns speaks against yes").locator("+ div")
    assert against.inner_text().split()[0] == "age"


RECORDER = """(delays) => {
  const fetched = window.fetch;
  window.fetch = async (address, options) => {
    if (address.startsWith("api/neuron")) {
      delays.push(delays.shift());
      await new Promise((done) => setTimeout(done, delays[0]));
    }
    return fetched(address, options);
  };
  window.pressed = [];
  let opened = null;
  document.addEventListener("click", ({ target }) => {
    opened = target.closest("[data-testid^=neuron-0-]")?.dataset.testid.slice(7) ?? opened;
    const button = target.closest("[data-testid=cut-neuron], [data-testid=freeze-neuron]");
    if (button && !button.disabled) window.pressed.push([button.dataset.testid, opened]);
  }, true);
}"""


@pytest.mark.parametrize("seed", range(2))
def test_what_is_cut_is_what_was_clicked_however_fast(opened, mnist, monkeypatch, seed):
    """50 clicks on neurons and buttons, most of them before the answers to those before have come."""
    session, done = Session(build.network(mnist, [32]), mnist), []
    for name, kind in (("cut-neuron", edits.EDITS["cut-neuron"]), ("freeze", edits.EDITS["freeze"])):

        def apply(session, node, name=name, kind=kind, **fields):
            kind.apply(session, node=node, **fields)
            number = session.model.layers[0].ids.index(session.neuron(node).id)
            done.append([{"freeze": "freeze-neuron"}.get(name, name), f"0-{number}"])

        monkeypatch.setitem(edits.EDITS, name, kind._replace(apply=apply))
    page, rng = opened(session), random.Random(seed)
    page.evaluate(RECORDER, [rng.choice([0, 50, 300]) for _ in range(20)])

    def click(selector):
        middle = page.evaluate(
            """(selector) => {
              const found = document.querySelector(selector)?.getBoundingClientRect();
              return found && [found.x + found.width / 2, found.y + found.height / 2];
            }""",
            selector,
        )
        if middle:
            page.mouse.click(*middle)

    at(page, "neuron-0-0").click()
    at(page, "cut-neuron").wait_for()
    for _ in range(50):
        what = rng.choice(["neuron", "neuron", "cut-neuron", "cut-neuron", "freeze-neuron"])
        click(f"[data-testid=neuron-0-{rng.randrange(32)}]" if what == "neuron" else f"[data-testid={what}]")
        page.wait_for_timeout(rng.choice([0, 0, 50, 200, 500]))
    pressed = page.evaluate("window.pressed")
    until(lambda: len(done) >= len(pressed))
    assert done == pressed and len(done) >= 5
    assert at(page, "error").inner_text() == ""


def test_data_may_change_while_an_example_is_open(opened):
    """Whatever was open: fields of other columns, an example that the new data do not have, a patched neuron."""
    rows = {
        n: "".join(f"{','.join(str(i * k) for k in range(n))},{'no' if i % 3 else 'yes'}\n" for i in range(90 // n))
        for n in (6, 2, 4)
    }
    sessions = {
        n: data.from_file((",".join("abcdef"[:n]) + f",y\n{part}").encode(), f"{n}.csv") for n, part in rows.items()
    }
    session = Session(build.network(sessions[6], [4]), sessions[6])
    page = opened(session)
    at(page, "neuron-0-1").click()
    at(page, "tab-example").click()
    page.get_by_role("button", name="test example 2:").click()
    for n in (2, 4, 6, 2):
        at(page, "patch").focus()
        page.keyboard.press("ArrowRight")
        session.replace(build.network(sessions[n], [4]), sessions[n])
        until(lambda n=n: page.locator("#panel-example .numbers input").count() == n)
        fields = page.locator("#panel-example .numbers input").all()
        first = sessions[n].test_x[0]
        until(
            lambda fields=fields, first=first: [field.input_value() for field in fields] == [f"{v:.0f}" for v in first]
        )
        fields[0].fill("7")
        until(lambda: at(page, "prediction").inner_text() in ("yes", "no"))
    assert at(page, "error").inner_text() == ""


@pytest.mark.parametrize(
    "failing",
    [
        "tell('version', null)",  # a listener
        "complain(new TypeError('null'))",
        "setTimeout(() => null.toPrecision(3))",
        "setTimeout(async () => null.toPrecision(3))",
    ],
)
def test_a_mistake_of_the_page_is_said_in_words(opened, failing):
    page = opened(Session(build.network(data.toy("xor"), [4]), data.toy("xor")), expects="null")
    page.evaluate(f"async () => {{ const {{ complain, tell }} = await import('/page/api.js'); {failing}; }}")
    at(page, "error").wait_for()
    said = at(page, "error").inner_text()
    assert "made a mistake" in said and "reload" in said and "null" not in said


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture
def command(tmp_path, port):
    """Starts ``python -m mlgraph.studio`` at a port, always the same; the process and the address that it prints."""
    (tmp_path / "t.csv").write_text(
        "a,b,c\n" + "".join(f"{i},{i % 7},{'yes' if i > 20 else 'no'}\n" for i in range(40))
    )
    processes = []

    def start():
        words = ["--no-open", "--port", str(port), "--data", tmp_path / "t.csv", "--out", tmp_path / "run"]
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "mlgraph.studio", *map(str, words)],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return processes[-1], processes[-1].stdout.readline().strip()

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_lost_connection_is_said_and_tried_again(browser, command):
    """The studio is stopped for some seconds, then ended, then started again: the page says each in words."""
    process, url = command()
    page, mistakes = browser.new_page(), []
    page.on("pageerror", lambda error: mistakes.append(str(error)))
    page.goto(url)
    until(lambda: at(page, "n-edges").inner_text() != "–")
    said = at(page, "connection")
    process.send_signal(signal.SIGSTOP)
    said.wait_for()
    assert "has not answered for 5 seconds" in said.inner_text() and "keeps trying" in said.inner_text()
    at(page, "play").click()
    assert "this was not done" in at(page, "error").inner_text()
    process.send_signal(signal.SIGCONT)
    said.wait_for(state="hidden")
    at(page, "step").click()
    until(lambda: number(page, "step-number") == 1)
    assert not at(page, "error").is_visible()
    process.kill()
    process.wait()
    until(lambda: said.is_visible() and "is lost" in said.inner_text())
    assert "open the new address" in said.inner_text() and "What you see is old" in said.inner_text()
    _, again = command()
    until(lambda: "started again; open the address that the studio printed" in said.inner_text())
    page.reload()
    said.wait_for()
    assert "started again; open the address" in said.inner_text() and "old" not in said.inner_text()
    assert page.get_by_role("button").count() == 0  # nothing that would do nothing
    page.goto(again)
    until(lambda: at(page, "n-edges").inner_text() != "–")
    assert not said.is_visible() and not mistakes


def test_an_address_without_its_token_is_explained(opened):
    page = opened(Session(build.network(data.toy("xor"), [4]), data.toy("xor")))
    base = page.url.partition("?")[0]
    page.goto(base)
    at(page, "connection").wait_for()
    assert "the token in the address is missing" in at(page, "connection").inner_text()
    for address in ("api/state", "api/nothing", "nothing"):  # words, not JSON
        page.goto(base + address)
        said = page.locator("body").inner_text()
        assert said.startswith(("the token in the address is missing;", "there is no GET /")), said


def test_a_file_that_cannot_be_taken_away_says_why(opened):
    x = np.linspace(0, 9, 40)
    found = data.from_file(("a,b\n" + "".join(f"{a},{1000 * a + 1}\n" for a in x)).encode(), "t.csv")
    session = Session(build.network(found, [4]), found)
    page = opened(session)
    at(page, "tab-data").click()
    with page.expect_download() as download:
        at(page, "'model.npz'").click()
    assert download.value.suggested_filename == "model.npz" and download.value.failure() is None
    page.evaluate(
        "import('/page/api.js').then(({ edit }) => edit('set-activation', { layer: 1, neuron: 0, value: 'tanh' }))"
    )
    at(page, "'model.npz'").click()
    at(page, "error").wait_for()
    assert "answers in standard deviations" in at(page, "error").inner_text()


def test_weights_of_layers_of_any_width_are_drawn(opened):
    """Tiles of 1 to 5,000 weights, behind inputs and layers of the same number: whole, not too long, and not blank."""
    page = opened(Session(build.network(data.toy("xor"), [4]), data.toy("xor")))
    wrong = page.evaluate(
        """async () => {
          const { drawAtlas, tileShape } = await import("/page/network-paint.js");
          const { layout } = await import("/page/network-layout.js");
          const wrong = [];
          for (let n = 1; n <= 5000; n++) {
            const ids = Array.from({ length: n }, (_, i) => i);
            const column = ids.map((i) => n + i), neurons = Object.fromEntries(column.map((i) => [i, {}]));
            const state = { data: {}, layers: [{ size: n }] };
            const world = layout({ inputs: ids, columns: [column], outputs: [], neurons }, state, 1.5);
            for (const before of [undefined, world.input, world.columns[0]]) {
              const shape = tileShape(n, null, before), [h, w] = shape;
              if (!shape.every(Number.isInteger) || h * w < n || (h - 1) * w >= n || h > 5 * w || w > 5 * h) {
                wrong.push([n, before?.kind, shape]);
              }
              if (n % 97 && n > 40) continue;
              const one = { ids: [0], cols: 1, rows: 1, gap: 0.15 };
              drawAtlas(one, new Int8Array(n).fill(127), n, shape, new Uint32Array(256).fill(0xff0000ff));
              const inked = one.atlas.pixels.filter((pixel) => pixel).length;
              if (inked !== n) wrong.push([n, before?.kind, shape, inked]);
            }
          }
          return wrong.slice(0, 5);
        }"""
    )
    assert not wrong


DRAWN = """() => {
  window.drawn = { texts: [], squares: [] };
  const { fillText, fillRect, setTransform } = CanvasRenderingContext2D.prototype;
  const inCurve = (context) => context.canvas.closest("#curve");
  const width = Object.getOwnPropertyDescriptor(HTMLCanvasElement.prototype, "width");
  Object.defineProperty(HTMLCanvasElement.prototype, "width", { ...width, set(value) {
    if (this.closest("#curve")) window.drawn = { texts: [], squares: [] };
    width.set.call(this, value);
  } });
  CanvasRenderingContext2D.prototype.fillText = function (text, x, y) {
    if (inCurve(this)) window.drawn.texts.push([text, x, y, this.textAlign]);
    fillText.call(this, text, x, y);
  };
  CanvasRenderingContext2D.prototype.fillRect = function (x, y, w, h) {
    if (inCurve(this) && w === 4) window.drawn.squares.push([x + 2, y + 2, this.fillStyle]);
    fillRect.call(this, x, y, w, h);
  };
}"""


@pytest.mark.parametrize(
    ("classes", "results"),
    [
        (True, [0.098, 0.91, 0.95, 0.96, 0.97, 0.975, 0.98, 0.981]),
        (True, [0.98, 0.97, 0.975, 0.2, 0.96, 0.98, 0.981, 0.98]),
        (False, [9.5e35, 3e12, 40.0, 0.7, 0.03, 0.02, 0.01, 0.5]),
        (False, [1.2, 0.9, 0.8, 2.5, 0.7, 0.65, 0.64, 0.63]),
        (False, [-3.0, -1e6, 0.8, 2.5, 0.7, 0.65, 1e6, 0.63]),
        (False, [2.0, 1e-7, 0.0, 1e-3, 0.0, 1e-9, 0.5, 1e-4]),
    ],
)
def test_the_axis_of_the_curve_tells_every_result(opened, classes, results):
    """What one reads from the picture, by the labels of its axis, is the result of each test: none is clamped."""
    toy = data.toy("xor", 100)
    if not classes:
        toy = data.arrays(toy.x, toy.x[:, 0] * toy.x[:, 1])
    session = Session(build.network(toy, [4]), toy)
    page = opened(session)
    page.evaluate(DRAWN)
    name = "accuracy" if classes else "loss"
    tests = [{"step": 10 * i, "loss": 1.0, "accuracy": 0.5, name: v} for i, v in enumerate(results, 1)]
    run = session.run
    run.curve.extend([0.5] * 80, [0.5] * 80)
    run.go_on_from(run.curve, tests, 8, 80)
    until(lambda: len(page.evaluate("window.drawn.squares")) == len(results))
    drawn = page.evaluate("window.drawn")
    labels = [
        (float(text.removesuffix("%").replace(",", "")), y - 4)
        for text, x, y, align in drawn["texts"]
        if (text.endswith("%") if classes else align == "right" and x < 60)
    ]
    assert len(labels) >= 2
    texts = [text for text, *_ in drawn["texts"] if any(map(str.isdigit, text))]
    digits = [sum(map(str.isdigit, text.split("e")[0].replace(",", "").strip("0").lstrip("0."))) for text in texts]
    assert max(digits) <= 4, texts
    squares = sorted(drawn["squares"])
    scale = 100 if classes else 1
    positive = sorted((v, y) for v, y in labels if v > 0)
    logarithmic = not classes and min(results) >= 0 and max(results) / min(v for v in results if v > 0) > 30
    read = math.log10 if logarithmic else float
    (v0, y0), (v1, y1) = (positive[0], positive[-1]) if logarithmic else (min(labels), max(labels))
    for (_, y, _), value in zip(squares, results, strict=True):
        if logarithmic and value == 0:
            assert any(v == 0 and abs(y - at) < 1.5 for v, at in labels)
            continue
        expected = y0 + (y1 - y0) * (read(scale * value) - read(v0)) / (read(v1) - read(v0))
        assert abs(y - expected) < 1.5, (value, y, expected)
