"""Bare FastAPI routes that write and read one row of a herd's database, for comparison.

python -m tests.bench.bare_routes DATABASE_URL PORT
"""

from __future__ import annotations

import sys
from typing import Annotated

import uvicorn
from fastapi import Body, FastAPI
from sqlalchemy import text

from herder.db.database import Database

TABLE = "CREATE TABLE IF NOT EXISTS bare (id INTEGER PRIMARY KEY, said TEXT NOT NULL)"


def make_app(url: str) -> FastAPI:
    """The two routes."""
    database = Database(url, any_version=True)
    with database.write() as connection:
        connection.execute(text(TABLE))
    app = FastAPI()

    @app.post("/rows", status_code=202)
    def write(said: Annotated[str, Body(embed=True)]) -> dict[str, int | str]:
        with database.write() as connection:
            row = connection.execute(
                text("INSERT INTO bare (said) VALUES (:said) RETURNING id"), {"said": said}
            ).one()
            return {"id": int(row.id), "said": said}

    @app.get("/rows/{number}")
    def read(number: int) -> dict[str, int | str]:
        with database.read() as connection:
            row = connection.execute(
                text("SELECT id, said FROM bare WHERE id = :id"), {"id": number}
            ).one()
            return {"id": int(row.id), "said": str(row.said)}

    return app


if __name__ == "__main__":
    uvicorn.run(make_app(sys.argv[1]), port=int(sys.argv[2]), log_config=None, access_log=False)
