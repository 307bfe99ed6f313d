"""Writing checkpoints: full and unusual disks, other threads, and how often."""

import os
import subprocess
import sys
import time
from pathlib import Path

import checkpoint_runs
import pytest
from checkpoint_runs import bits, fit, interrupted, network, stop_at, whole
from locks import is_free

import mlgraph
from mlgraph._support import atomic_files as files
from mlgraph.training import checkpoint as checkpoints

pytestmark = pytest.mark.usefixtures("small_pieces")


def test_previous_checkpoint_must_be_a_file(untouched, path):
    previous = path.with_name(f"{path.name}.previous")
    previous.mkdir()
    with pytest.raises(ValueError, match=r": expected a file, got a folder$"):
        fit(untouched, checkpoint=path)


@pytest.mark.parametrize("where", [(os, "fsync"), (os, "replace")])
def test_full_disk_warns_and_training_continues(path, monkeypatch, where):
    """The old checkpoint stays, and resumes to the same bits."""
    interrupted(path, 30)
    old = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    real = getattr(*where)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    def room_again(event):
        if event.examples > 4000:
            monkeypatch.setattr(*where, real)

    net = network()
    monkeypatch.setattr(*where, full)
    kept = {"momentum": 0.0, "checkpoint": path, "checkpoint_every": 0, "resume": True}
    with pytest.warns(
        RuntimeWarning, match=rf"^checkpoint: {path} cannot be written \(No space left on device\), training"
    ):
        fit(net, callback=stop_at(10**6), **kept)
    assert bits(net) == whole("sgd")
    left = {file.name: file.read_bytes() for file in path.parent.iterdir()}
    assert left[path.name] == old[path.name] and len(left) == 2
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        fit(network(), callback=room_again, **kept)
    monkeypatch.setattr(*where, full)
    net = network()
    fit(net, **kept)
    assert bits(net) == whole("sgd")


FULL = """
import resource, signal, sys, warnings
sys.path.insert(0, {folder!r})
import checkpoint_runs as t

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    net = t.network()
    t.fit(net, momentum=0.0, checkpoint={path!r}, checkpoint_every=0)
expected = "checkpoint: {path} cannot be written (File too large), training continues"
assert {{str(w.message) for w in told}} == {{expected}}, told
print(repr(t.bits(net)))
"""


@pytest.mark.slow
def test_file_size_limit_leaves_no_file(path):
    pytest.importorskip("resource")
    code = FULL.format(folder=os.path.dirname(checkpoint_runs.__file__), path=str(path))
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", repr(whole("sgd")) + "\n")
    assert os.listdir(path.parent) == []


def test_file_system_without_links(path, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    interrupted(path, 30)
    assert mlgraph.load(path.with_name("run.npz.previous")).n_edges == mlgraph.load(path).n_edges
    net = network()
    fit(net, momentum=0.0, checkpoint=path, checkpoint_every=0, resume=True)
    assert bits(net) == whole("sgd")


def test_file_and_folder_are_synced(path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (synced.append(os.fstat(number)), real(number)))
    fit(network(), checkpoint=path, checkpoint_every=1e6)
    expected = [os.stat(path), os.stat(path.parent)]
    assert [(found.st_dev, found.st_ino) for found in synced] == [(found.st_dev, found.st_ino) for found in expected]


def test_temporary_files_of_killed_processes_are_removed(path):
    stale = path.with_name(".run.npz.abcd0123.mlgraph-part")
    others = [path.with_name(name) for name in (".run.npz", ".run.npz.20240101", ".another.npz.abcd0123.mlgraph-part")]
    for file in (stale, *others):
        file.write_text("")
    fit(network(), checkpoint=path, checkpoint_every=1e6)
    assert not stale.exists() and all(other.exists() for other in others)


def test_read_only_folder_warns_and_training_continues(path, monkeypatch):

    def refused(*_, **__):
        raise OSError(30, "Read-only file system")

    stale = path.with_name(".run.npz.abcd0123.mlgraph-part")
    stale.write_text("")
    monkeypatch.setattr(Path, "unlink", refused)
    monkeypatch.setattr(files, "open", refused, raising=False)
    net = network()
    with pytest.warns(
        RuntimeWarning, match=rf"^checkpoint: {path} cannot be written \(Read-only file system\), training"
    ):
        fit(net, momentum=0.0, checkpoint=path, checkpoint_every=0)
    assert bits(net) == whole("sgd") and stale.exists()


def test_checkpoint_every_is_the_minimum_interval(path, monkeypatch):
    written, clock = [], [0.0]
    monkeypatch.setattr(checkpoints, "save", lambda *_, **__: written.append(clock[0]))
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def callback(event):
        clock[0] += 1.0

    fit(network(), epochs=1, validation=None, batch_size=100, checkpoint=path, checkpoint_every=4, callback=callback)
    assert written == [4, 8, 12, 13]  # the last at the end of the run


def test_graph_is_locked_during_a_write(path, monkeypatch):
    net, free = network(), []
    monkeypatch.setattr(checkpoints, "save", lambda *_, **__: free.append(is_free(net.graph.lock)))
    fit(net, checkpoint=path)
    assert free and not any(free)
