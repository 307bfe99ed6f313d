"""An installation loads the fastest build, needs numpy alone, and leaves floating point as it was."""

from __future__ import annotations

import ast
import os
import platform
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import mlgraph
import mlgraph_ext

LEVELS = {  # the flags in /proc/cpuinfo that each x86-64 level adds
    "v2": "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3",
    "v3": "avx avx2 bmi1 bmi2 f16c fma abm movbe",
    "v4": "avx512f avx512bw avx512cd avx512dq avx512vl",
}


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=300)


def stdout(code: str, **environment: str) -> str:
    run = python("-c", code, **environment)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def test_best_build_is_loaded() -> None:
    expected = os.environ.get("MLGRAPH_ISA") or mlgraph_ext.AVAILABLE[-1]
    assert mlgraph.ISA == mlgraph_ext.ISA == expected
    assert mlgraph_ext.sweep.__name__ == f"mlgraph_ext._sweep_{expected}"
    assert not mlgraph_ext.sweep.__file__.endswith(".py")


def test_available_builds_are_what_the_processor_can_run() -> None:
    if platform.machine() != "x86_64":
        assert mlgraph_ext.AVAILABLE == ("baseline",)
        return
    if not Path("/proc/cpuinfo").exists():
        pytest.skip("needs the processor's flags as Linux lists them")
    flags = set(Path("/proc/cpuinfo").read_text().partition("\nflags")[2].partition("\n")[0].split())
    runnable: list[str] = []
    for level, needed in LEVELS.items():
        if not flags.issuperset(needed.split()):
            break
        runnable.append(level)
    assert list(mlgraph_ext.AVAILABLE) == runnable


@pytest.mark.parametrize("isa", mlgraph_ext.AVAILABLE)
def test_override_loads_only_that_build(isa: str) -> None:
    code = "import mlgraph_ext, sys; print(mlgraph_ext.ISA, *(m for m in sys.modules if '_sweep_' in m))"
    assert stdout(code, MLGRAPH_ISA=isa) == f"{isa} mlgraph_ext._sweep_{isa}"


def test_empty_override_loads_the_best_build() -> None:
    assert stdout("import mlgraph_ext; print(mlgraph_ext.ISA)", MLGRAPH_ISA="") == mlgraph_ext.AVAILABLE[-1]


@pytest.mark.parametrize("isa", ["nonsense", "V2", "../v2", "v2 "])
def test_unknown_override_fails_in_one_line(isa: str) -> None:
    run = python("-c", "import mlgraph_ext", MLGRAPH_ISA=isa)
    error = run.stderr.splitlines()[-1]
    assert run.returncode == 1
    assert error.startswith("ImportError: MLGRAPH_ISA: ")
    assert repr(isa) in error
    assert all(build in error for build in mlgraph_ext.AVAILABLE)
    run = python("-m", "mlgraph.mnist", "--help", MLGRAPH_ISA=isa)
    expected = error.replace("ImportError", "mlgraph: error", 1) + "\n"
    assert (run.returncode, run.stdout, run.stderr) == (2, "", expected)


def test_uncompiled_tree_says_what_to_do(tmp_path: Path) -> None:
    assert mlgraph_ext.__file__
    (tmp_path / "mlgraph_ext").mkdir()
    (tmp_path / "mlgraph_ext" / "__init__.py").write_text(Path(mlgraph_ext.__file__).read_text())
    run = python("-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import mlgraph_ext")
    assert run.returncode == 1
    assert "pip install -e ." in run.stderr.splitlines()[-1]


def test_subnormal_numbers_survive_the_import() -> None:
    assert stdout("import mlgraph; mlgraph.Network; print(float('5e-324') * float('1'))") == "5e-324"


def test_import_needs_numpy_alone() -> None:
    code = """
import sys, numpy
before = set(sys.modules)
import mlgraph
{name: getattr(mlgraph, name) for name in dir(mlgraph)}
print(*sorted(set(sys.modules) - before))
"""
    imported = set(stdout(code).split())
    ours = {"mlgraph", "mlgraph_ext", "numpy", "cython_runtime"}
    foreign = {m.partition(".")[0] for m in imported} - ours - set(sys.stdlib_module_names)
    assert not {name for name in foreign if not name.startswith("_cython_")}  # shared by all Cython modules
    assert not {"unittest", "mlgraph.mnist"} & imported


def test_import_is_lazy() -> None:
    code = "import sys, mlgraph; print(*(m for m in sys.modules if m == 'numpy' or m.startswith('mlgraph.')))"
    assert stdout(code) == ""


def names_for_type_checkers() -> set[str]:
    """The names that __init__.pyi gives to type checkers, each compared with the one at run time."""
    names = set()
    for statement in ast.parse(Path(mlgraph.__file__ + "i").read_text()).body:
        if isinstance(statement, ast.AnnAssign):
            names.add(ast.unparse(statement.target))
        elif isinstance(statement, ast.ImportFrom):
            assert statement.module
            module = import_module(statement.module)
            imported = [alias.name for alias in statement.names]
            for name in module.__all__ if imported == ["*"] else imported:
                assert getattr(mlgraph, name) is getattr(module, name)
                names.add(name)
    return names


def test_type_checkers_and_docstring_know_the_names_of_the_package() -> None:
    names = names_for_type_checkers()
    assert names == {*mlgraph.__all__, "max", "sum", "datasets", "pictures", "testing", "__version__"}
    assert names - {"__version__"} <= set(dir(mlgraph))
    documented = set(re.findall(r"\w+", mlgraph.__doc__ or ""))
    assert names - {"__version__"} <= documented
    headings = re.findall(r"^[A-Zm].*(?=\n    \S)", mlgraph.__doc__ or "", re.MULTILINE)
    assert {name for line in headings for name in line.replace("mlgraph.", "").split(", ")} <= names


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'mlgraph' has no attribute 'spam'"):
        mlgraph.spam  # noqa: B018


def test_star_import_leaves_the_built_in_functions() -> None:
    assert stdout("from mlgraph import *; print(max([1, 2]), sum([1, 2]), Network.__name__)") == "2 3 Network"


def test_clone_that_is_not_installed_has_no_version() -> None:
    code = """
import importlib.metadata
def version(name):
    raise importlib.metadata.PackageNotFoundError(name)
importlib.metadata.version = version
import mlgraph
print(getattr(mlgraph, "__version__", None))"""
    assert stdout(code) == "None"


def test_version_is_that_of_the_installation() -> None:
    code = "import importlib.metadata; importlib.metadata.version = 'version of {}'.format; import mlgraph"
    assert stdout(f"{code}; print(mlgraph.__version__)") == "version of mlgraph"


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
def test_import_leaves_the_environment_as_it_was(
    given: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenMP is told to spin less while it is loaded, unless the user has set how it waits."""
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    assert stdout(WHILE_LOADED, **given) == expected
