"""The set-up, apart from its builds: which Python, what is pinned, what the person sees."""

import io
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from deploy.install import debian, environment, pins, progress
from deploy.install.errors import InstallError, StepFailed
from deploy.install.machine import Compiler

ROOT = Path(__file__).parents[3]
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
PYPROJECT = (ROOT / "pyproject.toml").read_text()


# which Python


def start(
    folder: Path, pythons: dict[str, str], **environ: str
) -> subprocess.CompletedProcess[str]:
    """Runs `start.sh` with only `pythons` on PATH: name to `new`, `old` or `absent` (a shim)."""
    status = {"new": 0, "old": 1, "absent": 127}
    for name, age in pythons.items():
        script = folder / name
        script.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit {status[age]}\necho "{name} $*"\n')
        script.chmod(0o755)
    return subprocess.run(
        [ROOT / "deploy" / "install" / "start.sh", "--extras", "dev"],
        env={"PATH": str(folder), **environ},
        capture_output=True,
        text=True,
    )


def test_the_first_python_that_is_new_enough_runs_the_set_up(tmp_path: Path):
    started = start(tmp_path, {"python3.13": "absent", "python3.12": "new", "python3": "new"})
    assert started.stdout == "python3.12 -m deploy.install --extras dev\n"


def test_python3_will_do(tmp_path: Path):
    started = start(tmp_path, {"python3.11": "old", "python3": "new"})
    assert started.stdout == "python3 -m deploy.install --extras dev\n"


def test_the_python_that_was_named_is_taken(tmp_path: Path):
    started = start(tmp_path, {"python3.12": "new", "mine": "new"}, PYTHON="mine")
    assert started.stdout == "mine -m deploy.install --extras dev\n"


def test_an_old_python_that_was_named_is_refused_in_one_line(tmp_path: Path):
    started = start(tmp_path, {"python3.12": "new", "mine": "old"}, PYTHON="mine")
    assert started.returncode == 1
    assert started.stderr == "PYTHON=mine is not a Python 3.11 or later.\n"


def test_no_python_at_all_says_what_to_do(tmp_path: Path):
    started = start(tmp_path, {"python3": "old"})
    assert started.returncode == 1
    assert "apt-get install" in started.stderr
    assert "PYTHON=" not in started.stdout


# what the system must have


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian with a Python and nothing else, seen by a user who is not root."""
    monkeypatch.setattr(debian, "makes_venvs", lambda: False)
    monkeypatch.setattr(debian, "find_compiler", lambda _: None)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


@pytest.mark.usefixtures("bare")
def test_without_root_the_one_line_to_type_is_said(tmp_path: Path):
    venv = f"python3.{sys.version_info.minor}-venv"
    with pytest.raises(InstallError) as error:
        debian.need_system(tmp_path / "log")
    assert str(error.value).endswith(f"Type: sudo apt-get install -y {venv} build-essential")


@pytest.mark.usefixtures("bare")
def test_as_root_what_is_missing_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    ran: list[list[str]] = []

    def run(title: str, command: list[str], log: Path, **_: object) -> None:
        ran.append(command)
        compiler = Compiler("/usr/bin/c++", "c++ 12.2.0", "gcc")
        monkeypatch.setattr(debian, "find_compiler", lambda _: compiler)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(debian, "makes_venvs", lambda: True)
    monkeypatch.setattr(debian, "run", run)
    assert debian.need_system(tmp_path / "log").family == "gcc"
    assert [command[:2] for command in ran] == [["apt-get", "update"], ["apt-get", "install"]]
    assert ran[1][-1] == "build-essential"


@pytest.mark.usefixtures("bare")
def test_where_there_is_no_apt_it_is_not_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(InstallError, match=r"Debian's python3\.\d+-venv build-essential"):
        debian.need_system(tmp_path / "log")


# what is pinned


def pinned() -> dict[str, list[str]]:
    versions: dict[str, list[str]] = {}
    for line in CONSTRAINTS.splitlines():
        if not line.startswith("#"):
            requirement = Requirement(line)
            (specifier,) = requirement.specifier
            assert specifier.operator == "=="
            versions.setdefault(pins.canonical(requirement.name), []).append(specifier.version)
    return versions


def test_all_that_the_project_names_is_pinned_as_it_wants_it():
    versions = pinned()
    for wanted in map(Requirement, pins.requirements(tomllib.loads(PYPROJECT))):
        name = pins.canonical(wanted.name)
        assert name in versions, f"{name} is not pinned: make pins"
        for version in versions[name]:
            assert version in wanted.specifier, f"{name}=={version} does not fit {wanted}"


def test_what_builds_things_is_pinned():
    for tool in pins.TOOLS:
        assert environment.pinned(tool) in pinned()[tool]


def test_constraints_name_no_address():
    assert not re.search(r"://|@|--", CONSTRAINTS)


def test_pins_are_one_line_where_all_pythons_agree():
    found = {
        "3.9": {"a": "1", "b": "1", "c": "1"},
        "3.10": {"a": "1", "b": "2", "c": "2"},
        "3.11": {"a": "1", "b": "2", "c": "3", "d": "1"},
    }
    assert pins.merge(found) == [
        "a==1",
        'b==1 ; python_version < "3.10"',
        'b==2 ; python_version >= "3.10"',
        'c==1 ; python_version < "3.10"',
        'c==2 ; python_version >= "3.10" and python_version < "3.11"',
        'c==3 ; python_version >= "3.11"',
        "d==1",
    ]


def test_settings_of_tools_make_no_new_installation():
    digest = environment.project_digest
    assert digest(PYPROJECT) == digest(PYPROJECT + "\n[tool.another]\nx = 1\n")
    assert digest(PYPROJECT) != digest(PYPROJECT.replace("pydantic>=", "pydantic>=1,>="))


# what the person sees


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        ("  [57/140] /usr/bin/c++ -DGGML -o x.o -c x.cpp", "[57/140]"),
        ("[1/9] Building CXX object", "[1/9]"),
        ("  -- Found OpenMP: TRUE", None),
        ("warning: x[1/2] is odd", None),
    ],
)
def test_ninjas_count_is_found(line: str, detail: str | None):
    assert progress.ninja_detail(line) == detail


def test_pips_doings_are_found():
    assert progress.pip_detail("Collecting celery[redis]<5.8,>=5.7") == "Collecting celery[redis]"
    assert (
        progress.pip_detail("Installing collected packages: a") == "Installing collected packages"
    )
    assert progress.pip_detail("  Building wheel for x (setup.py)") == "Building wheel for x"
    assert progress.pip_detail("Requirement already satisfied: x") is None


@pytest.mark.parametrize(
    ("seconds", "text"), [(7.9, "0:07"), (754.0, "12:34"), (3723.0, "1:02:03")]
)
def test_elapsed(seconds: float, text: str):
    assert progress.elapsed(seconds) == text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_line_is_redrawn():
    now = [0.0]
    out = Terminal()
    line = progress.Line("Compiling", out, clock=lambda: now[0])
    line.show(None)
    now[0] = 61.0
    line.show("[57/83]")
    line.end("done")
    assert out.getvalue().split("\r\x1b[2K") == [
        "",
        "Compiling  0:00",
        "Compiling  [57/83]  1:01",
        "Compiling: done after 1:01\n",
    ]


def test_elsewhere_there_is_a_line_now_and_then():
    now = [0.0]
    out = io.StringIO()
    line = progress.Line("Compiling", out, clock=lambda: now[0])
    for second in range(40):
        now[0] = float(second)
        line.show(f"[{second}/83]")
    line.end("done")
    assert out.getvalue().splitlines() == [
        "Compiling  [3/83]  0:03",
        "Compiling  [18/83]  0:18",
        "Compiling  [33/83]  0:33",
        "Compiling: done after 0:39",
    ]


def test_a_step_that_fails_shows_the_end_of_what_it_said(tmp_path: Path):
    log = tmp_path / "deep" / "log"
    script = "import sys; print(*range(100), sep='\\n'); print('no', file=sys.stderr); sys.exit(7)"
    with pytest.raises(StepFailed) as failed:
        progress.run("Working", [sys.executable, "-c", script], log)
    assert failed.value.status == 7
    lines = failed.value.tail.splitlines()
    assert len(lines) == progress.TAIL_LINES
    assert "no" in lines
    assert str(log) in str(failed.value)
    assert "\n50\n" in log.read_text()
