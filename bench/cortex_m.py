"""C functions on a small processor: their size for a Cortex-M, and their results and instructions on an emulated one.

It needs Debian's packages gcc-arm-none-eabi, libnewlib-arm-none-eabi and qemu-system-arm.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

COMPILER, EMULATOR = "arm-none-eabi-gcc", "qemu-system-arm"
STRICT = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror"]
FOR = ["-mcpu=cortex-m3", "-mthumb", "-Os", "-ffunction-sections", "-fdata-sections"]

PROGRAM = """
#include <stdint.h>

#define AT(address) (*(volatile uint32_t *)(address))

DECLARATION
extern char stack[];
static IN x[N_IN];
static OUT y[N_OUT];

static int call(int number, const void *arguments)  /* ARM semihosting: files of the machine that emulates */
{
    register int r0 __asm__("r0") = number;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static int open(const char *name, int mode, int length)
{
    struct { const char *name; int mode, length; } arguments = {name, mode, length};
    return call(0x01, &arguments);
}

static int transfer(int number, int file, const void *data, int size)
{
    struct { int file; const void *data; int size; } arguments = {file, data, size};
    return call(number, &arguments);
}

void reset(void)
{
    int from = open("x", 1, 1), to = open("y", 5, 1);
    uint32_t ticks = 0;
    AT(0xE000E014) = 0xFFFFFF;  /* SysTick counts down, 25 million times a second */
    AT(0xE000E010) = 5;
    while (!transfer(0x06, from, x, sizeof x)) {
        uint32_t begin = AT(0xE000E018);
        CALL;
        ticks += (begin - AT(0xE000E018)) & 0xFFFFFF;
        transfer(0x05, to, y, sizeof y);
    }
    transfer(0x05, to, &ticks, sizeof ticks);
    call(0x18, (void *)0x20026);
    for (;;)
        ;
}

__attribute__((section(".vectors"), used)) static void (*const vectors[])(void) = {(void (*)(void))stack, reset};
"""

MEMORY = """
ENTRY(reset)
SECTIONS {
    .text 0x00000000 : { KEEP(*(.vectors)) *(.text*) *(.rodata*) *(.ARM.exidx*) }
    .data 0x20000000 : { *(.data*) }
    .bss : { *(.bss*) *(COMMON) end = .; }
    stack = 0x20400000;
}
"""

INSTRUCTIONS_OF_TICK = 40
"""With `-icount shift=0` an instruction takes a nanosecond."""


def missing() -> str | None:
    """The first of the programs that is not installed."""
    return next((name for name in (COMPILER, EMULATOR) if shutil.which(name) is None), None)


def run(command: Sequence[str | Path], folder: Path) -> str:
    """Output of a command; its errors are an AssertionError."""
    done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, timeout=600)
    assert not done.returncode, f"{' '.join(map(str, command))}\n{done.stderr}"
    return done.stdout


def compiled(folder: Path, source: str, *options: str) -> Path:
    """Object file of a source, in a folder."""
    (folder / "function.c").write_text(source)
    run([COMPILER, *FOR, *options, "-c", "function.c"], folder)
    return folder / "function.o"


def emulated(
    folder: Path, declaration: str, call: str, x: npt.NDArray, n_outputs: int, dtype: npt.DTypeLike
) -> tuple[npt.NDArray, float]:
    """Outputs of the function in `function.o` for the rows of `x`, and instructions for a row.

    `call` is the call of the function with `x` and `y`.
    """
    of = {np.dtype(np.uint8): "uint8_t", np.dtype(np.int32): "int32_t", np.dtype(np.float32): "float"}
    words = {"IN": of[x.dtype], "N_IN": x.shape[1], "OUT": of[np.dtype(dtype)], "N_OUT": n_outputs}
    words |= {"DECLARATION": f"{declaration};", "CALL": call}
    defined = [f"-D{word}={text}" for word, text in words.items()]
    (folder / "main.c").write_text(PROGRAM)
    (folder / "memory.ld").write_text(MEMORY)
    x.tofile(folder / "x")
    link = [
        "-nostartfiles",
        "--specs=nosys.specs",
        "-Wl,--gc-sections",
        "-Wl,--no-warn-rwx-segments",
        "-T",
        "memory.ld",
    ]
    run([COMPILER, *FOR, *defined, *link, "main.c", "function.o", "-lm", "-o", "program"], folder)
    machine = ["-M", "mps2-an385", "-cpu", "cortex-m3", "-nographic", "-monitor", "none", "-serial", "null"]
    run(
        [
            EMULATOR,
            *machine,
            "-semihosting-config",
            "enable=on,target=native",
            "-icount",
            "shift=0,sleep=off",
            "-kernel",
            "program",
        ],
        folder,
    )
    written = (folder / "y").read_bytes()
    y = np.frombuffer(written[:-4], dtype).reshape(len(x), n_outputs)
    return y, int.from_bytes(written[-4:], "little") * INSTRUCTIONS_OF_TICK / len(x)
