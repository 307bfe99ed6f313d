"""Files that are written whole or not at all, whatever ends the writing: Ctrl-C, a full disk, a machine that goes down."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from mlgraph._support import checks
from mlgraph._support.checks import StrOrBytesPath

TEMPORARY = ".mlgraph-part"
"""How the names of files end while they are being written."""


def write_atomically(path: StrOrBytesPath, write: Callable[[IO[bytes]], Any], *, previous: Path | None = None) -> None:
    """Let `write` fill a temporary file beside `path`, bring it to the disk, and only then put it in place.

    Parameters
    ----------
    previous : Path, optional
        Where to keep the file now at `path`. If the file system has links, there is a file at `path` at every moment.
    """
    target = destination(Path(checks.path("path", path)))
    temporary = part_of(target)
    try:
        file = open(temporary, "xb")  # noqa: SIM115
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from None
    try:
        with file:
            with suppress(FileNotFoundError):
                os.chmod(
                    temporary, stat.S_IMODE(os.stat(target).st_mode)
                )  # who may not read the one may not read the other
            write(file)
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and target.exists():
            _keep(target, previous)
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):  # it is in place already, or the disk has become read-only: the first error is raised
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:  # a full disk
            error.filename = str(target)
        raise
    if os.name == "posix":  # elsewhere folders cannot be opened
        try:
            folder = os.open(target.parent, os.O_RDONLY)
        except PermissionError:  # it may be written to, and not read
            return
        try:
            os.fsync(folder)
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.EINVAL):  # of file systems that do this by themselves
                raise
        finally:
            os.close(folder)


def part_of(target: Path) -> Path:
    """A name for a file while it is being written."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}{TEMPORARY}")


def destination(path: Path) -> Path:
    """The file that writing to a path replaces, for a link its target; OSError if that is no file, or in no folder."""
    target = followed(path)
    try:
        mode = target.stat().st_mode  # from Python 3.14 on `exists` would hide errors, such as that of a name too long
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
    """The target of a link, or else the path itself; an OSError for links that lead to each other."""
    with suppress(RuntimeError):  # for links that lead to each other, in Python before 3.13
        target = path.resolve() if path.is_symlink() else path
        if not target.is_symlink():
            return target
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _keep(target: Path, previous: Path) -> None:
    previous.unlink(missing_ok=True)
    try:
        os.link(target, previous)
    except OSError:  # a file system without links
        os.replace(target, previous)
