"""What erasures wait for: when the worker was last heard of, and its trouble.

Revision: 0002, after 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _set_lock_timeout()
    op.add_column("leases", sa.Column("seen_at", sa.DateTime(timezone=True)))
    op.add_column("leases", sa.Column("trouble", sa.String(128)))


def downgrade() -> None:
    _set_lock_timeout()
    op.drop_column("leases", "trouble")
    op.drop_column("leases", "seen_at")


def _set_lock_timeout() -> None:
    # A migration that waits for a lock makes everybody behind it wait too: better that it fails and is run again.
    if op.get_bind().dialect.name == "postgresql":
        op.execute("SET LOCAL lock_timeout = '5s'")
