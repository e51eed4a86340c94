"""The peers of `tests/bench/engine.py`: llama-server compiled, and xllamacpp's wheel fetched.

llama-server comes from the llama.cpp inside the source package of llama-cpp-python, with the flags
of the build that this machine's wheel has: the same kernels, so that what differs is scheduling,
sharing of prefixes, HTTP and Python. Both are kept, so that the next run finds them:

    ~/.cache/llama-herder/server/
        llama_server-<as the wheel's key>/     bin/llama-server with its libraries, build.log
        xllamacpp/                             the wheel, unpacked
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

from deploy.install.__main__ import wanted_wheels
from deploy.install.builds import cmake_args
from deploy.install.environment import CONSTRAINTS, pinned, written_stamp
from deploy.install.errors import StepFailed
from deploy.install.machine import find_compiler
from deploy.install.progress import ninja_detail, pip_detail, run
from deploy.install.shelf import Shelf, default_folder
from deploy.install.wheel import Candidate, compile_environment

FOLDER = Path.home() / ".cache" / "llama-herder" / "server"
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    # binaries that find their libraries beside themselves, wherever they are moved
    "CMAKE_BUILD_RPATH_USE_ORIGIN": "ON",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_TOOLS": "ON",
    "LLAMA_BUILD_SERVER": "ON",
    # its page for browsers would be downloaded, or built with Node
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_USE_PREBUILT_UI": "OFF",
    "LLAMA_OPENSSL": "OFF",
}


def settled_build() -> Candidate:
    """The build of llama-cpp-python that works here, as `deploy/install` found it.

    Raises:
        LookupError: there is no compiler, or every build is known to fail.
    """
    compiler = find_compiler(os.environ)
    if compiler is None:
        raise LookupError("there is no C++ compiler to build llama-server with")
    wanted = wanted_wheels(compiler)
    stamp = written_stamp()
    shelf = Shelf(default_folder())
    for candidate in wanted:
        if stamp is not None and candidate.key == stamp.wheel:
            return candidate
    for candidate in wanted:
        if shelf.failure(candidate.key) is None:
            return candidate
    raise LookupError("no build of llama.cpp is known to work here")


def server_binary() -> Path:
    """llama-server with this machine's kernels; compiles it if it is not there: minutes, once."""
    candidate = settled_build()
    place = FOLDER / candidate.key.replace("llama_cpp_python", "llama_server")
    binary = place / "bin" / "llama-server"
    if not binary.exists():
        with redirect_stdout(sys.stderr), _workbench() as bench:
            _compile(candidate, bench)
            place.mkdir(parents=True, exist_ok=True)
            shutil.move(bench / "build.log", place / "build.log")
            (bench / "out" / "bin").replace(place / "bin")
    return binary


def _compile(candidate: Candidate, bench: Path) -> None:
    tools, log = bench / "tools", bench / "build.log"
    name = candidate.build.name
    say(f"llama-server has to be compiled ({name}). It takes minutes, once on this machine.")
    try:
        run("Making room to compile in", [sys.executable, "-m", "venv", str(tools)], log)
        pip = [str(tools / "bin" / "python"), "-m", "pip"]
        wanted = ["scikit-build-core", "cmake", "ninja"]
        command = [*pip, "install", "--constraint", str(CONSTRAINTS), *wanted]
        run("Getting the tools to compile it", command, log)
        environ = compile_environment(candidate.build, tools, os.environ)
        command = [*pip, "download", "--no-deps", "--no-binary", "llama-cpp-python"]
        command += ["--no-cache-dir", "--no-build-isolation", "--dest", str(bench)]
        command.append(f"llama-cpp-python=={pinned('llama-cpp-python')}")
        run("Getting the sources", command, log, environ=environ, detail=pip_detail)
        with tarfile.open(next(bench.glob("*.tar.gz"))) as archive:
            archive.extractall(bench, filter="data")
        (source,) = bench.glob("*/vendor/llama.cpp")
        cmake = str(tools / "bin" / "cmake")
        options = [f"-D{key}={value}" for key, value in OPTIONS.items()]
        options += shlex.split(cmake_args(candidate.build, os.environ))
        command = [cmake, "-G", "Ninja", "-S", str(source), "-B", str(bench / "out"), *options]
        run("Configuring llama-server", command, log, environ=environ)
        command = [cmake, "--build", str(bench / "out"), "--target", "llama-server"]
        detail = ninja_detail
        run(f"Compiling llama-server ({name})", command, log, environ=environ, detail=detail)
    except StepFailed as error:
        kept = FOLDER / "failed.log"
        shutil.copy(log, kept)
        raise LookupError(f"llama-server could not be built; the log: {kept}") from error


def wheel_folder() -> Path | None:
    """The folder from which xllamacpp can be imported; None, with one line, if there is none."""
    place = FOLDER / "xllamacpp"
    if not place.exists():
        with redirect_stdout(sys.stderr), _workbench() as bench:
            command = [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--no-deps",
                "--only-binary",
                ":all:",
            ]
            command += ["--target", str(bench / "xllamacpp"), "xllamacpp"]
            try:
                run("Getting xllamacpp", command, bench / "log", detail=pip_detail)
            except StepFailed:
                say("There is no xllamacpp to be had here: the comparison with it is left out.")
                return None
            (bench / "xllamacpp").replace(place)
    return place


@contextmanager
def _workbench() -> Iterator[Path]:
    """A folder beside the place of what is built in it; gone afterwards."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".building-", dir=FOLDER) as bench:
        yield Path(bench)


def say(line: str) -> None:
    """Progress goes to standard error."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
