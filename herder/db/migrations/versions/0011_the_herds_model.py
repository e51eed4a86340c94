"""The herd's model is the one that was named, and no longer that of the first worker to join.

A herd goes on with the model that it served: that of the worker seen last.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Take the database to this version."""
    worker = sa.table(
        "worker", sa.column("model", sa.Text()), sa.column("seen_us", sa.BigInteger())
    )
    policy = sa.table("policy", sa.column("default_model", sa.Text()))
    last = sa.select(worker.c.model).order_by(worker.c.seen_us.desc()).limit(1)
    served = op.get_bind().execute(last).scalar_one_or_none()
    if served is not None:
        op.execute(policy.update().values(default_model=served))
