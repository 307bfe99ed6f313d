"""Code in another process."""

import os
import subprocess
import sys


def run(code, *arguments, **environment):
    """Run code in another process, which is given some minutes whatever happens; what it printed."""
    setting = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")} | environment
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=setting, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    print(done.stderr)  # what a child had to say, if the test fails
    return done.stdout.split()
