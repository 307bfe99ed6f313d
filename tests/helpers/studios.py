"""Sessions of the studio over small networks, and a client of their protocol."""

import contextlib
import json
import threading
import time
import warnings

import numpy as np
import pytest

import mlgraph
from mlgraph.studio import build, data as sources
from mlgraph.studio.session import Session

for needed in ("starlette", "httpx", "uvicorn"):
    pytest.importorskip(needed)  # where one is missing, all tests that import this module are skipped

TOKEN = "token-of-a-test"


def images(n=300):
    """Images of 8 x 8 with a bright bar in one of three rows."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 3
    x = rng.integers(0, 60, (n, 64), np.uint8)
    for row, label in zip(x, y, strict=True):
        row[16 * label : 16 * label + 8] = 255
    return x, y


def image_session(hidden=(6, 5), **options):
    data = sources.arrays(*images())
    return Session(build.network(data, list(hidden)), data, options)


def regression_session():
    x = np.random.default_rng(0).normal(size=(120, 5)).astype(np.float32)
    data = sources.arrays(x, x[:, :2] @ [[1.0, -1.0], [0.5, 2.0]], columns=list("abcde"))
    return Session(build.network(data, [7]), data)


def plane_session():
    data = sources.toy("circle", 200)
    return Session(build.network(data, [4, 3], "tanh"), data)


def dag_session():
    """A graph without layers: operations, a parameter, a constant, an edge that jumps, a dead end."""
    g = mlgraph.Graph(seed=0)
    a, b = g.add_inputs(2)
    scale = g.add_parameter(0.5, "scale")
    h = [g.add_neuron([a, b], "tanh") for _ in range(3)]
    deep = g.add_neuron([*h[:2], a], "relu")
    g.add_neuron([a], "tanh")
    out = g.add_neuron([deep, h[2] * scale, h[0] + g.add_constant(0.25)])
    x = np.random.default_rng(1).uniform(-1, 1, (100, 2)).astype(np.float32)
    return Session(mlgraph.Model(g, out), sources.arrays(x, x[:, :1] * x[:, 1:]))


def overflowing_session():
    """One neuron, cubed: its values overflow at once. Without it the rest learns at this rate."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (400, 2)).astype(np.float32)
    g = mlgraph.Graph(seed=0)
    a, b = g.add_inputs(2)
    hidden = [g.add_neuron([a, b], "tanh") for _ in range(4)]
    hidden.append(g.add_neuron([a, b]) ** 3)
    data = sources.arrays(x, 1000 * (x[:, :1] + 0.5 * x[:, 1:]) ** 3)
    return Session(mlgraph.Model(g, g.add_neuron(hidden)), data, {"learning_rate": 0.03, "optimizer": "sgd"})


SESSIONS = {"image": image_session, "regression": regression_session, "plane": plane_session, "dag": dag_session}


def refuse(constant):
    raise AssertionError(f"{constant} is no JSON")


def strict(text):
    """JSON as browsers read it: without NaN and Infinity."""
    return json.loads(text, parse_constant=refuse)


class Client:
    """Requests to a session, as a page makes them."""

    def __init__(self, session):
        from mlgraph.studio.server import application

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of starlette, for what its client will need one day
            from starlette.testclient import TestClient

        self.session = session
        self.client = TestClient(application(session, TOKEN, {"testserver"}), raise_server_exceptions=True)

    def request(self, method, path, **options):
        options["params"] = {"token": TOKEN, **options.get("params", {})}
        return self.client.request(method, path, **options)

    def get(self, path, **params):
        answer = self.request("GET", f"/api/{path}", params=params)
        assert answer.status_code == 200, answer.text
        return answer

    def json(self, path, **params):
        return strict(self.get(path, **params).content)

    def post(self, path, **body):
        answer = self.request("POST", f"/api/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return strict(answer.content)

    def edit(self, name, **fields):
        return self.post("edit", edit=name, **fields)

    def run(self, do, **fields):
        return self.post("run", do=do, **fields)

    def refused(self, path, status=422, **body):
        answer = self.request("POST", f"/api/{path}", json=body)
        assert answer.status_code == status, answer.text
        return error_of(answer)


def error_of(answer):
    """The text of a refusal, which is one line."""
    assert 400 <= answer.status_code < 500
    found = strict(answer.content)
    assert list(found) == ["error"] and found["error"] and "\n" not in found["error"]
    assert "Traceback" not in found["error"]
    return found["error"]


@contextlib.contextmanager
def client_of(session):
    try:
        yield Client(session)
    finally:
        session.close()


def wait_for(condition, seconds=20):
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.005)


def neurons_of(model):
    return [node for node in model.graph if isinstance(node, mlgraph.Neuron)]


def contents(model):
    """All that an edit could change, for comparisons."""
    graph = model.graph
    edges = graph.edges()
    shape = [(layer.size, layer.activation, layer.dropout) for layer in model.layers]
    values = graph.get_parameters().view(np.int32).tolist()
    codes = graph.codes.tolist()
    frozen = graph.storage.frozen
    frozen = [] if frozen is None else np.flatnonzero(frozen).tolist()
    return values, edges.source.tolist(), edges.target.tolist(), codes, shape, frozen


def studio_threads():
    return [thread for thread in threading.enumerate() if thread.name == "mlgraph studio"]
