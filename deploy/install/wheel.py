"""Compiles llama-cpp-python, and settles on the first build that decodes."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .builds import Build, cmake_args
from .errors import InstallError, StepFailed
from .machine import cores
from .progress import ninja_detail, run
from .shelf import Shelf
from .trial import Verdict

LEAN = Path(__file__).with_name("lean.cmake")

BYTES_PER_JOB = 1_500_000_000
"""Memory that one compiler process may take; the largest file of llama.cpp takes about 1 GB."""


class CompileFailed(InstallError):
    """The compiler refused the source: another build may still compile."""


@dataclass(frozen=True)
class Candidate:
    """A build, and the name of its wheel on this machine."""

    build: Build
    key: str


def settle(
    found: Sequence[Candidate],
    shelf: Shelf,
    make: Callable[[Candidate], Path],
    install: Callable[[Path], None],
    trial: Callable[[Candidate], Verdict],
) -> Candidate:
    """Installs the first of the candidates that compiles and decodes, and returns it.

    One that does not is given up on `shelf` and not tried again, here or in another environment.

    Raises:
        InstallError: none is left, or something else went wrong that no build would cure.
    """
    for candidate in found:
        name, key = candidate.build.name, candidate.key
        reason = shelf.failure(key)
        if reason is not None:
            say(f"llama-cpp-python ({name}) is known to fail here: {reason}.")
            continue
        wheel = shelf.wheel(key)
        try:
            wheel = wheel or make(candidate)
        except CompileFailed as error:
            shelf.give_up(key, str(error))
            say(f"{error} The log: {shelf.log(key)}")
            continue
        install(wheel)
        verdict = trial(candidate)
        if verdict.passed:
            say(f"llama-cpp-python ({name}) works: {verdict.text}. {candidate.build.loses}".strip())
            return candidate
        shelf.give_up(key, verdict.text)
        say(f"llama-cpp-python ({name}) fails here: {verdict.text}.")
    raise InstallError(
        "No build of llama-cpp-python works on this machine. What was tried, with logs, lies in "
        f"{shelf.folder}; remove that folder to try it all again."
    )


def compile_wheel(
    candidate: Candidate, shelf: Shelf, version: str, constraints: Path, environ: Mapping[str, str]
) -> Path:
    """Compiles one build and puts its wheel on `shelf`; minutes.

    CMake, ninja and scikit-build-core come into an environment of their own, which goes
    afterwards: what the system has of them may be missing or too old. pip's cache is off, since it
    takes a build with other flags for the same one.

    Raises:
        CompileFailed: the compiler refused.
        StepFailed: anything else, such as a download that failed.
    """
    name = candidate.build.name
    log = shelf.log(candidate.key)
    log.unlink(missing_ok=True)
    say(f"llama-cpp-python has to be compiled ({name}). It takes minutes, once on this machine.")
    with shelf.workbench() as bench:
        tools = bench / "tools"
        run("Making room to compile in", [sys.executable, "-m", "venv", str(tools)], log)
        pip = [str(tools / "bin" / "python"), "-m", "pip"]
        wanted = ["scikit-build-core", "cmake", "ninja"]
        command = [*pip, "install", "--constraint", str(constraints), *wanted]
        run("Getting the tools to compile it", command, log)
        command = [*pip, "wheel", "--verbose", "--no-deps", "--no-binary", "llama-cpp-python"]
        command += ["--no-cache-dir", "--no-build-isolation", "--wheel-dir", str(bench)]
        command += [f"llama-cpp-python=={version}"]
        try:
            run(
                f"Compiling llama-cpp-python ({name})",
                command,
                log,
                detail=ninja_detail,
                environ=compile_environment(candidate.build, tools, environ),
                folder=bench,
            )
        except StepFailed as error:
            raise _explained(error, name) from error
        wheel = next(bench.glob("*.whl"))
        return shelf.keep(candidate.key, wheel)


def compile_environment(build: Build, tools: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of the compile.

    The tools first on PATH, the build's flags, enough memory.
    """
    lean = f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={LEAN}"
    changed = {
        "PATH": f"{tools / 'bin'}{os.pathsep}{environ.get('PATH', os.defpath)}",
        "CMAKE_ARGS": f"{shlex.quote(lean)} {cmake_args(build, environ)}",
        "CMAKE_GENERATOR": "Ninja",
    }
    if "CMAKE_BUILD_PARALLEL_LEVEL" not in environ:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        changed["CMAKE_BUILD_PARALLEL_LEVEL"] = str(max(1, min(cores(), memory // BYTES_PER_JOB)))
    return {**environ, **changed}


def _explained(error: StepFailed, name: str) -> InstallError:
    """`error` of a compile, told apart: the compiler's no, a lack of memory, or something else."""
    text = error.log.read_text(errors="replace")
    if "Killed signal terminated program" in text:
        return InstallError(
            "The compiler was killed, most likely for lack of memory. Fewer at once need less: put "
            f"CMAKE_BUILD_PARALLEL_LEVEL=1 in front of what you typed. The log: {error.log}"
        )
    if "FAILED: " in text:
        return CompileFailed(f"llama-cpp-python ({name}) does not compile here.")
    return error


def say(text: str) -> None:
    """Print one line for the person at the terminal."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
