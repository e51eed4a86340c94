"""A worker says by how much its clock differs from the herders'."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Take the database to this version."""
    op.add_column(
        "worker", sa.Column("clock_ahead_s", sa.BigInteger(), server_default="0", nullable=False)
    )
