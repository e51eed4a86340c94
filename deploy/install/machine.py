"""The machine that a build depends on: the CPU's instruction sets and the compiler."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import InstallError

CXX_NAMES = ("c++", "g++", "clang++")
"""Where a C++ compiler is looked for, in CMake's order."""

_INSTRUCTION_SETS = re.compile(
    r"""^( a[dmv]x.* | sse.* | ssse3 | pni | mmx | fma.* | xop | f16c | 3dnow.* | bmi[12] | abm
         | tbm | lzcnt | popcnt | v?aes | v?pclmulqdq | gfni | sha.* | sm[34] | movbe | movdir.*
         | cx16 | rdrand | rdseed | rdpid | fsgsbase | xsave.* | clflush.* | clwb | cldemote
         | serialize | prefetch.* | wbnoinvd | ptwrite | waitpkg | lahf_lm )$""",
    re.VERBOSE,
)
"""The x86 flags that a compiler may use. The others tell of the kernel and of cures against
attacks: they come and go with updates, and would only make good wheels look foreign."""


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler that answered."""

    command: str
    version: str
    """The first line of `--version`; the distribution's own revision is part of it."""
    family: str
    """`gcc` or `clang`."""

    @property
    def major(self) -> int:
        """The major version; 0 if the line does not tell."""
        found = re.findall(r"(\d+)\.\d+(?:\.\d+)?", self.version)
        if not found:
            return 0
        return int(found[0] if self.family == "clang" else found[-1])


@dataclass(frozen=True)
class Machine:
    """The facts that decide whether a wheel that was built elsewhere runs here."""

    architecture: str
    cpu_flags: frozenset[str]
    compiler: Compiler

    @property
    def has_amx(self) -> bool:
        """Whether the CPU has the tile matrix units whose code some compilers break."""
        return "amx_tile" in self.cpu_flags


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """Return the instruction sets that `cpuinfo`, the text of `/proc/cpuinfo`, names."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(flag for flag in value.split() if _INSTRUCTION_SETS.match(flag))
        if name.strip() == "Features":  # Arm: all of it is instruction sets
            return frozenset(value.split())
    return frozenset()


def compiler_of(command: str, answer: str) -> Compiler:
    """Return the compiler `command`, from what it answered to `--version`."""
    family = "gcc" if "Free Software Foundation" in answer else "clang"
    return Compiler(command, answer.partition("\n")[0].strip(), family)


def find_compiler(environ: Mapping[str, str]) -> Compiler | None:
    """Return the C++ compiler that CMake will take: `CXX` if it is set, else the first on PATH.

    None where there is none, or no C compiler beside it.
    """
    named = environ.get("CXX", "").split()
    for command in [named] if named else [[name] for name in CXX_NAMES]:
        path = shutil.which(command[0])
        if path is None:
            continue
        told = subprocess.run([path, *command[1:], "--version"], capture_output=True, text=True)
        if told.returncode == 0 and _has_c_compiler(environ):
            return compiler_of(path, told.stdout)
    return None


def _has_c_compiler(environ: Mapping[str, str]) -> bool:
    named = environ.get("CC", "").split()
    return any(shutil.which(name) for name in (named[:1] or ("cc", "gcc", "clang")))


def this_machine(compiler: Compiler) -> Machine:
    """Return the machine that this runs on."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError as error:
        raise InstallError(f"/proc/cpuinfo cannot be read ({error}): is this Linux?") from error
    return Machine(platform.machine(), cpu_flags(cpuinfo), compiler)


def cores() -> int:
    """CPU cores that this process may use."""
    return max(1, len(os.sched_getaffinity(0)))
