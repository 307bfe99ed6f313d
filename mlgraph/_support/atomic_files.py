"""Writes files completely or not at all, whatever ends the write: Ctrl-C, a full disk or a power failure."""

from __future__ import annotations

import errno
import glob
import os
import secrets
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from mlgraph._support import checks
from mlgraph._support.checks import StrOrBytesPath

TEMPORARY = ".mlgraph-part"
"""Suffix of a file while it is being written."""


def write_atomically(path: StrOrBytesPath, write: Callable[[IO[bytes]], Any], *, previous: Path | None = None) -> None:
    """Write a temporary file in the same folder, flush it to the disk, and then rename it to `path`.

    Parameters
    ----------
    path : path-like
        The file to write; a symbolic link is followed.
    write : callable
        ``write(file)`` writes the contents to a binary file.
    previous : Path, optional
        Where to keep the file that is replaced. On file systems with hard links, `path` exists at
        every moment.
    """
    target = destination(Path(checks.path("path", path)))
    remove_parts(target, older_than=3600)
    temporary = part_of(target)
    try:
        with open(temporary, "xb") as file:
            with suppress(FileNotFoundError):
                # Keep the permissions of the file that is replaced.
                os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and target.exists():
            _keep(target, previous)
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):  # not made, already renamed, or the disk is now read-only: raise the first error
            os.unlink(temporary)
        named = (None, str(temporary))
        if isinstance(error, OSError) and error.errno and error.filename in named and not error.filename2:
            error.filename = str(target)  # e.g. a full disk
        raise
    if os.name == "posix":  # other systems cannot open folders
        try:
            folder = os.open(target.parent, os.O_RDONLY)
        except PermissionError:  # a folder may be writable but not readable
            return
        try:
            os.fsync(folder)
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.EINVAL):  # file systems that need no fsync of a folder
                raise
        finally:
            os.close(folder)


def part_of(target: Path) -> Path:
    """A temporary name in the same folder as `target`."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}{TEMPORARY}")


def remove_parts(target: Path, older_than: float) -> None:
    """Remove the temporary files that killed processes have left, if they are older than so many seconds."""
    for part in target.parent.glob(f".{glob.escape(target.name)}.????????{TEMPORARY}"):
        with suppress(OSError):  # removed meanwhile, or not removable
            if time.time() - part.stat().st_mtime >= older_than:
                part.unlink()


def destination(path: Path) -> Path:
    """The file that writing to `path` would replace; symbolic links are followed.

    Raises
    ------
    OSError
        If it is not a regular file, or its folder does not exist or is not writable.
    """
    target = followed(path)
    try:
        mode = target.stat().st_mode  # from Python 3.14 on, `exists` hides errors such as a name that is too long
    except (FileNotFoundError, NotADirectoryError):
        mode = stat.S_IFREG
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "expected a file, got a folder", str(target))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "expected a file, got a device or a pipe", str(target))
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder", str(target))
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(errno.EACCES, "no permission to write into the folder", str(target))
    return target


def followed(path: Path) -> Path:
    """The target of a symbolic link, or else `path` itself; an OSError for a loop of links."""
    with suppress(RuntimeError):  # a loop of links, in Python before 3.13
        target = path.resolve() if path.is_symlink() else path
        if not target.is_symlink():
            return target
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _keep(target: Path, previous: Path) -> None:
    previous.unlink(missing_ok=True)
    try:
        os.link(target, previous)
    except OSError:  # a file system without hard links
        os.replace(target, previous)
