"""A herder and a gateway that find a database of another version end at once, with one line."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from herder.db import migrations
from tests.support.running import HERD

OTHERS = {"0999": "later version", migrations.KNOWN[-2]: "`herd init` brings it up to date"}


@pytest.mark.parametrize("version", OTHERS)
def test_a_herder_and_a_gateway_refuse_a_database_of_another_version(make_herd, version):
    herd = make_herd()
    with herd.database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": version})
    started = [herd.begin_herder(), herd.start("gateway", ["gateway", "--port", "0"], HERD)]
    for child in started:
        assert child.ended() == 78
        assert child.log.count(OTHERS[version]) == 1
        assert "Traceback" not in child.log
