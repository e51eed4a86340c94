"""A real browser, and pages for it: each page runs a script, and tells the test what it found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from deploy.install.servers import browser_path
from tests.support.wait import wait_for

LOADED_S = 180.0
"""Seconds for the browser to start and the page to be done, on a busy machine."""

PAGE = """<!doctype html>
<meta charset="utf-8">
<title>A page of another origin</title>
<script type="module">
const tell = (found) => fetch("/told", { method: "POST", body: JSON.stringify(found) });
try {
  await tell(await (async () => { %s })());
} catch (error) {
  await tell({ failed: String(error) });
}
</script>
"""


def require_browser() -> Path:
    """Skip the test where no browser is installed; in continuous integration, fail."""
    found = browser_path()
    if found is None:
        said = "no browser is installed (Debian's chromium)"
        if os.environ.get("CI"):
            pytest.fail(said)
        pytest.skip(said)
    return found


class Page:
    """A page at an origin of its own, and what its script returned."""

    def __init__(self) -> None:
        self.script = ""
        self.told: dict[str, Any] | None = None
        page = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200 if self.path == "/" else 404, (PAGE % page.script).encode())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                page.told = json.loads(body)
                self._answer(200, b"")

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.origin = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def page() -> Iterator[Page]:
    """A page that is served until the end of the block."""
    made = Page()
    try:
        yield made
    finally:
        made.close()


def visit(made: Page, script: str, folder: Path) -> dict[str, Any]:
    """What a page's script returns in the browser.

    Args:
        made: the page.
        script: the body of an asynchronous function.
        folder: for the browser's own files.
    """
    made.script, made.told = script, None
    profile, log = folder / "profile", folder / "browser.log"
    command = [
        *(str(require_browser()), "--headless", f"--user-data-dir={profile}"),
        # Root has no sandbox, and containers have a small /dev/shm. The page is ours.
        *("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"),
        *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
        # It calls nobody but this machine.
        *(
            "--disable-sync",
            "--no-proxy-server",
            "--host-resolver-rules=MAP * ~NOTFOUND,EXCLUDE 127.0.0.1",
        ),
        f"{made.origin}/",
    ]
    with log.open("wb") as said:
        browser = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)

    def told() -> bool:
        assert browser.poll() is None, f"the browser ended:\n{log.read_text(errors='replace')}"
        return made.told is not None

    try:
        wait_for(told, "the page is done", LOADED_S)
    finally:
        # It has processes of its own. If it has ended, that is what the test says.
        with suppress(ProcessLookupError):
            os.killpg(browser.pid, signal.SIGKILL)
        browser.wait()
    assert made.told is not None
    return made.told
