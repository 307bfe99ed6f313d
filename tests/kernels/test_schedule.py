"""The schedule alone, with plain threads: whoever passes a gate sees all that was written before it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("schedule_stress.c")
COMPILER = shutil.which(os.environ.get("CC", "cc"))


@pytest.mark.skipif(COMPILER is None, reason="no C compiler is installed")
@pytest.mark.parametrize("flags", [(), ("-fsanitize=thread",)], ids=["plain", "thread sanitizer"])
def test_items_are_taken_once_and_gates_order_memory(flags, tmp_path):
    program = tmp_path / "stress"
    command = [COMPILER, "-O2", "-g", "-pthread", *flags, str(SOURCE), "-o", str(program)]
    built = subprocess.run(command, capture_output=True, text=True)
    if flags and built.returncode:
        pytest.skip(f"the compiler lacks ThreadSanitizer: {built.stderr.strip().splitlines()[-1]}")
    assert not built.returncode, built.stderr
    ran = subprocess.run([str(program), "1000" if flags else "10000"], capture_output=True, text=True, timeout=200)
    assert ran.returncode == 0, ran.stdout + ran.stderr
