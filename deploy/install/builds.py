"""The builds of llama-cpp-python to try, in order, and the names of their wheels. Pure."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from .machine import Machine

FLAG_VARIABLES = ("CMAKE_ARGS", "CC", "CFLAGS", "CXXFLAGS", "LDFLAGS")
"""The user's own say in the build, from the environment. All of it is part of a wheel's name."""

AMX_CURE = "-fno-tree-dse -fno-dse -fno-tree-dce"
"""gcc 12 believes that `_tile_loadconfig` reads 8 of its 64 bytes, drops what was written to the
rest as dead stores, and the first decode of two tokens faults (one token takes another path).
Without the three passes that drop stores it keeps AMX, which is worth 3.4 times the speed."""

NO_AMX = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"

NO_AMX_LOSES = "This CPU has AMX, with which it would be about three times as fast."
NO_NATIVE_LOSES = "Instructions that only newer CPUs have, such as AVX-512 and AMX, are not used."

GCC_WITHOUT_THE_FAULT = 13
"""The first gcc for which a plain native build is tried on a CPU with AMX. Not known to be cured:
the trial decides."""


@dataclass(frozen=True)
class Build:
    """One way to compile llama-cpp-python.

    Attributes:
        name: what people and the wheel's name call it.
        cmake_args: its flags.
        loses: what the machine could do and this build does not; a sentence, or empty.
    """

    name: str
    cmake_args: tuple[str, ...]
    loses: str = ""


def candidates(machine: Machine, user_cxxflags: str = "") -> list[Build]:
    """Return the builds worth trying on `machine`, fastest first.

    `user_cxxflags` is the user's CXXFLAGS: CMake ignores that variable where a build gives flags of
    its own, so they are put in front of them.
    """
    native = Build("native", ("-DLLAVA_BUILD=OFF",))
    generic = Build("generic", ("-DLLAVA_BUILD=OFF", "-DGGML_NATIVE=OFF"), NO_NATIVE_LOSES)
    if not machine.has_amx:
        return [native, generic]
    cured = f"-DCMAKE_CXX_FLAGS={f'{user_cxxflags} {AMX_CURE}'.strip()}"
    without = (
        f"-DCMAKE_C_FLAGS={NO_AMX}",
        f"-DCMAKE_CXX_FLAGS={f'{user_cxxflags} {NO_AMX}'.strip()}",
    )
    builds = [
        native,
        Build("native-amx-cured", ("-DLLAVA_BUILD=OFF", cured)),
        Build("native-no-amx", ("-DLLAVA_BUILD=OFF", *without), NO_AMX_LOSES),
        generic,
    ]
    compiler = machine.compiler
    if compiler.family == "gcc" and compiler.major < GCC_WITHOUT_THE_FAULT:
        builds.remove(native)  # known to crash, and minutes to find out
    return builds


def cmake_args(build: Build, environ: Mapping[str, str]) -> str:
    """Return CMAKE_ARGS for `build`; the user's own come last, so they win."""
    return f"{shlex.join(build.cmake_args)} {environ.get('CMAKE_ARGS', '')}".strip()


def wheel_key(
    build: Build, machine: Machine, version: str, recipe: str, environ: Mapping[str, str]
) -> str:
    """Return the name under which the wheel of `build` is kept: another result, another name.

    `version` is that of llama-cpp-python; `recipe` stands for how it is compiled here, flags apart.
    The readable part is for people, the digest covers all that decides what the wheel holds.
    """
    decides = {
        "architecture": machine.architecture,
        "cpu_flags": sorted(machine.cpu_flags),
        "compiler": machine.compiler.version,
        "cmake_args": build.cmake_args,
        "environment": {name: environ.get(name, "").strip() for name in FLAG_VARIABLES},
        "recipe": recipe,
    }
    digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]
    compiler = f"{machine.compiler.family}{machine.compiler.major}"
    return f"llama_cpp_python-{version}-{build.name}-{compiler}-{digest}"
