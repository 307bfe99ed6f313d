"""How a checkpoint is written: on disks that are full or odd, beside other threads, and how often."""

import os
import subprocess
import sys
import time
from pathlib import Path

import checkpoint_runs
import numpy as np
import pytest
from checkpoint_runs import bits, fit, interrupted, network, stop_at, whole
from locks import is_free

import mlgraph
from mlgraph._support import atomic_files as files
from mlgraph.training import checkpoint as checkpoints

pytestmark = pytest.mark.usefixtures("small_pieces")


def test_what_is_no_file_is_not_kept(untouched, path):
    """The one before stands beside the checkpoint."""
    previous = path.with_name(f"{path.name}.previous")
    previous.mkdir()
    with pytest.raises(ValueError, match=r": expected a file, got a folder$"):
        fit(untouched, checkpoint=path)


@pytest.mark.parametrize("where", [(np, "savez"), (os, "fsync"), (os, "replace")])
def test_a_full_disk(path, monkeypatch, where):
    """It is told, training goes on, and what was written before is there; when there is room again, it goes on as well."""
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
assert {{str(w.message) for w in told}} == {{"checkpoint: {path} cannot be written (File too large), training continues"}}, told
print(repr(t.bits(net)))
"""


def test_a_file_that_the_system_cuts(path):
    pytest.importorskip("resource")
    code = FULL.format(folder=os.path.dirname(checkpoint_runs.__file__), path=str(path))
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", repr(whole("sgd")) + "\n")
    assert os.listdir(path.parent) == []


def test_file_systems_without_links(path, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    interrupted(path, 30)
    assert mlgraph.load(path.with_name("run.npz.previous")).n_edges == mlgraph.load(path).n_edges
    net = network()
    fit(net, momentum=0.0, checkpoint=path, checkpoint_every=0, resume=True)
    assert bits(net) == whole("sgd")


def test_file_and_folder_come_to_the_disk(path, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (synced.append(os.fstat(number)), real(number)))
    fit(network(), checkpoint=path, checkpoint_every=1e6)
    expected = [os.stat(path), os.stat(path.parent)]
    assert [(found.st_dev, found.st_ino) for found in synced] == [(found.st_dev, found.st_ino) for found in expected]


def test_what_a_killed_process_was_writing_goes(path):
    stale = path.with_name(".run.npz.abcd0123.mlgraph-part")
    others = [path.with_name(name) for name in (".run.npz", ".run.npz.20240101", ".another.npz.abcd0123.mlgraph-part")]
    for file in (stale, *others):
        file.write_text("")
    fit(network(), checkpoint=path, checkpoint_every=1e6)
    assert not stale.exists() and all(other.exists() for other in others)


def test_a_folder_that_is_read_only(path, monkeypatch):
    """With something in it that a killed process left."""

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


def test_how_often(path, monkeypatch):
    written, clock = [], [0.0]
    monkeypatch.setattr(checkpoints, "save", lambda *_, **__: written.append(clock[0]))
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    def callback(event):
        clock[0] += 1.0

    fit(network(), epochs=1, validation=None, batch_size=100, checkpoint=path, checkpoint_every=4, callback=callback)
    assert written == [4, 8, 12, 13]  # the last at the end of the run


def test_a_checkpoint_is_written_while_no_other_thread_may_edit(path, monkeypatch):
    net, free = network(), []
    monkeypatch.setattr(checkpoints, "save", lambda *_, **__: free.append(is_free(net.graph.lock)))
    fit(net, checkpoint=path)
    assert free and not any(free)


def test_a_digest_knows_shapes():
    assert checkpoints._digest([np.zeros((2, 3))]) != checkpoints._digest([np.zeros((3, 2))])


def test_a_full_disk_is_tried_no_more_often(path, monkeypatch):
    clock, tries = [0], []

    def tick(_):
        clock[0] += 1

    def full(*_, **__):
        tries.append(clock[0])
        raise OSError(28, "full")

    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(checkpoints, "save", full)
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        fit(network(), callback=tick, checkpoint=path, checkpoint_every=10)
    assert clock[0] > 20 and len(tries) <= clock[0] // 10 + 1


def test_a_name_that_looks_like_a_pattern(tmp_path):
    other = tmp_path / ".ab.12345678.mlgraph-part"
    other.touch()
    fit(network(), checkpoint=tmp_path / "a*")
    assert other.exists()
