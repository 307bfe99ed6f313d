"""Work that a signal strikes at one line after the other."""

import signal
import sys
from functools import partial
from pathlib import Path

import mlgraph

ROOM = Path(mlgraph.__file__).parent


def interrupted_at(line, work, place, number=signal.SIGINT, error=KeyboardInterrupt):
    """Do some work, with a signal at the n-th line of a file or folder that it comes to; whether there are so many."""
    left = [line]

    def within(frame, event, _):
        if event == "line":
            left[0] -= 1
            if left[0] == 0:
                signal.raise_signal(number)
        return within

    def trace(frame, event, _):
        file = Path(frame.f_code.co_filename)
        return within if place in (file, *file.parents) else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except error:
        if left[0] > 0:  # of whoever runs the tests
            raise
    finally:
        sys.settrace(before)
    return left[0] <= 0


def struck(make, work, dense, place=ROOM):
    """Yield what `make` returns after Ctrl-C struck at a line: at each of the first `dense`, then at fewer."""
    line, thing = 1, make()
    while interrupted_at(line, partial(work, thing), place):
        yield line, thing
        line, thing = line + 1 + line // dense, make()
