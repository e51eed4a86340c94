"""The table of settings in README.md, made from the settings classes.

python -m deploy.settings_table            print it
python -m deploy.settings_table --write    put it into README.md
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

from pydantic.fields import FieldInfo

from herder.domain.receipts import decimal_text
from herder.examples.room.settings import RoomSettings
from herder.gateway.settings import GatewaySettings
from herder.settings import InitialPolicy, Settings
from workers.settings import WorkerSettings

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- settings: begin -->", "<!-- settings: end -->"


def table() -> str:
    """Return the table, in Markdown."""
    herder, worker, policy, gateway = (
        kind.model_fields for kind in (Settings, WorkerSettings, InitialPolicy, GatewaySettings)
    )
    gateway = {name: field for name, field in gateway.items() if name not in herder}
    room = {name: field for name, field in RoomSettings.model_fields.items() if name not in herder}
    rows = ["| setting | default | read by | what it is |", "|---|---|---|---|"]
    for name in sorted({*herder, *worker, *policy, *gateway, *room}):
        by = [
            who
            for who, fields in (
                *(("herder", herder), ("gateway", gateway), ("room", room)),
                *(("worker", worker), ("`herd init`", policy)),
            )
            if name in fields
        ]
        field: FieldInfo = {**room, **gateway, **herder, **policy, **worker}[name]
        rows.append(
            f"| `HERD_{name.upper()}` | {_default(field)} | {', '.join(by)} | {field.description} |"
        )
    return "\n".join(rows)


def _default(field: FieldInfo) -> str:
    value = field.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    if isinstance(value, Fraction):
        value = decimal_text(value)
    if isinstance(value, Path) or value in ("", {}):
        return ""
    return f"`{value}`"


def put(readme: str) -> str:
    """Return a README with the table as it is now."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        README.write_text(put(README.read_text()))
    else:
        sys.stdout.write(table() + "\n")
