"""One try at a real socket: what a receiver may do to us, and where we never go."""

from __future__ import annotations

import asyncio
import datetime
import ssl
import threading
from ipaddress import ip_address

import httpcore
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from herder.webhooks.addresses import Rules, parse_networks
from herder.webhooks.messages import WebhookRequest
from herder.webhooks.schedule import Reply
from herder.webhooks.sending import AddressRefused, HttpSender, JudgedBackend
from tests.support.receiver import Receiver, drips, holds, says
from tests.support.wait import wait_for

HERE = Rules(parse_networks("127.0.0.1"), http=True)
STRICT = Rules(http=True)


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


@pytest.fixture
def make_sender():
    made = []

    def make(rules=HERE, addresses=("127.0.0.1",), timeout_s=30.0, **given):
        given.setdefault("resolver", lambda _host, _port: list(addresses))
        made.append(HttpSender(rules, timeout_s=timeout_s, **given))
        return made[-1]

    yield make
    for one in made:
        one.close()


def request_to(url, body=b'{"type":"webhook.test"}'):
    headers = {"content-type": "application/json", "webhook-id": "msg_1"}
    return WebhookRequest(url, headers, body)


def one_try(sender, url, **given):
    """What comes of one try."""
    came: list[Reply] = []
    there = threading.Event()

    def done(reply):
        came.append(reply)
        there.set()

    sender.send(request_to(url, **given), done)
    assert there.wait(60), "nothing came of it"
    (reply,) = came
    return reply


def test_a_message_arrives_as_it_was_signed(make_sender, receiver, monkeypatch):
    # Whoever starts a herder has a proxy for other things: nothing of ours goes there.
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    body = b'{"n":' + b"1" * 300_000 + b"}"
    reply = one_try(make_sender(), f"http://ada.test:{receiver.port}/a?b=c", body=body)
    assert (reply.status, reply.trouble, reply.delivered) == (204, None, True)
    (taken,) = receiver.taken
    assert taken.line == "POST /a?b=c HTTP/1.1"
    assert taken.body == body
    assert taken.headers["host"] == f"ada.test:{receiver.port}"
    assert taken.headers["webhook-id"] == "msg_1"


def test_a_redirect_is_an_answer_like_any_other_and_is_not_followed(make_sender, receiver):
    other = Receiver()
    for status in (301, 302, 307, 308):
        receiver.behave = says(status, f"Location: http://127.0.0.1:{other.port}/")
        reply = one_try(make_sender(), f"http://ada.test:{receiver.port}/")
        assert (reply.status, reply.delivered) == (status, False)
    assert other.connections == 0
    other.close()


def test_what_a_receiver_says_besides_its_status_is_hardly_looked_at(make_sender, receiver):
    sender = make_sender()
    receiver.behave = says(503, "Retry-After: 77", body=b"x" * 5_000_000)
    reply = one_try(sender, f"http://ada.test:{receiver.port}/")
    assert (reply.status, reply.retry_after) == (503, "77")
    # Its status has come: a body that never ends changes nothing of it.
    receiver.behave = drips(b"Content-Length: 1000000\r\n\r\n" + b"x" * 10)
    assert one_try(sender, f"http://ada.test:{receiver.port}/").delivered


def test_a_receiver_that_takes_its_time_is_left(make_sender, receiver):
    sender = make_sender(timeout_s=0.5)
    receiver.behave = holds
    assert one_try(sender, f"http://ada.test:{receiver.port}/") == Reply(None, "timeout")
    # Each read brings something: the try as a whole has its time all the same.
    receiver.behave = drips(b"X-More: 1\r\n")
    assert one_try(sender, f"http://ada.test:{receiver.port}/") == Reply(None, "timeout")


def test_what_is_no_answer_has_a_name(make_sender, receiver):
    sender = make_sender()
    url = f"http://ada.test:{receiver.port}/"
    receiver.behave = lambda line, _taken: line.sendall(b"SSH-2.0-OpenSSH_9\r\n\r\n")
    assert one_try(sender, url) == Reply(None, "no_http")
    receiver.behave = lambda line, _taken: line.close()
    assert one_try(sender, url).trouble in ("no_http", "cut_off")
    receiver.behave = lambda line, _taken: line.sendall(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 500_000)
    assert one_try(sender, url).trouble in ("no_http", "cut_off")
    receiver.close()
    assert one_try(sender, url) == Reply(None, "unreachable")


def test_a_name_that_resolves_to_where_nothing_is_sent_is_not_connected_to(make_sender, receiver):
    url = f"http://ada.test:{receiver.port}/"
    for addresses in (
        ["127.0.0.1"],
        ["10.0.0.7"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["169.254.169.254"],
        ["8.8.8.8", "127.0.0.1"],  # one of them is enough
    ):
        sender = make_sender(STRICT, addresses)
        assert one_try(sender, url) == Reply(None, "address_refused"), addresses
    # What an address once was allowed for is judged again when it is used.
    for literal in ("127.0.0.1", "2130706433", "[::1]"):
        sender = make_sender(STRICT, ["127.0.0.1"])
        reply = one_try(sender, f"http://{literal}:{receiver.port}/")
        assert reply == Reply(None, "address_refused"), literal
    assert receiver.connections == 0


def test_what_the_system_resolves_itself_is_judged_too(receiver):
    sender = HttpSender(STRICT, timeout_s=30)
    url = f"http://localhost:{receiver.port}/"
    assert one_try(sender, url) == Reply(None, "address_refused")
    sender.close()
    assert receiver.connections == 0


def test_a_name_without_an_address_has_a_name_for_that(make_sender):
    def nothing(_host, _port):
        raise OSError("no such name")

    assert one_try(make_sender(resolver=nothing), "http://ada.test/").trouble == "name_not_found"
    assert one_try(make_sender(addresses=()), "http://ada.test/").trouble == "name_not_found"


class Noted(httpcore.AsyncNetworkBackend):
    """Connects to nothing, and notes where it was to connect."""

    def __init__(self):
        self.connected = []

    async def connect_tcp(self, host, *_rest, **_more):
        self.connected.append(host)
        raise httpcore.ConnectError("nobody there")

    async def sleep(self, seconds):
        raise AssertionError(f"it tries once, and does not wait {seconds} s")


def test_a_name_that_is_bound_to_another_address_in_between_gains_nothing():
    answers = [["93.184.216.34", "2606:2800:220:1::1"], ["127.0.0.1"], ["10.0.0.1"]]
    asked, inner = [], Noted()

    def rebinding(host, port):
        asked.append((host, port))
        return answers[len(asked) - 1]

    backend = JudgedBackend(Rules(), rebinding, inner)
    # Judged and connected to by one look: a second would have said 127.0.0.1.
    with pytest.raises(httpcore.ConnectError):
        asyncio.run(backend.connect_tcp("ada.test", 443))
    assert inner.connected == ["93.184.216.34", "2606:2800:220:1::1"]
    assert all(ip_address(one) for one in inner.connected), "never a name, to be resolved again"
    assert asked == [("ada.test", 443)]
    for _ in range(2):
        with pytest.raises(AddressRefused):
            asyncio.run(backend.connect_tcp("ada.test", 443))
    assert len(inner.connected) == 2
    with pytest.raises(AddressRefused):
        asyncio.run(backend.connect_unix_socket("/run/docker.sock"))


def test_a_resolver_that_hangs_holds_nobody_up(make_sender, receiver):
    stuck = threading.Event()

    def hangs(host, _port):
        if host == "slow.test":
            stuck.wait(60)
        return ["127.0.0.1"]

    sender = make_sender(timeout_s=1.0, resolver=hangs)
    slow = []
    for _ in range(20):
        sender.send(request_to(f"http://slow.test:{receiver.port}/"), slow.append)
    assert one_try(sender, f"http://ada.test:{receiver.port}/").delivered
    wait_for(lambda: len(slow) == 20, "each of them is left")
    assert {one.trouble for one in slow} == {"timeout"}
    stuck.set()


def certificate(folder, name):
    """A certificate for a name, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / f"{name}.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return file


def test_tls_asks_for_and_checks_the_name_though_an_address_is_connected_to(make_sender, tmp_path):
    file = certificate(tmp_path, "ada.test")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(file)
    asked = []
    serving.sni_callback = lambda _socket, name, _context: asked.append(name)
    receiver = Receiver(tls=serving)

    def trusting():
        return ssl.create_default_context(cafile=file)

    rules = Rules(parse_networks("127.0.0.1"))
    url = f"https://ada.test:{receiver.port}/"
    assert one_try(make_sender(rules, tls=trusting), url).delivered
    assert receiver.taken[0].headers["host"] == f"ada.test:{receiver.port}"
    assert asked == ["ada.test"]
    # Another name at the same address, and an authority that nobody knows.
    wrong = f"https://eve.test:{receiver.port}/"
    assert one_try(make_sender(rules, tls=trusting), wrong) == Reply(None, "tls")
    assert one_try(make_sender(rules), url) == Reply(None, "tls")
    assert len(receiver.taken) == 1
    receiver.close()


def test_what_ends_the_event_loop_ends_no_later_message(make_sender, receiver, monkeypatch):
    sender = make_sender()
    post, url = sender.post, f"http://ada.test:{receiver.port}/"

    async def die(_request):
        raise SystemExit

    monkeypatch.setattr(sender, "post", die)
    assert one_try(sender, url).trouble == "broken"
    monkeypatch.setattr(sender, "post", post)
    assert one_try(sender, url).status == 204


def test_closing_gives_up_what_is_under_way(make_sender, receiver):
    sender = make_sender()
    receiver.behave = holds
    came = []
    sender.send(request_to(f"http://ada.test:{receiver.port}/"), came.append)
    wait_for(lambda: receiver.taken, "it arrives")
    sender.close()
    assert came == []
