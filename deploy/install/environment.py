"""The virtual environment `.venv`: makes it, installs into it, and remembers what it holds."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .progress import pip_detail, run

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS = ROOT / "constraints.txt"
PYPROJECT = ROOT / "pyproject.toml"
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOG = VENV / "install.log"
TRIAL_LOG = VENV / "trial.log"
STAMP = VENV / "installed.json"


@dataclass(frozen=True)
class Stamp:
    """The stamp of an environment: the same stamp again means that there is nothing to do."""

    root: str
    """Scripts and the editable install hold this path: a tree that was moved starts anew."""
    python: str
    project: str
    constraints: str
    extras: tuple[str, ...]
    wheel: str
    """The build of llama-cpp-python; see `builds.wheel_key`."""


def written_stamp() -> Stamp | None:
    """Return the stamp of `.venv`; None if there is none that can be read."""
    try:
        fields = json.loads(STAMP.read_text())
        return Stamp(**{**fields, "extras": tuple(fields["extras"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_stamp(stamp: Stamp) -> None:
    """Write `stamp` in one step, once all that it says is true."""
    written = STAMP.with_suffix(".new")
    written.write_text(json.dumps(asdict(stamp), indent=1))
    written.replace(STAMP)


def stamp_for(extras: Sequence[str], wheel: str) -> Stamp:
    """Return the stamp of an environment that is made here and now."""
    return Stamp(
        root=str(ROOT),
        python=venv_version(VENV) or "",
        project=project_digest(PYPROJECT.read_text()),
        constraints=hashlib.sha256(CONSTRAINTS.read_bytes()).hexdigest(),
        extras=tuple(extras),
        wheel=wheel,
    )


def project_digest(pyproject: str) -> str:
    """Digest of what an installation takes from `pyproject`: settings of linters are no part."""
    tables = tomllib.loads(pyproject)
    installed = [
        tables.get("build-system"),
        tables.get("project"),
        tables.get("tool", {}).get("hatch"),
    ]
    return hashlib.sha256(json.dumps(installed, sort_keys=True).encode()).hexdigest()


def venv_version(folder: Path) -> str | None:
    """Return the Python of the environment in `folder`, as `3.11`.

    None if there is none that runs.
    """
    try:
        told = subprocess.run(
            [folder / "bin" / "python", "-c", "import sys, pip; print(*sys.version_info[:2])"],
            capture_output=True,
            text=True,
        )
    except OSError:
        return None
    return ".".join(told.stdout.split()) if told.returncode == 0 else None


def ensure_venv() -> None:
    """Make `.venv`; anew where it is broken, was moved, or has another Python than wanted."""
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    there = venv_version(VENV)
    stamp = written_stamp()
    moved = stamp is not None and stamp.root != str(ROOT)
    old = there is not None and tuple(map(int, there.split("."))) < (3, 11)
    if there is not None and not (moved or old or other_python_wanted(there)):
        return
    if (VENV / "pyvenv.cfg").exists():
        shutil.rmtree(VENV)
    LOG.parent.mkdir(exist_ok=True)
    run(f"Making .venv with Python {ours}", [sys.executable, "-m", "venv", str(VENV)], LOG)


def other_python_wanted(there: str) -> bool:
    """Return whether the user named a Python, and it is another than that of `.venv`, `there`."""
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    return bool(os.environ.get("PYTHON")) and there != ours


def pip_install(title: str, arguments: Sequence[str]) -> None:
    """`pip install` with the constraints, into `.venv`."""
    command = [str(PYTHON), "-m", "pip", "install", "--constraint", str(CONSTRAINTS), *arguments]
    run(title, command, LOG, detail=pip_detail, folder=ROOT)


def pinned(package: str) -> str:
    """Return the version of `package` in the constraints."""
    for line in CONSTRAINTS.read_text().splitlines():
        name, _, version = line.partition("==")
        if name == package:
            return version.partition(";")[0].strip()
    raise LookupError(f"{CONSTRAINTS.name} pins no {package}")
