"""The room's app: routes, lines that are held, and how it is served."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from typing import Annotated, Any

import structlog
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, FastAPI, Header, Path, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, StrictStr
from sse_starlette import EventSourceResponse, ServerSentEvent

from herder.errors import HerdError, Unauthorized
from herder.examples.room.rooms import Page, Rooms
from herder.examples.room.rules import NameTaken
from herder.examples.room.settings import RoomSettings
from herder.examples.room.store import Member, Store
from herder.version import __version__
from herder.web import errors
from herder.web.errors import ApiResponse, BadRequest, TooManyStreams, body_of, refusal
from herder.web.faults import AnswerWhenBroken
from herder.web.serving import BoundedBody, BoundedHead, join_address, listen, run

_log = structlog.get_logger("herder.examples.room")

MAX_BODY_BYTES = 65_536
MAX_LINES = 1000
MAX_PAGE = 100
MAX_WAIT_S = 60
MAX_ID = 2**62
PING_S = 15


class Bell:
    """Wakes those who wait for a room, on the event loop."""

    def __init__(self) -> None:
        self._rung: dict[str, asyncio.Event] = {}
        self.open = 0
        self.closed = False

    def listen(self, room: str) -> asyncio.Event:
        """Return an event that is set when something is said.

        Asked for before one looks, none is missed.
        """
        event = self._rung.setdefault(room, asyncio.Event())
        if self.closed:
            event.set()
        return event

    def ring(self, room: str) -> None:
        """Something was said."""
        if event := self._rung.pop(room, None):
            event.set()

    def close(self) -> None:
        """Send all home who wait."""
        self.closed = True
        for event in self._rung.values():
            event.set()

    def check_lines(self) -> None:
        """See that one more line may be held.

        Raises:
            TooManyStreams: all are taken.
        """
        if self.open >= MAX_LINES:
            raise TooManyStreams(
                f"The room already has {MAX_LINES} open connections, the most allowed; try again "
                "in a second.",
                1,
            )

    @contextmanager
    def line(self) -> Iterator[None]:
        """Take one of the lines that may be held at once.

        Raises:
            TooManyStreams: all are taken.
        """
        self.check_lines()
        self.open += 1
        try:
            yield
        finally:
            self.open -= 1


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class JoinBody(_Body):
    """The body of a request to join."""

    name: StrictStr


class SayBody(_Body):
    """The body of a message."""

    text: StrictStr


async def _rooms(request: Request) -> Rooms:
    rooms: Rooms = request.app.state.rooms
    return rooms


async def _bell(request: Request) -> Bell:
    bell: Bell = request.app.state.bell
    return bell


_bearer = HTTPBearer(auto_error=False, description="The token that you got when joining.")
Context = Annotated[Rooms, Depends(_rooms)]
TheBell = Annotated[Bell, Depends(_bell)]
Shown = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
RoomName = Annotated[str, Path(max_length=64)]


async def _listener(room: RoomName, rooms: Context, shown: Shown) -> Member | None:
    """Return the listener's name, if one is given: listening keeps the name."""
    return None if shown is None else await run_sync(rooms.recognise, room, shown.credentials)


async def _speaker(member: Annotated[Member | None, Depends(_listener)]) -> Member:
    if member is None:
        raise Unauthorized(
            "Send the token that you got when joining, as `Authorization: Bearer room_…`."
        )
    return member


Listener = Annotated[Member | None, Depends(_listener)]
Speaker = Annotated[Member, Depends(_speaker)]
router = APIRouter(prefix="/v1/rooms", tags=["rooms"], default_response_class=ApiResponse)


@router.get("")
async def rooms_(rooms: Context) -> dict[str, Any]:
    """Return the rooms that there are, and how much is kept of each."""
    counted = [(name, await run_sync(rooms.count, name)) for name in rooms.names]
    return {"rooms": [{"room": name, "messages": count} for name, count in counted]}


@router.get("/{room}/members")
async def members(room: RoomName, rooms: Context) -> dict[str, Any]:
    """Return the names that are taken."""
    return {"members": await run_sync(rooms.members, room)}


@router.post("/{room}/members", status_code=201)
async def join(room: RoomName, body: JoinBody, rooms: Context, request: Request) -> dict[str, str]:
    """Take a name. The token that comes back is shown once; who has it speaks under the name."""
    address = request.client.host if request.client else ""
    member, token = await run_sync(rooms.join, room, body.name, address)
    return {"room": room, "name": member.name, "member": member.id, "token": token}


@router.delete("/{room}/members/me", status_code=204)
async def leave(rooms: Context, speaker: Speaker) -> Response:
    """Give the name back."""
    await run_sync(rooms.leave, speaker)
    return Response(status_code=204)


@router.post("/{room}/messages", status_code=201)
async def say(body: SayBody, rooms: Context, bell: TheBell, speaker: Speaker) -> dict[str, Any]:
    """Say something."""
    said = await run_sync(rooms.say, speaker, body.text)
    bell.ring(speaker.room)
    return asdict(said)


@router.get("/{room}/messages")
async def messages(
    room: RoomName,
    rooms: Context,
    bell: TheBell,
    _: Listener,
    after: Annotated[int | None, Query(ge=0, le=MAX_ID, description="The cursor.")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
    wait: Annotated[int, Query(ge=0, le=MAX_WAIT_S, description="Seconds to wait.")] = 0,
) -> dict[str, Any]:
    """Return the messages after the cursor, oldest first; without one, the latest.

    With `wait`, the answer comes when there is something, or after that time. `missed`: messages
    after the cursor were forgotten, as history is bounded.
    """
    rung = bell.listen(rooms.known(room))
    page = await run_sync(rooms.read, room, after, limit)
    if wait and not page.messages:
        with bell.line():
            try:
                await asyncio.wait_for(rung.wait(), wait)
            except TimeoutError:
                return asdict(page)
        page = await run_sync(rooms.read, room, after, limit)
    return asdict(page)


@router.get("/{room}/events", response_class=EventSourceResponse)
async def events(
    room: RoomName,
    rooms: Context,
    bell: TheBell,
    listener: Listener,
    last_event_id: Annotated[str | None, Header()] = None,
) -> EventSourceResponse:
    """Stream messages, as server-sent events, from now on or from `Last-Event-ID` on.

    `message`, and `missed` where messages in between were forgotten.
    """
    rooms.known(room)
    bell.check_lines()
    cursor = _cursor(last_event_id)
    if cursor is None:
        cursor = (await run_sync(rooms.read, room, None, 1)).next

    async def happening() -> AsyncIterator[ServerSentEvent]:
        with bell.line():
            at = cursor
            while not bell.closed:
                rung = bell.listen(room)
                page: Page = await run_sync(rooms.read, room, at, MAX_PAGE)
                if page.missed:
                    yield ServerSentEvent("{}", event="missed")
                for one in page.messages:
                    yield ServerSentEvent(json.dumps(asdict(one)), event="message", id=str(one.id))
                at = page.next
                if not page.messages:
                    await _until(rung, rooms, listener)

    return EventSourceResponse(happening(), ping=PING_S)


async def _until(rung: asyncio.Event, rooms: Rooms, listener: Member | None) -> None:
    """Wait for the bell, and hold the name of who listens meanwhile."""
    try:
        await asyncio.wait_for(rung.wait(), 60)
    except TimeoutError:
        if listener is not None:
            await run_sync(rooms.still_here, listener)


def _cursor(last_event_id: str | None) -> int | None:
    if not last_event_id:
        return None
    if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 19):
        raise BadRequest("Last-Event-ID is not an id that this stream sent.", "Last-Event-ID")
    return int(last_event_id)


def make_app(rooms: Rooms, bell: Bell, max_header_bytes: int) -> FastAPI:
    """Return the app of one process's rooms."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        app.openapi()  # kept; made for the first who asks, it would hold up all others
        app.state.rooms, app.state.bell = rooms, bell
        yield

    app = FastAPI(
        title="Llama Herder's room",
        version=__version__,
        description="A chat room that several programs can join.",
        lifespan=life,
        # Its pages would load scripts from elsewhere; /openapi.json says the same.
        docs_url=None,
        redoc_url=None,
        default_response_class=ApiResponse,
    )
    errors.register(app)

    async def taken(_: Request, error: Exception) -> ApiResponse:
        assert isinstance(error, HerdError)
        return refusal(body_of(error.message, 409, error.code, "name", error.data), 409)

    async def healthz() -> dict[str, str]:
        """Return whether this process answers."""
        return {"status": "ok"}

    app.add_exception_handler(NameTaken, taken)
    app.include_router(router)
    app.add_api_route("/healthz", healthz, response_class=ApiResponse)
    app.add_middleware(BoundedBody, most=MAX_BODY_BYTES)
    app.add_middleware(BoundedHead, most=max_header_bytes)
    app.add_middleware(AnswerWhenBroken)
    return app


def serve(settings: RoomSettings, said: Callable[[str], None] = lambda _: None) -> None:
    """Serve the rooms until told to stop (SIGTERM, SIGINT).

    Args:
        settings: theirs.
        said: gets the address once it answers there.

    Raises:
        SetupError: the address or the file cannot be had.
    """
    store = Store(settings.room_path)
    try:
        rooms = Rooms(store, settings, clock_us=lambda: time.time_ns() // 1000)
        bell = Bell()
        listening = listen(settings.room_host, settings.room_port, "room", "HERD_ROOM_PORT")
        host, port = listening.getsockname()[:2]

        def ready() -> None:
            said(f"http://{join_address(host, port)}")
            _log.info("room_ready", host=host, port=port)

        run(
            make_app(rooms, bell, settings.max_header_bytes),
            listening,
            bounds=settings,
            ready=ready,
            stopping=bell.close,
        )
        _log.info("room_ended")
    finally:
        store.close()
