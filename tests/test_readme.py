"""The README's Python runs from top to bottom, and gives what it says."""

import contextlib
import faulthandler
import io
import re
from pathlib import Path

import numpy as np
import pytest

README = Path(__file__).parents[1] / "README.md"
NUMBER = re.compile(r"-?\d+\.\d+")
OUTPUT = re.compile(r"[<\[{]|-?\d+(\.\d+)?$")  # how a comment begins that says what its line gives
# What training makes of a difference in the last bit, as between builds that round otherwise. 13 runs that began with a bias
# moved by 1e-6 to 1e-5 came within 0.001 of each other in loss and accuracy, in all weights within 0.15, in README's 0.05.
TRAINED = {"{": 0.005, "<": 0.1, "1": 0.005}


def shown(value):
    if isinstance(value, tuple):
        return ", ".join(map(shown, value))
    return str(np.asarray(value).tolist()) if isinstance(value, np.ndarray) else repr(value)


@pytest.fixture
def an_end():
    """A loop of the README that does not end fails as well: the process ends, and says where it was."""
    faulthandler.dump_traceback_later(600, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.mark.usefixtures("an_end")
def test_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, compared = {}, 0
    for block in re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL):
        for statement in re.split(r"\n(?=\S)", block):
            code, comment = (*re.split(r" +# ", statement, maxsplit=1), "")[:2]
            expected = comment.strip().partition(": (")[0].replace("...", "")
            printed = io.StringIO()
            if not OUTPUT.match(expected) and not code.startswith("print("):
                exec(statement, names)
                continue
            with contextlib.redirect_stdout(printed):
                got = shown(eval(code, names))
            got = printed.getvalue().strip() or got
            numbers = ([float(x) for x in NUMBER.findall(text)] for text in (got, expected))
            np.testing.assert_allclose(*numbers, rtol=1e-6, atol=TRAINED.get(expected[0], 0.0))
            assert NUMBER.sub("", got).replace("np.float32()", "") == NUMBER.sub("", expected)
            compared += 1
    assert compared == 12
