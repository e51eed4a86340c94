"""Books that are ranked anew in pieces."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Take the database to this version."""
    for name in ("rank_epoch", "ranked_epoch"):
        op.add_column("model", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))
