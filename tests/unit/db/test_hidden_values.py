"""An error of the database, as it is logged, says nothing of what was to be written."""

from __future__ import annotations

import json
import traceback

import pytest
from pydantic import ValidationError
from sqlalchemy import bindparam, insert, text
from sqlalchemy.exc import SQLAlchemyError

from herder.db.database import Database
from herder.db.tables import account
from herder.host import home
from herder.settings import InitialPolicy, load_settings
from workers.wire import InferenceJob, Outcome

pytestmark = pytest.mark.usefixtures("clean_environment")

SECRET = "the-answer-that-nobody-may-read"

TWICE = insert(account).values(name=SECRET, created_us=0)
MISSING = insert(account).values(name=SECRET, created_us=None)
UNBOUND = insert(account).values(name=bindparam("name"), created_us=bindparam("created_us"))
MISSPELT = text("SELECT nothing FROM account WHERE name = :name")


@pytest.fixture
def database(new_database, tmp_path):
    settings = load_settings(tmp_path, database_url=new_database())
    home.init(settings, InitialPolicy(model="stub"))
    made = Database(settings.database)
    yield made
    made.close()


def logged(database, *statements):
    """What a log has of the error that these end in, with its causes."""
    with pytest.raises(Exception) as raised, database.write() as connection:  # noqa: PT011, PT012
        for statement, values in statements:
            connection.execute(statement, values)
    error = raised.value
    assert isinstance(error, SQLAlchemyError) or isinstance(error.__cause__, SQLAlchemyError)
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize(
    "statements",
    [
        pytest.param([(TWICE, None), (TWICE, None)], id="a row that is there already"),
        pytest.param([(MISSING, None)], id="a row with a gap"),
        pytest.param([(UNBOUND, [{"name": SECRET, "created_us": object()}])], id="no value"),
        pytest.param([(MISSPELT, {"name": SECRET})], id="no such column"),
    ],
)
def test_what_was_to_be_written_is_not_in_the_error(database, statements):
    told = logged(database, *statements)
    assert "Error" in told
    assert SECRET not in told


def test_postgresql_quotes_no_value_that_is_of_the_wrong_type(postgres_server, tmp_path):
    database = Database(str(postgres_server.url(postgres_server.new_database())), any_version=True)
    number = text("SELECT CAST(:value AS bigint)")
    document = text("SELECT CAST(CAST(:value AS jsonb) ->> 'text' AS text)")
    try:
        told = logged(database, (number, {"value": SECRET}))
        assert "invalid input syntax for type bigint" in told
        assert SECRET not in told
        told = logged(database, (document, {"value": f'{{"text": "{SECRET}\\u0000"}}'}))
        assert "unsupported Unicode escape sequence" in told
        assert SECRET not in told
    finally:
        database.close()


@pytest.mark.parametrize("kind", [InferenceJob, Outcome])
def test_what_cannot_be_read_is_not_in_the_error(kind):
    with pytest.raises(ValidationError) as raised:
        kind.model_validate_json(json.dumps({"nonce": SECRET, "text": [SECRET], "prompt": 1}))
    assert SECRET not in str(raised.value)
