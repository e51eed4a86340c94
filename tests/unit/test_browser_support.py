"""The tests' browser says why it ended, not that there is nothing left to stop."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import browser


def test_a_browser_that_has_ended_is_what_the_test_tells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "browser"
    program.write_text("#!/bin/sh\necho no display\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setattr(browser, "require_browser", lambda: program)
    with browser.page() as made, pytest.raises(AssertionError, match=r"browser ended:\nno display"):
        browser.visit(made, "return {}", tmp_path)
