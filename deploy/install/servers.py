"""What the tests run beside Redis, as Debian has it: PostgreSQL, PgBouncer, RabbitMQ, Chromium.

`make test` comes here first. Where they cannot be installed one line says so, and the tests that
need them are skipped; where CI is set, those fail. The tests start servers of their own, so the
packages' services are kept from starting while they are installed.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .debian import apt_install
from .environment import LOG
from .errors import InstallError

RABBITMQ = Path("/usr/lib/rabbitmq/bin")
"""Debian's place for them; the command on PATH insists on the system's own user and folders."""

POLICY = Path("/usr/sbin/policy-rc.d")
"""What Debian's packages ask whether their service may be started: 101 means that it may not."""

_DENY = "#!/bin/sh\nexit 101\n"


def postgres_folder() -> Path | None:
    """Return where PostgreSQL's programs are, the newest first; None if there are none."""
    # Debian puts them beside PATH, one folder for each version.
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"),
        key=lambda found: [int(number) for number in re.findall(r"\d+", found.parts[-3])],
        reverse=True,
    )
    elsewhere = shutil.which("initdb")
    found = versions if elsewhere is None else [*versions, Path(elsewhere)]
    folders = [program.resolve().parent for program in found]
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


def rabbitmq_folder() -> Path | None:
    """Return where RabbitMQ's own scripts are; None if there are none."""
    return RABBITMQ if (RABBITMQ / "rabbitmq-server").exists() else None


def pgbouncer_path() -> Path | None:
    """Return PgBouncer's program; None if there is none."""
    # Debian puts it where a plain user's PATH does not look.
    found = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    return None if found is None else Path(found)


def browser_path() -> Path | None:
    """Return a browser of the Chromium family; None if there is none."""
    names = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")
    found = next(filter(None, map(shutil.which, names)), None)
    return None if found is None else Path(found)


def missing_packages() -> list[list[str]]:
    """Return the packages that are missing: those of each list are installed together.

    Ubuntu has no Chromium among its packages, and apt installs nothing of a list that it does not
    know in full.
    """
    servers = {
        "postgresql": postgres_folder(),
        "pgbouncer": pgbouncer_path(),
        "rabbitmq-server": rabbitmq_folder(),
    }
    missing = [package for package, found in servers.items() if found is None]
    browser = ["chromium"] if browser_path() is None else []
    return [packages for packages in (missing, browser) if packages]


@contextmanager
def services_kept_from_starting() -> Iterator[None]:
    """Keep services installed in the block from starting; an existing policy stays."""
    try:
        handle = os.open(POLICY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
    except OSError:  # there is one, or we are not root: then apt will say so
        yield
        return
    with os.fdopen(handle, "w") as file:
        file.write(_DENY)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)


def _listed(names: list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def main() -> int:
    """Installs what is missing, or says in a line why not; never a reason to stop."""
    for packages in missing_packages():
        try:
            with services_kept_from_starting():
                apt_install(f"the tests want {_listed(packages)}", packages, LOG)
        except (InstallError, OSError) as error:
            said = str(error).splitlines()  # between the first and the last: what apt said
            line = " ".join(dict.fromkeys([said[0], said[-1]]))
            sys.stdout.write(f"{line} Until then the tests that need them are skipped.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
