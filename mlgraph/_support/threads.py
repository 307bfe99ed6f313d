"""How many threads a call uses: limited by the machine, by the process and by the amount of work."""

from __future__ import annotations

import os
import threading
import time
import warnings
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


def threads_for(n_threads: int | None, work: float, steps: int = 1) -> int:
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
        return startable(chosen)
    justified = max(int(work // WORK_PER_THREAD), 2 if steps >= MANY_STEPS else 1)
    return startable(min(default_threads(), justified)) if justified > 1 else 1


class _Started(threading.local):
    """How many threads have run together with this thread, itself included. libgomp keeps threads for each thread."""

    most = 1
    limit = MOST_THREADS
    until = 0.0


_started = _Started()


def startable(n: int) -> int:
    """`n`, or the number of threads that the system lets this thread use, after a warning.

    libgomp ends the process if the system refuses it a thread. So as many threads are started, and
    ended, before it starts its own. Should another program take them in between, or other settings
    such as OMP_STACKSIZE make libgomp's threads larger, the process still ends.
    """
    if n <= _started.most or not mlgraph_ext.sweep.PARALLEL:
        return n
    if n >= _started.limit and time.monotonic() < _started.until:
        return _started.limit
    _started.most = 1 + _start_together(n - 1)
    if _started.most < n:
        _started.limit, _started.until = _started.most, time.monotonic() + PROBE_AGAIN
        _warn_of_few_threads(_started.most, n)
    return _started.most


def _start_together(n: int) -> int:
    """Start up to `n` threads that wait for each other; the number that could be started, when all have ended."""
    over, before = threading.Event(), _tasks()
    threads = [threading.Thread(target=over.wait, daemon=True) for _ in range(n)]
    count = 0
    try:
        for thread in threads:
            thread.start()
            count += 1
    except (RuntimeError, MemoryError):  # refused
        pass
    finally:
        over.set()
    for thread in threads[:count]:
        thread.join()
    # A joined thread may still count for the limit of the system for a moment.
    end = time.monotonic() + 1
    while _tasks() > before and time.monotonic() < end:
        time.sleep(0.001)
    return count


def _tasks() -> int:
    """Threads of this process as the system counts them; 0 where it does not tell."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0


_told = False


def _warn_of_few_threads(most: int, n: int) -> None:
    global _told
    if not _told:
        _told = True
        what = f"mlgraph uses {most} of {n} threads, because the system refused more (a limit on processes or memory)"
        warnings.warn(f"{what}; results are the same", RuntimeWarning, stacklevel=level_outside())
