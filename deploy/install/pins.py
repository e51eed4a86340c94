"""Writes `constraints.txt` anew: every package of every extra, pinned, for each Python supported.

    python3 -m deploy.install.pins [--upgrade] [requirement ...]

asks pip, once per Python found, what an installation would consist of, and merges the answers.
What is pinned already stays as it is unless `--upgrade` is given. More requirements may be named.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path

from .environment import CONSTRAINTS, ROOT
from .shelf import default_folder

PYTHONS = ("3.11", "3.12", "3.13")
TOOLS = ("pip", "hatchling", "editables", "cmake", "ninja", "scikit-build-core")
"""What builds the project and llama-cpp-python; no extra names these."""

HEADER = """\
# Every package that the project installs or is built with, pinned. `make pins` writes this file.
"""


def requirements(pyproject: Mapping[str, object]) -> list[str]:
    """Return all that `pyproject` depends on, with every extra."""
    project = pyproject["project"]
    assert isinstance(project, dict)
    wanted = set(project["dependencies"])
    for extra in project["optional-dependencies"].values():
        wanted.update(extra)
    return sorted(wanted)


def canonical(name: str) -> str:
    """`name` as packages are compared: lower case, runs of `-_.` as one dash."""
    return re.sub(r"[-_.]+", "-", name).lower()


def resolve(python: str, wanted: Iterable[str], upgrade: bool) -> dict[str, str]:
    """Name and version of all that pip would install for `wanted` under `python`."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        subprocess.run([python, "-m", "venv", f"{folder}/venv"], check=True)
        pip = [f"{folder}/venv/bin/python", "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--upgrade", "pip"], check=True)
        command = [*pip, "--dry-run", "--ignore-installed", "--report", str(report)]
        for wheel in default_folder().glob("*/*.whl"):  # spares the metadata build of the source
            command += ["--find-links", str(wheel.parent)]
        if CONSTRAINTS.exists() and not upgrade:
            command += ["--constraint", str(CONSTRAINTS)]
        subprocess.run([*command, *wanted], check=True)
        installed = json.loads(report.read_text())["install"]
    return {canonical(item["metadata"]["name"]): item["metadata"]["version"] for item in installed}


def merge(found: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return a line per package, or one per range of Pythons with its own version.

    `found` maps a Python (`"3.11"`) to its packages. The newest Python speaks for those after it.
    """
    pythons = sorted(found, key=lambda python: tuple(map(int, python.split("."))))
    lines = []
    for name in sorted(set().union(*found.values())):
        having = [python for python in pythons if name in found[python]]
        starts = [
            (python, found[python][name])
            for before, python in zip([None, *having], having, strict=False)
            if before is None or found[before][name] != found[python][name]
        ]
        for i, (python, version) in enumerate(starts):
            bounds = [f'python_version >= "{python}"'] if i else []
            bounds += [f'python_version < "{starts[i + 1][0]}"'] if i + 1 < len(starts) else []
            marker = f" ; {' and '.join(bounds)}" if bounds else ""
            lines.append(f"{name}=={version}{marker}")
    return lines


def main() -> int:
    """Resolve for each Python, and replaces the file once all have succeeded."""
    parser = argparse.ArgumentParser(prog="make pins", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--upgrade", action="store_true", help="take the newest of everything")
    parser.add_argument("more", nargs="*", help="requirements to pin beside the project's own")
    arguments = parser.parse_args()
    wanted = [*requirements(tomllib.loads((ROOT / "pyproject.toml").read_text())), *TOOLS]
    found = {}
    for version in PYTHONS:
        python = shutil.which(f"python{version}")
        if python is None or subprocess.run([python, "-V"], capture_output=True).returncode:
            sys.stderr.write(f"python{version} is not on PATH: its pins are left out.\n")
            continue
        sys.stdout.write(f"Asking pip what Python {version} would install ...\n")
        found[version] = resolve(python, [*wanted, *arguments.more], arguments.upgrade)
    if not found:
        return 1
    CONSTRAINTS.write_text(HEADER + "\n".join(merge(found)) + "\n")
    sys.stdout.write(f"{CONSTRAINTS.name}: {len(merge(found))} lines for {', '.join(found)}.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
