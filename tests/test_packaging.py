"""What an installation promises: the fast build, nothing but numpy, floating point left as it was."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import mlgraph_ext

LEVELS = {  # the flags by which Linux names what each x86-64 level adds
    "v2": "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3",
    "v3": "avx avx2 bmi1 bmi2 f16c fma abm movbe",
    "v4": "avx512f avx512bw avx512cd avx512dq avx512vl",
}


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=300
    )


def stdout(code: str, **environment: str) -> str:
    run = python(code, **environment)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_best_build_is_loaded() -> None:
    expected = os.environ.get("MLGRAPH_ISA") or mlgraph_ext.AVAILABLE[-1]
    assert mlgraph_ext.ISA == expected
    assert mlgraph_ext.sweep.__name__ == f"mlgraph_ext._sweep_{mlgraph_ext.ISA}"
    assert not mlgraph_ext.sweep.__file__.endswith(".py")


def test_available_builds_are_what_the_processor_can_run() -> None:
    if platform.machine() != "x86_64":
        assert mlgraph_ext.AVAILABLE == ("baseline",)
        return
    if not Path("/proc/cpuinfo").exists():
        pytest.skip("the flags of the processor are read as Linux shows them")
    flags = set(Path("/proc/cpuinfo").read_text().partition("\nflags")[2].partition("\n")[0].split())
    runnable: list[str] = []
    for level, needed in LEVELS.items():
        if not flags.issuperset(needed.split()):
            break
        runnable.append(level)
    assert list(mlgraph_ext.AVAILABLE) == runnable


@pytest.mark.parametrize("isa", mlgraph_ext.AVAILABLE)
def test_override_loads_that_build_alone(isa: str) -> None:
    code = "import mlgraph_ext, sys; print(mlgraph_ext.ISA, *(m for m in sys.modules if '_sweep_' in m))"
    assert stdout(code, MLGRAPH_ISA=isa) == f"{isa} mlgraph_ext._sweep_{isa}"


@pytest.mark.parametrize("isa", ["nonsense", "V2", "../v2", "v2 "])
def test_override_that_is_no_build_fails_in_one_line(isa: str) -> None:
    run = python("import mlgraph_ext", MLGRAPH_ISA=isa)
    assert run.returncode == 1
    expected = f"one of {', '.join(mlgraph_ext.AVAILABLE)} on this processor"
    assert run.stderr.splitlines()[-1] == f"ImportError: MLGRAPH_ISA: expected {expected}, got {isa!r}"
    run = subprocess.run(
        [sys.executable, "-m", "mlgraph.mnist", "--help"],
        env={**os.environ, "MLGRAPH_ISA": isa},
        capture_output=True,
        text=True,
    )
    expected = f"mlgraph: error: MLGRAPH_ISA: expected {expected}, got {isa!r}\n"
    assert (run.returncode, run.stdout, run.stderr) == (2, "", expected)


def test_empty_override_is_none() -> None:
    assert stdout("import mlgraph_ext; print(mlgraph_ext.ISA)", MLGRAPH_ISA="") == mlgraph_ext.AVAILABLE[-1]


def test_uncompiled_tree_says_what_to_do(tmp_path: Path) -> None:
    assert mlgraph_ext.__file__
    (tmp_path / "mlgraph_ext").mkdir()
    (tmp_path / "mlgraph_ext" / "__init__.py").write_text(Path(mlgraph_ext.__file__).read_text())
    run = python(f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import mlgraph_ext")
    assert run.returncode == 1
    assert "pip install -e ." in run.stderr.splitlines()[-1]


def test_subnormal_numbers_survive_the_import() -> None:
    code = "import mlgraph, mlgraph_ext; print(float('5e-324') * float('1'))"
    assert stdout(code) == "5e-324"


def test_import_needs_numpy_alone() -> None:
    code = """
import sys, numpy
before = set(sys.modules)
import mlgraph
print(*sorted(set(sys.modules) - before))
"""
    imported = stdout(code).split()
    ours = {"mlgraph", "mlgraph_ext", "numpy", "cython_runtime"}
    foreign = {m.partition(".")[0] for m in imported} - ours - set(sys.stdlib_module_names)
    assert not {name for name in foreign if not name.startswith("_cython_")}  # what Cython's modules share
    assert not {"argparse", "unittest", "mlgraph.mnist"} & set(imported)


@pytest.mark.parametrize(
    "name",
    [
        "datasets.load_mnist",
        "drawing.Drawing",
        "arrays.Edges",
        "sparsify.Schedule",
        "testing.check_gradients",
        "load",
        "RigL",
        "CheckpointError",
    ],
)
def test_what_is_imported_when_asked_for(name: str) -> None:
    code = f"import mlgraph; print({name.partition('.')[0]!r} in dir(mlgraph), mlgraph.{name}.__name__)"
    assert stdout(code) == f"True {name.rpartition('.')[2]}"


def test_nothing_else_is_an_attribute() -> None:
    assert (
        stdout("import mlgraph; print(hasattr(mlgraph, 'spam'), set(mlgraph.__all__) <= set(dir(mlgraph)))")
        == "False True"
    )


def test_a_clone_that_is_not_installed_has_no_version() -> None:
    """Whoever lists the versions of what is loaded asks with a default."""
    code = """
import importlib.metadata
def version(name):
    raise importlib.metadata.PackageNotFoundError(name)
importlib.metadata.version = version
import mlgraph
print(getattr(mlgraph, "__version__", None))"""
    assert stdout(code) == "None"


WHILE_LOADED = """
import importlib, os
before, found, real = dict(os.environ), [], importlib.import_module

def import_module(name, *more):
    if "_sweep_" in name:
        found.append(os.environ.get("GOMP_SPINCOUNT"))
    return real(name, *more)

importlib.import_module = import_module
import mlgraph
print(*found, dict(os.environ) == before)
"""


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "5000 True"), ({"GOMP_SPINCOUNT": "7"}, "7 True"), ({"OMP_WAIT_POLICY": "passive"}, "None True")],
)
def test_the_environment_is_left_as_it_was(given: dict[str, str], expected: str) -> None:
    """OpenMP is told to spin less while it is loaded, unless the user has told it what to do."""
    env = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", WHILE_LOADED], env=env | given, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected
