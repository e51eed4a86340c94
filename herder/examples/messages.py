"""Moves a program over that was written for the original's messages: its send, its receive loop.

    herd = connect("http://127.0.0.1:8080", "herd_…")
    send(herd, {"Action": "Info"})  # was: ao.send({ Target = …, Action = "Info" })
    for message in receive(herd):  # was: Handlers.add("…", …, function(message) … end)
        print(message["Action"], message.get("X-Reference"), message.get("Data"))
What is sent back is `herder/messages/tags.py`'s to say.
"""

from collections.abc import Iterator

import httpx


def connect(url: str, key: str) -> httpx.Client:
    """Connect to a gateway by its address, with a key that `herd key create` made."""
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60)


def send(herd: httpx.Client, tags: dict[str, str]) -> str:
    """Send a message; its id."""
    return str(herd.post("/messages", json=tags).raise_for_status().json()["id"])


def receive(herd: httpx.Client, after: int = 0) -> Iterator[dict[str, str]]:
    """Yield every message to this account from one on, as it comes, for ever."""
    while True:
        page = herd.get(f"/messages?after={after}&wait=30").raise_for_status().json()
        yield from (message["tags"] for message in page["messages"])
        after = page["next"]
