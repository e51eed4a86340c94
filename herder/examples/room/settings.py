"""The settings of a room, `HERD_ROOM_*`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import NoDecode

from herder.errors import InvalidName
from herder.examples.room.rules import parse_room
from herder.web.bounds import HttpBounds
from workers.transport.settings import TransportSettings, from_text

MAX_ROOMS = 100


def _rooms(text: str) -> tuple[str, ...]:
    try:
        names = tuple(parse_room(name.strip()) for name in text.split(","))
    except InvalidName as error:
        raise ValueError(error.message.rstrip(".")) from None
    if len(set(names)) != len(names) or len(names) > MAX_ROOMS:
        raise ValueError(f"it must be at most {MAX_ROOMS} different names")
    return names


class RoomSettings(TransportSettings, HttpBounds):
    """The settings of `herd room`."""

    room_host: Annotated[
        str,
        Field(
            description="The address that the room server listens on; 0.0.0.0 for every address "
            "of the host, :: for its IPv6 addresses too."
        ),
    ] = "127.0.0.1"
    room_port: Annotated[
        int, Field(ge=0, le=65_535, description="The room server's port; 0 for any free one.")
    ] = 8081
    room_file: Annotated[
        str, Field(description="The file that keeps the messages; empty for room.db in HERD_HOME.")
    ] = ""
    room_names: Annotated[
        tuple[str, ...],
        NoDecode,
        from_text(_rooms),
        Field(description="The names of the rooms, separated by commas."),
    ] = ("lobby",)
    room_history: Annotated[
        int,
        Field(
            ge=1,
            le=1_000_000,
            description="How many messages a room keeps; older ones are deleted.",
        ),
    ] = 1000
    room_messages_per_minute: Annotated[
        int, Field(ge=1, le=60_000, description="How many messages one name may send per minute.")
    ] = 60

    @property
    def room_path(self) -> Path:
        """The file that keeps what was said."""
        return Path(self.room_file).expanduser() if self.room_file else self.home / "room.db"
