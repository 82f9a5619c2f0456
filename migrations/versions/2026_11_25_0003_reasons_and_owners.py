"""Who asked for an erasure, looked up; reasons of erasures that are over, cleared.

A key is shown its own erasures, so lists are read by key. What people gave as a reason is not kept beyond the erasure:
going down does not bring it back.

Revision: 0003, after 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _set_lock_timeout()
    op.create_index("ix_erasures_key_id_seq", "erasures", ["key_id", "seq"])
    erasures = sa.table("erasures", sa.column("status", sa.String), sa.column("reason", sa.String))
    over = erasures.c.status.in_(("forgotten", "erased", "cancelled"))
    op.execute(sa.update(erasures).where(over, erasures.c.reason.is_not(None)).values(reason=None))


def downgrade() -> None:
    _set_lock_timeout()
    op.drop_index("ix_erasures_key_id_seq", "erasures")


def _set_lock_timeout() -> None:
    # A migration that waits for a lock makes everybody behind it wait too: better that it fails and is run again.
    if op.get_bind().dialect.name == "postgresql":
        op.execute("SET LOCAL lock_timeout = '5s'")
