"""A population: each member gives, and learns, what it would alone; others neither wait for it nor change with it."""

import copy
import pickle
import signal
import threading
import zipfile

import numpy as np
import pytest
from learnable import CLASSES, FLOATS, INF, INPUTS, X, Y, bits, network

import mlgraph
from mlgraph.compiler.plan import Plan

N = 7
QUESTION = (Y == 0).astype(int)
FIT = {"epochs": 4, "batch_size": 16, "learning_rate": 0.02}


def random_dag(seed, inputs=INPUTS, outputs=1, loss="binary_cross_entropy"):
    """A graph as neuroevolution makes them: each neuron reads some of all nodes before it."""
    rng, g = np.random.default_rng(seed), mlgraph.Graph(seed=seed)
    nodes = list(g.add_inputs(inputs))
    for _ in range(rng.integers(1, 9)):
        sources = rng.choice(len(nodes), rng.integers(2, 5), replace=False)
        activation = rng.choice(["tanh", "relu", "sigmoid"])
        nodes.append(g.add_neuron([nodes[i] for i in sources], activation, weights=rng.normal(size=len(sources))))
    ends = [g.add_neuron(nodes[inputs:], weights=rng.normal(size=len(nodes) - inputs)) for _ in range(outputs)]
    return mlgraph.Model(g, ends, loss=loss)


def dags(n=N):
    return [random_dag(seed) for seed in range(n)]


def networks(n=N, last="softmax"):
    return [network(last, seed=seed) for seed in range(n)]


CASES = {
    "random graphs": (dags, FLOATS, QUESTION),
    "networks of classes, from bytes": (networks, X, Y),
    "networks with names of classes": (networks, X, np.array(["a", "c", "b"])[Y]),
    "networks of numbers": (lambda: networks(last="identity"), FLOATS.astype(float), np.eye(CLASSES)[Y]),
    "networks with dropout": (lambda: [network(seed=i, dropout=0.2) for i in range(N)], X, Y),
}


@pytest.fixture(params=CASES)
def case(request):
    make, x, y = CASES[request.param]
    return make, x, y


@pytest.fixture
def compiled(monkeypatch):
    """The graphs that are compiled, one after the other."""
    graphs, init = [], Plan.__init__

    def counting(self, graph, *args, **kwargs):
        graphs.append(graph)
        init(self, graph, *args, **kwargs)

    monkeypatch.setattr(Plan, "__init__", counting)
    return graphs


# --- as alone -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_threads", [None, 1, 2])
def test_fit_teaches_each_member_what_its_own_fit_would(case, n_threads):
    make, x, y = case
    alone, population = make(), mlgraph.Population(make())
    expected = [model.fit(x, y, **FIT, n_threads=1) for model in alone]
    histories = population.fit(x, y, **FIT, n_threads=n_threads)
    assert [bits(model) for model in population] == [bits(model) for model in alone]
    assert [h.batch_loss.tolist() for h in histories] == [h.batch_loss.tolist() for h in expected]
    assert all(model.history is history for model, history in zip(population, histories, strict=True))
    # The seeds, too, are the members' own: a second run goes on as theirs do.
    population.fit(x, y, **FIT, n_threads=n_threads)
    for model in alone:
        model.fit(x, y, **FIT)
    assert [bits(model) for model in population] == [bits(model) for model in alone]


@pytest.mark.parametrize("n_threads", [None, 1, 2])
def test_results_are_those_of_the_members(case, n_threads):
    make, x, y = case
    population = mlgraph.Population(make())
    population.fit(x, y, **FIT)
    for rows in (slice(None), slice(1), slice(70)):
        for name in ("forward", "predict", "predict_proba"):
            if name != "predict_proba" or population[0].probabilities:
                got = getattr(population, name)(x[rows], n_threads=n_threads)
                expected = np.stack([getattr(model, name)(x[rows]) for model in population])
                assert got.dtype == expected.dtype and got.tobytes() == expected.tobytes()
        scores = population.evaluate(x[rows], y[rows], n_threads=n_threads)
        expected = [model.evaluate(x[rows], y[rows]) for model in population]
        assert {name: list(values) for name, values in scores.items()} == {
            name: [score[name] for score in expected] for name in expected[0]
        }


def test_few_members_share_the_threads():
    alone, population = network(), mlgraph.Population([network()])
    population.fit(X, Y, epochs=1, batch_size=100, n_threads=2)
    alone.fit(X, Y, epochs=1, batch_size=100)
    assert bits(population[0]) == bits(alone)
    assert population.forward(X, n_threads=2)[0].tobytes() == alone.forward(X).tobytes()
    assert population.evaluate(X, Y, n_threads=2)["loss"][0] == alone.evaluate(X, Y)["loss"]


def test_evaluate_takes_weights_and_metrics():
    population, weight = mlgraph.Population(networks(3)), np.arange(len(Y))
    scores = population.evaluate(X, Y, sample_weight=weight, metrics=["f1_macro"])
    expected = [model.evaluate(X, Y, sample_weight=weight, metrics=["f1_macro"]) for model in population]
    assert list(scores) == ["loss", "accuracy", "f1_macro"]
    assert all(list(scores[name]) == [score[name] for score in expected] for name in scores)


@pytest.mark.parametrize(
    "options",
    [
        {"seed": 3},
        {"standardize": True, "weight_decay": 0.01},
        {"optimizer": "sgd", "clip_norm": 1.0},
        {"validation_split": 0.2, "metrics": ["f1_macro"]},
        {"sparsify": mlgraph.SET(0.5, updates=3)},
        {"class_weight": "balanced", "learning_rate": lambda p: 0.01 * (1 - p)},
    ],
    ids=lambda options: ", ".join(options),
)
def test_fit_takes_the_options_of_a_model(options):
    alone, population = networks(3), mlgraph.Population(networks(3))
    expected = [model.fit(FLOATS, Y, **{**FIT, **options}) for model in alone]
    histories = population.fit(FLOATS, Y, **{**FIT, **options}, n_threads=2)
    assert [bits(model) for model in population] == [bits(model) for model in alone]
    for history, other in zip(histories, expected, strict=True):
        assert list(history) == list(other)
        assert history.validation_loss.tolist() == other.validation_loss.tolist()


def pruned(n=N):
    """Layers whose few missing edges are computed as blocks with holes, or not, whichever is faster."""
    models = []
    for seed in range(n):
        net = mlgraph.Network(64, seed=seed)
        net.add_layer(48, "relu")
        net.add_layer(4, "softmax")
        net.prune(0.1 * seed, by="random", seed=seed)
        models.append(net)
    return models


@pytest.mark.parametrize("n_threads", [1, 2])
def test_pruned_members_give_what_they_would_alone(n_threads):
    rng = np.random.default_rng(0)
    for x in (rng.integers(0, 256, (500, 64), np.uint8), rng.normal(size=(500, 64)).astype(np.float32)):
        x[rng.random(x.shape) < 0.5] = 0
        population = mlgraph.Population(pruned())
        for few in (x, x[:3], x):
            expected = np.stack([model.forward(few) for model in population])
            assert population.forward(few, n_threads=n_threads).tobytes() == expected.tobytes()


def test_members_may_read_the_data_each_in_its_own_way():
    x = X // 2  # 255 would be a warning where nothing divides it

    def some():
        models = networks(5)
        models[1].scaling = "unscaled"
        models[2].fit(x, Y, epochs=1)  # "bytes"
        models[3].scaling = np.full(INPUTS, 3.0), np.full(INPUTS, 2.0)
        models[4].classes = [2, 1, 0]
        return models

    alone, population = some(), mlgraph.Population(some())
    population.fit(x, Y, **FIT)
    for model in alone:
        model.fit(x, Y, **FIT)
    assert [bits(model) for model in population] == [bits(model) for model in alone]
    assert np.array_equal(population.forward(x), [model.forward(x) for model in alone])
    assert np.array_equal(population.predict(x), [model.predict(x) for model in alone])


# --- joining, leaving, editing --------------------------------------------------------------------


def test_joining_and_leaving_compile_no_other_member(compiled):
    population = mlgraph.Population(dags())
    population.fit(FLOATS, QUESTION, **FIT)
    population.forward(FLOATS)
    compiled.clear()
    del population[2]
    new = random_dag(99)
    population.insert(1, new)
    population.forward(FLOATS)
    assert compiled == [new.graph]
    population.fit(FLOATS, QUESTION, **FIT)
    population.evaluate(FLOATS, QUESTION)
    assert set(map(id, compiled)) == {id(new.graph)}


def test_an_edit_compiles_the_edited_member_alone(compiled):
    population = mlgraph.Population(dags())
    population.forward(FLOATS)
    compiled.clear()
    edited = population[4]
    edited.graph.add_edge(edited.graph[0], edited.outputs[0], 0.3)
    got = population.forward(FLOATS)
    assert compiled == [edited.graph]
    edited.graph.edge(edited.graph[0], edited.outputs[0]).prune()
    population.forward(FLOATS)
    assert compiled == [edited.graph] * 2
    assert not np.array_equal(got[4], population.forward(FLOATS)[4])


def test_it_is_a_list():
    models = dags()
    population = mlgraph.Population(models)
    assert list(population) == models and len(population) == N and models[3] in population
    assert population[-1] is models[-1] and population.index(models[2]) == 2
    part = population[1:3]
    assert isinstance(part, mlgraph.Population) and list(part) == models[1:3]
    assert population.pop() is models.pop()
    population.remove(models.pop(0))
    new = random_dag(50)
    population[0] = models[0] = new
    population += [random_dag(51)]
    population.reverse()
    assert list(population)[1:] == models[::-1]
    population[:] = models
    assert list(population) == models
    population.clear()
    assert len(population) == 0 and repr(population) == "<Population of 0 models>"


def test_its_repr_tells_what_the_members_have_in_common():
    assert repr(mlgraph.Population(dags())) == (
        "<Population of 7 models of 12 inputs, 1 output and the loss binary_cross_entropy>"
    )


def test_copies_and_pickles_have_models_of_their_own():
    population = mlgraph.Population(dags(3))
    population.fit(FLOATS, QUESTION, **FIT)
    for other in (copy.deepcopy(population), pickle.loads(pickle.dumps(population))):
        assert isinstance(other, mlgraph.Population) and not {*other} & {*population}
        assert np.array_equal(other.forward(FLOATS), population.forward(FLOATS))
    shallow = copy.copy(population)
    del shallow[0]
    shallow.reverse()
    assert list(shallow) == list(population)[:0:-1] and len(population) == 3


# --- refused --------------------------------------------------------------------------------------


def other_model_of(model):
    return mlgraph.Model(model.graph, model.outputs, loss="squared_error")


@pytest.mark.parametrize(
    ("strange", "error", "message"),
    [
        (lambda models: models[2], ValueError, "members 2 and 7 are the same model"),
        (lambda models: other_model_of(models[2]), ValueError, "members 2 and 7 share one graph"),
        (lambda _: random_dag(9, inputs=5), ValueError, "5 inputs, 1 output .* in member 7"),
        (lambda _: random_dag(9, outputs=2), ValueError, "12 inputs, 2 outputs .* in member 7"),
        (lambda _: random_dag(9, loss="mse"), ValueError, "the loss mse in member 7"),
        (lambda _: mlgraph.Graph(), TypeError, "expected models, got .* as member 7"),
        (lambda _: mlgraph.Network(INPUTS), ValueError, "expected at least one layer"),
    ],
    ids=["the same model", "a shared graph", "other inputs", "other outputs", "another loss", "a graph", "no layers"],
)
def test_a_model_that_does_not_fit_in_is_refused(strange, error, message):
    models = dags()
    population, model = mlgraph.Population(models), strange(models)
    for join in (population.append, lambda model: population.extend([random_dag(9), model])):
        before = list(population)
        with pytest.raises(error, match=message.replace("7", "[78]")):
            join(model)
        assert list(population)[:N] == before[:N] and model not in list(population)[N:]
    with pytest.raises(error, match=message):
        mlgraph.Population([*models, model])


def test_a_member_that_has_changed_its_outputs_is_refused_by_number():
    population = mlgraph.Population(networks(3))
    population[1].add_layer(2, "softmax")
    for call in (population.forward, population.predict, lambda x: population.fit(x, Y)):
        with pytest.raises(ValueError, match=r"2 outputs .* in member 1"):
            call(FLOATS)


def test_an_empty_population_has_no_results():
    for call in (lambda p: p.forward(X), lambda p: p.fit(X, Y), lambda p: p.evaluate(X, Y)):
        with pytest.raises(ValueError, match="expected at least one member"):
            call(mlgraph.Population())


def test_something_else_than_models_is_refused():
    with pytest.raises(TypeError, match=r"^models: expected an iterable of models, got"):
        mlgraph.Population(network())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": -1}, ValueError, "epochs"),
        ({"lr": 0.1}, TypeError, "^fit: .*'lr'; here it is learning_rate$"),
        ({"callbacks": []}, TypeError, "callbacks"),
        ({"checkpoint": "run.npz"}, TypeError, "checkpoint"),
        ({"n_threads": 0}, ValueError, "n_threads"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_argument_changes_no_member(options, error, message):
    population = mlgraph.Population(networks(3))
    before = [(bits(model), model.graph.random.bit_generator.state) for model in population]
    with pytest.raises(error, match=message):
        population.fit(X, Y, **options)
    assert [(bits(model), model.graph.random.bit_generator.state) for model in population] == before


def test_data_that_do_not_suit_one_member_change_none():
    population = mlgraph.Population(networks(3))
    population[1].fit(X, Y, epochs=1)  # on bytes
    population.evaluate(X, Y)
    before = [bits(model) for model in population]
    for call in (population.forward, population.predict, lambda x: population.fit(x, Y)):
        with pytest.raises(ValueError, match="member 1: x: expected numbers from 0 to 255"):
            call(FLOATS)
    assert [bits(model) for model in population] == before


def test_validation_data_that_do_not_suit_one_member_change_none():
    def model(read):
        g = mlgraph.Graph(seed=0)
        return mlgraph.Model(g, g.add_neuron(g.add_inputs(INPUTS)[:read]), loss="mse")

    models = [model(INPUTS - 1), model(INPUTS)]  # only the second needs the last column
    before = [one.outputs[0].weights.tolist() for one in models]
    narrow = FLOATS[:, :-1], QUESTION
    for order in (models, models[::-1]):
        with pytest.raises(ValueError, match=rf"member {order.index(models[1])}: validation x: expected shape"):
            mlgraph.Population(order).fit(FLOATS, QUESTION, validation_data=narrow, **FIT)
    assert [one.outputs[0].weights.tolist() for one in models] == before


# --- trouble --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_member_that_overflows_is_named_and_disturbs_no_other(n_threads):
    def some():
        models = networks()
        for i in (2, 5):
            models[i].layers[0][3].weights[:] = INF
        return models

    alone, population = some(), mlgraph.Population(some())
    for i, model in enumerate(alone):
        if i not in (2, 5):
            model.fit(X, Y, **FIT)
    with pytest.raises(mlgraph.NonFiniteError, match=r"member 2 .*members 5.*: epoch 1, step 1: ") as caught:
        population.fit(X, Y, **FIT, n_threads=n_threads)
    assert caught.value.members == (2, 5)
    for i in (5, 2):
        with pytest.raises(mlgraph.NonFiniteError) as own:
            alone[i].fit(X, Y, **FIT)
    assert (caught.value.node, caught.value.example) == (own.value.node, own.value.example)
    assert [bits(model) for model in population] == [bits(model) for model in alone]
    losses = population.evaluate(X, Y)["loss"]
    assert np.flatnonzero(~np.isfinite(losses)).tolist() == [2, 5]
    for i in reversed(caught.value.members):
        del population[i]
    population.fit(X, Y, **FIT)


def test_a_prediction_that_is_unclear_names_the_member():
    population = mlgraph.Population(dags(3))
    population[1].outputs[0].bias = -INF
    population[1].outputs[0].weights[:] = INF
    with pytest.raises(ValueError, match="member 1: predict: expected outputs that are numbers"):
        population.predict(FLOATS)
    assert np.isnan(population.forward(FLOATS)).any(axis=(1, 2)).tolist() == [False, True, False]


def test_an_error_in_one_run_ends_all_between_two_steps():
    population = mlgraph.Population(networks())

    def rate(p):
        if p not in checked and threading.current_thread() is not threading.main_thread():
            raise ZeroDivisionError
        checked.add(p)
        return 0.001

    checked = set()
    with pytest.raises(ZeroDivisionError):
        population.fit(X, Y, epochs=10**6, n_threads=2, learning_rate=rate)
    assert not any(model.graph.is_training for model in population)
    population.fit(X, Y, **FIT)
    assert np.isfinite(population.evaluate(X, Y)["loss"]).all()


def test_a_member_that_cannot_train_is_named_before_any_begins():
    population = mlgraph.Population(dags())
    g = mlgraph.Graph()
    population.append(mlgraph.Model(g, mlgraph.tanh(g.add_inputs(INPUTS)[0]), loss="binary_cross_entropy"))
    with pytest.raises(ValueError, match="member 7: fit: the loss depends on no weight"):
        population.fit(FLOATS, QUESTION, **FIT)
    del population[7]
    with population[3].graph.in_training(), pytest.raises(RuntimeError, match="fit: member 3: not possible"):
        population.fit(FLOATS, QUESTION, **FIT)
    assert not any(model.history.batch_loss.size for model in population)


def test_a_lock_that_the_caller_holds_is_no_deadlock():
    alone, population = networks(), mlgraph.Population(networks())
    with population[2].graph.one_edit():
        population.fit(X, Y, **FIT, n_threads=2)
    for model in alone:
        model.fit(X, Y, **FIT)
    assert [bits(model) for model in population] == [bits(model) for model in alone]


def test_a_member_that_another_thread_uses_is_waited_for():
    population = mlgraph.Population(networks())
    expected, held, go_on = population.forward(X), threading.Event(), threading.Event()

    def use():
        with population[2].graph.lock:
            held.set()
            go_on.wait(10)
            for model in population:  # whoever waits for the one that is held here must hold no other
                with model.graph.lock:
                    pass

    thread = threading.Thread(target=use)
    thread.start()
    held.wait()
    threading.Timer(0.05, go_on.set).start()
    assert np.array_equal(population.forward(X), expected)
    thread.join()


@pytest.mark.parametrize("n_threads", [1, 2])
def test_ctrl_c_ends_all_runs_and_leaves_members_that_can_go_on(n_threads):
    population, threads = mlgraph.Population(networks()), threading.active_count()

    def strike():
        while not population[0].history.batch_loss.size:
            pass
        signal.raise_signal(signal.SIGINT)

    striker = threading.Thread(target=strike)
    striker.start()
    with pytest.raises(KeyboardInterrupt):
        population.fit(X, Y, epochs=10**9, n_threads=n_threads)
    striker.join()
    assert threading.active_count() == threads
    assert not any(model.graph.is_training for model in population)
    population.fit(X, Y, **FIT)
    assert np.isfinite(population.evaluate(X, Y)["loss"]).all()


# --- files ----------------------------------------------------------------------------------------


def everything(model):
    names = {node.id: node.name for node in model.graph if node.id in model.graph.names}
    reading = repr(model.scaling), model.columns, model.classes, names, [layer.dropout for layer in model.layers]
    return bits(model), model.graph.random.bit_generator.state, type(model), model.loss, reading


@pytest.fixture
def saved(tmp_path):
    """A population of members that differ in all that a file records, and its file."""
    members = [*networks(2), random_dag(3, outputs=CLASSES, loss="softmax_cross_entropy"), network(seed=4, dropout=0.5)]
    members[0].fit(X, np.array(["a", "c", "b"])[Y], epochs=1)
    members[1].fit(FLOATS * 9, Y, epochs=1, standardize=True)
    members[1].columns, members[2].outputs[0].name = [f"pixel {i}" for i in range(INPUTS)], "zero"
    members[3].prune(0.5)
    population, path = mlgraph.Population(members), tmp_path / "population.zip"
    population.save(path)
    return population, path


def test_a_file_holds_all_that_files_of_the_members_hold(saved, tmp_path):
    population, path = saved
    again = mlgraph.Population.load(path)
    assert type(again) is mlgraph.Population and repr(again) == repr(population)
    assert [everything(model) for model in again] == [everything(model) for model in population]
    np.testing.assert_array_equal(again.forward(X), population.forward(X))
    options = {"epochs": 1, "batch_size": 16}
    population[2:].fit(FLOATS, Y, **options), again[2:].fit(FLOATS, Y, **options)
    assert [bits(model) for model in again] == [bits(model) for model in population]
    mlgraph.Population().save(path)
    assert len(mlgraph.Population.load(path)) == 0


def test_each_member_can_be_unpacked_and_opened_alone(saved, tmp_path):
    population, path = saved
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path)
    for i, model in enumerate(population):
        model.save(tmp_path / "model.npz")
        assert everything(mlgraph.load(tmp_path / f"{i}.npz")) == everything(model)
        assert (tmp_path / f"{i}.npz").stat().st_size == (tmp_path / "model.npz").stat().st_size


def test_a_file_of_the_other_kind_is_refused_with_what_reads_it(saved, tmp_path):
    population, path = saved
    with pytest.raises(mlgraph.ModelFileError, match=r"a population, which mlgraph\.Population\.load reads$"):
        mlgraph.load(path)
    population[0].save(tmp_path / "model.npz")
    with pytest.raises(mlgraph.ModelFileError, match=r"a single model, which mlgraph\.load reads$"):
        mlgraph.Population.load(tmp_path / "model.npz")
    with pytest.raises(FileNotFoundError):
        mlgraph.Population.load(tmp_path / "none.zip")


def rewritten(path, method=zipfile.ZIP_STORED, **changes):
    """The file with some members replaced, or left out."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in (members | {f"{name[1:]}.npz": content for name, content in changes.items()}).items():
            if content is not None:
                archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_1": b"PK\5\6"}, r"1\.npz: File is not a zip file"),
        ({"_1": None}, "not the file of a population"),
        ({"_x": b""}, "not the file of a population"),
        ({"method": zipfile.ZIP_DEFLATED}, "expected arrays that are not compressed"),
    ],
)
def test_damaged_files_are_refused(saved, changes, message):
    path = rewritten(saved[1], **changes)
    with pytest.raises(mlgraph.ModelFileError, match=rf"^{path}: {message}"):
        mlgraph.Population.load(path)


def test_a_damaged_member_is_named_and_members_must_be_alike(saved, tmp_path):
    other = network("identity")
    other.save(tmp_path / "other.npz")
    whole = (tmp_path / "other.npz").read_bytes()
    for content, message in (
        (whole, "expected members alike, got .*squared_error in member 3"),
        (whole[: len(whole) // 2], r"3\.npz: "),
    ):
        with pytest.raises(mlgraph.ModelFileError, match=message):
            mlgraph.Population.load(rewritten(saved[1], _3=content))


def test_cut_off_and_changed_bytes_are_refused_or_change_nothing(saved, tmp_path):
    population, path = saved
    whole, expected, rng = path.read_bytes(), [everything(model) for model in population], np.random.default_rng(0)
    refused = 0
    for damage in range(150):
        content = bytearray(whole)
        if damage % 3:
            at = int(rng.integers(len(content)))
            content[at] ^= 1 << int(rng.integers(8))
        else:
            del content[int(rng.integers(len(content))) :]
        (tmp_path / "damaged.zip").write_bytes(content)
        try:
            found = mlgraph.Population.load(tmp_path / "damaged.zip")
        except mlgraph.ModelFileError:
            refused += 1
        else:
            assert [everything(model) for model in found] == expected
    assert refused > 100


def test_a_member_that_claims_more_than_the_file_has_is_refused(saved):
    path = saved[1]
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\1\2")  # of the directory's entry for the last member
    content[at + 20 : at + 28] = (2**31).to_bytes(4, "little") * 2
    path.write_bytes(content)
    with pytest.raises(mlgraph.ModelFileError, match="expected arrays of at most the"):
        mlgraph.Population.load(path)


def test_a_population_that_cannot_be_saved_leaves_the_file(saved):
    population, path = saved
    before = path.read_bytes()
    population[2].graph.storage.vector[:] = np.nan
    with pytest.raises(ValueError, match=r"^member 2: save: neuron .* nan"):
        population.save(path)
    assert path.read_bytes() == before and [*path.parent.iterdir()] == [path]


def test_a_class_derived_from_population_is_loaded_as_itself(saved):
    class Own(mlgraph.Population):
        pass

    assert type(Own.load(saved[1])) is Own
