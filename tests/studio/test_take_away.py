"""What is taken away answers in the labels and units of the data."""

import argparse
import re

import numpy as np
import pandas as pd
import pytest
from studios import client_of

import mlgraph
from mlgraph.studio import build, data, session_file, take_away
from mlgraph.studio.__main__ import _session
from mlgraph.studio.run import OPTIONS
from mlgraph.studio.session import Session

RNG = np.random.default_rng(0)
X = RNG.normal(5.0, 2.0, (120, 3)).round(3)


def table(target):
    """A CSV of X and a target."""
    rows = "".join(f"{a},{b},{c},{t}\n" for (a, b, c), t in zip(X, target, strict=True))
    return f"a,b,c,what\n{rows}".encode()


def session_of(target):
    found = data.from_file(table(target), "t.csv")
    session = Session(build.network(found, [6]), found)
    session.run.play(epochs=200)
    assert session.run.wait_until_paused()
    return session


def test_amounts_are_predicted_in_their_units(tmp_path):
    prices = 200_000 + 30_000 * X[:, 0] - 9_000 * X[:, 1]
    session = session_of(prices)
    taken = take_away.network(session)
    mean, deviation = session.data.units
    expected = deviation * session.model.predict(X) + mean
    np.testing.assert_allclose(taken.predict(X), expected, rtol=1e-5)
    assert np.corrcoef(taken.predict(X), prices)[0, 1] > 0.9
    session.close()
    # It is opened again with the same table, and fits it.
    taken.save(tmp_path / "model.npz")
    (tmp_path / "t.csv").write_bytes(table(prices))
    again = _session(argparse.Namespace(model=tmp_path / "model.npz", data=tmp_path / "t.csv", target=None))
    assert again.test()["loss"] < np.var(prices) / 2
    again.close()


def test_the_page_tells_answers_in_the_units_of_the_table():
    prices = (200_000 + 30_000 * X[:, 0] - 9_000 * X[:, 1]).round()
    session = session_of(prices)
    expected = take_away.network(session)
    shown = session.data.test_x
    of_table = {tuple(row): price for row, price in zip(X.astype("f4"), prices, strict=True)}
    with client_of(session) as client:
        for one in client.json("examples", first=0, count=100)["examples"]:
            assert one["label"] == pytest.approx([of_table[tuple(shown[one["index"]])]], rel=1e-6)
            np.testing.assert_allclose(one["says"], expected.predict(shown[[one["index"]]])[0], rtol=1e-5)
        typed = client.post("example", x=[4.0, 5.0, 6.0])
        np.testing.assert_allclose(typed["answer"], expected.predict([[4.0, 5.0, 6.0]])[0], rtol=1e-5)


def test_an_output_that_cannot_answer_in_units_is_refused():
    session = session_of(1000 + X[:, 0])
    with client_of(session) as client:
        session.model.outputs[0].activation = "tanh"
        answer = client.request("GET", "/api/file/model.npz")
        assert answer.status_code == 422 and "standard deviations" in answer.json()["error"]


@pytest.mark.parametrize(
    ("labels", "classes"),
    [(("no", "yes"), ("no", "yes")), ((3, 7), (3, 7)), ((-1, 1), (-1, 1)), ((0, 1), None)],
    ids=str,
)
def test_labels_are_those_of_the_data(labels, classes):
    session = session_of(np.array(labels)[(X[:, 0] > 5).astype(int)])
    taken = take_away.network(session)
    assert taken.classes == classes
    assert set(taken.predict(X).tolist()) == set(labels)
    session.close()


def test_labels_of_data_that_were_uploaded_later():
    spiral = data.toy("spiral")
    with client_of(Session(build.network(spiral, [4]), spiral)) as client:
        content = table(np.where(X[:, 0] > 5, "large", "small"))
        assert client.request("POST", "/api/upload", params={"name": "t.csv"}, content=content).status_code == 200
        assert take_away.network(client.session).classes == ("large", "small")


def test_other_data_begin_with_the_usual_options_and_names_of_their_own():
    spiral = data.toy("spiral")
    with client_of(Session(build.network(spiral, [4]), spiral)) as client:
        client.post("options", learning_rate=1.0, optimizer="sgd")
        content = table(np.where(X[:, 0] > 5, "large", "small"))
        client.request("POST", "/api/upload", params={"name": "t.csv"}, content=content)
        assert client.json("state")["options"] == OPTIONS
        assert client.json("neuron", layer=1, neuron=1)["name"] == "output small"
        hidden = client.json("neuron", layer=0, neuron=3)
        assert hidden["name"] == "layer 0 neuron 3" and [one["name"] for one in hidden["in"]] == ["a", "b", "c"]


def test_c_says_what_its_inputs_and_outputs_are():
    session = session_of(np.where(X[:, 0] > 5, "a */ int", "b"))
    text = take_away.file(session, "model.c").decode()
    named = re.findall(r"^   (.\[\d\]: .*)", text, re.MULTILINE)
    assert named == ['x[0]: "a"', 'x[1]: "b"', 'x[2]: "c"', 'y[0]: "a * / int"', 'y[1]: "b"']
    assert text == take_away.network(session).to_c()
    session.close()


def test_a_network_that_would_take_all_memory_is_refused():
    spiral = data.toy("spiral")
    with client_of(Session(build.network(spiral, [4]), spiral)) as client:
        answer = client.request("POST", "/api/new", json={"hidden": [4096] * 16})
        assert answer.status_code == 422 and "251,674,624 edges" in answer.json()["error"]
        assert client.session.model.layers[0].size == 4


def test_inputs_and_outputs_bear_the_names_of_the_data(tmp_path):
    session = session_of(["cat" if a > 5 else "dog" for a in X[:, 0]])
    session.model.outputs[1].name = "my own"
    (tmp_path / "model.npz").write_bytes(take_away.file(session, "model.npz"))
    taken = mlgraph.load(tmp_path / "model.npz")
    assert [node.name for node in taken.graph.inputs] == ["a", "b", "c"]
    assert [node.name for node in taken.outputs] == ["cat", "my own"]
    assert ">cat identity<" in take_away.file(session, "network.svg").decode()
    assert session.model.outputs[0].name != "cat"  # the running network is left as it is
    session.close()


def test_columns_are_read_by_name():
    names, frame = ["a", "b", "c"], pd.DataFrame(X, columns=["a", "b", "c"])
    kinds = np.where(X[:, 0] > 5, "large", "small")
    net = mlgraph.Network(3, seed=0)
    net.add_layer(2, "softmax")
    net.fit(frame, kinds, epochs=20, standardize=True)
    loss = net.evaluate(frame, kinds)["loss"]
    other = frame[["c", "a", "b"]]
    session = Session(net, data.arrays(other, kinds, (frame[["b", "c", "a"]], kinds)))
    assert session.test()["loss"] == pytest.approx(loss) and session.data.columns == names
    session.close()
    with pytest.raises(ValueError, match=r"^x: expected the columns that the model was fitted with .* without b, c"):
        Session(net, data.arrays(frame[["a"]].assign(d=1, e=2), kinds))
    with pytest.raises(data.DataProblem, match=r"^the x of the test has a column 'd', which x does not have"):
        data.arrays(frame, kinds, (frame.rename(columns={"b": "d"}), kinds))


def test_a_network_that_learnt_a_table_reads_frames_by_name(tmp_path):
    kinds = np.where(X[:, 0] > 5, "large", "small")
    session = session_of(kinds)
    taken, frame = take_away.network(session), pd.DataFrame(X, columns=["a", "b", "c"])
    assert taken.columns == ("a", "b", "c")
    np.testing.assert_array_equal(taken.predict(frame[["b", "c", "a"]]), taken.predict(X))
    session_file.save(session, tmp_path / "session.npz")
    session.close()
    saved = session_file.read(tmp_path / "session.npz")
    assert saved.data.named and saved.model.columns == ("a", "b", "c")
    # Points of the plane and arrays have no names.
    for one in (data.toy("xor"), data.arrays(X, kinds)):
        session = Session(build.network(one, [2]), one)
        session_file.save(session, tmp_path / "session.npz")
        session.close()
        saved = session_file.read(tmp_path / "session.npz")
        session = Session(saved.model, saved.data)
        assert take_away.network(session).columns is None
        session.close()
