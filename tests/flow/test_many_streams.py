"""Five hundred streams open at once on one gateway: its memory is bounded, and comes back."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.wait import wait_for

STREAMS = 500
KEYS = 50
TOKENS = 30
MAX_KB_A_STREAM = 400
"""Resident memory that one open stream may cost."""


def resident_kb(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


class Streams:
    """Streams of orders, each on a connection of its own, read by one event loop."""

    def __init__(self, url, gateway):
        self._at = urlsplit(url)
        self._pid = gateway.process.pid
        self.begun = 0
        self.highest_kb = 0

    async def follow(self, order, key, began):
        """The text of an order's events, to the receipt."""
        reader, writer = await asyncio.open_connection(self._at.hostname, self._at.port)
        head = f"GET /v1/orders/{order}/events HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        writer.write(f"{head}Authorization: Bearer {key}\r\n\r\n".encode())
        kind, text = None, ""
        async for line in reader:
            name, _, value = line.decode().rstrip().partition(": ")
            if name == "event":
                if kind is None:
                    self.begun += 1
                    if self.begun == STREAMS:
                        began.set()
                kind = value
            elif name == "data" and kind == "text":
                text += json.loads(value)["text"]
            elif name == "data" and kind == "receipt":
                break
        writer.close()
        return order, text

    async def all_of(self, orders, keys, when_open):
        """The texts of all, by order; `when_open` is called in a thread once all are open."""
        began = asyncio.Event()
        following = [
            asyncio.create_task(self.follow(order, keys[number % len(keys)], began))
            for number, order in enumerate(orders)
        ]
        watching = asyncio.create_task(self._watch())
        await asyncio.wait_for(began.wait(), 120)
        await asyncio.to_thread(when_open)
        texts = dict(await asyncio.wait_for(asyncio.gather(*following), 240))
        watching.cancel()
        return texts

    async def _watch(self):
        while True:
            self.highest_kb = max(self.highest_kb, resident_kb(self._pid))
            await asyncio.sleep(0.2)


def test_five_hundred_streams_at_once(herd):
    keys = [herd.client.api_keys.create("default")[1] for _ in range(KEYS)]
    gateway, url = herd.start_gateway()
    pid = gateway.process.pid
    redis = herd.redis.client()

    def round_of(number, when_open):
        orders = [
            herd.client.submit(f"Number {number}.{one}", TOKENS, account="default").order
            for one in range(STREAMS)
        ]
        streams = Streams(url, gateway)
        texts = asyncio.run(streams.all_of(orders, keys, when_open))
        for order in orders:
            assert texts[order] == herd.client.answer(order).text
            assert len(texts[order].split()) == TOKENS
        return streams.highest_kb

    def files():
        return len(os.listdir(f"/proc/{pid}/fd"))

    # So that what is loaded once, and the threads' stacks, count for no stream.
    herd.client.accounts.deposit("default", 10**9, "00000000-0000-4000-8000-000000000000")
    open_before, redis_before = files(), len(redis.client_list())
    before_kb = resident_kb(pid)
    high_kb = round_of(1, lambda: herd.start_worker(HERD_SLOTS="32", HERD_STUB_STEP_MS="20"))
    each_kb = (high_kb - before_kb) / STREAMS
    print(f"{before_kb} kB before, {high_kb} kB with {STREAMS} streams: {each_kb:.0f} kB each")
    print(f"files {open_before}, {files()}; redis {redis_before}, {len(redis.client_list())}")
    assert each_kb < MAX_KB_A_STREAM

    again_kb = round_of(2, lambda: None)
    assert again_kb - high_kb < (high_kb - before_kb) / 2, "what is done once more costs no more"
    wait_for(lambda: files() < open_before + 100, "its connections are closed")
    wait_for(lambda: len(redis.client_list()) < redis_before + 50, "Redis is rid of them too")
    print(f"{again_kb} kB with {STREAMS} streams once more, {resident_kb(pid)} kB after")
    print(f"files {files()}; redis {len(redis.client_list())}")
