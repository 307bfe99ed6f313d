"""`python -m mlgraph.mnist sweep`: the same networks on every backend, none lost and none trained twice."""

import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from mnist_program import write_data

import mlgraph
from mlgraph.app import comparison

pytest.importorskip("joblib")

RECIPE = ("--hidden", 8, "--epochs", 3, "--batch-size", 4)
SWEEP = ("sweep", *RECIPE, "--seeds", "0-2", "--sparsity", "0,0.5", "--no-plot", "--quiet")
RESULTS = ("recipe", "test_accuracy", "test_loss", "edges", "weights")


def saved(folder="mnist-sweep"):
    """The runs in a folder, by seed and sparsity."""
    runs = [json.loads(path.read_text()) for path in Path(folder, "runs").iterdir()]
    return {(run["recipe"]["seed"], run["recipe"]["sparsity"]): run for run in runs}


def results(folder="mnist-sweep"):
    return {key: [run[name] for name in RESULTS] for key, run in saved(folder).items()}


def test_runs_are_those_of_single_commands(run):
    result = run(*SWEEP, "--jobs", 1, "--json")
    assert (result.status, result.err) == (0, "")
    assert [(row["sparsity"], row["runs"], row["edges"]) for row in result.json["table"]] == [(0, 3, 184), (0.5, 3, 92)]
    assert sorted(made["weights"] for made in result.json["runs"]) == sorted(
        made["weights"] for made in saved().values()
    )
    assert sorted(saved()) == [(seed, sparsity) for seed in (0, 1, 2) for sparsity in (0.0, 0.5)]
    for (seed, sparsity), made in saved().items():
        single = run(*RECIPE, "--seed", seed, "--sparsity", sparsity, "--no-plot", "--json", "--quiet").json
        net = mlgraph.load("mnist-run/model.npz")
        weights = hashlib.sha256(net.graph.get_parameters().tobytes())
        for layer in net.layers:
            weights.update(layer.weights.tobytes())
        assert made["weights"] == weights.hexdigest()
        assert [made[name] for name in ("test_accuracy", "test_loss", "edges")] == [
            single[name] for name in ("test_accuracy", "test_loss", "edges")
        ]


def test_the_table_has_means_and_deviations(run):
    for jobs, when in ((1, "alone"), (2, "up to 2 at the same time")):
        result = run(*(word for word in SWEEP if word != "--quiet"), "--jobs", jobs, "--epochs", 1, "--out", when)
        table = Path(when, "table.md").read_text()
        title, header, rows = (lines := table.splitlines())[0], lines[2], lines[4:]
        assert title == "20-8-3 leaky_relu, 184 edges, 1 epoch, 3 seeds" and table.partition("\n\n")[2] in result.out
        assert header.endswith(f"| seconds of a run, {when}, on 1 thread |")
        for row, sparsity, edges in zip(rows, (0.0, 0.5), (184, 92), strict=True):
            scores = [100 * run["test_accuracy"] for key, run in saved(when).items() if key[1] == sparsity]
            mean = f"{np.mean(scores):.2f} ± {np.std(scores, ddof=1):.2f}"
            assert row.startswith(f"| {100 * sparsity:.0f} % | {edges} | 3 | {mean} | 0."), row


@pytest.mark.parametrize(("backend", "jobs"), [("loky", 2), ("threading", 2), ("threading", 3)])
def test_backends_give_the_same_bits(run, backend, jobs):
    assert run(*SWEEP, "--jobs", 1, "--out", "one").status == 0
    assert run(*SWEEP, "--jobs", jobs, "--backend", backend, "--threads", 2, "--out", "many").status == 0
    assert results("many") == results("one") and len({run[-1] for run in results("one").values()}) == 6
    assert {run["jobs"] for run in saved("many").values()} == {jobs}


def test_a_picture_is_drawn_and_a_bar_shown(run):
    pytest.importorskip("matplotlib")
    pytest.importorskip("tqdm")
    words = [word for word in SWEEP if word not in ("--no-plot", "--quiet")]
    result = run(*words, "--jobs", 1, terminal=True)
    assert Path("mnist-sweep/sweep.png").read_bytes().startswith(b"\x89PNG") and "| 0/6 [" in result.err
    assert result.out.splitlines()[-1] == "wrote mnist-sweep/table.md, mnist-sweep/sweep.png"


@pytest.mark.parametrize("seeds", ["0", "0-1"])
@pytest.mark.parametrize("sparsities", ["0", "0.9", "0.5,0.501"])
def test_a_picture_of_few_runs(run, monkeypatch, recwarn, seeds, sparsities):
    pytest.importorskip("matplotlib")
    figures = []
    save = comparison.save_figure
    monkeypatch.setattr(comparison, "save_figure", lambda figure, path: (figures.append(figure), save(figure, path)))
    words = [word for word in SWEEP if word != "--no-plot"]
    result = run(*words, "--jobs", 1, "--epochs", 1, "--seeds", seeds, "--sparsity", sparsities)
    assert (result.status, result.err, list(recwarn)) == (0, "", [])
    for axes in figures[0].axes:
        high, low = axes.get_xlim()
        left = [1 - float(sparsity) for sparsity in sparsities.split(",")]
        assert low < min(left) <= max(left) < high < 1.5 * low
    upper = figures[0].axes[0]
    legend = upper.get_legend().get_window_extent()
    assert not any(legend.overlaps(other.get_window_extent()) for other in (upper, upper.title))
    assert figures[0].bbox.containsx(legend.x0) and figures[0].bbox.containsx(legend.x1)


def test_only_missing_runs_are_trained(run, fitted):
    assert run(*SWEEP, "--jobs", 1).status == 0
    first = results()
    Path("mnist-sweep/runs/seed-1-sparsity-0.5.json").unlink()
    fitted.clear()
    assert run(*SWEEP, "--jobs", 1, "--seeds", "0-3").status == 0
    assert [options["seed"] for options in fitted] == [1, 3, 3]
    assert {key: value for key, value in results().items() if key[0] < 3} == first
    fitted.clear()
    assert run(*SWEEP, "--seeds", "3", "--backend", "loky").status == 0 and fitted == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--epochs 4",
            "argument --epochs: {} was trained with 3, not 4; choose another folder by --out, "
            "or go on with its runs by the options that began them, among them --epochs 3\n",
        ),
        ("--batch-size 4:8", "argument --batch-size: {} was trained with 4:4, not 4:8; "),
        ("--hidden none", "argument --hidden: {} was trained with 8, not none; "),
        ("--preset ml-rust --weight-dropout 0 --learning-rate .07:.0002", "argument --preset: {} had another; "),
    ],
)
def test_another_recipe_in_the_same_folder_is_refused(run, words, message):
    assert run(*SWEEP, "--seeds", 0, "--sparsity", 0).status == 0
    before = results()
    result = run(*SWEEP, "--seeds", 1, "--sparsity", 0, *words.split())
    path = "mnist-sweep/runs/seed-0-sparsity-0.0.json"
    assert result.status == 2 and result.err.startswith(f"mlgraph.mnist: error: {message.format(path)}"), result.err
    assert results() == before


def test_other_data_and_damaged_runs_are_refused(run, tmp_path):
    assert run(*SWEEP, "--seeds", 0, "--sparsity", 0).status == 0
    path = Path("mnist-sweep/runs/seed-0-sparsity-0.0.json")
    result = run(*SWEEP, data=write_data(tmp_path / "other", binary=True))
    assert result.status == 2 and f"argument --data: {path} had another; choose" in result.err
    whole = path.read_text()
    for text in (
        whole[:-9],
        "[]",
        '{"recipe": 1}',
        whole.replace('"edges"', '"e"'),
        whole.replace('"sparsity": 0.0', '"sparsity": "x"'),
    ):
        path.write_text(text)
        result = run(*SWEEP)
        assert result.status == 2 and f"argument --out: {path} is damaged or not a run; remove it to" in result.err


def test_runs_of_another_version_are_refused(run, monkeypatch):
    words = (*SWEEP, "--seeds", 0, "--sparsity", 0)
    monkeypatch.setattr(mlgraph, "__version__", "1.2", raising=False)
    assert run(*words).status == 0 and saved()[0, 0]["version"] == "1.2"
    path = Path("mnist-sweep/runs/seed-0-sparsity-0.0.json")
    before = path.read_bytes()
    monkeypatch.setattr(mlgraph, "__version__", "1.3")
    result = run(*words)
    assert result.status == 2 and path.read_bytes() == before
    assert f"argument --out: {path} was trained by mlgraph 1.2, but this is mlgraph 1.3; choose" in result.err
    path.unlink()
    assert run(*words).status == 0 and saved()[0, 0]["version"] == "1.3"
    made = {name: value for name, value in saved()[0, 0].items() if name != "version"}
    path.write_text(json.dumps(made))
    assert f"{path} was trained by mlgraph (version not recorded), but" in run(*words).err


def test_two_files_of_one_run_are_refused(run):
    assert run(*SWEEP, "--seeds", 0, "--sparsity", 0).status == 0
    path = Path("mnist-sweep/runs/seed-0-sparsity-0.0.json")
    copy = path.with_name("copy.json")
    copy.write_bytes(path.read_bytes())
    result = run(*SWEEP)
    assert result.status == 2 and len(saved()) == 1
    assert f"argument --out: {copy} and {path} have the same seed and sparsity; remove one of them" in result.err


def test_runs_that_fail_are_told_and_not_repeated(run, fitted):
    words = (*(word for word in SWEEP if word != "--no-plot"), "--jobs", 1, "--learning-rate", 1e30)
    for n in (6, 0):
        fitted.clear()
        result = run(*words)
        assert result.status == 1 and len(fitted) == n
        assert result.err.startswith(
            "mlgraph.mnist: error: 6 runs failed, the first: seed 0   sparsity 0.00%   failed: "
        )
        assert "| 50 % |  | 0 (3 failed) |  |  |" in Path("mnist-sweep/table.md").read_text()


# --- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--seeds 9-0", "argument --seeds: expected at most 100000 integers from 0 to 2**64 - 1 such as 0-9 or 0,4-6"),
        ("--seeds 0-999999999999", "argument --seeds: expected at most 100000 integers"),
        ("--seeds 0,,1", "argument --seeds: expected "),
        ("--seeds 18446744073709551616", "argument --seeds: expected "),
        ("--sparsity 0,1", "argument --sparsity: expected numbers from 0 to below 1 such as 0,0.9,0.98, got '0,1'"),
        (
            "--sparsity 0,90",
            "argument --sparsity: expected numbers from 0 to below 1 such as 0,0.9,0.98, got '0,90'; 90 %",
        ),
        ("--sparsity=-0.5", "argument --sparsity: expected "),
        ("--sparsity nan", "argument --sparsity: expected "),
        ("--sparsity 0,0.9999", "argument --sparsity: "),  # it would cut off an output
        ("--jobs 0", "argument --jobs: expected an integer from 1 to 1024, got '0'"),
        ("--backend slurm", "argument --backend: expected loky, threading, dask or ray, got 'slurm'"),
        ("--backend dask", "argument --address: dask needs the address of a cluster; without one, use --backend loky"),
        ("--address 1.2.3.4:5", "argument --address: needs --backend dask or ray, got loky"),
        ("--by random", "argument --by: needs --sparsity"),
        ("--hidden none --dropout 0.5", "argument --dropout: there is no hidden layer"),
        ("--sparsity 0,.5 --learning-rate 2 --weight-decay 1", "argument --weight-decay: expected a number from 0"),
        ("--seed 1", "unrecognized arguments: --seed 1 (did you mean --seeds?)"),
        ("--out=", "argument --out: expected a folder, got ''"),
    ],
)
def test_incorrect_command_lines(run, words, message):
    result = run("sweep", "--hidden", 8, *words.split())
    assert (result.status, result.out) == (2, "") and len(result.err.splitlines()) == 1
    assert result.err.startswith(f"mlgraph.mnist: error: {message}"), result.err
    assert os.listdir() == []


def test_the_folder_must_be_writable(run):
    Path("file").touch()
    result = run(*SWEEP, "--out", "file")
    assert result.status == 2 and "argument --out: cannot write to 'file': " in result.err


@pytest.mark.parametrize(
    ("words", "module", "message"),
    [
        ("", "joblib", "argument --backend: loky cannot be used (import of joblib halted; None in sys.modules): pip"),
        (
            "--backend dask --address a:1",
            "distributed",
            "argument --backend: dask cannot be used (import of distributed",
        ),
        ("--backend ray --address a:1", "ray", "argument --backend: ray cannot be used (import of ray halted; "),
    ],
)
def test_a_missing_library_is_named_with_how_to_install_it(run, monkeypatch, words, module, message):
    monkeypatch.setitem(sys.modules, module, None)
    result = run(*SWEEP, *words.split())
    assert result.status == 2 and result.err.startswith(f"mlgraph.mnist: error: {message}"), result.err
    assert ": pip install " in result.err and not os.path.exists("mnist-sweep")


@pytest.mark.parametrize(("backend", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_an_address_without_a_cluster(run, backend, module):
    pytest.importorskip(module)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for address, problem in (
        (f"127.0.0.1:{port}", "cannot connect to "),
        ("here", "expected HOST:PORT or PROTOCOL://"),
    ):
        result = run(*SWEEP, "--backend", backend, "--address", address)
        assert (result.status, result.out) == (2, "") and len(result.err.splitlines()) == 1
        assert result.err.startswith(f"mlgraph.mnist: error: argument --address: {problem}"), result.err
    assert os.listdir() == []


@pytest.mark.parametrize(("backend", "module"), [("dask", "distributed"), ("ray", "ray")])
def test_an_address_that_never_answers(run, monkeypatch, backend, module):
    pytest.importorskip(module)
    monkeypatch.setattr("mlgraph.app.sweep.TIMEOUT", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        result = run(*SWEEP, "--backend", backend, "--address", address)
    message = f"mlgraph.mnist: error: argument --address: no {backend} cluster answers at '{address}' within 1 s\n"
    assert (result.status, result.out, result.err) == (2, "", message) and os.listdir() == []


# --- processes that end early ---------------------------------------------------------------------


def session(leader):
    """The processes that a process has begun, and itself, each with its command."""
    found = subprocess.run(["ps", "-ww", "-o", "pid=,args=", "-s", str(leader)], capture_output=True, text=True)
    return [(int(pid), command) for pid, command in (line.split(maxsplit=1) for line in found.stdout.splitlines())]


def ended(workers, leader):
    """Whether workers end within a minute; idle ones of loky would wait for five."""
    for _ in range(600):
        running = [pid for pid, command in session(leader) if "<defunct>" not in command]
        if not set(workers) & set(running):
            return True
        time.sleep(0.1)
    return False


@contextlib.contextmanager
def begun(*words):
    """A sweep in a process of its own, which has saved a run; its complaints go to the file err."""
    command = [sys.executable, "-m", "mlgraph.mnist", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(Path(mlgraph.__file__).parents[1])}

    def take_signals():  # a shell may have told its children to ignore them
        signal.signal(signal.SIGINT, signal.default_int_handler)

    options = {"env": environment, "preexec_fn": take_signals, "start_new_session": True}
    with open("err", "w") as err:
        process = subprocess.Popen(command, stderr=err, **options)
    try:
        while not list(Path("mnist-sweep/runs").glob("*.json")):
            assert process.poll() is None, Path("err").read_text()
            time.sleep(0.01)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def assert_goes_on(run, words, n):
    """The same command trains what is missing, and nothing else; the results are those of a whole sweep."""
    before = {path: path.stat().st_mtime_ns for path in Path("mnist-sweep/runs").glob("*.json")}
    assert run(*words, "--jobs", 1).status == 0
    assert len(saved()) == n and {path: path.stat().st_mtime_ns for path in before} == before
    assert run(*words, "--jobs", 1, "--out", "whole").status == 0
    assert results() == results("whole")


def assert_complained(message, n):
    (line,) = Path("err").read_text().splitlines()
    saving = f"; {len(saved())} of {n} runs are saved, and the same command goes on from there"
    assert line.startswith(f"mlgraph.mnist: {message}") and line.endswith(saving), line


@pytest.mark.parametrize(
    ("whom", "number", "status", "message"),
    [
        ("the program", signal.SIGKILL, -signal.SIGKILL, None),
        pytest.param("the program", signal.SIGINT, 130, "interrupted; ", marks=pytest.mark.slow),
        ("all", signal.SIGINT, 130, "interrupted; "),  # as by Ctrl-C in a terminal
        ("a worker", signal.SIGKILL, 1, "error: a run was lost: TerminatedWorkerError: A worker process"),
    ],
)
def test_a_sweep_that_is_killed_goes_on(run, data, whom, number, status, message):
    words = (*SWEEP, "--seeds", "0-1", "--epochs", 250)
    with begun(*words, "--jobs", 2, "--data", data) as process:
        workers = [pid for pid, command in session(process.pid) if "LokyProcess" in command]
        for pid in {"the program": [process.pid], "a worker": workers[:1], "all": [process.pid, *workers]}[whom]:
            os.kill(pid, number)
        assert process.wait(timeout=60) == status
        assert workers and ended(workers, process.pid)
    assert 1 <= len(saved()) < 4
    if message:
        assert_complained(message, 4)
    assert_goes_on(run, words, 4)


# --- clusters -------------------------------------------------------------------------------------


@pytest.fixture
def dask():
    """Address of a cluster, and a function that gives the processes of its workers."""
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster, distributed.Client(cluster) as client:
        yield cluster.scheduler_address, lambda: list(client.run(os.getpid).values())


@pytest.fixture
def ray(tmp_path_factory, monkeypatch):
    """Address of a cluster, and a function that gives the processes of its workers."""
    pytest.importorskip("ray")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    environment = {**os.environ, "PYTHONPATH": str(Path(mlgraph.__file__).parents[1])}
    program = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--include-dashboard=false"]
    size = ["--num-cpus=2", "--object-store-memory=100000000", f"--temp-dir={tmp_path_factory.mktemp('r')}"]
    with subprocess.Popen([*program, *size, f"--port={port}"], env=environment, start_new_session=True) as head:
        try:
            for _ in range(300):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.2)
            yield f"127.0.0.1:{port}", lambda: [pid for pid, name in session(head.pid) if "PoolActor" in name]
        finally:
            for pid, _ in session(head.pid):
                os.kill(pid, signal.SIGKILL)  # by SIGTERM it takes half a minute


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the libraries
@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_clusters_give_the_same_bits_and_lose_no_run(run, request, data, backend):
    address, workers = request.getfixturevalue(backend)
    cluster = ("--backend", backend, "--address", address)
    assert run(*SWEEP, "--jobs", 1, "--out", "here").status == 0
    for jobs in (1, 2):
        result = run(*SWEEP, *cluster, "--jobs", jobs, "--out", f"there-{jobs}")
        assert (result.status, result.err) == (0, "")
        assert results(f"there-{jobs}") == results("here")
    words = (*SWEEP, "--epochs", 1000)
    with begun(*words, *cluster, "--jobs", 2, "--data", data) as process:
        os.kill(workers()[0], signal.SIGKILL)
        status = process.wait(timeout=120)
    if backend == "dask":  # it trains the lost run again
        assert status == 0 and len(saved()) == 6
    else:
        assert status == 1
        assert_complained("error: a run was lost: ActorDiedError: ", 6)
    assert_goes_on(run, words, 6)
