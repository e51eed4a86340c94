"""Packages that the system must have: installed with apt as root, else one line to type."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import InstallError, StepFailed
from .machine import Compiler, find_compiler
from .progress import run


def need_system(log: Path) -> Compiler:
    """Sees to it that there are virtual environments and a compiler, and returns the compiler.

    Raises:
        InstallError: something is missing; the message is the one line to type.
    """
    missing = {}
    if not makes_venvs():
        package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
        missing[package] = f"{sys.executable} cannot make virtual environments"
    if find_compiler(os.environ) is None:
        missing["build-essential"] = "there is no C and C++ compiler"
    if missing:
        apt_install(" and ".join(missing.values()), list(missing), log)
    compiler = find_compiler(os.environ)
    if compiler is None:
        raise InstallError("No C and C++ compiler was found: set CC and CXX to yours.")
    if not makes_venvs():
        raise InstallError(f"{sys.executable} has no ensurepip: name another Python, PYTHON=...")
    return compiler


def makes_venvs() -> bool:
    """Return whether this Python has `venv` and `ensurepip`: Debian packages the second apart."""
    # In a new process: this one may have looked before apt came.
    command = [sys.executable, "-c", "import venv, ensurepip; ensurepip.version()"]
    return subprocess.run(command, capture_output=True).returncode == 0


def apt_install(why: str, packages: Sequence[str], log: Path) -> None:
    """Installs `packages` if this is root on Debian or Ubuntu.

    Raises:
        InstallError: it is not, or apt failed; the message is the line to type.
    """
    why = why[0].upper() + why[1:]
    wanted = " ".join(packages)
    if shutil.which("apt-get") is None:
        raise InstallError(f"{why}. Install what your system has in place of Debian's {wanted}.")
    line = f"apt-get install -y {wanted}"
    if os.geteuid() != 0:
        raise InstallError(f"{why}. Type: sudo {line}")
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        # A fresh image has no package lists, and old lists name files that are gone.
        run(f"{why}: apt-get update", ["apt-get", "update"], log, environ=environ)
        command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
        run(f"Installing {wanted}", command, log, environ=environ)
    except StepFailed as error:
        raise InstallError(f"{why}, and apt failed:\n{error.tail}\nType: {line}") from error
