"""How many threads a call uses: limited by the machine, by the process and by the amount of work."""

from __future__ import annotations

import _thread
import os
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache

import mlgraph_ext
from mlgraph._support.checks import level_outside, whole

MOST_THREADS = 1024
"""The largest `n_threads`."""

PROBE_AGAIN = 60.0
"""Seconds after which threads that the system has refused are asked for again."""

WORK_PER_THREAD = 400_000
"""Multiply-adds of a step that justify one more thread: about 10 microseconds, several times the cost of waiting."""

WORK_OF_TWO = 200_000
"""Multiply-adds of a step that justify two threads if at least `MANY_STEPS` steps follow each other."""

WAIT_SECONDS = 0.1
"""How long Ctrl-C may wait while other threads work."""

MANY_STEPS = 100
"""Consecutive steps for which threads stay awake, so that `WORK_OF_TWO` suffices."""


@cache
def _cgroup_quota(mount: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup") -> int | None:
    """Processors allowed by the cgroup quota of this process, version 1 or 2; None without a quota."""
    from pathlib import Path, PurePosixPath  # a sixth of the time of `import mlgraph`

    quotas = []
    try:
        lines = os.fsdecode(Path(membership).read_bytes()).splitlines()
    except OSError:
        lines = []
    for line in lines:
        # The quotas of parent groups apply, too. In a container, they may be mounted at the root.
        _, controllers, group = line.split(":", 2)
        for level in [PurePosixPath(group), *PurePosixPath(group).parents]:
            folder = Path(mount, controllers, *level.parts[1:])
            files = ["cpu.cfs_quota_us", "cpu.cfs_period_us"] if controllers else ["cpu.max"]
            with suppress(OSError, ValueError):  # no such group, another controller, or no quota ("max", -1)
                quota, period = map(int, " ".join((folder / name).read_text() for name in files).split())
                if quota > 0:
                    quotas.append(max(1, quota // period))
    return min(quotas, default=None)


@cache
def _warn_of_one_thread() -> None:
    warnings.warn("mlgraph was built without OpenMP and runs on one thread", RuntimeWarning, stacklevel=level_outside())


def _processors() -> int:
    """Processors in the affinity mask of this thread, ignoring that loading libgomp may have bound it to one."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    before, after = mlgraph_ext.AFFINITY
    now = os.sched_getaffinity(0)
    return len(before if now == after else now)


def default_threads() -> int:
    """Processors that this process may use; respects affinity, cgroup quota, OMP_NUM_THREADS and threadpoolctl."""
    if not mlgraph_ext.sweep.PARALLEL:
        _warn_of_one_thread()
        return 1
    value = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    limits = [
        _processors(),
        mlgraph_ext.sweep.max_threads(),
        _cgroup_quota(),
        int(value) if value.isdecimal() else None,
    ]
    return min(filter(None, limits))  # None and 0 mean no limit


_forked = False


def _after_fork() -> None:
    # libgomp's threads do not survive a fork: a child that enters a parallel region would wait for
    # them for ever.
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def checked_threads(n_threads: int | None) -> int | None:
    """`n_threads` if it is None or from 1 to `MOST_THREADS`; else a TypeError or ValueError."""
    return None if n_threads is None else whole("n_threads", n_threads, 1, MOST_THREADS)


def wanted_threads(n_threads: int | None, work: float, steps: int = 1) -> int:
    """The number of threads for steps of `work` multiply-adds each.

    Parameters
    ----------
    n_threads : int or None
        The user's choice, 1 to `MOST_THREADS`. None: as many as the process may use and the work
        justifies.
    work : float
        Multiply-adds of a step.
    steps : int
        Number of consecutive steps.
    """
    chosen = checked_threads(n_threads)
    if _forked or (chosen is None and work < WORK_OF_TWO):
        return 1
    if chosen is not None:
        return chosen
    justified = max(int(work // WORK_PER_THREAD), 2 if steps >= MANY_STEPS else 1)
    return min(default_threads(), justified) if justified > 1 else 1


def threads_for(n_threads: int | None, work: float, steps: int = 1, most: int = MOST_THREADS) -> int:
    """`wanted_threads`, at most `most`, once they have started; fewer, after a warning, if the system refuses some."""
    return _started(min(wanted_threads(n_threads, work, steps), most))


class _Refused(threading.local):
    """When to ask again for threads that were refused. OpenMP keeps a team for each thread that calls it."""

    until = 0.0


_refused = _Refused()


def _started(n: int) -> int:
    """`n`, or the number of threads that the system lets this thread use."""
    sweep = mlgraph_ext.sweep
    if n <= sweep.team_size() or not sweep.PARALLEL:
        return n
    if time.monotonic() < _refused.until:
        return sweep.team_size()
    most = sweep.start_team(n, mlgraph_ext.STACK_BYTES)
    if most < n:
        _refused.until = time.monotonic() + PROBE_AGAIN
        _warn_of_few_threads(most, n)
    return most


def _started_one(work: Callable[[], None]) -> bool:
    try:
        _thread.start_new_thread(work, ())
    except (RuntimeError, MemoryError):  # refused
        return False
    return True


class _Stopped(Exception):
    """Ends the other calls of `in_threads` because one has failed, or because of Ctrl-C."""


def in_threads(call: Callable[[int, Callable[[], None]], None], n: int, n_threads: int) -> None:
    """Call with each number below `n`, in this thread and, at the same time, in `n_threads - 1` others.

    An error or a signal is raised when all calls have ended. Until then, the second argument of the
    others raises an error when they call it. If the system refuses threads, there are fewer, after a
    warning.
    """
    # A thread may end at any Python call for lack of memory, and `threading.Thread.start` would wait for ever for one
    # that ends before it has begun. So nobody waits for a thread that has not counted itself, and what a thread does
    # outside `call` allocates nothing.
    lock, ended = threading.Lock(), threading.Lock()
    rest = list(range(n))[::-1]
    running, is_over = 0, False
    failure: BaseException | None = None

    def check() -> None:
        if is_over:
            raise _Stopped

    def work() -> None:
        nonlocal failure, is_over
        while True:
            with lock:
                if is_over or not rest:
                    return
                i = rest.pop()
            try:
                call(i, check)
            except BaseException as error:
                if failure is None:
                    failure = error
                is_over = True

    def help_out() -> None:
        nonlocal running
        with lock:
            if is_over:
                return
            running += 1
        try:
            work()
        finally:
            with lock:
                running -= 1
                if ended.locked():
                    ended.release()

    def wait() -> None:
        while running:
            ended.acquire(timeout=WAIT_SECONDS)  # a signal does not end it if the system hands it to another thread

    try:
        for started in range(1, min(n, n_threads)):
            if not (mlgraph_ext.sweep.has_room(started) and _started_one(help_out)):
                _warn_of_few_threads(started, min(n, n_threads))
                break
        work()
        wait()
    finally:
        is_over = True
        wait()
    if failure is not None:
        raise failure


_told = False


def _warn_of_few_threads(most: int, n: int) -> None:
    global _told
    if not _told:
        _told = True
        what = f"mlgraph uses {most} of {n} threads, because the system refused more (a limit on processes or memory)"
        warnings.warn(f"{what}; results are the same", RuntimeWarning, stacklevel=level_outside())
