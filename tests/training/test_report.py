"""The lines that `fit(verbose=True)` prints."""

import errno
import sys
import time
from contextlib import nullcontext

import pytest
from learnable import FLOATS, TARGETS, X, Y, network


def lines(capsys):
    return capsys.readouterr().out.splitlines()


def fit_numbers(**options):
    return network(None).fit(FLOATS, TARGETS, verbose=True, learning_rate=0.01, **options)


def test_a_line_has_what_the_run_has(capsys):
    h = network().fit(X, Y, epochs=1, verbose=True, validation_data=(X[:32], Y[:32]))
    (line,) = lines(capsys)
    results = f"loss {h.epoch_loss[0]:#.4g}, accuracy {100 * h.epoch_accuracy[0]:.1f} %, validation loss"
    results += f" {h.validation_loss[0]:#.4g}, validation accuracy {100 * h.validation_accuracy[0]:.1f} %, "
    assert line.startswith(f"epoch 1/1: {results}") and line.endswith("s")
    network().fit(X, Y, epochs=1, verbose=True)
    assert " %," in (line := lines(capsys)[0]) and "validation" not in line
    fit_numbers(epochs=1, validation_data=(FLOATS, TARGETS))
    assert "validation loss" in (line := lines(capsys)[0]) and "accuracy" not in line
    network().fit(X, Y, epochs=1)
    assert lines(capsys) == []


@pytest.mark.parametrize("callback", [None, lambda progress: None], ids=["epochs_together", "epochs_apart"])
def test_short_epochs_print_about_ten_lines_a_second(capsys, callback):
    begin = time.monotonic()
    fit_numbers(epochs=2000, callbacks=[callback] if callback else None)
    seconds, out = time.monotonic() - begin, lines(capsys)
    assert out[0].startswith("epoch 1/2000: ") and out[-1].startswith("epoch 2000/2000: ")
    assert len(out) <= 12 + 10 * seconds and [line.split("/")[0] for line in out[1:3]] == ["epoch 2", "epoch 3"]


def test_a_line_comes_before_the_callback(capsys):
    fit_numbers(epochs=2, batch_size=200, callbacks=[lambda progress: print(progress.kind)])
    heads = [line.split(":")[0] for line in lines(capsys)]
    assert heads == ["steps", "epoch 1/2", "epoch", "steps", "epoch 2/2", "epoch"]


@pytest.mark.parametrize("error", [StopIteration, KeyboardInterrupt])
def test_the_last_epoch_of_a_run_that_ends_early_is_printed(capsys, error, tmp_path):
    def stop(progress):
        if progress.kind == "epoch" and progress.epoch == 6:
            raise error

    try:
        fit_numbers(epochs=9, callbacks=[stop], checkpoint=tmp_path / "run")
    except KeyboardInterrupt:
        assert error is KeyboardInterrupt
    assert lines(capsys)[-1].startswith("epoch 7/9: ")
    with pytest.warns(UserWarning, match="has already ended") if error is StopIteration else nullcontext():
        fit_numbers(epochs=9, checkpoint=tmp_path / "run", resume=True)
    heads = [line.split(":")[0] for line in lines(capsys)]
    assert heads == ([] if error is StopIteration else ["epoch 8/9", "epoch 9/9"])


def test_a_full_disk_ends_the_lines_and_not_the_run(monkeypatch):
    class Full:
        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.warns(RuntimeWarning, match="fit: printed no more epochs: .*No space left") as caught:
        history = fit_numbers(epochs=3)
    assert len(history.epoch_loss) == 3 and len(caught) == 1
