"""An installation loads the fastest build, needs numpy alone, and leaves floating point as it was."""

import ast
import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

import mlgraph
import mlgraph_ext

LEVELS = {  # the flags in /proc/cpuinfo that each x86-64 level adds
    "v2": "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3",
    "v3": "avx avx2 bmi1 bmi2 f16c fma abm movbe",
    "v4": "avx512f avx512bw avx512cd avx512dq avx512vl",
}


def python(*arguments, cwd=None, **environment):
    command, environment = [sys.executable, *arguments], {**os.environ, **environment}
    return subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=300)


def stdout(code, **environment):
    run = python("-c", code, **environment)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


# --- builds ---------------------------------------------------------------------------------------


def test_the_fastest_build_is_loaded():
    expected = os.environ.get("MLGRAPH_ISA") or mlgraph_ext.AVAILABLE[-1]
    assert mlgraph.ISA == mlgraph_ext.ISA == expected
    assert mlgraph_ext.sweep.__name__ == f"mlgraph_ext._sweep_{expected}"
    assert not mlgraph_ext.sweep.__file__.endswith(".py")
    assert stdout("import mlgraph_ext; print(mlgraph_ext.ISA)", MLGRAPH_ISA="") == mlgraph_ext.AVAILABLE[-1]


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="needs the processor's flags as Linux lists them")
def test_available_builds_are_those_that_the_processor_can_run():
    flags = set(Path("/proc/cpuinfo").read_text().partition("\nflags")[2].partition("\n")[0].split())
    runnable = []
    while len(runnable) < len(LEVELS) and flags.issuperset(list(LEVELS.values())[len(runnable)].split()):
        runnable.append(list(LEVELS)[len(runnable)])
    built_for_x86 = find_spec("mlgraph_ext._sweep_v2") is not None
    assert list(mlgraph_ext.AVAILABLE) == (runnable if built_for_x86 else ["baseline"])


def can_build():
    """Whether Cython is there, and a setuptools that reads this pyproject.toml."""
    return bool(find_spec("Cython") and find_spec("setuptools")) and int(version("setuptools").split(".")[0]) >= 77


@pytest.mark.skipif(not can_build(), reason="needs what builds the kernels")
@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, "does not run"),
        ('case "$*" in *--version) exit 0; esac; exit 1', "cannot compile a C program that includes"),
    ],
)
def test_without_a_compiler_a_build_ends_with_how_to_get_one(tmp_path, script, message):
    compiler = tmp_path / "cc"
    if script:
        compiler.write_text(f"#!/bin/sh\n{script}\n")
        compiler.chmod(0o755)
    build = ("build_ext", "--build-lib", str(tmp_path / "lib"), "--build-temp", str(tmp_path / "temp"))
    run = python("setup.py", *build, cwd=Path(__file__).parents[1], CC=str(compiler))
    assert run.returncode == 1 and message in run.stderr and "sudo apt install build-essential" in run.stderr


@pytest.mark.parametrize("isa", mlgraph_ext.AVAILABLE)
def test_an_override_loads_only_that_build(isa):
    code = "import mlgraph_ext, sys; print(mlgraph_ext.ISA, *(m for m in sys.modules if '_sweep_' in m))"
    assert stdout(code, MLGRAPH_ISA=isa) == f"{isa} mlgraph_ext._sweep_{isa}"


def test_an_unknown_override_fails_in_one_line():
    run = python("-c", "import mlgraph_ext", MLGRAPH_ISA="../v2")
    error = run.stderr.splitlines()[-1]
    assert run.returncode == 1 and error.startswith("ImportError: MLGRAPH_ISA: ")
    assert "'../v2'" in error and all(build in error for build in mlgraph_ext.AVAILABLE)
    run = python("-m", "mlgraph.mnist", "--help", MLGRAPH_ISA="../v2")
    expected = error.replace("ImportError", "mlgraph: error", 1) + "\n"
    assert (run.returncode, run.stdout, run.stderr) == (2, "", expected)


def test_an_uncompiled_tree_says_what_to_do(tmp_path):
    (tmp_path / "mlgraph_ext").mkdir()
    (tmp_path / "mlgraph_ext" / "__init__.py").write_text(Path(mlgraph_ext.__file__).read_text())
    run = python("-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import mlgraph_ext")
    assert run.returncode == 1
    assert "pip install -e ." in run.stderr.splitlines()[-1]


# --- missing libraries ----------------------------------------------------------------------------

WITHOUT_LIBRARIES = """
import sys
missing = "matplotlib matplotlib.figure sklearn sklearn.base onnx networkx neat torch pandas uvicorn"
sys.modules.update(dict.fromkeys(missing.split()))
import mlgraph
from mlgraph import exchange
net = mlgraph.Network(1)
net.add_layer(1)
calls = dict(
    matplotlib=mlgraph.History().draw, sklearn=lambda: exchange.to_sklearn(net), onnx=lambda: exchange.to_onnx(net),
    networkx=lambda: exchange.to_networkx(net), neat=lambda: exchange.from_neat(None, None),
    estimators=lambda: __import__("mlgraph.sklearn"), studio=lambda: net.studio([[1.0]], [1.0]),
    torch=lambda: exchange.to_torch(net), pandas=mlgraph.History().to_pandas,
)
for name, call in calls.items():
    try:
        call()
    except ImportError as error:
        print(name, str(error)[str(error).index("pip install"):])
"""

LIBRARIES = """\
matplotlib pip install matplotlib
sklearn pip install 'scikit-learn>=1.6'
onnx pip install 'onnx>=1.15'
networkx pip install networkx
neat pip install neat-python
estimators pip install 'scikit-learn>=1.6'
studio pip install starlette 'uvicorn>=0.29'
torch pip install torch
pandas pip install pandas"""
"""What the requirements below say."""

REQUIREMENTS = [("app", "matplotlib"), ("bench", "scikit-learn"), ("sklearn", "scikit-learn>=1.6")]
REQUIREMENTS += [("exchange", "onnx>=1.15"), ("studio", "uvicorn>=0.29")]


def install(folder, project=None):
    """Make a folder look like one that mlgraph was installed into, or its source tree."""
    folder.mkdir()
    for package in ("mlgraph", "mlgraph_ext"):
        (folder / package).symlink_to(Path(import_module(package).__file__).parent)
    (folder / "mlgraph-1.dist-info").mkdir()
    wanted = "".join(f'Requires-Dist: {library}; extra == "{extra}"\n' for extra, library in REQUIREMENTS)
    (folder / "mlgraph-1.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: mlgraph\nVersion: 1\n{wanted}"
    )
    if project:
        (folder / "pyproject.toml").write_text(f'[project]\nname = "{project}"\n')
    return folder


@pytest.mark.parametrize("project", [None, "another"])
def test_where_a_wheel_is_installed_messages_name_the_missing_library_with_its_version(tmp_path, project):
    folder = install(tmp_path / "installed", project)
    assert stdout(WITHOUT_LIBRARIES, cwd=folder) == LIBRARIES


def test_in_a_source_tree_messages_name_the_extra_of_that_tree(tmp_path):
    folder = install(tmp_path / "of a user", "mlgraph")
    extras = {"matplotlib": "app", "sklearn": "sklearn", "onnx": "exchange", "networkx": "exchange"}
    extras |= {"neat": "exchange", "estimators": "sklearn", "studio": "studio"}
    expected = [f"{name} pip install -e '{folder}[{extra}]'" for name, extra in extras.items()]
    found = stdout(WITHOUT_LIBRARIES, cwd=folder).splitlines()
    assert found == [*expected, "torch pip install torch", "pandas pip install pandas"]


# --- imports --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import sys, mlgraph; print(*(m for m in sys.modules if m == 'numpy' or m.startswith('mlgraph.')))", ""),
        ("import mlgraph; mlgraph.Network; print(float('5e-324') * float('1'))", "5e-324"),
        ("from mlgraph import *; print(max([1, 2]), sum([1, 2]), Network.__name__)", "2 3 Network"),
    ],
    ids=["is lazy", "keeps subnormal numbers", "with a star keeps the built-in functions"],
)
def test_an_import(code, expected):
    assert stdout(code) == expected


def test_an_import_needs_numpy_alone():
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


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "5000 True"), ({"GOMP_SPINCOUNT": "7"}, "7 True"), ({"OMP_WAIT_POLICY": "passive"}, "None True")],
)
def test_an_import_leaves_the_environment_as_it_was(given, expected, monkeypatch):
    """OpenMP is told to spin less while it is loaded, unless the user has set how it waits."""
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    code = """
import importlib, os
before, real = dict(os.environ), importlib.import_module

def import_module(name, *more):
    if "_sweep_" in name:
        print(os.environ.get("GOMP_SPINCOUNT"))
    return real(name, *more)

importlib.import_module = import_module
import mlgraph
print(dict(os.environ) == before)
"""
    assert stdout(code, **given).split() == expected.split()


# --- names and version ----------------------------------------------------------------------------


def names_for_type_checkers():
    """The names that __init__.pyi gives to type checkers, each compared with the one at run time."""
    names = set()
    for statement in ast.parse(Path(mlgraph.__file__ + "i").read_text()).body:
        if isinstance(statement, ast.AnnAssign):
            names.add(ast.unparse(statement.target))
        elif isinstance(statement, ast.ImportFrom):
            module = import_module(statement.module)
            imported = [alias.name for alias in statement.names]
            for name in module.__all__ if imported == ["*"] else imported:
                assert getattr(mlgraph, name) is getattr(module, name)
                names.add(name)
    return names


def test_type_checkers_and_docstring_know_the_names_of_the_package():
    names = names_for_type_checkers()
    assert names == {*mlgraph.__all__, "max", "sum", "datasets", "exchange", "pictures", "testing", "__version__"}
    documented = set(re.findall(r"\w+", mlgraph.__doc__))
    assert names - {"__version__"} <= documented & set(dir(mlgraph))
    headings = re.findall(r"^[A-Zm].*(?=\n    \S)", mlgraph.__doc__, re.MULTILINE)
    assert {name for line in headings for name in line.replace("mlgraph.", "").split(", ")} <= names


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'mlgraph' has no attribute 'spam'"):
        mlgraph.spam  # noqa: B018


def test_the_version_is_that_of_the_installation_if_there_is_one():
    code = """
import importlib.metadata, mlgraph
def missing(name):
    raise importlib.metadata.PackageNotFoundError(name)
importlib.metadata.version = missing
print(getattr(mlgraph, "__version__", None))
importlib.metadata.version = "version of {}".format
print(mlgraph.__version__)
"""
    assert stdout(code) == "None\nversion of mlgraph"
