"""C functions of one example, compiled by the compiler of the machine and called for a batch."""

import ctypes
import os
import shlex
import subprocess
import sysconfig

import numpy as np

COMPILER = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wmissing-prototypes", "-Werror", "-O2"]


def compiled(folder, text, name, n_outputs, dtype, *options):
    """Compile the text of a function into the folder; return it as a function of a batch, with outputs `dtype`."""
    number = len([*folder.iterdir()])
    source, library = folder / f"{number}.c", folder / f"{number}.so"
    source.write_text(text)
    command = [*COMPILER, *STRICT, *options, "-shared", "-fPIC", source, "-o", library]
    done = subprocess.run([*command, "-lm"], capture_output=True, text=True)
    assert not done.returncode, done.stderr + text
    loaded = getattr(ctypes.CDLL(os.fspath(library)), name)
    loaded.restype = None

    def call(x):
        x, y = np.ascontiguousarray(x), np.zeros((len(x), n_outputs), dtype)
        for a, b in zip(x, y, strict=True):
            loaded(ctypes.c_void_p(a.ctypes.data), ctypes.c_void_p(b.ctypes.data))
        return y

    return call
