"""Other threads, and the lock of a graph that is held meanwhile."""

import threading


def is_free(lock):
    """Whether another thread could take a lock."""
    taken = []

    def take():
        taken.append(lock.acquire(blocking=False))
        if taken[0]:
            lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return taken[0]


class _Watched:
    """A lock to which another thread may come."""

    def __init__(self, lock):
        self._lock, self._mine, self.came = lock, threading.get_ident(), threading.Event()

    def __enter__(self):
        if threading.get_ident() != self._mine:
            self.came.set()
        return self._lock.__enter__()

    def __exit__(self, *error):
        return self._lock.__exit__(*error)


class EditedBetween:
    """A lock that somebody else takes for an edit as soon as it has been let go for the n-th time, from 0 on."""

    def __init__(self, lock, n, edit):
        self._lock, self._left, self._edit, self._depth = lock, n, edit, 0

    @property
    def is_over(self):
        """Whether the edit has been made."""
        return self._left < 0

    def __enter__(self):
        self._depth += 1
        return self._lock.__enter__()

    def __exit__(self, *error):
        self._lock.__exit__(*error)
        self._depth -= 1
        if self._depth == 0:
            self._left -= 1
            if self._left == -1:
                self._edit()


def waiting(graph, read):
    """A thread that waits for the graph's lock, which the caller holds, and a list for what it reads then.

    However slow the machine, it has come; and however fast, it has read nothing before the lock is free.
    """
    assert not is_free(graph.lock), "expected a graph whose lock is held"
    found, lock = [], graph.lock
    thread = threading.Thread(target=lambda: found.append(read()))
    watched = graph.lock = _Watched(lock)
    try:
        thread.start()
        while not watched.came.wait(0.01) and thread.is_alive():
            pass
    finally:
        graph.lock = lock
    assert watched.came.is_set(), "expected a thread that takes the lock, got one that has ended without it"
    return thread, found
