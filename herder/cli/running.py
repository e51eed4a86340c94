"""The commands that run a herd on this machine: `herd up`, `gateway`, `room` and `demo`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from herder.cli.base import Json, require_home
from herder.client.optional import needing, require


def register(app: typer.Typer) -> None:
    """Add the commands to the `herd` command."""
    app.command(epilog="Examples:\n\nherd up --workers 2\n\nherd up --gateway")(up)
    app.command(epilog="Example: herd gateway --port 8080")(gateway)
    app.command(epilog="Example: herd room --port 8081")(room)
    demos = typer.Typer(invoke_without_command=True)
    demos.callback(epilog="Example: herd demo --json | head")(demo)
    demos.command(epilog="Example: herd demo agents --seconds 60 --json")(agents)
    app.add_typer(demos, name="demo")


def up(
    workers: Annotated[
        int,
        typer.Option(
            "--workers", metavar="N", help="How many workers to start; they share the cores."
        ),
    ] = 1,
    with_gateway: Annotated[
        bool,
        typer.Option(
            "--gateway",
            help="Serve the herd over HTTP too, and make an API key of HERD_ACCOUNT for it, with "
            "play money if that never had any.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Run a herd on this machine until Ctrl-C: Redis, a herder and workers.

    A program that dies is started again. When all workers are ready, it shows how to submit and
    how another worker joins; with --json as one JSON document, with the logs on standard error.
    With --gateway, it shows the address and the key too, ready to paste for programs written for
    OpenAI's API.
    """
    require_home()
    with needing("herder,gateway,worker,demo" if with_gateway else "herder,worker,demo"):
        from herder.host.up import up as run
    if not with_gateway:
        raise typer.Exit(run(workers, as_json=json))
    require("fastapi")
    from herder.gateway.settings import GatewaySettings
    from herder.settings import load

    raise typer.Exit(run(workers, gateway=load(GatewaySettings), as_json=json))


def gateway(
    host: Annotated[
        str | None,
        typer.Option(
            "--host",
            metavar="ADDRESS",
            help="The address to listen on; HERD_GATEWAY_HOST by default.",
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            metavar="N",
            help="The port; HERD_GATEWAY_PORT by default, 0 for any free one.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Serve the herd over HTTP until Ctrl-C, with OpenAI's routes too. Any number may run.

    It speaks plain HTTP: put a TLS proxy in front of it. `herd key create` creates API keys.
    """
    require_home()
    with needing("herder,gateway"):
        from herder.gateway.app import serve
        from herder.gateway.settings import GatewaySettings
        from herder.local.local_herd import LocalHerd
        from herder.settings import load
        from workers.transport.logs import configure_logging
    from herder.cli.show import print_json, say

    given: dict[str, Any] = {"gateway_host": host, "gateway_port": port}
    settings = load(
        GatewaySettings, **{name: value for name, value in given.items() if value is not None}
    )
    configure_logging(settings.log_level)

    def said(url: str) -> None:
        if json:
            print_json({"url": url})
        else:
            say(
                f"The gateway listens on {url}, and {url}/openapi.json describes it. Ctrl-C stops "
                "it."
            )

    herd = LocalHerd(settings)
    try:
        serve(herd, settings, said)
    finally:
        herd.close()


def room(
    host: Annotated[
        str | None,
        typer.Option(
            "--host", metavar="ADDRESS", help="The address to listen on; HERD_ROOM_HOST by default."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port", metavar="N", help="The port; HERD_ROOM_PORT by default, 0 for any free one."
        ),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "--file",
            metavar="PATH",
            help="The file that keeps the messages; HERD_ROOM_FILE by default.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Serve chat rooms that programs can join, until Ctrl-C; no herd is needed.

    Messages are kept in a file of their own. Anybody who can reach the address may read and join.
    """
    with needing("herder,gateway"):
        from herder.examples.room.app import serve
        from herder.examples.room.settings import RoomSettings
        from herder.settings import load
    from herder.cli.show import print_json, say
    from workers.transport.logs import configure_logging

    given: dict[str, Any] = {"room_host": host, "room_port": port, "room_file": file}
    settings = load(
        RoomSettings, **{name: value for name, value in given.items() if value is not None}
    )
    configure_logging(settings.log_level)

    def said(url: str) -> None:
        if json:
            print_json({"url": url, "rooms": settings.room_names})
        else:
            say(
                f"The room server listens on {url}. Its rooms: {', '.join(settings.room_names)}. "
                "Ctrl-C stops it."
            )

    serve(settings, said)


def demo(context: typer.Context, json: Json = False) -> None:
    """Show a herd at work with a real model: three clients, two workers, a queue by price.

    It takes well under two minutes, touches none of your herds and leaves nothing behind.
    """
    if context.invoked_subcommand is not None:
        return
    with needing("herder,worker,demo"):
        from herder.demo.run import demo as run
        from herder.demo.screen import Machine, People
    raise typer.Exit(run(Machine() if json else People()))


def agents(
    seconds: Annotated[
        int,
        typer.Option(
            "--seconds", metavar="N", min=5, max=3600, help="How long the programs run, in seconds."
        ),
    ] = 60,
    json: Json = False,
) -> None:
    """Show programs that buy: two chatbots in a room, and an agent that trades on its mood.

    It touches none of your herds and leaves nothing behind.
    """
    with needing("herder,gateway,worker,demo"):
        from herder.demo.agents import demo_agents as run
        from herder.demo.agents_screen import Machine, People
    raise typer.Exit(run(seconds, Machine() if json else People()))
