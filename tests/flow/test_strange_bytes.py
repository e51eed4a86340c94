"""What strangers write into Redis is read by programs that wait: it ends none of their threads."""

from __future__ import annotations

import threading

from redis import Redis

from herder.errors import OrderCancelled, StreamRestarted
from tests.support.wait import wait_for
from workers.transport.streams import ENDED_CHANNEL
from workers.wire import text_stream


def test_bytes_that_are_no_text_end_neither_a_wait_nor_a_stream(make_herd, redis_server):
    herd = make_herd()
    order = herd.submit()
    stranger = Redis.from_url(redis_server.url)
    seen: list[str] = []
    before = set(threading.enumerate())

    def wait(read):
        try:
            read()
        except (
            OrderCancelled,
            StreamRestarted,
        ) as error:  # a stranger's text was shown
            seen.append(error.code)

    waiting = [
        threading.Thread(target=wait, args=(lambda: order.result(60),), daemon=True),
        threading.Thread(target=wait, args=(lambda: list(order.stream()),), daemon=True),
    ]
    for one in waiting:
        one.start()
    wait_for(lambda: stranger.pubsub_numsub(ENDED_CHANNEL)[0][1], "it listens")
    for _ in range(3):
        # Seen once: nobody listened for a moment, and did again.
        wait_for(lambda: stranger.publish(ENDED_CHANNEL, b"\xff\xfe \xc3\x28"), "it hears it")
    stranger.xadd(text_stream(order.id, 1), {"o": 0, "t": b"\xff\xfe"})
    (watching,) = [one for one in set(threading.enumerate()) - before if one.name == "herd-watch"]
    order.cancel()
    for one in waiting:
        one.join(60)
    assert len(seen) == 2
    assert watching.is_alive()
    wait_for(lambda: stranger.pubsub_numsub(ENDED_CHANNEL)[0][1] == 1, "it listens as before")
