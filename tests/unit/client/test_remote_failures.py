"""What goes wrong between a client and a gateway: one sentence each, and a code that stays."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from typer.testing import CliRunner

from herder import AsyncClient, Client, errors
from herder.cli.app import app
from herder.client.http import async_client as aio
from herder.client.http import remote_herd as sync
from herder.client.http import retrying
from herder.client.http.address import Address, named_address

KEY = "herd_k_s"


@pytest.fixture(autouse=True)
def pauses(monkeypatch, clean_environment) -> list[float]:
    """How long was waited between the tries; nothing really is."""
    slept: list[float] = []

    async def doze(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(sync.time, "sleep", slept.append)
    monkeypatch.setattr(aio.asyncio, "sleep", doze)
    return slept


@contextmanager
def serving(
    answer: Callable[[BaseHTTPRequestHandler], None], context: ssl.SSLContext | None = None
) -> Iterator[str]:
    """A server that is no herd's: its host and port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            answer(self)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def page(status: int, content: str = "<html>", **headers: str) -> Callable[[Any], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in {"Content_Type": "text/html", **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content.encode())

    return answer


def failure(url: str, key: str = KEY) -> errors.HerdError:
    """How both clients fail there, which is the same; and the command says it in one line."""
    with pytest.raises(errors.HerdError) as one:
        Client(url, key).info()

    async def ask() -> None:
        async with AsyncClient(url, key) as herd:
            await herd.info()

    with pytest.raises(errors.HerdError) as other:
        asyncio.run(ask())
    assert (one.value.code, one.value.message) == (other.value.code, other.value.message)
    typed = CliRunner().invoke(app, ["--url", url, "info"], env={"HERD_API_KEY": key})
    assert (typed.stdout, typed.stderr) == ("", one.value.message + "\n")
    passing = isinstance(one.value, (errors.HerdUnavailable, errors.RateLimited))
    assert typed.exit_code == (1 if passing else 2)
    assert key not in one.value.message
    assert one.value.message.endswith((".", "?"))
    return one.value


def test_nobody_listens(pauses):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    told = failure(f"http://127.0.0.1:{port}")
    assert type(told) is errors.HerdUnavailable
    assert f"nothing listens at http://127.0.0.1:{port} (connection refused)" in told.message
    assert len(pauses) == 3 * (retrying.MAX_TRIES - 1)


def test_a_host_that_is_not_known_is_told_at_once(pauses, monkeypatch):
    def unknown(*_: object, **__: object) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    told = failure("https://herd.invalid")
    assert (told.code, pauses) == ("setup_error", [])
    assert "https://herd.invalid does not exist" in told.message


def test_a_host_that_cannot_be_looked_up_now_is_asked_for_again(pauses, monkeypatch):
    def away(*_: object, **__: object) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", away)
    told = failure("https://herd.invalid")
    assert told.code == "herd_unavailable"
    assert "Temporary failure" in told.message
    assert len(pauses) == 3 * (retrying.MAX_TRIES - 1)


@pytest.fixture
def self_signed(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """TLS with a certificate that nobody trusts yet, and that certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "herd")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "certificate.pem"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = tmp_path / "key.pem"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, private)
    return context, pem


def test_a_certificate_that_is_not_trusted(pauses, self_signed, monkeypatch):
    context, pem = self_signed
    with serving(page(404), context) as where:
        told = failure(f"https://{where}")
        assert (told.code, pauses) == ("setup_error", [])
        assert f"The certificate of https://{where} is not trusted (self" in told.message
        # What the sentence says helps, helps: it gets as far as the answer.
        monkeypatch.setenv("SSL_CERT_FILE", str(pem))
        assert "it answered 404" in failure(f"https://{where}").message
        monkeypatch.setenv("SSL_CERT_FILE", str(pem.parent / "missing.pem"))
        assert "SSL_CERT_FILE" in failure(f"https://{where}").message


def test_tls_where_none_is_spoken(pauses):
    with serving(page(200)) as where:
        told = failure(f"https://{where}")
    assert (told.code, pauses) == ("setup_error", [])
    assert "is it an http:// address?" in told.message


@pytest.mark.parametrize(
    ("status", "content", "headers", "kind", "said"),
    [
        (502, "<html>Bad Gateway", {}, errors.HerdUnavailable, "answered 502 Bad Gateway"),
        (503, "", {"Retry_After": "2"}, errors.HerdUnavailable, "503"),
        (504, '"late"', {}, errors.HerdUnavailable, "504"),
        (500, '{"error": 5}', {}, errors.HerdUnavailable, "500"),
        (404, "<html>", {}, errors.SetupError, "is not a herd's gateway"),
        (405, "{}", {}, errors.SetupError, "is not a herd's gateway"),
        (200, "<html>Welcome", {}, errors.SetupError, "is not a herd's gateway"),
        (200, '{"models": 5}', {}, errors.SetupError, "is not a herd's gateway"),
        (200, "[" * 100_000, {}, errors.SetupError, "is not a herd's gateway"),
        (
            308,
            "",
            {"Location": "https://herd.example"},
            errors.SetupError,
            "redirects to https://he",
        ),
        (401, "<html>", {}, errors.Unauthorized, "A proxy in front of the gateway"),
        (407, "<html>", {}, errors.Unauthorized, "A proxy in front of the gateway"),
        (413, "<html>", {}, errors.InvalidRequest, "longer than"),
        (429, "", {"Retry_After": "7"}, errors.RateLimited, "429"),
        (429, "", {"Retry_After": "soon"}, errors.RateLimited, "429"),
    ],
)
def test_what_is_no_herds_answer(pauses, status, content, headers, kind, said):
    with serving(page(status, content, **headers)) as where:
        told = failure(f"http://{where}")
    assert type(told) is kind
    assert said in told.message
    assert len(pauses) == (3 * (retrying.MAX_TRIES - 1) if status in (502, 503, 504) else 0)
    if headers.get("Retry_After") == "2":
        assert pauses[0] == 2
    if isinstance(told, errors.RateLimited):
        assert told.retry_after_s == (7 if headers["Retry_After"] == "7" else 1)


RECEIPT = {
    **dict.fromkeys(("order", "account", "model"), "x"),
    **dict.fromkeys(("needed", "fee", "words", "tokens", "generated", "charged", "returned"), 1),
    **dict.fromkeys(("held", "refunded", "attempts", "submitted_us", "waited_ms", "took_ms"), 1),
    **dict.fromkeys(("worker", "weights", "reference", "failure"), None),
    "state": "completed",
    "multiplier": "1",
    "bid_factor": "1",
    "automatic": True,
    "rates": {"prompt_fee": 1, "fee_per_token": 1},
}
ORDER = {
    "id": "o1",
    "state": "completed",
    "receipt": RECEIPT,
    "text": "so it is",
    "text_deleted": False,
    "finish_reason": "stop",
    "usage": None,
}


def pieces(url: str) -> list[list[str]]:
    """What both clients read of an order's stream there."""
    one = list(sync.RemoteHerd(url, KEY).stream("o1"))

    async def read() -> list[str]:
        async with AsyncClient(url, KEY) as herd:
            return [piece async for piece in (await herd.order("o1")).stream()]

    return [one, asyncio.run(read())]


@pytest.mark.parametrize("refusal", [page(502), page(503), lambda it: it.connection.close()])
def test_a_stream_that_is_refused_for_now_is_asked_for_again(pauses, refusal):
    good = page(
        200,
        'event: text\ndata: {"text": "so it is"}\nid: 1.8\n\nevent: receipt\ndata: {}\n\n',
        Content_Type="text/event-stream",
    )
    streams = iter([refusal, refusal, good] * 2)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        asked = page(200, json.dumps(ORDER))
        (next(streams) if "/events" in handler.path else asked)(handler)

    with serving(answer) as where:
        assert pieces(f"http://{where}") == [["so it is"], ["so it is"]]
    assert len(pauses) == 4


def test_a_stream_of_something_else_is_told_at_once(pauses):
    def answer(handler: BaseHTTPRequestHandler) -> None:
        page(200, "<html>" if "/events" in handler.path else json.dumps(ORDER))(handler)

    with serving(answer) as where:
        url = f"http://{where}"
        with pytest.raises(errors.SetupError, match="not a herd's gateway"):
            next(sync.RemoteHerd(url, KEY).stream("o1"))

        async def read() -> None:
            async with AsyncClient(url, KEY) as herd:
                await anext((await herd.order("o1")).stream())

        with pytest.raises(errors.SetupError, match="not a herd's gateway"):
            asyncio.run(read())
    assert pauses == []


def test_a_gateway_that_hangs_up_is_asked_again(pauses):
    def hang_up(handler: BaseHTTPRequestHandler) -> None:
        handler.connection.close()

    with serving(hang_up) as where:
        told = failure(f"http://{where}")
    assert type(told) is errors.HerdUnavailable
    assert "try again" in told.message
    assert len(pauses) == 3 * (retrying.MAX_TRIES - 1)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "herd.example",
            "ftp://herd.example",
            "https://",
            "https://herd.example:port",
            "http://[",
        ),
        *(
            "https://herd.example:99999",
            "https://me:secret@herd.example",
            "https://herd.example/?a=1",
        ),
        *("https://herd.example/#a", "https://herd example", "http://herd.example\x00"),
    ],
)
def test_what_is_no_address_is_told_before_anything_is_sent(url):
    with pytest.raises(errors.SetupError, match="must be") as told:
        Address.of(url, KEY)
    assert "secret" not in told.value.message
    with pytest.raises(errors.SetupError, match="The address must be"):
        Client(url, KEY)


@pytest.mark.parametrize("key", ["", " ", "two words", "ä", "a\nb", "x" * 5000])
def test_what_is_no_key_is_told_before_anything_is_sent(key):
    with pytest.raises(errors.SetupError, match="not a valid API key") as told:
        Client("https://herd.example", key)
    assert not key.strip() or key.strip() not in told.value.message


def test_the_key_is_in_no_representation():
    assert KEY not in repr(Address.of("https://herd.example/", KEY))
    assert Address.of(" https://herd.example/ ", f"{KEY}\n").url == "https://herd.example"


def test_a_key_may_stand_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HERD_API_KEY", "other")
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert named_address("http://herd.example", file) == Address("http://herd.example", KEY)
    assert named_address(None, None) is None
    with pytest.raises(errors.SetupError, match="give its address with --url"):
        named_address(None, file)
    file.write_bytes(b"\xff")
    with pytest.raises(errors.SetupError, match="does not hold an API key"):
        named_address("http://herd.example", file)
    with pytest.raises(errors.SetupError, match="cannot be read"):
        named_address("http://herd.example", tmp_path)
    monkeypatch.setenv("HERD_API_KEY", " ")
    with pytest.raises(errors.SetupError, match="HERD_API_KEY must hold an API key"):
        named_address("http://herd.example")


OPERATORS = [
    *("init", "up", "gateway", "audit", "account list", "account create x", "account deposit x 5"),
    *("account withdraw x 5", "account transfer x y 5", "account limit x", "orders purge"),
    *("order refund x --reason y", "model set x", "policy show", "policy set --aging-s 1"),
    *("worker list", "worker add x", "worker drain x", "key create x", "key list", "key revoke x"),
]


@pytest.mark.parametrize("words", OPERATORS)
def test_what_needs_the_herders_machine_says_so(words, tmp_path):
    home = tmp_path / "home"
    elsewhere = {"HERD_URL": "http://127.0.0.1:1", "HERD_API_KEY": KEY, "HERD_HOME": str(home)}
    done = CliRunner().invoke(app, words.split(), env=elsewhere, prog_name="herd")
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.output
    assert "works only on the herder's own machine" in done.stderr
    assert "HERD_URL names a herder elsewhere" in done.stderr
    assert not home.exists()
    done = CliRunner().invoke(
        app, ["--url", "http://127.0.0.1:1", *words.split()], env={"HERD_HOME": str(home)}
    )
    assert "--url names a herder elsewhere" in done.stderr


def test_no_argument_takes_a_key():
    """Everybody on a machine can read the arguments of its processes."""
    done = CliRunner().invoke(app, ["--api-key", KEY, "info"], prog_name="herd")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "No such option" in done.stderr
