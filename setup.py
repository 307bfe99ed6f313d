"""Builds mlgraph_ext, the compiled half; all else about the packages is in pyproject.toml.

MLGRAPH_DEBUG_BUILD=1 builds it with the checks that Cython and the compiler have; MLGRAPH_DEBUG_BUILD=address with
AddressSanitizer too, whose library must be in LD_PRELOAD whenever Python starts (with GCC 12 and AVX-512 also
ASAN_OPTIONS=detect_stack_use_after_return=0, or vectors on its stack are misaligned).
"""

import os
import subprocess
import sys
import sysconfig
from glob import glob
from pathlib import Path
from tempfile import TemporaryDirectory

import Cython
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError, PlatformError

DEBUG = os.environ.get("MLGRAPH_DEBUG_BUILD", "0") not in ("", "0")
X86_64 = sysconfig.get_platform().endswith(("x86_64", "amd64")) and sys.maxsize > 2**32

DIRECTIVES = {
    "language_level": 3,
    "autotestdict": False,  # else each module has a __test__ that no stub knows
    "boundscheck": DEBUG,
    "initializedcheck": DEBUG,
    "nonecheck": DEBUG,
    "wraparound": False,
    "cdivision": True,  # without it a float `/` takes the GIL to raise on zero
    "show_performance_hints": not DEBUG,  # they advise against the checks
}

# Features by name, because compilers know the names x86-64-v2, -v3, -v4 only since gcc 11 and clang 12.
V2 = ["-mcx16", "-msahf", "-mpopcnt", "-msse4.2"]
V3 = [*V2, "-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2", "-mlzcnt", "-mmovbe"]
V4 = [*V3, "-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"]
SWEEPS = {"v4": V4, "v3": V3, "v2": V2} if X86_64 else {"baseline": []}

OPTIMISE = [
    "-O3",
    "-g0",  # Python's own flags ask for debug information: most of a wheel's size
    "-fno-math-errno",  # a square root is an instruction, not a call
    "-fno-trapping-math",  # a lane's choice becomes a blend; without it gcc packs a fifth of the FMAs
    "-ffp-contract=fast",  # a * b + c rounds once where the processor can: gcc's habit, not every clang's
]
CHECK = [
    "-O1",
    "-g3",
    "-fno-omit-frame-pointer",
    "-UNDEBUG",
    "-fsanitize=undefined",  # sees an index outside a C array, which boundscheck does not
    "-fsanitize-undefined-trap-on-error",  # needs no library: the process stops, faulthandler says where
    "-Wno-unknown-warning-option",  # clang's way to accept the next
    "-Wno-maybe-uninitialized",  # Cython's line number of an exception in a prange
]
SANITIZER = ["-fsanitize=address"] if os.environ.get("MLGRAPH_DEBUG_BUILD") == "address" else []
COMMON = ["-Wall", "-Wextra", *(CHECK if DEBUG else OPTIMISE), *SANITIZER]

# In CFLAGS these reach compiler and linker: they break the tests for NaN, change the order of sums and, linked in,
# flush subnormal numbers to zero in the whole process.
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


def openmp_flags(compiler):
    """Flags to compile and to link with, proven by a program that runs; None without OpenMP."""
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


class Build(build_ext):
    """Flags by compiler, C outside the source tree, all processors."""

    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":
            raise PlatformError("mlgraph needs gcc or clang: the Microsoft compiler is not supported")
        for tool in "compiler_so", "linker_so":
            command = getattr(self.compiler, tool)
            self.compiler.set_executable(tool, [word for word in command if word not in UNSAFE_MATH])
        openmp = openmp_flags(self.compiler)
        if openmp is None:
            self.warn("no working OpenMP in this compiler: mlgraph is built to run on one thread")
        for ext in self.extensions:
            isa = ext.name.partition("_sweep_")[2]
            threaded = openmp if isa and openmp else ([], [])
            ext.extra_compile_args = [*COMMON, *SWEEPS.get(isa, []), *threaded[0]]
            ext.extra_link_args = [*threaded[1], *SANITIZER]

        # Timestamps cannot tell that flags, directives or Cython changed; this record can.
        flags = [(ext.name, ext.extra_compile_args, ext.extra_link_args) for ext in self.extensions]
        recipe = ascii((Cython.__version__, self.compiler.compiler_so, DIRECTIVES, flags)).encode()  # in any locale
        record = Path("build/recipe.txt")
        if not record.exists() or record.read_bytes() != recipe:
            self.force = True

        jobs = self.parallel = self.parallel or os.cpu_count() or 1
        translated = cythonize(
            self.extensions, nthreads=jobs, build_dir="build/cython", force=self.force, compiler_directives=DIRECTIVES
        )
        for ext, c in zip(self.extensions, translated, strict=True):
            ext.sources = c.sources
        super().build_extensions()
        record.write_bytes(recipe)


def extension(name):
    """One module of mlgraph_ext; any change of an included or cimported file rebuilds it."""
    return Extension(f"mlgraph_ext.{name}", [f"mlgraph_ext/{name}.pyx"], depends=sorted(glob("mlgraph_ext/*.px[di]")))


if __name__ == "__main__":  # the processes of cythonize may import this file
    setup(
        cmdclass={"build_ext": Build},
        ext_modules=[extension(name) for name in (*(f"_sweep_{isa}" for isa in SWEEPS), "_topology", "_cpu")],
    )
