"""Bodies and answers that are compressed with gzip: what is unpacked, bounded, packed, or left."""

from __future__ import annotations

import asyncio
import gzip
import os
import zlib

import pytest

from herder.web import gzip_answers, gzip_bodies
from herder.web.gzip_answers import LONG_BYTES, MIN_BYTES, GzipAnswers
from herder.web.gzip_bodies import MAX_MEMBERS, PIECE_BYTES
from herder.web.serving import BoundedBody

MOST = 300_000


class Line:
    """A call to an app, whose body comes in pieces; what is sent back."""

    def __init__(self, pieces=(b"",), **headers) -> None:
        self.pieces = list(pieces)
        self.scope = {
            "type": "http",
            "method": "POST",
            "headers": [
                (name.replace("_", "-").encode(), value) for name, value in headers.items()
            ],
        }
        self.sent = []
        self.biggest = 0

    async def receive(self):
        if not self.pieces:
            return {"type": "http.disconnect"}
        piece = self.pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(self.pieces)}

    async def send(self, message):
        self.sent.append(message)

    def call(self, app):
        asyncio.run(app(self.scope, self.receive, self.send))
        return self

    @property
    def status(self):
        return self.sent[0]["status"]

    @property
    def headers(self):
        return dict(self.sent[0]["headers"])

    @property
    def body(self):
        return b"".join(one["body"] for one in self.sent[1:])


async def answer(send, body, *, more=False, headers=()):
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body, "more_body": more})


def reading(line):
    """An app that answers with what it was sent, once it has it all."""

    async def app(_, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            assert message["type"] == "http.request"
            line.biggest = max(line.biggest, len(message["body"]))
            body, more = body + message["body"], message["more_body"]
        assert (await receive())["type"] == "http.disconnect"
        await answer(send, body)

    return BoundedBody(app, MOST)


def cut(data, size):
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("coding", [b"gzip", b"x-gzip", b" GZip "])
@pytest.mark.parametrize("size", [1, 7, 10**6])
@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"a" * MOST, b"ab" * (PIECE_BYTES // 2)],
    ids=["none", "short", "all", "piece"],
)
def test_a_body_comes_out_as_it_was_before(body, size, coding):
    packed = gzip.compress(body)
    line = Line(cut(packed, size), content_encoding=coding)
    assert line.call(reading(line)).body == body
    assert line.biggest <= PIECE_BYTES
    # Members follow one another; pieces end anywhere.
    line = Line(cut(packed + gzip.compress(b"more"), size), content_encoding=coding)
    if len(body) + 4 <= MOST:
        assert line.call(reading(line)).body == body + b"more"
    else:
        assert line.call(reading(line)).status == 413


def test_what_cannot_be_compressed_comes_out_too():
    body = os.urandom(200_000)
    line = Line(cut(gzip.compress(body), 1000), content_encoding=b"gzip")
    assert line.call(reading(line)).body == body


def test_a_body_without_a_coding_stays_as_it_is():
    packed = gzip.compress(b"{}")
    for headers in ({}, {"content_encoding": b"identity"}):
        line = Line([packed], **headers)
        assert line.call(reading(line)).body == packed


WHOLE = gzip.compress(b"{}", mtime=0)
BROKEN = {
    "nothing": b"",
    "plain": b"{}",
    "cut": WHOLE[:-1],
    "only a head": WHOLE[:4],
    "no deflate": WHOLE[:2] + bytes(40),
    "more behind it": WHOLE + b"{}",
    "another sum": WHOLE[:-8] + bytes(8),
}


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN)
def test_what_is_no_gzip_is_refused(sent):
    line = Line([sent], content_encoding=b"gzip")
    line.call(reading(line))
    assert line.status == 400
    assert b"The body is not valid gzip, or is gzip of more than 64 members." in line.body


@pytest.mark.parametrize("coding", [b"br", b"deflate", b"zstd", b"gzip, gzip", b"gzip, br"])
def test_other_codings_are_refused_with_what_is_taken(coding):
    line = Line([b"{}"], content_encoding=coding)
    line.call(reading(line))
    assert (line.status, line.headers[b"accept-encoding"]) == (415, b"gzip")
    assert b"must be gzip, or none" in line.body


def test_two_codings_in_two_headers_are_two():
    line = Line([b"{}"], content_encoding=b"br")
    line.scope["headers"].append((b"content-encoding", b"gzip"))
    assert line.call(reading(line)).status == 415


def test_what_comes_out_is_bounded_and_no_more_is_unpacked_than_that():
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < MOST
    had = 0

    async def app(_, receive, send):
        nonlocal had
        while True:
            had += len((await receive())["body"])

    line = Line([bomb], content_encoding=b"gzip").call(BoundedBody(app, MOST))
    assert line.status == 413
    assert b"longer than 300000 bytes" in line.body
    assert had <= MOST


def test_what_is_sent_is_bounded_too_though_nothing_comes_out_of_it():
    head, empty_block = WHOLE[:10], b"\x00\x00\x00\xff\xff"
    line = Line([head, *[empty_block * 4000] * 100], content_encoding=b"gzip")
    assert line.call(reading(line)).status == 413
    assert line.pieces


@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_members_may_be_as_many_as_is_said(size):
    members = [gzip.compress(b"%d" % one) for one in range(MAX_MEMBERS)]
    line = Line(cut(b"".join(members), size), content_encoding=b"gzip")
    assert line.call(reading(line)).body == b"".join(b"%d" % one for one in range(MAX_MEMBERS))
    line = Line(cut(b"".join(members) + gzip.compress(b"one more"), size), content_encoding=b"gzip")
    assert line.call(reading(line)).status == 400


@pytest.mark.parametrize("size", [1000, MOST])
def test_many_empty_members_are_refused_and_not_unpacked_one_by_one(size, monkeypatch):
    empty = gzip.compress(b"")
    sent = cut(empty * (MOST // len(empty)), size)
    made = 0
    make = zlib.decompressobj

    def counted(*args):
        nonlocal made
        made += 1
        return make(*args)

    monkeypatch.setattr(gzip_bodies.zlib, "decompressobj", counted)
    line = Line(sent, content_encoding=b"gzip")
    assert line.call(reading(line)).status == 400
    assert b"not valid gzip" in line.body
    assert made <= MAX_MEMBERS


# Answers


def whole(body, **more):
    async def app(scope, receive, send):
        length = (b"content-length", str(len(body)).encode())
        headers = [(one.replace("_", "-").encode(), value) for one, value in more.items()]
        await answer(send, body, headers=[length, *headers])

    return GzipAnswers(app)


LONG = b'{"text": "' + b"long and longer, " * 200 + b'"}'


@pytest.mark.parametrize(
    "accepted", [b"gzip", b"deflate, GZIP;q=0.5", b"br, x-gzip", b"*", b"gzip; q=1.0"]
)
@pytest.mark.parametrize("body", [LONG, LONG * (LONG_BYTES // len(LONG) + 1)], ids=["long", "very"])
def test_a_long_answer_is_compressed_for_who_takes_it(accepted, body):
    line = Line(accept_encoding=accepted).call(whole(body))
    assert (line.headers[b"content-encoding"], line.headers[b"vary"]) == (
        b"gzip",
        b"Accept-Encoding",
    )
    assert int(line.headers[b"content-length"]) == len(line.body) < len(body) / 5
    assert gzip.decompress(line.body) == body


@pytest.mark.parametrize(
    "accepted", [b"", b"identity", b"br", b"gzip;q=0", b"gzip; q=0.000, *", b"*;q=0", b"nogzip"]
)
def test_it_is_left_for_who_does_not(accepted):
    line = Line(accept_encoding=accepted).call(whole(LONG))
    assert b"content-encoding" not in line.headers
    # A cache may not give it to who takes only the other.
    assert line.headers[b"vary"] == b"Accept-Encoding"
    assert line.body == LONG
    assert int(line.headers[b"content-length"]) == len(LONG)


def test_short_answers_and_what_is_coded_already_are_left():
    line = Line(accept_encoding=b"gzip").call(whole(b"a" * (MIN_BYTES - 1)))
    assert line.headers == {b"content-length": str(MIN_BYTES - 1).encode()}
    line = Line(accept_encoding=b"gzip").call(whole(LONG, content_encoding=b"br"))
    assert (line.headers[b"content-encoding"], line.body) == (b"br", LONG)


def test_each_piece_of_a_stream_is_sent_before_the_next_is_made(monkeypatch):
    monkeypatch.setattr(gzip_answers, "_compress", None)
    line = Line(accept_encoding=b"gzip")

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for count in range(3):
            assert len(line.sent) == count + 1
            piece = {"type": "http.response.body", "body": LONG, "more_body": True}
            await send(piece)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    line.call(GzipAnswers(app))
    assert line.headers == {}
    assert line.body == LONG * 3
