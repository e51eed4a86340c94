"""Background duties: who has one, when it is due, and what was counted of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Take the database to this version."""
    op.create_table(
        "duty",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=True),
        *(
            sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)
            for name in ("until_us", "due_us", "runs", "failures", "overruns", "busy_us")
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_duty")),
    )
