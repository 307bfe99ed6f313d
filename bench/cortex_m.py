"""C functions on a small processor: compiled for a Cortex-M3, and run on one that QEMU emulates.

They need Debian's packages gcc-arm-none-eabi, libnewlib-arm-none-eabi and qemu-system-arm.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

COMPILER, SIZE, EMULATOR = "arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm"
STRICT = ["-std=c99", "-Wall", "-Wextra", "-pedantic", "-Werror"]
OPTIONS = ["-mcpu=cortex-m3", "-mthumb", "-Os", "-ffunction-sections", "-fdata-sections"]
LINK = ["-nostartfiles", "--specs=nosys.specs", "-Wl,--gc-sections", "-Wl,--no-warn-rwx-segments", "-T", "memory.ld"]
MACHINE = ["-M", "mps2-an385", "-cpu", "cortex-m3", "-nographic", "-monitor", "none", "-serial", "null"]
MACHINE += ["-semihosting-config", "enable=on,target=native", "-icount", "shift=0,sleep=off"]

TYPES = {np.dtype(np.uint8): "uint8_t", np.dtype(np.int32): "int32_t", np.dtype(np.float32): "float"}

INSTRUCTIONS_OF_TICK = 40
"""By `-icount shift=0` an instruction takes a nanosecond; SysTick ticks 25 million times a second."""

PROGRAM = """
#include <stdint.h>

#define AT(address) (*(volatile uint32_t *)(address))
#define PAINTED 16384

DECLARATION;
extern char stack[];
static IN x[N_IN];
static OUT y[N_OUT];

static int call(int number, const void *arguments)  /* of ARM semihosting: files of the machine that emulates */
{
    register int r0 __asm__("r0") = number;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

static int opened(const char *name, int mode)
{
    struct { const char *name; int mode, length; } arguments = {name, mode, 1};
    return call(0x01, &arguments);
}

static int transfer(int number, int file, const void *data, int size)
{
    struct { int file; const void *data; int size; } arguments = {file, data, size};
    return call(number, &arguments);
}

void reset(void)
{
    int from = opened("x", 1), to = opened("y", 5);
    uint32_t result[2] = {0, 0};
    volatile char *top, *painted;
    __asm__ volatile("mov %0, sp" : "=r"(top));
    AT(0xE000E014) = 0xFFFFFF;  /* SysTick counts down */
    AT(0xE000E010) = 5;
    while (!transfer(0x06, from, x, sizeof x)) {
        for (painted = top; painted > top - PAINTED;)
            *--painted = 0x55;
        uint32_t begin = AT(0xE000E018);
        CALL;
        result[0] += (begin - AT(0xE000E018)) & 0xFFFFFF;
        while (painted < top && *painted == 0x55)
            painted++;
        result[1] = top - painted > (int)result[1] ? (uint32_t)(top - painted) : result[1];
        transfer(0x05, to, y, sizeof y);
    }
    transfer(0x05, to, result, sizeof result);
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


class Emulated(NamedTuple):
    """What a program did: the outputs, instructions for a row, and the stack of the function in bytes.

    `flash` is the size of code and constants of the whole program, and `ram` that of its variables.
    """

    y: npt.NDArray[Any]
    instructions: float
    stack: int
    flash: int
    ram: int


def missing() -> str | None:
    """The first of the programs that is not installed."""
    return next((name for name in (COMPILER, EMULATOR) if shutil.which(name) is None), None)


def run(command: Sequence[str | Path], folder: Path) -> str:
    """Output of a command; AssertionError with its errors if it fails."""
    done = subprocess.run(list(map(str, command)), cwd=folder, capture_output=True, text=True, timeout=600)
    assert not done.returncode, f"{' '.join(map(str, command))}\n{done.stderr}"
    return done.stdout


def compiled(folder: Path, source: str, *options: str) -> None:
    """Compile a source to `function.o` in the folder."""
    (folder / "function.c").write_text(source)
    run([COMPILER, *OPTIONS, *options, "-c", "function.c"], folder)


def sizes(folder: Path, file: str) -> dict[str, int]:
    """Bytes of code, constants and variables, the three together with those of libraries in a program."""
    kinds = {"code": 0, "constants": 0, "variables": 0}
    for line in run([SIZE, "-A", file], folder).splitlines():
        name, *numbers = line.split() or [""]
        kind = {".tex": "code", ".rod": "constants", ".dat": "variables", ".bss": "variables"}.get(name[:4])
        if kind:
            kinds[kind] += int(numbers[0])
    return kinds


def emulated(
    folder: Path, declaration: str, call: str, x: npt.NDArray[Any], n_outputs: int, dtype: npt.DTypeLike
) -> Emulated:
    """Link `function.o` and call its function for each row of `x`; `call` is the call with `x` and `y`."""
    words = {"IN": TYPES[x.dtype], "N_IN": x.shape[1], "OUT": TYPES[np.dtype(dtype)], "N_OUT": n_outputs}
    words |= {"DECLARATION": declaration, "CALL": call}
    (folder / "main.c").write_text(PROGRAM)
    (folder / "memory.ld").write_text(MEMORY)
    x.tofile(folder / "x")
    defined = [f"-D{word}={text}" for word, text in words.items()]
    run([COMPILER, *OPTIONS, *defined, *LINK, "main.c", "function.o", "-lm", "-o", "program"], folder)
    run([EMULATOR, *MACHINE, "-kernel", "program"], folder)
    written = (folder / "y").read_bytes()
    y = np.frombuffer(written[:-8], dtype).reshape(len(x), n_outputs)
    ticks, stack = np.frombuffer(written[-8:], np.uint32).tolist()
    size = sizes(folder, "program")
    flash = size["code"] + size["constants"]
    return Emulated(y, ticks * INSTRUCTIONS_OF_TICK / len(x), stack, flash, size["variables"])
