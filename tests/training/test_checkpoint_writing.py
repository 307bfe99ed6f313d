"""Writing checkpoints: full and unusual disks, other threads, and how often."""

import os
import time
from pathlib import Path

import pytest
from checkpoint_runs import bits, fit, interrupted, network, resumed, whole
from locks import is_free

import mlgraph
from mlgraph._support import atomic_files
from mlgraph.training import checkpoint as checkpoints

pytestmark = pytest.mark.usefixtures("small_pieces")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_full_disk_warns_and_training_continues(path, monkeypatch, step):
    """The old checkpoint stays until there is room again."""
    interrupted(path)
    real, old = getattr(os, step), path.read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    def room_again(event):
        if event.examples > 4000:
            monkeypatch.setattr(os, step, real)

    message = rf"^checkpoint: {path} cannot be written \(No space left on device\), training continues"
    for callback in (None, room_again):
        monkeypatch.setattr(os, step, full)
        with pytest.warns(RuntimeWarning, match=message):
            net = resumed(path, checkpoint_every=0, callbacks=[callback] if callback else None)
        assert bits(net) == whole() and (path.read_bytes() == old) == (callback is None)
        assert sorted(os.listdir(path.parent)) == ["run.npz", "run.npz.previous"]
    assert mlgraph.load(path).graph.get_parameters().tobytes() == net.graph.get_parameters().tobytes()


def test_read_only_folder_warns_and_training_continues(path, monkeypatch):
    def refused(*_, **__):
        raise OSError(30, "Read-only file system")

    stale = path.with_name(".run.npz.abcd0123.mlgraph-part")
    stale.write_text("")
    monkeypatch.setattr(Path, "unlink", refused)
    monkeypatch.setattr(atomic_files, "open", refused, raising=False)
    net = network()
    with pytest.warns(RuntimeWarning, match=rf"^checkpoint: {path} cannot be written \(Read-only file system\), train"):
        fit(net, checkpoint=path, checkpoint_every=0)
    assert bits(net) == whole() and stale.exists()


def test_file_system_without_links(path, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    interrupted(path)
    assert mlgraph.load(path.with_name("run.npz.previous")).n_edges == mlgraph.load(path).n_edges
    assert bits(resumed(path, checkpoint_every=0)) == whole()


def test_file_and_folder_are_synced(path, monkeypatch):
    synced, real = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (synced.append(os.fstat(number).st_ino), real(number)))
    fit(network(), checkpoint=path, checkpoint_every=1e6)
    assert synced == [path.stat().st_ino, path.parent.stat().st_ino]


def test_temporary_files_of_killed_processes_are_removed(path):
    stale = path.with_name(".run.npz.abcd0123.mlgraph-part")
    others = [path.with_name(name) for name in (".run.npz", ".run.npz.20240101", ".another.npz.abcd0123.mlgraph-part")]
    for file in (stale, *others):
        file.write_text("")
    fit(network(), checkpoint=path, checkpoint_every=1e6)
    assert not stale.exists() and all(other.exists() for other in others)


def test_checkpoint_every_is_the_minimum_interval(path, monkeypatch):
    """The graph is locked during each write."""
    net, written, clock = network(), [], [0.0]

    def save(*_, **__):
        written.append(clock[0])
        assert not is_free(net.graph.lock)

    def tick(_):
        clock[0] += 1.0

    monkeypatch.setattr(checkpoints, "save", save)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    fit(net, epochs=1, validation_data=None, batch_size=100, checkpoint=path, checkpoint_every=4, callbacks=[tick])
    assert written == [4, 8, 12, 13]  # the last at the end of the run
