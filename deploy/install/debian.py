"""What the system has to have, and how it gets it: apt as root, else one line to type."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path

from .errors import InstallError, StepFailed
from .machine import Compiler, find_compiler
from .progress import run


def need_venv(log: Path) -> None:
    """Sees to it that this Python can make environments: Debian packages that apart."""
    if importlib.util.find_spec("ensurepip") and importlib.util.find_spec("venv"):
        return
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    apt_install("This Python cannot make virtual environments", package, log)
    importlib.invalidate_caches()
    if not importlib.util.find_spec("ensurepip"):
        raise InstallError(
            f"{sys.executable} has no ensurepip, and {package} did not bring it: "
            "name another Python with PYTHON=..."
        )


def need_compiler(log: Path) -> Compiler:
    """The C++ compiler; installs one if there is none."""
    compiler = find_compiler(os.environ)
    if compiler is None:
        apt_install("There is no C and C++ compiler", "build-essential", log)
        compiler = find_compiler(os.environ)
    if compiler is None:
        raise InstallError("No C++ compiler was found: set CC and CXX, or put gcc and g++ on PATH.")
    return compiler


def apt_install(why: str, package: str, log: Path) -> None:
    """Installs `package` if this is root on Debian or Ubuntu.

    Raises:
        InstallError: it is not, or apt failed; the message is the line to type.
    """
    if shutil.which("apt-get") is None:
        raise InstallError(f"{why}: install what your system has in place of Debian's {package}.")
    line = f"apt-get install -y {package}"
    if os.geteuid() != 0:
        raise InstallError(f"{why}. Type: sudo {line}")
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        # A fresh image has no package lists, and old lists name files that are gone.
        run(f"{why}: apt-get update", ["apt-get", "update"], log, environ=environ)
        command = ["apt-get", "install", "-y", "--no-install-recommends", package]
        run(f"Installing {package}", command, log, environ=environ)
    except StepFailed as error:
        raise InstallError(f"{why}, and apt failed:\n{error.tail}\nType: {line}") from error
