"""The settings of a room, `HERD_ROOM_*`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from herder.errors import InvalidName, SetupError
from herder.examples.room.rules import parse_room
from workers.transport.settings import TransportSettings, WrongSetting, read_settings

MOST_ROOMS = 100


class RoomSettings(TransportSettings):
    """The settings of `herd room`."""

    room_host: Annotated[
        str,
        Field(
            description="The address that the room server listens on; 0.0.0.0 for every address "
            "of the host."
        ),
    ] = "127.0.0.1"
    room_port: Annotated[
        int, Field(ge=0, le=65_535, description="The room server's port; 0 for any free one.")
    ] = 8081
    room_file: Annotated[
        str, Field(description="The file that keeps the messages; empty for room.db in HERD_HOME.")
    ] = ""
    room_names: Annotated[
        str, Field(description="The names of the rooms, separated by commas.")
    ] = "lobby"
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

    @field_validator("room_names")
    @classmethod
    def _rooms(cls, value: str) -> str:
        names = [name.strip() for name in value.split(",")]
        try:
            names = [parse_room(name) for name in names]
        except InvalidName as error:
            raise ValueError(error.message.rstrip(".")) from None
        if len(set(names)) != len(names) or len(names) > MOST_ROOMS:
            raise ValueError(f"it must be at most {MOST_ROOMS} different names")
        return value

    @property
    def rooms(self) -> list[str]:
        """The rooms' names."""
        return [name.strip() for name in self.room_names.split(",")]

    @property
    def room_path(self) -> Path:
        """The file that keeps what was said."""
        return Path(self.room_file).expanduser() if self.room_file else self.home / "room.db"


def load_settings(home: Path | None = None, **values: object) -> RoomSettings:
    """Read the settings of a room.

    Args:
        home: the home folder; None for `HERD_HOME`, else `~/.llama-herder`.
        values: settings that go before environment and file.

    Raises:
        SetupError: a value is wrong; the sentence names it.
    """
    try:
        return read_settings(RoomSettings, home, **values)
    except WrongSetting as error:
        raise SetupError(str(error), name=error.name) from None
