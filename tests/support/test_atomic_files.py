"""A file that is saved is complete, or is the old one, and no part file stays."""

import signal
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from struck import ROOM, interrupted_at

import mlgraph
from mlgraph._support import atomic_files

pytestmark = pytest.mark.usefixtures("python_handles_ctrl_c")


def network(size=3):
    net = mlgraph.Network(2, seed=0)
    net.add_layer(size, "softmax")
    return net


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # Ctrl-C may keep a file from closing
@pytest.mark.parametrize("exists", [False, True])
def test_ctrl_c_at_any_line_of_a_save_leaves_no_part_file(tmp_path, exists):
    path, large, small = tmp_path / "net.npz", network(5), network()
    for line in count(1):
        path.unlink(missing_ok=True)
        if exists:
            large.save(path)
        if not interrupted_at(line, partial(small.save, path), ROOM / "_support" / "atomic_files.py"):
            break
        assert list(tmp_path.iterdir()) == [path] * path.exists()
        assert path.exists() >= exists and (not path.exists() or mlgraph.load(path).n_edges in (6, 10))
    assert line > 20 and mlgraph.load(path).n_edges == 6


def test_ctrl_c_while_the_part_file_is_made_leaves_none(tmp_path, monkeypatch):
    made = []

    def struck(path, mode):
        with open(path, mode):
            made.append(Path(path))
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(atomic_files, "open", struck, raising=False)
    with pytest.raises(KeyboardInterrupt):
        network().save(tmp_path / "net.npz")
    assert made and not list(tmp_path.iterdir())


def test_an_error_names_the_file_and_not_its_part(tmp_path, monkeypatch):
    def refused(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(atomic_files, "open", refused, raising=False)
    with pytest.raises(PermissionError, match="Permission denied") as error:
        network().save(tmp_path / "net.npz")
    assert error.value.filename == str(tmp_path / "net.npz") and "part" not in str(error.value)
