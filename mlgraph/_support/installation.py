"""The command that installs what is missing, for the messages that say so."""

from __future__ import annotations

import re
import shlex
from pathlib import Path


def install_command(*libraries: str, extra: str = "") -> str:
    """The command that installs these libraries for this installation of mlgraph.

    In a source tree it installs the tree with its extra. Elsewhere it names the libraries, with the versions that
    the extra asks for: where a wheel came from is not known, and its file may be gone.
    """
    root = Path(__file__).parents[2]
    project = root / "pyproject.toml"  # of another project, if mlgraph was installed into a folder of one
    if extra and project.is_file() and '\nname = "mlgraph"\n' in project.read_text("utf-8"):
        return shlex.join(["pip", "install", "-e", f"{root}[{extra}]"])
    return shlex.join(["pip", "install", *(_requirement(library, extra) for library in libraries)])


def _requirement(library: str, extra: str) -> str:
    """The library with the versions that the extra asks for, or by its name if it is not in the extra."""
    from importlib import metadata  # slow to import, and only messages need it

    try:
        requirements = metadata.requires("mlgraph") or []
    except metadata.PackageNotFoundError:  # the package was copied
        requirements = []
    for requirement in requirements:
        wanted, _, marker = requirement.partition(";")
        name = re.split(r"[^\w.-]", wanted)[0]
        if name == library and re.search(f"extra == ['\"]{extra}['\"]", marker):
            return wanted.strip()
    return library
