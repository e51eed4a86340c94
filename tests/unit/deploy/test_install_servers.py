"""The servers that only the tests need: installed where that can be, and else a line."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from deploy.install import servers
from deploy.install.errors import InstallError


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without them; the file that keeps services from starting."""
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(servers, "postgres_folder", lambda: None)
    monkeypatch.setattr(servers, "pgbouncer_path", lambda: None)
    monkeypatch.setattr(servers, "rabbitmq_folder", lambda: None)
    monkeypatch.setattr(servers, "browser_path", lambda: None)
    monkeypatch.setattr(servers, "POLICY", policy)
    return policy


def test_where_they_are_nothing_is_done(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(servers, "missing_packages", list)
    monkeypatch.setattr(servers, "apt_install", None)
    assert servers.main() == 0


def test_nothing_that_is_installed_is_started(bare: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def apt_install(why: str, packages: list[str], log: Path) -> None:
        asked.append(packages)
        assert stat.S_IMODE(bare.stat().st_mode) & stat.S_IXUSR
        assert "exit 101" in bare.read_text()

    monkeypatch.setattr(servers, "apt_install", apt_install)
    assert servers.main() == 0
    # Apart, for what cannot be had must not keep the others away.
    assert asked == [["postgresql", "pgbouncer", "rabbitmq-server"], ["chromium"]]
    assert not bare.exists()


def test_a_policy_that_is_there_stays(bare: Path, monkeypatch: pytest.MonkeyPatch):
    bare.write_text("mine")
    monkeypatch.setattr(servers, "apt_install", lambda *_: None)
    assert servers.main() == 0
    assert bare.read_text() == "mine"


def test_where_they_cannot_be_installed_a_line_says_so(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert servers.main() == 0
    said = capsys.readouterr().out
    servers_line, browser_line = said.splitlines()
    assert "sudo apt-get install -y postgresql pgbouncer rabbitmq-server" in servers_line
    assert "sudo apt-get install -y chromium" in browser_line
    assert said.count("skipped") == 2


def test_what_apt_says_is_left_to_the_log(
    bare: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def apt_install(*_: object) -> None:
        raise InstallError("The tests want it, and apt failed:\nno\nnetwork\nType: apt-get it")

    monkeypatch.setattr(servers, "apt_install", apt_install)
    assert servers.main() == 0
    said = capsys.readouterr().out
    assert said.startswith("The tests want it, and apt failed: Type: apt-get it")
    assert "network" not in said
    assert not bare.exists()
