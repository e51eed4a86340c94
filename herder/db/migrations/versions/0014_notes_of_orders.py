"""An order's metadata, and the id of the request it came by, are kept beside its prompt."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Take the database to this version."""
    op.add_column("order_text", sa.Column("notes", sa.Text()))
