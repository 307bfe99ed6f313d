"""How many threads a call takes: what the machine has, what the process may use, and what the work is worth."""

from __future__ import annotations

import os
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path, PurePosixPath

import mlgraph_ext
from mlgraph._support.checks import level_outside, whole

MOST_THREADS = 1024
"""More is a mistake, and may be more than the system can start: libgomp then ends the process."""

WORK_PER_THREAD = 400_000
"""Multiply-adds of a step for which one more thread pays: about 10 microseconds, several times what waiting costs."""

WORK_OF_TWO, MANY_STEPS = 200_000, 100
"""Multiply-adds of a step for which two threads pay, if so many steps follow each other that no thread has to be woken; at most
`WORK_PER_THREAD`."""


@cache
def _cgroup_quota(mount: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup") -> int | None:
    """Processors that the cgroups of this process may use, of either version; None without a quota."""
    quotas = []
    try:
        lines = os.fsdecode(Path(membership).read_bytes()).splitlines()
    except OSError:
        lines = []
    for line in lines:
        # A group has no more than the groups above it. In a container, these may be at the root of the file system.
        _, controllers, group = line.split(":", 2)
        for level in [PurePosixPath(group), *PurePosixPath(group).parents]:
            folder = Path(mount, controllers, *level.parts[1:])
            files = ["cpu.cfs_quota_us", "cpu.cfs_period_us"] if controllers else ["cpu.max"]
            with suppress(OSError, ValueError):  # no such level, another controller, or "max", which is -1 in version 1
                quota, period = map(int, " ".join((folder / name).read_text() for name in files).split())
                if quota > 0:
                    quotas.append(max(1, quota // period))
    return min(quotas, default=None)


@cache
def _warn_of_one_thread() -> None:
    warnings.warn("mlgraph was built without OpenMP and runs on one thread", RuntimeWarning, stacklevel=level_outside())


def _processors() -> int:
    """Processors that the system lets this thread run on, or did before GCC's OpenMP was loaded and bound it to one."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count() or 1
    before, after = mlgraph_ext.AFFINITY
    now = os.sched_getaffinity(0)
    return len(before if now == after else now)


def default_threads() -> int:
    """Processors this process may use: affinity, cgroup quota, OMP_NUM_THREADS and threadpoolctl respected."""
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
    return min(filter(None, limits))  # an unknown limit limits nothing, nor does 0


_forked = False


def _after_fork() -> None:
    # libgomp's pool does not survive a fork: a child that enters a parallel region waits for threads that are not there.
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def checked_threads(n_threads: int | None) -> int | None:
    """`n_threads` as the user gives it: 1 to `MOST_THREADS`, or None; else a ValueError."""
    return None if n_threads is None else whole("n_threads", n_threads, 1, MOST_THREADS)


def threads_for(n_threads: int | None, work: float, steps: int = 1) -> int:
    """Number of threads for steps of `work` multiply-adds each.

    Parameters
    ----------
    n_threads : int or None
        The user's wish, 1 to `MOST_THREADS`; None: as many as the process may use and the work is worth.
    work : float
        Multiply-adds of a step.
    steps : int
        How many come one after the other.
    """
    wish = checked_threads(n_threads)
    if _forked or (wish is None and work < WORK_OF_TWO):
        return 1
    if wish is not None:
        return wish
    worth = max(int(work // WORK_PER_THREAD), 2 if steps >= MANY_STEPS else 1)
    return min(default_threads(), worth) if worth > 1 else 1
