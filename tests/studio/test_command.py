"""``python -m mlgraph.studio`` and `Model.studio`, over a real server."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
from mnist_program import write_data
from studios import contents, images, wait_for

import mlgraph
from mlgraph.studio import __main__ as command

ADDRESS = r"http://127\.0\.0\.1:(\d+)/\?token=[\w-]{20,}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("idx") / "data", width=64)


class Page:
    """What a browser does, without one."""

    def __init__(self, url):
        self.base, _, self.query = url.partition("?")

    def get(self, path):
        with urllib.request.urlopen(f"{self.base}{path}?{self.query}", timeout=20) as answer:
            return answer.read()

    def state(self):
        return json.loads(self.get("api/state"))

    def post(self, path, **body):
        request = urllib.request.Request(f"{self.base}api/{path}?{self.query}", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())


@pytest.fixture
def started(tmp_path, folder):
    """Start the command in an empty folder; the process, and its page."""
    processes = []

    def start(*words, data=folder):
        words = ["--no-open", *(() if data is None else ("--data", data)), *words]
        process = subprocess.Popen(
            [sys.executable, "-m", "mlgraph.studio", *map(str, words)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        line = process.stdout.readline().strip()
        assert line, process.stderr.read()
        return process, Page(line)

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_line_is_the_address_and_ctrl_c_saves(started, tmp_path, number):
    process, page = started("--port", 0, "--out", "deep/run")
    assert re.fullmatch(ADDRESS, f"{page.base}?{page.query}")
    assert b"<html" in page.get("") and page.state()["status"] == "idle"
    page.post("run", do="play")
    wait_for(lambda: page.state()["epoch"] > 2)
    page.post("edit", edit="cut-neuron", layer=0, neuron=0)
    process.send_signal(number)
    out, error = process.communicate(timeout=30)
    path = tmp_path / "deep" / "run" / "model.npz"
    assert process.returncode == 0 and not error and out.startswith(f"saved {path.relative_to(tmp_path)}; ")
    saved = mlgraph.load(path)
    assert not saved.layers[0][0].alive and saved.scaling == "bytes"
    process, page = started(path, "--out", "again")  # and it goes on from there
    assert page.state()["n_edges"] == saved.n_edges and not (tmp_path / "studio-run").exists()


def test_the_session_that_ctrl_c_saves_goes_on(started, tmp_path):
    process, page = started()
    page.post("run", do="epoch")
    wait_for(lambda: page.state()["epoch"] == 1)
    page.post("edit", edit="cut-neuron", layer=0, neuron=0)
    before = page.state()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    assert "python -m mlgraph.studio studio-run/session.npz goes on" in out
    _, again = started("studio-run/session.npz", data=None)
    after = again.state()
    assert all(after[name] == before[name] for name in ("epoch", "step", "n_edges", "test_loss", "data"))
    again.post("run", do="reset")
    assert again.state()["n_edges"] > before["n_edges"]


def test_a_network_that_cannot_answer_in_the_units_of_the_data_is_saved_all_the_same(started, tmp_path):
    (tmp_path / "t.csv").write_text("a,b\n" + "".join(f"{i},{i * 1.5}\n" for i in range(30)))
    process, page = started("--data", tmp_path / "t.csv")
    page.post("edit", edit="set-activation", layer=1, neuron=0, value="tanh")
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=30)
    assert process.returncode == 0 and "answers in standard deviations" in error and out.startswith("saved")
    assert mlgraph.load(tmp_path / "studio-run" / "model.npz").layers[1][0].activation == "tanh"


def test_port_and_host(started):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    _, page = started("--port", port, "--host", "localhost")
    assert page.base == f"http://localhost:{port}/" and page.state()["step"] == 0
    with contextlib.closing(http.client.HTTPConnection("localhost", port)) as connection:
        connection.request("GET", f"/api/state?{page.query}", headers={"Host": "evil.example"})
        with connection.getresponse() as answer:
            assert answer.status == 403
    again = subprocess.run(
        [sys.executable, "-m", "mlgraph.studio", "--no-open", "--port", str(port)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert again.returncode == 1 and again.stderr.count("\n") == 1 and f"port {port}: " in again.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_studio_for_other_computers_warns_and_checks_names(started, host):
    process, page = started("--host", host, "--allow-host", "Class.example", "--allow-host", "b.example")
    address = re.fullmatch(r"http://(.+):(\d+)/\?(token=[\w-]{20,})", f"{page.base}?{page.query}")
    name, port = address[1], int(address[2])
    assert name == socket.gethostname()
    for given, status in (
        (name, 200),
        (name.upper(), 200),
        (f"class.example:{port}", 200),
        ("b.example", 200),
        ("192.0.2.1:80", 200),
        ("localhost", 200),
        ("evil.example", 403),
        ("class.example.evil.example", 403),
    ):
        with contextlib.closing(http.client.HTTPConnection("localhost", port)) as connection:
            connection.request("GET", f"/api/state?{page.query}", headers={"Host": given})
            with connection.getresponse() as answer:
                told = answer.read().decode()
                assert answer.status == status
                assert status == 200 or f"start it with --allow-host {given}" in told
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert error.startswith(f"warning: host {host}: other computers can reach the studio") and error.count("\n") == 1
    assert "plain HTTP" in error and f"ssh -L {port}:127.0.0.1:{port}" in error


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (["nothing.npz"], 1, "nothing.npz"),
        (["damaged.npz"], 1, "damaged.npz"),
        (["model.npz"], 1, "has 3 inputs, the data 256 columns"),
        (["classes.npz"], 1, "got"),
        (["--data", "nothing"], 1, "nothing"),
        (["--data", "table.csv"], 1, "expected a header and at least two rows"),
        (["--data", "good.csv", "--target", "z"], 1, "there is no column 'z'"),
        (["--data", "."], 1, "idx"),
        (["--out", "damaged.npz"], 1, "damaged.npz"),
        (["--host", "256.0.0.1"], 1, "256.0.0.1"),
        (["--allow-host", "http://a.example"], 1, "expected the name of a host, such as studio.example, got 'http://a"),
        (["--allow-host", "a.example", "--allow-host", "b.example:80"], 1, "got 'b.example:80'"),
        (["--allow-host", ""], 1, "got ''"),
        (["--port", "-1"], 2, "expected 0 to 65535, got -1"),
        (["--port", "70000"], 2, "expected 0 to 65535, got 70000"),
        (["--port", "x"], 2, "invalid int"),
        (["--nothing"], 2, "unrecognized"),
    ],
)
def test_mistakes_are_one_line(words, status, text, tmp_path, folder, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.npz").write_bytes(b"PK damaged")
    (tmp_path / "table.csv").write_text("a,b\n")
    (tmp_path / "good.csv").write_text("a,b\n" + "1,2\n2,1\n" * 9)
    for name, sizes in (("model.npz", (3, 2)), ("classes.npz", (256, 2))):
        net = mlgraph.Network(sizes[0], seed=0)
        net.add_layer(sizes[1], "softmax")
        net.save(tmp_path / name)
    words = ["--no-open", *([] if "--data" in words else ["--data", str(folder)]), *words]
    try:
        found = command.main(words)
    except SystemExit as end:  # of argparse
        found = end.code
    out, error = capsys.readouterr()
    assert found == status and not out and text in error and "Traceback" not in error
    assert status == 2 or (error.count("\n") == 1 and error.startswith("python -m mlgraph.studio: "))


@pytest.mark.parametrize("missing", ["uvicorn", "starlette"])
def test_a_missing_extra_says_what_to_install(missing, monkeypatch, capsys):
    for name in [n for n in sys.modules if n.startswith(("mlgraph.studio.studio", "mlgraph.studio.server", missing))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    assert command.main(["--no-open"]) == 1
    assert " is missing: pip install " in capsys.readouterr().err
    with pytest.raises(ImportError, match=r"^studio: .* is missing: pip install "):
        network().studio(*images(), open_browser=False)


# --- from Python ----------------------------------------------------------------------------------


def network(n=64, classes=3):
    net = mlgraph.Network(n, seed=0)
    net.add_layer(6)
    net.add_layer(classes, "softmax")
    return net


def test_studio_returns_at_once_and_closes():
    net = network()
    before = contents(net)
    studio = net.studio(*images(), open_browser=False)
    page = Page(studio.url)
    assert re.fullmatch(ADDRESS, studio.url) and repr(studio) == f"<Studio at {studio.url}>"
    assert f'src="{studio.url}"' in studio._repr_html_()
    assert page.state()["data"]["image"] == [8, 8]
    page.post("run", do="play")
    wait_for(lambda: page.state()["test_accuracy"] == 1)
    assert net.evaluate(*images())["accuracy"] > 0.9  # while it trains
    begin = time.monotonic()
    studio.close()
    studio.wait()
    assert time.monotonic() - begin < 5 and contents(net) != before and not net.graph.is_training
    with pytest.raises(OSError, match="refused"):
        page.state()
    studio.close()
    net.fit(*images(), epochs=1)


def test_a_window_that_waits_for_an_answer_does_not_hold_up_closing():
    studio = network().studio(*images(), open_browser=False)
    port = int(re.fullmatch(ADDRESS, studio.url)[1])
    with socket.create_connection(("127.0.0.1", port)) as half:
        half.sendall(b"POST /api/run HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n{")
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as idle:
            idle.request("GET", "/page/app.js")
            idle.getresponse().read()
            begin = time.monotonic()
            studio.close()
            assert time.monotonic() - begin < 8


def test_answers_do_not_wait_for_an_acknowledgement():
    """With Nagle's algorithm, each answer over a kept connection would take 40 ms more."""
    with network().studio(*images(), open_browser=False) as studio:
        port = int(re.fullmatch(ADDRESS, studio.url)[1])
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as kept:
            seconds = []
            for _ in range(21):
                begin = time.monotonic()
                kept.request("GET", "/page/nothing.js")
                kept.getresponse().read()
                seconds.append(time.monotonic() - begin)
        assert np.median(seconds) < 0.03


def test_a_browser_is_opened_if_wanted(monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    with network().studio(*images()) as studio:
        assert opened == [studio.url]


def test_labels_may_be_strings_and_the_model_keeps_them():
    x, y = images()
    names = np.array(["low", "mid", "top"])[y]
    net = network()
    for order in (None, ("top", "low", "mid")):
        if order:
            net = network()
            net.classes = order
            net.fit(x, names, epochs=3)
        with net.studio(x, names, open_browser=False) as studio:
            page = Page(studio.url)
            assert page.state()["data"]["classes"] == list(order or ("low", "mid", "top"))
            page.post("run", do="play")
            wait_for(lambda page=page: page.state()["test_accuracy"] == 1)
            example = page.post("example", index=0)
            assert example["answer"] in names
        assert net.classes == (order or ("low", "mid", "top"))
        assert (net.predict(x) == names).mean() > 0.95
    with pytest.raises(ValueError, match="expected classes of the model"):
        net.studio(x, np.array(["low", "mid", "other"])[y], open_browser=False)
    assert net.classes == ("top", "low", "mid")


class Frame:
    """As much of a data frame as is asked for."""

    def __init__(self, columns):
        self.columns, self._columns = list(columns), columns

    def __len__(self):
        return len(np.asarray(self))

    def __array__(self, dtype=None, copy=None):
        return np.column_stack(list(self._columns.values())).astype(dtype or np.float64)


def test_frames_show_their_columns():
    rng = np.random.default_rng(0)
    frame = Frame({"age": rng.normal(size=90), "height": rng.normal(size=90), "weight": rng.normal(size=90)})
    net = mlgraph.Network(3, seed=0)
    net.add_layer(4)
    net.add_layer(1, "identity")
    test = Frame({"age": [0.0], "height": [1.0], "weight": [2.0]}), [0.5]
    with net.studio(frame, np.asarray(frame)[:, 0], test=test, open_browser=False) as studio:
        page = Page(studio.url)
        state = page.state()
        assert state["data"]["columns"] == ["age", "height", "weight"] and state["data"]["n_test"] == 1
        assert page.post("run", do="step", steps=3)["step"] == 3


def test_data_that_do_not_fit_are_refused_before_anything_starts():
    for x, y, text in (([[1.0, 2.0]] * 9, [0] * 9, "64"), (np.zeros((9, 64)), [7] * 9, "label|class")):
        with pytest.raises(ValueError, match=text):
            network().studio(x, y, open_browser=False)


def test_data_that_are_missing_are_named():
    for given, missing in ((), "x and y"), ((np.ones((9, 64)),), "y"):
        with pytest.raises(TypeError, match=rf"^studio: {missing} missing; .*: net\.studio\(x, y\)$"):
            network().studio(*given, open_browser=False)


def test_another_host_is_warned_of_in_python():
    with pytest.warns(UserWarning, match="^studio: host 0.0.0.0: other computers can reach"):
        studio = network().studio(*images(), host="0.0.0.0", allow_hosts=["a.example"], open_browser=False)
    with studio:
        port = int(studio.url.rpartition(":")[2].partition("/")[0])
        for given, status in (("a.example", 200), ("b.example", 403)):
            with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
                connection.request("GET", "/", headers={"Host": given})
                assert connection.getresponse().status == status
    for wrong, error in (("a.example", TypeError), (["a b"], ValueError), ([3], TypeError)):
        with pytest.raises(error, match="allow_hosts: expected"):
            network().studio(*images(), allow_hosts=wrong, open_browser=False)


@pytest.mark.parametrize(("given", "opens", "opens_in_a_notebook"), [(None, 1, 0), (True, 1, 1), (False, 0, 0)])
def test_the_browser_opens_unless_a_notebook_shows_the_page(given, opens, opens_in_a_notebook, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    network().studio(*images(), open_browser=given).close()
    assert len(opened) == opens
    monkeypatch.setitem(sys.modules, "ipykernel", None)
    network().studio(*images(), open_browser=given).close()
    assert len(opened) == opens + opens_in_a_notebook
