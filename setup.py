"""Builds mlgraph_ext, the compiled kernels. Everything else about the packages is in pyproject.toml.

The kernels are translated to C once and compiled once for each instruction set. Finished libraries are kept in
build/libraries under a hash of their sources, flags and compiler, so nothing is compiled twice from one clone.

MLGRAPH_DEBUG_BUILD=1 builds with the run-time checks of Cython and the compiler. MLGRAPH_DEBUG_BUILD=address adds
AddressSanitizer, whose library must be in LD_PRELOAD whenever Python starts. (GCC 12 misaligns vectors on its stack
under AVX-512 unless ASAN_OPTIONS=detect_stack_use_after_return=0 is set.)
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import Cython
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError, PlatformError

DEBUG = os.environ.get("MLGRAPH_DEBUG_BUILD", "0") not in ("", "0")
X86_64 = sysconfig.get_platform().endswith(("x86_64", "amd64")) and sys.maxsize > 2**32

DIRECTIVES = {
    "autotestdict": False,  # otherwise each module has a __test__ that no stub knows
    "boundscheck": DEBUG,
    "initializedcheck": DEBUG,
    "nonecheck": DEBUG,
    "wraparound": False,
    "cdivision": True,  # without it a float `/` takes the GIL to raise on zero
    "show_performance_hints": not DEBUG,  # the hints advise against the checks
}

# Features are listed by name because compilers know x86-64-v2, -v3 and -v4 only since gcc 11 and clang 12.
V2 = ["-mcx16", "-msahf", "-mpopcnt", "-msse4.2"]
V3 = [*V2, "-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2", "-mlzcnt", "-mmovbe"]
V4 = [*V3, "-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
SWEEPS = {"v4": V4, "v3": V3, "v2": V2} if X86_64 else {"baseline": []}
TRANSLATED = f"_sweep_{next(iter(SWEEPS))}"  # the C of the other builds differs only in this name

# Cython's own code for memoryviews, in one module instead of a copy in each. Python code only: nothing in it is hot.
SHARED = "_memoryview"

OPTIMISE = [
    "-O3",
    "-g0",  # Python's own flags ask for debug information, which would be most of a wheel's size
    "-fno-math-errno",  # makes a square root an instruction instead of a call
    "-fno-trapping-math",  # lets a per-lane choice become a blend; without it gcc packs a fifth of the FMAs
    "-ffp-contract=fast",  # a * b + c rounds once where the processor can; the default of gcc but not of every clang
]
CHECK = [
    "-O1",
    "-g3",
    "-fno-omit-frame-pointer",
    "-UNDEBUG",
    "-fsanitize=undefined",  # detects an index outside a C array, which boundscheck does not
    "-fsanitize-undefined-trap-on-error",  # needs no library: the process stops and faulthandler says where
    "-Wno-unknown-warning-option",  # makes clang accept the next flag
    "-Wno-maybe-uninitialized",  # Cython's line number of an exception in a prange
]
SANITIZER = ["-fsanitize=address"] if os.environ.get("MLGRAPH_DEBUG_BUILD") == "address" else []
COMMON = [
    "-Wall",
    "-Wextra",
    "-DCYTHON_COMPRESS_STRINGS=0",  # `copy_sweep` replaces a name in them
    "-Wno-unused-function",  # the decompressor
    *(CHECK if DEBUG else OPTIMISE),
    *SANITIZER,
]

# In CFLAGS these flags reach the compiler and the linker. They break the tests for NaN, change the order of
# sums and, when linked in, flush subnormal numbers to zero in the whole process.
UNSAFE_MATH = {
    "-Ofast",
    "-ffast-math",
    "-ffinite-math-only",
    "-funsafe-math-optimizations",
    "-fassociative-math",
    "-fno-signed-zeros",
    "-freciprocal-math",
    "-fno-honor-nans",
    "-fno-honor-infinities",
    "-ffp-model=fast",
    "-ffp-model=aggressive",
    "-mdaz-ftz",
}

OPENMP_PROGRAM = """
#include <omp.h>
int main(void)
{
    int threads = 0;
    #pragma omp parallel reduction(+ : threads)
    threads += 1;
    return threads < 1 || omp_get_max_threads() < 1;
}
"""

# Half of the time that gcc takes at -O3 goes into code that parses arguments and creates the module.
GLUE = """
#if defined(__GNUC__) && !defined(__clang__) && defined(__OPTIMIZE__)
#define MLGRAPH_GLUE __attribute__((optimize("O1")))
#define MLGRAPH_ONLY_GLUE_FOLLOWS _Pragma("GCC optimize(\\"O1\\")")
#else
#define MLGRAPH_GLUE
#define MLGRAPH_ONLY_GLUE_FOLLOWS
#endif
"""

ADVICE = """Install a compiler and the headers of Python, then run pip again:
  Debian, Ubuntu: sudo apt install build-essential python3-dev
  Fedora, RHEL:   sudo dnf install gcc python3-devel
  macOS:          xcode-select --install
Or name another compiler: CC=clang pip install ..."""
"""How to get a C compiler and Python's headers: the last lines of an installation that lacks one of them."""


def openmp_flags(compiler):
    """Flags to compile and to link with, verified by running a program; None without OpenMP."""
    for compile_flags, link_flags in (["-fopenmp"], ["-fopenmp"]), (["-Xpreprocessor", "-fopenmp"], ["-lomp"]):
        with TemporaryDirectory() as folder:
            source = Path(folder, "openmp.c")
            source.write_text(OPENMP_PROGRAM)
            try:
                objects = compiler.compile([str(source)], output_dir=folder, extra_postargs=compile_flags)
                compiler.link_executable(objects, "openmp", output_dir=folder, extra_postargs=link_flags)
                subprocess.run([Path(folder, "openmp")], check=True, timeout=60)
            except (CompileError, LinkError, OSError, subprocess.SubprocessError):
                continue
            return compile_flags, link_flags
    return None


def version_of(compiler):
    """The first lines that the compiler prints about itself."""
    try:
        return subprocess.run([*compiler.compiler_so, "--version"], check=True, capture_output=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        # Not an error of setuptools, which would print its advice on editable installations.
        raise SystemExit(
            f"error: mlgraph needs a C compiler, gcc or clang, and {compiler.compiler_so[0]!r} does not run\n{ADVICE}"
        ) from None


def check_headers(compiler):
    """Stop, before half a minute of work, if C cannot be compiled against Python and the C library."""
    with TemporaryDirectory() as folder:
        source = Path(folder, "headers.c")
        source.write_text("#include <Python.h>\n#include <stdlib.h>\n")
        try:
            compiler.compile([str(source)], output_dir=folder)
        except CompileError:
            raise SystemExit(
                f"error: {compiler.compiler_so[0]!r} cannot compile a C program that includes Python.h\n{ADVICE}"
            ) from None


def cython(*arguments):
    """Run Cython; its messages go to the log of the build."""
    if subprocess.run([sys.executable, "-m", "cython", "-3", *arguments]).returncode:
        raise CompileError(f"Cython failed: {' '.join(arguments)}")


def c_file_of(name):
    """Where the C of a module is written, outside the source tree."""
    return Path("build/cython/mlgraph_ext", f"{name}.c")


def translate(name):
    """Translate one module to C."""
    c_file = c_file_of(name)
    c_file.parent.mkdir(parents=True, exist_ok=True)
    c_file.unlink(missing_ok=True)  # Cython overwrites only files that begin as it begins them
    if name == SHARED:
        cython("--module-name", f"mlgraph_ext.{SHARED}", "--generate-shared", str(c_file))
        return
    source = "mlgraph_ext/_sweep.pyx" if name == TRANSLATED else f"mlgraph_ext/{name}.pyx"
    directives = ",".join(f"{key}={value}" for key, value in DIRECTIVES.items())
    module = f"mlgraph_ext.{name}"
    cython("--shared", f"mlgraph_ext.{SHARED}", "-X", directives, "--module-name", module, "-o", str(c_file), source)
    c = re.sub(r"^static (?=PyObject \*__pyx_pw_)", "static MLGRAPH_GLUE ", c_file.read_text(), flags=re.MULTILINE)
    rest = "/* #### Code section: module_exttypes ### */\n"
    c_file.write_text(GLUE + c.replace(rest, rest + "MLGRAPH_ONLY_GLUE_FOLLOWS\n"))


def copy_sweep(name):
    """Write the C of another build of the sweeps, given that of `TRANSLATED`."""
    assert len(name) == len(TRANSLATED)  # Cython stores the lengths of strings
    c_file_of(name).write_text(c_file_of(TRANSLATED).read_text().replace(TRANSLATED, name))


class Build(build_ext):
    """Chooses flags by compiler, keeps what is built, uses all processors."""

    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":
            raise PlatformError("mlgraph needs gcc or clang: the Microsoft compiler is not supported")
        for tool in "compiler_so", "linker_so":
            command = getattr(self.compiler, tool)
            self.compiler.set_executable(tool, [word for word in command if word not in UNSAFE_MATH])
        compiler_version = version_of(self.compiler)
        check_headers(self.compiler)
        openmp = openmp_flags(self.compiler)
        if openmp is None:
            self.warn("no working OpenMP in this compiler: mlgraph is built to run on one thread")
        self.force = True  # `kept` decides what is up to date
        self.parallel = self.parallel or os.cpu_count() or 1
        self.kept, missing = {}, []
        for ext in self.extensions:
            name = ext.name.rpartition(".")[2]
            isa = name.partition("_sweep_")[2]
            threaded = openmp if isa and openmp else ([], [])
            ext.extra_compile_args = [*COMMON, *SWEEPS.get(isa, []), *threaded[0]]
            if name == SHARED and not DEBUG:
                ext.extra_compile_args.append("-O1")
            ext.extra_link_args = [*threaded[1], *SANITIZER]
            self.kept[ext.name] = self.library(ext, compiler_version)
            if not self.kept[ext.name].exists():
                missing.append(name)
            ext.sources = [str(c_file_of(name))]

        copies = [name for name in missing if name.startswith("_sweep_") and name != TRANSLATED]
        originals = dict.fromkeys(TRANSLATED if name in copies else name for name in missing)
        with ThreadPoolExecutor(self.parallel) as pool:
            list(pool.map(translate, originals))
        for name in copies:
            copy_sweep(name)
        super().build_extensions()

    def library(self, ext, compiler_version):
        """Where the library of an extension is kept: a hash of all that it depends on is in the path."""
        made_of = (
            *(Cython.__version__, sys.version, compiler_version, self.compiler.compiler_so, self.compiler.linker_so),
            *(ext.extra_compile_args, ext.extra_link_args),
            *(Path(file).read_bytes() for file in [__file__, *ext.sources, *ext.depends]),
        )
        digest = sha256(ascii(made_of).encode()).hexdigest()[:16]
        return Path("build/libraries", digest, Path(self.get_ext_fullpath(ext.name)).name).absolute()

    def build_extension(self, ext):
        """Build one library, or copy it if it was built before."""
        kept, wanted = self.kept[ext.name], Path(self.get_ext_fullpath(ext.name))
        if not kept.exists():
            super().build_extension(ext)
            kept.parent.mkdir(parents=True, exist_ok=True)
            part = kept.with_suffix(".part")
            shutil.copy2(wanted, part)
            part.replace(kept)  # at once: an interrupted build leaves no half of a library
        wanted.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(kept, wanted)


def extension(name, sources=None):
    """One module of mlgraph_ext; any change of an included or cimported file rebuilds it."""
    sources = [f"mlgraph_ext/{name}.pyx"] if sources is None else sources
    included = sorted(glob("mlgraph_ext/*.px[di]") + glob("mlgraph_ext/*.h")) if sources else []
    return Extension(f"mlgraph_ext.{name}", sources, depends=included, include_dirs=["mlgraph_ext"])


setup(
    cmdclass={"build_ext": Build},
    ext_modules=[  # those that take longest first
        *(extension(f"_sweep_{isa}", ["mlgraph_ext/_sweep.pyx"]) for isa in SWEEPS),
        *(extension("_topology"), extension(SHARED, []), extension("_cpu"), extension("_interrupts")),
    ],
)
