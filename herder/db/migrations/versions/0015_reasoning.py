"""A model's reasoning is kept beside its answer, and the number of tokens that went into it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Take the database to this version."""
    op.add_column("order_text", sa.Column("reasoning", sa.Text()))
    op.add_column("order_text", sa.Column("reasoning_tokens", sa.BigInteger()))
