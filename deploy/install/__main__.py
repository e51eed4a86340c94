"""The set-up, from top to bottom. Quick when there is nothing to do."""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from .builds import candidates, wheel_key
from .debian import need_system
from .environment import (
    CONSTRAINTS,
    LOG,
    PYTHON,
    ROOT,
    STAMP,
    TRIAL_LOG,
    ensure_venv,
    other_python_wanted,
    pinned,
    pip_install,
    stamp_for,
    write_stamp,
    written_stamp,
)
from .errors import InstallError, StepFailed
from .machine import Compiler, find_compiler, this_machine
from .shelf import Shelf, default_folder, open_shelf
from .trial import try_build
from .wheel import LEAN, Candidate, compile_wheel, settle

EXTRAS = ("demo", "dev", "gateway", "herder", "postgres", "worker")
"""All of them: the demo's model is what the builds are tried with."""


def wanted_wheels(compiler: Compiler) -> list[Candidate]:
    """Return the builds of llama-cpp-python for this machine, best first."""
    machine = this_machine(compiler)
    version = pinned("llama-cpp-python")
    tools = [f"{tool}=={pinned(tool)}" for tool in ("cmake", "ninja", "scikit-build-core")]
    recipe = hashlib.sha256(LEAN.read_bytes() + "".join(tools).encode()).hexdigest()
    return [
        Candidate(build, wheel_key(build, machine, version, recipe, os.environ))
        for build in candidates(machine, os.environ.get("CXXFLAGS", ""))
    ]


def up_to_date(extras: Sequence[str]) -> bool:
    """Return whether `.venv` is what the set-up would make of it."""
    stamp = written_stamp()
    if stamp is None or other_python_wanted(stamp.python):
        return False
    if stamp != stamp_for(extras, stamp.wheel):
        return False
    compiler = find_compiler(os.environ)
    # A machine whose compiler was removed afterwards can still run what is installed.
    return compiler is None or stamp.wheel in {wheel.key for wheel in wanted_wheels(compiler)}


def install(extras: Sequence[str], shelf: Shelf) -> None:
    """Make `.venv` hold the project with `extras`, and a llama-cpp-python that works."""
    compiler = need_system(LOG)
    ensure_venv()
    wheels = wanted_wheels(compiler)
    stamp = written_stamp()
    # An older pip knows no build constraints.
    pip_install("Getting pip as pinned", [f"pip=={pinned('pip')}"])
    if stamp is not None and stamp.wheel in {wheel.key for wheel in wheels}:
        write_stamp(replace(stamp, project=""))  # should the next line fail, it is not up to date
        install_project(extras)
        write_stamp(stamp_for(extras, stamp.wheel))
        return

    def put(wheel: Path) -> None:
        STAMP.unlink(missing_ok=True)
        # Forced, since pip takes two builds of one version for the same.
        arguments = ["--force-reinstall", "--no-deps", str(wheel)]
        pip_install("Installing llama-cpp-python", arguments)
        install_project(extras)

    settled = settle(
        wheels,
        shelf,
        make=lambda wheel: compile_wheel(
            wheel, shelf, pinned("llama-cpp-python"), CONSTRAINTS, os.environ
        ),
        install=put,
        trial=lambda _: try_build(PYTHON, TRIAL_LOG),
    )
    write_stamp(stamp_for(extras, settled.key))


def install_project(extras: Sequence[str]) -> None:
    """Install the project (editable) and its dependencies; what is there stays."""
    # The same constraints hold for what the building of packages needs.
    arguments = ["--build-constraint", str(CONSTRAINTS), "--editable", f".[{','.join(extras)}]"]
    pip_install("Installing the project and its packages", arguments)


def main() -> int:
    """Run the set-up; every failure is one readable message and exit status 1."""
    parser = argparse.ArgumentParser(prog="deploy/install/start.sh", description=__doc__)
    parser.add_argument("--extras", default=",".join(EXTRAS), help="default: %(default)s")
    extras = tuple(sorted(filter(None, parser.parse_args().extras.split(","))))
    if up_to_date(extras):
        return 0
    # Ended from outside, it ends what it started: a compile would go on for minutes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        shelf = open_shelf(default_folder(), instead=ROOT / "build" / "wheels")
        with shelf.lock():
            if not up_to_date(extras):  # another set-up may have done it meanwhile
                install(extras, shelf)
    except StepFailed as error:
        sys.stderr.write(f"\n{error.tail}\n\n{error}\n")
        return 1
    except (InstallError, OSError) as error:
        sys.stderr.write(f"\n{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped. Typed again, it goes on where it was.\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
